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


class Steps(list):
    """Steps in the order of their definition."""

    def step(self, name, needs=(), blobs=""):
        def add(function):
            self.append(Step(name, function, tuple(needs), blobs))
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


class Bench:
    """The folder of a run, the programs that are up, and the command line."""

    def __init__(self, build, folder):
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
        self.stores = stores.Stores(self.folder, self.data / "server")
        self.port = free_port()
        self.metrics_port = free_port()
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
        dev = self.start(
            "ballast",
            ["dev", "--data-dir", self.data, "--port", self.port, "--metrics-port", self.metrics_port]
            + ["--bin-dir", self.bin, "--threads", "1", "--device", "cpu"],
            "dev.log",
            **options,
        )
        dev.wait_for_text("Ballast runs on", 120)
        return dev

    def start_server(self, wait=True, **options):
        address = self.data / "server.address"
        address.unlink(missing_ok=True)
        server = self.start("ballast-server", ["--config", self.data / "server.yaml"], "server.log", **options)
        if wait:

            def ready():
                check(server.running(), f"the server ended ({server.process.returncode}):\n{server.text()[-3000:]}")
                return address.exists()

            wait_for("the server to serve", ready)
        return server

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
        """Until nothing serves on the server's port any more."""

        def free():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) != 0

        wait_for("the port to be free", free)

    # The command line.

    def profile(self, name="client.yaml"):
        return self.data / name

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

    def job(self, name):
        return self.ok_json("job", "show", name)

    def wait_for_state(self, job, states, seconds=60):
        def reached():
            found = self.job(job)
            return found if found["state"] in states else None

        return wait_for(f"{job} to be {' or '.join(states)}", reached, seconds, 0.1)

    def wait_for_step(self, job, step, seconds=60):
        def reached():
            found = self.job(job)
            check(found["state"] in ("QUEUED", "RUNNING"), f"the job is {found['state']} before step {step}: {found}")
            return found if int(found.get("progress", {}).get("step", 0)) >= step else None

        return wait_for(f"step {step} of {job}", reached, seconds, 0.05)

    def metrics(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=10)
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        check(response.status == 200, f"the metrics page answers {response.status}")
        text = response.read().decode()
        (self.outputs / "metrics.txt").write_text(text)
        return text


def short(name):
    """The last part of a resource name."""
    return name.rsplit("/", 1)[1]


def python():
    """The Python that has grpcio: the project's own environment, else this one."""
    own = ROOT / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def find_grpcurl():
    return shutil.which("grpcurl") or ("/usr/local/bin/grpcurl" if os.access("/usr/local/bin/grpcurl", os.X_OK) else None)
