#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The end-to-end test: the real server, worker and command line on a tiny model, from `ballast dev` to a verified
adapter, then everything that can go wrong, then the search for the vector in all that was left behind.

usage: tests/e2e/run.py [--build build/dev] [--junit FILE] [--keep FOLDER] [--only TEXT] [--postgres] [--object-store]
                        [--servers N] [--list]

Steps run in order and build on each other. A step that needs a failed one is not run and counts as failed; one that
is not for this kind of run is left out, which is told with the reason, and does not count. Ends with the line
"N passed, N failed". Everything is stopped and removed at the end; --keep keeps the folder.
"""

import argparse
import os
import pathlib
import shutil
import sys
import tempfile
import time
import traceback
import xml.etree.ElementTree as ElementTree

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import steps_bad_input  # noqa: E402
import steps_canary  # noqa: E402
import steps_failures  # noqa: E402
import steps_gate  # noqa: E402
import steps_grpcurl  # noqa: E402
import steps_links  # noqa: E402
import steps_main  # noqa: E402
import steps_safety_rows  # noqa: E402
import steps_screen  # noqa: E402
import steps_servers  # noqa: E402
import steps_unprotected  # noqa: E402
import steps_vectors  # noqa: E402
from harness import ROOT, Bench, Failure, Skip  # noqa: E402

STEPS = [
    *steps_main.STEPS,
    *steps_grpcurl.STEPS,
    *steps_links.STEPS,
    *steps_gate.STEPS,
    *steps_safety_rows.STEPS,
    *steps_screen.STEPS,
    *steps_unprotected.STEPS,
    *steps_vectors.STEPS,
    *steps_main.LAST_STEPS,
    *steps_bad_input.STEPS,
    *steps_failures.STEPS,
    *steps_servers.STEPS,
    *steps_failures.LAST_STEPS,
    *steps_canary.STEPS,
]


class Outcome:
    def __init__(self, name, status, seconds, message=""):
        self.name, self.status, self.seconds, self.message = name, status, seconds, message


def chosen(only):
    """Names of the steps that hold one of these texts, and of all that they build on; without texts all."""
    names = {step.name for step in STEPS if not only or any(text in step.name for text in only)}
    for step in reversed(STEPS):
        if step.name in names:
            names.update(step.needs)
    return names


def run_steps(bench, only):
    outcomes = []
    names = chosen(only)
    failed = set()
    for number, step in enumerate(STEPS, 1):
        if step.name not in names:
            continue
        if reason := step.left_out(bench):
            print(f"left out: {number:02d} {step.name}: {reason}", flush=True)
            continue
        missing = sorted(failed.intersection(step.needs))
        started = time.monotonic()
        if missing:
            outcome = Outcome(step.name, "failed", 0, f"not run: {', '.join(missing)} failed")
        else:
            try:
                step.function(bench)
                outcome = Outcome(step.name, "passed", time.monotonic() - started)
            except Skip as reason:
                outcome = Outcome(step.name, "skipped", time.monotonic() - started, str(reason))
            except Failure as failure:
                outcome = Outcome(step.name, "failed", time.monotonic() - started, str(failure))
            except Exception:
                outcome = Outcome(step.name, "failed", time.monotonic() - started, traceback.format_exc())
        if outcome.status == "failed":
            failed.add(step.name)
        outcomes.append(outcome)
        mark = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}[outcome.status]
        print(f"{mark} {number:02d} {step.name} ({outcome.seconds:.1f} s)", flush=True)
        if outcome.message:
            print("     " + outcome.message.replace("\n", "\n     "), flush=True)
    return outcomes


def write_junit(path, outcomes):
    suite = ElementTree.Element("testsuite", name="end-to-end", tests=str(len(outcomes)))
    for outcome in outcomes:
        case = ElementTree.SubElement(
            suite, "testcase", classname="end-to-end", name=outcome.name, time=f"{outcome.seconds:.2f}"
        )
        # XML has no control characters.
        message = "".join(c if c in "\n\t" or c >= " " else "?" for c in outcome.message)
        if outcome.status == "failed":
            ElementTree.SubElement(case, "failure", message=message[:2000])
        elif outcome.status == "skipped":
            ElementTree.SubElement(case, "skipped", message=message)
    ElementTree.ElementTree(suite).write(path, encoding="unicode", xml_declaration=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build" / "dev"))
    parser.add_argument("--junit")
    parser.add_argument("--keep", help="folder to keep everything in; must not exist")
    parser.add_argument("--only", action="append", metavar="TEXT",
                        help="run only the steps whose name holds this, and what they build on; may be given several times")
    parser.add_argument("--postgres", action="store_true", help="keep records in a PostgreSQL server of its own")
    parser.add_argument("--object-store", action="store_true", help="keep blobs in a server of its own that speaks S3")
    parser.add_argument("--servers", type=int, choices=(1, 2), default=1, metavar="N",
                        help="1 [default] or 2, which share both stores: customers talk to one of them, workers to the other")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.servers > 1 and not (arguments.postgres and arguments.object_store):
        parser.error("--servers 2 needs --postgres and --object-store: servers share nothing but these")
    if arguments.list:
        for number, step in enumerate(STEPS, 1):
            print(f"{number:02d} {step.name}")
        return 0

    if arguments.keep:
        folder = pathlib.Path(arguments.keep).absolute()
        folder.mkdir()
    else:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="ballast-e2e-"))
    started = time.monotonic()
    bench = Bench(arguments.build, folder, arguments.servers)
    outcomes = []
    try:
        bench.stores.start(arguments.postgres, arguments.object_store)
        outcomes = run_steps(bench, arguments.only)
    finally:
        bench.stop_all()
        bench.stores.stop()
        if arguments.junit:
            write_junit(arguments.junit, outcomes)
        if any(outcome.status == "failed" for outcome in outcomes):
            for log in sorted((folder / "logs").glob("*.log")) + sorted((folder / "data" / "logs").glob("*.log")):
                print(f"--- the end of {log.relative_to(folder)}")
                print(log.read_text(errors="replace")[-2500:])
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
    count = {status: sum(outcome.status == status for outcome in outcomes) for status in ("passed", "failed", "skipped")}
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    print(f"end to end: {time.monotonic() - started:.0f} s")
    print(f"{count['passed']} passed, {count['failed']} failed{skipped}")
    return 1 if count["failed"] or not count["passed"] else 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
