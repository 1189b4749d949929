"""Keys in the order of ranks that change: a heap in which what is out of date is passed over."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

K = TypeVar("K")
Rank = tuple[float, ...]

_STALE_MAX = 64


class Order(Generic[K]):
    """The least rank first; a change costs the logarithm of how many there are."""

    def __init__(self) -> None:
        self._ranks: dict[K, Rank] = {}
        self._heap: list[tuple[Rank, int, K]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._ranks)

    def set(self, key: K, rank: Rank) -> None:
        """Add it, or move it."""
        if self._ranks.get(key) == rank:
            return
        self._ranks[key] = rank
        self._number += 1  # keys need no order of their own
        heapq.heappush(self._heap, (rank, self._number, key))
        if len(self._heap) > 2 * len(self._ranks) + _STALE_MAX:
            self._heap = [(rank, number, key) for number, (key, rank) in enumerate(self._ranks.items())]
            heapq.heapify(self._heap)
            self._number = len(self._heap)

    def discard(self, key: K) -> None:
        """Take it out, if it is there."""
        self._ranks.pop(key, None)

    def first(self) -> tuple[Rank, K] | None:
        """The least one."""
        while self._heap:
            rank, _, key = self._heap[0]
            if self._ranks.get(key) == rank:
                return rank, key
            heapq.heappop(self._heap)
        return None
