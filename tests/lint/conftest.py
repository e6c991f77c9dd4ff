# SPDX-License-Identifier: Apache-2.0
"""Options of scripts/lint."""

import pathlib

import pytest
import repository


def pytest_addoption(parser):
    parser.addoption("--tidy", choices=("changed", "all", "none"), default="changed", help="what clang-tidy looks at")
    parser.addoption("--build", default="build/dev", help="build folder with compile_commands.json")


@pytest.fixture
def build(request):
    folder = pathlib.Path(repository.ROOT, request.config.getoption("--build"))
    if not (folder / "compile_commands.json").is_file():
        pytest.fail(
            f"{folder} is not configured, so clang-tidy has no flags to work with: build it with "
            "'cmake --preset dev && cmake --build --preset dev', or run scripts/lint --no-tidy"
        )
    return folder
