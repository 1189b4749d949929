"""`squall.batched`: what it asks of a function, and what it refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol.function import Batching
from squall.sdk._batched import parameter_names


def add(xs: list[int], ys: list[int]) -> list[int]:
    return [x + y for x, y in zip(xs, ys, strict=True)]


class Adder:
    def add(self, xs: list[int], ys: list[int]) -> list[int]:
        return add(xs, ys)

    def nothing(self) -> list[int]:
        return []


def with_default(xs: list[int], y: int = 1) -> list[int]:
    return xs


def with_star(*xs: list[int]) -> list[int]:
    return list(xs[0])


def with_two_stars(**xs: list[int]) -> list[int]:
    return xs["x"]


def without() -> list[int]:
    return []


def generator(xs: list[int]) -> Iterator[int]:
    yield from xs


async def async_generator(xs: list[int]) -> AsyncIterator[int]:
    yield xs[0]


def refused(target: Any, **given: Any) -> str:
    with pytest.raises(InvalidError) as caught:
        squall.batched(**{"max_batch_size": 4, "wait_ms": 10, **given})(target)
    return str(caught.value)


def test_batching_becomes_part_of_the_functions_record() -> None:
    function = squall.App("batches").function()(squall.batched(max_batch_size=4, wait_ms=0)(add))

    assert function.definition is not None
    assert function.definition.options.records()["batching"] == Batching(4, 0)


def test_both_ends_of_what_is_allowed() -> None:
    squall.batched(max_batch_size=1, wait_ms=0)
    squall.batched(max_batch_size=1_000, wait_ms=600_000)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_batch_size": None}, "@squall.batched(): max_batch_size=None must be an integer from 1 to 1,000"),
        ({"wait_ms": None}, "@squall.batched(): wait_ms=None must be an integer from 0 to 600,000"),
        ({"max_batch_size": 0}, "max_batch_size=0 must be an integer from 1 to 1,000"),
        ({"max_batch_size": 1_001}, "max_batch_size=1001 must be an integer from 1 to 1,000"),
        ({"max_batch_size": True}, "max_batch_size=True must be an integer"),
        ({"wait_ms": -1}, "wait_ms=-1 must be an integer from 0 to 600,000"),
        ({"wait_ms": 600_001}, "wait_ms=600001 must be an integer from 0 to 600,000"),
        ({"wait_ms": 0.5}, "wait_ms=0.5 must be an integer"),
    ],
)
def test_impossible_values_are_refused(given: dict[str, Any], message: str) -> None:
    assert message in refused(add, **given)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Adder, "@squall.batched() on the class Adder: put it on a method of it"),
        (generator, "it is a generator, and a batch has a list of results; return one"),
        (async_generator, "it is a generator"),
        (with_default, "parameter y has a default value, and every input of a batch must give every one"),
        (with_star, "name the parameters that are lists, instead of *xs"),
        (with_two_stars, "name the parameters that are lists, instead of **xs"),
        (without, "it takes nothing that there could be a list of"),
        (Adder.nothing, "it takes nothing that there could be a list of"),
    ],
)
def test_what_cannot_be_run_in_batches_is_refused(target: Any, message: str) -> None:
    assert message in refused(target)


def test_generator_by_the_apps_word_is_refused_too() -> None:
    decorator = squall.App("batches").function(is_generator=True)

    with pytest.raises(InvalidError, match="is_generator= cannot be used on a batched function"):
        decorator(squall.batched(max_batch_size=4, wait_ms=0)(add))


def test_one_input_per_container_and_batches_contradict_each_other() -> None:
    decorator = squall.App("batches").function(single_use_containers=True)

    with pytest.raises(InvalidError, match=r"single_use_containers= and @squall.batched\(\) contradict each other"):
        decorator(squall.batched(max_batch_size=2, wait_ms=0)(add))


def test_lists_are_named_as_the_parameters_without_self() -> None:
    assert parameter_names(add) == ["xs", "ys"]
    assert parameter_names(Adder.add) == ["xs", "ys"]


def test_local_call_passes_lists() -> None:
    function = squall.App("batches").function()(squall.batched(max_batch_size=4, wait_ms=0)(add))

    assert function.local([1, 2], [3, 4]) == [4, 6]
