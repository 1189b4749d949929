"""Lists in pieces that fit into a statement."""

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
