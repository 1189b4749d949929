"""Functions that call themselves, with fewer containers than levels."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import squall

app = squall.App("circular")


@app.function(max_containers=1)
def down(level: int) -> int:
    return 0 if level == 0 else 1 + down.remote(level - 1)


@app.function(max_containers=1)
def down_spawned(level: int) -> int:
    return 0 if level == 0 else 1 + down_spawned.spawn(level - 1).get()


@app.function(max_containers=2)
def down_mapped(level: int) -> int:
    if level == 0:
        return 0
    found: list[Any] = list(down_mapped.map([level - 1] * 20, return_exceptions=True))
    raise next((one for one in found if isinstance(one, Exception)), ValueError("all of them ran"))


@app.function(max_containers=1)
def down_yielded(level: int) -> Iterator[int]:
    yield level
    if level:
        yield from down_yielded.remote_gen(level - 1)


@app.function(max_containers=1)
async def down_gathered(level: int) -> int:
    if level == 0:
        return 0
    return sum(await asyncio.gather(*[down_gathered.remote.aio(level - 1) for _ in range(3)]))


@app.function(max_containers=1)
def ping(level: int) -> int:
    return 0 if level == 0 else 1 + pong.remote(level - 1)


@app.function(max_containers=1)
def pong(level: int) -> int:
    return 0 if level == 0 else 1 + ping.remote(level - 1)


@app.function(max_containers=1)
def with_a_way_out(level: int) -> int:
    """Does the rest itself where no container is left for it."""
    if level == 0:
        return 0
    try:
        return 1 + with_a_way_out.remote(level - 1)
    except squall.exception.ResourceExhaustedError:
        return 1 + with_a_way_out.local(level - 1)
