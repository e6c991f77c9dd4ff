# SPDX-License-Identifier: Apache-2.0
"""Whether the checker would have noticed: faults of each kind are planted after a run, and it looks again."""

import shutil

from checker import Checker

# What each fault must be counted as.
FAULTS = {"a data set's bytes are gone": "lost", "a delta's file is cut": "lost", "a job has a second delta": "duplicate_deltas",
          "a stray file": "orphans", "a job runs": "stuck", "a job is gone": "lost", "a job's event is gone": "lost"}


def _one_delta(world):
    blobs = world.stores.blobs
    return next(blobs.glob("jobs/*/*/attempts/*/delta")).parent


def _plant(fault, world, ledger):
    """Plants it, and returns how to undo that."""
    blobs = world.stores.blobs
    if fault == "a data set's bytes are gone":
        name = next(iter(ledger.datasets)).split("/")
        file = blobs / "datasets" / name[1] / name[3]
        away = blobs.with_name("away")
        file.rename(away)
        return lambda: away.rename(file)
    if fault == "a job has a second delta":
        attempt = _one_delta(world)
        second = attempt.with_name("999")
        shutil.copytree(attempt, second)
        return lambda: shutil.rmtree(second)
    if fault == "a stray file":
        stray = blobs / "stray"
        stray.write_text("nobody names it")
        return stray.unlink
    if fault == "a delta's file is cut":
        file = next(_one_delta(world).rglob("adapter_model.safetensors"))
        kept = file.read_bytes()
        file.write_bytes(kept[:-1])
        return lambda: file.write_bytes(kept)
    if fault == "a job runs":
        scope, identifier, record = _one_job(world)
        running = type(record).FromString(record.SerializeToString())
        running.job.state = 3
        world.write_job(scope, identifier, running)
        return lambda: world.write_job(scope, identifier, record)
    # What is not undone comes last.
    scope, identifier, _ = _one_job(world)
    gone = f"scope = '{scope}' AND job = '{identifier}'"
    if fault == "a job's event is gone":
        world.execute(f"DELETE FROM job_events WHERE {gone} AND sequence = 2")
    else:
        world.execute(f"DELETE FROM job_events WHERE {gone}")
        world.execute(f"DELETE FROM jobs WHERE scope = '{scope}' AND id = '{identifier}'")
    return lambda: None


def _one_job(world):
    """(tenant, id, record) of one that has SUCCEEDED."""
    for (scope, identifier), record in sorted(world.jobs().items()):
        if record.job.state == 9 and not record.deleted:
            return scope, identifier, record
    raise LookupError("no job has SUCCEEDED")


def _count(world, ledger, kind):
    checker = Checker(world, ledger)
    checker.run()
    return checker.counts[kind]


def unnoticed(world, ledger):
    """Faults that the checker does not count as what they are."""
    missed = []
    for fault, kind in FAULTS.items():
        before = _count(world, ledger, kind)
        undo = _plant(fault, world, ledger)
        try:
            found = _count(world, ledger, kind)
        finally:
            undo()
        if found <= before:
            missed.append(fault)
    return missed
