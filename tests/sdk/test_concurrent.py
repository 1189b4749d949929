"""`squall.concurrent`: what it asks of a function, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol.function import Scaling


def plain(x: int) -> int:
    return x


def scaling(**given: Any) -> Scaling:
    function = squall.App("inputs").function()(squall.concurrent(**given)(plain))
    assert function.definition is not None
    found: Scaling = function.definition.options.records()["scaling"]
    return found


def test_inputs_at_once_become_part_of_the_functions_record() -> None:
    assert scaling(max_inputs=8) == Scaling(max_inputs=8)
    assert scaling(max_inputs=8, target_inputs=5) == Scaling(max_inputs=8, target_inputs=5)
    assert scaling(max_inputs=1_000, target_inputs=1_000) == Scaling(max_inputs=1_000, target_inputs=1_000)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "@squall.concurrent() needs max_inputs=, an integer from 1 to 1,000"),
        ({"target_inputs": 2}, "@squall.concurrent() needs max_inputs="),
        ({"max_inputs": 0}, "max_inputs=0 must be an integer from 1 to 1,000"),
        ({"max_inputs": 1_001}, "max_inputs=1001 must be an integer from 1 to 1,000"),
        ({"max_inputs": True}, "max_inputs=True must be an integer"),
        ({"max_inputs": 2.0}, "max_inputs=2.0 must be an integer"),
        ({"max_inputs": "2"}, "max_inputs='2' must be an integer"),
        ({"max_inputs": 2, "target_inputs": 3}, "target_inputs=3 must be an integer from 1 to max_inputs=2"),
        ({"max_inputs": 2, "target_inputs": 0}, "target_inputs=0 must be an integer from 1 to max_inputs=2"),
    ],
)
def test_impossible_values_are_refused_before_anything_is_decorated(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        squall.concurrent(**given)

    assert message in str(caught.value)


def test_parentheses_are_needed() -> None:
    with pytest.raises(InvalidError, match=r"write @squall.concurrent\(max_inputs=…\) with parentheses"):
        squall.concurrent(plain)


def test_one_input_per_container_and_several_at_once_contradict_each_other() -> None:
    decorator = squall.App("inputs").function(single_use_containers=True)

    with pytest.raises(InvalidError, match=r"single_use_containers= and @squall.concurrent\(\) contradict each other"):
        decorator(squall.concurrent(max_inputs=2)(plain))
    assert decorator(squall.concurrent(max_inputs=1)(plain)).name == "plain"


def test_local_call_is_a_plain_call() -> None:
    assert squall.App("inputs").function()(squall.concurrent(max_inputs=2)(plain)).local(7) == 7
