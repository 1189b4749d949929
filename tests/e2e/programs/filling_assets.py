"""Puts into a queue and a dict while the disk gets full; says what was acknowledged, and what was refused how."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import squall

folder = Path(sys.argv[1])
jobs = squall.Queue.from_name("jobs", create_if_missing=True)
cache = squall.Dict.from_name("cache", create_if_missing=True)
PIECE = b"x" * 500_000
PER_PARTITION = 100


def put_until_refused(what: str, first: int, put: Callable[[int], Any]) -> int:
    """The number of the one that was refused."""
    number = first
    while number < first + 1_000:
        try:
            put(number)
        except squall.exception.Error as error:
            print(f"{what}: {type(error).__name__}: {error}", flush=True)
            return number
        number += 1
    print(f"{what}: there was room for all", flush=True)
    return number


def queued(number: int) -> None:
    jobs.put((number, PIECE), partition=f"p{number // PER_PARTITION}")


def cached(number: int) -> None:
    cache[number] = PIECE


def wait_for(name: str) -> None:
    while not (folder / name).exists():
        time.sleep(0.05)


items = put_until_refused("queue", 0, queued)
entries = put_until_refused("dict", 0, cached)
(folder / "refused").touch()
wait_for("full")
items = put_until_refused("queue on a full disk", items, queued)
entries = put_until_refused("dict on a full disk", entries, cached)
(folder / "tried").touch()
wait_for("room")
partitions = range(items // PER_PARTITION + 1)
kept = [item[0] for key in partitions for item in jobs.iterate(partition=f"p{key}")]
print("queue kept:", kept == list(range(items)), items)
print("dict kept:", sorted(cache.keys()) == list(range(entries)), entries)
jobs.put("again")
cache["again"] = "again"
print("again:", jobs.get(), cache["again"])
