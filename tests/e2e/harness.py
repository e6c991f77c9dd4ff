# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end steps are written with: the real programs, run and stopped, and their answers checked.

Standard library only. Every program runs in a session of its own and is killed at the end, whatever happened.
"""

import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "services"))

import object_store  # noqa: E402, F401 - for those who kill it
import postgres  # noqa: E402, F401
import stores  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Failure(Exception):
    """A step did not see what it must see."""


class Skip(Exception):
    """A step cannot run on this machine; says why."""


@dataclasses.dataclass
class Step:
    name: str
    function: object
    needs: tuple = ()
    blobs: str = ""  # "folder" or "object store": only where blobs are kept there
    postgres: bool = False  # only where records are in PostgreSQL
    several: bool = False  # only where several servers run

    def left_out(self, bench):
        """Why it is not for this run; empty where it is."""
        if self.several and len(bench.servers) == 1:
            return "there is one server"
        if self.postgres and not bench.stores.on_postgres:
            return "records are not in PostgreSQL"
        if self.blobs not in ("", bench.stores.blobs_are_in):
            return f"blobs are not in a{'n' if self.blobs[0] in 'aeiou' else ''} {self.blobs}"
        return ""


class Steps(list):
    """Steps in the order of their definition."""

    def step(self, name, needs=(), **only_where):
        def add(function):
            self.append(Step(name, function, tuple(needs), **only_where))
            return function

        return add


def check(condition, message):
    if not condition:
        raise Failure(message)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, condition, seconds=30.0, pause=0.05):
    """Polls until `condition` gives something true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds:.0f} s for {what}")
        time.sleep(pause)


def with_values(source, target, **values):
    """Writes a configuration into another file, with these values in place of its own. That file."""
    keys = tuple(f"{key}:" for key in values)
    lines = [line for line in source.read_text().splitlines() if not line.startswith(keys)]
    target.write_text("\n".join([*lines, *(f"{key}: {value}" for key, value in values.items()), ""]))
    return target


@dataclasses.dataclass
class Result:
    """How a command ended."""

    arguments: list
    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)

    def json_lines(self):
        return [json.loads(line) for line in self.out.splitlines() if line.strip()]

    def error(self):
        """The error object of a command that failed with --output json."""
        for line in reversed(self.err.splitlines()):
            if line.startswith('{"error"'):
                return json.loads(line)["error"]
        raise Failure(f"no error object on standard error of {self.arguments}:\n{self.err}")

    def describe(self):
        return f"$ ballast {' '.join(self.arguments)}\nexit code {self.code}\n{self.out}{self.err}"


class Program:
    """A program that runs until it is stopped. Its output goes to a log."""

    def __init__(self, arguments, log, environment, preexec=None, keep_ignored=False):
        self.arguments = [str(argument) for argument in arguments]
        self.log = pathlib.Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._start = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=preexec,
                restore_signals=not keep_ignored,
            )

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process.poll() is None

    def text(self):
        """What it has printed since this start."""
        with open(self.log, "rb") as file:
            file.seek(self._start)
            return file.read().decode(errors="replace")

    def kill(self):
        """SIGKILL: no chance to tidy up."""
        if self.running():
            self.process.kill()
        self.process.wait()

    def terminate(self, seconds=30):
        """SIGTERM and wait. The exit code."""
        if self.running():
            self.process.terminate()
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"{self.arguments[0]} did not stop within {seconds} s of SIGTERM:\n{self.text()[-2000:]}")

    def wait(self, seconds=30):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.arguments[0]} did not end within {seconds} s:\n{self.text()[-2000:]}")

    def wait_for_text(self, text, seconds=60):
        def seen():
            if text in self.text():
                return True
            check(self.running(), f"{self.arguments[0]} ended ({self.process.returncode}):\n{self.text()[-3000:]}")
            return False

        wait_for(f"{text!r} of {self.arguments[0]}", seen, seconds)


@dataclasses.dataclass
class Server:
    """One of the servers of a run. Its name begins those of its files."""

    name: str
    port: int = dataclasses.field(default_factory=free_port)
    metrics_port: int = dataclasses.field(default_factory=free_port)
    program: Program = None

    def running(self):
        return self.program is not None and self.program.running()


class Servers:
    """Programs of several servers, as if they were one."""

    def __init__(self, programs):
        self._programs = programs

    def running(self):
        return all(program.running() for program in self._programs)

    def text(self):
        return "".join(program.text() for program in self._programs)

    def kill(self):
        for program in self._programs:
            program.kill()

    def terminate(self, seconds=30):
        """The exit code of the first that did not end well, else 0."""
        codes = [program.terminate(seconds) for program in self._programs]
        return next(filter(None, codes), 0)


class Bench:
    """The folder of a run, the programs that are up, and the command line.

    Of several servers the first is that of `ballast dev` and of workers; customers and operators talk to the last, so that
    whatever they ask for crosses servers.
    """

    def __init__(self, build, folder, servers=1):
        self.folder = pathlib.Path(folder)
        self.build = pathlib.Path(build).resolve()
        self.bin = self.folder / "bin"
        self.bin.mkdir(parents=True)
        for name, place in (("ballast", "client/cli"), ("ballast-server", "server"), ("ballast-worker", "worker")):
            source = self.build / place / name
            if not source.exists():
                raise SystemExit(f"{source} is missing; build it first: cmake --build {build}")
            (self.bin / name).symlink_to(source)
        self.data = self.folder / "data"
        self.outputs = self.folder / "outputs"  # all that commands printed, for the canary search
        self.outputs.mkdir()
        self.servers = [Server("server"), *(Server(f"server-{number}") for number in range(2, servers + 1))]
        self.stores = stores.Stores(self.folder, *(self.data / server.name for server in self.servers))
        self.port = self.servers[-1].port  # of customers and operators
        self.programs = []
        self.commands = 0
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BALLAST_")},
            "HOME": str(self.folder / "home"),
            "OMP_WAIT_POLICY": "passive",
            "TERM": "dumb",
        }
        (self.folder / "home").mkdir()

    # Programs.

    def start(self, name, arguments, log, **options):
        program = Program([self.bin / name, *arguments], self.folder / "logs" / log, self.environment, **options)
        self.programs.append(program)
        return program

    def start_dev(self, **options):
        own, *others = self.servers
        dev = self.start(
            "ballast",
            ["dev", "--data-dir", self.data, "--port", own.port, "--metrics-port", own.metrics_port]
            + ["--bin-dir", self.bin, "--threads", "1", "--device", "cpu"],
            "dev.log",
            **options,
        )
        dev.wait_for_text("Ballast runs on", 120)
        for server in others:
            if not server.running():
                self.start_one(server)
        return dev

    def start_server(self, **options):
        """Starts the server, or all of several that do not run, which then are as one."""
        for server in self.servers:
            if not server.running():
                self.start_one(server, **options)
        programs = [server.program for server in self.servers]
        return programs[0] if len(programs) == 1 else Servers(programs)

    def start_one(self, server, wait=True, **options):
        if server is not self.servers[0]:
            self._configure(server)
        address = self.address_file(server)
        address.unlink(missing_ok=True)
        config = self.data / f"{server.name}.yaml"
        program = server.program = self.start("ballast-server", ["--config", config], f"{server.name}.log", **options)
        if wait:

            def ready():
                check(program.running(), f"{server.name} ended ({program.process.returncode}):\n{program.text()[-3000:]}")
                return address.exists()

            wait_for(f"{server.name} to serve", ready)
        return program

    def _configure(self, server):
        """Makes of what `ballast dev` has made a server beside its own, and the profile of those who talk to it."""
        with_values(
            self.data / "server.yaml",
            self.data / f"{server.name}.yaml",
            data_dir=self.data / server.name,
            listen_address=f"127.0.0.1:{server.port}",
            metrics_address=f"127.0.0.1:{server.metrics_port}",
            address_file=self.address_file(server),
        )
        with_values(self.workers_profile, self.profile_of(server), server_address=f"127.0.0.1:{server.port}")

    def address_file(self, server):
        """Is there while the server serves."""
        return self.data / f"{server.name}.address"

    def start_worker(self, config=None, log="worker.log", **options):
        config = config or self.data / "worker.yaml"
        return self.start("ballast-worker", ["--config", config], log, **options)

    def stop_all(self):
        for program in reversed(self.programs):
            with contextlib.suppress(Exception):
                program.kill()
        # `ballast dev` that was killed leaves two programs, which the kernel tells to stop; make sure.
        for process in pathlib.Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes()
                if command.startswith(str(self.bin).encode()):
                    os.kill(int(process.name), signal.SIGKILL)

    def wait_until_free(self):
        """Until nothing serves on the port of `ballast dev` any more."""

        def free():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.servers[0].port)) != 0

        wait_for("the port to be free", free)

    # The command line.

    def profile(self, name=None):
        return self.data / name if name else self.profile_of(self.servers[-1])

    def profile_of(self, server):
        return self.data / f"client{server.name.removeprefix('server')}.yaml"

    @property
    def workers_profile(self):
        """For those who ask the server that workers talk to."""
        return self.profile_of(self.servers[0])

    def server_log(self):
        """What the server of customers and operators has logged while the first one was run by `ballast dev`."""
        server = self.servers[-1]
        return (self.data / "logs" / "server.log").read_text() if server is self.servers[0] else server.program.text()

    def run(self, *arguments, profile=None, environment=None, seconds=120):
        arguments = [str(argument) for argument in arguments]
        finished = subprocess.run(
            [self.bin / "ballast", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            env={**self.environment, "BALLAST_PROFILE": str(profile or self.profile()), **(environment or {})},
        )
        result = Result(arguments, finished.returncode, finished.stdout.decode(), finished.stderr.decode())
        self.commands += 1
        (self.outputs / f"{self.commands:04d}.txt").write_text(result.describe())
        return result

    def ok(self, *arguments, **options):
        """A command that must succeed."""
        result = self.run(*arguments, **options)
        check(result.code == 0, f"must succeed:\n{result.describe()[-4000:]}")
        return result

    def ok_json(self, *arguments, **options):
        return self.ok(*arguments, "--output", "json", **options).json()

    def refused(self, code, reason, *arguments, **options):
        """A command that must fail with this exit code and reason, in both forms of output."""
        result = self.run(*arguments, "--output", "json", **options)
        check(result.code == code, f"must end with exit code {code}:\n{result.describe()[-4000:]}")
        error = result.error()
        reasons = (reason,) if isinstance(reason, str) else reason
        check(error["reason"] in reasons, f"the reason must be {reason}:\n{result.describe()[-4000:]}")
        check(len(error["message"]) > 20, f"the message says too little: {error}")
        return error

    def start_command(self, *arguments, log="command.log"):
        """A command that goes on in the background."""
        program = Program(
            [self.bin / "ballast", *arguments],
            self.outputs / log,
            {**self.environment, "BALLAST_PROFILE": str(self.profile())},
        )
        self.programs.append(program)
        return program

    # What steps ask often.

    def job(self, name, **options):
        return self.ok_json("job", "show", name, **options)

    def wait_for_state(self, job, states, seconds=60, **options):
        def reached():
            found = self.job(job, **options)
            return found if found["state"] in states else None

        return wait_for(f"{job} to be {' or '.join(states)}", reached, seconds, 0.1)

    def wait_for_step(self, job, step, seconds=60):
        def reached():
            # Of the server that the worker tells: others hear of it seconds later.
            found = self.job(job, profile=self.workers_profile)
            check(found["state"] in ("QUEUED", "RUNNING"), f"the job is {found['state']} before step {step}: {found}")
            return found if int(found.get("progress", {}).get("step", 0)) >= step else None

        return wait_for(f"step {step} of {job}", reached, seconds, 0.05)

    def metrics(self):
        """The metrics page; of several servers one after the other."""
        pages = []
        for server in self.servers:
            connection = http.client.HTTPConnection("127.0.0.1", server.metrics_port, timeout=10)
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            check(response.status == 200, f"the metrics page of {server.name} answers {response.status}")
            pages.append(response.read().decode())
        (self.outputs / "metrics.txt").write_text("".join(pages))
        return "".join(pages)


def short(name):
    """The last part of a resource name."""
    return name.rsplit("/", 1)[1]


def python():
    """The Python that has grpcio: the project's own environment, else this one."""
    own = ROOT / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def find_grpcurl():
    return shutil.which("grpcurl") or ("/usr/local/bin/grpcurl" if os.access("/usr/local/bin/grpcurl", os.X_OK) else None)
