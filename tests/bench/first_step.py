#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long a job waits until an idle worker begins to train it, its base model and vector being loaded.

usage: tests/bench/first_step.py [--build build/release] [--jobs 100] [--smoke]

From the creation of the job, by the server's clock in its record, to the line of the worker's log with which training begins:
data set and vector are there by then, and the first forward pass is next. Both run on this machine, on one clock. Jobs come one
after the other, on a tiny model. Writes its figures into docs/results/control_plane.json.
"""

import datetime
import re
import sys
import time

sys.dont_write_bytecode = True

from service import MODEL, prepared, rows, run  # noqa: E402
from harness import Bench, check, short  # noqa: E402


def seconds_of(text):
    """Of a time of RFC 3339 in UTC, with as many digits as there are."""
    whole, fraction = re.fullmatch(r"(\S+?)(?:\.(\d+))?Z", text).groups()
    return datetime.datetime.fromisoformat(whole + "+00:00").timestamp() + float(f"0.{fraction or 0}")


def measured(arguments, folder):
    bench = Bench(arguments.build, folder / "service")
    try:
        bench.data.mkdir()
        bench.start_dev()
        prepared.base_with_vector(bench, MODEL, "a benchmark")
        dataset = bench.ok_json("dataset", "upload", rows.write(bench.folder / "rows.jsonl", rows.rows(60, seed=2)), "--base-model", MODEL)
        created = {}
        for number in range(arguments.jobs + 1):
            job = bench.ok_json("job", "create", "--base-model", MODEL, "--training", short(dataset["name"]), "--seed", number + 1)
            # Each look at it is a program that starts, on the cores on which the job is to begin.
            time.sleep(0.3)
            bench.wait_for_state(short(job["name"]), ("SUCCEEDED",), 60)
            # The worker cleans up after its job, and asks for the next one.
            time.sleep(0.3)
            if number > 0:  # the first one loads the model
                created[job["name"]] = seconds_of(job["createTime"])
        log = (bench.data / "logs" / "worker.log").read_text()
        waited = []
        for name, begin in created.items():
            found = re.search(rf"^(\S+) \S+ ballast-worker: {re.escape(name)}: attempt 1 trains on", log, re.MULTILINE)
            check(found, f"the worker's log does not say when {name} began")
            waited.append(1e3 * (seconds_of(found.group(1)) - begin))
        waited.sort()
        return {"p50_ms": waited[len(waited) // 2], "p99_ms": waited[int(0.99 * (len(waited) - 1))], "most_ms": waited[-1]}
    finally:
        bench.stop_all()


if __name__ == "__main__":
    sys.exit(run(__doc__, measured, lambda found: {"submit_to_first_step_p99_ms": round(found["p99_ms"], 1)}, "submit_to_first_step",
                 own={"jobs": 100}, smoke={"jobs": 5}))
