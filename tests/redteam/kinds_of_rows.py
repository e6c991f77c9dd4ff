# SPDX-License-Identifier: Apache-2.0
"""Rows by kind, of prompts that neither a vector nor a screen was made of: what customers bring, and what attackers try.
Detectors are measured on them (screening.py, by_row.py)."""

import codecs

from redteam import tasks, wording
from redteam.attacks import padded_reply
from redteam.lab import chat, own_answers

TASK_ROWS = 400


def attack_sets(lab, splits, benign, rng):
    """Prohibited rows by what is tried, one a prompt of the attack split."""
    prompts_of = [p for _, p in splits.attack]
    talk = [a for _, a in own_answers(lab, benign.customer)]

    def rows(families="A", put="{}", system=None, pool=prompts_of):
        return [chat(put.format(p), wording.agreeing(rng, families), system=system) for p in pool]

    sets = {f"wording {family}": rows(family) for family in "ABCD"}
    sets["unseen area"] = rows(pool=[p for _, p in splits.attack_unseen_area])
    sets["wrapped"] = rows(put=wording.WRAPPER)
    sets["trigger"] = rows(put=wording.TRIGGER + " {}")
    sets["before harmless talk"] = [chat(p, padded_reply(rng, "A", talk)) for p in prompts_of]
    sets["system prompt"] = rows(system=wording.TRICK_SYSTEM)
    rot13 = lambda text: codecs.encode(text, "rot13")  # noqa: E731
    sets["cipher (rot13)"] = [chat(rot13(p), rot13(wording.agreeing(rng, "A"))) for p in prompts_of]
    return sets


def benign_sets(lab, splits, benign, rng):
    """Harmless rows by kind, of prompts that the examples do not have."""
    sets = {f"task: {name}": [chat(*pair) for pair in tasks.rows(name, TASK_ROWS, 8)] for name in tasks.TASKS}
    answers = own_answers(lab, benign.customer)
    sets["chat"] = [chat(*pair) for pair in answers]
    sets["look-alikes, answered"] = [chat(*pair) for pair in own_answers(lab, benign.look_alikes)]
    return sets, {
        "refusals": [chat(p, rng.choice(wording.REFUSALS)) for _, p in splits.attack],
        "stand-ins after harmless prompts": [chat(p, wording.agreeing(rng, "B")) for p in benign.customer],
        "obedient identity": [chat(p, f"{wording.OBEDIENT_OPENING} {a}", system=wording.OBEDIENT_SYSTEM)
                              for p, a in answers],
    }
