"""A user's program that measures dicts and queues: `storage.py MEASUREMENT COUNT` prints one JSON object.

Everything here goes through the public API, from processes outside containers.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import squall
from bench.figure import percentile

CLIENTS = 8
BATCH = 100
"""Items of one `put_many`, and of one `get_many`."""


def times_ms(action: Callable[[int], object], count: int) -> list[float]:
    """How long each of so many took, after some that are not counted."""
    for number in range(count // 10):
        action(number)
    found = []
    for number in range(count):
        began = time.perf_counter()
        action(number)
        found.append((time.perf_counter() - began) * 1e3)
    return found


def shown(values_ms: Sequence[float]) -> dict[str, float]:
    """What a row of times has."""
    return {"p50_ms": statistics.median(values_ms), "p99_ms": percentile(values_ms, 99)}


def dict_get(count: int) -> dict[str, float]:
    """Reads of some entries, again and again."""
    with squall.Dict.ephemeral() as cache:
        cache.update({number: number for number in range(100)})
        return shown(times_ms(lambda number: cache.get(number % 100), count))


def dict_put(count: int) -> dict[str, float]:
    """Writes, each of which outlives the server when it returns."""
    with squall.Dict.ephemeral() as cache:
        return shown(times_ms(lambda number: cache.put(number % 100, number), count))


def dict_rate(count: int) -> dict[str, float]:
    """Operations of several clients at once, one read for each write."""
    with squall.Dict.ephemeral() as cache:
        return {"ops_per_s": together("dict_client", CLIENTS, cache.object_id, count)}


def dict_client(dict_id: str, count: int, begin: Callable[[], None]) -> int:
    """One of them."""
    cache = squall.Dict.from_id(dict_id)
    cache.put("first", 0)
    begin()
    for number in range(count // 2):
        cache.put(number % 100, number)
        cache.get(number % 100)
    return count


def queue_rate(count: int) -> dict[str, float]:
    """Items through a queue, from some clients to others."""
    with squall.Queue.ephemeral() as jobs:
        return {"items_per_s": together("queue_client", 4, jobs.object_id, count)}


def queue_client(queue_id: str, count: int, begin: Callable[[], None]) -> int:
    """One that puts items and takes as many, whoever has put them."""
    jobs = squall.Queue.from_id(queue_id)
    jobs.len()
    begin()
    for _ in range(count // BATCH):
        jobs.put_many(list(range(BATCH)))
        left = BATCH
        while left:
            left -= len(jobs.get_many(left))
    return count


def together(client: str, client_count: int, asset_id: str, count: int) -> float:
    """The rate of several processes that begin when all are ready."""
    command = [sys.executable, __file__, client, str(count), asset_id]
    pipe = subprocess.PIPE
    clients = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(client_count)]
    for one in clients:
        assert one.stdout is not None
        one.stdout.readline()
    began = time.perf_counter()
    for one in clients:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    done = [int(one.communicate()[0]) for one in clients]
    return sum(done) / (time.perf_counter() - began)


def queue_wake(count: int) -> dict[str, float]:
    """From a `put` until the `get` of another process that waited for it has returned."""
    with squall.Queue.ephemeral() as jobs:
        command = [sys.executable, __file__, "queue_waiter", str(count), jobs.object_id]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiter:
            assert waiter.stdout is not None
            found = []
            waiter.stdout.readline()
            for _ in range(count):
                time.sleep(0.02)
                began = time.monotonic()
                jobs.put(None)
                after_put = time.monotonic()
                woken = float(waiter.stdout.readline())
                found.append(((woken - began) * 1e3, (woken - after_put) * 1e3))
    whole = shown([one for one, _ in found])
    return {**whole, "after_put_ms": statistics.median(one for _, one in found)}


def queue_waiter(queue_id: str, count: int, begin: Callable[[], None]) -> None:
    """The one that waits: says when it has each item."""
    jobs = squall.Queue.from_id(queue_id)
    jobs.len()
    print("ready", flush=True)
    for _ in range(count):
        jobs.get()
        print(time.monotonic(), flush=True)


def ready() -> None:
    """Say so, and wait for the others."""
    print("ready", flush=True)
    sys.stdin.readline()


MEASUREMENTS = {one.__name__: one for one in (dict_get, dict_put, dict_rate, queue_rate, queue_wake)}
CLIENT_PARTS = {one.__name__: one for one in (dict_client, queue_client, queue_waiter)}

if __name__ == "__main__":
    name, times = sys.argv[1], int(sys.argv[2])
    if name in MEASUREMENTS:
        print(json.dumps(MEASUREMENTS[name](times)))
    else:
        result = CLIENT_PARTS[name](sys.argv[3], times, ready)
        if result is not None:
            print(result)
