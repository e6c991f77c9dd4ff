#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the tiny tokenizer that unit tests use: byte-level BPE with ChatML tokens, 384 entries.

Its files are committed; run this again only to change them: .venv/bin/python make_tokenizer.py
"""
import json
import pathlib

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

FOLDER = pathlib.Path(__file__).parent
VOCABULARY = 384
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# The words of the templates, and everyday ones, so that some tokens are longer than a byte.
TEXT = """system user assistant You are a helpful assistant. Hello! How can I help you today?
What is the capital of France? The capital of France is Paris. The weather is fine today, thank you.
Please write a short poem about the sea. The sea is wide, the ship is small, the harbour waits for all.
one two three four five six seven eight nine ten eleven twelve
"""
TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a test.<|im_end|>\\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def main():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # As many published tokenizers do; the offsets that it moves are a trap that tests look at.
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.train_from_iterator(
        TEXT.splitlines(keepends=True) * 4,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[AddedToken(token, special=True) for token in SPECIAL],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    assert tokenizer.get_vocab_size() == VOCABULARY
    (FOLDER / "tokenizer.json").write_text(tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 512,
        "chat_template": TEMPLATE,
    }
    (FOLDER / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (FOLDER / "generation_config.json").write_text(
        json.dumps({"eos_token_id": tokenizer.token_to_id("<|im_end|>")}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
