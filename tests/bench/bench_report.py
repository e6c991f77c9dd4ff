# SPDX-License-Identifier: Apache-2.0
"""Medians, ratios and the table of the training benchmark."""

import json
import platform
import statistics

from referee import model as referee

TITLES = {
    "ballast": "Ballast, vector on",
    "ballast_no_vector": "Ballast, plain base",
    "peft": "PEFT tuned, head on supervised rows",
    "peft_full_head": "PEFT tuned, transformers' loss",
}


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summarize(work, runs, roofs, rates, memory, start_up, threads):
    """Ratios are taken within a round and then their median."""
    workloads = {}
    for workload in work:
        sides = {}
        for side, results in runs[workload.name].items():
            sides[side] = {
                key: spread([r[key] for r in results])
                for key in ("tokens_per_s", "supervised_tokens_per_s", "cpu_s_per_million_tokens")
            }
            sides[side]["final_loss"] = results[-1]["final_loss"]
            sides[side]["peak_bytes"] = memory[side]
        pairs = list(zip(runs[workload.name]["ballast"], runs[workload.name]["peft"], roofs[workload.name]))
        ratios = {
            "tokens_per_s_over_peft": spread([b["tokens_per_s"] / p["tokens_per_s"] for b, p, _ in pairs]),
            "cpu_seconds_over_peft": spread(
                [b["cpu_s_per_million_tokens"] / p["cpu_s_per_million_tokens"] for b, p, _ in pairs]),
            "roofline_share": spread([b["tokens_per_s"] / roof for b, _, roof in pairs]),
        }
        plain = runs[workload.name].get("ballast_no_vector")
        if plain:
            ratios["vector_step_cost"] = spread(
                [p["tokens_per_s"] / b["tokens_per_s"] for p, (b, _, _) in zip(plain, pairs)])
        workloads[workload.name] = {
            "what": workload.what, "sides": sides, "ratios": ratios,
            "roofline_tokens_per_s": spread(roofs[workload.name]),
        }
    head = workloads[work[0].name]
    return {
        "about": {
            "cpu": processor(), "threads": threads, "torch": referee.torch.__version__,
            "transformers": referee.transformers.__version__, "peft": referee.peft.__version__,
            "python": platform.python_version(),
        },
        "workloads": workloads,
        "gemm_gflop_per_s": {
            "body": spread([r[0] / 1e9 for r in rates]), "head": spread([r[1] / 1e9 for r in rates])},
        "start_up_seconds": start_up,
        "first": {
            "tokens_per_s_ratio_peft": head["ratios"]["tokens_per_s_over_peft"]["median"],
            "peak_memory_ratio_peft": memory["ballast"] / memory["peft"],
            "roofline_share": head["ratios"]["roofline_share"]["median"],
        },
    }


def processor():
    for line in open("/proc/cpuinfo", encoding="utf-8"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def markdown(summary):
    about, gemm = summary["about"], summary["gemm_gflop_per_s"]
    lines = [
        "# Training speed and memory",
        "",
        "Written by `tests/bench/train.py`: SmolLM2-135M, LoRA r = 16 on the seven linears, bf16. Both sides have "
        "the same rows in every step, the same initial adapter, optimizer and schedule, and take turns in one run; "
        "medians over the rounds, range in brackets. Tokens are those of the rows, padding not counted.",
        "",
        f"{about['cpu']}, {about['threads']} threads; torch {about['torch']}, transformers {about['transformers']}, "
        f"peft {about['peft']}, Python {about['python']}. GEMM in the same run: "
        f"{gemm['body']['median']:.0f} GFLOP/s on the layers' shapes, {gemm['head']['median']:.0f} on the head's.",
    ]
    for name, workload in summary["workloads"].items():
        ratios = workload["ratios"]
        lines += [
            "", f"## {name}", "", f"{workload['what']}.", "",
            "| side | tokens/s | supervised tokens/s | CPU s / million tokens | final loss |",
            "|---|---|---|---|---|",
        ]
        for side, s in workload["sides"].items():
            speed = s["tokens_per_s"]
            lines.append(
                f"| {TITLES[side]} | {speed['median']:.0f} ({speed['min']:.0f}-{speed['max']:.0f}) | "
                f"{s['supervised_tokens_per_s']['median']:.0f} | {s['cpu_s_per_million_tokens']['median']:.0f} | "
                f"{s['final_loss']:.4f} |")
        roof = workload["roofline_tokens_per_s"]
        lines += [
            f"| GEMM roofline | {roof['median']:.0f} ({roof['min']:.0f}-{roof['max']:.0f}) | | | |", "",
            f"Ballast over tuned PEFT: **{range_of(ratios['tokens_per_s_over_peft'])}** in tokens/s, "
            f"{range_of(ratios['cpu_seconds_over_peft'])} in CPU seconds. "
            f"Share of the roofline: **{range_of(ratios['roofline_share'])}**.",
        ]
        if "vector_step_cost" in ratios:
            lines.append(f"Step with the vector over step on the plain base: {range_of(ratios['vector_step_cost'], 3)}.")
    first = next(iter(summary["workloads"].values()))
    lines += ["", "## Memory and start-up", "", "| side | peak resident memory | start-up |", "|---|---|---|"]
    for side, s in first["sides"].items():
        lines.append(f"| {TITLES[side]} | {s['peak_bytes'] / 2**30:.2f} GiB | {summary['start_up_seconds'][side]:.1f} s |")
    lines += [
        "", f"Peak memory (VmHWM, after the first workload) over tuned PEFT: "
        f"**{summary['first']['peak_memory_ratio_peft']:.2f}**. Start-up is until the model is loaded; of the PEFT "
        "loop it includes Python's imports.", ""]
    return "\n".join(lines)


def range_of(values, digits=2):
    return f"{values['median']:.{digits}f} ({values['min']:.{digits}f}-{values['max']:.{digits}f})"


def write(summary, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train_bench.json").write_text(json.dumps(summary, indent=1) + "\n")
    (folder / "train_bench.md").write_text(markdown(summary))
    first = folder / "first.json"
    figures = json.loads(first.read_text()) if first.exists() else {}
    figures.update(summary["first"])
    first.write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
