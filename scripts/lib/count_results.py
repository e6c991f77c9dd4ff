#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Adds up a results folder of scripts/test: its JUnit files and its table of steps.

Prints the steps with their times, what was skipped, what failed, and as its last line "N passed, N failed" (and
", N skipped" where tests were). A step that failed without a failed test of its own counts as one failure; so
does a result file that cannot be read. Exit status 1 where anything failed or no test passed.
"""

import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def read_tests(path):
    """(name, "passed" | "failed" | "skipped", message) of each test case in a JUnit file."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        group = case.get("classname", "")
        name = case.get("name", "?")
        if group and not name.startswith(group):
            name = f"{group}.{name}"
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        skipped = case.find("skipped")
        # ctest writes the state as an attribute: run, fail, disabled, notrun.
        if problem is not None or case.get("status") == "fail":
            yield name, "failed", (problem.get("message") or "" if problem is not None else "")
        elif skipped is not None or case.get("status") in ("disabled", "notrun"):
            yield name, "skipped", (skipped.get("message") or "" if skipped is not None else "")
        else:
            yield name, "passed", ""


def count(results):
    """Prints the report on a results folder. Returns the numbers passed, failed and skipped."""
    tests = {}
    problems = []
    for path in sorted(results.glob("*.xml")):
        try:
            tests[path.stem] = list(read_tests(path))
        except (OSError, ElementTree.ParseError) as error:
            problems.append(f"{path.name}: {error}")

    print("\n=== summary")
    for line in (results / "steps.tsv").read_text().splitlines():
        step, status, seconds = line.split("\t")
        own = tests.get(step, [])
        failed = sum(outcome == "failed" for _, outcome, _ in own)
        if status != "0" and not failed:
            problems.append(f"step {step} failed with status {status}")
        verdict = "ok" if status == "0" else "FAILED"
        print(f"{step:28} {verdict:7} {int(seconds):5d} s" + (f"   {len(own)} tests" if own else ""))

    outcomes = [(stem, *test) for stem, cases in tests.items() for test in cases]
    skipped = [test for test in outcomes if test[2] == "skipped"]
    failed = [test for test in outcomes if test[2] == "failed"]
    for title, chosen in (("skipped", skipped), ("failed", failed)):
        for stem, name, _, message in chosen:
            print(f"{title}: {stem}: {name}" + (f": {message.splitlines()[0][:160]}" if message.strip() else ""))
    for problem in problems:
        print(f"failed: {problem}")
    return len(outcomes) - len(skipped) - len(failed), len(failed) + len(problems), len(skipped)


def main():
    passed, failed, skipped = count(pathlib.Path(sys.argv[1]))
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
