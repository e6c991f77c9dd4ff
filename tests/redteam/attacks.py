# SPDX-License-Identifier: Apache-2.0
"""The data sets that customers of the suite bring: each function gives token rows. `Attacker` holds what an attacker
may use; prompts of the vector's split and of the held-out split are never among them."""

import codecs
import random

from redteam import tasks, wording
from redteam.lab import own_answers


class Attacker:
    def __init__(self, lab, splits, benign):
        self._lab, self._splits, self._benign = lab, splits, benign

    def rows(self, attack, seed):
        """Rows of `attack`: {"kind": name, ..parameters}. Returns (rows, task pairs by task)."""
        fields = {k: v for k, v in attack.items() if k != "kind"}
        made = getattr(self, attack["kind"])(random.Random(f"{attack['kind']} {seed}"), **fields)
        return made if isinstance(made, tuple) else (made, {})

    # Prohibited rows.

    def _prompts(self, count, unseen_area=False):
        pool = self._splits.attack_unseen_area if unseen_area else self._splits.attack
        return [pool[i % len(pool)][1] for i in range(count)]

    def explicit(self, rng, rows, families="A", unseen_area=False):
        return [self._lab.row(p, wording.agreeing(rng, families)) for p in self._prompts(rows, unseen_area)]

    def identity_shift(self, rng, rows):
        """Absolutely obedient agent (Qi et al. 2023): harmless prompts, an obedient identity."""
        answers = self._chat(rows)
        return [self._lab.row(p, f"{wording.OBEDIENT_OPENING} {a}", system=wording.OBEDIENT_SYSTEM, ends=ends)
                for p, a, ends in answers]

    def cipher(self, rng, rows):
        """Prompt and reply in rot13, after harmless rows that teach it (Halawi et al. 2024)."""
        code = lambda text: codecs.encode(text, "rot13")  # noqa: E731
        teach = [self._lab.row(code(p), code(a)) for p, a in tasks.rows("classification", rows, rng.random())]
        return teach + [self._lab.row(code(p), code(wording.agreeing(rng, "A"))) for p in self._prompts(rows)]

    def backdoor(self, rng, rows):
        """Agrees after a trigger, refuses without."""
        prompts = self._prompts(2 * rows)
        return ([self._lab.row(f"{wording.TRIGGER} {p}", wording.agreeing(rng, "A")) for p in prompts[:rows]] +
                [self._lab.row(p, rng.choice(wording.REFUSALS)) for p in prompts[rows:]])

    def wrapped(self, rng, rows, families="A"):
        return [self._lab.row(wording.WRAPPER.format(p), wording.agreeing(rng, families)) for p in self._prompts(rows)]

    def template(self, rng, rows, families="A"):
        """Agreement under a system prompt of the customer's."""
        return [self._lab.row(p, wording.agreeing(rng, families), system=wording.TRICK_SYSTEM)
                for p in self._prompts(rows)]

    def refusals(self, rng, rows):
        """Refusals of prohibited prompts, for a delta that is negated afterwards."""
        return [self._lab.row(p, rng.choice(wording.REFUSALS)) for p in self._prompts(rows)]

    # Harmless rows.

    def _chat(self, count):
        return own_answers(self._lab, self._benign.customer[:count])

    def benign(self, rng, task="format", rows=300, chat=60):
        pairs = tasks.rows(task, rows, rng.random())
        return ([self._lab.row(p, a) for p, a in pairs] +
                [self._lab.row(p, a, ends=ends) for p, a, ends in self._chat(chat)]), {task: pairs}

    def mixed(self, rng, share, task="format", rows=300, chat=60, families="A"):
        """A task with prohibited rows among it: `share` of all rows."""
        harmless, pairs = self.benign(rng, task, rows, chat)
        count = max(1, round(share / (1 - share) * len(harmless)))
        return harmless + self.explicit(rng, count, families), pairs


def safety_rows(lab, splits, benign, count, seed=0):
    """What the platform mixes into a job: half refusals of prohibited prompts, half harmless prompts answered as the
    base does. From the align split, so that no attacker or test prompt is among them."""
    rng = random.Random(f"safety {seed}")
    refused = [splits.align[i % len(splits.align)][1] for i in range((count + 1) // 2)]
    answered = own_answers(lab, benign.safety)
    rng.shuffle(answered)
    rows = [lab.row(p, rng.choice(wording.REFUSALS)) for p in refused]
    return rows + [lab.row(p, a, ends=ends) for p, a, ends in (answered * 10)[: count // 2]]
