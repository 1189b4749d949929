"""Entries of dicts that were read or written lately, as the store has them: most reads ask no database.

Whoever writes says so when the store has it. A read that was under way then keeps nothing here: it may have seen what
was there before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from squall.server.model.dict import EntryKey, StoredEntry

CACHE_BYTES_MAX = 64 * 2**20
ENTRY_BYTES_MAX = 2**18
"""Of the value of an entry that is kept here."""
ENTRY_COST_BYTES = 400
"""What an entry is in memory beside its key and value."""

_Place = tuple[EntryKey, int]
"""With how often its dict had been cleared."""


@dataclass(slots=True)
class Reading:
    """A question to the store that is not answered yet."""

    place: _Place
    is_stale: bool = False


class DictCache:
    """Bounded; what was used longest ago goes first."""

    def __init__(self, bytes_max: int = CACHE_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._entries: dict[_Place, StoredEntry | None] = {}
        """None where it is known that there is no entry."""
        self.size_bytes = 0
        self._clears: dict[str, int] = {}
        self._readings: dict[_Place, list[Reading]] = {}

    def _place(self, key: EntryKey) -> _Place:
        return key, self._clears.get(key.dict_id, 0)

    def find(self, key: EntryKey) -> tuple[bool, StoredEntry | None]:
        """Whether it is known, and the entry, if there is one."""
        place = self._place(key)
        if place not in self._entries:
            return False, None
        # The last used ones are at the end.
        entry = self._entries[place] = self._entries.pop(place)
        return True, entry

    def begin(self, key: EntryKey) -> Reading:
        """The store is about to be asked; `end` must follow."""
        reading = Reading(self._place(key))
        self._readings.setdefault(reading.place, []).append(reading)
        return reading

    def end(self, reading: Reading) -> None:
        """The store has answered, or failed."""
        readings = self._readings[reading.place]
        readings.remove(reading)
        if not readings:
            del self._readings[reading.place]

    def read(self, reading: Reading, entry: StoredEntry | None) -> None:
        """What the store has said."""
        if not reading.is_stale:
            self._keep(reading.place, entry)

    def written(self, key: EntryKey, entry: StoredEntry | None) -> None:
        """The store has this entry now, or None."""
        self.unknown(key)
        self._keep(self._place(key), entry)

    def unknown(self, key: EntryKey) -> None:
        """Something has become of it."""
        place = self._place(key)
        for reading in self._readings.get(place, ()):
            reading.is_stale = True
        self._drop(place)

    def cleared(self, dict_id: str) -> None:
        """The store has no entry of it any more."""
        self._clears[dict_id] = self._clears.get(dict_id, 0) + 1

    def deleted(self, dict_id: str) -> None:
        """Nobody asks for it any more; what is here of it goes by and by."""
        self._clears.pop(dict_id, None)

    def used(self, key: EntryKey, entry: StoredEntry, at: float) -> None:
        """It was noted that it is used."""
        place = self._place(key)
        if self._entries.get(place) is entry:
            self._entries[place] = replace(entry, used_at=at)

    def expired(self, keys: Iterable[EntryKey]) -> None:
        """The store has forgotten them."""
        for key in keys:
            self.unknown(key)

    def _keep(self, place: _Place, entry: StoredEntry | None) -> None:
        self._drop(place)
        if entry is not None and len(entry.value) > ENTRY_BYTES_MAX:
            return
        self._entries[place] = entry
        self.size_bytes += _cost_of(entry)
        while self.size_bytes > self._bytes_max:
            self._drop(next(iter(self._entries)))

    def _drop(self, place: _Place) -> None:
        if place in self._entries:
            self.size_bytes -= _cost_of(self._entries.pop(place))


def _cost_of(entry: StoredEntry | None) -> int:
    return ENTRY_COST_BYTES + (len(entry.key) + len(entry.value) if entry is not None else 0)
