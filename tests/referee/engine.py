# SPDX-License-Identifier: Apache-2.0
"""The engine from Python: a running engine_probe (see engine_probe.cc for its commands)."""

import json
import os
import pathlib
import subprocess

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


class EngineError(Exception):
    """The engine refused; `reason` is the ErrorInfo reason."""

    def __init__(self, error):
        super().__init__(f"{error['code']} {error['reason']}: {error['message']}")
        self.code = error["code"]
        self.reason = error["reason"]


def find_probe(path=None):
    """The engine_probe to use: `path`, BALLAST_ENGINE_PROBE, or the newest under build/."""
    named = path or os.environ.get("BALLAST_ENGINE_PROBE")
    if named:
        return pathlib.Path(named)
    built = sorted(REPOSITORY.glob("build/*/tests/referee/engine_probe"), key=lambda p: p.stat().st_mtime)
    if not built:
        raise SystemExit("engine_probe is not built: run ninja -C build/dev engine_probe, or give --probe.")
    return built[-1]


class Program:
    """A process that answers one line of JSON with one line of JSON. Use as a context manager."""

    def __init__(self, command, threads, environment=None):
        self._name = pathlib.Path(command[-1]).stem
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=dict(os.environ, OMP_NUM_THREADS=str(threads), **(environment or {})),
        )

    def run(self, command, **fields):
        """One command; paths may be given as Path. Raises EngineError when it is refused."""
        request = {"command": command}
        request.update({k: str(v) if isinstance(v, pathlib.Path) else v for k, v in fields.items() if v is not None})
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with status {self._process.wait()} during {command}")
        answer = json.loads(line)
        if not answer.pop("ok"):
            raise EngineError(answer["error"])
        return answer

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


class Engine(Program):
    """One engine_probe process with one loaded model."""

    def __init__(self, probe, model, precision, threads):
        super().__init__([probe], threads)
        try:
            self.info = self.run("load", model=str(model), precision=precision, threads=threads)
        except BaseException:
            self.close()
            raise
