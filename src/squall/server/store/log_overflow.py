"""Log lines that came faster than somebody takes them: they are counted, and the last ones of each container kept.

Apart for each source, so that endless output does not cost the traceback behind it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from squall.protocol.log import SYSTEM, LogEntry

LAST_ENTRIES = 100
"""Of each source of a container."""
BYTES_MAX = 8 * 2**20
"""Of all that are kept; then those of who has more to say give way to what he says."""
COUNTED_MAX = 10_000
"""Containers with an account of their own; the lines of others are their app's."""
ENTRY_BYTES = 200
"""What a line counts beside its text."""


@dataclass(slots=True)
class _Last:
    """Of one source of one container."""

    entries: deque[tuple[int, LogEntry]] = field(default_factory=deque)
    """Each with its place among all."""
    dropped: int = 0
    at: float = 0.0
    """When the last of those was written."""
    function_id: str = ""
    variant_id: str = ""
    """What that was of."""


class Overflow:
    """Bounded; what is taken out of it is what a reader sees in the place of all that came."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], dict[str, _Last]] = {}
        """By app and container, and by source. Not all lines are a container's."""
        self._bytes = 0
        self._came = 0

    def __bool__(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._last)

    def has(self, app_id: str, container_id: str) -> bool:
        """Whether there is anything of this container, or may be."""
        return any(key in self._last for key in _keys(app_id, container_id))

    def count(self, entry: LogEntry) -> None:
        """A line is lost."""
        self._count(self._of(entry), entry)

    def add(self, entry: LogEntry) -> None:
        """A line has no place."""
        if entry.dropped:
            # What it says would soon be wrong: it goes into what is said next.
            self.count(entry)
            return
        last = self._of(entry)
        self._came += 1
        last.entries.append((self._came, entry))
        self._bytes += entry_bytes(entry)
        while len(last.entries) > LAST_ENTRIES or (last.entries and self._bytes > BYTES_MAX):
            _, dropped = last.entries.popleft()
            self._bytes -= entry_bytes(dropped)
            self._count(last, dropped)

    def take(self, *, app_id: str = "", container_id: str = "") -> list[LogEntry]:
        """What stands for the lines of a container, an app or all: how many are left out, then the last ones.

        With those of a container come the ones that are only known to be of its app.
        """
        keys = _keys(app_id, container_id) if container_id else [key for key in self._last if app_id in ("", key[0])]
        return [entry for key in keys if key in self._last for entry in self._account(key, self._last.pop(key))]

    def _of(self, entry: LogEntry) -> _Last:
        key = (entry.app_id, entry.container_id)
        if len(self._last) >= COUNTED_MAX and key not in self._last:
            key = (entry.app_id, "")
        return self._last.setdefault(key, {}).setdefault(entry.source, _Last())

    @staticmethod
    def _count(last: _Last, entry: LogEntry) -> None:
        last.dropped += entry.dropped or 1
        last.at, last.function_id, last.variant_id = entry.at, entry.function_id, entry.variant_id

    def _account(self, key: tuple[str, str], sources: dict[str, _Last]) -> list[LogEntry]:
        said = [_dropped_entry(key, last) for last in sources.values() if last.dropped]
        placed = sorted((pair for last in sources.values() for pair in last.entries), key=lambda pair: pair[0])
        entries = [entry for _, entry in placed]
        self._bytes -= sum(map(entry_bytes, entries))
        return said + entries


def _keys(app_id: str, container_id: str) -> list[tuple[str, str]]:
    """Where lines of a container are, the earliest first: its app's account comes before one of its own."""
    return [(app_id, ""), (app_id, container_id)]


def entry_bytes(entry: LogEntry) -> int:
    """What a line takes, about."""
    return len(entry.text) + ENTRY_BYTES


def _dropped_entry(key: tuple[str, str], last: _Last) -> LogEntry:
    """The line that stands for those that were dropped."""
    text = f"dropped {last.dropped} line{'s' if last.dropped > 1 else ''} here"
    return LogEntry(
        last.at, SYSTEM, text, key[1], "", key[0], last.function_id, dropped=last.dropped, variant_id=last.variant_id
    )
