#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A server that speaks S3, for tests: Versity's gateway over a new folder, with one empty bucket, on a port of its own.

  tests/services/object_store.py start FILE    starts one and writes how to reach it to FILE, a line "NAME VALUE" each: `url`,
                                               then options as ServerConfig.object_store has them
  tests/services/object_store.py stop FILE     stops the one of FILE and removes it
"""

import argparse
import contextlib
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

PROGRAM = "versitygw"
BUCKET = "ballast-test"


def program():
    found = shutil.which(PROGRAM, path=f"{os.environ.get('PATH', '')}:{cache() / 'bin'}")
    if found is None:
        sys.exit(f"object_store.py: {PROGRAM} is missing: scripts/setup --dev builds it where Go is at hand")
    return found


def cache():
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "ballast"


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def values(file):
    """What FILE says, by name."""
    return dict(line.split(" ", 1) for line in file.read_text().splitlines())


def start(file):
    if file.exists():
        stop(file)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ballast-object-store-", dir="/tmp"))
    file.parent.mkdir(parents=True, exist_ok=True)
    # Told before anything is started, so that it can be stopped whatever happens.
    port = free_port()
    told = {"url": f"s3://{BUCKET}", "endpoint": f"http://127.0.0.1:{port}", "allow_http": "true", "region": "us-east-1",
            "access_key_id": "test-" + secrets.token_hex(8), "secret_access_key": secrets.token_hex(20), "folder": folder}
    file.write_text("".join(f"{name} {value}\n" for name, value in told.items()))
    (folder / "data" / BUCKET).mkdir(parents=True)
    (folder / "metadata").mkdir()
    run(file)


def run(file):
    """Starts the server of FILE on what its folder holds."""
    told = values(file)
    folder = pathlib.Path(told["folder"])
    # Attributes of objects beside them: not every file system has its own.
    command = [program(), "--port", told["endpoint"].removeprefix("http://"), "--quiet", "posix", "--sidecar", folder / "metadata",
               folder / "data"]
    # By the environment, since everybody can read a command line.
    environment = {**os.environ, "ROOT_ACCESS_KEY": told["access_key_id"], "ROOT_SECRET_KEY": told["secret_access_key"]}
    with open(folder / "log", "a") as log:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True)
    (folder / "pid").write_text(str(server.pid))
    port, until = int(told["endpoint"].rsplit(":", 1)[1]), time.monotonic() + 60
    while server.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    sys.exit(f"object_store.py: {PROGRAM} did not start:\n{(folder / 'log').read_text()[-2000:]}")


def kill(file):
    """SIGKILL, as after a crash; `run` starts it again."""
    folder = pathlib.Path(values(file)["folder"])
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "pid").read_text())
        if PROGRAM.encode() not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
            return
        os.kill(pid, signal.SIGKILL)
        while pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX":
            time.sleep(0.01)


def stop(file):
    if not file.exists():
        return
    kill(file)
    shutil.rmtree(values(file)["folder"], ignore_errors=True)
    file.unlink()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("start", "stop"))
    parser.add_argument("file", type=pathlib.Path, metavar="FILE")
    arguments = parser.parse_args()
    (start if arguments.what == "start" else stop)(arguments.file.resolve())
    return 0


if __name__ == "__main__":
    sys.exit(main())
