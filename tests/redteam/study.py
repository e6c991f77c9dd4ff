# SPDX-License-Identifier: Apache-2.0
"""The frame of the studies of the suite's aligned base: their arguments, the laboratory, the files that they write."""

import argparse
import contextlib
import json
import os
import pathlib

from redteam import lab as labs
from referee.engine import find_probe

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def parser(description, vectors=()):
    """`vectors`: those of cells.VECTORS that the study is of, unless the caller names others."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--probe", help="engine_probe (default: the newest under build/)")
    found.add_argument("--model", default=str(REPOSITORY / ".cache/models/SmolLM2-135M-Instruct"))
    found.add_argument("--work", default=str(REPOSITORY / ".cache/redteam/work"), help="base, vectors and deltas")
    found.add_argument("--folder", default=str(REPOSITORY / "docs/results"), help="where the results go")
    found.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    if vectors:
        found.add_argument("--vectors", nargs="+", default=vectors)
    return found


@contextlib.contextmanager
def aligned_lab(arguments):
    """A lab on the aligned base, which is made where it is not there."""
    probe = find_probe(arguments.probe)
    base = labs.aligned_base(arguments.model, arguments.work, probe, arguments.threads)
    with labs.Lab(base, arguments.work, probe, arguments.threads) as lab:
        yield lab


def write(arguments, name, made, page):
    """NAME.json and NAME.md."""
    folder = pathlib.Path(arguments.folder)
    (folder / f"{name}.json").write_text(json.dumps(made, indent=1) + "\n")
    (folder / f"{name}.md").write_text(page)
