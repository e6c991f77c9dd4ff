# SPDX-License-Identifier: Apache-2.0
"""Whether the checker would have noticed: faults of each kind are planted after a run, and it looks again."""

import shutil

from checker import Checker

# What each fault must be counted as.
FAULTS = {"a data set's bytes are gone": "lost", "a job's event is gone": "lost", "a job has a second delta": "duplicate_deltas",
          "a stray file": "orphans"}


def _one_delta(world):
    blobs = world.bench.data / "server" / "blobs" / "blobs"
    return next(blobs.glob("jobs/*/*/attempts/*/delta")).parent


def _plant(fault, world, ledger):
    """Plants it, and returns how to undo that."""
    blobs = world.bench.data / "server" / "blobs" / "blobs"
    if fault == "a data set's bytes are gone":
        name = next(iter(ledger.datasets)).split("/")
        file = blobs / "datasets" / name[1] / name[3]
        kept = file.read_bytes()
        file.unlink()
        return lambda: file.write_bytes(kept)
    if fault == "a job has a second delta":
        attempt = _one_delta(world)
        second = attempt.with_name("999")
        shutil.copytree(attempt, second)
        return lambda: shutil.rmtree(second)
    if fault == "a stray file":
        stray = blobs / "stray"
        stray.write_text("nobody names it")
        return stray.unlink
    # The last one: it is not undone.
    world.execute("DELETE FROM job_events WHERE sequence = 2 AND job IN (SELECT min(job) FROM job_events)")
    return lambda: None


def unnoticed(world, ledger):
    """Faults that the checker does not count as what they are."""
    missed = []
    for fault, kind in sorted(FAULTS.items(), key=lambda item: item[0] == "a job's event is gone"):
        undo = _plant(fault, world, ledger)
        checker = Checker(world, ledger)
        checker.run()
        undo()
        if checker.counts[kind] == 0:
            missed.append(fault)
    return missed
