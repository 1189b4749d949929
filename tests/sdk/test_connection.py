"""Who reads the connection, and what an exception at any point of it leaves behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import squall
from squall.sdk import _connection, _turn
from squall.sdk._connection import FOLLOW_S, Connection
from squall.sdk._pending import Pending
from tests.sdk.double import ServerDouble
from tests.tree import ROOT

pytestmark = pytest.mark.long

app = squall.App("connection", include_source=False)


@app.function()
def square(x: int) -> int:
    return x * x


def slow(pause_s: float, x: int) -> int:
    time.sleep(pause_s)
    return x * x


def run_interrupted(line_number: int, action: Callable[[], object]) -> bool:
    """Raise KeyboardInterrupt at that line of the reading of a connection; whether the action got so far."""
    files = (_connection.__file__, _turn.__file__)
    left = line_number
    is_reached = False

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left, is_reached
        # Where a lock is held by `with`, a line is no point at which Ctrl-C comes.
        if frame.f_code.co_filename not in files or frame.f_code.co_name == "lose":
            return None
        if event == "line":
            left -= 1
            if left < 0:
                is_reached = True
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return is_reached


class Beside:
    """A call made by another thread meanwhile."""

    def __init__(self) -> None:
        self.result: int | None = None
        self._thread = threading.Thread(target=self._call, daemon=True)
        self._thread.start()

    def _call(self) -> None:
        self.result = square.remote(7)

    def wait(self) -> int | None:
        self._thread.join(20.0)
        return self.result


def test_an_exception_at_any_line_of_reading_leaves_nobody_waiting(server: ServerDouble) -> None:
    server.callables["square"] = lambda x: slow(0.005, x)
    line_number = 0

    with app.run():
        square.remote(1)
        while True:
            beside = Beside()
            is_interrupted = run_interrupted(line_number, lambda: square.remote(2))

            started = time.monotonic()
            assert square.remote(3) == 9
            assert beside.wait() == 49
            assert time.monotonic() - started < 2 * FOLLOW_S + 2.0, f"line event {line_number}"
            if not is_interrupted:
                break
            line_number += 1

    assert line_number > 20
    # An exception raised in a handler leaves it as the one being handled, for every test after this one.
    assert sys.exc_info() == (None, None, None)


def test_a_signal_handler_may_call_while_its_thread_waits(server: ServerDouble) -> None:
    server.callables["square"] = lambda x: slow(0.5 if x == 2 else 0.0, x)
    found: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: found.append(square.remote(3)))
    try:
        with app.run():
            square.remote(1)
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()

            assert square.remote(2) == 4
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert found == [9]


PROGRAM = """
import faulthandler, random, signal, sys, threading, time
from tests.sdk.test_connection import square, app
from tests.sdk.double import ServerDouble

def interrupt(number, frame):
    raise KeyboardInterrupt

path, seed = sys.argv[1:]
rng = random.Random(int(seed))
faulthandler.dump_traceback_later(25, exit=True)
signal.signal(signal.SIGALRM, interrupt)
is_ended = False

def keep_calling():
    while not is_ended:
        assert square.remote(6) == 36
        time.sleep(0.002)

interrupted = 0
with ServerDouble(path), app.run():
    square.remote(1)
    beside = threading.Thread(target=keep_calling)
    beside.start()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        try:
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 3e-3))
            for number in range(20):
                square.remote(number)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            interrupted += 1
        started = time.monotonic()
        assert square.remote(5) == 25
        assert time.monotonic() - started < 5, "slow"
    is_ended = True
    beside.join(10)
    assert not beside.is_alive()
print("interrupted", interrupted > 20)
"""


def test_ctrl_c_at_random_moments_never_blocks_the_next_call(data_dir: Path) -> None:
    environment = {**os.environ, "SQUALL_DATA_DIR": str(data_dir), "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    environment.pop("SQUALL_SERVER_URL", None)
    seed = random.randrange(1000)

    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(data_dir / "server.sock"), str(seed)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.stdout.strip() == "interrupted True", f"seed {seed}: {ran.stdout}{ran.stderr[-6000:]}"


def test_who_waits_to_read_can_be_nudged_from_the_moment_it_can_be_found() -> None:
    connection = Connection(lambda frames: None, lambda reason, is_unreadable: None, lambda: None)
    pending: Pending[None] = Pending(connection)
    connection._followers = _LeavingReader()
    started = time.monotonic()

    connection._follow(pending, None)

    assert time.monotonic() - started < FOLLOW_S / 2


class _LeavingReader(dict[Pending[Any], Pending[Any] | None]):
    """Who reads leaves at the moment a follower can be found, and wakes it."""

    def __setitem__(self, pending: Pending[Any], nothing: Pending[Any] | None) -> None:
        pending.nudge()


def test_who_is_never_nudged_reads_on_by_itself() -> None:
    connection = Connection(lambda frames: None, lambda reason, is_unreadable: None, lambda: None)
    started = time.monotonic()

    connection._follow(Pending(connection), None)

    assert FOLLOW_S / 2 < time.monotonic() - started < FOLLOW_S + 5.0


@pytest.mark.parametrize("is_needed_first", [True, False])
def test_need_given_up_twice_or_never_begun_is_no_need(is_needed_first: bool) -> None:
    connection = Connection(lambda frames: None, lambda reason, is_unreadable: None, lambda: None)
    who = object()
    if is_needed_first:
        connection.need(who)

    connection.unneed(who)
    connection.unneed(who)

    assert not connection.needs
