"""Work in threads: whoever is cancelled waits for it."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from squall.agent.volume.aside import aside, together


async def test_who_is_cancelled_ends_when_the_thread_has() -> None:
    begun, go, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(10)
        done.set()

    with ThreadPoolExecutor(1) as executor:
        waiting = asyncio.ensure_future(aside(executor, work))
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(3):
            waiting.cancel()
            await asyncio.sleep(0.01)
            assert not waiting.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert done.is_set()


async def test_a_result_and_a_failure_are_passed_on() -> None:
    with ThreadPoolExecutor(1) as executor:
        assert await aside(executor, lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await aside(executor, lambda: 1 // 0)


async def test_when_one_fails_the_others_have_ended() -> None:
    ended: list[int] = []

    async def slow(number: int) -> int:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(number)
        return number

    async def fail() -> int:
        await asyncio.sleep(0)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await together([slow(1), fail(), slow(2)])
    assert ended == [1, 2]
    assert await together([asyncio.sleep(0, 1), asyncio.sleep(0, 2)]) == [1, 2]
