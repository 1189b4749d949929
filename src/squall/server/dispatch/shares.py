"""How much of something bounded each app has, so that the containers of one keep those of others out of nothing."""

from __future__ import annotations

from collections import Counter


class Shares:
    """Counts by root app: those of an app and of all started from it are one. Outside of containers that is no app."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def __getitem__(self, root_app_id: str) -> int:
        return self._counts[root_app_id]

    def __len__(self) -> int:
        """How many apps have a share; one that has nothing any more is forgotten."""
        return len(self._counts)

    def add(self, root_app_id: str, count: int = 1) -> None:
        """It has so many more, or fewer."""
        self._counts[root_app_id] += count
        if not self._counts[root_app_id]:
            del self._counts[root_app_id]
