# SPDX-License-Identifier: Apache-2.0
"""Token rows for the referees: {"tokens": [..], "supervised": [0/1, ..], "weight": w}.

The text comes from the docstrings of Python's standard library: real English with code in it, the same on
every machine with the same Python, and nothing that would have to be stored here.
"""

import importlib
import inspect
import json
import random
import textwrap

_MODULES = (
    "argparse asyncio bisect calendar cmath collections configparser contextlib copy csv ctypes dataclasses "
    "datetime decimal difflib dis email enum fractions functools gettext glob gzip hashlib heapq html http "
    "imaplib inspect io ipaddress itertools json locale logging lzma mailbox math mimetypes multiprocessing "
    "numbers operator os os.path pathlib pickle pkgutil platform pprint queue random re sched secrets select "
    "shelve shlex shutil signal smtplib socket sqlite3 ssl statistics string struct subprocess tarfile tempfile "
    "textwrap threading timeit tokenize traceback tracemalloc typing unicodedata unittest urllib.parse uuid "
    "warnings weakref xml.etree.ElementTree zipfile zlib"
).split()


def documentation():
    """Pairs (dotted name, docstring), sorted, docstrings of at least 40 characters, each text once."""
    texts = {}
    for name in _MODULES:
        module = importlib.import_module(name)
        members = [(name, module)]
        for attribute, value in inspect.getmembers(module):
            if attribute.startswith("_") or not callable(value):
                continue
            members.append((f"{name}.{attribute}", value))
            if inspect.isclass(value):
                methods = [(n, m) for n, m in vars(value).items() if not n.startswith("_") and callable(m)]
                members += [(f"{name}.{attribute}.{n}", m) for n, m in methods]
        for dotted, value in members:
            text = getattr(value, "__doc__", None)
            if isinstance(text, str) and len(text) >= 40:
                texts.setdefault(textwrap.dedent(text).strip(), dotted)
    return sorted((dotted, text) for text, dotted in texts.items())


_QUESTIONS = (
    "What does {} do?",
    "Explain {} from the Python standard library.",
    "I am reading code that uses {}. Tell me what it is for.",
    "Give me the documentation of {}.",
)


def chat_rows(tokenizer, count, seed, max_tokens=None, min_tokens=0):
    """`count` chat rows whose assistant text, to the end of the turn, is supervised. Lengths are what they
    are: many short, a long tail; rows above `max_tokens` are cut there."""
    rows = []
    order = documentation()
    random.Random(seed).shuffle(order)
    while len(rows) < count:
        for dotted, text in order:
            question = _QUESTIONS[(len(rows) + len(text)) % len(_QUESTIONS)].format(dotted)
            prompt = tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
            )
            head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
            tail = tokenizer(text + "<|im_end|>", add_special_tokens=False)["input_ids"]
            row = make_row(head, tail, max_tokens)
            if len(row["tokens"]) >= min_tokens and sum(row["supervised"]) > 0:
                rows.append(row)
            if len(rows) == count:
                break
    return rows


def uniform_rows(tokenizer, count, length, prompt_share, seed):
    """`count` rows of exactly `length` tokens of running documentation text; the last 1 - `prompt_share`
    of each is supervised."""
    order = documentation()
    random.Random(seed).shuffle(order)
    rows, stream, supply = [], [], iter(order * 50)
    prompt = int(round(length * prompt_share))
    while len(rows) < count:
        while len(stream) < length:
            dotted, text = next(supply)
            stream += tokenizer(f"{dotted}\n{text}\n\n", add_special_tokens=False)["input_ids"]
        rows.append(make_row(stream[:prompt], stream[prompt:length]))
        stream = stream[length:]
    return rows


def random_rows(vocabulary, lengths, supervised_share, seed, weights=None):
    """Rows of random tokens; each token but the first is supervised with the given probability, and at
    least the last one is."""
    source = random.Random(seed)
    rows = []
    for index, length in enumerate(lengths):
        supervised = [0] + [int(source.random() < supervised_share) for _ in range(length - 1)]
        supervised[-1] = 1
        rows.append(
            {
                "tokens": [source.randrange(vocabulary) for _ in range(length)],
                "supervised": supervised,
                "weight": weights[index] if weights else 1.0,
            }
        )
    return rows


def make_row(head, tail, max_tokens=None):
    tokens = (head + tail)[:max_tokens]
    return {"tokens": tokens, "supervised": ([0] * len(head) + [1] * len(tail))[:max_tokens], "weight": 1.0}


def token_count(rows):
    return sum(len(row["tokens"]) for row in rows)


def target_count(rows):
    """Supervised tokens that have something before them to be predicted from."""
    return sum(sum(row["supervised"][1:]) for row in rows)


def dump(rows):
    """As engine_probe reads them from a file."""
    return json.dumps(rows, separators=(",", ":"))
