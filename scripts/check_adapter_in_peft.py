#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Loads a delivered adapter with transformers and PEFT, as a customer would, and checks that it does something.

Fails where PEFT does not take every tensor, where the logits are those of the base, or where the loss on the
given rows does not fall. (A wrong key prefix is only a warning in PEFT, so loading alone shows nothing.)

usage: scripts/check_adapter_in_peft.py --model FOLDER --adapter FOLDER --rows FILE.jsonl
"""

import argparse
import json
import pathlib
import sys
import warnings

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer


def supervised(tokenizer, messages):
    """Token ids of a chat whose last turn is the assistant's, and how many of them come before that turn."""
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
    whole = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    assert whole[: len(prompt)] == prompt, "the chat template does not render a prefix as a prefix"
    return torch.tensor([whole]), len(prompt)


@torch.no_grad()
def mean_loss(model, rows):
    """Mean negative log-likelihood per supervised token, in nats."""
    total, tokens = 0.0, 0
    for ids, prompt in rows:
        logits = model(ids).logits[0, prompt - 1 : -1].float()
        total += torch.nn.functional.cross_entropy(logits, ids[0, prompt:], reduction="sum").item()
        tokens += ids.shape[1] - prompt
    return total / tokens


def load_adapter(base, folder):
    """The base with the adapter on. PEFT only warns of keys it has no use for: that is an error here."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = PeftModel.from_pretrained(base, folder).eval()
    loaded = dict(model.named_parameters())
    with safe_open(pathlib.Path(folder, "adapter_model.safetensors"), "pt") as file:
        for key in file.keys():
            name = key.replace(".lora_A.weight", ".lora_A.default.weight").replace(
                ".lora_B.weight", ".lora_B.default.weight"
            )
            if name not in loaded or not torch.equal(loaded[name].float(), file.get_tensor(key).float()):
                raise SystemExit(f"PEFT did not take the tensor {key}")
    return model


def main():
    parser = argparse.ArgumentParser(description="Loads a delivered adapter in PEFT and checks that it does something.")
    parser.add_argument("--model", required=True, help="Hugging Face folder of the base model")
    parser.add_argument("--adapter", required=True, help="folder with adapter_config.json")
    parser.add_argument("--rows", required=True, type=pathlib.Path, help="chat rows (JSONL), the last turn supervised")
    options = parser.parse_args()

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    rows = [supervised(tokenizer, json.loads(line)["messages"]) for line in options.rows.read_text().splitlines()]
    base = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    with torch.no_grad():
        base_logits = base(rows[0][0]).logits
    base_loss = mean_loss(base, rows)

    model = load_adapter(base, options.adapter)
    with torch.no_grad():
        difference = (model(rows[0][0]).logits - base_logits).abs().max().item()
    loss = mean_loss(model, rows)
    tensors = sum("lora_" in name for name, _ in model.named_parameters())
    print(f"PEFT loaded all {tensors} tensors of the adapter.")
    print(f"Logits differ from the base by up to {difference:.2f}.")
    print(f"Loss on {len(rows)} held-out rows: {base_loss:.3f} without, {loss:.3f} with the adapter.")
    if difference < 1e-3:
        sys.exit("The adapter changes nothing.")
    if loss >= base_loss:
        sys.exit("The loss did not fall.")


if __name__ == "__main__":
    main()
