# SPDX-License-Identifier: Apache-2.0
"""Small random Llamas, one for each thing that the engine could get wrong about the architecture."""

import torch
import transformers

_COMMON = dict(
    vocab_size=263,  # no multiple of any vector width
    max_position_embeddings=512,
    rms_norm_eps=1e-5,
    initializer_range=0.15,  # large enough that attention is far from uniform
    bos_token_id=1,
    eos_token_id=2,
)

# name -> (settings of LlamaConfig, seed)
MODELS = {
    "gqa_tied": (
        dict(hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, tie_word_embeddings=True, rope_parameters={"rope_theta": 10000.0, "rope_type": "default"}),
        1,
    ),
    "gqa_untied": (
        dict(hidden_size=96, intermediate_size=200, num_hidden_layers=2, num_attention_heads=6,
             num_key_value_heads=2, head_dim=32, tie_word_embeddings=False,
             rope_parameters={"rope_theta": 100000.0, "rope_type": "default"}),
        2,
    ),
    "mha_tied": (
        dict(hidden_size=80, intermediate_size=120, num_hidden_layers=2, num_attention_heads=5,
             num_key_value_heads=5, tie_word_embeddings=True, rope_parameters={"rope_theta": 500.0, "rope_type": "default"}),
        3,
    ),
    "mqa_llama3_rope": (
        dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=8,
             num_key_value_heads=1, tie_word_embeddings=False,
             rope_parameters={"rope_theta": 10000.0, "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
                              "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
        4,
    ),
}


def make(name, folder):
    """Writes the model's Hugging Face folder (float32 weights) and returns it."""
    settings, seed = MODELS[name]
    torch.manual_seed(seed)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**_COMMON, **settings))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("norm.weight"):  # ones by default: a forgotten norm weight would not show
                parameter.add_(torch.randn_like(parameter) * 0.2)
    path = folder / name
    model.save_pretrained(path, safe_serialization=True)
    return path
