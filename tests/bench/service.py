# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of the control plane share: a service to measure, its databases, and where figures are kept."""

import argparse
import contextlib
import hashlib
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import prepared  # noqa: E402
import rows  # noqa: E402
from harness import Bench, check, postgres  # noqa: E402

MODEL = "tiny"
TENANTS = 64


class Service:
    """A server and no worker, with TENANTS tenants, each with a data set, and one base model with a vector. `more`: lines of
    server.yaml; `import_options`: of the base's import."""

    def __init__(self, build, folder, more=(), import_options=()):
        self.bench, self._more, self._import_options = Bench(build, folder), list(more), import_options
        self.keys = self.bench.folder / "keys"

    def make(self):
        bench = self.bench
        bench.data.mkdir()
        lines = [*self._more, "quotas:", "  - {max_queued_jobs: 100000000}"]
        tenants = {f"t{number}": os.urandom(32).hex() for number in range(1, TENANTS + 1)}
        lines += ["api_keys:"]
        for tenant, key in tenants.items():
            lines.append(f"  - {{digest: \"sha256:{hashlib.sha256(key.encode()).hexdigest()}\", role: TENANT, tenant: {tenant}}}")
        (bench.data / "server.yaml").write_text("\n".join(lines) + "\n" + bench.stores.configuration())
        dev = bench.start_dev()
        prepared.base_with_vector(bench, MODEL, "a benchmark", *self._import_options)
        data = rows.write(bench.folder / "rows.jsonl", rows.rows(60, seed=2))
        with open(self.keys, "w") as keys:
            for tenant, key in tenants.items():
                environment = {"BALLAST_API_KEY": key, "BALLAST_TENANT": tenant}
                dataset = bench.ok_json("dataset", "upload", data, "--base-model", MODEL, environment=environment)
                keys.write(f"{tenant} {key} {dataset['name']}\n")
        check(dev.terminate() == 0, "ballast dev did not stop")
        bench.wait_until_free()
        self.server = bench.start_server()  # and no worker: jobs stay QUEUED

    @property
    def address(self):
        return f"127.0.0.1:{self.bench.port}"

    def load(self, mode, seconds, threads, keys=None, **more):
        return load(self.bench.build, self.address, keys or self.keys, mode, seconds, threads, **more)

    def worker_keys(self):
        """A file as `keys` with a worker's key."""
        file = self.bench.folder / "worker-keys"
        file.write_text(f"worker {(self.bench.data / 'keys' / 'worker.key').read_text().strip()} none\n")
        return file

    def cpu_seconds(self):
        return cpu_seconds(self.server)

    def memory_kib(self, field):
        return int(re.search(rf"{field}:\s+(\d+)", pathlib.Path(f"/proc/{self.server.pid}/status").read_text()).group(1))


def cpu_seconds(process):
    """CPU time of a process so far, as a whole."""
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bare_server(build, folder):
    """A process of bare_server, which keeps uploads in `folder`, and its address."""
    process = subprocess.Popen([build / "tests" / "bench" / "bare_server", folder], stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().strip()


def call_load(build):
    return build / "tests" / "bench" / "call_load"


def load(build, address, keys, mode, seconds, threads, per_second=0):
    """What call_load found, which see."""
    done = subprocess.run([call_load(build), mode, address, str(seconds), str(threads), keys, f"baseModels/{MODEL}", str(per_second)],
                          capture_output=True, text=True)
    check(done.returncode == 0, f"call_load {mode}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def pgbench(conninfo, script, seconds, threads):
    done = subprocess.run([postgres.binaries() / "pgbench", "--no-vacuum", "--protocol", "prepared", "--client", str(threads),
                           "--jobs", str(min(threads, os.cpu_count())), "--time", str(round(seconds)), "--file", script, conninfo],
                          capture_output=True, text=True)
    check(done.returncode == 0, f"pgbench: {done.stderr}")
    # Older ones tell it twice: with and without the time to connect.
    return float([line.split()[2] for line in done.stdout.splitlines() if line.startswith("tps = ")][-1])


def same_tables(conninfo):
    """Another database of the same server with the same tables, empty. Its connection string."""
    postgres.query(conninfo, "CREATE DATABASE bench")
    bench = conninfo.replace("dbname=postgres", "dbname=bench")
    schema = subprocess.run([postgres.binaries() / "pg_dump", "--schema-only", "--dbname", conninfo], capture_output=True, check=True)
    subprocess.run([postgres.binaries() / "psql", bench, "-X", "-q", "-v", "ON_ERROR_STOP=1"], input=schema.stdout,
                   stdout=subprocess.DEVNULL, check=True)
    return bench


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':', 1)[1].strip()}, {os.cpu_count()} cores"
    return platform.machine()


@contextlib.contextmanager
def folder_on_a_disk():
    """A temporary folder, which must be on a disk: on a tmpfs nothing is durable."""
    with tempfile.TemporaryDirectory(prefix="ballast-bench-") as folder:
        kind = subprocess.run(["stat", "--file-system", "--format=%T", folder], capture_output=True, text=True).stdout.strip()
        if kind == "tmpfs":
            sys.exit(f"{folder} is on a tmpfs; set TMPDIR to a folder on a disk")
        os.chmod(folder, 0o711)
        yield pathlib.Path(folder)


def keep(folder, found):
    """Puts figures into control_plane.json, beside those of others."""
    file = pathlib.Path(folder) / "control_plane.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**known, **found}, indent=1) + "\n")


def run(doc, measured, named, name, own=(), smoke=None, threads=None):
    """The main program of a benchmark: `measured(arguments, folder)` gives its figures, `named(found)` those with names of their
    own, and the rest are kept as `name`, with the arguments of `own`. `smoke`: arguments that make it short. It counts in rounds
    of seconds where it has `threads`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build" / "release"))
    if threads:
        parser.add_argument("--rounds", type=int, default=5)
        parser.add_argument("--seconds", type=float, default=5)
        parser.add_argument("--threads", type=int, default=threads)
        own, smoke = {"threads": None, "rounds": None, "seconds": None, **dict(own)}, {"rounds": 1, "seconds": 1, **(smoke or {})}
    for option, default in dict(own).items():
        if default is False:
            parser.add_argument(f"--{option}", action="store_true")
        elif default is not None:
            parser.add_argument(f"--{option}", type=type(default), default=default)
    parser.add_argument("--smoke", action="store_true", help="a short one, which writes nothing")
    parser.add_argument("--folder", default=str(ROOT / "docs" / "results"))
    arguments = parser.parse_args()
    if arguments.smoke:
        vars(arguments).update(smoke or {})
    os.umask(0o077)
    with folder_on_a_disk() as folder:
        found = measured(arguments, folder)
    told = {option: getattr(arguments, option) for option in dict(own)}
    figures = {**named(found), name: {**told, "processor": processor(), **rounded(found)}}
    print(json.dumps(figures, indent=1))
    if not arguments.smoke:
        keep(arguments.folder, figures)
    return 0


def rounded(values):
    return {name: rounded(value) if isinstance(value, dict) else round(value, 2) for name, value in values.items()}
