"""Programs and children of user code in a guest: they take signals as anywhere, and none of them is a second guest.

tests/kernel/test_guest.py runs all this again in containers.
"""

from __future__ import annotations

import functools
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.protocol.call import SUCCEEDED, ItemBatch, cut
from tests.guest.started_guest import Process, start_process, ways

pytestmark = pytest.mark.long

CODE = """
import signal, time

def forks():
    import os, sys
    child = os.fork()
    if not child:
        sys.exit(0)
    os.waitpid(child, 0)
    return "parent"

def signals_program():
    import os, subprocess
    os.kill(os.getpid(), signal.SIGINT)
    with subprocess.Popen(["sleep", "30"]) as program:
        program.send_signal(signal.SIGINT)
        return program.wait()

def signals_children():
    import os
    said = []
    for number in (signal.SIGINT, signal.SIGTERM):
        ours, theirs = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(theirs, b"x")
                # In short turns: a signal that comes just before a sleep begins does not end it.
                for _ in range(3_000):
                    time.sleep(0.01)
            except KeyboardInterrupt:
                os._exit(7)
            finally:
                os._exit(1)
        os.read(ours, 1)
        os.kill(child, number)
        said.append(os.waitpid(child, 0)[1])
    return said

def ends_children(count):
    import os
    said = []
    for _ in range(count):
        child = os.fork()
        if not child:
            time.sleep(0.2)
            os._exit(1)
        os.kill(child, signal.SIGTERM)
        said.append(os.waitpid(child, 0)[1])
    return said

def forks_on():
    import os
    try:
        print("forking")
        while True:
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
    finally:
        print("cleaned up")

def ended_while_it_forks():
    import os
    change = signal.pthread_sigmask
    def change_late(how, numbers):
        if numbers and how == signal.SIG_BLOCK:
            signal.raise_signal(signal.SIGTERM)
        return change(how, numbers)
    signal.pthread_sigmask = change_late
    child = os.fork()
    if not child:
        os._exit(0)
    signal.pthread_sigmask = change
    try:
        os.waitpid(child, 0)
        time.sleep(10)
        print("slept")
    finally:
        print("cleaned up with", change(signal.SIG_BLOCK, ()))

def ended_again_while_it_begins_to_fork():
    import itertools, operator, os, threading
    from squall.sdk import _fork_guard
    class Late(threading.Timer):
        def start(self):
            _fork_guard.Timer = threading.Timer
            super().start()
            time.sleep(0.2)  # what it sends comes meanwhile
    # No frame of its own: the signal comes as the guard's hook is called, and has done nothing yet.
    ident = threading.get_ident()
    first = map(operator.itemgetter(1), zip(map(signal.raise_signal, [signal.SIGTERM]), [ident]))
    _fork_guard.Timer, _fork_guard.get_ident = Late, itertools.chain(first, itertools.repeat(ident)).__next__
    try:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(10)
        print("slept")
    finally:
        print("cleaned up")

def ended_in_hook(*hooks):
    # Registered after the guest's, as those of `logging` are, so that its own run inside of them.
    import os
    def once():
        if hooks:
            hooks.clear()
            signal.raise_signal(signal.SIGTERM)
            list(range(10))
    hooks = list(hooks)
    os.register_at_fork(**{hooks[0]: once})
    try:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(10)
        os._exit(3)
    finally:
        print("cleaned up")

def ended_again_in_hook():
    import threading
    timer = threading.Timer
    class Late(timer):
        def start(self):
            threading.Timer = timer
            super().start()
            time.sleep(0.2)  # what it sends comes meanwhile
    threading.Timer = Late
    ended_in_hook("after_in_parent")

def own_handler():
    import os
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(9))
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        os._exit(1)
    return os.waitpid(child, 0)[1]

def items_of_two(how):
    import os
    yield "first"
    yield "second"
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        yield "parent's"
    elif how == "raises":
        raise ValueError("child")
    elif how == "yields":
        yield "child's"
"""


@pytest.fixture(params=ways())
def guest(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Process]:
    """A guest that waits for its Boot."""
    process = Process(data_dir, functools.partial(start_process, way=request.param), {"forking_code.py": CODE})
    yield process
    process.close()


def test_programs_of_user_code_take_sigint_and_the_guest_disregards_it(guest: Process) -> None:
    guest.boot("signals_program", module="forking_code")
    guest.give(0)

    status, value = guest.output()

    assert (status, pickle.loads(value)) == (SUCCEEDED, -signal.SIGINT)


def test_forked_children_take_signals_as_anywhere(guest: Process) -> None:
    guest.boot("signals_children", module="forking_code")
    guest.give(0)

    status, value = guest.output()

    assert (status, pickle.loads(value)) == (SUCCEEDED, [7 << 8, signal.SIGTERM])


def test_forked_children_that_are_ended_at_once_are_ended(guest: Process) -> None:
    guest.boot("ends_children", module="forking_code")
    guest.give(0, 20)

    status, value = guest.output()

    assert (status, pickle.loads(value)) == (SUCCEEDED, [signal.SIGTERM] * 20)


def test_children_that_a_thread_forks_are_ended_at_once(guest: Process) -> None:
    guest.boot("ends_children", module="forking_code", max_inputs=2)
    guest.give(0, 20)

    status, value = guest.output()

    assert (status, pickle.loads(value)) == (SUCCEEDED, [signal.SIGTERM] * 20)


def test_forked_child_keeps_a_handler_of_user_code(guest: Process) -> None:
    guest.boot("own_handler", module="forking_code")
    guest.give(0)

    status, value = guest.output()

    assert (status, pickle.loads(value)) == (SUCCEEDED, 9 << 8)


def test_user_code_that_forks_all_the_time_is_interrupted_when_the_guest_ends(guest: Process) -> None:
    guest.boot("forks_on", module="forking_code")
    guest.give(0)
    guest.wait_for_line("forking")

    guest.terminate()

    code, printed = guest.end()
    assert code == 0
    assert "cleaned up" in printed


def test_request_to_end_that_comes_as_user_code_begins_to_fork_is_heard(guest: Process) -> None:
    guest.boot("ended_while_it_forks", module="forking_code")
    guest.give(0)

    code, printed = guest.end()

    assert code == 0
    assert "cleaned up with set()" in printed
    assert "slept" not in printed


def test_request_to_end_that_comes_again_as_user_code_begins_to_fork_is_heard(guest: Process) -> None:
    guest.boot("ended_again_while_it_begins_to_fork", module="forking_code")
    guest.give(0)

    code, printed = guest.end()

    assert code == 0
    assert "cleaned up" in printed
    assert "slept" not in printed


@pytest.mark.parametrize("hook", ["before", "after_in_parent"])
def test_request_to_end_that_comes_in_a_hook_of_user_code_is_heard(guest: Process, hook: str) -> None:
    guest.boot("ended_in_hook", module="forking_code")
    guest.give(0, hook)

    code, printed = guest.end()

    assert (code, "cleaned up" in printed) == (0, True)


def test_request_to_end_that_comes_again_in_a_hook_of_user_code_is_heard(guest: Process) -> None:
    guest.boot("ended_again_in_hook", module="forking_code")
    guest.give(0)

    code, printed = guest.end()

    assert (code, "cleaned up" in printed) == (0, True)


def test_child_forked_by_user_code_is_no_second_guest(guest: Process) -> None:
    guest.boot("forks", module="forking_code")
    guest.give(0)

    status, value = guest.output()

    assert (status, pickle.loads(value)) == (SUCCEEDED, "parent")


@pytest.mark.parametrize("how", ["yields", "returns", "raises"])
def test_child_forked_by_a_generator_sends_nothing(guest: Process, how: str) -> None:
    guest.boot("items_of_two", module="forking_code", is_generator=True)
    guest.give(0, how)

    items: list[str] = []
    while True:
        envelope, body = guest.agent.events.get(timeout=10)
        if envelope.method == "Items":
            for value in cut(body, guest.agent.codec.record(ItemBatch, envelope.params).sizes):
                items.append(pickle.loads(value))
        elif envelope.method == "Outputs":
            break

    assert items == ["first", "second", "parent's"]
    assert body == b"3"
