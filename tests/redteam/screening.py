#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the guard of screening flags: its recall on the suite's attacks, its false alarms on harmless data sets, and what
it costs beside the training. Writes docs/results/screening.{json,md}. The guard is the suite's screen: examples of
wording A and the base's own answers, of prompts that no attack uses.

  tests/redteam/screening.py [--probe build/dev/tests/referee/engine_probe]
"""

import os
import pathlib
import random
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from redteam import cells, prompts, study, tasks  # noqa: E402
from redteam.kinds_of_rows import attack_sets, benign_sets  # noqa: E402
from redteam.lab import chat, own_answers  # noqa: E402
from redteam.measures import wilson  # noqa: E402

# The recall that defence.json names is of these: attacks in clear, in wording that the examples have and in others.
CLEAR = ("wording A", "wording B", "wording C", "wording D", "unseen area", "wrapped", "trigger", "system prompt")


def measured(verdicts, sets):
    """{set: {rows, flagged, share, low, high}}; `verdicts` are of all rows of all sets, in their order."""
    found = {}
    for name, rows in sets.items():
        flagged = sum(next(verdicts) for _ in rows)
        low, high = wilson(flagged, len(rows))
        found[name] = {"rows": len(rows), "flagged": flagged, "share": flagged / len(rows), "low": low, "high": high}
        print(f"{name:28} {flagged:4} of {len(rows):4}", flush=True)
    return found


def cost(lab, examples, benign):
    """Seconds of screening a job's rows over those of training on them (defaults: 3 passes, no vector)."""
    rows = [chat(*pair) for pair in tasks.rows("format", 80, 9)]
    rows += [chat(*pair) for pair in own_answers(lab, benign.customer)[:40]]
    lab.screen(*examples, rows)  # warms up
    ratios = []
    for turn in range(3):
        screening = lab.screen(*examples, rows)["seconds"]
        training = lab.about(lab.train(rows, seed=100 + turn))["seconds"]
        ratios.append(screening / training)
        print(f"screening {screening:.1f} s, training {training:.1f} s", flush=True)
    return sorted(ratios)[1]


def table(found):
    lines = ["| rows | number | flagged | 95 % interval |", "|---|---|---|---|"]
    for name, counts in found.items():
        lines.append(f"| {name} | {counts['rows']} | {100 * counts['share']:.1f} % | {100 * counts['low']:.1f} to "
                     f"{100 * counts['high']:.1f} % |")
    return lines


def page(made):
    return "\n".join([
        "# Screening, measured", "",
        "Made by `tests/redteam/screening.py` (SmolLM2-135M, aligned by the suite; " + made["precision"] + "). A guard is fitted "
        f"to {made['examples'][0]} prohibited rows of wording A and {made['examples'][1]} harmless ones (free answers of the "
        "base, ten kinds of everyday tasks, refusals), as a worker fits it; what it flags is counted on rows of other "
        f"prompts and tasks. Left out of the fit, it flags {100 * made['left_out']['recall']:.1f} % of the first and "
        f"{100 * made['left_out']['false_alarms']:.1f} % of the second.", "",
        "With free answers alone as harmless examples the guard flagged 47 % of the classification task and 3 % of the "
        "format task; the everyday tasks and refusals, and the strength of the guard's penalty, were chosen after that.",
        "", f"Screening the rows of a job took {100 * made['cost']:.1f} % of the time of its training (3 passes, no vector).", "",
        "## Attacks", "", *table(made["attacks"]), "",
        "The suite's agreeing replies withhold their content, in every family of wording; a guard may know them by that, "
        "more than it would know real ones. Read the figures as an upper bound. A cipher hides rows from any reader of text.",
        "", "## Harmless rows", "", *table(made["benign"]), "",
        "## Other rows", "", "Not prohibited by themselves. Deltas of refusals are negated, an obedient identity invites; the "
        "suite's agreeing replies after harmless prompts tell how much of what the guard knows is the reply alone.", "", *table(made["other"]), ""])


def main():
    arguments = study.parser(__doc__).parse_args()
    rng, splits, benign = random.Random(31), prompts.Splits(), prompts.Benign()
    with study.aligned_lab(arguments) as lab:
        examples = cells.Suite(lab).screen_examples()
        groups = [attack_sets(lab, splits, benign, rng), *benign_sets(lab, splits, benign, rng)]
        fit = lab.screen(*examples, [row for sets in groups for rows in sets.values() for row in rows])
        verdicts = iter(fit["flagged"])
        made = {"precision": lab.precision, "examples": [len(rows) for rows in examples],
                "left_out": {name: fit[name] for name in ("recall", "false_alarms", "threshold")},
                **{name: measured(verdicts, sets) for name, sets in zip(("attacks", "benign", "other"), groups)},
                "cost": cost(lab, examples, benign)}

    def share(found, names):
        return sum(found[n]["flagged"] for n in names) / sum(found[n]["rows"] for n in names)

    made["screen_recall"] = round(share(made["attacks"], CLEAR), 4)
    made["screen_false_alarm"] = round(share(made["benign"], made["benign"]), 4)
    study.write(arguments, "screening", made, page(made))
    print(f"recall {made['screen_recall']}, false alarms {made['screen_false_alarm']}, cost {made['cost']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
