"""Log lines in files, within a budget (`log_segments`), and followers that hear of new ones from memory.

`append` only puts lines into a bounded queue, which one thread writes out some times a second. Lines are not synced to
disk: a crash of the machine may cost the last seconds of them, a crash of the server those of the last moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from squall.protocol.log import SYSTEM, LogEntry, LogRead
from squall.server.model.logs import Progress
from squall.server.store.log_segments import BATCH_ENTRIES, Marks, Segments

R = TypeVar("R")

QUEUE_ENTRIES_MAX = 50_000
QUEUE_BYTES_MAX = 16 * 2**20
FOLLOWER_ENTRIES_MAX = 20_000
WRITE_EVERY_S = 0.05

_log = logging.getLogger("squall.server.store.log")


class _Follower:
    """One reader of what comes: the lines it has not taken yet, bounded."""

    def __init__(self, query: LogRead, progress: Progress) -> None:
        self.query = query
        self._progress = progress
        self.waiting: deque[LogEntry] = deque()
        self.dropped = 0
        self.last: LogEntry | None = None
        self.is_joined = False
        """Whether lines that come now are for it to hear: earlier ones it reads from the files."""
        self.is_finished = False
        self.changed = asyncio.Event()

    def add(self, entry: LogEntry) -> None:
        """A line came."""
        if not self.is_joined or not matches(self.query, entry):
            return
        if len(self.waiting) >= FOLLOWER_ENTRIES_MAX:
            self.dropped += 1
            self.last = entry
        else:
            if self.dropped:
                self._say_dropped()
            self._add(entry)
        self.changed.set()

    def finish(self) -> None:
        """No more will come."""
        self.is_finished = True
        self.changed.set()

    async def batches(self) -> AsyncIterator[tuple[LogEntry, ...]]:
        """What comes, until `finish`."""
        while True:
            while batch := self._take():
                yield batch
                self._progress.taken += len(batch)
            if self.is_finished:
                return
            self.changed.clear()
            await self.changed.wait()

    def _take(self) -> tuple[LogEntry, ...]:
        batch = tuple(self.waiting.popleft() for _ in range(min(BATCH_ENTRIES, len(self.waiting))))
        if not self.waiting and self.dropped:
            self._say_dropped()
        return batch

    def _say_dropped(self) -> None:
        assert self.last is not None
        self._add(dropped_entry(self.last, self.dropped))
        self.dropped = 0

    def _add(self, entry: LogEntry) -> None:
        self.waiting.append(entry)
        self._progress.came += 1


def dropped_entry(near: LogEntry, count: int) -> LogEntry:
    """The line that stands for `count` dropped ones, next to one of them."""
    return LogEntry(near.at, SYSTEM, f"dropped {count} lines", near.container_id, "", near.app_id, near.function_id)


def matches(query: LogRead, entry: LogEntry) -> bool:
    """Whether a line is one that was asked for."""
    return (
        (not query.app or entry.app_id == query.app)
        and (not query.container_id or entry.container_id == query.container_id)
        and (not query.function or entry.function_id == query.function)
        and (not query.source or entry.source == query.source)
        and (query.since is None or entry.at >= query.since)
        and (query.until is None or entry.at < query.until)
        and (not query.search or query.search in entry.text)
    )


class FileLogStore:
    """See `LogStore`."""

    def __init__(self, folder: str, bytes_max: int) -> None:
        self._segments = Segments(Path(folder), bytes_max)
        self._queue: list[LogEntry] = []
        self._queue_bytes = 0
        self._dropped: dict[str, tuple[LogEntry, int]] = {}
        self._followers: set[_Follower] = set()
        self._thread = ThreadPoolExecutor(1, "log-write")
        self._readers = ThreadPoolExecutor(2, "log-read")
        self._has_entries = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._write_lock = asyncio.Lock()

    async def __aenter__(self) -> FileLogStore:
        """Find what is there and begin to write."""
        await self._on_thread(self._segments.open)
        self._writing = asyncio.create_task(self._write_forever())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Write what waits and end the followers."""
        for follower in self._followers:
            follower.finish()
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self.flush()
        self._thread.shutdown()
        self._readers.shutdown(cancel_futures=True)

    def append(self, entries: tuple[LogEntry, ...]) -> None:
        """See `LogStore`."""
        for entry in entries:
            if len(self._queue) >= QUEUE_ENTRIES_MAX or self._queue_bytes >= QUEUE_BYTES_MAX:
                self._drop(entry)
                continue
            if entry.container_id in self._dropped:
                self._say_dropped("", entry.container_id)
            self._take(entry)
        self._has_entries.set()

    def _take(self, entry: LogEntry) -> None:
        self._queue.append(entry)
        self._queue_bytes += len(entry.text) + 200
        for follower in self._followers:
            follower.add(entry)

    async def flush(self) -> None:
        """See `LogStore`."""
        # One at a time: lines that another flush took out of the queue must be written before this one returns.
        async with self._write_lock:
            self._say_dropped("", "")
            entries, self._queue, self._queue_bytes = self._queue, [], 0
            if not entries:
                return
            try:
                await self._on_thread(lambda: self._segments.write(entries))
            except OSError as error:
                _log.error("cannot write log lines: %s; free space, or lower the budget of logs", error)
                for entry in entries:
                    self._drop(entry)

    def _drop(self, entry: LogEntry) -> None:
        _, count = self._dropped.get(entry.container_id, (entry, 0))
        self._dropped[entry.container_id] = (entry, count + 1)

    def _say_dropped(self, app_id: str, container_id: str) -> None:
        """Put what stands for dropped lines of an app, a container or all into the queue."""
        for name, (entry, count) in list(self._dropped.items()):
            if (not app_id or entry.app_id == app_id) and (not container_id or name == container_id):
                del self._dropped[name]
                self._take(dropped_entry(entry, count))

    async def read(self, query: LogRead) -> AsyncIterator[tuple[LogEntry, ...]]:
        """See `LogStore`."""
        await self.flush()
        marks = await self._on_thread(self._segments.marks)
        async for batch in self._read_files(query, marks):
            yield batch

    async def follow(self, query: LogRead, progress: Progress | None = None) -> AsyncIterator[tuple[LogEntry, ...]]:
        """See `LogStore`."""
        follower = _Follower(query, progress or Progress())
        # From the first moment, so that a `finish` while the files are read is not missed.
        self._followers.add(follower)
        try:
            await self.flush()
            # Nothing is being written while the lock is held: the files end where the queue begins, and from the queue
            # on the follower hears of every line.
            async with self._write_lock:
                follower.is_joined = True
                for entry in self._queue:
                    follower.add(entry)
                marks = await self._on_thread(self._segments.marks)
            async for batch in self._read_files(query, marks):
                yield batch
            async for batch in follower.batches():
                yield batch
        finally:
            self._followers.discard(follower)

    def finish(self, app_id: str, container_id: str = "") -> None:
        """See `LogStore`."""
        self._say_dropped(app_id, container_id)
        for follower in self._followers:
            query = follower.query
            if query.container_id == container_id if container_id else query.app == app_id:
                follower.finish()

    async def delete(self, app_id: str) -> None:
        """See `LogStore`."""
        await self.flush()
        await self._on_thread(lambda: self._segments.delete(app_id))

    async def _read_files(self, query: LogRead, marks: Marks) -> AsyncIterator[tuple[LogEntry, ...]]:
        loop = asyncio.get_running_loop()
        batches = self._segments.read(query, lambda entry: matches(query, entry), marks)
        while (batch := await loop.run_in_executor(self._readers, next, batches, None)) is not None:
            yield batch

    async def _write_forever(self) -> None:
        while True:
            await self._has_entries.wait()
            self._has_entries.clear()
            await self.flush()
            # Lines of this time go to disk together.
            await asyncio.sleep(WRITE_EVERY_S)

    async def _on_thread(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
