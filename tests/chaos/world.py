# SPDX-License-Identifier: Apache-2.0
"""What is killed: one server or several, their stores and some workers, each started again after its death."""

import os
import pathlib
import signal
import sqlite3
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

import prepared  # noqa: E402
import protos  # noqa: E402
from harness import Bench, check, object_store, postgres, with_values  # noqa: E402
from proxy import Proxy  # noqa: E402

MODEL = "tiny"
LEASE_SECONDS = 2
CHECKPOINT_STEPS = 10
# States of FineTuningJob in which a worker has claimed a job and not committed its result.
CLAIMED = (3, 4, 6)


class World:
    """Starts everything, with a base model and a vector that serves; then kills and restarts what it is told.
    Thread safety: `kill`, `restart` and what they act on are for one thread."""

    def __init__(self, build, folder, workers, servers=1):
        self.bench = Bench(build, folder, servers)
        self.stores = self.bench.stores
        self.kill_log = self.bench.folder / "killed-at"
        self.kill_log.touch()
        self.programs = {}  # name -> Program
        self._servers = {server.name: server for server in self.bench.servers}
        self.servers = list(self._servers)
        # Between everybody and each of the servers.
        self._networks = {name: Proxy(server.port) for name, server in self._servers.items()}
        self.workers = [f"worker-{number}" for number in range(1, workers + 1)]
        # Each worker knows one server: they take turns.
        self.server_of = {name: self.servers[number % servers] for number, name in enumerate(self.workers)}

    # Making it.

    def make(self, on_postgres, on_object_store):
        bench = self.bench
        self.stores.start(on_postgres, on_object_store)
        bench.data.mkdir()
        (bench.data / "server.yaml").write_text(
            f"lease_seconds: {LEASE_SECONDS}\nretry_seconds: 1\nmax_attempts: 1000000\n"
            + self.stores.configuration())
        (bench.data / "worker.yaml").write_text(f"checkpoint_steps: {CHECKPOINT_STEPS}\n")
        dev = bench.start_dev()
        prepared.base_with_vector(bench, MODEL, "what is killed has a vector, too")
        check(dev.terminate() == 0, "ballast dev did not stop")
        bench.wait_until_free()
        for server in bench.servers[1:]:  # which ran beside `ballast dev`
            check(server.program.terminate() == 0, f"{server.name} did not stop")
        for name in self.workers:
            with_values(bench.data / "worker.yaml", bench.data / f"{name}.yaml", worker_id=name,
                        cache_dir=bench.folder / f"cache-{name}", metrics_address='"off"',
                        server_address=self.address_of(self.server_of[name]))
        for name in (*self.servers, *self.workers):
            self.restart(name)

    def address_of(self, server):
        """By which everybody reaches it, until all is cut."""
        return f"127.0.0.1:{self._networks[server].port}"

    @property
    def cuts(self):
        return self._networks[self.servers[0]].cuts

    def cut(self):
        """Ends all connections at once, in the middle of what they say."""
        for network in self._networks.values():
            network.cut()

    def remove(self):
        self.bench.stop_all()
        for network in self._networks.values():
            network.close()
        self.stores.stop()

    # Killing it.

    def restart(self, name, kill_at=None, wait=True):
        """Starts a program that has died; with `kill_at` it kills itself at that step."""
        if name == "postgres":
            postgres.restart(self.stores.postgres_file)
            return
        if name == "object store":
            object_store.run(self.stores.object_store_file)
            return
        environment = dict(self.bench.environment)
        environment["BALLAST_KILL_LOG"] = str(self.kill_log)
        if kill_at:
            environment["BALLAST_KILL_AT"] = kill_at
        kept, self.bench.environment = self.bench.environment, environment
        try:
            if name in self._servers:
                self.programs[name] = self.bench.start_one(self._servers[name], wait=wait and not kill_at)
            else:
                self.programs[name] = self.bench.start_worker(self.bench.data / f"{name}.yaml", log=f"{name}.log")
        finally:
            self.bench.environment = kept

    def kill(self, name):
        if name == "postgres":
            postgres.kill(self.stores.postgres_file)
        elif name == "object store":
            object_store.kill(self.stores.object_store_file)
        else:
            self.programs[name].kill()

    def freeze(self, name):
        """SIGSTOP, as a network that loses all packets or a machine that hangs."""
        os.kill(self.programs[name].pid, signal.SIGSTOP)

    def thaw(self, name):
        os.kill(self.programs[name].pid, signal.SIGCONT)

    def killed_at(self):
        return self.kill_log.read_text().split()

    # Looking at it, past the code that is tested.

    def query(self, statement):
        """Rows of the database. Byte columns are for `parsed`: PostgreSQL gives text."""
        if self.stores.on_postgres:
            return postgres.query(self.stores.conninfo, statement)
        connection = sqlite3.connect(f"file:{self.database()}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def execute(self, statement):
        """Changes the database, when nothing runs any more."""
        if self.stores.on_postgres:
            self.query(statement)
            return
        connection = sqlite3.connect(self.database())
        with connection:
            connection.execute(statement)
        connection.close()

    def database(self):
        (found,) = (self.bench.data / "server").glob("*.db")
        return found

    def parsed(self, table, keys, column, message, where="true"):
        """[(*keys, message)] of a table whose `column` has bytes of `message`."""
        wanted = f"encode({column}, 'hex')" if self.stores.on_postgres else column
        found = []
        for *own, data in self.query(f"SELECT {', '.join(keys)}, {wanted} FROM {table} WHERE {where}"):
            found.append((*own, message.FromString(bytes.fromhex(data) if self.stores.on_postgres else data)))
        return found

    def jobs(self, where="true"):
        """{(tenant, id): record}."""
        record = protos.load("server.core.record_pb2").JobRecord
        return {(scope, identifier): job for scope, identifier, job in self.parsed("jobs", ("scope", "id"), "record", record, where)}

    def write_job(self, scope, identifier, record):
        data = record.SerializeToString().hex()
        value = f"decode('{data}', 'hex')" if self.stores.on_postgres else f"x'{data}'"
        self.execute(f"UPDATE jobs SET record = {value} WHERE scope = '{scope}' AND id = '{identifier}'")

    def leases(self):
        """{job: (worker, epoch)} of the jobs between claim and commit."""
        claimed = self.jobs(f"state IN ({', '.join(map(str, CLAIMED))})")
        return {record.job.name: (record.lease.worker_id, record.lease.epoch) for record in claimed.values()}
