"""Inputs that share a container: in threads, on an event loop, in batches."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator

import squall

app = squall.App("together")


@app.function(max_containers=1)
@squall.concurrent(max_inputs=8)
def meet(count: int) -> tuple[str, str | None, str]:
    """Return when so many are here."""
    _here.append(count)
    deadline = time.monotonic() + 20
    while len(_here) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    print("met as", squall.current_input_id())
    return os.environ["SQUALL_CONTAINER_ID"], squall.current_input_id(), threading.current_thread().name


_here: list[int] = []


@app.function()
def double(x: int) -> int:
    return 2 * x


@app.function(max_containers=1)
@squall.concurrent(max_inputs=6)
def through(x: int) -> int:
    return double.remote(x) + sum(double.map([x, x]))


@app.function(max_containers=1, retries=0)
@squall.concurrent(max_inputs=2)
def nap(seconds: float) -> str:
    time.sleep(seconds)
    return os.environ["SQUALL_CONTAINER_ID"]


@app.function(max_containers=1, timeout=1)
@squall.concurrent(max_inputs=2)
def short(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.function(max_containers=1, memory=(64, 128))
@squall.concurrent(max_inputs=4)
def take(mib: int) -> int:
    time.sleep(0.5)
    return len(bytearray(mib * 2**20)) // 2**20


@app.function(max_containers=1)
@squall.concurrent(max_inputs=2)
def count_up(to: int) -> Iterator[tuple[str, int]]:
    for number in range(to):
        yield os.environ["SQUALL_CONTAINER_ID"], number
        time.sleep(0.02)


@app.function(max_containers=1)
@squall.concurrent(max_inputs=100)
async def nap_async(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return os.environ["SQUALL_CONTAINER_ID"]


@app.function(max_containers=1)
@squall.batched(max_batch_size=5, wait_ms=1_000)
def add(xs: list[int], ys: list[int]) -> list[tuple[int, int]]:
    """Each sum, and how large its batch was."""
    if -1 in xs:
        raise LookupError(f"a batch of {len(xs)}")
    if -2 in xs:
        return [(0, 0)] * (len(xs) + 1)
    return [(x + y, len(xs)) for x, y in zip(xs, ys, strict=True)]


@app.function(max_containers=1)
@squall.concurrent(max_inputs=2)
@squall.batched(max_batch_size=3, wait_ms=100)
async def slow_batches(xs: list[float]) -> list[tuple[int, str]]:
    await asyncio.sleep(max(xs))
    return [(len(xs), os.environ["SQUALL_CONTAINER_ID"])] * len(xs)


@app.function(max_containers=1)
def count_each(xs: list[int]) -> list[tuple[int, int]]:
    return [(x, len(xs)) for x in xs]


@app.cls(max_containers=1)
@squall.concurrent(max_inputs=2)
class Model:
    @squall.enter()
    def load(self) -> None:
        self.base = 100

    @squall.batched(max_batch_size=4, wait_ms=500)
    def predict(self, xs: list[int]) -> list[tuple[int, int]]:
        return [(self.base + x, len(xs)) for x in xs]


@app.function(single_use_containers=True, max_containers=3)
def once(x: int) -> str:
    """Fails in a container that has run something already."""
    if os.path.exists("/tmp/used"):
        raise RuntimeError("this container has served before")
    open("/tmp/used", "w").close()
    return os.environ["SQUALL_CONTAINER_ID"]


_noted: list[str] = []


@app.function(max_containers=1)
def note(container_id: str = "") -> list[str]:
    if container_id:
        _noted.append(container_id)
    return _noted


@app.function(single_use_containers=True, retries=squall.Retries(max_retries=3, initial_delay=0.0))
def fails() -> None:
    note.remote(os.environ["SQUALL_CONTAINER_ID"])
    raise LookupError("always")
