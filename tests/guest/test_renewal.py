"""Forks do not have the same randomness, also where each is a process of the same number, in its own namespace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.guest.drawn_values import CODE, put_modules, same
from tests.guest.started_template import Start

pytestmark = pytest.mark.long

SOURCE = Path(__file__).resolve().parent.parent.parent / "src"
PROGRAM = """
import ctypes, json, os, sys
sys.path[:0] = sys.argv[2:]
from squall.guest import libc
NEW_PIDS, NEW_USERS = 0x20000000, 0x10000000
unshare = ctypes.PyDLL(None, use_errno=True).unshare

def enter_new(flags):
    if unshare(flags):
        print(os.strerror(ctypes.get_errno()))
        os._exit(77)

enter_new(NEW_PIDS | (NEW_USERS if os.geteuid() else 0))
if child := os.fork():
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

# Number 1 from here on, and so are its forks in their namespaces.
from squall.guest.renewal import Renewals
renewals = Renewals()
import user_code
if sys.argv[1] == "renewed":
    renewals.find()
elif sys.argv[1] != "as they are":
    before = set(sys.modules)
    import ssl
    renewals.find(set(sys.modules) - before, has_user_code=sys.argv[1] == "of a function")

for _ in range(2):
    pid = libc.fork()
    if not pid:
        enter_new(NEW_PIDS)
        renewals.run_in_child()
        if child := os.fork():
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        renewals.check()
        print(json.dumps(user_code.values()), flush=True)
        os._exit(0)
    if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        os._exit(code)
os._exit(0)
"""
LIBRARY = """
import ctypes, os
crypto = ctypes.CDLL("libcrypto.so.3")
def draw():
    drawn = ctypes.create_string_buffer(16)
    crypto.RAND_bytes(drawn, 16)
    return drawn.raw.hex()
draw()
def values():
    return {"pid": os.getpid(), "drawn": draw()}
"""
OF_THE_KERNEL = {"uuid4", "secrets", "ids"}
OF_PYTHON = {"random"}
"""Python's own hook sees to it."""
RENEWED = {
    "numpy",
    "torch",
    "ssl",
    "an OpenSSL of its own",
    "cryptography",
    "uuid1",
    "tempfile",
    "multiprocessing",
    "semaphores",
}


@pytest.fixture
def directory(data_dir: Path) -> Path:
    """With the module that draws, and what it needs."""
    put_modules(data_dir)
    return data_dir


def forks_of_one_number(directory: Path, how: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What two forks with the same process number draw."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how, str(SOURCE), str(directory)], capture_output=True, text=True, timeout=60
    )
    if done.returncode == 77:
        pytest.skip(f"no namespaces of processes can be made here: {done.stdout.strip()}")
    assert done.returncode == 0, done.stderr
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first.pop("pid"), second.pop("pid")) == (1, 1)
    return first, second


def test_forks_of_one_number_draw_other_values_when_these_are_renewed(directory: Path) -> None:
    first, second = forks_of_one_number(directory, "renewed")

    assert set(first) == OF_THE_KERNEL | OF_PYTHON | RENEWED
    assert same(first, second) == set()


def test_forks_of_one_number_draw_the_same_values_otherwise(directory: Path) -> None:
    first, second = forks_of_one_number(directory, "as they are")

    # What proves the test above: nobody but us sees to these.
    assert same(first, second) == RENEWED


@pytest.mark.parametrize(("how", "is_same"), [("of a function", False), ("of an image", True)])
def test_a_library_that_has_drawn_from_the_openssl_of_python_has_other_values_in_each_fork(
    data_dir: Path, how: str, is_same: bool
) -> None:
    """Below Python's `ssl`, which the guest itself loads for asynchronous functions. Of an image nobody has drawn."""
    (data_dir / "user_code.py").write_text(LIBRARY)

    first, second = forks_of_one_number(data_dir, how)

    assert (first == second) is is_same


def test_forks_of_a_template_draw_values_of_their_own(start: Start) -> None:
    one = start(CODE)
    one.ready("values")
    drawn = []

    for number in range(2):
        fork = one.fork(f"ct-{number}")
        drawn.append(one.call())
        one.stop(fork)

    assert same(*drawn) == set()


def test_modules_that_are_not_loaded_stay_so(start: Start) -> None:
    names = ["numpy", "ssl", "uuid", "tempfile", "random", "multiprocessing.process"]
    one = start(f"import sys\ndef loaded():\n    return [name for name in {names} if name in sys.modules]\n")
    one.ready("loaded")
    one.fork()

    assert one.call() == []
