# SPDX-License-Identifier: Apache-2.0
"""What the matrix products of a LoRA step would take if nothing else took time.

The FLOPs are those that cannot be avoided: frozen linears forward and input gradient, adapters forward and
both gradients, causal attention, and the LM head on supervised tokens. The rate of each is measured here, on
the model's own shapes, with the same torch, in the same run.
"""

import dataclasses
import json
import pathlib
import time

import torch


@dataclasses.dataclass
class Shapes:
    """Dimensions of a Llama from its config.json."""

    layers: int
    hidden: int
    intermediate: int
    query: int  # heads x head_dim
    key_value: int
    vocabulary: int

    @classmethod
    def of(cls, folder):
        config = json.loads((pathlib.Path(folder) / "config.json").read_text())
        head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        return cls(
            layers=config["num_hidden_layers"], hidden=config["hidden_size"],
            intermediate=config["intermediate_size"], query=config["num_attention_heads"] * head_dim,
            key_value=config["num_key_value_heads"] * head_dim, vocabulary=config["vocab_size"],
        )

    def linears(self):
        """(inputs, outputs) of the seven linears of a layer."""
        return [
            (self.hidden, self.query), (self.hidden, self.key_value), (self.hidden, self.key_value),
            (self.query, self.hidden), (self.hidden, self.intermediate), (self.hidden, self.intermediate),
            (self.intermediate, self.hidden),
        ]


def flops(shapes, rows, rank):
    """(everything but the head, head) of one forward and backward of `rows`."""
    tokens = sum(len(row["tokens"]) for row in rows)
    targets = sum(sum(row["supervised"][1:]) for row in rows)
    layer = sum(i * o for i, o in shapes.linears())
    first = sum(i * o for i, o in shapes.linears()[:3])  # the first layer's q, k, v need no input gradient
    frozen = (4 * layer * shapes.layers - 2 * first) * tokens
    adapters = 6 * rank * sum(i + o for i, o in shapes.linears()) * shapes.layers * tokens
    # Two products forward and four backward, each T x T / 2 x width for the causal half.
    attention = sum(6 * shapes.layers * shapes.query * len(row["tokens"]) ** 2 for row in rows)
    head = 4 * shapes.hidden * shapes.vocabulary * targets
    return frozen + adapters + attention, head


class Gemm:
    """Measured rates of bf16 products, FLOP/s."""

    def __init__(self, shapes, tokens=2048, dtype=torch.bfloat16):
        self._linears = sorted(set(shapes.linears()), reverse=True)
        self._weights = {
            (i, o): shapes.linears().count((i, o)) for i, o in self._linears
        }
        make = lambda i, o: (torch.randn(tokens, i).to(dtype), torch.randn(o, i).to(dtype))  # noqa: E731
        self._operands = {shape: make(*shape) for shape in self._linears}
        # The head works in chunks in any sane trainer: 512 rows of logits at a time.
        self._head = (torch.randn(512, shapes.hidden).to(dtype), torch.randn(shapes.vocabulary, shapes.hidden).to(dtype))

    def measure(self, seconds=1.5):
        """(rate of the body's linears, rate of the head): best of many short runs, each shape by its share."""
        share = seconds / (len(self._linears) + 1)
        time_per_layer = sum(self._weights[s] * self._best(*self._operands[s], share) for s in self._linears)
        flops_per_layer = sum(self._weights[s] * self._flops(*self._operands[s]) for s in self._linears)
        return flops_per_layer / time_per_layer, self._flops(*self._head) / self._best(*self._head, share)

    @staticmethod
    def _flops(x, w):
        return 2 * x.shape[0] * w.shape[0] * w.shape[1]

    @staticmethod
    def _best(x, w, seconds):
        best, end = float("inf"), time.monotonic() + seconds
        with torch.no_grad():
            while True:
                started = time.perf_counter()
                torch.nn.functional.linear(x, w)
                now = time.perf_counter()
                best = min(best, now - started)
                if time.monotonic() > end:
                    return best


def tokens_per_second(shapes, rows, rank, rates):
    body, head = flops(shapes, rows, rank)
    return sum(len(row["tokens"]) for row in rows) / (body / rates[0] + head / rates[1])
