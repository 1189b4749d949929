"""Lines: who waits for what comes, and who is past his time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from squall.protocol.task_set import TaskSet
from squall.server.dispatch.asset.lines import Line
from squall.server.dispatch.clock import ManualClock
from tests.server.doubles import settle

Items = tuple[int, ...]


def taking(items: list[int]) -> Callable[[], Coroutine[None, None, Items]]:
    """Takes the first of them."""

    async def attempt() -> Items:
        await asyncio.sleep(0)
        return (items.pop(0),) if items else ()

    return attempt


async def test_what_comes_when_a_time_is_over_goes_to_the_next_one() -> None:
    clock, tasks, items = ManualClock(), TaskSet(), list[int]()
    unheard: list[str] = []
    line: Line[Items] = Line((), clock, tasks, at_once=9)
    late = tasks.start(line.get(taking(items), 5.0, lambda: unheard.append("late")))
    early = tasks.start(line.get(taking(items), 30.0, lambda: unheard.append("early")))
    await settle()

    async def put() -> bool:
        items.append(1)
        return True

    clock.advance(5.1)
    assert await line.serve_with(put(), 1)
    await settle()

    assert (late.result(), early.result(), unheard) == ((), (1,), [])
    await tasks.close()


async def test_who_runs_out_of_time_while_it_is_tried_for_him_gets_what_comes_of_it() -> None:
    clock, tasks, items = ManualClock(), TaskSet(), list[int]()
    go_on = asyncio.Event()

    async def slow() -> Items:
        found = bool(items)
        if found:
            await go_on.wait()
        return (items.pop(0),) if found else ()

    line: Line[Items] = Line((), clock, tasks, at_once=9)
    get = tasks.start(line.get(slow, 5.0, lambda: None))
    await settle()
    items.append(1)
    line.serve()
    await settle()

    clock.advance(5.1)
    go_on.set()
    await settle()

    assert get.result() == (1,)
    await tasks.close()
