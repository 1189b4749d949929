"""One job in several processes. Each test has a program for it: forks are for programs of one thread."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from squall.erofs.writer import pack
from tests.erofs.trees import content, make_everything

WITH_THREE = """
import os, sys
from pathlib import Path
from squall.erofs import pack, writer
writer._SHARE_COST_MIN = 100_000
pack._PROCESSES_MAX = 3
os.cpu_count = lambda: 8
"""
RUN_PARTS = """
import os, signal, sys, time
from squall.erofs.errors import BadImage, PackError
from squall.erofs.processes import run_parts

def part(*steps):
    for step in steps:
        step()
        yield
"""


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def make_large(tree: Path) -> None:
    make_everything(tree)
    for number in range(6):
        (tree / f"large-{number}").write_bytes(content(300_000 + number))


def test_an_image_is_the_same_whoever_writes_it(tmp_path: Path) -> None:
    make_large(tmp_path / "tree")
    pack(str(tmp_path / "tree"), tmp_path / "one")
    count_forks = "forks = []; fork = os.fork\nos.fork = lambda: forks.append(1) or fork()\n"
    program = f"{WITH_THREE}{count_forks}code = pack.main(sys.argv[1:])\nprint(code, len(forks))"

    ended = run(program, tmp_path / "tree", tmp_path / "three")

    assert ended.stdout == "0 2\n", ended
    assert (tmp_path / "three").read_bytes() == (tmp_path / "one").read_bytes()


@pytest.mark.parametrize("name", ["file-1", "large-5"])
def test_a_file_that_changes_is_named_whoever_reads_it(tmp_path: Path, name: str) -> None:
    make_large(tmp_path / "tree")
    change = (
        "place = writer.place\n"
        "def place_and_change(root):\n"
        "    found = place(root)\n"
        "    os.truncate(os.path.join(sys.argv[1], sys.argv[3]), 0)\n"
        "    return found\n"
        "writer.place = place_and_change\n"
    )

    ended = run(f"{WITH_THREE}{change}sys.exit(pack.main(sys.argv[1:3]))", tmp_path / "tree", tmp_path / "image", name)

    assert ended.returncode == 1
    assert f"/{name}: it changed while it was read" in ended.stderr


@pytest.mark.parametrize(
    ("step", "raised"),
    [
        ("raise_(PackError('no é'))", "PackError: no é"),
        ("os.open('/nowhere/file', 0)", "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/file'"),
        ("raise_(BadImage('damaged'))", "BadImage: damaged"),
        ("raise_(OSError('odd'))", "OSError: [Errno 5] odd"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "ChildProcessError: a process of it ended with signal 9"),
        ("raise_(ValueError())", "ChildProcessError: a process of it ended with status 1"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_what_fails_in_a_fork_fails_here_and_nothing_goes_on(step: str, raised: str, is_first: bool) -> None:
    failing, other = f"part(lambda: {step})", "part(lambda: time.sleep(0.1), lambda: None)"
    forks = f"{failing}, {other}" if is_first else f"{other}, {failing}"
    program = f"""{RUN_PARTS}
def raise_(error):
    raise error
try:
    run_parts([part(lambda: None), {forks}])
except (PackError, BadImage, OSError) as error:
    print(f"{{type(error).__name__}}: {{error}}")
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no child is left")
"""

    ended = run(program)

    assert ended.stdout.splitlines() == [raised, "no child is left"], ended
    assert ("ValueError" in ended.stderr) == ("ValueError" in step)


def test_forks_are_stopped_when_the_first_part_fails() -> None:
    program = f"""{RUN_PARTS}
def fail():
    raise PackError("here")
try:
    run_parts([part(fail), part(lambda: time.sleep(600))])
except PackError as error:
    print(error)
"""

    ended = run(program)

    assert ended.stdout == "here\n", ended


def test_a_fork_ends_when_its_parent_is_killed() -> None:
    program = f"""{RUN_PARTS}
def endless():
    print(os.getpid(), flush=True)
    while True:
        time.sleep(0.01)
        yield
run_parts([part(lambda: time.sleep(50)), endless()])
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        fork = int(parent.stdout.readline())
        parent.kill()

    wait_until(lambda: is_gone(fork))


def is_gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
