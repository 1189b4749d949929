"""A pipe is read to its end, in order, and whoever takes what it holds may end that early."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from squall.agent.pipes import read_pipe


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    ends = [reading, writing]
    yield reading, writing
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue  # the test has closed it


async def test_all_that_was_printed_is_taken_in_order(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    taken: list[bytes] = []
    running = asyncio.ensure_future(read_pipe(reading, taken.append))

    for number in range(3):
        os.write(writing, b"%d" % number)
        await asyncio.sleep(0)
    os.close(writing)
    await asyncio.wait_for(running, 10)

    assert b"".join(taken) == b"012"


async def test_what_the_taker_raises_ends_the_reading(pipe: tuple[int, int]) -> None:
    reading, writing = pipe

    def refuse(chunk: bytes) -> None:
        raise ValueError(f"{len(chunk)} bytes are too much")

    os.write(writing, b"ab")

    with pytest.raises(ValueError, match="2 bytes"):
        await asyncio.wait_for(read_pipe(reading, refuse), 10)


async def test_a_reading_that_is_given_up_leaves_the_pipe_unwatched(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    taken: list[bytes] = []
    running = asyncio.ensure_future(read_pipe(reading, taken.append))
    await asyncio.sleep(0)

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    os.write(writing, b"late")
    await asyncio.sleep(0.01)

    assert taken == []
