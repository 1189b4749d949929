"""When a batch is run, and how large it is.

Waiting for more makes batches fuller, and the first input slower: it waits for at most `wait_ms`. An input that came
back, since its container is gone, has waited already.
"""

from __future__ import annotations

from squall.protocol.function import Batching


def size_now(batching: Batching, queued: int, oldest_at: float, now: float) -> int:
    """How many inputs make the next batch; 0 where more are to be waited for.

    Args:
        queued: how many wait.
        oldest_at: when the first of them came.
    """
    if queued >= batching.max_batch_size:
        return batching.max_batch_size
    return queued if now >= due_at(batching, oldest_at) else 0


def due_at(batching: Batching, oldest_at: float) -> float:
    """When a batch is run however few there are."""
    return oldest_at + batching.wait_ms / 1000


def batches_of(batching: Batching, inputs: int) -> int:
    """How many batches so many inputs make."""
    return -(-inputs // batching.max_batch_size)
