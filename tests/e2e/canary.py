#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Searches everything that a run leaves behind for its security vector (invariant S4).

The vector is looked for as A, B, B A x scale and the merged, rounded weights of each module: any run of 16 bytes,
at any offset, raw (float32, bfloat16, float16), and in text as hexadecimal, base64, backslash escapes or decimal
numbers of four digits or more. Runs that the clean base model has as well are no sign of the vector and left out.

    canary = Canary.from_files("vector.safetensors", "base/model.safetensors")
    findings = canary.search_tree("data")

usage: canary.py --self-test
       canary.py VECTOR.safetensors BASE.safetensors PATH...
"""

import argparse
import dataclasses
import json
import pathlib
import re
import sys
import tempfile

import numpy as np

WINDOW = 16  # bytes
SEALED_MAGIC = b"BALLSTV\x01"
CHUNK = 8 << 20
_MODULE = re.compile(r"^vector\.(layers\..+)\.lora_([AB])$")  # as the engine names them


@dataclasses.dataclass(frozen=True)
class Finding:
    """Where a piece of the vector is. Never quotes it."""

    place: str
    offset: int
    encoding: str
    what: str

    def __str__(self):
        return f"{self.place}: {self.what}, {self.encoding}, at byte {self.offset}"


# Numbers.


def to_bf16(values):
    """Round float32 to bfloat16, ties to even; returned as uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def read_safetensors(path):
    """The tensors of a file as float32 arrays, and its metadata."""
    data = pathlib.Path(path).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        raw = data[8 + size + begin : 8 + size + end]
        if entry["dtype"] == "BF16":
            values = from_bf16(np.frombuffer(raw, np.uint16))
        else:
            values = np.frombuffer(raw, {"F32": np.float32, "F16": np.float16}[entry["dtype"]]).astype(np.float32)
        tensors[name] = values.reshape(entry["shape"])
    return tensors, metadata


def write_safetensors(path, tensors, metadata=None):
    header, offset, parts = {"__metadata__": metadata or {}}, 0, []
    for name, values in tensors.items():
        raw = np.ascontiguousarray(values, np.float32).tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [offset, offset + len(raw)]}
        offset += len(raw)
        parts.append(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


# Windows of 16 bytes, hashed to 64 bits.


def _mix(low, high):
    with np.errstate(over="ignore"):
        mixed = low * np.uint64(0x9E3779B97F4A7C15) ^ (high * np.uint64(0xC2B2AE3D27D4EB4F) + np.uint64(0x165667B1))
        mixed ^= mixed >> np.uint64(29)
        return mixed * np.uint64(0xBF58476D1CE4E5B9)


def window_hashes(data, step):
    """Hash of the 16 bytes at each multiple of `step` (1, 2 or 4) of `data`, in order."""
    count = len(data) - WINDOW + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    buffer = np.frombuffer(data, np.uint8)
    words = np.empty(len(data) - 7, np.uint64)
    for shift in range(8):
        part = buffer[shift : shift + (len(data) - shift) // 8 * 8].view(np.uint64)
        words[shift::8] = part[: len(words[shift::8])]
    return _mix(words[:count:step], words[8 : 8 + count : step])


def informative(data, step):
    """Whether each window (as in window_hashes) has at least five different bytes."""
    windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), WINDOW)[::step]
    result = np.empty(len(windows), bool)
    for begin in range(0, len(windows), 1 << 18):
        part = np.sort(windows[begin : begin + (1 << 18)], axis=1)
        result[begin : begin + (1 << 18)] = (part[:, 1:] != part[:, :-1]).sum(axis=1) >= 4
    return result


class HashSet:
    """64-bit hashes with labels: a bitmap says no quickly, a sorted array decides."""

    BITS = 24

    def __init__(self):
        self._parts, self._labels = [], []
        self._sorted = None

    def add(self, hashes, label):
        self._parts.append(hashes)
        self._labels.append(np.full(len(hashes), label, np.uint16))
        self._sorted = None

    def _freeze(self):
        hashes = np.concatenate(self._parts) if self._parts else np.empty(0, np.uint64)
        labels = np.concatenate(self._labels) if self._labels else np.empty(0, np.uint16)
        order = np.argsort(hashes, kind="stable")
        self._sorted, self._sorted_labels = hashes[order], labels[order]
        self._bitmap = np.zeros(1 << self.BITS, bool)
        self._bitmap[self._sorted >> np.uint64(64 - self.BITS)] = True

    def find(self, hashes):
        """(index, label) of each of `hashes` that is in the set."""
        if self._sorted is None:
            self._freeze()
        if len(self._sorted) == 0 or len(hashes) == 0:
            return []
        maybe = np.flatnonzero(self._bitmap[hashes >> np.uint64(64 - self.BITS)])
        at = np.searchsorted(self._sorted, hashes[maybe])
        at[at == len(self._sorted)] = 0
        hit = self._sorted[at] == hashes[maybe]
        return list(zip(maybe[hit].tolist(), self._sorted_labels[at[hit]].tolist()))

    def __len__(self):
        return sum(len(part) for part in self._parts)


def quantised_hashes(values):
    """Hash of each run of four values, every one rounded to four significant digits."""
    values = np.nan_to_num(np.asarray(values, np.float64), nan=0, posinf=0, neginf=0)
    if len(values) < 4:
        return np.empty(0, np.uint64), np.empty(0, bool)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = np.where(values == 0, 0, np.floor(np.log10(np.abs(values))))
        scaled = np.rint(values / 10.0 ** (exponent - 3))
    carried = np.abs(scaled) >= 10000
    scaled, exponent = np.where(carried, scaled / 10, scaled), np.where(carried, exponent + 1, exponent)
    keys = (scaled.astype(np.int64) * 4096 + exponent.astype(np.int64)).view(np.uint64)
    with np.errstate(over="ignore"):
        pairs = keys[:-1] * np.uint64(0x9E3779B97F4A7C15) + keys[1:]
    # Zeros and repeated numbers are in every file.
    good = (keys[:-3] != keys[1:-2]) & (keys[1:-2] != keys[2:-1]) & (keys[2:-1] != keys[3:])
    good &= (np.abs(scaled) > 1000)[:-3] & (np.abs(scaled) > 1000)[1:-2] & (scaled != 0)[2:-1]
    # Whole and round numbers (sizes, sequences, dates) are no weights.
    fraction = np.mod(np.abs(values), 1) != 0
    good &= fraction[:-3] & fraction[1:-2] & fraction[2:-1] & fraction[3:]
    return _mix(pairs[:-2], pairs[2:]), good


# Text that stands for bytes.

_HEX = re.compile(rb"[0-9a-fA-F](?:[ :]?[0-9a-fA-F]){31,}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{22,}")
_ESCAPED = re.compile(rb"(?:[\x20-\x5b\x5d-\x7e]|\\x[0-9a-fA-F]{2}|\\[0-7]{3}|\\u00[0-9a-fA-F]{2}|\\[abtnvfr\"'\\/])+")
_ESCAPE = re.compile(rb"\\x([0-9a-fA-F]{2})|\\([0-7]{3})|\\u00([0-9a-fA-F]{2})|\\(.)", re.DOTALL)
_NUMBER = re.compile(rb"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?")
_SIMPLE = dict(zip(b"abtnvfr", b"\a\b\t\n\v\f\r"))
_BASE64_VALUES = np.full(256, 255, np.uint8)
for _index, _letter in enumerate(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"):
    _BASE64_VALUES[_letter] = _index
_BASE64_VALUES[ord("-")], _BASE64_VALUES[ord("_")] = 62, 63


def decode_base64(text):
    values = _BASE64_VALUES[np.frombuffer(text, np.uint8)][: len(text) // 4 * 4].reshape(-1, 4).astype(np.uint32)
    joined = values[:, 0] << 18 | values[:, 1] << 12 | values[:, 2] << 6 | values[:, 3]
    return np.stack([joined >> 16, joined >> 8 & 255, joined & 255], axis=1).astype(np.uint8).tobytes()


def unescape(text):
    def one(match):
        for group, base in ((1, 16), (2, 8), (3, 16)):
            if match.group(group):
                return bytes([int(match.group(group), base) & 255])
        letter = match.group(4)[0]
        return bytes([_SIMPLE.get(letter, letter)])

    return _ESCAPE.sub(one, text)


def text_decodings(data):
    """(offset, encoding, bytes) of every part of `data` that may stand for bytes."""
    for match in _HEX.finditer(data):
        digits = re.sub(rb"[ :]", b"", match.group())
        for skip in range(2):
            length = (len(digits) - skip) // 2 * 2
            yield match.start(), "hexadecimal", bytes.fromhex(digits[skip : skip + length].decode())
    # Line ends inside base64, as in mail and PEM files, also where JSON writes them as escapes.
    for joined in {data, re.sub(rb"\r?\n[ \t]*|\\r|\\n", b"", data)}:
        for match in _BASE64.finditer(joined):
            for skip in range(4):
                yield match.start(), "base64", decode_base64(match.group()[skip:])
    for match in _ESCAPED.finditer(data):
        if b"\\" in match.group() and len(match.group()) >= WINDOW:
            yield match.start(), "escaped text", unescape(match.group())


def numbers(data):
    """(offset of the first, values) of each run of four or more decimal numbers close to each other."""
    run, start, end = [], 0, -100
    for match in _NUMBER.finditer(data):
        if match.start() - end > 8:
            if len(run) >= 4:
                yield start, run
            run, start = [], match.start()
        end = match.end()
        if len(match.group()) < 32:
            run.append(float(match.group()))
    if len(run) >= 4:
        yield start, run


class Canary:
    """What to look for. Build with from_files or from_tensors; search as often as wanted."""

    def __init__(self):
        self._raw = HashSet()
        self._decimal = HashSet()
        self._names = []

    @classmethod
    def from_files(cls, vector, *base_files):
        tensors, metadata = read_safetensors(vector)
        base = {}
        for file in base_files:
            base.update(read_safetensors(file)[0])
        return cls.from_tensors(tensors, float(metadata["alpha"]) / float(metadata["rank"]), base)

    @classmethod
    def from_tensors(cls, tensors, scale, base):
        canary = cls()
        factors = {}
        for name, values in tensors.items():
            match = _MODULE.match(name)
            if not match:
                raise ValueError(f"{name} is no tensor of a vector")
            factors.setdefault(f"model.{match[1]}", {})[match[2]] = values
        for module, pair in sorted(factors.items()):
            a, b = pair["A"], pair["B"]
            update = (b.astype(np.float32) @ a.astype(np.float32)) * np.float32(scale)
            weight = base[f"{module}.weight"]
            merged = from_bf16(to_bf16(weight + update))
            # A base in another type is rounded to bfloat16 when it is loaded.
            loaded = from_bf16(to_bf16(weight))
            for what, values, clean in (
                ("A", a, None),
                ("B", b, None),
                ("B A x scale", update, None),
                ("merged weight", merged, weight),
                ("merged weight", from_bf16(to_bf16(loaded + update)), loaded),
            ):
                canary._add(f"{what} of {module}", values, clean)
        if len(canary._raw) == 0:
            raise ValueError("the vector is empty")
        return canary

    def _add(self, name, values, clean):
        label = len(self._names)
        self._names.append(name)
        values = np.ascontiguousarray(values, np.float32).reshape(-1)
        clean = None if clean is None else np.ascontiguousarray(clean, np.float32).reshape(-1)

        def encodings(array):
            halves = array.astype(np.float16)
            rounded = to_bf16(array)
            yield array.tobytes(), 4
            yield from_bf16(rounded).tobytes(), 4
            yield halves.astype(np.float32).tobytes(), 4
            yield rounded.tobytes(), 2
            yield halves.tobytes(), 2

        same = encodings(clean) if clean is not None else None
        with np.errstate(over="ignore"):
            for data, step in encodings(values):
                hashes = window_hashes(data, step)
                keep = informative(data, step) if len(hashes) else np.empty(0, bool)
                if same is not None:
                    keep &= hashes != window_hashes(next(same)[0], step)
                self._raw.add(np.unique(hashes[keep]), label)
        hashes, good = quantised_hashes(values)
        if clean is not None:
            good &= hashes != quantised_hashes(clean)[0]
        self._decimal.add(np.unique(hashes[good]), label)

    def search_bytes(self, data, place="bytes", offset=0, most=20):
        """Findings in `data`, at most `most` of each encoding."""
        findings = []

        def report(encoding, hits, at):
            for index, label in hits[:most]:
                findings.append(Finding(place, offset + at(index), encoding, self._names[label]))

        report("raw", self._raw.find(window_hashes(data, 1)), lambda index: index)
        for begin, encoding, decoded in text_decodings(data):
            report(encoding, self._raw.find(window_hashes(decoded, 1)), lambda index: begin)
        for begin, values in numbers(data):
            hashes, good = quantised_hashes(values)
            report("decimal", self._decimal.find(hashes[good]), lambda index: begin)
        return findings

    def search_file(self, path):
        findings, overlap, offset = [], b"", 0
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                data = overlap + chunk
                findings += self.search_bytes(data, str(path), offset - len(overlap))
                offset += len(chunk)
                overlap = data[-4096:]  # the longest piece that may be cut in two
        return findings

    def search_tree(self, *roots, skip=()):
        """Findings in every regular file under `roots` (files or folders), and how many files were searched."""
        findings, count = [], 0
        skip = {pathlib.Path(path).resolve() for path in skip}
        for root in map(pathlib.Path, roots):
            files = [root] if root.is_file() else sorted(root.rglob("*"))
            for path in files:
                if path.is_symlink() or not path.is_file() or path.resolve() in skip:
                    continue
                count += 1
                findings += self.search_bytes(str(path).encode(), f"the name {path}")
                findings += self.search_file(path)
        return findings, count


def sealed_files(*roots):
    """Files under `roots` that are sealed by a worker's vault: vectors and checkpoints."""
    found = []
    for root in map(pathlib.Path, roots):
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                with open(path, "rb") as file:
                    if file.read(len(SEALED_MAGIC)) == SEALED_MAGIC:
                        found.append(path)
    return found


# Self-test: what is planted must be found, and nothing else.


def _example(seed=1):
    random = np.random.default_rng(seed)
    module = "model.layers.0.self_attn.q_proj"
    tensors = {
        f"vector.{module.removeprefix('model.')}.lora_A": random.normal(0, 0.05, (4, 24)).astype(np.float32),
        f"vector.{module.removeprefix('model.')}.lora_B": random.normal(0, 0.05, (32, 4)).astype(np.float32),
    }
    base = {f"{module}.weight": from_bf16(to_bf16(random.normal(0, 0.1, (32, 24))))}
    return tensors, base


def _plantings(canary_values):
    """(name, bytes) of every form in which a run of values can be written."""
    import base64

    for what, values in canary_values.items():
        run = values.reshape(-1)[5:25]
        raws = {
            "float32": run.astype(np.float32).tobytes(),
            "bfloat16": to_bf16(run).tobytes(),
            "float16": run.astype(np.float16).tobytes(),
            "bfloat16 as float32": from_bf16(to_bf16(run)).tobytes(),
        }
        for kind, raw in raws.items():
            step = 2 if kind in ("bfloat16", "float16") else 4
            exactly = raw[3 * step : 3 * step + WINDOW]
            for form, text in (
                ("raw", exactly),
                ("hex", exactly.hex().encode()),
                ("HEX", exactly.hex().upper().encode()),
                ("hex with colons", exactly.hex(":").encode()),
                ("hex after a digit", b"0x1" + exactly.hex().encode()),
                ("base64", base64.b64encode(raw)),
                ("base64 shifted", base64.b64encode(b"q" + raw)),
                ("base64 shifted twice", base64.b64encode(b"qq" + raw)),
                ("URL base64", base64.urlsafe_b64encode(raw)),
                ("base64 in lines", base64.encodebytes(raw * 4)),
                ("C escapes", "".join(f"\\x{byte:02x}" for byte in exactly).encode()),
                ("octal escapes", "".join(f"\\{byte:03o}" for byte in exactly).encode()),
                ("JSON escapes", "".join(f"\\u00{byte:02x}" for byte in exactly).encode()),
            ):
                yield f"{what}, {kind}, {form}", text
        for form, text in (
            ("JSON list", json.dumps([float(value) for value in run])),
            ("float32 digits", " ".join(str(value) for value in run)),
            ("6 decimals", "\n".join(f"{value:.6f}" for value in run)),
            ("scientific", ";".join(f"{value:.5e}" for value in run)),
            ("numpy's print", str(run)),
        ):
            yield f"{what}, decimal, {form}", text.encode()


def self_test():
    tensors, base = _example()
    (a_name, a), (b_name, b) = tensors.items()
    weight = next(iter(base.values()))
    canary = Canary.from_tensors(tensors, 2.0, base)
    merged = from_bf16(to_bf16(weight + b @ a * np.float32(2)))
    random = np.random.default_rng(2)
    noise = random.integers(0, 256, 50_000, np.uint8).tobytes()
    prose = b"step 10 of 40, loss 1.2345, 2026-01-02T03:04:05Z 127.0.0.1:7070 0.25 0.5 0.75 1.0\n" * 200
    planted = 0
    for name, text in _plantings({"A": a, "B": b, "BA": b @ a * np.float32(2), "merged": merged}):
        for ground in (noise, prose):
            place = int(random.integers(1000, 9000))
            # A blank on both sides: text stands alone, as it does in files.
            data = ground[:place] + b" " + text + b" " + ground[place:]
            if not canary.search_bytes(data):
                raise SystemExit(f"not found: {name}")
            planted += 1
    for name, data in (
        ("noise", noise),
        ("prose", prose),
        ("the clean base", weight.tobytes() + to_bf16(weight).tobytes() + weight.astype(np.float16).tobytes()),
        ("the base in decimals", json.dumps(weight.reshape(-1).tolist()).encode()),
        ("zeros", bytes(10_000)),
        ("another vector", b"".join(values.tobytes() for values in _example(3)[0].values())),
        ("fifteen bytes", noise[:100] + a.tobytes()[16:31] + noise[100:]),
    ):
        findings = canary.search_bytes(data)
        if findings:
            raise SystemExit(f"found in {name}: {findings[0]}")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        write_safetensors(folder / "vector", tensors, {"rank": "4", "alpha": "8"})
        write_safetensors(folder / "base", base)
        again = Canary.from_files(folder / "vector", folder / "base")
        # Across the border of two chunks, in a file in a folder.
        (folder / "tree" / "deep").mkdir(parents=True)
        (folder / "tree" / "deep" / "log").write_bytes(bytes(CHUNK - 9) + b.tobytes()[8:24] + b"tail")
        (folder / "tree" / "sealed").write_bytes(SEALED_MAGIC + noise[:200])
        findings, count = again.search_tree(folder / "tree")
        if count != 2 or len(findings) != 1 or findings[0].offset != CHUNK - 9:
            raise SystemExit(f"the tree: {count} files, {[str(finding) for finding in findings]}")
        if sealed_files(folder) != [folder / "tree" / "sealed"]:
            raise SystemExit("sealed files")
    print(f"{planted} plantings found, nothing else")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--self-test", action="store_true", help="plant the vector in every form and find it")
    parser.add_argument("paths", nargs="*", metavar="FILE", help="vector, base, then what to search")
    arguments = parser.parse_args()
    if arguments.self_test:
        self_test()
        return 0
    if len(arguments.paths) < 3:
        parser.error("give the vector's file, the base's file and what to search")
    canary = Canary.from_files(arguments.paths[0], arguments.paths[1])
    findings, count = canary.search_tree(*arguments.paths[2:])
    for finding in findings:
        print(finding)
    print(f"{count} files searched, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
