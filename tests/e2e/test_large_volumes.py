"""Volumes that containers write very much to: neither the memory is taken nor the disk that it looks like."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.installation import PROGRAMS, Ended, Installation

PROGRAM = str(PROGRAMS / "large_volumes.py")
COUNT = 100_000
SERVER_MIB_MAX = 1_000
"""Of memory, for a server with its agent; a tree of that many files is in it for a moment."""
DISK_MIB_MAX = 200


def run(squall: Installation, entrypoint: str, *arguments: str) -> Ended:
    ended = squall.command("run", f"{PROGRAM}::{entrypoint}", *arguments, timeout_s=800)
    assert ended.code == 0, str(ended)
    return ended


def most_memory_mib(squall: Installation) -> int:
    lines = Path(f"/proc/{squall.server_pid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024


def disk_mib(squall: Installation) -> int:
    taken = subprocess.run(["du", "-sm", str(squall.data_dir)], check=False, capture_output=True, text=True).stdout
    return int(taken.split()[0])


def test_names_that_are_no_text_are_committed_and_found(squall: Installation) -> None:
    said = run(squall, "names").out.splitlines()

    assert said == ["names True", "listed True", "read b'caf\\xe9'"]


@pytest.mark.timeout(300)
def test_a_file_of_20_gb_that_is_mostly_holes_takes_what_is_in_it(fresh_squall: Installation) -> None:
    assert run(fresh_squall, "names").code == 0
    before_mib = disk_mib(fresh_squall)

    said = run(fresh_squall, "sparse").out

    assert said == f"sparse {20 * 10**9} {[b'data'] * 3} {bytes(4)!r}\n"
    assert disk_mib(fresh_squall) - before_mib < DISK_MIB_MAX
    assert most_memory_mib(fresh_squall) < SERVER_MIB_MAX


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_100_000_files_are_committed_and_read_in_another_container(fresh_squall: Installation) -> None:
    said = run(fresh_squall, "many", "--count", str(COUNT)).out

    assert said == f"many {COUNT} {COUNT * (COUNT - 1) // 2}\n"
    assert most_memory_mib(fresh_squall) < SERVER_MIB_MAX
