"""What a map is given: sync and async iterators, and what is none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from tests.sdk.double import ServerDouble

app = squall.App("feeds", include_source=False)


@app.function()
def add(x: int, y: int = 10) -> int:
    return x + y


class Numbers:
    """0, 1, 2, one after the other; knows where it was pulled, and whether it was closed."""

    def __init__(self, stop: int = 3) -> None:
        self.threads: set[int] = set()
        self.loops: set[int] = set()
        self.is_closed = False
        self._stop = stop

    async def __aiter__(self) -> AsyncIterator[int]:
        try:
            for number in range(self._stop):
                await asyncio.sleep(0.001)
                self.threads.add(threading.get_ident())
                self.loops.add(id(asyncio.get_running_loop()))
                yield number
        finally:
            await asyncio.sleep(0)
            self.is_closed = True


@pytest.fixture
def running(server: ServerDouble) -> Iterator[ServerDouble]:
    with app.run():
        yield server


@pytest.mark.usefixtures("running")
def test_blocking_map_awaits_async_iterators_in_its_own_thread_and_loop() -> None:
    numbers = Numbers()

    assert list(add.map(numbers, iter([5, 6, 7, 8]))) == [5, 7, 9]

    assert numbers.threads == {threading.get_ident()}
    assert len(numbers.loops) == 1
    assert numbers.is_closed


def test_other_blocking_forms_await_async_iterators_too(running: ServerDouble) -> None:
    async def pairs() -> AsyncIterator[tuple[int, int]]:
        yield 1, 2
        yield 3, 4

    assert list(add.starmap(pairs())) == [3, 7]
    add.for_each(Numbers())
    call = add.experimental_spawn_map(Numbers())
    assert call.num_inputs() == 3
    assert list(call.iter()) == [10, 11, 12]


@pytest.mark.usefixtures("running")
def test_async_iterator_of_a_map_that_is_left_is_closed() -> None:
    numbers = Numbers(1_000_000)
    mapped = add.map(numbers)

    assert next(mapped) == 10
    mapped.close()

    assert numbers.is_closed


def test_async_iterator_of_a_map_that_is_left_in_another_event_loop_is_closed(running: ServerDouble) -> None:
    numbers = Numbers(1_000_000)
    mapped = add.map(numbers)
    assert next(mapped) == 10

    async def leave() -> None:
        mapped.close()

    asyncio.run(leave())
    add.remote(1)

    assert numbers.is_closed
    assert running.closed_calls[:1] == [running.opened[0].call_id]


def test_map_whose_async_iterator_fails_as_it_is_closed_is_given_up(running: ServerDouble) -> None:
    async def interrupted() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
                await asyncio.sleep(0.001)
        finally:
            raise KeyboardInterrupt  # as a further Ctrl-C

    mapped = add.map(interrupted())
    assert next(mapped) == 11

    with pytest.raises(KeyboardInterrupt):
        mapped.close()
    add.remote(1)

    assert running.closed_calls[:1] == [running.opened[0].call_id]


@pytest.mark.usefixtures("running")
def test_what_says_no_length_is_mapped_though_it_has_one() -> None:
    class Stream:
        """As a DataLoader of a stream."""

        def __len__(self) -> int:
            raise TypeError("a stream has no length")

        def __iter__(self) -> Iterator[int]:
            return iter([1, 2])

    assert list(add.map(Stream())) == [11, 12]
    assert list(add.map(Stream(), [5, 6])) == [6, 8]


@pytest.mark.usefixtures("running")
def test_what_an_async_iterator_raises_comes_out_of_the_map() -> None:
    async def fails() -> AsyncIterator[int]:
        yield 1
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        list(add.map(fails()))


@pytest.mark.usefixtures("running")
def test_calls_in_an_async_iterator_of_a_blocking_map_are_awaited() -> None:
    async def doubled() -> AsyncIterator[int]:
        for x in range(3):
            yield await add.remote.aio(x, x)

    assert list(add.map(doubled())) == [10, 12, 14]


def test_async_iterators_are_refused_where_they_could_not_be_awaited(server: ServerDouble) -> None:
    async def main() -> None:
        async with app.run():
            for form in (add.for_each, add.spawn_map):
                with pytest.warns(squall.exception.AsyncUsageWarning), pytest.raises(InvalidError, match=r"\.aio"):
                    form(Numbers())

    asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: list(add.starmap([1, 2])), r"add\.starmap\(\): one of the inputs is 1, which is no tuple .*\.map"),  # type: ignore[list-item]
        (lambda: list(add.starmap(3)), r"add\.starmap\(\): 3 cannot be iterated; it takes one iterable of tuples"),  # type: ignore[arg-type]
        (lambda: list(add.map(3)), r"add\.map\(\): 3 cannot be iterated; it takes iterables, .*\.remote"),  # type: ignore[arg-type]
        (lambda: list(add.map()), r"add\.map\(\): give at least one iterable"),
        (lambda: list(add.map([1], kwargs=3)), r"add\.map\(\): kwargs=3 must be a dictionary"),  # type: ignore[arg-type]
        (lambda: list(add.map([1], kwargs={1: 2})), r"kwargs=\{1: 2\} must be a dictionary: arguments by their names"),  # type: ignore[dict-item]
        (lambda: add.for_each([1], kwargs=["y"]), r"add\.for_each\(\): kwargs=\['y'\] must be"),  # type: ignore[arg-type]
        (lambda: add.spawn_map([1], kwargs=3), r"add\.spawn_map\(\): kwargs=3 must be"),  # type: ignore[arg-type]
        (lambda: add.spawn_map(3), r"add\.spawn_map\(\): 3 cannot be iterated"),  # type: ignore[arg-type]
        (lambda: app.set_tags(["x"]), r"tags must be a dictionary of strings, not \['x'\]"),  # type: ignore[arg-type]
        (lambda: app.set_tags(None), r"tags must be a dictionary of strings, not None"),  # type: ignore[arg-type]
    ],
)
def test_what_a_map_cannot_take_is_refused_by_name(wrong: Callable[[], Any], said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        wrong()


@pytest.mark.usefixtures("running")
def test_a_type_error_of_the_iterator_of_a_starmap_stays_what_it_is() -> None:
    def fails() -> Iterator[tuple[int]]:
        yield (1,)
        raise TypeError("of the program")

    with pytest.raises(TypeError, match="of the program"):
        list(add.starmap(fails()))
