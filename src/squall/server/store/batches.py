"""Lists in pieces that fit into a statement, or into memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

# SQLite allows 32,766 parameters in a statement, PostgreSQL 65,535; lists stay far below.
NAMES_MAX = 500


def batches(items: Sequence[T], size: int = NAMES_MAX) -> Iterator[list[T]]:
    """The items, so many at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def within(items: Sequence[T], sizes: Sequence[int], count_max: int, size_max: int) -> Iterator[list[T]]:
    """The items, so many at a time that their sizes come to no more than that: one at least."""
    batch: list[T] = []
    left = size_max
    for item, size in zip(items, sizes, strict=True):
        if batch and (size > left or len(batch) == count_max):
            yield batch
            batch, left = [], size_max
        batch.append(item)
        left -= size
    if batch:
        yield batch
