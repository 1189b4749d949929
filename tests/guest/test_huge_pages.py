"""What a template's memory is put into; by a process of its own, which goes away with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from squall.guest.huge_pages import PAGE_BYTES, SLICE_BYTES, collapse
data = bytearray(b"x") * (4 * SLICE_BYTES)
def huge_kib():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))
before = huge_kib()
steps = sum(1 for _ in collapse())
print(steps, before, huge_kib(), data == b"x" * len(data))
"""


def _can_collapse() -> bool:
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    enabled = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return release >= (6, 1) and enabled.exists()


@pytest.mark.skipif(not _can_collapse(), reason="needs Linux 6.1 with transparent huge pages")
def test_memory_is_in_huge_pages_afterwards_and_what_it_was() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)

    steps, before, after, is_same = ended.stdout.split()
    assert int(steps) >= 4
    assert int(after) - int(before) >= 32 * 1024
    assert is_same == "True"
