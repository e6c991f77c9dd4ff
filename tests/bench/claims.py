#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast idle workers get work from a long queue, beside PostgreSQL alone, in one run in which the sides take turns.

usage: tests/bench/claims.py [--build build/release] [--rounds 5] [--seconds 5] [--threads 8] [--jobs 100000]
                             [--tenants 1000] [--minutes 10] [--smoke]

- Jobs that workers are given through gRPC, each worker one, from a queue of --jobs of --tenants tenants; beside pgbench
  taking rows of the same table on the same server with one statement, SKIP LOCKED.
- The same after --minutes under a transaction that keeps PostgreSQL from cleaning up, in which a share of the queue is
  taken: with what it was at the start, by the server alone.

The queue is written straight into the database, each row made of one that the server has made. Writes its figures into
docs/results/control_plane.json.
"""

import pathlib
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "chaos"))

import protos  # noqa: E402
from service import Service, pgbench, postgres, run, same_tables  # noqa: E402

QUEUED = 2
CLAIM = """WITH next AS (SELECT scope, id FROM jobs WHERE state = 2 ORDER BY queue_key, scope, id LIMIT 1 FOR UPDATE SKIP LOCKED)
UPDATE jobs SET state = 3, record = decode(repeat('cd', {record}), 'hex') FROM next
  WHERE jobs.scope = next.scope AND jobs.id = next.id RETURNING jobs.scope, jobs.id;
"""


def psql(conninfo, script):
    """Runs statements from a string that may be long."""
    subprocess.run([postgres.binaries() / "psql", conninfo, "-X", "-q", "-v", "ON_ERROR_STOP=1"], input=script.encode(),
                   stdout=subprocess.DEVNULL, check=True)


def copied(table, columns, lines):
    return f"COPY {table} ({columns}) FROM stdin;\n" + "".join(lines) + "\\.\n"


class Queue:
    """`jobs` QUEUED jobs of `tenants` tenants, made of one that the server has made."""

    def __init__(self, conninfo, jobs, tenants):
        self._conninfo, self._jobs, self._tenants = conninfo, jobs, tenants
        records = protos.load("server.core.record_pb2")
        (job,), = postgres.query(conninfo, "SELECT encode(record, 'hex') FROM jobs LIMIT 1")
        (event,), = postgres.query(conninfo, "SELECT encode(event, 'hex') FROM job_events LIMIT 1")
        self._job, self._event = records.JobRecord.FromString(bytes.fromhex(job)), event
        (dataset,), = postgres.query(
            conninfo, f"SELECT encode(record, 'hex') FROM datasets WHERE id = '{self._job.job.training_dataset.rsplit('/', 1)[1]}'")
        self._dataset = records.DatasetRecord.FromString(bytes.fromhex(dataset))
        self.record_bytes = len(job) // 2

    def fill(self):
        """Empties the queue and fills it anew: tenants in turn, as fair share has them."""
        names = [f"many-{number:04d}" for number in range(self._tenants)]
        job, dataset, jobs, events, datasets = self._job, self._dataset, [], [], []
        for tenant in names:
            dataset.tenant, dataset.id = tenant, "ds-bench"
            dataset.dataset.name = f"tenants/{tenant}/datasets/ds-bench"
            datasets.append(f"{tenant}\tds-bench\t1\t{dataset.dataset.state}\t0\t\\\\x{dataset.SerializeToString().hex()}\n")
        cost = max(1, job.finish_tag - job.start_tag)
        for number in range(self._jobs):
            tenant, turn = names[number % len(names)], number // len(names)
            job.tenant, job.id = tenant, f"job-{number:032x}"
            job.job.name = f"tenants/{tenant}/fineTuningJobs/{job.id}"
            job.job.training_dataset = f"tenants/{tenant}/datasets/ds-bench"
            job.start_tag, job.finish_tag = turn * cost, (turn + 1) * cost
            jobs.append(f"{tenant}\t{job.id}\t{turn + 1}\t{QUEUED}\t{job.start_tag}\t\\\\x{job.SerializeToString().hex()}\n")
            events.append(f"{tenant}\t{job.id}\t1\t\\\\x{self._event}\n")
        psql(self._conninfo, "TRUNCATE job_events, jobs, requests; DELETE FROM datasets WHERE id = 'ds-bench';\n"
             + copied("datasets", "scope, id, sequence, state, queue_key, record", datasets)
             + copied("jobs", "scope, id, sequence, state, queue_key, record", jobs)
             + copied("job_events", "scope, job, sequence, event", events) + "ANALYZE;\n")

    def left(self):
        (count,), = postgres.query(self._conninfo, f"SELECT count(*) FROM jobs WHERE state = {QUEUED}")
        return int(count)


class PinnedSnapshot:
    """A transaction that has looked at the database and stays open."""

    def __init__(self, conninfo):
        self._psql = subprocess.Popen([postgres.binaries() / "psql", conninfo, "-X", "-q"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._psql.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ;\nSELECT count(*) FROM tenants;\n")
        self._psql.stdin.flush()
        self._psql.stdout.readline()

    def end(self):
        self._psql.stdin.close()
        self._psql.wait()


def measured(arguments, folder):
    # No lease ends meanwhile: that is work of its own.
    service = Service(arguments.build, folder / "service", more=["lease_seconds: 3600"])
    try:
        service.bench.stores.start(on_postgres=True, on_object_store=False)
        service.make()
        conninfo, keys = service.bench.stores.conninfo, service.worker_keys()
        service.load("create", 0.2, 1)
        queue = Queue(conninfo, arguments.jobs, arguments.tenants)

        def claims(seconds, **more):
            found = service.load("claim", seconds, arguments.threads, keys=keys, **more)
            return found["calls"] / found["seconds"], found["p99_ms"]

        bench = same_tables(conninfo)
        script = folder / "claim.sql"
        script.write_text(CLAIM.format(record=queue.record_bytes))
        ratios, ours, theirs, latencies = [], [], [], []
        for _ in range(arguments.rounds):
            queue.fill()
            dump = subprocess.run([postgres.binaries() / "pg_dump", "--data-only", "--table=jobs", "--dbname", conninfo], capture_output=True, check=True)
            psql(bench, "TRUNCATE job_events, jobs;")
            subprocess.run([postgres.binaries() / "psql", bench, "-X", "-q", "-v", "ON_ERROR_STOP=1"], input=dump.stdout,
                           stdout=subprocess.DEVNULL, check=True)
            psql(bench, "ANALYZE jobs;")
            theirs.append(pgbench(bench, script, arguments.seconds, arguments.threads))
            rate, p99 = claims(arguments.seconds)
            ours.append(rate)
            latencies.append(p99)
            ratios.append(ours[-1] / theirs[-1])
        found = {"ratio": statistics.median(ratios), "claims_per_s": statistics.median(ours), "bare_per_s": statistics.median(theirs),
                 "p99_ms": statistics.median(latencies)}

        queue.fill()
        before = statistics.median(claims(arguments.seconds)[0] for _ in range(3))
        print(f"{arguments.minutes:g} minutes under a pinned snapshot begin", file=sys.stderr, flush=True)
        pinned, end = PinnedSnapshot(conninfo), time.monotonic() + 60 * arguments.minutes
        share = queue.left() * 0.6 / (60 * arguments.minutes)
        while time.monotonic() < end:
            claims(min(30, max(1, end - time.monotonic())), per_second=share)
        print("they have ended", file=sys.stderr, flush=True)
        after = statistics.median(claims(arguments.seconds)[0] for _ in range(3))
        pinned.end()
        found.update(pinned_minutes=arguments.minutes, before_pinned_per_s=before, after_pinned_per_s=after,
                     ratio_after_pinned=after / before, left=queue.left())
        return found
    finally:
        service.bench.stop_all()
        service.bench.stores.stop()
        protos.remove()


if __name__ == "__main__":
    sys.exit(run(__doc__, measured, lambda found: {"claim_ratio": round(found["ratio"], 3),
                                                   "claim_ratio_after_pinned_snapshot": round(found["ratio_after_pinned"], 3)},
                 "claim", threads=8, own={"jobs": 100_000, "tenants": 1_000, "minutes": 10.0},
                 smoke={"jobs": 20_000, "tenants": 100, "minutes": 0.05}))
