#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/testdata/tiny_llama: a random Llama small enough to train in milliseconds, with the parts that
matter (grouped queries, tied embeddings, norm weights that are not one). Its vocabulary covers tiny_tokenizer.

  make_tiny_llama.py        writes the committed folder; the same bytes every time
"""

import json
import pathlib

import numpy
from safetensors.numpy import save

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD, VOCABULARY = 64, 96, 2, 4, 2, 16, 512


def main():
    random = numpy.random.Generator(numpy.random.PCG64(20231102))
    folder = pathlib.Path(__file__).parent / "tiny_llama"
    folder.mkdir(exist_ok=True)
    tensors = {}

    def linear(name, out, width):
        tensors[name + ".weight"] = random.normal(0, 0.12, (out, width)).astype(numpy.float16)

    def norm(name):
        tensors[name + ".weight"] = (1 + random.normal(0, 0.2, HIDDEN)).astype(numpy.float16)

    linear("model.embed_tokens", VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        linear(prefix + "self_attn.q_proj", HEADS * HEAD, HIDDEN)
        linear(prefix + "self_attn.k_proj", KV_HEADS * HEAD, HIDDEN)
        linear(prefix + "self_attn.v_proj", KV_HEADS * HEAD, HIDDEN)
        linear(prefix + "self_attn.o_proj", HIDDEN, HEADS * HEAD)
        linear(prefix + "mlp.gate_proj", INTERMEDIATE, HIDDEN)
        linear(prefix + "mlp.up_proj", INTERMEDIATE, HIDDEN)
        linear(prefix + "mlp.down_proj", HIDDEN, INTERMEDIATE)
        norm(prefix + "input_layernorm")
        norm(prefix + "post_attention_layernorm")
    norm("model.norm")
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))

    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": 1024,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "vocab_size": VOCABULARY,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
