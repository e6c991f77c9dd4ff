# SPDX-License-Identifier: Apache-2.0
"""Messages and stubs of Ballast's protos and of the server's records, generated into a temporary folder."""

import functools
import importlib
import pathlib
import shutil
import sys
import tempfile

from google.rpc import status_pb2
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"


@functools.cache
def _generate():
    folder = tempfile.mkdtemp(prefix="ballast-chaos-protos-")
    files = [str(path.relative_to(PROTO)) for version in ("v1", "admin/v1", "worker/v1") for path in (PROTO / "ballast" / version).glob("*.proto")]
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    rpc = pathlib.Path(status_pb2.__file__).parents[2]  # google/rpc/status.proto
    code = protoc.main(["protoc", f"-I{PROTO}", f"-I{ROOT}", f"-I{include}", f"-I{rpc}", f"--python_out={folder}",
                        f"--grpc_python_out={folder}", *files, "server/core/record.proto"])
    if code:
        sys.exit("chaos: the protos cannot be generated")
    sys.path.insert(0, folder)
    return folder


def load(name):
    """The generated module, for example "ballast.v1.fine_tuning_job_pb2"."""
    _generate()
    return importlib.import_module(name)


def remove():
    shutil.rmtree(_generate(), ignore_errors=True)
