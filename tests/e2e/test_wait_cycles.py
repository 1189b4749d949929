"""Functions that wait for themselves in fewer containers than they need: an error, and nothing hangs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from squall.exception import ResourceExhaustedError
from tests.e2e import flows
from tests.e2e.installation import Installation

FAILED_S = 25.0


@pytest.fixture(scope="module")
def circular(session_installation: Installation) -> Iterator[Any]:
    """The module `programs/flows/circular.py`, its app running."""
    with flows.running(session_installation, "circular") as module:
        yield module


@pytest.mark.timeout(90)
@pytest.mark.parametrize("name", ["down", "down_spawned", "down_gathered"])
def test_recursion_deeper_than_max_containers_is_refused(circular: Any, name: str) -> None:
    function = getattr(circular, name)
    began_at = time.monotonic()

    with pytest.raises(ResourceExhaustedError, match=rf"function {name} has .*max_containers=1.*let more of them run"):
        function.remote(3)
    assert time.monotonic() - began_at < FAILED_S

    assert function.remote(0) == 0


@pytest.mark.timeout(90)
def test_map_of_a_function_over_itself_ends(circular: Any) -> None:
    began_at = time.monotonic()

    with pytest.raises(ResourceExhaustedError, match=r"function down_mapped has .*max_containers=2"):
        circular.down_mapped.remote(2)

    assert time.monotonic() - began_at < FAILED_S


@pytest.mark.timeout(90)
def test_generator_of_itself_yields_what_it_can_and_is_refused(circular: Any) -> None:
    items = circular.down_yielded.remote_gen(3)

    assert next(items) == 3
    with pytest.raises(ResourceExhaustedError, match="function down_yielded has"):
        next(items)


@pytest.mark.timeout(90)
def test_functions_that_call_each_other_are_refused(circular: Any) -> None:
    with pytest.raises(ResourceExhaustedError, match=r"function ping has .*max_containers=1"):
        circular.ping.remote(5)

    assert circular.ping.remote(1) == 1


@pytest.mark.timeout(90)
def test_function_may_catch_it_and_go_on(circular: Any) -> None:
    assert circular.with_a_way_out.remote(1) == 1
