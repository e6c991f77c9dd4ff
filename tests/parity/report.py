# SPDX-License-Identifier: Apache-2.0
"""Checks against the tolerances of tolerances.json, counted, printed, and kept for the table."""

import json
import pathlib
import time

TOLERANCES = json.loads((pathlib.Path(__file__).parent / "tolerances.json").read_text())


def max_relative_error(ours, theirs):
    """Largest difference relative to the largest value of the referee's tensor."""
    scale = theirs.abs().max().item()
    return (ours - theirs).abs().max().item() / scale if scale > 0 else ours.abs().max().item()


def cosine(ours, theirs):
    ours, theirs = ours.flatten().double(), theirs.flatten().double()
    norms = ours.norm() * theirs.norm()
    if norms == 0:
        return 1.0 if ours.norm() == theirs.norm() else 0.0
    return (ours @ theirs / norms).item()


class Report:
    def __init__(self):
        self.rows = []
        self.skipped = []
        self._started = time.monotonic()

    def at_most(self, case, tolerance, value):
        """`value` must not exceed the tolerance of that name."""
        limit = TOLERANCES[tolerance]["value"]
        return self._add(case, tolerance, value, f"<= {limit:g}", value <= limit)

    def at_least(self, case, tolerance, value):
        limit = TOLERANCES[tolerance]["value"]
        return self._add(case, tolerance, value, f">= {limit:g}", value >= limit)

    def true(self, case, what, holds, detail=""):
        return self._add(case, what, detail if detail else bool(holds), "holds", bool(holds))

    def tensors(self, case, prefix, ours, theirs):
        """Every tensor of `theirs`: worst of max relative error and of cosine, and the names agree."""
        self.true(case, "names and shapes agree",
                  ours.keys() == theirs.keys() and all(ours[n].shape == theirs[n].shape for n in theirs))
        shared = [n for n in theirs if n in ours and ours[n].shape == theirs[n].shape]
        errors = {n: max_relative_error(ours[n], theirs[n]) for n in shared}
        cosines = {n: cosine(ours[n], theirs[n]) for n in shared}
        worst, least = max(errors, key=errors.get), min(cosines, key=cosines.get)
        # In bf16 single elements say little; there the whole error is held against transformers' own.
        if f"{prefix}_max_relative_error" in TOLERANCES:
            if not self.at_most(case, f"{prefix}_max_relative_error", errors[worst]):
                print(f"       worst: {worst}")
        if not self.at_least(case, f"{prefix}_cosine", cosines[least]):
            print(f"       worst: {least}")

    def failure(self, case, error):
        """The case could not be finished."""
        self._add(case, "ran", f"{type(error).__name__}: {error}", "holds", False)

    def skip(self, case, reason):
        """The case cannot be run on this machine; said aloud and counted."""
        self.skipped.append(case)
        print(f"[{time.monotonic() - self._started:6.1f}s] SKIP {case}: {reason}", flush=True)

    @property
    def failed(self):
        return sum(not row["passed"] for row in self.rows)

    def summary(self):
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"{len(self.rows) - self.failed} passed, {self.failed} failed{skipped}"

    def worst(self, measure):
        """Largest value among the checks of that measure, or None."""
        values = [row["value"] for row in self.rows if row["measure"] == measure]
        return max(values) if values else None

    def markdown(self):
        lines = ["| case | measure | value | limit | |", "|---|---|---|---|---|"]
        for row in self.rows:
            value = f"{row['value']:.3g}" if isinstance(row["value"], float) else str(row["value"])
            lines.append(f"| {row['case']} | {row['measure']} | {value} | {row['limit']} | "
                         f"{'passed' if row['passed'] else 'FAILED'} |")
        return "\n".join(lines) + "\n"

    def _add(self, case, measure, value, limit, passed):
        self.rows.append({"case": case, "measure": measure, "value": value, "limit": limit, "passed": passed})
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"[{time.monotonic() - self._started:6.1f}s] {'ok  ' if passed else 'FAIL'} "
              f"{case}: {measure} {shown} ({limit})", flush=True)
        return passed
