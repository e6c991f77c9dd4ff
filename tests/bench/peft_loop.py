# SPDX-License-Identifier: Apache-2.0
"""The baseline of the training benchmark: a PEFT loop tuned for a CPU, behind lines of JSON.

Tuned means: bf16 weights and bf16 adapters (float32 adapters would drag every activation to float32), SDPA
without a mask tensor, no gradient checkpointing, fused AdamW, rows of a step sorted by length into
micro-batches that are padded to their longest row only, and (head "supervised") the LM head on supervised
positions only. head "full" is transformers' own loss over all positions, as a plain loop has it.

Commands: load (model, threads), train (config, rows, steps, validation_rows, initial_adapter, head), memory.
"""

import functools
import json
import pathlib
import resource
import sys
import time

STARTED = time.monotonic()
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from referee import model as referee  # noqa: E402


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def full_head_loss(model, rows):
    """Summed cross-entropy by transformers' own loss."""
    tokens, _ = referee.padded(rows)
    _, shifted = referee.padded(rows)
    labels = torch.full_like(shifted, referee.IGNORED)
    labels[:, 1:] = shifted[:, :-1]
    return model(input_ids=tokens, labels=labels, use_cache=False, num_items_in_batch=1).loss


LOSSES = {"supervised": functools.partial(referee.summed_loss, loss_type=torch.float32), "full": full_head_loss}


class Loop:
    def load(self, request):
        torch.set_num_threads(request["threads"])
        self._model = referee.add_lora(
            referee.load_base(request["model"], torch.bfloat16),
            request["rank"], request["alpha"], adapter_dtype=torch.bfloat16,
        )
        return {"seconds": time.monotonic() - STARTED}

    def train(self, request):
        rows = json.loads(pathlib.Path(request["rows_file"]).read_text())
        validation = json.loads(pathlib.Path(request["validation_rows_file"]).read_text())
        referee.set_adapter(self._model, referee.load_adapter(request["initial_adapter"]))
        plan = [[[rows[i] for i in batch] for batch in step] for step in request["steps"]]
        trainer = referee.Trainer(self._model, request["config"], len(plan), LOSSES[request["head"]])
        times = []
        for micro_batches in plan:
            trainer.step(micro_batches)
            times.append({"wall": time.monotonic(), "cpu": cpu_seconds()})
        return {"steps": times, "validation_loss": referee.evaluate(self._model, validation)}

    def memory(self, unused):
        status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
        read = lambda key: int(status[key].split()[0]) * 1024  # noqa: E731
        return {"resident_bytes": read("VmRSS"), "peak_bytes": read("VmHWM")}


def main():
    loop = Loop()
    commands = {"load": loop.load, "train": loop.train, "memory": loop.memory}
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(dict(commands[request["command"]](request), ok=True)), flush=True)


if __name__ == "__main__":
    main()
