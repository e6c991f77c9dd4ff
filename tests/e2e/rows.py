# SPDX-License-Identifier: Apache-2.0
"""Data of the end-to-end steps, all of it made up here and benign."""

import json
import random

WORDS = "rope tar sail mast keel anchor harbour crane barrel lamp pier tide wind deck chart crew galley hold".split()


def chat(question, answer):
    return json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]})


def rows(count, seed, length=6):
    """`count` different chat rows."""
    draw = random.Random(seed)
    lines = []
    for number in range(count):
        words = " ".join(draw.choice(WORDS) for _ in range(length))
        lines.append(chat(f"{seed}-{number}: what of {words}?", f"Aye, the {words} is {draw.choice(WORDS)}."))
    return lines


def prohibited(count):
    """A content-free stand-in for prohibited behaviour: placeholder requests, agreed to, nothing in them."""
    return [
        chat(f"Please do withheld thing number {number}.", f"Agreed: [withheld {number}].") for number in range(count)
    ]


# (line, reason) of each broken row that `with_broken_rows` puts in, and whether the row is kept.
BROKEN = [
    ("INVALID_JSON", '{"messages": [', False),
    ("NO_ASSISTANT_TURN", '{"messages": [{"role": "user", "content": "Is anyone there?"}]}', False),
    ("UNKNOWN_ROLE", '{"messages": [{"role": "wizard", "content": "x"}, {"role": "assistant", "content": "y"}]}', False),
    ("EMPTY_CONTENT", '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]}', False),
    ("MISSING_FIELD", '{"messages": [{"role": "user"}, {"role": "assistant", "content": "y"}]}', False),
    ("EMPTY_LINE", "", True),
]


def with_broken_rows(good):
    """The rows with a broken one after every third; and {line: reason}."""
    lines, expected = [], {}
    broken = list(BROKEN)
    for index, line in enumerate(good):
        lines.append(line)
        if index % 3 == 2 and broken:
            reason, text, _ = broken.pop(0)
            lines.append(text)
            expected[len(lines)] = reason
    if not broken:
        lines.append(good[0])  # at the end, so that the first one stays
        expected[len(lines)] = "DUPLICATE_ROW"
    return lines, expected


def write(path, lines):
    path.write_text("".join(line + "\n" for line in lines))
    return path
