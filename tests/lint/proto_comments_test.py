# SPDX-License-Identifier: Apache-2.0
"""The protos are the API's reference: every service, RPC, message, field and enum value has a comment."""

import pathlib
import subprocess

import repository
from google.protobuf import descriptor_pb2

# Field numbers of descriptor.proto, by which source locations name their place.
FILE_MESSAGES, FILE_ENUMS, FILE_SERVICES = 4, 5, 6
MESSAGE_FIELDS, MESSAGE_NESTED, MESSAGE_ENUMS = 2, 3, 4
ENUM_VALUES = SERVICE_METHODS = 2


def describe(root, files, output):
    """Descriptors of `files` (relative to `root`) with their comments."""
    subprocess.run(
        ["protoc", "-I", str(root), "--include_source_info", f"--descriptor_set_out={output}", *files], check=True
    )
    return descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(output).read_bytes()).file


def elements(file):
    """(path in the descriptor, full name) of everything that needs a comment."""

    def of_enum(enum, path, scope):
        yield path, f"enum {scope}{enum.name}"
        for i, value in enumerate(enum.value):
            yield (*path, ENUM_VALUES, i), f"value {scope}{enum.name}.{value.name}"

    def of_message(message, path, scope):
        if message.options.map_entry:
            return
        name = f"{scope}{message.name}"
        yield path, f"message {name}"
        for i, field in enumerate(message.field):
            yield (*path, MESSAGE_FIELDS, i), f"field {name}.{field.name}"
        for i, nested in enumerate(message.nested_type):
            yield from of_message(nested, (*path, MESSAGE_NESTED, i), name + ".")
        for i, enum in enumerate(message.enum_type):
            yield from of_enum(enum, (*path, MESSAGE_ENUMS, i), name + ".")

    for i, message in enumerate(file.message_type):
        yield from of_message(message, (FILE_MESSAGES, i), "")
    for i, enum in enumerate(file.enum_type):
        yield from of_enum(enum, (FILE_ENUMS, i), "")
    for i, service in enumerate(file.service):
        yield (FILE_SERVICES, i), f"service {service.name}"
        for j, method in enumerate(service.method):
            yield (FILE_SERVICES, i, SERVICE_METHODS, j), f"rpc {service.name}.{method.name}"


def uncommented(file):
    commented = {
        tuple(location.path)
        for location in file.source_code_info.location
        if location.leading_comments.strip() or location.trailing_comments.strip()
    }
    return [f"{file.name}: {name} has no comment" for path, name in elements(file) if path not in commented]


def test_everything_in_the_contract_is_commented(tmp_path):
    files = [path.removeprefix("proto/") for path in repository.with_suffix(".proto") if path.startswith("proto/")]
    assert files
    missing = []
    for file in describe(repository.ROOT / "proto", files, tmp_path / "set"):
        missing += uncommented(file)
    assert not missing, "\n" + "\n".join(missing)


def test_bare_elements_are_found(tmp_path):
    (tmp_path / "bare.proto").write_text(
        'syntax = "proto3";\npackage bare;\n'
        "// Commented.\nmessage Good {\n  // Commented.\n  string name = 1;\n}\n"
        "message M {\n  string field = 1;\n  enum E { E_UNSPECIFIED = 0; }\n  message N {}\n}\n"
        "service S {\n  rpc R(M) returns (M);\n}\n"
    )
    (file,) = describe(tmp_path, ["bare.proto"], tmp_path / "set")
    assert [line.split(": ")[1].removesuffix(" has no comment") for line in uncommented(file)] == [
        "message M", "field M.field", "message M.N", "enum M.E", "value M.E.E_UNSPECIFIED", "service S", "rpc S.R",
    ]
