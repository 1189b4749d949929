"""Turns of those who wait for containers of one function."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from squall.protocol import call as wire
from squall.server.dispatch.function.input import Call, Input
from squall.server.dispatch.function.input_queue import InputQueue


def make_call(sink: object = None, name: str = "fc-1") -> Call:
    return Call(name, wire.MAP, cast("Any", SimpleNamespace()), cast("Any", sink or object()), 0.0, None)


def make_inputs(call: Call, count: int) -> list[Input]:
    return [Input(call, index, b"", "") for index in range(count)]


def filled(*counts: int) -> tuple[InputQueue, list[Call]]:
    """A queue with so many inputs of calls of one client each."""
    queue, calls = InputQueue(), [make_call() for _ in counts]
    for call, count in zip(calls, counts, strict=True):
        queue.extend(call, make_inputs(call, count))
    return queue, calls


def test_one_call_leaves_in_its_order() -> None:
    queue, _ = filled(5)

    assert [one.index for one in queue.take(3)] == [0, 1, 2]
    assert [one.index for one in queue.take(3)] == [3, 4]
    assert queue.take(3) == []


def test_an_input_that_comes_behind_thousands_of_another_client_is_next_but_one() -> None:
    queue, (large, small) = filled(10_000, 0)
    queue.take(10)

    queue.extend(small, make_inputs(small, 1))

    assert [one.call for one in queue.take(2)] == [large, small]


def test_clients_take_turns_however_many_calls_they_have() -> None:
    queue = InputQueue()
    many, few = object(), object()
    for number in range(50):
        call = make_call(many, f"fc-many-{number}")
        queue.extend(call, make_inputs(call, 10))
    call = make_call(few)
    queue.extend(call, make_inputs(call, 10))

    taken = Counter(cast("object", one.call.sink) for one in queue.take(20))

    assert taken == {many: 10, few: 10}


def test_calls_of_one_client_take_turns() -> None:
    queue, client = InputQueue(), object()
    map_call, remote = make_call(client, "fc-map"), make_call(client, "fc-remote")
    queue.extend(map_call, make_inputs(map_call, 1_000))
    queue.extend(remote, make_inputs(remote, 1))

    assert remote in [one.call for one in queue.take(2)]


def test_what_comes_back_is_the_first_of_its_call() -> None:
    queue, _ = filled(3)
    first, second = queue.take(2)

    for one in (second, first):
        queue.put_back(one)

    assert [one.index for one in queue.take(3)] == [0, 1, 2]


def test_what_comes_back_alone_is_next() -> None:
    queue, (_, lone) = filled(100, 1)
    taken = queue.take(2)[1]
    assert taken.call is lone

    queue.put_back(taken)

    assert queue.take(1) == [taken]


def test_inputs_that_have_left_are_passed_over_and_forgotten() -> None:
    queue, calls = filled(4, 4)
    for one in queue.queued():
        one.is_queued = one.index % 2 == 0

    queue.forget_gone()

    assert len(queue) == 4
    for one in queue.queued():
        one.is_queued = one.call is calls[0]
    assert [(one.call, one.index) for one in queue.take(9)] == [(calls[0], 0), (calls[0], 2)]
    assert len(queue) == 0


def test_an_input_that_left_and_came_back_leaves_once() -> None:
    queue, _ = filled(3)
    held = queue.queued()[1]
    # A container turned out to run it, and was lost.
    held.is_queued = False
    queue.put_back(held)

    assert [one.index for one in queue.queued()] == [1, 0, 2]
    assert [one.index for one in queue.take(9)] == [1, 0, 2]
    assert len(queue) == 0


@given(
    counts=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 8)), max_size=12),
    takes=st.lists(st.integers(1, 5), max_size=60),
)
def test_every_input_leaves_once_and_nobody_waits_for_more_than_one_turn_of_each(
    counts: list[tuple[int, int]], takes: list[int]
) -> None:
    queue = InputQueue()
    sinks = [object() for _ in range(4)]
    put: list[Input] = []
    for number, (sink, count) in enumerate(counts):
        call = make_call(sinks[sink], f"fc-{number}")
        inputs = make_inputs(call, count)
        queue.extend(call, inputs)
        put += inputs

    taken = [one for count in takes for one in queue.take(count)]
    assert len(queue) == len(put) - len(taken) == len(queue.queued())
    left_with = {cast("object", one.call.sink) for one in queue.queued()}
    taken_before = list(taken)
    taken += queue.take(len(put))

    assert Counter(map(id, taken)) == Counter(map(id, put))
    for call in {one.call for one in put}:
        assert [one.index for one in taken if one.call is call] == list(range(call_size(put, call)))
    # While all had something, each had as many turns as every other, or one more.
    turns = Counter(cast("object", one.call.sink) for one in taken_before)
    if len(left_with) > 1:
        shares = [turns[sink] for sink in left_with]
        assert max(shares) - min(shares) <= 1


def call_size(put: list[Input], call: Call) -> int:
    return sum(one.call is call for one in put)
