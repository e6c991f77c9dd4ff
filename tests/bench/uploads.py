#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast data sets are taken, beside a bare gRPC stream that is written to the same disk, in turns.

usage: tests/bench/uploads.py [--build build/release] [--rounds 5] [--seconds 5] [--threads 4] [--smoke]

Both sides are sent data sets of 32 MiB by the same client (call_load upload) through the same RPC; the bare one writes them
to a file and makes it durable (bare_server.cc). Ours also authenticates, keeps a record of each, computes the digest, and checks
the rows of those that are complete meanwhile. Memory per stream is what the server has grown to (VmHWM) with all streams beyond
what it had grown to with one, of each further stream. Writes its figures
into docs/results/control_plane.json.
"""

import shutil
import statistics
import sys

sys.dont_write_bytecode = True

from service import Service, bare_server, load, run  # noqa: E402

MIB_OF_A_DATASET = 32


def measured(arguments, folder):
    service = Service(arguments.build, folder / "service", more=["max_dataset_bytes: 100000000"])
    bare_folder = folder / "bare"
    bare = None
    try:
        service.make()
        bare_folder.mkdir()
        bare, address = bare_server(service.bench.build, bare_folder)
        ratios, ours, theirs = [], [], []
        service.load("upload", arguments.seconds, 1)
        before = service.memory_kib("VmHWM")
        for _ in range(arguments.rounds):
            found = load(service.bench.build, address, service.keys, "upload", arguments.seconds, arguments.threads)
            theirs.append(MIB_OF_A_DATASET * found["calls"] / found["seconds"])
            for file in bare_folder.iterdir():
                file.unlink()
            found = service.load("upload", arguments.seconds, arguments.threads)
            ours.append(MIB_OF_A_DATASET * found["calls"] / found["seconds"])
            ratios.append(ours[-1] / theirs[-1])
            shutil.rmtree(service.bench.data / "server" / "blobs" / "blobs" / "datasets", ignore_errors=True)
        grown = (service.memory_kib("VmHWM") - before) / 1024
        return {"ratio": statistics.median(ratios), "mib_per_s": statistics.median(ours), "bare_mib_per_s": statistics.median(theirs),
                "mib_of_memory_per_stream": grown / max(1, arguments.threads - 1)}
    finally:
        if bare:
            bare.kill()
            bare.wait()
        service.bench.stop_all()


if __name__ == "__main__":
    sys.exit(run(__doc__, measured, lambda found: {"upload_ratio": round(found["ratio"], 3)}, "upload", threads=4))
