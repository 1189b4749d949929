"""The runner of synchronous functions that run several inputs at once: what threads share, and how they end."""

from __future__ import annotations

import functools
import pickle
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from squall.protocol.call import (
    CANCELLED,
    FAILED,
    GENERATOR_WINDOW,
    SUCCEEDED,
    InputBatch,
    InputRefs,
    ItemBatch,
    OutputBatch,
    cut,
    decode_failure,
)
from squall.protocol.guest import GuestStop, Ready
from tests.guest.started_guest import CALL, Process, start_process, ways

pytestmark = pytest.mark.long

CODE = """
import os, sys, threading, time
import squall
from squall.exception import InputCancellation

meeting = threading.Barrier(3, timeout=5)
seen = threading.local()

def meet(x):
    print("before", x)
    meeting.wait()
    print("after", x)
    return squall.current_input_id(), squall.current_function_call_id(), threading.current_thread().name

def sleep(x):
    print("asleep")
    time.sleep(x)
    return x

def fail(x):
    if x:
        raise LookupError(x)
    return "fine"

def leaves(x):
    sys.exit(x)

def items(n):
    try:
        for number in range(n):
            yield number
            time.sleep(0.01)
    except InputCancellation:
        print("told to stop")
        raise

def many(n):
    yield from range(n)

def partial(x):
    print("unfinished", x, end="")
    return x

def threads(x):
    time.sleep(0.05)
    return threading.active_count()

def forks(how):
    stop = threading.Event()
    def chatter():
        while not stop.is_set():
            sys.stdout.write("chatter" * 100 + "\\n")  # in one: a child would write what is left of a line
    writer = threading.Thread(target=chatter)
    writer.start()
    codes = []
    try:
        for _ in range(20):
            child = os.fork()
            if not child:
                if how == "raises":
                    raise ValueError("child")
                return "child"
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        return codes
    finally:
        stop.set()

def exhausts(x):
    import resource
    if x == 0:
        threading.Thread.start = refuse
    return x

def refuse(thread):
    raise RuntimeError("can't start new thread")
"""


@pytest.fixture(params=ways())
def guest(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Process]:
    """A guest that waits for its Boot."""
    process = Process(data_dir, functools.partial(start_process, way=request.param), {"thread_code.py": CODE})
    yield process
    process.close()


def boot(guest: Process, name: str, max_inputs: int, *, is_generator: bool = False) -> None:
    guest.boot(name, module="thread_code", max_inputs=max_inputs, is_generator=is_generator)
    guest.agent.expect("Ready", Ready)


def outputs(guest: Process, count: int, timeout_s: float = 10.0) -> dict[int, tuple[int, Any]]:
    """Status and value of so many inputs, by index."""
    found: dict[int, tuple[int, Any]] = {}
    while len(found) < count:
        record, body = guest.agent.expect("Outputs", OutputBatch, timeout_s)
        for index, status, value in zip(record.indexes, record.statuses, cut(body, record.sizes), strict=True):
            found[index] = status, pickle.loads(value) if status == SUCCEEDED else decode_failure(value)[0]
    return found


def stop(guest: Process) -> tuple[int, str]:
    guest.agent.say("GuestStop", GuestStop(5.0))
    return guest.end()


def test_inputs_run_at_once_each_with_its_own_id_and_lines(guest: Process) -> None:
    boot(guest, "meet", 3)
    for index in range(3):
        guest.give(index, index)

    found = outputs(guest, 3)
    code, printed = stop(guest)

    assert {index: value[0] for index, (_, value) in found.items()} == {
        index: f"in-{CALL[3:]}:{index}" for index in range(3)
    }
    assert {value[1] for _, value in found.values()} == {CALL}
    assert len({value[2] for _, value in found.values()}) == 3
    for index in range(3):
        assert f"in-{CALL[3:]}:{index}\x1fbefore {index}\n" in printed
        assert f"in-{CALL[3:]}:{index}\x1fafter {index}\n" in printed
    assert code == 0


def test_no_more_run_than_were_asked_for(guest: Process) -> None:
    boot(guest, "sleep", 2)
    for index in range(3):
        guest.give(index, 0.4)
    guest.let_it_begin()

    guest.agent.say("TakeBack", InputRefs(CALL, (0, 1, 2)))

    refs, _ = guest.agent.expect("GivenBack", InputRefs)
    assert refs.indexes == (2,)
    assert set(outputs(guest, 2)) == {0, 1}


def test_thread_is_used_again(guest: Process) -> None:
    boot(guest, "threads", 8)
    for index in range(10):
        guest.give(index, index)
        # Main thread, the watcher and one more, however many inputs there were.
        assert outputs(guest, 1)[index] == (SUCCEEDED, 3)


def test_exception_is_the_output_of_its_input_alone(guest: Process) -> None:
    boot(guest, "fail", 3)
    for index, x in enumerate([0, 1, 0]):
        guest.give(index, x)

    found = outputs(guest, 3)

    assert [found[index][0] for index in range(3)] == [SUCCEEDED, FAILED, SUCCEEDED]
    assert found[1][1].type_name == "LookupError"


def test_exit_in_a_thread_is_a_failed_input(guest: Process) -> None:
    boot(guest, "leaves", 2)
    guest.give(0, 3)

    assert outputs(guest, 1)[0][1].type_name == "SystemExit"

    guest.give(1, 3)
    assert outputs(guest, 1)[1][0] == FAILED


def test_unfinished_lines_leave_with_their_input(guest: Process) -> None:
    boot(guest, "partial", 2)
    guest.give(0, 5)
    outputs(guest, 1)

    _, printed = stop(guest)

    assert f"in-{CALL[3:]}:0\x1funfinished 5\n" in printed


def test_cancelled_input_runs_on_and_is_answered_as_cancelled(guest: Process) -> None:
    boot(guest, "sleep", 2)
    guest.give(0, 0.8)
    guest.give(1, 0.8)
    guest.let_it_begin()

    guest.agent.say("CancelInputs", InputRefs(CALL, (0,)))

    found = outputs(guest, 2)
    assert found[0][0] == CANCELLED
    assert found[1] == (SUCCEEDED, 0.8)
    # A new attempt of it is another matter.
    guest.give(0, 0, attempt=1)
    assert outputs(guest, 1)[0] == (SUCCEEDED, 0)


def test_input_that_has_not_begun_is_given_back_when_cancelled(guest: Process) -> None:
    boot(guest, "sleep", 2)
    for index in range(3):
        guest.give(index, 0.5)
    guest.let_it_begin()

    guest.agent.say("CancelInputs", InputRefs(CALL, (2,)))

    refs, _ = guest.agent.expect("GivenBack", InputRefs)
    assert refs.indexes == (2,)
    assert set(outputs(guest, 2)) == {0, 1}


def test_generators_run_at_once(guest: Process) -> None:
    boot(guest, "items", 2, is_generator=True)
    guest.give(0, 5)
    guest.give(1, 5)

    found: dict[int, list[int]] = {0: [], 1: []}
    ended = 0
    while ended < 2:
        envelope, body = guest.agent.events.get(timeout=10)
        if envelope.method == "Items":
            record = guest.agent.codec.record(ItemBatch, envelope.params)
            found[record.index] += [pickle.loads(value) for value in cut(body, record.sizes)]
        ended += len(envelope.params["indexes"]) if envelope.method == "Outputs" else 0

    assert found == {0: [0, 1, 2, 3, 4], 1: [0, 1, 2, 3, 4]}


def test_cancelled_generator_ends_where_it_yields_and_others_go_on(guest: Process) -> None:
    boot(guest, "items", 2, is_generator=True)
    guest.give(0, 10_000)
    guest.give(1, 100)
    guest.agent.expect("Items", ItemBatch)

    guest.agent.say("CancelInputs", InputRefs(CALL, (0,)))

    first, _ = guest.agent.expect("Outputs", OutputBatch)
    second, _ = guest.agent.expect("Outputs", OutputBatch)
    _, printed = stop(guest)
    assert (first.indexes, first.statuses) == ((0,), (CANCELLED,))
    assert (second.indexes, second.statuses) == ((1,), (SUCCEEDED,))
    assert printed.count("told to stop") == 1


def test_cancelled_generator_does_not_wait_for_its_consumer(guest: Process) -> None:
    boot(guest, "many", 2, is_generator=True)
    guest.give(0, 2 * GENERATOR_WINDOW)
    guest.let_it_begin()

    guest.agent.say("CancelInputs", InputRefs(CALL, (0,)))

    record, _ = guest.agent.expect("Outputs", OutputBatch)
    assert record.statuses == (CANCELLED,)


@pytest.mark.parametrize(("how", "code"), [("returns", 0), ("raises", 1)])
def test_child_forked_in_a_thread_ends_alone(guest: Process, how: str, code: int) -> None:
    boot(guest, "forks", 2)
    guest.give(0, how)

    assert outputs(guest, 1, timeout_s=30)[0] == (SUCCEEDED, [code] * 20)


def test_guest_that_is_told_to_stop_finishes_what_runs(guest: Process) -> None:
    boot(guest, "sleep", 2)
    for index in range(3):
        guest.give(index, 0.5)
    guest.let_it_begin()

    guest.agent.say("GuestStop", GuestStop(5.0))

    refs, _ = guest.agent.expect("GivenBack", InputRefs)
    found = outputs(guest, 2)
    assert refs.indexes == (2,)
    assert found == {0: (SUCCEEDED, 0.5), 1: (SUCCEEDED, 0.5)}
    assert guest.end()[0] == 0


def test_terminated_guest_ends_at_once_without_a_word_of_what_ran(guest: Process) -> None:
    boot(guest, "sleep", 2)
    guest.give(0, 60)
    guest.let_it_begin()

    asked_at = time.monotonic()
    guest.terminate()
    code, printed = guest.end()

    assert code == 0
    assert time.monotonic() - asked_at < 3
    assert "Traceback" not in printed
    methods = [guest.agent.events.get_nowait()[0].method for _ in range(guest.agent.events.qsize())]
    assert "Outputs" not in methods


def test_terminated_guest_ends_while_it_waits_for_work(guest: Process) -> None:
    boot(guest, "sleep", 2)
    time.sleep(0.2)

    guest.terminate()

    assert guest.end()[0] == 0


def test_guest_that_cannot_start_threads_goes_on_with_those_it_has(guest: Process) -> None:
    boot(guest, "exhausts", 4)
    guest.give(0, 0)
    assert outputs(guest, 1)[0] == (SUCCEEDED, 0)

    values = [pickle.dumps(((index,), {}), 4) for index in range(1, 9)]
    batch = InputBatch(CALL, tuple(range(1, 9)), tuple(map(len, values)), (0,) * 8)
    guest.agent.say("Inputs", batch, b"".join(values))

    assert outputs(guest, 8) == {index: (SUCCEEDED, index) for index in range(1, 9)}
