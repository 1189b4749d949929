"""Pages of files that a process has, and a fork of it; by processes of their own, which go away with what they map."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SIZE = 4 * 2**20
SCRIPT = """
import json, mmap, os, sys
from array import array
from squall.guest import file_pages

SIZE = int(sys.argv[2])
with open(sys.argv[1], "rb") as file:
    whole = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)

def size():
    return sum(file_pages.mapped()[1::2])

def in_fork(prepare):
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        prepare()
        os.write(theirs, str(size()).encode())
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    return int(os.read(ours, 20))

def unmap():
    whole.close()
    file_pages.map_again(array('Q', [0, 4096, 2**46, 2**30, *ranges]))

before = size()
for page in range(0, SIZE, 4096):
    whole[page]
there = size()
ranges = file_pages.mapped()
found = {
    "before": before, "there": there,
    "fork": in_fork(lambda: None),
    "given": in_fork(lambda: file_pages.map_again(ranges)),
    "unmapped": in_fork(unmap),
}
file_pages.PAGES_MAX = 16
found["bounded"] = size()
print(json.dumps(found))
"""


def _run(path: Path) -> dict[str, int]:
    path.write_bytes(b"x" * SIZE)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(SIZE)], capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, int] = json.loads(ended.stdout)
    return found


def test_fork_can_have_the_pages_that_its_template_has(tmp_path: Path) -> None:
    found = _run(tmp_path / "file")

    assert found["there"] >= found["before"] + SIZE
    assert found["fork"] <= found["there"] - SIZE / 2, (
        "this kernel leaves a fork these pages: there is nothing to be given"
    )
    assert found["given"] >= found["there"]


def test_what_is_mapped_no_more_is_left_alone(tmp_path: Path) -> None:
    found = _run(tmp_path / "file")

    assert found["unmapped"] <= found["there"] - SIZE / 2


def test_no_more_is_told_than_a_fork_is_given(tmp_path: Path) -> None:
    assert _run(tmp_path / "file")["bounded"] == 16 * 4096
