"""`.logs` of apps, functions and calls: lines that were printed, and those that come."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, cast

from squall.exception import InvalidError
from squall.protocol.log import STDERR, STDOUT, SYSTEM, LogBatch, LogRead
from squall.protocol.log import LogEntry as Line
from squall.protocol.records import record, replace
from squall.sdk._facade import blocking_iterator
from squall.sdk.types import LogEntry

if TYPE_CHECKING:
    from squall.sdk._client import Client

SOURCES = (STDOUT, STDERR, SYSTEM)

LogSource = Literal["stdout", "stderr", "system"]


@record
class Place:
    """Whose lines they are."""

    client: Any
    wanted: LogRead
    """Which app, and which function of it."""
    inputs: str = ""
    """How the ids of the inputs begin whose lines are meant; empty for all."""
    since: float | None = None
    """There are none before."""

    def is_theirs(self, line: Line) -> bool:
        """Whether the line is one of them."""
        return line.input_id.startswith(self.inputs)


class Logs:
    """The lines of an app or a function, oldest first."""

    def __init__(self, name: str, find: Callable[[], Awaitable[Place]]) -> None:
        self._name = name
        self._find = find

    @blocking_iterator
    async def fetch(
        self, *, since: datetime, until: datetime | None = None, source: LogSource | None = None, search_text: str = ""
    ) -> AsyncGenerator[LogEntry, None]:
        """Lines between two times that are still kept; a time without a zone is local.

        Raises:
            InvalidError: a time or the source is none.
        """
        async for entry in self._fetched(since, until, source, search_text):
            yield entry

    @blocking_iterator
    async def stream(self, timeout: float | None = None) -> AsyncGenerator[LogEntry, None]:
        """Lines as they come, until the app stops, or nothing comes for `timeout` seconds.

        Raises:
            InvalidError: `timeout` is no number of seconds above 0.
        """
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout > 0):
            raise InvalidError(f"{self._name}.stream(timeout={timeout!r}): give a number of seconds above 0, or None")
        place = await self._find()
        wanted = replace(place.wanted, is_following=True, tail=-1 if place.inputs else 0, since=place.since)
        async for entry in _read(place, wanted, timeout):
            yield entry

    @blocking_iterator
    async def tail(self, entries: int = 100, *, source: LogSource | None = None) -> AsyncGenerator[LogEntry, None]:
        """The last lines.

        Raises:
            InvalidError: `entries` is no number from 0 on, or `source` none.
        """
        if not isinstance(entries, int) or entries < 0:
            raise InvalidError(f"{self._name}.tail(entries={entries!r}): give a number from 0 on")
        self._check_source("tail", source)
        place = await self._find()
        # What is not of these inputs is among the last lines, too.
        wanted = replace(place.wanted, tail=-1 if place.inputs else entries, since=place.since, source=source or "")
        last: deque[LogEntry] = deque(maxlen=entries)
        async for entry in _read(place, wanted):
            last.append(entry)
        for entry in last:
            yield entry

    async def _fetched(
        self, since: datetime | None, until: datetime | None, source: LogSource | None, search_text: str
    ) -> AsyncGenerator[LogEntry, None]:
        for name, value in (("since", since), ("until", until)):
            if value is not None and not isinstance(value, datetime):
                raise InvalidError(f"{self._name}.fetch({name}={value!r}): give a datetime")
        self._check_source("fetch", source)
        place = await self._find()
        wanted = replace(
            place.wanted,
            tail=-1,
            since=place.since if since is None else since.timestamp(),
            until=None if until is None else until.timestamp(),
            source=source or "",
            search=search_text,
        )
        async for entry in _read(place, wanted):
            yield entry

    def _check_source(self, method: str, source: object) -> None:
        if source is not None and source not in SOURCES:
            raise InvalidError(f"{self._name}.{method}(source={source!r}): it is one of {', '.join(SOURCES)}, or None")


class CallLogs(Logs):
    """The lines that the inputs of a call printed."""

    @blocking_iterator
    async def fetch(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        source: LogSource | None = None,
        search_text: str = "",
    ) -> AsyncGenerator[LogEntry, None]:
        """Lines between two times that are still kept, from the start of the call if nothing is said.

        Raises:
            InvalidError: a time or the source is none.
        """
        async for entry in self._fetched(since, until, source, search_text):
            yield entry


async def _read(place: Place, wanted: LogRead, silence_s: float | None = None) -> AsyncGenerator[LogEntry, None]:
    client: Client = place.client
    await client.connect()
    async for batch, _ in client.stream("LogRead", wanted).items(LogBatch, silence_s):
        for line in batch.entries:
            if place.is_theirs(line):
                yield entry_of(line)


def entry_of(line: Line) -> LogEntry:
    """A line as users read it."""
    at = datetime.fromtimestamp(line.at, timezone.utc)
    ids = [one for one in (line.app_id, line.container_id, line.input_id) if one]
    object_id = line.variant_id or line.function_id or line.app_id
    return LogEntry(line.text, at, cast("LogSource", line.source), object_id, ids)
