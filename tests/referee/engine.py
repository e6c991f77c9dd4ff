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


class Engine:
    """One engine_probe process with one loaded model. Use as a context manager."""

    def __init__(self, probe, model, precision, threads):
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
        self._process = subprocess.Popen(
            [str(probe)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        try:
            self.info = self.run("load", model=str(model), precision=precision, threads=threads)
        except BaseException:
            self.close()
            raise

    def run(self, command, **fields):
        """One command; paths may be given as Path. Raises EngineError when the engine refuses."""
        request = {"command": command}
        request.update({k: str(v) if isinstance(v, pathlib.Path) else v for k, v in fields.items() if v is not None})
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"engine_probe ended with status {self._process.wait()} during {command}")
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
