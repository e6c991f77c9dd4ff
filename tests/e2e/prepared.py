# SPDX-License-Identifier: Apache-2.0
"""What other suites on real programs begin with."""

import models
import rows
from harness import short


def base_with_vector(bench, model, reason, *options):
    """Imports the tiny base as `model`, with `options`, and trains a vector that serves it, for `reason`, without a certificate."""
    bench.ok("model", "import", models.tiny(bench.folder / "tiny"), "--id", model, *options)
    prohibited = rows.write(bench.folder / "prohibited.jsonl", rows.prohibited(120))
    benign = rows.write(bench.folder / "benign.jsonl", rows.rows(30, seed=1))
    vector = bench.ok_json("vector", "train", "--base-model", model, "--prohibited", prohibited, "--benign", benign)
    bench.ok("vector", "activate", short(vector["name"]), "--reason", reason)
