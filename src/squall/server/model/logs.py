"""Log lines of apps, and the contract of what keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from squall.protocol.function import FunctionSpec
from squall.protocol.log import LogEntry, LogRead
from squall.protocol.records import replace


def printed_by(spec: FunctionSpec, entry: LogEntry) -> LogEntry:
    """The line as one that a container of this function or variant printed."""
    base_id = spec.variant_of or spec.function_id
    variant_id = spec.function_id if spec.variant_of else ""
    return replace(entry, app_id=spec.app_id, function_id=base_id, variant_id=variant_id)


class Progress:
    """How far one who follows is behind what came."""

    __slots__ = ("came", "taken")

    def __init__(self) -> None:
        self.came = 0
        """Entries there were to take, until now."""
        self.taken = 0
        """Those it has taken and is done with: it has asked for the next ones."""


class LogStore(Protocol):
    """Keeps log lines per app, within a budget of bytes; the oldest go first.

    In a `LogRead` given to a store, `app` and `function` are ids (whoever asks by name has looked the name up), and an
    empty field does not filter. One of `app` and `container_id` is set.
    """

    def append(self, entries: tuple[LogEntry, ...]) -> None:
        """Take lines in. Never blocks, never fails.

        Of what cannot be written as fast as it comes the last lines of each source of a container are kept; the
        others are dropped, and the container's log says so where it happened: an entry of source `system` with the
        text "dropped N lines here" and `dropped` N. So it goes with what a full disk refuses, when there is room
        again; followers have had those. Entries that are `passing` are for followers that ask for them, and not kept.
        """

    async def flush(self) -> None:
        """Wait until what was appended before can be read by `read`."""

    def read(self, query: LogRead) -> AsyncIterator[tuple[LogEntry, ...]]:
        """The lines there are that match, in the order they came, in batches; `tail` counts matching lines."""

    def follow(self, query: LogRead, progress: Progress | None = None) -> AsyncIterator[tuple[LogEntry, ...]]:
        """As `read`, then what comes later, without gap or repetition, until `finish` or until the caller leaves.

        `progress` counts what comes later from the moment it is appended.
        A reader slower than the writer loses lines in the middle, never the last ones of a source of a container, and
        reads an entry that says how many.
        """

    def finish(self, app_id: str, container_id: str = "") -> None:
        """No more lines will come of this app (or of one container of it): its followers end after the last one.

        A `follow` that begins after the app's end is told by whoever asks: it uses `read` then.
        """

    async def delete(self, app_id: str) -> None:
        """Forget an app's lines."""
