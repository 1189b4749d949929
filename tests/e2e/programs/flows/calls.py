"""Functions that tests call in every way there is."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import squall

app = squall.App("calls")


@dataclass
class Point:
    """A class of the user's script, as argument and as result."""

    x: int
    y: int


class Refused(Exception):
    """An exception of the user's script."""


@app.function()
def square(x: int) -> int:
    return x * x


@app.function()
def describe(x: int, y: int = 0, *, unit: str = "m") -> str:
    return f"{x}/{y} {unit}"


@app.function()
def refuse(x: int) -> int:
    if x % 2:
        raise Refused(f"odd: {x}")
    return x


@app.function()
async def slow_square(x: int) -> int:
    await asyncio.sleep(0.01)
    return x * x


@app.function()
def mirror(point: Point) -> Point:
    if not isinstance(point, Point):
        raise TypeError(f"got a {type(point)}")
    return Point(point.y, point.x)


@app.function()
def count(n: int) -> Iterator[int]:
    yield from range(n)


@app.function()
def tick(n: int, pause_s: float) -> Iterator[float]:
    for _ in range(n):
        yield time.time()
        time.sleep(pause_s)


@app.function()
async def count_slowly(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i
        await asyncio.sleep(0.001)


@app.function()
def fail_after(n: int) -> Iterator[int]:
    yield from range(n)
    raise Refused(f"after {n}")


_progress = {"made": 0, "is_closed": False}


@app.function(max_containers=1)
def produce(n: int) -> Iterator[Any]:
    """Yields numbers; of none, instead, how far the last one got (there is one container only)."""
    if not n:
        yield dict(_progress)
        return
    _progress.update(made=0, is_closed=False)
    try:
        for i in range(n):
            _progress["made"] = i + 1
            yield i
    finally:
        _progress["is_closed"] = True


@app.function(is_generator=True)
def as_generator(n: int) -> Any:
    return iter(range(n))


@app.function()
def generator_without_flag(n: int) -> Any:
    return (i for i in range(n))


@app.function()
def ids() -> dict[str, Any]:
    in_thread: list[str | None] = []
    thread = threading.Thread(target=lambda: in_thread.append(squall.current_input_id()))
    thread.start()
    thread.join()
    return {
        "is_local": squall.is_local(),
        "input": squall.current_input_id(),
        "call": squall.current_function_call_id(),
        "thread": in_thread[0],
    }


def in_child(x: int) -> tuple[bool, str | None, int]:
    print(f"child {x}")
    return squall.is_local(), squall.current_input_id(), square.remote(x)


@app.function()
def in_pool() -> list[tuple[bool, str | None, int]]:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(in_child, [2, 3])


@app.function()
async def ids_async(pause_s: float) -> tuple[str | None, str | None, str | None]:
    before = squall.current_input_id()
    await asyncio.sleep(pause_s)
    return before, squall.current_input_id(), await asyncio.to_thread(squall.current_input_id)


@app.function(timeout=60)
def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@app.function()
def nothing() -> None:
    return None


@app.function()
def where() -> dict[str, Any]:
    return {"cwd": os.getcwd(), "python": sys.version_info[:2], "pid": os.getpid(), "name": __name__}
