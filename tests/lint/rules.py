# SPDX-License-Identifier: Apache-2.0
"""The rules of the source tree, as data and as pure functions.

Each check takes (path, text) of one file and returns its violations as strings "path:line: what". The tests
run them over the repository, and over planted violations to show that each check can fail.
"""

import re

# --- Who may include whom ---------------------------------------------------------------------------------
#
# The first matching row is a file's home; the row lists the homes whose headers it may include beside its
# own. This is the dependency rule of docs/ARCHITECTURE.md: proto, common, then server, worker and client,
# which never include each other; siblings meet in the interface before them.
COMMON = [
    "common/base",
    "common/text",
    "common/dataset",
    "common/artifact",
    "common/envelope",
    "common/behaviour",
    "common/http",
    "common/rpc",
]
SERVER_CORE = [
    "proto",
    "common/base",
    "common/text",
    "common/dataset",
    "common/artifact",
    "common/envelope",
    "common/behaviour",
]
LAYERS = [
    ("common/base", ["proto"]),
    ("common/rust", []),
    ("common/http", ["common/base", "common/rust"]),
    ("common/text", ["common/base", "common/rust"]),
    ("common/artifact", ["common/base", "proto"]),
    ("common/dataset", ["common/base", "common/text", "proto"]),
    ("common/envelope", ["common/base", "common/dataset", "common/artifact", "proto"]),
    ("common/behaviour", ["common/base"]),
    ("common/rpc", ["common/base", "proto"]),
    ("server/core", SERVER_CORE),
    ("server/store", [*SERVER_CORE, "server/core"]),
    ("server/blob", [*SERVER_CORE, "common/rust", "server/core"]),
    ("server/auth", [*SERVER_CORE, "server/core"]),
    ("server/api", [*SERVER_CORE, "common/rpc", "server/core"]),
    ("server/testing", [*SERVER_CORE, "common/http", "common/rpc"]),
    ("server", [*SERVER_CORE, "common/rpc", "server/core", "server/store", "server/blob", "server/auth", "server/api"]),
    ("worker/behaviour", ["proto", "common/base", "common/text", "common/behaviour", "worker"]),
    ("worker/screening", ["common/base", "worker"]),
    ("worker/agent", ["proto", *COMMON, "worker", "worker/behaviour", "worker/screening"]),
    ("worker/train", ["common/base", "common/text", "common/dataset", "common/artifact", "worker"]),
    ("worker/vault", ["proto", "common/base", "common/artifact", "worker"]),
    ("worker", ["proto", *COMMON, "worker/agent", "worker/behaviour", "worker/screening", "worker/train", "worker/vault"]),
    ("client/testing", ["proto", *COMMON, "client/cpp"]),
    ("client/cpp", ["proto", *COMMON]),
    ("client/cli", ["proto", *COMMON, "client/cpp"]),
]
# Tests that join programs may see all of them.
OUTSIDE_LAYERS = ("tests/",)
# External headers that are included with quotes and have no folder.
FLAT_LIBRARIES = ("simdjson.h", "sqlite3.h", "libpq-fe.h", "httplib.h")
# Interfaces that siblings share: these files of `worker` include none of its parts.
WORKER_INTERFACES = re.compile(r"^worker/(trainer|secret|vector_vault)\.(h|cc)$")

# --- Heavy dependencies have one home ---------------------------------------------------------------------
#
# What an angle or quoted include starts with -> path prefixes that may include it. Tests that join programs
# (tests/) may use all of them.
HOMES = {
    "libtorch": (re.compile(r"^(torch|ATen|c10|caffe2)/"), ("worker/train/",)),
    "SQLite": (re.compile(r"^sqlite3?\.h$"), ("server/store/",)),
    "PostgreSQL": (re.compile(r"^(pqxx/|libpq)"), ("server/store/",)),
    "gRPC": (
        re.compile(r"^(grpcpp|grpc|grpc\+\+)/|\.grpc\.pb\.h$"),
        ("common/rpc/", "server/api/", "server/main.cc", "server/testing/", "worker/agent/", "worker/main.cc", "worker/testing/", "client/"),
    ),
    "HTTP": (re.compile(r"ballast_http\.h$"), ("common/http/",)),
    "the tokenizer's Rust crate": (re.compile(r"ballast_text\.h$|text_ffi\.h$"), ("common/text/",)),
    # The agent's test listens to the log for what must never be in it.
    "spdlog": (re.compile(r"^spdlog/"), ("common/base/log.", "worker/testing/agent_fixture.h")),
    "yaml-cpp": (re.compile(r"^yaml-cpp/"), ("common/base/config_file", "client/cli/")),
    "CLI11": (re.compile(r"^CLI/"), ("server/main.cc", "worker/main.cc", "client/cli/")),
    "prometheus-cpp": (re.compile(r"^prometheus/"), ("server/api/", "server/main.cc", "worker/agent/", "worker/main.cc")),
}

# --- What only a few files may do --------------------------------------------------------------------------
#
# name -> (pattern, paths that may, why only those). Tests are free, except where EVEN_IN_TESTS names the rule.
RESTRICTED = {
    "real time": (
        re.compile(r"\babsl::Now\s*\(|\bstd::chrono::(system|steady)_clock::now\s*\(|\btime\s*\(\s*(NULL|nullptr)\s*\)"),
        {
            "common/base/clock.cc": "the one clock; everything else takes a Clock&",
            "client/cpp/connection.cc": "gRPC deadlines are points of real time",
            "server/api/server.cc": "the deadline of gRPC's shutdown is a point of real time",
            "worker/agent/worker_client.cc": "gRPC deadlines are points of real time",
            "client/cli/": "child processes and terminals live in real time",
        },
    ),
    "sleeping": (
        re.compile(r"\babsl::SleepFor\s*\(|\bstd::this_thread::sleep_|(?<![\w.>])u?sleep\s*\("),
        {
            "server/api/server.cc": "a start waits for a server that may be gone, of which only time tells",
            "server/store/postgres_job_store.cc": "a transaction that another has stopped runs again after a pause",
            "client/cpp/client_test.cc": "gRPC's synchronous API has no signal for a cancelled call",
            "client/cli/": "a command that waits looks again now and then, where the API has no watch",
            "tests/integration/world.cc": "data sets and vectors have no watch: it looks again now and then",
            "tests/bench/call_load.cc": "a load of so many calls a second waits for the next one's turn",
        },
    ),
    "throwing": (
        re.compile(r"(?<![\w.])throw\b(?!\s*\()[^;]*;"),
        {
            "worker/secret.cc": "an allocator reports failure by bad_alloc, as the standard containers expect",
        },
    ),
    "std::regex": (re.compile(r"\bstd::regex"), {}),
    "std::random_device": (
        re.compile(r"\bstd::random_device\b|\bs?rand\s*\(\s*\)"),
        {
            "client/cpp/connection.cc": "jitter of retries; nothing secret or repeatable hangs on it",
        },
    ),
    "detached threads": (re.compile(r"\.detach\s*\(\s*\)"), {}),
    "printing outside the programs": (
        re.compile(r"\bstd::c(out|err)\b|(?<![\w:])printf\s*\("),
        {
            "client/cli/": "the command line talks to people",
            "server/main.cc": "a failed start is told on standard error before there is a log",
            "worker/main.cc": "a failed start is told on standard error before there is a log",
        },
    ),
}
EVEN_IN_TESTS = {"sleeping", "std::regex", "detached threads"}

# Built from pieces so that this file does not trip its own rule.
MACHINE_PATHS = re.compile(
    "|".join([r"(?<![\w.])/wo" r"rk/", r"/fa" r"rm/", r"\.lib" r"rary\b", r"/tmp/bash" r"_jobs", r"/ro" r"ot/"])
)
REGISTRY_HOSTS = re.compile(
    "|".join([
        r"pypi" r"\.org", r"pythonhosted" r"\.org", r"(?<!/)\bcrates" r"\.io\b", r"proxy\.golang" r"\.org",
        r"registry\.npm" r"js\.org", r"repo1?\.maven", r"deb\.debian" r"\.org", r"archive\.ubuntu" r"\.com",
    ])
)
# Generated by cargo, which writes its registry's name into every entry.
REGISTRY_EXEMPT = re.compile(r"(^|/)Cargo\.lock$")

SPDX = "SPDX-License-Identifier: Apache-2.0"
SPDX_SUFFIXES = (".h", ".cc", ".proto", ".py", ".sh", ".rs", ".cmake")

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
LINE_COMMENT = re.compile(r"//.*$")
STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')


def is_cpp(path):
    return path.endswith((".h", ".cc"))


def is_test(path):
    return path.startswith("tests/") or path.endswith("_test.cc") or "/testing/" in path


def home_of(path):
    """The layer of a source file or of what a quoted include names; None where the table has none."""
    if re.match(r"^(ballast|google)/.*\.pb\.h$", path) or path.startswith("proto/"):
        return "proto"
    for home, _ in LAYERS:
        if path.startswith(home + "/"):
            return home
    return None


def code_lines(text):
    """(number, line) without comments and string contents. Block comments are not used in this project."""
    for number, line in enumerate(text.splitlines(), 1):
        yield number, LINE_COMMENT.sub("", STRING.sub('""', line))


def includes(text):
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if match:
            yield number, match.group(1), match.group(2)


def check_layers(path, text):
    if not is_cpp(path) or path.startswith(OUTSIDE_LAYERS):
        return []
    home = home_of(path)
    if home is None:
        return [f"{path}:1: belongs to no layer of tests/lint/rules.py"]
    allowed = set(dict(LAYERS).get(home, [])) | {home}
    if is_test(path):
        # A test may build what stands behind an interface: siblings and fakes of its own program.
        program = path.split("/", 1)[0]
        allowed |= {other for other, _ in LAYERS if other == program or other.startswith(program + "/")}
    if WORKER_INTERFACES.match(path):
        allowed -= {"worker/agent", "worker/behaviour", "worker/train", "worker/vault"}
    violations = []
    for number, quote, target in includes(text):
        target_home = home_of(target)
        if target_home is not None and target_home not in allowed:
            violations.append(f"{path}:{number}: {home} must not include {target} of {target_home}")
        elif target_home is None and quote == '"' and "/" not in target and target not in FLAT_LIBRARIES:
            violations.append(f"{path}:{number}: include {target} by its path from the root")
    return violations


def check_homes(path, text):
    if not is_cpp(path) or path.startswith("tests/"):
        return []
    violations = []
    for number, _, target in includes(text):
        for name, (pattern, homes) in HOMES.items():
            if pattern.search(target) and not path.startswith(homes):
                violations.append(f"{path}:{number}: {name} has its home in {', '.join(homes)}")
    return violations


def check_restricted(path, text):
    if not is_cpp(path):
        return []
    violations = []
    for name, (pattern, allowed) in RESTRICTED.items():
        if path.startswith(tuple(allowed)) or (is_test(path) and name not in EVEN_IN_TESTS):
            continue
        for number, line in code_lines(text):
            if pattern.search(line):
                violations.append(f"{path}:{number}: {name} is not for this file (tests/lint/rules.py)")
    return violations


def check_catch_all(path, text):
    """A handler that swallows everything in silence hides bugs: catch (...) must have a comment beside it."""
    if not is_cpp(path):
        return []
    lines = text.splitlines()
    return [
        f"{path}:{number}: say in a comment why every exception is caught here"
        for number, line in code_lines(text)
        if re.search(r"catch\s*\(\s*\.\.\.\s*\)", line)
        and not any("//" in near for near in lines[max(0, number - 3):number + 2])
    ]


def check_guard(path, text):
    if not path.endswith(".h"):
        return []
    guard = "BALLAST_" + re.sub(r"[^A-Za-z0-9]", "_", path).upper() + "_"
    # A file that is meant to be included more than once says so.
    if f"#ifndef {guard}\n#define {guard}\n" in text or "No include guard" in text:
        return []
    return [f"{path}:1: the include guard should be {guard}"]


def check_spdx(path, text):
    if not path.endswith(SPDX_SUFFIXES) and not text.startswith("#!"):
        return []
    lines = text.splitlines()
    head = lines[:2] if text.startswith(("#!", "# shellcheck")) else lines[:1]
    return [] if any(SPDX in line for line in head) else [f"{path}:1: the first line should be '{SPDX}'"]


def check_machine_paths(path, text):
    return [
        f"{path}:{number}: names a path of one machine"
        for number, line in enumerate(text.splitlines(), 1) if MACHINE_PATHS.search(line)
    ]


def check_registry_hosts(path, text):
    if REGISTRY_EXEMPT.search(path):
        return []
    return [
        f"{path}:{number}: names a package registry's host"
        for number, line in enumerate(text.splitlines(), 1) if REGISTRY_HOSTS.search(line)
    ]


UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")


def check_unfinished(path, text):
    return [
        f"{path}:{number}: marks unfinished work; finish it or file an issue"
        for number, line in enumerate(text.splitlines(), 1) if UNFINISHED.search(line)
    ]


# A test that waves itself through proves nothing. GTEST_SKIP needs its reason in the same line.
def check_disabled_tests(path, text):
    if not is_cpp(path):
        return []
    return [
        f"{path}:{number}: a test is switched off"
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(r"\bDISABLED_\w|GTEST_SKIP\(\)\s*;", line)
    ]


CHECKS = {
    check.__name__.removeprefix("check_"): check
    for check in (
        check_layers, check_homes, check_restricted, check_catch_all, check_guard, check_spdx,
        check_machine_paths, check_registry_hosts, check_unfinished, check_disabled_tests,
    )
}
