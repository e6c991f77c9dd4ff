# SPDX-License-Identifier: Apache-2.0
"""The formatters and linters made by others, each shown to catch a planted fault before it is trusted."""

import json
import pathlib
import subprocess
import sys

import clang_tidy
import pytest
import repository

BUF = pathlib.Path(sys.executable).with_name("buf")


def run(*command, cwd=repository.ROOT):
    return subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)


def misformatted(files, cwd=repository.ROOT):
    return run("clang-format", f"--style=file:{repository.ROOT / '.clang-format'}", "--dry-run", "-Werror", *files,
               cwd=cwd)


def test_cpp_is_formatted():
    files = repository.with_suffix(".h", ".cc")
    assert files
    result = misformatted(files)
    wrong = sorted({line.split(":", 1)[0] for line in result.stderr.splitlines() if "clang-format-violations" in line})
    assert result.returncode == 0, "scripts/lint --fix puts these right:\n" + "\n".join(wrong or [result.stderr])


def test_misformatted_cpp_is_caught(tmp_path):
    (tmp_path / "x.cc").write_text("int  f( ) {return 1 ;}\n")
    assert misformatted(["x.cc"], tmp_path).returncode != 0


def test_contract_passes_buf_lint():
    result = run(BUF, "lint", "proto")
    assert result.returncode == 0, result.stdout + result.stderr


def test_bad_proto_fails_buf_lint(tmp_path):
    (tmp_path / "buf.yaml").write_text(repository.read("proto/buf.yaml"))
    (tmp_path / "x.proto").write_text('syntax = "proto3";\npackage x;\nmessage bad_name { string BadField = 1; }\n')
    found = run(BUF, "lint", cwd=tmp_path).stdout
    assert "PascalCase" in found and "lower_snake_case" in found


def test_shell_scripts_pass_shellcheck():
    scripts = repository.shell_scripts()
    assert "scripts/setup" in scripts and "scripts/lib/common.sh" in scripts
    result = run("shellcheck", "-x", "-P", "scripts", *scripts)
    assert result.returncode == 0, result.stdout


def test_bad_shell_fails_shellcheck(tmp_path):
    (tmp_path / "x.sh").write_text("#!/usr/bin/env bash\ncd $1\nrm -rf $2/*\n")
    assert run("shellcheck", tmp_path / "x.sh").returncode != 0


def test_python_compiles():
    scripts = repository.with_suffix(".py")
    assert "scripts/smollm2.py" in scripts
    for path in scripts:
        compile(repository.read(path), path, "exec")


def test_changed_sources_pass_clang_tidy(request):
    choice = request.config.getoption("--tidy")
    if choice == "none":
        pytest.skip("scripts/lint --no-tidy")
    build = request.getfixturevalue("build")
    found = clang_tidy.check_all(clang_tidy.changed_sources(choice == "all"), build, paths=choice == "all")
    assert not found, "\n" + "\n".join(found)


def test_bad_source_fails_clang_tidy(tmp_path):
    source = tmp_path / "x.cc"
    source.write_text("#include <string>\nstd::string F(std::string s) { auto t = std::move(s); return s + t; }\n"
                      "struct X { X(int x); };\n")
    (tmp_path / "compile_commands.json").write_text(
        json.dumps([{"directory": str(tmp_path), "file": str(source), "command": f"g++ -std=c++20 -c {source}"}])
    )
    found = run("clang-tidy", f"--config-file={repository.ROOT / '.clang-tidy'}", "-p", tmp_path, "--quiet", source)
    assert found.returncode != 0
    assert "google-explicit-constructor" in found.stdout and "bugprone-use-after-move" in found.stdout
