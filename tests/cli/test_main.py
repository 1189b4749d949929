"""How the command ends."""

from __future__ import annotations

import os
import subprocess
import sys


def test_a_reader_that_has_enough_is_no_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", "from squall.cli.main import main; main()", "completion", "bash"],
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)

    assert (ended.returncode, ended.stderr) == (0, b"")


def test_closed_output_is_no_failure() -> None:
    command = f"{sys.executable} -c 'from squall.cli.main import main; main()' completion bash >&-"

    ended = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, timeout=30, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")
