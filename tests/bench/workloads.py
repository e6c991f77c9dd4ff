# SPDX-License-Identifier: Apache-2.0
"""What the training benchmark trains on."""

import dataclasses
import pathlib

from referee import rows as token_rows


@dataclasses.dataclass
class Workload:
    name: str
    what: str
    rows: list
    validation_rows: list
    batch_rows: int  # rows per optimizer step

    def files(self, folder):
        """Writes the rows for the programs; returns their paths."""
        paths = []
        for part, rows in (("rows", self.rows), ("validation", self.validation_rows)):
            path = pathlib.Path(folder) / f"{self.name}_{part}.json"
            path.write_text(token_rows.dump(rows))
            paths.append(path)
        return paths


def real(tokenizer, steps):
    """The three of the published table."""

    def split(rows, batch_rows):
        return rows[: steps * batch_rows], rows[steps * batch_rows :]

    uniform = split(token_rows.uniform_rows(tokenizer, 4 * steps + 4, 512, 0.0, seed=51), 4)
    chat = split(token_rows.chat_rows(tokenizer, 16 * steps + 16, seed=52, max_tokens=1024), 16)
    prompt = split(token_rows.uniform_rows(tokenizer, 4 * steps + 4, 512, 0.9, seed=53), 4)
    return [
        Workload("uniform", "4 rows of 512 tokens a step, all supervised: no padding, the kernels alone", *uniform, 4),
        Workload("chat", "16 chat rows a step, lengths with a long tail up to 1024", *chat, 16),
        Workload("prompt90", "4 rows of 512 tokens a step, of which the first 90 % are prompt", *prompt, 4),
    ]


def smoke(vocabulary, steps):
    """Seconds on a tiny model."""
    lengths = [8 + (11 * i) % 60 for i in range(4 * steps)]
    return [
        Workload(
            "smoke", "random rows on a tiny random model",
            token_rows.random_rows(vocabulary, lengths, 0.5, seed=61),
            token_rows.random_rows(vocabulary, [30, 20], 0.5, seed=62), 4,
        )
    ]
