"""Log lines, cut into batches that fit a frame whatever is in them."""

from __future__ import annotations

from collections.abc import Iterator

from squall.protocol.log import LogEntry

BATCH_LINES = 500
BATCH_BYTES = 2**20
"""Of lines as a frame has them, about: the last one of a batch may go over it."""
CHARACTER_BYTES_MAX = 6
"""Of JSON: a control character takes that many."""
ENTRY_BYTES = 500
"""At most, beside the text and the input: the names of the fields, ids and numbers."""


def next_batch(entries: Iterator[LogEntry]) -> tuple[LogEntry, ...]:
    """The first of these that go together; none when there are none left."""
    batch: list[LogEntry] = []
    batch_bytes = 0
    while len(batch) < BATCH_LINES and batch_bytes < BATCH_BYTES and (entry := next(entries, None)) is not None:
        batch.append(entry)
        batch_bytes += _frame_bytes_max(entry)
    return tuple(batch)


def batches(entries: Iterator[LogEntry]) -> Iterator[tuple[LogEntry, ...]]:
    """All of these, in order."""
    while batch := next_batch(entries):
        yield batch


def _frame_bytes_max(entry: LogEntry) -> int:
    # An upper bound, not what it is: to encode each line twice would cost more than smaller batches do.
    return CHARACTER_BYTES_MAX * (len(entry.text) + len(entry.input_id)) + ENTRY_BYTES
