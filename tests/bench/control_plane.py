#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The control plane beside the database alone, in one run in which the sides take turns.

usage: tests/bench/control_plane.py [--build build/release] [--rounds 5] [--seconds 5] [--threads 8] [--smoke]

- Durable CreateFineTuningJob through gRPC with an API key, beside pgbench running the same inserts and updates on the same
  PostgreSQL server, with as many clients.
- The same on SQLite, beside a loop that commits the same rows to a file: as many at a time as there are clients, which is the
  most that the server puts into one commit, and one at a time.
- Server CPU per bare RPC (health check), from the server's own clock in /proc, beside that of a gRPC server that does nothing
  else (bare_server.cc).

Jobs are of 64 tenants in turn. All tables are emptied before each round. Writes its figures into docs/results/control_plane.json.
"""

import sqlite3
import statistics
import sys
import time

sys.dont_write_bytecode = True

from service import TENANTS, Service, bare_server, cpu_seconds, load, pgbench, postgres, run, same_tables  # noqa: E402

# Bytes of a job's record and of its first event, as the server writes them (see `record_sizes`).
PGBENCH = """\\set tenant random(1, {tenants})
\\set job random(1, 1000000000000)
BEGIN;
INSERT INTO commits (connection, serial) VALUES ('bench-' || :client_id, :job);
UPDATE tenants SET state = 0, queue_key = 0, record = decode(repeat('ab', 40), 'hex') WHERE scope = '' AND id = 't' || :tenant;
WITH next AS (INSERT INTO sequences AS s (kind, scope, last) VALUES (2, 't' || :tenant, 1)
  ON CONFLICT (kind, scope) DO UPDATE SET last = s.last + 1 RETURNING last)
INSERT INTO jobs (scope, id, sequence, state, queue_key, record)
  SELECT 't' || :tenant, 'job-' || :job, last, 2, 1, decode(repeat('ab', {record}), 'hex') FROM next;
INSERT INTO job_events (scope, job, sequence, event)
  VALUES ('t' || :tenant, 'job-' || :job, 1, decode(repeat('ab', {event}), 'hex'));
INSERT INTO requests (scope, request_id, payload_digest, result_name)
  VALUES ('t' || :tenant, 'request-' || :job, repeat('a', 71), 'job-' || :job);
COMMIT;
"""


# Before each round, so that no side has a queue that grows.
EMPTIED = "DELETE FROM job_events; DELETE FROM jobs; DELETE FROM requests;"


def record_sizes(query):
    (record, event), = query("SELECT (SELECT avg(length(record)) FROM jobs), (SELECT avg(length(event)) FROM job_events)")
    return round(float(record)), round(float(event))


def bare_sqlite(file, seconds, record, event, batch):
    """Rows of jobs that one connection commits in a second, `batch` at a time."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;" + EMPTIED)
    count, begin = 0, time.monotonic()
    bytes_of_job, told, bytes_of_tenant = b"\xab" * record, b"\xab" * event, b"\xab" * 40
    while time.monotonic() - begin < seconds:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(batch):
            scope, job = f"t{count % TENANTS + 1}", f"bare-{begin}-{count}"
            connection.execute("UPDATE tenants SET state = 0, queue_key = 0, record = ? WHERE scope = '' AND id = ?", (bytes_of_tenant, scope))
            (last,) = connection.execute("INSERT INTO sequences (kind, scope, last) VALUES (2, ?, 1) ON CONFLICT (kind, scope) DO UPDATE"
                                         " SET last = last + 1 RETURNING last", (scope,)).fetchone()
            connection.execute("INSERT INTO jobs (scope, id, sequence, state, queue_key, record) VALUES (?, ?, ?, 2, 1, ?)",
                               (scope, job, last, bytes_of_job))
            connection.execute("INSERT INTO job_events (scope, job, sequence, event) VALUES (?, ?, 1, ?)", (scope, job, told))
            connection.execute("INSERT INTO requests (scope, request_id, payload_digest, result_name) VALUES (?, ?, ?, ?)",
                               (scope, f"request-{job}", "a" * 71, job))
            count += 1
        connection.execute("COMMIT")
    connection.close()
    return count / seconds


def against_postgres(arguments, folder):
    service = Service(arguments.build, folder / "with-postgres")
    try:
        service.bench.stores.start(on_postgres=True, on_object_store=False)
        conninfo = service.bench.stores.conninfo
        service.make()
        service.load("create", 1, arguments.threads)
        sizes = record_sizes(lambda statement: postgres.query(conninfo, statement))
        bench = same_tables(conninfo)
        script = folder / "same.sql"
        script.write_text(PGBENCH.format(tenants=TENANTS, record=sizes[0], event=sizes[1]))
        ratios, ours, theirs, latencies = [], [], [], []
        for _ in range(arguments.rounds):
            postgres.query(conninfo, EMPTIED)
            postgres.query(bench, EMPTIED)
            theirs.append(pgbench(bench, script, arguments.seconds, arguments.threads))
            result = service.load("create", arguments.seconds, arguments.threads)
            ours.append(result["calls"] / result["seconds"])
            latencies.append(result["p99_ms"])
            ratios.append(ours[-1] / theirs[-1])
        return {"ratio": statistics.median(ratios), "creates_per_s": statistics.median(ours),
                "pgbench_per_s": statistics.median(theirs), "p99_ms": statistics.median(latencies), "record_bytes": sizes[0]}
    finally:
        service.bench.stop_all()
        service.bench.stores.stop()


def against_sqlite(arguments, folder):
    service = Service(arguments.build, folder / "with-sqlite")
    bare = None
    try:
        service.make()
        service.load("create", 1, arguments.threads)
        database = service.bench.data / "server" / "ballast.db"
        connection = sqlite3.connect(database)
        sizes = record_sizes(lambda statement: connection.execute(statement).fetchall())
        # A copy of the same size beside it, on the same disk.
        copy = folder / "bare.db"
        with sqlite3.connect(copy) as target:
            connection.backup(target)
        connection.close()
        bare, bare_address = bare_server(service.bench.build, folder)
        ratios, alone, ours, theirs, one_by_one, rpc, bare_rpc = [], [], [], [], [], [], []
        for _ in range(arguments.rounds):
            theirs.append(bare_sqlite(copy, arguments.seconds, *sizes, arguments.threads))
            one_by_one.append(bare_sqlite(copy, arguments.seconds, *sizes, 1))
            with sqlite3.connect(database, timeout=30) as emptied:
                emptied.executescript(EMPTIED)
            result = service.load("create", arguments.seconds, arguments.threads)
            ours.append(result["calls"] / result["seconds"])
            ratios.append(ours[-1] / theirs[-1])
            alone.append(ours[-1] / one_by_one[-1])
            for process, address, found in ((service.server, service.address, rpc), (bare, bare_address, bare_rpc)):
                before = cpu_seconds(process)
                result = load(service.bench.build, address, service.keys, "health", arguments.seconds, arguments.threads)
                found.append(1e6 * (cpu_seconds(process) - before) / result["calls"])
        return {"ratio": statistics.median(ratios), "ratio_to_one_by_one": statistics.median(alone),
                "creates_per_s": statistics.median(ours), "bare_per_s": statistics.median(theirs),
                "bare_one_by_one_per_s": statistics.median(one_by_one), "rpc_cpu_us": statistics.median(rpc),
                "bare_rpc_cpu_us": statistics.median(bare_rpc)}
    finally:
        if bare:
            bare.kill()
            bare.wait()
        service.bench.stop_all()


def measured(arguments, folder):
    return {"postgres": against_postgres(arguments, folder), "sqlite": against_sqlite(arguments, folder)}


def named(found):
    return {"submit_ratio_pgbench": round(found["postgres"]["ratio"], 3), "submit_ratio_sqlite": round(found["sqlite"]["ratio"], 3),
            "rpc_cpu_us": round(found["sqlite"]["rpc_cpu_us"], 1),
            "rpc_cpu_us_of_a_bare_server": round(found["sqlite"]["bare_rpc_cpu_us"], 1)}


if __name__ == "__main__":
    sys.exit(run(__doc__, measured, named, "submit", threads=8))
