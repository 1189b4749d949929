"""Functions that call functions from inside containers: no level waits for a container that a waiting one holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from squall import Function, FunctionCall
from tests.e2e import flows
from tests.e2e.installation import Installation


@pytest.fixture(scope="module")
def nested(session_installation: Installation) -> Iterator[Any]:
    """The module `programs/flows/nested.py`, its app running."""
    with flows.running(session_installation, "nested") as module:
        yield module


@pytest.mark.timeout(60)
def test_three_levels_with_one_container_each(nested: Any) -> None:
    assert nested.top.remote(5) == 2 * sum(range(1, 6)) + 1 + 2
    assert list(nested.top.map([1, 2, 3])) == [5, 9, 15]


@pytest.mark.timeout(60)
def test_generator_feeds_a_generator(nested: Any) -> None:
    assert list(nested.middles.remote_gen(5)) == [0, 10, 20, 30, 40]


@pytest.mark.timeout(60)
def test_more_levels_than_processors_do_not_wait_for_each_other(nested: Any) -> None:
    # Each level asks for a whole processor and holds it while it waits for the next: this machine has fewer.
    assert nested.deep.remote(8) == 8


def test_exception_comes_through_two_levels_as_itself(nested: Any) -> None:
    with pytest.raises(LookupError, match="deep down"):
        nested.pass_on.remote()


def test_sdk_in_a_container_serves_threads_and_event_loops(nested: Any) -> None:
    assert nested.in_threads.remote(10) == list(range(1, 11))
    assert nested.in_a_loop.remote(4) == {
        "remote": 2,
        "map": [1, 2, 3, 4],
        "generator": [0, 1, 2, 3],
        "at once": [1, 2, 3, 4],
        "spawn": 6,
    }


def test_call_spawned_in_a_container_outlives_its_input(nested: Any) -> None:
    call_id = nested.spawn_for_later.remote(5)

    assert FunctionCall.from_id(call_id).get(timeout=30) == 6


def test_function_is_a_value(nested: Any) -> None:
    handle = nested.hand_out.remote()

    assert isinstance(handle, Function)
    assert handle.remote(2) == 3
    assert nested.call_given.remote(nested.leaf, 2) == 3
    assert nested.call_by_name.remote(2) == 3
