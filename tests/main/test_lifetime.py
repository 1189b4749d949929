"""When a program that nobody wants any more ends."""

from __future__ import annotations

import asyncio

import pytest

from squall.main.lifetime import wait_idle

IDLE_S = 0.2
BUSY_S = 0.6


class Used:
    """A program as its users see it."""

    def __init__(self) -> None:
        self.is_idle = True
        self.visit_count = 0


async def test_nobody_for_long_enough_is_the_end() -> None:
    async with asyncio.timeout(10):
        await wait_idle(IDLE_S, Used())


@pytest.mark.long
async def test_short_visits_between_two_looks_count() -> None:
    program = Used()
    ended = asyncio.ensure_future(wait_idle(IDLE_S, program))
    loop = asyncio.get_running_loop()

    until = loop.time() + BUSY_S
    while loop.time() < until:
        program.visit_count += 1
        await asyncio.sleep(0.01)

    assert not ended.done()
    async with asyncio.timeout(10):
        await ended


@pytest.mark.long
async def test_what_runs_keeps_it() -> None:
    program = Used()
    program.is_idle = False
    ended = asyncio.ensure_future(wait_idle(IDLE_S, program))

    await asyncio.sleep(BUSY_S)

    assert not ended.done()
    ended.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ended


async def test_without_a_limit_it_waits_for_ever() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await wait_idle(None, Used())
