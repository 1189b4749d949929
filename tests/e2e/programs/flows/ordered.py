"""Functions that print, and entrypoints that print each result: lines come before the results they led to."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator

import squall

app = squall.App("ordered")


@app.function()
def square(x: int) -> int:
    """Say so, one way after the other."""
    if x % 3 == 0:
        print(f"line {x}")
    elif x % 3 == 1:
        print(f"line {x}", end="")
    else:
        thread = threading.Thread(target=print, args=(f"line {x}",))
        thread.start()
        thread.join()
    return x


@app.function()
def count_up(n: int) -> Iterator[int]:
    """Say each number, then yield it."""
    for x in range(n):
        print(f"line {x}")
        yield x


@app.function()
def child(x: int) -> int:
    """Let another program say so."""
    subprocess.run(["echo", f"line {x}"], check=True)
    return x


@app.function()
def failing(x: int) -> None:
    """Say so, then fail."""
    print(f"line {x}")
    raise ValueError(x)


@app.function()
async def square_async(x: int) -> int:
    """Say so from an event loop."""
    print(f"line {x}")
    return x


@app.function()
def flood(line_count: int) -> int:
    """Say more than is kept."""
    sys.stdout.write("flood of lines\n" * line_count)
    return line_count


def _say(x: int) -> None:
    # In one piece: lines of containers come in between.
    sys.stdout.write(f"result {x}\n")
    sys.stdout.flush()


@app.local_entrypoint()
def remote(n: int = 300) -> None:
    """One after the other."""
    for x in range(n):
        _say(square.remote(x))


@app.local_entrypoint()
def mapped(n: int = 300) -> None:
    """All at once, in order and as they come."""
    for x in square.map(range(n)):
        _say(x)
    for x in square.map(range(n, 2 * n), order_outputs=False):
        _say(x)


@app.local_entrypoint()
def generated(n: int = 300) -> None:
    """Items of a generator."""
    for x in count_up.remote_gen(n):
        _say(x)


@app.local_entrypoint()
def others(n: int = 30) -> None:
    """Children's lines, durable calls, failures."""
    for x in range(n):
        _say(child.remote(x))
    for x in range(n, 2 * n):
        _say(square.spawn(x).get())
    for x in range(2 * n, 3 * n):
        try:
            failing.remote(x)
        except ValueError as error:
            _say(error.args[0])


@app.local_entrypoint()
def threads(n: int = 100) -> None:
    """Several threads that call at once."""

    def call(first: int) -> None:
        for x in range(first, first + n):
            _say(square.remote(x))

    calling = [threading.Thread(target=call, args=(number * n,)) for number in range(3)]
    for thread in calling:
        thread.start()
    for thread in calling:
        thread.join()


@app.local_entrypoint()
def in_a_loop(n: int = 100) -> None:
    """A program with an event loop."""

    async def call(first: int) -> None:
        for x in range(first, first + n):
            _say(await square_async.remote.aio(x))

    async def all_calls() -> None:
        await asyncio.gather(*[call(number * n) for number in range(3)])

    asyncio.run(all_calls())


@app.local_entrypoint()
def flooded(n: int = 20) -> None:
    """Calls beside an endless output."""
    flooding = flood.spawn(1_000_000)
    for x in range(n):
        _say(square.remote(x))
    _say(flooding.get())
