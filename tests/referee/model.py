# SPDX-License-Identifier: Apache-2.0
"""The referee: a base model in transformers, adapters by PEFT, gradients by autograd, AdamW by torch.

Nothing here knows how the engine works. Rows are those of referee.rows. Where several rows share a forward
they are padded on the right; a causal model's real tokens do not see the padding.
"""

import logging
import math
import os
import warnings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")  # PEFT asks for the old name

import peft  # noqa: E402  (the environment must be set first)
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import transformers  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

logging.getLogger("transformers").setLevel(logging.ERROR)
transformers.utils.logging.disable_progress_bar()

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IGNORED = -100


def load_base(folder, dtype):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=dtype, attn_implementation="sdpa", local_files_only=True
    )
    return model.eval().requires_grad_(False)


def add_lora(base, rank, alpha, adapter_dtype=torch.float32):
    """`base` under PEFT with LoRA on the seven linear modules. float32 adapters are PEFT's default whatever
    the base's type is; a bf16 adapter on a bf16 base is what a loop tuned for speed uses."""
    config = peft.LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none", target_modules=MODULES, task_type="CAUSAL_LM"
    )
    model = peft.get_peft_model(base, config, autocast_adapter_dtype=adapter_dtype == torch.float32)
    for parameter in adapter_parameters(model).values():
        parameter.data = parameter.data.to(adapter_dtype)
    return model.eval()


def adapter_parameters(model):
    """The trainable tensors by the names that an adapter file has."""
    return {
        name.replace(".default.", "."): parameter
        for name, parameter in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    }


def set_adapter(model, tensors):
    parameters = adapter_parameters(model)
    if parameters.keys() != tensors.keys():
        raise ValueError(f"the adapter's names differ: {sorted(parameters.keys() ^ tensors.keys())[:4]}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
            parameter.requires_grad_(True)
            parameter.grad = None


def get_adapter(model):
    return {name: p.detach().to(torch.float32).clone() for name, p in adapter_parameters(model).items()}


def random_adapter(model, seed, scale=0.02):
    """An adapter whose A and B are both away from zero, so that every gradient is."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, generator=generator) * scale
        for name, p in sorted(adapter_parameters(model).items())
    }


def logits(model, tokens):
    """float32 logits [T, V] of one row."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].to(torch.float32)


def row_features(model, row):
    """float32 [H]: the mean over the tokens that predict a supervised one of the residual stream after a third of the
    layers, rounded up."""
    with torch.no_grad():
        states = model(input_ids=torch.tensor([row["tokens"]]), use_cache=False, output_hidden_states=True).hidden_states
    layers = len(states) - 1  # the first is the embedding
    predicts = torch.tensor(row["supervised"][1:] + [0], dtype=torch.bool)
    return states[-(-layers // 3)][0][predicts].to(torch.float32).mean(0)


def padded(rows, pad_token=0):
    """Token ids and shifted labels of rows padded to the longest: both [rows, longest]."""
    longest = max(len(row["tokens"]) for row in rows)
    tokens = torch.full((len(rows), longest), pad_token)
    labels = torch.full((len(rows), longest), IGNORED)
    for i, row in enumerate(rows):
        ids = torch.tensor(row["tokens"])
        tokens[i, : len(ids)] = ids
        targets = torch.where(torch.tensor(row["supervised"], dtype=torch.bool), ids, torch.tensor(IGNORED))
        labels[i, : len(ids) - 1] = targets[1:]  # a token is predicted from what is before it
    return tokens, labels


def summed_loss(model, rows, weighted=True, loss_type=torch.float64):
    """Sum over supervised tokens of the cross-entropy, times the row's weight.

    In float64 from the model's logits on: torch's float32 sum over 49,152 tokens drops improbable ones, which
    moved SmolLM2's loss by 8e-6 and single gradients by 9e-4 of the largest, more than parity allows. What only
    needs speed gives float32.
    """
    tokens, labels = padded(rows)
    # The head runs on supervised positions only: that is all the loss sees of the logits.
    causal = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    hidden = causal.model(input_ids=tokens, use_cache=False).last_hidden_state
    chosen = labels != IGNORED
    losses = F.cross_entropy(
        causal.lm_head(hidden[chosen]).to(loss_type), labels[chosen], reduction="none"
    )
    if not weighted:
        return losses.sum()
    weights = torch.tensor([float(row["weight"]) for row in rows]).unsqueeze(1).expand_as(labels)[chosen]
    return (losses * weights).sum()


def target_weight(rows):
    """What the summed loss of `rows` is divided by: the weights of their supervised tokens."""
    return sum(sum(row["supervised"][1:]) * float(row["weight"]) for row in rows)


def evaluate(model, rows, rows_per_forward=8):
    """Mean cross-entropy over supervised tokens, weights left out."""
    with torch.no_grad():
        total = sum(
            summed_loss(model, rows[i : i + rows_per_forward], weighted=False).item()
            for i in range(0, len(rows), rows_per_forward)
        )
    return total / sum(sum(row["supervised"][1:]) for row in rows)


def gradients(model, rows, rows_per_forward=1):
    """Loss and gradient of every adapter tensor; each row goes through the model by itself."""
    divisor = target_weight(rows)
    total = 0.0
    for i in range(0, len(rows), rows_per_forward):
        loss = summed_loss(model, rows[i : i + rows_per_forward]) / divisor
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.detach().to(torch.float32) for name, p in adapter_parameters(model).items()}


SCHEDULERS = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


class Trainer:
    """A plain training loop over micro-batches that somebody else planned."""

    def __init__(self, model, config, total_steps, loss=summed_loss):
        self._model = model
        self._loss = loss
        self._config = config
        self._parameters = list(adapter_parameters(model).values())
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=config["learning_rate"],
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=config.get("weight_decay", 0.0),
            fused=True,
        )
        # transformers' own schedules; its Trainer rounds the warm-up up, too.
        self._scheduler = transformers.get_scheduler(
            SCHEDULERS[config["schedule"]], self._optimizer,
            num_warmup_steps=math.ceil(config["warmup_ratio"] * total_steps), num_training_steps=total_steps,
        )

    def step(self, micro_batches):
        """One optimizer step over lists of rows."""
        divisor = target_weight([row for rows in micro_batches for row in rows])
        self._optimizer.zero_grad(set_to_none=True)
        for rows in micro_batches:
            (self._loss(self._model, rows) / divisor).backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, self._config["max_gradient_norm"])
        self._optimizer.step()
        self._scheduler.step()


def save_adapter(path, tensors):
    save_file({name: tensor.to(torch.float32).contiguous() for name, tensor in tensors.items()}, str(path))


def save_vector(path, tensors, rank, alpha):
    """A security vector in clear, as the engine reads it (worker/train/model.h)."""
    prefix, suffix = "base_model.model.model.", ".weight"
    named = {
        "vector." + name[len(prefix) : -len(suffix)]: tensor.to(torch.float32).contiguous()
        for name, tensor in tensors.items()
    }
    save_file(named, str(path), metadata={"rank": str(rank), "alpha": str(alpha)})


def load_vector(path):
    """The inverse of save_vector: tensors under an adapter's names, rank, alpha."""
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
        tensors = {
            f"base_model.model.model.{name.removeprefix('vector.')}.weight": file.get_tensor(name)
            for name in file.keys()
        }
    return tensors, int(metadata["rank"]), float(metadata["alpha"])


def share_adapter(source, target):
    """Makes `target` train the very parameters of `source`, so that gradients of both add up in them."""
    parameters = {name: p for name, p in source.named_parameters() if ".lora_" in name}
    for name in parameters:
        parent, _, leaf = name.rpartition(".")
        target.get_submodule(parent).register_parameter(leaf, parameters[name])


def load_adapter(path):
    return load_file(str(path))


def merged(folder, vector, rank, alpha, rounded_to=torch.float32):
    """The base with a LoRA merged into its weights by PEFT in float32, rounded once, computing in float32."""
    model = add_lora(load_base(folder, torch.float32), rank, alpha)
    set_adapter(model, vector)
    model = model.merge_and_unload().eval().requires_grad_(False)
    return model.to(rounded_to).to(torch.float32)
