"""Batches in the guest: lists in, one output per input out, whoever runs them."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from squall.protocol.call import CANCELLED, FAILED, SUCCEEDED, InputBatch, InputRefs, OutputBatch
from squall.protocol.guest import GuestStop, Ready
from tests.guest.started_guest import CALL, Process, start_process, ways
from tests.guest.test_thread_runner import outputs, stop

pytestmark = pytest.mark.long

OTHER = "fc-OTHER6789ABCDEFGHabcd"
CODE = """
import asyncio, sys, threading, time
import squall

def add(xs, ys):
    print("adding", xs, ys)
    return [x + y for x, y in zip(xs, ys)]

async def add_later(xs, ys):
    await asyncio.sleep(0.01)
    return add(xs, ys)

def named(xs, *, ys):
    return [f"{x}{y}" for x, y in zip(xs, ys)]

def ids(xs):
    return [squall.current_input_id()] * len(xs)

def fail(xs):
    raise LookupError(len(xs))

def too_few(xs):
    return xs[1:]

def no_list(xs):
    return tuple(xs)

def locks(xs):
    return [threading.Lock() if x else "fine" for x in xs]

def sleep(xs):
    try:
        time.sleep(max(xs))
    finally:
        print("woken")
    return xs

async def sleep_later(xs):
    try:
        await asyncio.sleep(max(xs))
    finally:
        print("woken")
    return xs

meeting = threading.Barrier(2, timeout=5)

def meet(xs):
    meeting.wait()
    return [len(xs)] * len(xs)
"""


@pytest.fixture(params=ways())
def guest(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Process]:
    """A guest that waits for its Boot."""
    process = Process(data_dir, functools.partial(start_process, way=request.param), {"batch_code.py": CODE})
    yield process
    process.close()


def boot(guest: Process, name: str, max_inputs: int = 1, *, is_async: bool = False) -> None:
    guest.boot(name, module="batch_code", max_inputs=max_inputs, is_async=is_async, is_batched=True)
    guest.agent.expect("Ready", Ready)


def give(guest: Process, calls: dict[str, list[tuple[Any, ...]]], number: int = 1, **kwargs: Any) -> None:
    """One batch, in which each call has inputs with these arguments."""
    size = sum(map(len, calls.values()))
    for call_id, inputs in calls.items():
        values = [pickle.dumps((args, kwargs), 4) for args in inputs]
        indexes = tuple(range(len(values)))
        record = InputBatch(
            call_id, indexes, tuple(map(len, values)), (0,) * len(values), batch=number, batch_size=size
        )
        guest.agent.say("Inputs", record, b"".join(values))


@pytest.mark.parametrize(
    ("name", "max_inputs", "is_async"), [("add", 1, False), ("add", 4, False), ("add_later", 1, True)]
)
def test_batch_is_run_as_lists_and_each_input_has_its_output(
    guest: Process, name: str, max_inputs: int, is_async: bool
) -> None:
    boot(guest, name, max_inputs, is_async=is_async)

    give(guest, {CALL: [(1, 10), (2, 20), (3, 30)]})

    assert outputs(guest, 3) == {0: (SUCCEEDED, 11), 1: (SUCCEEDED, 22), 2: (SUCCEEDED, 33)}
    _, printed = stop(guest)
    assert printed.count("adding [1, 2, 3] [10, 20, 30]") == 1


def test_batch_of_several_calls_is_run_when_it_is_whole(guest: Process) -> None:
    boot(guest, "add")

    give(guest, {CALL: [(1, 1), (2, 2)], OTHER: [(3, 3)]})

    found: dict[str, tuple[int, ...]] = {}
    while len(found) < 2:
        record, _ = guest.agent.expect("Outputs", OutputBatch)
        assert set(record.statuses) == {SUCCEEDED}
        found[record.call_id] = record.indexes
    assert found == {CALL: (0, 1), OTHER: (0,)}
    _, printed = stop(guest)
    assert printed.count("adding [1, 2, 3] [1, 2, 3]") == 1


def test_each_batch_is_a_call_of_its_own(guest: Process) -> None:
    boot(guest, "add")

    give(guest, {CALL: [(1, 1)]}, 1)
    give(guest, {OTHER: [(2, 2)]}, 2)

    outputs(guest, 1)
    outputs(guest, 1)
    _, printed = stop(guest)
    assert "adding [1] [1]\n" in printed
    assert "adding [2] [2]\n" in printed


def test_arguments_may_be_given_by_name(guest: Process) -> None:
    boot(guest, "named")

    give(guest, {CALL: [("a",), ("b",)]}, ys="!")

    assert outputs(guest, 2) == {0: (SUCCEEDED, "a!"), 1: (SUCCEEDED, "b!")}


def test_batch_goes_by_the_id_of_its_first_input(guest: Process) -> None:
    boot(guest, "ids")

    give(guest, {CALL: [(1,), (2,)]})

    assert outputs(guest, 2) == dict.fromkeys(range(2), (SUCCEEDED, f"in-{CALL[3:]}:0"))


def test_exception_fails_all_of_the_batch_and_is_shown_once(guest: Process) -> None:
    boot(guest, "fail")

    give(guest, {CALL: [(1,), (2,)]})

    found = outputs(guest, 2)
    _, printed = stop(guest)
    assert [found[index][0] for index in range(2)] == [FAILED, FAILED]
    assert {found[index][1].type_name for index in range(2)} == {"LookupError"}
    assert printed.count("Traceback") == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("too_few", "function too_few was given a batch of 2 and returned 1 results; return one for each input"),
        ("no_list", "function no_list is batched and returned tuple; return a list"),
    ],
)
def test_what_is_no_list_of_as_many_fails_all(guest: Process, name: str, message: str) -> None:
    boot(guest, name)

    give(guest, {CALL: [(1,), (2,)]})

    for status, failure in outputs(guest, 2).values():
        assert status == FAILED
        assert failure.type_name == "InvalidError"
        assert message in failure.message


def test_input_without_an_argument_fails_alone(guest: Process) -> None:
    boot(guest, "add")

    give(guest, {CALL: [(1, 1), (2,), (3, 3, 3), (4, 4)]})

    found = outputs(guest, 4)
    _, printed = stop(guest)
    assert (found[0], found[3]) == ((SUCCEEDED, 2), (SUCCEEDED, 8))
    for index in (1, 2):
        assert found[index][1].type_name == "InvalidError"
        assert "every input of a batched function must give each of its parameters (xs, ys)" in found[index][1].message
    assert "adding [1, 4] [1, 4]" in printed


def test_batch_without_a_fitting_input_is_not_run(guest: Process) -> None:
    boot(guest, "add")

    give(guest, {CALL: [(1,), (2,)]})

    assert {failure.type_name for _, failure in outputs(guest, 2).values()} == {"InvalidError"}
    _, printed = stop(guest)
    assert "adding" not in printed
    give_back = [guest.agent.events.get_nowait()[0].method for _ in range(guest.agent.events.qsize())]
    assert "GivenBack" not in give_back


def test_result_that_cannot_be_pickled_fails_alone(guest: Process) -> None:
    boot(guest, "locks")

    give(guest, {CALL: [(0,), (1,), (0,)]})

    found = outputs(guest, 3)
    assert [found[index][0] for index in range(3)] == [SUCCEEDED, FAILED, SUCCEEDED]
    assert found[1][1].kind == "unserializable"


@pytest.mark.parametrize(
    ("name", "max_inputs", "is_async"), [("sleep", 1, False), ("sleep", 2, False), ("sleep_later", 1, True)]
)
def test_cancelled_input_is_answered_at_once_and_the_others_go_on(
    guest: Process, name: str, max_inputs: int, is_async: bool
) -> None:
    boot(guest, name, max_inputs, is_async=is_async)
    give(guest, {CALL: [(1,), (1,), (1,)]})
    guest.let_it_begin()

    guest.agent.say("CancelInputs", InputRefs(CALL, (0, 2)))

    assert {index: status for index, (status, _) in outputs(guest, 2, 0.6).items()} == {0: CANCELLED, 2: CANCELLED}
    assert outputs(guest, 1) == {1: (SUCCEEDED, 1)}


@pytest.mark.parametrize(("name", "is_async"), [("sleep", False), ("sleep_later", True)])
def test_batch_that_nobody_wants_is_stopped(guest: Process, name: str, is_async: bool) -> None:
    boot(guest, name, is_async=is_async)
    give(guest, {CALL: [(30,), (30,)], OTHER: [(30,)]})
    guest.let_it_begin()

    guest.agent.say("CancelInputs", InputRefs(CALL, (0, 1)))
    guest.agent.say("CancelInputs", InputRefs(OTHER, (0,)))

    assert [status for status, _ in outputs(guest, 2).values()] == [CANCELLED] * 2
    assert outputs(guest, 1)[0][0] == CANCELLED
    _, printed = stop(guest)
    assert printed.count("woken") == 1
    assert "Traceback" not in printed


def test_batch_that_has_not_begun_runs_without_what_was_cancelled(guest: Process) -> None:
    boot(guest, "sleep")
    give(guest, {CALL: [(0.6,)]}, 1)
    give(guest, {OTHER: [(0,), (0.01,)]}, 2)
    guest.let_it_begin()

    guest.agent.say("CancelInputs", InputRefs(OTHER, (0,)))

    refs, _ = guest.agent.expect("GivenBack", InputRefs)
    assert (refs.call_id, refs.indexes) == (OTHER, (0,))
    assert outputs(guest, 1) == {0: (SUCCEEDED, 0.6)}
    assert outputs(guest, 1) == {1: (SUCCEEDED, 0.01)}


def test_what_has_not_begun_is_given_back_whole_when_the_guest_is_told_to_stop(guest: Process) -> None:
    boot(guest, "sleep")
    give(guest, {CALL: [(0.5,)]}, 1)
    give(guest, {OTHER: [(0,), (0,)]}, 2)
    guest.let_it_begin()

    guest.agent.say("GuestStop", GuestStop(5.0))

    refs, _ = guest.agent.expect("GivenBack", InputRefs)
    assert (refs.call_id, refs.indexes) == (OTHER, (0, 1))
    assert outputs(guest, 1) == {0: (SUCCEEDED, 0.5)}


def test_batches_run_at_once(guest: Process) -> None:
    boot(guest, "meet", 2)

    give(guest, {CALL: [(1,), (2,)]}, 1)
    give(guest, {OTHER: [(3,), (4,), (5,)]}, 2)

    found: dict[str, int] = {}
    while len(found) < 2:
        record, body = guest.agent.expect("Outputs", OutputBatch)
        found[record.call_id] = pickle.loads(body[: record.sizes[0]])
    assert found == {CALL: 2, OTHER: 3}
