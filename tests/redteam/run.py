#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The red-team suite: what attacks by fine-tuning achieve against each defence, and what the defence costs.

Works cell by cell; a cell that was measured is not measured again, here or for a certificate (certify.py), so a run
may stop anywhere. Results are lines of JSON in --results; tests/redteam/report.py makes the page of them.

  tests/redteam/run.py                    every cell that is missing
  tests/redteam/run.py --list             the cells, and which are there
  tests/redteam/run.py --only 'mix.*'     cells whose name matches
  tests/redteam/run.py --quick            the suite in small, with its controls: passes or fails
  tests/redteam/run.py --quick --replace-vector zeros
                                          the same with a vector that does nothing in place of the trained one: fails
"""

import argparse
import json
import os
import pathlib
import re
import sys
import time
import xml.etree.ElementTree as ElementTree

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from redteam import cells, lab as labs, matrix, quick  # noqa: E402
from referee.engine import find_probe  # noqa: E402


def run_cells(arguments, probe):
    results = pathlib.Path(arguments.results)
    measured = cells.measured_cells(results)
    wanted = [c for c in matrix.all_cells() if re.search(arguments.only, c["name"])]
    if arguments.list:
        done = {cell["name"] for cell in measured}
        for cell in wanted:
            print("done" if cell["name"] in done else "    ", cell["name"], json.dumps(cell))
        return 0
    base = labs.aligned_base(arguments.model, arguments.work, probe, arguments.threads)
    with labs.Lab(base, arguments.work, probe, arguments.threads) as lab:
        if not cells.measure(cells.Suite(lab), wanted, measured, results, arguments.minutes):
            print("out of time; run again for the rest")
    return 0


def run_quick(arguments, probe):
    started, report, failed = time.monotonic(), ElementTree.Element("testsuite", name="red-team"), 0
    model, work = pathlib.Path(arguments.model), pathlib.Path(arguments.work)
    print("share of held-out prompts that are agreed to:")
    with quick.Quick(model, work, probe, arguments.threads) as suite:
        for name, holds, found in suite.run(arguments.replace_vector):
            print(f"[{time.monotonic() - started:4.0f}s] {'ok  ' if holds else 'FAIL'} {name} ({found})", flush=True)
            case = ElementTree.SubElement(report, "testcase", classname="red-team", name=name)
            if not holds:
                ElementTree.SubElement(case, "failure", message=found)
                failed += 1
    if arguments.junit:
        ElementTree.ElementTree(report).write(arguments.junit, encoding="unicode", xml_declaration=True)
    print(f"red-team suite in small: {time.monotonic() - started:.0f} s")
    print(f"{len(report) - failed} passed, {failed} failed")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", help="engine_probe (default: the newest under build/)")
    parser.add_argument("--model", default=str(REPOSITORY / ".cache/models/SmolLM2-135M-Instruct"),
                        help="model folder that the suite aligns and then attacks")
    parser.add_argument("--work", default=str(REPOSITORY / ".cache/redteam/work"), help="vectors and deltas")
    parser.add_argument("--results", default=str(REPOSITORY / "docs/results/defence_cells.jsonl"))
    parser.add_argument("--only", default="", help="regular expression on names")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no cell after so long")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--junit", help="with --quick: where to write its checks")
    parser.add_argument("--replace-vector", choices=quick.REPLACEMENTS)
    arguments = parser.parse_args()
    if arguments.replace_vector and not arguments.quick:
        parser.error("--replace-vector goes with --quick")
    probe = find_probe(arguments.probe)
    return run_quick(arguments, probe) if arguments.quick else run_cells(arguments, probe)


if __name__ == "__main__":
    sys.exit(main())
