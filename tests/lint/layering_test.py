# SPDX-License-Identifier: Apache-2.0
"""Holds the rules of rules.py over every file of the repository, and shows that each of them can fail."""

import pytest
import repository
import rules

SPDX = "// SPDX-License-Identifier: Apache-2.0\n"

# rule -> (path, text) that must be caught. Pieces are joined so that this file itself stays clean.
PLANTED = {
    "layers": [
        ("server/core/scheduler.cc", '#include "server/store/sqlite_job_store.h"\n'),
        ("server/store/sqlite_job_store.cc", '#include "server/api/job_service.h"\n'),
        ("server/api/job_service.cc", '#include "worker/trainer.h"\n'),
        ("worker/train/engine.cc", '#include "worker/vault/file_vault.h"\n'),
        ("worker/trainer.h", '#include "worker/train/engine.h"\n'),
        ("worker/trainer.h", '#include "worker/behaviour/gate_rule.h"\n'),
        ("worker/behaviour/gate_rule.cc", '#include "worker/agent/agent.h"\n'),
        ("worker/screening/guard.cc", '#include "worker/behaviour/gate_rule.h"\n'),
        ("worker/train/engine.cc", '#include "worker/behaviour/gate_rule.h"\n'),
        ("common/behaviour/behaviour_set.cc", '#include "common/text/tokenizer.h"\n'),
        ("worker/agent/agent.cc", '#include "server/core/job.h"\n'),
        ("client/cpp/client.cc", '#include "worker/trainer.h"\n'),
        ("client/cpp/client.cc", '#include "client/cli/table.h"\n'),
        ("common/base/file.cc", '#include "common/dataset/checker.h"\n'),
        ("common/text/tokenizer.cc", '#include "ballast/v1/fine_tuning_job.pb.h"\n'),
        ("elsewhere/thing.cc", "int x;\n"),
        ("server/core/job_test.cc", '#include "worker/testing/fake_engine.h"\n'),
        ("server/api/delta_service.cc", '#include "common/http/http_client.h"\n'),
        ("common/base/file.cc", '#include "file.h"\n'),
    ],
    "homes": [
        ("worker/agent/agent.cc", "#include <torch/torch.h>\n"),
        ("server/core/job.cc", "#include <ATen/ATen.h>\n"),
        ("server/api/job_service.cc", "#include <sqlite3.h>\n"),
        ("server/core/job.cc", "#include <grpcpp/grpcpp.h>\n"),
        ("worker/train/engine.cc", '#include "ballast/v1/sampling_service.grpc.pb.h"\n'),
        ("server/api/job_service.cc", '#include "spdlog/spdlog.h"\n'),
        ("worker/train/engine.cc", "#include <CLI/CLI.hpp>\n"),
        ("client/cpp/download.cc", '#include "common/rust/include/ballast_http.h"\n'),
    ],
    "restricted": [
        ("server/core/scheduler.cc", "auto now = absl::Now();\n"),
        ("server/core/scheduler.cc", "auto now = std::chrono::steady_clock::now();\n"),
        ("server/core/scheduler_test.cc", "absl::SleepFor(absl::Seconds(1));\n"),
        ("common/base/file.cc", 'throw std::runtime_error("no");\n'),
        ("common/base/file.cc", "throw;\n"),
        ("worker/agent/agent.cc", "std::thread([] {}).detach();\n"),
        ("worker/train/lora.cc", "std::random_device device;\n"),
        ("server/api/job_service.cc", 'std::cout << "hello";\n'),
    ],
    "catch_all": [("worker/agent/agent.cc", "try {\n  Run();\n} catch (...) {\n}\n")],
    "guard": [("common/base/file.h", SPDX + "#ifndef FILE_H\n#define FILE_H\n#endif\n")],
    "spdx": [
        ("common/base/file.cc", "int x;\n"),
        ("scripts/thing", "#!/usr/bin/env bash\nset -e\n"),
        ("tests/x.py", "import os\n"),
    ],
    "machine_paths": [("docs/x.md", "see /wo" + "rk/main\n"), ("scripts/x", "cat /ro" + "ot/x\n")],
    "registry_hosts": [("scripts/setup", "pip -i https://pypi" + ".org/simple\n")],
    "unfinished": [("common/base/file.cc", "// TO" + "DO: more\n")],
    "disabled_tests": [
        ("common/base/file_test.cc", "TEST(File, DISABLED_Reads) {\n"),
        ("common/base/file_test.cc", "  GTEST_SKIP();\n"),
    ],
}

# What must not be caught: a rule that fires on everything is no rule either.
HARMLESS = [
    ("server/store/sqlite_job_store.cc", SPDX + '#include <sqlite3.h>\n#include "server/core/job_store.h"\n'),
    ("worker/train/engine.cc", SPDX + '#include <torch/torch.h>\n#include "worker/trainer.h"\n'),
    ("server/api/job_service.cc", SPDX + '#include "ballast/v1/fine_tuning_service.grpc.pb.h"\n'),
    ("server/core/job.cc", SPDX + "// never throw; absl::Now() is not for us\nint x;\n"),
    ("worker/agent/agent.cc", SPDX + "} catch (...) {  // libraries may throw anything\n"),
    ("worker/agent/agent_test.cc", SPDX + '#include "worker/testing/fake_engine.h"\n#include "worker/vault/x.h"\n'),
    ("tests/integration/all_test.cc", SPDX + '#include "server/core/job.h"\n#include "worker/trainer.h"\n'),
    ("scripts/x", "#!/usr/bin/env bash\n# SPDX-License-Identifier: Apache-2.0\n"),
]


@pytest.mark.parametrize("rule", rules.CHECKS)
def test_repository_keeps(rule):
    violations = []
    for path in repository.tracked_files():
        if path.endswith((".png", ".ico", ".woff2")):
            continue
        violations += rules.CHECKS[rule](path, repository.read(path))
    assert not violations, "\n" + "\n".join(violations)


@pytest.mark.parametrize("rule", rules.CHECKS)
def test_every_rule_has_a_planted_violation(rule):
    assert PLANTED.get(rule)


@pytest.mark.parametrize(
    "rule,path,text", [(rule, path, text) for rule, cases in PLANTED.items() for path, text in cases]
)
def test_planted_violation_is_caught(rule, path, text):
    assert rules.CHECKS[rule](path, text)


@pytest.mark.parametrize("path,text", HARMLESS)
def test_harmless_file_passes(path, text):
    found = [violation for check in rules.CHECKS.values() for violation in check(path, text)]
    assert not found, found
