#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Invariant S1, read from the binaries: code that opens vectors is linked into the worker and nothing else.

usage: symbols_test.py --with PROGRAM [...] --without PROGRAM [...]

A program --with must have the code: without one, this test could not fail.
"""

import argparse
import re
import subprocess
import sys

# The vault's namespace, and whatever implements the interface: its virtual table.
OPENS_VECTORS = re.compile(r"\bballast::worker::(?:vault::|VectorVault\b)")


def symbols(program):
    """Names of the functions and objects that `program` defines, demangled."""
    listing = subprocess.run(
        ["nm", "--demangle", "--defined-only", program], check=True, capture_output=True, text=True
    ).stdout
    names = [line.split(" ", 2)[2] for line in listing.splitlines() if line.count(" ") >= 2]
    if "main" not in names:
        raise SystemExit(f"{program} has no symbols to read; build it without stripping")
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--with", dest="having", nargs="+", required=True, metavar="PROGRAM")
    parser.add_argument("--without", dest="lacking", nargs="+", required=True, metavar="PROGRAM")
    arguments = parser.parse_args()
    failures = []
    for program in arguments.having:
        if not any(OPENS_VECTORS.search(name) for name in symbols(program)):
            failures.append(f"{program} has no code that opens vectors: this test looks for the wrong names")
    for program in arguments.lacking:
        failures += [f"{program} has {name}" for name in symbols(program) if OPENS_VECTORS.search(name)]
    for failure in failures[:20]:
        print(failure)
    print(f"{len(arguments.having) + len(arguments.lacking)} programs, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
