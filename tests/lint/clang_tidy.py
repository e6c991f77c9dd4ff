# SPDX-License-Identifier: Apache-2.0
"""clang-tidy over changed sources, remembering which it has found clean.

A source is known clean by a stamp named after everything that its verdict hangs on in this repository: the
configuration, its own text, and the text of each of our headers that it reaches.
"""

import concurrent.futures
import hashlib
import os
import pathlib
import re
import subprocess

import repository
import rules

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ballast" / "clang-tidy"
# What GCC alone understands, its precompiled headers among it; clang has no omp.h of its own here, which ATen includes
# where OpenMP is on.
GCC_ONLY = re.compile(r" (-Winvalid-pch|-include \S+/cmake_pch\.hxx|-fpch-preprocess|--param=\S+|-fopenmp)(?= )")
NOISE = re.compile(r"^\d+ warnings? (and \d+ errors? )?generated|^Suppressed |^Use -header-filter|^\s*$")


def base_commit():
    """What "changed" is counted from: BALLAST_LINT_BASE, or where this branch left origin/main, or, on main
    itself, the last commit that is older than four hours, or the one before the last where all of history is
    younger. None for a history of one commit. scripts/nightly looks at everything."""

    def git(*arguments):
        result = subprocess.run(["git", *arguments], cwd=repository.ROOT, capture_output=True, text=True)
        return result.stdout.strip() if result.returncode == 0 else ""

    named = os.environ.get("BALLAST_LINT_BASE")
    if named:
        return named
    fork, head = git("merge-base", "HEAD", "origin/main"), git("rev-parse", "HEAD")
    if fork and fork != head:
        return fork
    older = git("rev-list", "-1", "--first-parent", "--before=4 hours ago", "HEAD")
    return older or git("rev-parse", "--verify", "--quiet", "HEAD~1") or None


def changed_sources(everything):
    """Sources to look at: changed ones without the tests (gtest's macros take three times as long), or all."""
    sources = [path for path in repository.with_suffix(".cc") if not path.startswith("tests/lint/")]
    if everything:
        return sources
    base = base_commit()
    if base:
        listing = subprocess.run(
            ["git", "diff", "--name-only", base], cwd=repository.ROOT, check=True, capture_output=True, text=True
        ).stdout.splitlines()
        changed_files = set(listing) | set(repository.tracked_files()) - set(
            subprocess.run(["git", "ls-files"], cwd=repository.ROOT, check=True, capture_output=True, text=True)
            .stdout.splitlines()
        )
        sources = [path for path in sources if path in changed_files]
    return [path for path in sources if not rules.is_test(path)]


def _key(source, options):
    """Hash over the configuration, a source and all of our headers that it reaches."""
    digest = hashlib.sha256(" ".join([*options, repository.read(".clang-tidy")]).encode())
    waiting, seen = [source], set()
    while waiting:
        path = waiting.pop()
        if path in seen or not (repository.ROOT / path).is_file():
            continue
        seen.add(path)
        text = repository.read(path)
        waiting += [target for _, quote, target in rules.includes(text) if quote == '"']
    for path in sorted(seen):
        digest.update(path.encode() + b"\0" + repository.read(path).encode() + b"\0")
    return digest.hexdigest()


def flags_for_clang(build):
    """A folder with the build folder's compile_commands.json in words that clang understands."""
    folder = pathlib.Path(build, "clang-tidy")
    folder.mkdir(exist_ok=True)
    commands = pathlib.Path(build, "compile_commands.json").read_text(encoding="utf-8")
    (folder / "compile_commands.json").write_text(GCC_ONLY.sub("", commands), encoding="utf-8")
    return folder


def check(source, flags, paths):
    """What clang-tidy finds in `source` (a path from the root) with the flags of flags_for_clang(); "" if clean.
    Only with `paths` does it follow the paths through functions, too (clang-analyzer-*): 35 of 49 s of a source."""
    options = [] if paths else ["--checks=-clang-analyzer-*"]
    stamp = CACHE / _key(source, options)
    if stamp.exists():
        return ""
    command = ["clang-tidy", "-p", str(flags), "--quiet", *options, source]
    result = subprocess.run(command, cwd=repository.ROOT, capture_output=True, text=True)
    output = "\n".join(line for line in (result.stdout + result.stderr).splitlines() if not NOISE.match(line))
    if result.returncode == 0 and not output:
        CACHE.mkdir(parents=True, exist_ok=True)
        stamp.touch()
        return ""
    return output or f"{source}: clang-tidy ended with status {result.returncode}"


def check_all(sources, build, paths):
    """Findings of all sources, in order, on every core."""
    flags = flags_for_clang(build)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return [found for found in pool.map(lambda source: check(source, flags, paths), sources) if found]
