#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Which precision trains faster on this processor, bfloat16 or float32: the choice of worker/train/load_engine.cc.
The two take turns; ratios are taken within a round. Adds a line for this processor to docs/results/precision.jsonl
and makes precision.md of all lines.

  .venv/bin/python tests/bench/precision.py --probe build/release/tests/referee/engine_probe
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "tests")]
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

import transformers  # noqa: E402
from referee import rows as token_rows  # noqa: E402
from referee.engine import Engine, find_probe  # noqa: E402

CONFIG = {"rank": 16, "alpha": 32, "learning_rate": 2e-4, "epochs": 1, "batch_rows": 16, "warmup_ratio": 0.03,
          "schedule": "cosine", "evaluation_points": 1, "max_tokens_per_micro_batch": 2048, "seed": 1}
PRECISIONS = ("bfloat16", "float32")


def processor():
    """What the choice depends on."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines[: lines.index("")] if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = fields["flags"].split()
    return {
        "vendor": fields["vendor_id"], "family": fields["cpu family"], "model": fields["model"],
        **{flag: flag in flags for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")},
    }


def tokens_per_second(probe, model, precision, threads, rows_file, tokens, work):
    with Engine(probe, model, precision, threads) as engine:
        for _ in range(2):  # the first run warms up
            answer = engine.run("train", rows_file=rows_file, config=CONFIG, output=work / "adapter.safetensors")
    return tokens / (answer["wall_end"] - answer["wall_start"])


def page(lines):
    out = ["# bfloat16 or float32 on the CPU", "",
           "Made by `tests/bench/precision.py`, which measures on the processor that it runs on: training of SmolLM2-135M, "
           "LoRA r = 16, 64 chat rows, the two precisions in turns, median of the rounds. Workers choose by vendor and "
           "flags (`worker/train/load_engine.cc`).", "",
           "| processor | AVX512_BF16 | AMX_BF16 | threads | bf16 tokens/s | fp32 tokens/s | fp32 / bf16 (range) |",
           "|---" * 7 + "|"]
    for line in lines:
        cpu, ratio = line["processor"], line["fp32_over_bf16"]
        out.append(f"| {cpu['vendor']} {cpu['family']}/{cpu['model']} | {'yes' if cpu['avx512_bf16'] else 'no'} | "
                   f"{'yes' if cpu['amx_bf16'] else 'no'} | {line['threads']} | {line['tokens_per_s']['bfloat16']:.0f} | "
                   f"{line['tokens_per_s']['float32']:.0f} | {statistics.median(ratio):.2f} "
                   f"({min(ratio):.2f} to {max(ratio):.2f}) |")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probe", help="engine_probe (default: the newest under build/)")
    parser.add_argument("--model", default=str(REPOSITORY / ".cache/models/SmolLM2-135M-Instruct"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    probe = find_probe(arguments.probe)
    rows = token_rows.chat_rows(transformers.AutoTokenizer.from_pretrained(arguments.model), 64, 5, max_tokens=160)
    tokens = sum(len(row["tokens"]) for row in rows)
    speeds = {precision: [] for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as work:
        rows_file = pathlib.Path(work) / "rows.json"
        rows_file.write_text(token_rows.dump(rows))
        for _ in range(arguments.rounds):
            for precision in PRECISIONS:
                speeds[precision].append(tokens_per_second(probe, arguments.model, precision, arguments.threads,
                                                           rows_file, tokens, pathlib.Path(work)))
                print(f"{precision:8} {speeds[precision][-1]:6.0f} tokens/s", flush=True)
    line = {"processor": processor(), "threads": arguments.threads,
            "tokens_per_s": {p: statistics.median(s) for p, s in speeds.items()},
            "fp32_over_bf16": [f / b for b, f in zip(speeds["bfloat16"], speeds["float32"])]}
    results = REPOSITORY / "docs/results/precision.jsonl"
    kept = [json.loads(text) for text in results.read_text().splitlines()] if results.exists() else []
    kept = [other for other in kept if other["processor"] != line["processor"]] + [line]
    results.write_text("".join(json.dumps(each) + "\n" for each in kept))
    results.with_suffix(".md").write_text(page(kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
