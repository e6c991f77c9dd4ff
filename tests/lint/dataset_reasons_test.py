# SPDX-License-Identifier: Apache-2.0
"""docs/datasets.md lists the reasons that the row checks give: all of them, and no other."""

import re

from repository import ROOT

REASON = re.compile(r'"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*)"')
# Codes in these files that no row issue has: how the calls themselves fail.
NOT_OF_ROWS = {"FORMAT_UNKNOWN"}
SOURCES = ("parse_line.cc", "checker.cc")


def test_reasons_of_rows_are_documented():
    text = "\n".join((ROOT / "common" / "dataset" / name).read_text() for name in SOURCES)
    code = {reason for reason in REASON.findall(text) if len(reason) > 2} - NOT_OF_ROWS
    table = set(re.findall(r"^\| `([A-Z][A-Z0-9_]*)` \|", (ROOT / "docs" / "datasets.md").read_text(), re.MULTILINE))
    assert "NO_ASSISTANT_TURN" in code and len(code) > 20, "the reasons are not where this test looks for them"
    assert code - table == set(), "reasons that docs/datasets.md does not explain"
    assert table - code == set(), "reasons in docs/datasets.md that the code does not give"
