"""How the command ends."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

COMMANDS = pytest.mark.parametrize("arguments", ["completion bash", "--help", "--version", "app --help"])


@COMMANDS
def test_a_reader_that_has_enough_is_no_failure(arguments: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", "from squall.cli.main import main; main()", *arguments.split()],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)

    assert (ended.returncode, ended.stderr) == (0, b"")


@COMMANDS
def test_full_output_is_a_failure_in_one_line(arguments: str) -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-c", "from squall.cli.main import main; main()", *arguments.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )

    assert (ended.returncode, ended.stderr) == (1, b"Error: cannot write the output: No space left on device\n")


def test_closed_output_is_no_failure() -> None:
    command = f"{sys.executable} -c 'from squall.cli.main import main; main()' completion bash >&-"

    ended = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, timeout=30, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")
