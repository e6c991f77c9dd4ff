#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Parity of the training engine with transformers and PEFT.

By default the tiny models with everything, and SmolLM2-135M with short rows (some minutes on two cores).
--full adds long rows, schedules and seeds, and writes docs/results/parity.{json,md}.
"""

import argparse
import json
import os
import pathlib
import platform
import sys
import tempfile
import traceback

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))
# Threads that spin take the cores from whoever else wants them, and the tiny models' products are so short
# that most of the time is waiting (a run of seconds became minutes); nothing is timed here.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import cases  # noqa: E402
import report as reports  # noqa: E402
import tiny_models  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import vector_cases  # noqa: E402
from referee import model as referee  # noqa: E402
from referee import rows as token_rows  # noqa: E402
from referee.engine import find_probe  # noqa: E402

STEPS = 50
CONFIG = {
    "learning_rate": 1e-3,
    "epochs": 5,
    "batch_rows": 4,
    "max_tokens_per_micro_batch": 2048,
    "warmup_ratio": 0.1,
    "schedule": "cosine",
    "weight_decay": 0.0,
    "max_gradient_norm": 1.0,
    "seed": 5,
}


def tiny_subject(name, folder, work):
    vocabulary = 263
    lengths = [5 + (7 * i) % 40 for i in range(STEPS * CONFIG["batch_rows"] // CONFIG["epochs"])]
    # A small share of the vocabulary, so that there is something to learn in 50 steps.
    rows = token_rows.random_rows(16, lengths, 0.6, seed=21)
    return cases.Subject(
        name=f"tiny {name}", folder=folder, rank=4, alpha=8,
        gradient_rows=cases.gradient_rows_of(vocabulary, seed=20),
        training_rows=rows, validation_rows=token_rows.random_rows(16, [40, 3, 17, 29], 0.8, seed=22),
        # Small micro-batches: gradients are accumulated over several.
        config=dict(CONFIG, max_tokens_per_micro_batch=64), work=work, adapter_scale=0.1,
    )


def smollm2_subject(folder, work, full):
    """Real text. The short form has few training rows, more often: the engine evaluates on at least 16 of
    them where there are so many, and here that is after every step."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder))
    batch_rows, epochs, longest = (4, 5, 256) if full else (2, 25, 56)
    validation = 8 if full else 3
    rows = token_rows.chat_rows(tokenizer, STEPS * batch_rows // epochs + validation, 31, max_tokens=longest)
    documents = token_rows.chat_rows(tokenizer, 5, 33, max_tokens=512 if full else 96)
    documents[1] = token_rows.uniform_rows(tokenizer, 1, 700 if full else 200, 0.3, 34)[0]
    held_out = 48 if full else 24
    once = token_rows.chat_rows(tokenizer, STEPS * batch_rows + held_out, 35, max_tokens=longest)
    return cases.Subject(
        bf16_training_rows=once[held_out:], bf16_validation_rows=once[:held_out],
        bf16_config=dict(CONFIG, batch_rows=batch_rows, epochs=1, learning_rate=3e-4),
        name="SmolLM2-135M-Instruct", folder=folder, rank=16, alpha=32,
        gradient_rows=documents, training_rows=rows[validation:], validation_rows=rows[:validation],
        config=dict(CONFIG, batch_rows=batch_rows, epochs=epochs, learning_rate=3e-4), work=work,
    ), tokenizer


def compare(subject, report, probe, threads, precision, steps):
    """Runs the named steps of a comparison; one that breaks is a failure and the others still run."""
    comparison = None
    try:
        comparison = cases.Comparison(subject, report, probe, precision, threads)
        for step in steps:
            try:
                step(comparison)
            except Exception as error:  # every kind of failure must be counted
                traceback.print_exc()
                report.failure(f"{comparison.case} {getattr(step, '__name__', 'step')}", error)
    except Exception as error:
        traceback.print_exc()
        report.failure(f"{subject.name} {precision} loading", error)
    finally:
        if comparison is not None:
            comparison.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", help="engine_probe (default: BALLAST_ENGINE_PROBE, or the newest under build/)")
    parser.add_argument("--smollm2", default=os.environ.get(
        "BALLAST_SMOLLM2", str(REPOSITORY / ".cache/models/SmolLM2-135M-Instruct")),
        help="Hugging Face folder of SmolLM2-135M-Instruct (scripts/convert_smollm2 makes it)")
    parser.add_argument("--full", action="store_true", help="everything; writes docs/results/parity.*")
    parser.add_argument("--write", action="store_true", help="write docs/results/parity.* without --full, too")
    parser.add_argument("--only", choices=["tiny", "real", "bf16"], help="one part of the suite")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    if (arguments.full or arguments.write) and not processor_has_fast_bf16():
        parser.error("results are written on a processor with fast bf16 units only (AMX, or AMD's AVX512_BF16)")
    torch.set_num_threads(arguments.threads)
    probe = find_probe(arguments.probe)
    report = reports.Report()
    C = cases.Comparison

    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        if arguments.only in (None, "tiny"):
            for name in tiny_models.MODELS:
                subject = tiny_subject(name, tiny_models.make(name, temporary), temporary)
                prompt = subject.gradient_rows[0]["tokens"][:20]
                compare(subject, report, probe, arguments.threads, "float32", [
                    C.logits, C.row_features, C.gradients, C.weighted_gradients, C.vector_gradients, C.controls, C.training_fp32,
                    C.delivered_adapter, lambda c: c.training_fp32(with_vector=True),
                    vector_cases.training_by_row, lambda c, p=prompt: c.greedy_reply(p, 24)])
                compare(subject, report, probe, arguments.threads, "bfloat16", [C.logits, C.gradients])
        if arguments.only != "tiny":
            folder = pathlib.Path(arguments.smollm2)
            if not (folder / "model.safetensors").exists():
                parser.error(f"{folder} is no model folder: run scripts/convert_smollm2, or give --smollm2")
            subject, tokenizer = smollm2_subject(folder, temporary, arguments.full)
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": "What is the capital of France?"}],
                add_generation_prompt=True, return_dict=True)["input_ids"]
            if arguments.only != "bf16":
                compare(subject, report, probe, arguments.threads, "float32", [
                    C.logits, C.row_features, C.gradients, C.vector_gradients, C.training_fp32, C.delivered_adapter,
                    lambda c: c.greedy_reply(prompt, 16)]
                    + ([C.weighted_gradients, lambda c: c.training_fp32(with_vector=True)] if arguments.full else []))
            seeds = (5, 6, 7) if arguments.full else (5,)
            if not processor_has_fast_bf16():
                seeds = ()
                report.skip(f"{subject.name} bf16 50 steps",
                            "this processor has no fast bf16 units: workers train in float32 here, and bf16 takes an hour")
            compare(subject, report, probe, arguments.threads, "bfloat16", [
                C.logits, C.gradients] + ([C.vector_gradients] if seeds else [])
                + [lambda c, s=s: c.training_bf16(s) for s in seeds])

    if (arguments.full or arguments.write) and arguments.only is None:
        write_results(report, arguments.full)
    print(f"parity: {report.summary()}")
    return 1 if report.failed or not report.rows else 0


def processor_has_fast_bf16():
    """As worker/train/load_engine.cc decides it."""
    flags = pathlib.Path("/proc/cpuinfo").read_text().split()
    return "avx512_bf16" in flags and ("GenuineIntel" not in flags or "amx_bf16" in flags)


def write_results(report, full):
    results = REPOSITORY / "docs/results"
    results.mkdir(parents=True, exist_ok=True)
    about = {
        "torch": torch.__version__, "transformers": transformers.__version__,
        "peft": referee.peft.__version__, "python": platform.python_version(), "threads": torch.get_num_threads(),
    }
    (results / "parity.json").write_text(
        json.dumps({"about": about, "summary": report.summary(), "checks": report.rows}, indent=1) + "\n")
    limits = "".join(f"- `{name}`: {t['what']}.\n" for name, t in reports.TOLERANCES.items())
    (results / "parity.md").write_text(
        "# Parity with transformers and PEFT\n\n"
        f"Written by `tests/parity/run.py {'--full' if full else '--write'}`; the limits are those of `tests/parity/tolerances.json`.\n"
        f"{', '.join(f'{k} {v}' for k, v in about.items())}.\n\n"
        f"**{report.summary()}**\n\n{report.markdown()}\n## Measures\n\n{limits}")
    first = results / "first.json"
    figures = json.loads(first.read_text()) if first.exists() else {}
    figures["parity_fp32_loss_rel"] = report.worst("training_fp32_loss_relative_error")
    figures["parity_bf16_loss_rel"] = report.worst("training_bf16_loss_relative_error")
    first.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.exit(main())
