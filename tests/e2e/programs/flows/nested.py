"""Functions that call functions, three levels deep, one container each."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import squall

app = squall.App("nested")


@app.function(max_containers=1)
def leaf(x: int) -> int:
    return x + 1


@app.function(max_containers=1)
def middle(x: int) -> int:
    return sum(leaf.map(range(x)))


@app.function(max_containers=1)
def top(x: int) -> int:
    return sum(middle.map([x, x])) + leaf.remote(0) + leaf.spawn(1).get()


@app.function(max_containers=1)
def leaves(n: int) -> Iterator[int]:
    yield from range(n)


@app.function(max_containers=1)
def middles(n: int) -> Iterator[int]:
    for value in leaves.remote_gen(n):
        yield value * 10


@app.function()
def refuse() -> None:
    raise LookupError("deep down")


@app.function()
def pass_on() -> None:
    refuse.remote()


@app.function(cpu=1)
def deep(level: int) -> int:
    """Calls itself: every level holds a container of one processor while it waits."""
    return 0 if level == 0 else 1 + deep.remote(level - 1)


@app.function()
def in_threads(n: int) -> list[int]:
    results = [0] * n

    def call(number: int) -> None:
        results[number] = leaf.remote(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@app.function()
async def in_a_loop(n: int) -> dict[str, Any]:
    return {
        "remote": await leaf.remote.aio(1),
        "map": [value async for value in leaf.map.aio(range(n))],
        "generator": [value async for value in leaves.remote_gen.aio(n)],
        "at once": await asyncio.gather(*[leaf.remote.aio(number) for number in range(n)]),
        "spawn": await (await leaf.spawn.aio(5)).get.aio(),
    }


@app.function()
def spawn_for_later(x: int) -> str:
    return leaf.spawn(x).object_id


@app.function()
def hand_out() -> Any:
    """A handle to a function is a value."""
    return leaf


@app.function()
def call_given(function: Any, x: int) -> Any:
    return function.remote(x)


@app.function()
def call_by_name(x: int) -> Any:
    return squall.Function.from_name("nested", "leaf").remote(x)
