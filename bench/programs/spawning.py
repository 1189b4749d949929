"""A user's program that spawns durable calls: `spawning.py WAY COUNT` prints one JSON object.

Ways: `gather` (single spawns in an event loop), `threads`, and `map` (one `spawn_map`). The rate is that of
acknowledgements, while a container runs what was spawned; beside it stands when the last result was there.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import squall

app = squall.App("bench-spawning")

THREADS = 32


@app.function(max_containers=1)
def identity(value: int) -> int:
    """The value itself."""
    return value


def gather(count: int) -> list[str]:
    """Single spawns in one event loop."""

    async def spawn_all() -> list[str]:
        return [call.object_id for call in await asyncio.gather(*(identity.spawn.aio(n) for n in range(count)))]

    return asyncio.run(spawn_all())


def threads(count: int) -> list[str]:
    """Single spawns of many threads."""
    with ThreadPoolExecutor(THREADS) as pool:
        return [call.object_id for call in pool.map(identity.spawn, range(count))]


def spawn_map(count: int) -> list[str]:
    """One call."""
    return [identity.experimental_spawn_map(range(count)).object_id]


WAYS: dict[str, Callable[[int], list[str]]] = {"gather": gather, "threads": threads, "map": spawn_map}


def main() -> None:
    """Measure one way."""
    spawn, count = WAYS[sys.argv[1]], int(sys.argv[2])
    with app.run():
        assert identity.spawn(1).get() == 1
        started = time.perf_counter()
        call_ids = spawn(count)
        took_s = time.perf_counter() - started
        calls = [squall.FunctionCall.from_id(call_id) for call_id in call_ids]
        results = list(calls[0].iter()) if len(calls) == 1 else squall.FunctionCall.gather(*calls)
        done_s = time.perf_counter() - started
    assert results == list(range(count)), "results were lost or changed places"
    print(json.dumps({"inputs_per_s": count / took_s, "took_s": took_s, "done_s": done_s}))


if __name__ == "__main__":
    main()
