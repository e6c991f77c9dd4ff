#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kills the server, the workers, PostgreSQL and the object store while customers use the service, and then looks whether anything that was
acknowledged is missing, any job has two deltas, is stuck, or has left files behind.

usage: tests/chaos/run.py [--kills N] [--minutes N] [--postgres] [--object-store] [--servers N] [--no-steps]
                          [--build build/dev] [--seed N] [--publish FOLDER] [--junit FILE] [--keep FOLDER]

First every step that the sources name with PassKillPoint is killed at once; then come --kills kills of random programs at
random moments, each while a job is between claim and commit; now and then all connections are cut. Between the two, workers are
frozen until another one has their job, and the server for longer than a lease. Of several servers each is also dead until the
others know that it is gone, and these must go on. --minutes ends the last part early. Ends with the line "N passed, N failed".
"""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import planted  # noqa: E402
import protos  # noqa: E402
import results  # noqa: E402
from checker import Checker  # noqa: E402
from customers import Customer, Ledger  # noqa: E402
from harness import ROOT  # noqa: E402
from survivors import Survivors, within  # noqa: E402
from world import LEASE_SECONDS, MODEL, World  # noqa: E402

CUSTOMERS = 4
WORKERS = 2
# How long a step may take to be reached, and all jobs to end once nothing is killed any more.
STEP_SECONDS, CALM_SECONDS, GARBAGE_SECONDS = 90, 180, 60
# How often a worker is frozen while another one takes its job.
FREEZES = 3
# Steps that the sources name at least: fewer, and they are not found.
LEAST_STEPS = 25


def kill_points(on_postgres):
    """Names of all steps in the sources."""
    names = []
    for folder in ("server", "worker"):
        for file in sorted((ROOT / folder).rglob("*.cc")):
            names += re.findall(r'PassKillPoint\(\s*"([^"]+)"\s*\)', file.read_text())
    other = "sqlite" if on_postgres else "postgres"
    names = [name for name in names if f".{other}." not in name]
    if len(set(names)) != len(names) or len(names) < LEAST_STEPS:
        sys.exit(f"chaos: the sources name {len(names)} steps, {len(set(names))} of them different")
    return names


class Run:
    def __init__(self, arguments, world):
        self._arguments, self._world = arguments, world
        self._draw = random.Random(arguments.seed)
        self._customers, self.ledger = [], Ledger()
        self.kills, self.kills_of, self.random_kills, self.hits = 0, {}, 0, 0
        self.freezes, self.server_freezes, self.outlived = 0, 0, 0
        self.steps, self.steps_hit = kill_points(arguments.postgres), []
        self._started = time.monotonic()

    def say(self, text):
        print(f"[{time.monotonic() - self._started:5.0f} s] {text}", flush=True)

    def start_customers(self):
        bench, addresses = self._world.bench, [self._world.address_of(server) for server in self._world.servers]
        key = (bench.data / "keys" / "tenant.key").read_text().strip()
        self._survivors = Survivors(self._world, self.ledger, "dev", key)
        for number in range(CUSTOMERS):
            customer = Customer(addresses, "dev", key, MODEL, self.ledger, number, bench.folder)
            customer.start()
            self._customers.append(customer)

    def _count(self, name):
        self.kills += 1
        program = "worker" if name in self._world.workers else name
        self.kills_of[program] = self.kills_of.get(program, 0) + 1

    def _one_of(self, names):
        return names[0] if len(names) == 1 else self._draw.choice(names)

    def _revive(self):
        """Starts again whatever has died by itself, which nothing should."""
        for name, program in self._world.programs.items():
            if not program.running():
                self.ledger.problem(f"{name} ended with {program.process.returncode}:\n{program.text()[-1500:]}")
                self._world.restart(name)

    # Every named step.

    def kill_at_every_step(self):
        for step in self.steps:
            program = self._one_of(self._world.servers if step.startswith("server.") else self._world.workers)
            self._world.kill(program)
            self._world.restart(program, kill_at=step)
            deadline = time.monotonic() + STEP_SECONDS
            provoked = time.monotonic() + 2
            while self._world.programs[program].running() and time.monotonic() < deadline:
                if step == "server.lease.ended" and time.monotonic() > provoked:
                    # Somebody has to lose a lease for it.
                    other = self._draw.choice(self._world.workers)
                    self._world.kill(other)
                    time.sleep(LEASE_SECONDS + 1)
                    self._world.restart(other)
                    provoked = time.monotonic() + 2
                time.sleep(0.02)
            hit = step in self._world.killed_at()
            if hit:
                self.steps_hit.append(step)
                self._count(program)
                if program in self._world.servers:
                    self._survivors.check({program})
            elif not self._world.programs[program].running():
                self.ledger.problem(f"{program} ended before {step}:\n{self._world.programs[program].text()[-1500:]}")
            self._world.kill(program)
            self._world.restart(program)
            self.say(f"{'killed' if hit else 'NOT REACHED'} at {step}")

    # Two workers that believe that they hold one lease.

    def freeze_holders(self):
        for _ in range(FREEZES):
            if not self._freeze_a_holder():
                self.ledger.problem("no worker that held a lease could be frozen until another one had its job")

    def _freeze_a_holder(self):
        world = self._world
        deadline = time.monotonic() + STEP_SECONDS
        while time.monotonic() < deadline:
            held = [(job, *lease) for job, lease in self._leases().items() if lease[0] in world.workers]
            if not held:
                time.sleep(0.05)
                continue
            job, worker, epoch = self._draw.choice(held)
            told = world.programs[worker].text().count("the lease is lost")
            world.freeze(worker)
            taken = within(10 * LEASE_SECONDS, lambda: self._leases().get(job, (worker, epoch))[0] not in ("", worker))
            world.thaw(worker)
            if taken and within(30, lambda: world.programs[worker].text().count("the lease is lost") > told):
                self.freezes += 1
                self.say(f"{worker} was frozen until another one had its job, and then gave way")
                return True
        return False

    def freeze_servers(self):
        """Each for longer than all leases: they are overdue when it goes on. Of several, until the others take it for gone."""
        for server in self._world.servers:
            self._world.freeze(server)
            time.sleep(2 * LEASE_SECONDS)
            if len(self._world.servers) > 1 and not self._survivors.know_it_is_gone():
                self.ledger.problem(f"{server} was frozen, and was taken for alive")
            self._world.thaw(server)
            self.server_freezes += 1

    def outlive_servers(self):
        """Each is dead for long, and the others go on."""
        for server in self._world.servers:
            self._count(server)
            if self._survivors.outlive(server):
                self.outlived += 1
                self.say(f"{server} was dead until the others knew, and they went on")

    # Random moments.

    def kill_at_random(self):
        world, end = self._world, time.monotonic() + 60 * self._arguments.minutes
        kept = [name for name, used in (("postgres", world.stores.on_postgres), ("object store", world.stores.on_object_store)) if used]
        targets = [*world.servers, *world.workers, *kept]
        said = 0
        while self.random_kills < self._arguments.kills and time.monotonic() < end:
            time.sleep(self._draw.expovariate(2.5))
            self._revive()
            if self._draw.random() < 0.1:
                world.cut()
            # Mostly one, now and then several or all at once.
            count = self._draw.choices((1, 2, len(targets)), (0.8, 0.15, 0.05))[0]
            chosen = self._draw.sample(targets, count)
            # Asked for at the last moment: a job is between claim and commit, and its worker lives.
            if not within(30, lambda: any(worker in world.workers for worker, _ in self._leases().values())):
                self.ledger.problem("no job was claimed for 30 s")
                return
            holders = {worker for worker, _ in self._leases().values()}
            for name in chosen:
                world.kill(name)
                self._count(name)
                self.hits += name in holders or name not in world.workers
            self.random_kills += len(chosen)
            if not {*chosen}.isdisjoint(world.servers) and {*chosen}.isdisjoint(kept):
                self._survivors.check({*chosen})
            time.sleep(self._draw.uniform(0, 0.3))
            # The stores first: the server looks for them when it starts.
            for name in sorted(chosen, key=[*kept, *world.servers, *world.workers].index):
                world.restart(name)
            if self.random_kills // 50 > said:
                said = self.random_kills // 50
                self.say(f"{self.random_kills} random kills, {len(self.ledger.jobs)} jobs created, {len(self.ledger.ends)} ended")

    def _leases(self):
        try:
            return self._world.leases()
        except Exception:  # noqa: BLE001 - a database that has just been killed is asked again
            return {}

    # The end.

    def calm(self):
        """Whether everything that was begun ends, now that nothing is killed."""
        self._revive()
        for customer in self._customers:
            customer.finish()
        deadline = time.monotonic() + CALM_SECONDS
        for customer in self._customers:
            customer.join(max(0.1, deadline - time.monotonic()))
        for customer in self._customers:
            if customer.is_alive():
                customer.abandon()
        deadline = time.monotonic() + GARBAGE_SECONDS
        while time.monotonic() < deadline and self._world.query("SELECT blob_prefix FROM garbage LIMIT 1"):
            time.sleep(0.2)
        self._revive()
        for name in (*self._world.servers, *self._world.workers):
            self._world.kill(name)


def report_of(run, checker, world, arguments, seconds):
    several = {"servers": arguments.servers, "servers_outlived": run.outlived} if arguments.servers > 1 else {}
    return {
        "kills": run.kills, "kills_of": run.kills_of, "random_kills": run.random_kills,
        "random_kills_of_server_database_or_holder": run.hits, "holders_frozen_until_replaced": run.freezes,
        "server_frozen_beyond_a_lease": run.server_freezes, "cuts": world.cuts,
        "steps_hit": len(run.steps_hit), "steps_total": len(run.steps), "steps": run.steps_hit,
        "steps_named": run.steps,
        **checker.counts, "problems": len(checker.problems), "database": "PostgreSQL" if arguments.postgres else "SQLite",
        "blobs": "S3" if arguments.object_store else "folder",
        **several, "customers": CUSTOMERS, "workers": WORKERS, "seed": arguments.seed, "seconds": round(seconds),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build" / "dev"))
    parser.add_argument("--kills", type=int, default=500, help="random kills [500]")
    parser.add_argument("--minutes", type=float, default=60, help="most time for the random kills [60]")
    parser.add_argument("--no-steps", action="store_true", help="only random kills")
    parser.add_argument("--postgres", action="store_true", help="keep records in a PostgreSQL server, and kill it, too")
    parser.add_argument("--object-store", action="store_true", help="keep blobs in a server that speaks S3, and kill it, too")
    parser.add_argument("--servers", type=int, default=1, metavar="N", help="servers that share both stores; each may be killed [1]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--publish", help="folder to write the report to, with its sums in control_plane.json")
    parser.add_argument("--junit")
    parser.add_argument("--keep", help="folder to keep everything in; must not exist")
    arguments = parser.parse_args()
    if arguments.servers < 1:
        parser.error("--servers needs 1 or more")
    if arguments.servers > 1 and not (arguments.postgres and arguments.object_store):
        parser.error("--servers beyond 1 needs --postgres and --object-store: servers share nothing but these")
    if arguments.keep:
        folder = pathlib.Path(arguments.keep).absolute()
        folder.mkdir()
    else:
        folder = pathlib.Path(tempfile.mkdtemp(prefix="ballast-chaos-"))
    started = time.monotonic()
    world, whole = World(arguments.build, folder, WORKERS, arguments.servers), False
    try:
        world.make(arguments.postgres, arguments.object_store)
        run = Run(arguments, world)
        run.say("server, workers, base model and vector are there")
        run.start_customers()
        if not arguments.no_steps:
            run.kill_at_every_step()
        run.freeze_holders()
        run.freeze_servers()
        if arguments.servers > 1:
            run.outlive_servers()
        run.kill_at_random()
        run.say("nothing is killed any more")
        run.calm()
        checker = Checker(world, run.ledger)
        checker.run()
        whole = not checker.problems
        unnoticed = planted.unnoticed(world, run.ledger)
    finally:
        world.remove()
        protos.remove()
        if whole and not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"chaos: logs, database and blobs lie in {folder}")
    report = report_of(run, checker, world, arguments, time.monotonic() - started)
    print(json.dumps(report, indent=1))
    for problem in [*checker.problems, *(f"not noticed: {fault}" for fault in unnoticed)]:
        print("problem: " + problem)
    checks = {
        f"{run.random_kills} random kills were made": run.random_kills >= arguments.kills,
        "two workers believed that they held a lease, and one gave way": run.freezes == FREEZES,
        **({f"each of {arguments.servers} servers was dead, and the others went on": run.outlived == arguments.servers}
           if arguments.servers > 1 else {}),
        "nothing acknowledged is missing": report["lost"] == 0,
        "no job has two deltas": report["duplicate_deltas"] == 0,
        "no job is stuck": report["stuck"] == 0,
        "no file is left behind": report["orphans"] == 0,
        "faults that are planted afterwards are noticed": not unnoticed,
        "jobs succeeded, and customers saw nothing else that must not be": report["succeeded"] > 0 and report["problems"] == 0,
    }
    if not arguments.no_steps:
        checks[f"all {len(run.steps)} named steps were hit"] = len(run.steps_hit) == len(run.steps)
    suite = ElementTree.Element("testsuite", name="chaos")
    for name, holds in checks.items():
        print(f"{'ok  ' if holds else 'FAIL'} {name}")
        case = ElementTree.SubElement(suite, "testcase", classname="chaos", name=name)
        if not holds:
            ElementTree.SubElement(case, "failure", message="; ".join(checker.problems)[:2000])
    if arguments.junit:
        ElementTree.ElementTree(suite).write(arguments.junit, encoding="unicode", xml_declaration=True)
    failed = sum(not holds for holds in checks.values())
    if arguments.publish and not failed:
        results.publish(arguments.publish, report)
    print(f"chaos: {time.monotonic() - started:.0f} s")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
