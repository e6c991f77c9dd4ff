#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training speed and memory of the engine beside a tuned PEFT loop and the GEMM roofline, in one run.

Same weights, token ids, label masks, initial adapter, rows of every step, optimizer and schedule on both
sides. The sides take turns, one round after another, so that a busy machine slows them alike; ratios are
taken within a round, and their median is reported with the range. Steps are timed from the end of the first
to the end of the last: start-up, merging the vector and evaluation are apart.

Writes docs/results/train_bench.{json,md} and its figures of docs/results/first.json. With --smoke a tiny
model for seconds, nothing written: CI runs that, so that the benchmark cannot rot.
"""

import argparse
import json
import os
import pathlib
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "tests/parity")]
# All sides wait as the worker does (worker/thread_waiting.h): a spin of milliseconds ruins a run as soon as
# anything else wants a core. OpenMP reads it when torch is loaded, here and in the programs started below.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")

import bench_report  # noqa: E402
import roofline  # noqa: E402
import tiny_models  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import workloads  # noqa: E402
from referee import model as referee  # noqa: E402
from referee import rows as token_rows  # noqa: E402
from referee.engine import Engine, Program, find_probe  # noqa: E402

RANK, ALPHA = 16, 32
CONFIG = {
    "rank": RANK, "alpha": ALPHA, "learning_rate": 2e-4, "epochs": 1, "max_tokens_per_micro_batch": 2048,
    "warmup_ratio": 0.1, "schedule": "cosine", "weight_decay": 0.0, "max_gradient_norm": 1.0, "seed": 1,
    "evaluation_points": 1,
}


def padded_micro_batches(rows, step, budget):
    """The rows of a step for a loop that pads: sorted by length, cut where longest x rows passes `budget`."""
    order = sorted((i for batch in step for i in batch), key=lambda i: -len(rows[i]["tokens"]))
    batches, current = [], []
    for i in order:
        longest = len(rows[(current or [i])[0]]["tokens"])
        if current and longest * (len(current) + 1) > budget:
            batches.append(current)
            current = []
        current.append(i)
    return batches + [current]


class Bench:
    def __init__(self, arguments, model, work):
        self._model, self._work, self._threads = pathlib.Path(model), work, arguments.threads
        self._probe = find_probe(arguments.probe)
        self._shapes = roofline.Shapes.of(model)
        self._initial = work / "initial.safetensors"
        self._vector = work / "vector.safetensors"

    def start(self):
        """Starts the sides; two engines, so that each one's peak memory is its own."""
        loop = [sys.executable, pathlib.Path(__file__).parent / "peft_loop.py"]
        self.sides = {
            "ballast": Engine(self._probe, self._model, "bfloat16", self._threads),
            "ballast_no_vector": Engine(self._probe, self._model, "bfloat16", self._threads),
            "peft": Program(loop, self._threads),
            "peft_full_head": Program(loop, self._threads),
        }
        self.start_up = {
            name: (side.info if isinstance(side, Engine) else side.run(
                "load", model=self._model, threads=self._threads, rank=RANK, alpha=ALPHA))["seconds"]
            for name, side in self.sides.items()
        }
        self.sides["ballast"].run("initial_adapter", rank=RANK, alpha=ALPHA, seed=7, output=self._initial)
        # A random vector, so small that both sides learn the same: only its cost is of interest here.
        shapes = referee.load_adapter(self._initial)
        generator = torch.Generator().manual_seed(8)
        tensors = {n: torch.randn(t.shape, generator=generator) * 1e-4 for n, t in sorted(shapes.items())}
        referee.save_vector(self._vector, tensors, RANK, ALPHA)

    def close(self):
        for side in self.sides.values():
            side.close()

    def gemm(self):
        return roofline.Gemm(self._shapes)

    def run(self, workload, side):
        """One training run; what the steps after the first took."""
        rows_file, validation_file = workload.files(self._work)
        config = dict(CONFIG, batch_rows=workload.batch_rows)
        plan = self.sides["ballast"].run(
            "plan", lengths=[len(row["tokens"]) for row in workload.rows], batch_rows=workload.batch_rows,
            **{k: config[k] for k in ("seed", "max_tokens_per_micro_batch", "epochs")})["steps"]
        program = self.sides[side]
        common = dict(config=config, rows_file=rows_file, validation_rows_file=validation_file,
                      initial_adapter=self._initial)
        if side.startswith("ballast"):
            vector = self._vector if side == "ballast" else None
            answer = program.run("train", vector=vector, **common)
            loss = answer["evaluations"][-1]["validation_loss"]
        else:
            steps = [padded_micro_batches(workload.rows, step, config["max_tokens_per_micro_batch"]) for step in plan]
            head = "full" if side == "peft_full_head" else "supervised"
            answer = program.run("train", steps=steps, head=head, **common)
            loss = answer["validation_loss"]
        first, last = answer["steps"][0], answer["steps"][-1]
        timed = [workload.rows[i] for step in plan[1:] for batch in step for i in batch]
        tokens, wall = token_rows.token_count(timed), last["wall"] - first["wall"]
        return {
            "tokens_per_s": tokens / wall,
            "supervised_tokens_per_s": token_rows.target_count(timed) / wall,
            "cpu_s_per_million_tokens": (last["cpu"] - first["cpu"]) / tokens * 1e6,
            "final_loss": loss,
        }

    def roofline(self, workload, rates):
        return roofline.tokens_per_second(self._shapes, workload.rows, RANK, rates)

    def memory(self):
        return {name: side.run("memory")["peak_bytes"] for name, side in self.sides.items()}


def measure(bench, work, rounds, full_head_on, gemm_seconds):
    """All rounds: {workload: {side: [run, ..]}}, roofline figures per round, peak memory after the first
    workload."""
    gemm = bench.gemm()
    runs = {w.name: {} for w in work}
    roofs = {w.name: [] for w in work}
    rates, memory = [], None
    for workload in work:
        for index in range(rounds):
            rates.append(gemm.measure(gemm_seconds))
            roofs[workload.name].append(bench.roofline(workload, rates[-1]))
            sides = ["ballast", "peft"]
            if workload.name in full_head_on:
                sides += ["ballast_no_vector", "peft_full_head"]
            if index % 2:  # who goes first changes, too
                sides.reverse()
            for side in sides:
                result = bench.run(workload, side)
                runs[workload.name].setdefault(side, []).append(result)
                print(f"{workload.name} round {index + 1} {side}: {result['tokens_per_s']:.0f} tokens/s, "
                      f"loss {result['final_loss']:.4f}", flush=True)
        memory = memory or bench.memory()
    return runs, roofs, rates, memory


def smoke_checks(summary):
    """What must hold of any run, whatever the speed."""
    sides = summary["workloads"]["smoke"]["sides"]
    losses = [side["final_loss"] for side in sides.values()]
    yield "all four sides ran", len(sides) == 4
    yield "speeds and memory are positive", all(
        s["tokens_per_s"]["median"] > 0 and s["peak_bytes"] > 0 for s in sides.values())
    yield "the roofline is above every side", all(
        s["tokens_per_s"]["median"] < summary["workloads"]["smoke"]["roofline_tokens_per_s"]["median"]
        for s in sides.values())
    yield "final losses agree within 2 %", max(losses) - min(losses) <= 0.02 * min(losses)
    yield "the figures of first.json are there", all(v > 0 for v in summary["first"].values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a tiny model, seconds; writes nothing")
    parser.add_argument("--probe", help="engine_probe (default: BALLAST_ENGINE_PROBE, or the newest under build/); "
                        "build it with the release preset for figures to publish")
    parser.add_argument("--smollm2", default=os.environ.get(
        "BALLAST_SMOLLM2", str(REPOSITORY / ".cache/models/SmolLM2-135M-Instruct")),
        help="Hugging Face folder of SmolLM2-135M-Instruct (scripts/convert_smollm2 makes it)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="optimizer steps of a run; the first is not timed")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", help="one workload")
    parser.add_argument("--output", type=pathlib.Path, default=REPOSITORY / "docs/results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        if arguments.smoke:
            model = tiny_models.make("gqa_tied", temporary)
            work, rounds, full_head_on = workloads.smoke(263, 3), 1, {"smoke"}
        else:
            model = arguments.smollm2
            if not (pathlib.Path(model) / "model.safetensors").exists():
                parser.error(f"{model} is no model folder: run scripts/convert_smollm2, or give --smollm2")
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(model))
            work = [w for w in workloads.real(tokenizer, arguments.steps) if arguments.only in (None, w.name)]
            rounds, full_head_on = arguments.rounds, {"uniform"}
        bench = Bench(arguments, model, temporary)
        bench.start()
        try:
            measured = measure(bench, work, rounds, full_head_on, 0.2 if arguments.smoke else 1.5)
        finally:
            bench.close()
    summary = bench_report.summarize(work, *measured, bench.start_up, arguments.threads)

    if arguments.smoke:
        outcome = list(smoke_checks(summary))
        for what, holds in outcome:
            print(f"{'ok  ' if holds else 'FAIL'} {what}")
        failed = sum(not holds for _, holds in outcome)
        print(f"train bench smoke: {len(outcome) - failed} passed, {failed} failed")
        return 1 if failed else 0
    print(bench_report.markdown(summary))
    if arguments.only is None:
        bench_report.write(summary, arguments.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
