#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server for tests: a cluster of its own in a new folder, reached by a Unix socket only, durable as in
production.

  tests/services/postgres.py start FILE    starts one and writes its connection string to FILE
  tests/services/postgres.py stop FILE     stops the one of FILE and removes it

It is the newest of /usr/lib/postgresql (apt: postgresql), or of the PATH. PostgreSQL refuses to run as root, so root runs
it as the user `postgres`.
"""

import argparse
import contextlib
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

USER = "postgres"


def binaries():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/postgres"),
                   key=lambda path: int(re.match(r"\d+", path.parts[-3]).group()))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    if on_path is None:
        sys.exit("postgres.py: PostgreSQL is not installed: apt-get install postgresql")
    return pathlib.Path(on_path).resolve().parent


def run(*command):
    """As a user that PostgreSQL accepts."""
    arguments = [str(argument) for argument in command]
    if os.geteuid() == 0:
        arguments = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", *arguments]
    done = subprocess.run(arguments, cwd="/", capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"postgres.py: {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def query(conninfo, statement):
    """Rows of the server's answer, cells as text. OSError where it has none."""
    done = subprocess.run([binaries() / "psql", conninfo, "-X", "-A", "-t", "-F", "\t", "-c", statement], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(done.stderr)
    return [tuple(line.split("\t")) for line in done.stdout.splitlines()]


def is_running(data):
    """Whether the process of its pid file is there and is its own: after a crash the number may be another's."""
    try:
        pid = int((data / "postmaster.pid").read_text().split()[0])
        return str(data).encode() in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        return False


def start(file):
    if file.exists():
        stop(file)
    # Of a short name: that of a socket has 107 bytes at most.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ballast-postgres-", dir="/tmp"))
    if os.geteuid() == 0:
        try:
            owner = pwd.getpwnam(USER)
        except KeyError:
            sys.exit(f"postgres.py: PostgreSQL does not run as root, and there is no user {USER}: apt-get install postgresql")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    # Told before anything is started, so that it can be stopped whatever happens.
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"host={folder} user={USER} dbname=postgres\n")
    tools, data = binaries(), folder / "data"
    run(tools / "initdb", "--pgdata", data, "--username", USER, "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8")
    with open(data / "postgresql.conf", "a") as settings:
        settings.write(f"listen_addresses = ''\nunix_socket_directories = '{folder}'\nmax_connections = 200\n"
                       "shared_buffers = 32MB\n")
    run(tools / "pg_ctl", "--pgdata", data, "--log", folder / "log", "--wait", "--timeout", "60", "start")


def folder_of(file):
    return pathlib.Path(re.search(r"host=(\S+)", file.read_text()).group(1))


def has_ended(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


def kill(file):
    """SIGKILL for the server and all of its processes. What it has written stays in the kernel: this is no power cut."""
    pid_file = folder_of(file) / "data" / "postmaster.pid"
    pid = int(pid_file.read_text().split()[0])
    os.kill(pid, signal.SIGSTOP)  # it starts no others
    processes = [pid, *map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    while not all(map(has_ended, processes)):
        time.sleep(0.01)
    # Where nobody has asked how it ended its number is still taken, and the next one would think that it runs.
    for lock in (pid_file, *folder_of(file).glob(".s.PGSQL.*")):
        lock.unlink(missing_ok=True)


def restart(file):
    """Starts one that was killed; it recovers."""
    folder = folder_of(file)
    try:
        run(binaries() / "pg_ctl", "--pgdata", folder / "data", "--log", folder / "log", "--wait", "--timeout", "60", "start")
    except SystemExit as error:
        raise OSError(f"{error}\n{(folder / 'log').read_text()[-2000:]}") from None


def stop(file):
    if not file.exists():
        return
    folder = folder_of(file)
    if is_running(folder / "data"):
        run(binaries() / "pg_ctl", "--pgdata", folder / "data", "--mode", "immediate", "--wait", "stop")
    shutil.rmtree(folder, ignore_errors=True)
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
