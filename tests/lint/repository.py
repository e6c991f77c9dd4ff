# SPDX-License-Identifier: Apache-2.0
"""The repository as the lint tests see it: the files that git tracks or would track."""

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def tracked_files():
    """Relative paths (posix strings) of all tracked files and of new ones that git does not ignore."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout
    return sorted(path for path in set(listing.split("\0")) if path and (ROOT / path).is_file())


def with_suffix(*suffixes):
    return [path for path in tracked_files() if path.endswith(suffixes)]


def read(path):
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")


def is_script(path):
    """Whether a file without a suffix starts with a shebang."""
    name = path.rsplit("/", 1)[-1]
    return "." not in name.lstrip(".") and read(path).startswith("#!")


def shell_scripts():
    """Everything that shellcheck should see."""
    return [
        path for path in tracked_files()
        if path.endswith(".sh") or (is_script(path) and "sh" in read(path).split("\n", 1)[0].rsplit("/", 1)[-1])
    ]
