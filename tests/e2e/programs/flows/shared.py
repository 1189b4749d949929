"""Functions that share dicts and queues, by name and by handle."""

from __future__ import annotations

import squall

app = squall.App("shared")
other_app = squall.App("shared-too")


@app.function(max_containers=8, min_containers=4)
def lock(number: int) -> bool:
    """Whether this input got it."""
    locks = squall.Dict.from_name("e2e-locks", create_if_missing=True)
    return locks.put("lock", (number, squall.current_input_id()), skip_if_exists=True)


@app.function(max_containers=8, min_containers=4)
def count(number: int) -> None:
    """Add one to what is in the dict, under its lock."""
    counts = squall.Dict.from_name("e2e-counts")
    turns = squall.Queue.from_name("e2e-turns")
    turn = turns.get()
    counts["total"] = counts["total"] + 1
    turns.put(turn)


@app.function()
def note(cache: squall.Dict, key: str, value: object) -> squall.Dict:
    """Put it where the caller says, and give the handle back."""
    cache[key] = value
    return cache


@other_app.function()
def look(cache: squall.Dict, key: str) -> object:
    """What is there."""
    return cache[key]


@app.function(max_containers=4)
def take(jobs: squall.Queue) -> object:
    """Wait for an item."""
    return jobs.get()


@app.function()
def put(jobs: squall.Queue, value: object) -> None:
    """Bring one."""
    jobs.put(value)


@app.function()
async def take_many(jobs: squall.Queue, count: int) -> list[object]:
    """Wait for so many, in an event loop."""
    return [await jobs.get.aio() for _ in range(count)]


@app.function()
def own() -> tuple[str, object]:
    """A dict of this container's own, while this runs."""
    with squall.Dict.ephemeral() as cache:
        cache["k"] = 1
        return cache.object_id, cache["k"]
