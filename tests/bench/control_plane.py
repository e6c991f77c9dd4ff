#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The control plane beside the database alone, in one run in which the sides take turns.

usage: tests/bench/control_plane.py [--build build/release] [--rounds 5] [--seconds 5] [--threads 8] [--smoke]

- Durable CreateFineTuningJob through gRPC with an API key, beside pgbench running the same inserts and updates on the same
  PostgreSQL server, with as many clients.
- The same on SQLite, beside a loop that commits the same inserts to a file, one at a time.
- Server CPU per bare RPC (health check), from the server's own clock in /proc.

All tables are emptied before each round. Writes its figures into docs/results/control_plane.json. Data lies in the folder
for temporary files, which must be on a disk: on a tmpfs nothing is durable.
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import prepared  # noqa: E402
import rows  # noqa: E402
from harness import Bench, check, postgres  # noqa: E402

MODEL = "tiny"
TENANTS = 8
# Bytes of a job's record and of its first event, as the server writes them (see `record_sizes`).
PGBENCH = """\\set tenant :client_id % {tenants} + 1
\\set job random(1, 1000000000000)
BEGIN;
INSERT INTO commits (connection, serial) VALUES ('bench-' || :client_id, 1)
  ON CONFLICT (connection) DO UPDATE SET serial = commits.serial + 1;
INSERT INTO sequences (kind, scope, last) VALUES (2, 't' || :tenant, 1)
  ON CONFLICT (kind, scope) DO UPDATE SET last = sequences.last + 1 RETURNING last \\gset
INSERT INTO jobs (scope, id, sequence, state, queue_key, record)
  VALUES ('t' || :tenant, 'job-' || :job, :last, 2, 1, decode(repeat('ab', {record}), 'hex'));
INSERT INTO job_events (scope, job, sequence, event)
  VALUES ('t' || :tenant, 'job-' || :job, 1, decode(repeat('ab', {event}), 'hex'));
UPDATE jobs SET state = 2, queue_key = 1, record = decode(repeat('cd', {record}), 'hex')
  WHERE scope = 't' || :tenant AND id = 'job-' || :job;
INSERT INTO requests (scope, request_id, payload_digest, result_name)
  VALUES ('t' || :tenant, 'request-' || :job, repeat('a', 71), 'job-' || :job);
COMMIT;
"""


# Before each round, so that no side has a queue that grows.
EMPTIED = "DELETE FROM job_events; DELETE FROM jobs; DELETE FROM requests;"


class Service:
    """A server with TENANTS tenants, each with a data set, and one base model with a vector."""

    def __init__(self, build, folder):
        self.bench = Bench(build, folder)
        self.keys = self.bench.folder / "keys"

    def make(self):
        bench = self.bench
        bench.data.mkdir()
        lines = ["quotas:", "  - {max_queued_jobs: 100000000}"]
        tenants = {f"t{number}": os.urandom(32).hex() for number in range(1, TENANTS + 1)}
        lines += ["api_keys:"]
        for tenant, key in tenants.items():
            lines.append(f"  - {{digest: \"sha256:{hashlib.sha256(key.encode()).hexdigest()}\", role: TENANT, tenant: {tenant}}}")
        (bench.data / "server.yaml").write_text("\n".join(lines) + "\n" + bench.stores.configuration())
        dev = bench.start_dev()
        prepared.base_with_vector(bench, MODEL, "a benchmark")
        data = rows.write(bench.folder / "rows.jsonl", rows.rows(60, seed=2))
        with open(self.keys, "w") as keys:
            for tenant, key in tenants.items():
                environment = {"BALLAST_API_KEY": key, "BALLAST_TENANT": tenant}
                dataset = bench.ok_json("dataset", "upload", data, "--base-model", MODEL, environment=environment)
                keys.write(f"{tenant} {key} {dataset['name']}\n")
        check(dev.terminate() == 0, "ballast dev did not stop")
        bench.wait_until_free()
        self.server = bench.start_server()  # and no worker: jobs stay QUEUED

    def load(self, build, mode, seconds, threads):
        done = subprocess.run([pathlib.Path(build) / "tests" / "bench" / "call_load", mode, f"127.0.0.1:{self.bench.port}",
                               str(seconds), str(threads), self.keys, f"baseModels/{MODEL}"], capture_output=True, text=True)
        check(done.returncode == 0, f"call_load {mode}: {done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def cpu_seconds(self):
        fields = pathlib.Path(f"/proc/{self.server.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def record_sizes(query):
    (record, event), = query("SELECT (SELECT avg(length(record)) FROM jobs), (SELECT avg(length(event)) FROM job_events)")
    return round(float(record)), round(float(event))


def pgbench(conninfo, script, seconds, threads):
    done = subprocess.run([postgres.binaries() / "pgbench", "--no-vacuum", "--protocol", "prepared", "--client", str(threads),
                           "--jobs", str(min(threads, os.cpu_count())), "--time", str(round(seconds)), "--file", script, conninfo],
                          capture_output=True, text=True)
    check(done.returncode == 0, f"pgbench: {done.stderr}")
    # Older ones tell it twice: with and without the time to connect.
    return float([line.split()[2] for line in done.stdout.splitlines() if line.startswith("tps = ")][-1])


def bare_sqlite(file, seconds, record, event):
    """Commits of the same rows a second, by one connection."""
    connection = sqlite3.connect(file, isolation_level=None)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;" + EMPTIED)
    count, begin = 0, time.monotonic()
    first, second, told = b"\xab" * record, b"\xcd" * record, b"\xab" * event
    while time.monotonic() - begin < seconds:
        scope, job = f"t{count % TENANTS + 1}", f"bare-{begin}-{count}"
        connection.execute("BEGIN IMMEDIATE")
        (last,) = connection.execute("INSERT INTO sequences (kind, scope, last) VALUES (2, ?, 1) ON CONFLICT (kind, scope) DO UPDATE"
                                     " SET last = last + 1 RETURNING last", (scope,)).fetchone()
        connection.execute("INSERT INTO jobs (scope, id, sequence, state, queue_key, record) VALUES (?, ?, ?, 2, 1, ?)",
                           (scope, job, last, first))
        connection.execute("INSERT INTO job_events (scope, job, sequence, event) VALUES (?, ?, 1, ?)", (scope, job, told))
        connection.execute("UPDATE jobs SET state = 2, queue_key = 1, record = ? WHERE scope = ? AND id = ?", (second, scope, job))
        connection.execute("INSERT INTO requests (scope, request_id, payload_digest, result_name) VALUES (?, ?, ?, ?)",
                           (scope, f"request-{job}", "a" * 71, job))
        connection.execute("COMMIT")
        count += 1
    connection.close()
    return count / seconds


def same_tables(conninfo):
    """Another database of the same server with the same tables, empty. Its connection string."""
    postgres.query(conninfo, "CREATE DATABASE bench")
    bench = conninfo.replace("dbname=postgres", "dbname=bench")
    schema = subprocess.run([postgres.binaries() / "pg_dump", "--schema-only", "--dbname", conninfo], capture_output=True, check=True)
    subprocess.run([postgres.binaries() / "psql", bench, "-X", "-q", "-v", "ON_ERROR_STOP=1"], input=schema.stdout,
                   stdout=subprocess.DEVNULL, check=True)
    return bench


def against_postgres(arguments, folder):
    service = Service(arguments.build, folder / "with-postgres")
    try:
        service.bench.stores.start(on_postgres=True, on_object_store=False)
        conninfo = service.bench.stores.conninfo
        service.make()
        service.load(arguments.build, "create", 1, arguments.threads)
        sizes = record_sizes(lambda statement: postgres.query(conninfo, statement))
        bench = same_tables(conninfo)
        script = folder / "same.sql"
        script.write_text(PGBENCH.format(tenants=TENANTS, record=sizes[0], event=sizes[1]))
        ratios, ours, theirs, latencies = [], [], [], []
        for _ in range(arguments.rounds):
            postgres.query(conninfo, EMPTIED)
            postgres.query(bench, EMPTIED)
            theirs.append(pgbench(bench, script, arguments.seconds, arguments.threads))
            result = service.load(arguments.build, "create", arguments.seconds, arguments.threads)
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
    try:
        service.make()
        service.load(arguments.build, "create", 1, arguments.threads)
        database = service.bench.data / "server" / "ballast.db"
        connection = sqlite3.connect(database)
        sizes = record_sizes(lambda statement: connection.execute(statement).fetchall())
        # A copy of the same size beside it, on the same disk.
        copy = folder / "bare.db"
        with sqlite3.connect(copy) as target:
            connection.backup(target)
        connection.close()
        ratios, ours, theirs, bare_rpc = [], [], [], []
        for _ in range(arguments.rounds):
            theirs.append(bare_sqlite(copy, arguments.seconds, *sizes))
            with sqlite3.connect(database, timeout=30) as emptied:
                emptied.executescript(EMPTIED)
            result = service.load(arguments.build, "create", arguments.seconds, arguments.threads)
            ours.append(result["calls"] / result["seconds"])
            ratios.append(ours[-1] / theirs[-1])
            before = service.cpu_seconds()
            result = service.load(arguments.build, "health", arguments.seconds, arguments.threads)
            bare_rpc.append(1e6 * (service.cpu_seconds() - before) / result["calls"])
        return {"ratio": statistics.median(ratios), "creates_per_s": statistics.median(ours),
                "bare_commits_per_s": statistics.median(theirs), "rpc_cpu_us": statistics.median(bare_rpc)}
    finally:
        service.bench.stop_all()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build" / "release"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--smoke", action="store_true", help="a second of each; writes nothing")
    parser.add_argument("--folder", default=str(ROOT / "docs" / "results"))
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rounds, arguments.seconds = 1, 1
    with tempfile.TemporaryDirectory(prefix="ballast-bench-") as folder:
        folder = pathlib.Path(folder)
        kind = subprocess.run(["stat", "--file-system", "--format=%T", folder], capture_output=True, text=True).stdout.strip()
        if kind == "tmpfs":
            sys.exit(f"control_plane.py: {folder} is on a tmpfs; set TMPDIR to a folder on a disk")
        os.chmod(folder, 0o711)
        on_postgres = against_postgres(arguments, folder)
        on_sqlite = against_sqlite(arguments, folder)
    found = {
        "submit_ratio_pgbench": round(on_postgres["ratio"], 3), "submit_ratio_sqlite": round(on_sqlite["ratio"], 3),
        "rpc_cpu_us": round(on_sqlite["rpc_cpu_us"], 1),
        "submit": {"threads": arguments.threads, "rounds": arguments.rounds, "seconds": arguments.seconds,
                   "processor": processor(), "postgres": rounded(on_postgres), "sqlite": rounded(on_sqlite)},
    }
    print(json.dumps(found, indent=1))
    if not arguments.smoke:
        file = pathlib.Path(arguments.folder) / "control_plane.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**known, **found}, indent=1) + "\n")
    return 0


def rounded(values):
    return {name: round(value, 2) for name, value in values.items()}


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return platform.machine()


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
