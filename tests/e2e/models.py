# SPDX-License-Identifier: Apache-2.0
"""The tiny base model of the end-to-end steps, and spoiled copies of it."""

import json
import shutil
import struct

from harness import ROOT

TESTDATA = ROOT / "tests" / "testdata"


def tiny(folder):
    """A Hugging Face folder: the tiny Llama with the tiny tokenizer."""
    folder.mkdir(parents=True)
    for source in (TESTDATA / "tiny_llama", TESTDATA / "tiny_tokenizer"):
        for file in source.iterdir():
            if file.suffix in (".json", ".safetensors", ".jinja"):
                shutil.copy(file, folder / file.name)
    return folder


def copy(source, folder):
    shutil.copytree(source, folder)
    return folder


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def read_safetensors(path):
    """(header, bytes of the tensors)"""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def write_safetensors(path, header, body):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def edit_header(folder, change):
    path = folder / "model.safetensors"
    header, body = read_safetensors(path)
    change(header)
    write_safetensors(path, header, body)


def tensors(header):
    return sorted(name for name in header if name != "__metadata__")


# Each spoils a copy of the folder in one way. (name, reasons that may be given, how)


def wrong_architecture(folder):
    def change(config):
        config["architectures"] = ["GPT2LMHeadModel"]
        config["model_type"] = "gpt2"

    edit_json(folder / "config.json", change)


def config_that_is_no_json(folder):
    (folder / "config.json").write_text('{"architectures": [')


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def header_larger_than_the_file(folder):
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 40) + path.read_bytes()[8:])


def overlapping_offsets(folder):
    def change(header):
        # Two tensors of one size over the same bytes.
        seen = {}
        for name in tensors(header):
            begin, end = header[name]["data_offsets"]
            if end - begin in seen:
                header[name]["data_offsets"] = seen[end - begin]
                return
            seen[end - begin] = [begin, end]

    edit_header(folder, change)


def offsets_beyond_the_end(folder):
    def change(header):
        last = max(tensors(header), key=lambda name: header[name]["data_offsets"][1])
        header[last]["data_offsets"] = [offset + (1 << 30) for offset in header[last]["data_offsets"]]

    edit_header(folder, change)


def unknown_type(folder):
    def change(header):
        header[tensors(header)[0]]["dtype"] = "F7"

    edit_header(folder, change)


def shape_that_is_not_the_models(folder):
    def change(header):
        for name in tensors(header):
            shape = header[name]["shape"]
            if len(shape) == 2 and shape[0] != shape[1]:
                header[name]["shape"] = shape[::-1]
                return

    edit_header(folder, change)


def missing_tensor(folder):
    path = folder / "model.safetensors"
    header, body = read_safetensors(path)
    last = max(tensors(header), key=lambda name: header[name]["data_offsets"][1])
    begin, _ = header.pop(last)["data_offsets"]
    write_safetensors(path, header, body[:begin])


def corrupt_tokenizer(folder):
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:200])


def set_template(folder, source):
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        jinja.write_text(source)
    else:
        edit_json(folder / "tokenizer_config.json", lambda config: config.update(chat_template=source))


def looping_template(folder):
    set_template(folder, "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}")


def template_that_does_not_compile(folder):
    set_template(folder, "{% for message in messages %}")


def missing_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


SPOILED = [
    ("wrong architecture", ("UNSUPPORTED_ARCHITECTURE",), wrong_architecture),
    ("configuration that is no JSON", ("MODEL_CONFIG_INVALID",), config_that_is_no_json),
    ("truncated safetensors", ("SAFETENSORS_TRUNCATED", "SAFETENSORS_OFFSETS_INVALID"), truncated),
    ("header larger than the file", ("SAFETENSORS_HEADER_TOO_LARGE", "SAFETENSORS_TRUNCATED"), header_larger_than_the_file),
    ("overlapping tensors", ("SAFETENSORS_OFFSETS_INVALID",), overlapping_offsets),
    ("offsets beyond the end", ("SAFETENSORS_OFFSETS_INVALID", "SAFETENSORS_TRUNCATED"), offsets_beyond_the_end),
    ("unknown tensor type", ("SAFETENSORS_DTYPE_UNKNOWN",), unknown_type),
    ("shape that is not the model's", ("TENSOR_MISMATCH",), shape_that_is_not_the_models),
    ("missing tensor", ("TENSOR_MISMATCH",), missing_tensor),
    ("corrupt tokenizer", ("TOKENIZER_INVALID",), corrupt_tokenizer),
    ("missing tokenizer", ("FILE_MISSING",), missing_tokenizer),
    ("template that loops", ("TEMPLATE_INVALID", "TEMPLATE_LIMIT", "TEMPLATE_FAILED"), looping_template),
    ("template that does not compile", ("TEMPLATE_INVALID",), template_that_does_not_compile),
]
