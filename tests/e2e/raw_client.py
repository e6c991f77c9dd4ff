# SPDX-License-Identifier: Apache-2.0
"""Calls that the command line never makes, for the end-to-end steps: run by the project's Python, which has
grpcio. Prints one JSON object: {"code", "reason", "message", "metadata"}.

usage: raw_client.py ADDRESS KEY write-dataset NAME OFFSET TEXT [--finish DIGEST]
       raw_client.py ADDRESS KEY call SERVICE METHOD JSON
       raw_client.py ADDRESS KEY health
KEY "-" sends no key; TEXT "x*N" is N letters.
"""

import json
import pathlib
import sys
import tempfile

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def stubs():
    """The messages and services of ballast.v1 and ballast.admin.v1, generated into a temporary folder."""
    folder = tempfile.mkdtemp()
    files = [
        str(path.relative_to(PROTO)) for version in ("v1", "admin/v1") for path in (PROTO / "ballast" / version).glob("*.proto")
    ]
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    code = protoc.main(["protoc", f"-I{PROTO}", f"-I{include}", f"--python_out={folder}", f"--grpc_python_out={folder}", *files])
    if code:
        sys.exit("cannot generate the stubs")
    sys.path.insert(0, folder)


def report(code, message="", trailers=()):
    reason = ""
    metadata = {}
    for key, value in trailers:
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            for detail in status.details:
                info = error_details_pb2.ErrorInfo()
                if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR) and detail.Unpack(info):
                    reason = info.reason
                    metadata.update(info.metadata)
        elif isinstance(value, str):
            metadata[key] = value
    print(json.dumps({"code": code, "reason": reason, "message": message, "metadata": metadata}))


def main():
    stubs()
    address, key, command, *rest = sys.argv[1:]
    metadata = [] if key == "-" else [("authorization", f"Bearer {key}")]
    channel = grpc.insecure_channel(address)
    try:
        if command == "health":
            # gRPC's own messages: the request is empty, and field 1 of the answer is 1 for SERVING.
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            answer = check(b"", metadata=metadata, timeout=30)
            report("OK", "SERVING" if answer == b"\x08\x01" else answer.hex())
            return
        if command == "write-dataset":
            from ballast.v1 import dataset_service_pb2, dataset_service_pb2_grpc

            name, offset, text = rest[:3]
            if text.startswith("x*"):  # more than a command line holds
                text = "x" * int(text[2:])
            request = dataset_service_pb2.WriteDatasetRequest(name=name, write_offset=int(offset), data=text.encode())
            if len(rest) > 3:
                request.finish = True
                request.digest = rest[4]
            stub = dataset_service_pb2_grpc.DatasetServiceStub(channel)
            stub.WriteDataset(iter([request]), metadata=metadata, timeout=30)
        else:
            import importlib

            service, method, text = rest
            package, name = service.rsplit(".", 1)
            module = {
                "DatasetService": "dataset_service",
                "FineTuningService": "fine_tuning_service",
                "BaseModelService": "base_model_service",
                "DeltaService": "delta_service",
                "AdminService": "admin_service",
            }[name]
            messages = importlib.import_module(f"{package}.{module}_pb2")
            services = importlib.import_module(f"{package}.{module}_pb2_grpc")
            descriptor = messages.DESCRIPTOR.services_by_name[name].methods_by_name[method]
            request_class = getattr(messages, descriptor.input_type.name)
            request = json_format.Parse(text, request_class())
            answer = getattr(getattr(services, f"{name}Stub")(channel), method)(request, metadata=metadata, timeout=30)
            print(json.dumps({"code": "OK", "response": json_format.MessageToDict(answer)}))
            return
        report("OK")
    except grpc.RpcError as error:
        report(error.code().name, error.details(), error.trailing_metadata() or ())


main()
