"""Entrypoints of every kind, and what a function prints."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import subprocess
import sys
import threading
import time
from typing import Literal, Optional

import squall

app = squall.App("entries")


@app.function()
def shout(text: str, times: int = 1) -> str:
    print(f"shouting {text}")
    return text.upper() * times


@app.function()
def speak() -> None:
    print("from print")
    print("to stderr", file=sys.stderr)
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    thread.join()
    subprocess.run(["sh", "-c", "echo from a child; echo child to stderr >&2"], check=True)
    os.write(1, b"from the C level\n")
    sys.stdout.write("without an end")


@app.function()
def fail() -> None:
    raise ValueError("wrong on purpose")


@app.function(timeout=600)
def tick(seconds: float) -> str:
    """Prints as long as it runs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        print("tick")
        time.sleep(0.2)
    return "ticked"


@app.local_entrypoint()
def main() -> None:
    print("main", shout.remote("a"))


@app.local_entrypoint()
def typed(
    count: int,
    rate: float = 1.5,
    name: str = "x",
    is_fast: bool = False,
    when: Optional[datetime.datetime] = None,  # noqa: UP045 - users write it so
    kind: Literal["a", "b"] = "a",
) -> None:
    print(json.dumps([count, rate, name, is_fast, None if when is None else when.isoformat(), kind]))


@app.local_entrypoint()
def raw(*arguments: str) -> None:
    print(json.dumps(arguments))


@app.local_entrypoint()
async def in_a_loop(n: int = 3) -> None:
    print(await asyncio.gather(*[shout.remote.aio("b", number) for number in range(n)]))


@app.local_entrypoint()
def result() -> str:
    return shout.remote("kept")


@app.local_entrypoint()
def talk() -> None:
    speak.remote()
    print("from here")


@app.local_entrypoint()
def failing() -> None:
    fail.remote()


@app.local_entrypoint()
def leaving() -> None:
    print(tick.spawn(2).object_id)


@app.local_entrypoint()
def spawning() -> None:
    print(tick.spawn(60).object_id, flush=True)
    time.sleep(600)
