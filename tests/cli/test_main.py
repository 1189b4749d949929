"""How the command ends."""

from __future__ import annotations

import os
import signal
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


FORKS = """
import os, signal, time
from squall.cli import main

def run(arguments):
    codes = set()
    for number in (signal.SIGTERM, signal.SIGHUP):
        for _ in range(5):
            child = os.fork()
            if not child:
                time.sleep(3)
                os._exit(0)
            os.kill(child, number)
            codes.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(codes, signal.pthread_sigmask(signal.SIG_BLOCK, ()), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)

main._run = run
main.main()
"""


def test_children_that_a_program_forks_end_by_signals_as_anywhere() -> None:
    ended = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + signal.SIGTERM, "{-15, -1} set()\n", "")


SENDS_AS_IT_FORKS = """
import os, signal, sys, time
from squall.cli import main

def send():
    # After ours of `main`: what was registered first is called last.
    if is_armed:
        os.kill(os.getpid(), int(sys.argv[1]))

is_armed = False
os.register_at_fork(before=send)

def run(arguments):
    global is_armed
    is_armed = True
    child = os.fork()
    is_armed = False
    if not child:
        time.sleep(0.1)
        os._exit(7)
    try:
        time.sleep(10)
    finally:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

main._run = run
main.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_as_a_program_forks_ends_the_command_and_not_the_child(number: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SENDS_AS_IT_FORKS, str(int(number))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (128 + number, "7\n", "")


SENDS_IN_A_FINALIZER = """
import os, sys, time
from squall.cli import main

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(0)

def run(arguments):
    Finalized()
    time.sleep(10)
    return 0

main._run = run
main.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_in_a_finalizer_ends_the_command_all_the_same(number: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SENDS_IN_A_FINALIZER, str(int(number))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (128 + number, "")
