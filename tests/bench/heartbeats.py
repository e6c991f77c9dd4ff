#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What workers at work and customers who watch cost one server: CPU per heartbeat, memory and CPU per open watch.

usage: tests/bench/heartbeats.py [--build build/release] [--workers 1000] [--watches 10000] [--seconds 30] [--postgres] [--smoke]

- Idle: the server's CPU with the jobs in its queue and nobody connected.
- Workers: each has a connection of its own, a job, and a heartbeat every 2 s, which moves the job one step on (call_load
  heartbeat). CPU beyond idle, over the heartbeats.
- Watches with them: customers follow these jobs, several each, over as few connections as the server allows (call_load watch).
  Memory is what the server has grown to (VmRSS) beyond before, over the watches; CPU of a watch is what is neither of idle nor
  of as many heartbeats as there were. Each is told its job's progress as it moves.
- Resting watches: the workers fall silent, so that there is nothing to tell, for less time than their leases last.

The base has the policy ALWAYS: by row, progress moves with evaluations only, and watches have less to tell. Records are in
SQLite, and with --postgres once more in PostgreSQL, whose figures end with _postgres. CPU is the server's alone, from its
clock in /proc. Heartbeats that fail are told by reason. Writes its figures into docs/results/control_plane.json.
"""

import json
import resource
import subprocess
import sys
import time

sys.dont_write_bytecode = True

from service import Service, call_load, run  # noqa: E402
from harness import check  # noqa: E402

# A heartbeat of each worker, so that what begins has begun.
SETTLING = 2.5
# Leases end 30 s after the last heartbeat.
SHORTER_THAN_A_LEASE = 15


class Standing:
    """`count` workers or watches of call_load, which all go on from the start until `end`."""

    def __init__(self, service, mode, count, keys):
        self._mode = mode
        self._process = subprocess.Popen([call_load(service.bench.build), mode, service.address, str(count), keys],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._told()

    def tell(self):
        """What has happened since it was asked last."""
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._told()

    def end(self):
        self._process.stdin.close()
        self._process.wait()

    def _told(self):
        line = self._process.stdout.readline()
        check(line, f"call_load {self._mode} has ended")
        return json.loads(line)


def period(service, seconds, *standing):
    """The server's CPU seconds in a second, how many seconds there were, and what each of `standing` tells of them."""
    time.sleep(SETTLING)
    for calls in standing:
        calls.tell()
    cpu, begin = service.cpu_seconds(), time.monotonic()
    time.sleep(seconds)
    cpu, took = service.cpu_seconds() - cpu, time.monotonic() - begin
    return cpu / took, took, [calls.tell() for calls in standing]


def against(arguments, folder, on_postgres):
    service = Service(arguments.build, folder, import_options=["--vector-policy", "always"])
    standing = []

    def stand(*what):
        standing.append(Standing(service, *what))
        return standing[-1]

    try:
        service.bench.stores.start(on_postgres, on_object_store=False)
        service.make()
        made = 0
        while made < arguments.workers:
            made += service.load("create", 1, 4, per_second=arguments.workers)["calls"]
        idle, _, _ = period(service, arguments.seconds)

        workers = stand("heartbeat", arguments.workers, service.worker_keys())
        alone, took, (beats,) = period(service, arguments.seconds, workers)
        check(beats["calls"] > 0, "there were no heartbeats")
        per_heartbeat = (alone - idle) * took / beats["calls"]
        found = {"idle_cpu_ms_per_s": 1e3 * idle, "heartbeat_cpu_us": 1e6 * per_heartbeat, "workers": beats["workers"],
                 "heartbeats_per_second": beats["calls"] / took, "p50_ms": beats["p50_ms"], "p99_ms": beats["p99_ms"],
                 "failures": beats["failures"]}

        before = service.memory_kib("VmRSS")
        watches = stand("watch", arguments.watches, service.keys)
        with_watches, took, (beats, seen) = period(service, arguments.seconds, workers, watches)
        check(seen["open"] == arguments.watches, f"watches are missing: {seen}")
        of_watches = with_watches - idle - per_heartbeat * beats["calls"] / took
        found.update(watches=seen["most_open"], watch_rss_kib=(service.memory_kib("VmRSS") - before) / seen["open"])
        found["with_watches"] = {
            "server_cpu_ms_per_s": 1e3 * with_watches, "heartbeat_cpu_us": 1e6 * (with_watches - idle) * took / beats["calls"],
            "heartbeats_per_second": beats["calls"] / took, "p50_ms": beats["p50_ms"], "p99_ms": beats["p99_ms"],
            "cpu_us_per_watch_and_second": 1e6 * of_watches / seen["open"],
            "messages_per_watch_and_second": seen["messages"] / seen["open"] / took,
            "failures": {**beats["failures"], **seen["failures"]}}

        workers.end()
        resting, took, (seen,) = period(service, min(arguments.seconds, SHORTER_THAN_A_LEASE), watches)
        found["resting_watches"] = {"cpu_us_per_watch_and_second": 1e6 * (resting - idle) / seen["open"],
                                    "messages_per_watch_and_second": seen["messages"] / seen["open"] / took}
        if arguments.smoke:
            check(not found["failures"] and not found["with_watches"]["failures"], f"calls have failed: {found}")
        return found
    finally:
        for calls in standing:
            calls.end()
        service.bench.stop_all()
        service.bench.stores.stop()


def measured(arguments, folder):
    # A connection is a descriptor, on both sides.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found = {"sqlite": against(arguments, folder / "with-sqlite", on_postgres=False)}
    if arguments.postgres:
        found["postgres"] = against(arguments, folder / "with-postgres", on_postgres=True)
    return found


def named(found):
    figures = {"workers": found["sqlite"]["workers"], "watches": found["sqlite"]["watches"]}
    for store, end in (("sqlite", ""), ("postgres", "_postgres")):
        if store not in found:
            continue
        figures_there, with_watches = found[store], found[store]["with_watches"]
        figures.update({f"heartbeat_cpu_us{end}": round(figures_there["heartbeat_cpu_us"], 1),
                        f"heartbeats_per_second{end}": round(figures_there["heartbeats_per_second"], 1),
                        f"heartbeat_p99_ms{end}": round(figures_there["p99_ms"], 2),
                        f"heartbeat_p99_ms_with_watches{end}": round(with_watches["p99_ms"], 2),
                        f"watch_rss_kib{end}": round(figures_there["watch_rss_kib"], 1),
                        f"cpu_seconds_per_second_and_1000_watches{end}": round(with_watches["cpu_us_per_watch_and_second"] / 1e3, 4)})
    return figures


if __name__ == "__main__":
    sys.exit(run(__doc__, measured, named, "heartbeats", own={"workers": 1_000, "watches": 10_000, "seconds": 30.0, "postgres": False},
                 smoke={"workers": 20, "watches": 200, "seconds": 2.0}))
