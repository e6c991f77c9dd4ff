# SPDX-License-Identifier: Apache-2.0
"""The closing count of scripts/test is what CI believes, so it is tested too."""

import subprocess
import sys

import pytest
import repository

CTEST = """<testsuite name="x" tests="3">
<testcase name="A.Works" classname="A.Works" status="run"/>
<testcase name="A.Breaks" classname="A.Breaks" status="fail"><failure message=""/></testcase>
<testcase name="A.Waits" classname="A.Waits" status="notrun"><skipped message="needs a GPU"/></testcase>
</testsuite>"""
PYTEST = """<testsuites><testsuite name="pytest" tests="2">
<testcase classname="layering_test" name="test_a"/><testcase classname="layering_test" name="test_b"/>
</testsuite></testsuites>"""


def closing(folder, steps, **files):
    (folder / "steps.tsv").write_text("".join(f"{name}\t{status}\t1\n" for name, status in steps))
    for stem, text in files.items():
        (folder / f"{stem}.xml").write_text(text)
    result = subprocess.run(
        [sys.executable, str(repository.ROOT / "scripts/lib/count_results.py"), str(folder)],
        capture_output=True, text=True,
    )
    return result.returncode, result.stdout.splitlines()


def test_all_suites_are_added_up(tmp_path):
    status, lines = closing(tmp_path, [("unit", 8), ("lint", 0)], unit=CTEST, lint=PYTEST)
    assert (status, lines[-1]) == (1, "3 passed, 1 failed, 1 skipped")
    assert "failed: unit: A.Breaks" in lines and "skipped: unit: A.Waits: needs a GPU" in lines


def test_success(tmp_path):
    assert closing(tmp_path, [("lint", 0)], lint=PYTEST)[0] == 0
    assert closing(tmp_path, [("lint", 0)], lint=PYTEST)[1][-1] == "2 passed, 0 failed"


@pytest.mark.parametrize(
    "steps,files,count",
    [
        ([("build", 1), ("lint", 0)], {"lint": PYTEST}, "2 passed, 1 failed"),
        ([("lint", 1)], {"lint": PYTEST}, "2 passed, 1 failed"),
        ([("lint", 0)], {"lint": "<testsuite"}, "0 passed, 1 failed"),
        ([("lint", 0)], {}, "0 passed, 0 failed"),
    ],
    ids=["a failed build", "a step that failed with passing tests", "a broken file", "no test at all"],
)
def test_failures_without_a_failed_test_count(tmp_path, steps, files, count):
    status, lines = closing(tmp_path, steps, **files)
    assert (status, lines[-1]) == (1, count)
