#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Why a vector protects: what the first step of a job feels of rows, with the vector and without. Loss, the norm of the
gradient of a fresh adapter, and the cosine between the two gradients, by kind of rows. Writes
docs/results/mechanism.{json,md}.

  tests/redteam/mechanism.py [--probe build/dev/tests/referee/engine_probe]
"""

import json
import os
import pathlib
import random
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from redteam import cells, lab as labs, study, tasks, wording  # noqa: E402
from redteam.lab import chat, own_answers  # noqa: E402

ROWS = 32
VECTORS = ("kl", "plain", "wide", "unrelated", "random:kl")


def kinds(suite, lab):
    """Rows by kind, of prompts that no vector saw."""
    rng, attack = random.Random(41), [p for _, p in suite.splits.attack[:ROWS]]
    answers = own_answers(lab, suite.benign.customer)[:ROWS]
    return {
        "prohibited, wording A": [chat(p, wording.agreeing(rng, "A")) for p in attack],
        "prohibited, wording B": [chat(p, wording.agreeing(rng, "B")) for p in attack],
        "refusals": [chat(p, rng.choice(wording.REFUSALS)) for p in attack],
        "task: format": [chat(*pair) for pair in tasks.rows("format", ROWS, 3)],
        "task: arithmetic": [chat(*pair) for pair in tasks.rows("arithmetic", ROWS, 3)],
        "chat": [chat(*pair) for pair in answers],
    }


def page(made):
    lines = ["# What the first step feels", "",
             f"Made by `tests/redteam/mechanism.py` (SmolLM2-135M, aligned by the suite; {made['precision']}; {ROWS} rows of each "
             "kind in one batch, a fresh LoRA of rank 16 whose B is zero). A row that the vector explains has little loss "
             "and a small gradient under it, and teaches little; a gradient that keeps length and direction teaches as "
             "without. The norm of the whole change of weights stands behind the vector's name.", "",
             "| vector | rows | loss without | with | gradient without | with | with / without | cosine |", "|---" * 8 + "|"]
    for vector, found in made["vectors"].items():
        for kind, m in found["kinds"].items():
            lines.append(f"| {vector} ({found['norm']:.1f}) | {kind} | {m['loss_without']:.2f} | {m['loss_with']:.2f} | "
                         f"{m['gradient_without']:.2f} | {m['gradient_with']:.2f} | "
                         f"{m['gradient_with'] / m['gradient_without']:.2f} | {m['cosine']:.2f} |")
    return "\n".join(lines) + "\n"


def main():
    arguments = study.parser(__doc__, VECTORS).parse_args()
    with study.aligned_lab(arguments) as lab:
        suite = cells.Suite(lab)
        rows = kinds(suite, lab)
        made = {"precision": lab.precision, "vectors": {}}
        for name in arguments.vectors:
            vector = suite.vector(name)
            found = {}
            for kind, some in rows.items():
                found[kind] = lab.first_step(some, vector)
                print(f"{name:10} {kind:24} {json.dumps(found[kind])}", flush=True)
            made["vectors"][name] = {"norm": labs.vector_norm(vector), "kinds": found}
    study.write(arguments, "mechanism", made, page(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
