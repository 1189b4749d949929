"""Functions that take their time, and what cuts them short."""

import os
import time
from collections.abc import Iterator

import squall

app = squall.App("sleeping")


@app.function()
def sleep(duration_s: float) -> float:
    print(f"asleep for {duration_s} s", flush=True)
    time.sleep(duration_s)
    return duration_s


@app.function(timeout=1)
def sleep_at_most_one(duration_s: float) -> float:
    time.sleep(duration_s)
    return duration_s


@app.function(timeout=1)
def sleep_on(duration_s: float) -> float:
    ends_at = time.monotonic() + duration_s
    while time.monotonic() < ends_at:
        try:
            time.sleep(0.1)
        except BaseException:  # noqa: BLE001 - the point of it
            print("not now", flush=True)
    return duration_s


@app.function(max_containers=2)
def slow_square(x: int) -> tuple[int, int, str]:
    time.sleep(0.25)
    with open("/tmp/ran", "a") as ran:
        ran.write(f"{x}\n")
    return x, x * x, os.environ.get("SQUALL_CONTAINER_ID", "")


BEGUN: list[int] = []
"""What has begun in this container, ever."""


@app.function(max_containers=4)
def slow_once(x: int) -> tuple[int, str, list[int]]:
    BEGUN.append(x)
    time.sleep(2)
    return x, os.environ.get("SQUALL_CONTAINER_ID", ""), BEGUN


@app.function(max_containers=1)
def begun_before(x: int, duration_s: float) -> list[int]:
    BEGUN.append(x)
    time.sleep(duration_s)
    return BEGUN


@app.function(is_generator=True)
def slow_items(count: int) -> Iterator[int]:
    for number in range(count):
        time.sleep(0.25)
        yield number


@app.local_entrypoint()
def main(duration_s: float = 600.0) -> None:
    print("slept:", sleep.remote(duration_s))


@app.local_entrypoint()
def three() -> None:
    print("slept:", list(sleep.map([600.0, 600.0, 600.0])))


@app.local_entrypoint()
def overdue() -> None:
    started = time.monotonic()
    try:
        sleep_at_most_one.remote(60)
    except squall.exception.FunctionTimeoutError as error:
        print("caught:", error)
    print("seconds:", time.monotonic() - started)
    print("in time:", sleep_at_most_one.remote(0.1))


@app.local_entrypoint()
def deaf() -> None:
    sleep_on.remote(0.1)  # its container is there
    started = time.monotonic()
    try:
        sleep_on.remote(60)
    except squall.exception.FunctionTimeoutError as error:
        print("caught:", error)
    print("seconds:", time.monotonic() - started)
    print("in time:", sleep_on.remote(0.1))


@app.local_entrypoint()
def cancelled() -> None:
    call = sleep.spawn(600.0)
    try:
        call.get(timeout=2)
    except TimeoutError as error:
        print("not yet:", type(error).__name__, error)
    started = time.monotonic()
    call.cancel()
    try:
        call.get(timeout=20)
    except squall.exception.Error as error:
        print("caught:", type(error).__name__, error)
    print("seconds:", time.monotonic() - started)
    print("slept:", sleep.remote(0.1))


@app.local_entrypoint()
def mapped(count: int = 24) -> None:
    for x, squared, container_id in slow_square.map(range(count)):
        print("result:", x, squared, container_id, flush=True)


@app.local_entrypoint()
def each_once(count: int = 16) -> None:
    for x, container_id, begun in slow_once.map(range(count), order_outputs=False):
        print("result:", x, container_id, ",".join(map(str, begun)), flush=True)


@app.local_entrypoint()
def items(count: int = 16) -> None:
    for number in slow_items.remote_gen(count):
        print("item:", number, flush=True)


@app.local_entrypoint()
def cancelled_for_good() -> None:
    calls = [begun_before.spawn(x, 600.0) for x in range(3)]
    try:
        calls[0].get(timeout=3)
    except squall.exception.TimeoutError:
        print("not yet", flush=True)
    for call in reversed(calls):  # the one that runs last: the others are not to follow it
        call.cancel()
    print("cancelled", flush=True)
    time.sleep(3)
    for call in calls:
        try:
            print("result:", call.get(timeout=30))
        except squall.exception.Error as error:
            print("caught:", type(error).__name__)
    print("begun:", begun_before.remote(9, 0.0))
