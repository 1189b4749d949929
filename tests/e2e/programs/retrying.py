"""What is tried again, what takes too long, and what is cut short, in every kind of call."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator

import squall
from squall.exception import FunctionTimeoutError, InputCancellation

app = squall.App("retrying")
SOON = squall.Retries(max_retries=2, initial_delay=0.0, backoff_coefficient=1.0)


@app.function(timeout=1, retries=squall.Retries(max_retries=1, initial_delay=0.0), max_containers=1)
def blocking(duration_s: float) -> float:
    try:
        time.sleep(duration_s)
    except InputCancellation as error:
        print("in the function:", type(error).__name__, flush=True)
        raise
    return duration_s


@app.function(timeout=1, max_containers=1)
async def on_a_loop(duration_s: float) -> float:
    try:
        await asyncio.sleep(duration_s)
    except asyncio.CancelledError as error:
        print("in the function:", type(error).__name__, flush=True)
        raise
    return duration_s


@app.function(timeout=1, max_containers=1)
def items(count: int) -> Iterator[int]:
    for number in range(count):
        yield number
        time.sleep(0.4)


@app.function(timeout=1, max_containers=1)
async def items_on_a_loop(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number
        await asyncio.sleep(0.4)


@app.function(retries=SOON, max_containers=2)
def poison(x: int) -> int:
    if x == 3:
        print("drinks", flush=True)
        os._exit(9)
    return x * 10


@app.function(memory=(64, 128), max_containers=1)
def large(mib: int) -> bytes:
    return b"x" * (mib * 2**20)


never_ready = squall.App("never-ready")


@never_ready.function(startup_timeout=2, env={"SLEEPY": "1"})
def sleepy() -> None:
    return None


if not squall.is_local() and os.environ.get("SLEEPY"):
    time.sleep(600)


@app.local_entrypoint()
def timeouts() -> None:
    for function in (blocking, on_a_loop):
        try:
            function.remote(60)
        except FunctionTimeoutError as error:
            print("caught:", error, flush=True)
    print("map:", [type(one).__name__ for one in on_a_loop.map([0.1, 60, 0.2], return_exceptions=True)])
    call = on_a_loop.spawn(60)
    try:
        call.get()
    except FunctionTimeoutError:
        print("spawned: timed out")
    for generator in (items, items_on_a_loop):
        found = []
        try:
            for number in generator.remote_gen(50):
                found.append(number)
        except FunctionTimeoutError:
            print("items:", found)


@app.local_entrypoint()
def poisoned() -> None:
    for result in poison.map(range(6), return_exceptions=True):
        print("result:", repr(result))


@app.local_entrypoint()
def too_large() -> None:
    print("little:", len(large.remote(4)))
    try:
        large.remote(500)
    except squall.exception.RemoteError as error:
        print("caught:", error)
    print("little:", len(large.remote(4)))


@app.local_entrypoint()
def cancels() -> None:
    for function in (blocking, on_a_loop):
        call = function.spawn(0.9)
        other = function.spawn(0.01)
        # However long its container takes to start: the template that it is forked from may have to be made.
        while not function.get_current_stats().num_running_inputs:
            time.sleep(0.02)
        time.sleep(0.3)
        call.cancel()
        try:
            call.get(timeout=20)
        except squall.exception.RemoteError as error:
            print("caught:", error, flush=True)
        print("other:", other.get(timeout=20), flush=True)


@never_ready.local_entrypoint()
def wait_for_it() -> None:
    started = time.monotonic()
    try:
        sleepy.remote()
    except FunctionTimeoutError as error:
        print("caught:", error)
    print("seconds:", time.monotonic() - started)
