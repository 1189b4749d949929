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
ENTRY_BYTES = 200
"""What a line counts beside its text."""


@dataclass(slots=True)
class _Last:
    """Of one source of one container."""

    entries: deque[tuple[int, LogEntry]] = field(default_factory=deque)
    """Each with its place among all."""
    dropped: int = 0
    near: LogEntry | None = None
    """One that was dropped."""


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
        """Whether there is anything of this container."""
        return (app_id, container_id) in self._last

    def count(self, entry: LogEntry) -> None:
        """A line is lost."""
        last = self._of(entry)
        last.dropped += 1
        last.near = entry

    def add(self, entry: LogEntry) -> None:
        """A line has no place."""
        last = self._of(entry)
        self._came += 1
        last.entries.append((self._came, entry))
        self._bytes += entry_bytes(entry)
        while len(last.entries) > LAST_ENTRIES or (last.entries and self._bytes > BYTES_MAX):
            _, dropped = last.entries.popleft()
            self._bytes -= entry_bytes(dropped)
            self.count(dropped)

    def take(self, *, app_id: str = "", container_id: str = "") -> list[LogEntry]:
        """What stands for the lines of a container, an app or all: how many are left out, then the last ones."""
        taken: list[LogEntry] = []
        one = (app_id, container_id)
        for key in [one] if all(one) else list(self._last):
            if key in self._last and app_id in ("", key[0]) and container_id in ("", key[1]):
                taken += self._account(self._last.pop(key))
        return taken

    def _of(self, entry: LogEntry) -> _Last:
        return self._last.setdefault((entry.app_id, entry.container_id), {}).setdefault(entry.source, _Last())

    def _account(self, sources: dict[str, _Last]) -> list[LogEntry]:
        said = [dropped_entry(last.near, last.dropped) for last in sources.values() if last.near is not None]
        placed = sorted((pair for last in sources.values() for pair in last.entries), key=lambda pair: pair[0])
        entries = [entry for _, entry in placed]
        self._bytes -= sum(map(entry_bytes, entries))
        return said + entries


def entry_bytes(entry: LogEntry) -> int:
    """What a line takes, about."""
    return len(entry.text) + ENTRY_BYTES


def dropped_entry(near: LogEntry, count: int) -> LogEntry:
    """The line that stands for `count` dropped ones, next to one of them."""
    text = f"dropped {count} line{'s' if count > 1 else ''} here"
    return LogEntry(near.at, SYSTEM, text, near.container_id, "", near.app_id, near.function_id)
