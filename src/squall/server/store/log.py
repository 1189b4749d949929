"""Log lines in files, within a budget (`log_segments`), and followers that hear of new ones from memory.

`append` only puts lines into a bounded queue, which one thread writes out some times a second. Lines are not synced to
disk: a crash of the machine may cost the last seconds of them, a crash of the server those of the last moment. What a
full disk does not take is tried again: the last lines of each source of a container, and how many were before them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from squall.protocol.log import PASSING, LogEntry, LogRead
from squall.protocol.log_batches import next_batch
from squall.protocol.task_set import TaskSet
from squall.server.model.logs import Progress
from squall.server.store.log_overflow import Overflow, entry_bytes
from squall.server.store.log_segments import Marks, NotWritten, Segments

R = TypeVar("R")

QUEUE_ENTRIES_MAX = 50_000
QUEUE_BYTES_MAX = 16 * 2**20
FOLLOWER_ENTRIES_MAX = 20_000
FOLLOWER_BYTES_MAX = 16 * 2**20
PASSING_BEHIND_MAX = 100
"""Who is further behind is not told what is there of lines that go on."""
WRITE_EVERY_S = 0.05
RETRY_S = 1.0
"""After the disk has taken no more."""

_log = logging.getLogger("squall.server.store.log")


class _Follower:
    """One reader of what comes: the lines it has not taken yet, bounded."""

    def __init__(self, query: LogRead, progress: Progress) -> None:
        self.query = query
        self._progress = progress
        self._waiting: deque[LogEntry] = deque()
        self._waiting_bytes = 0
        self._overflow = Overflow()
        self.is_joined = False
        """Whether lines that come now are for it to hear: earlier ones it reads from the files."""
        self.is_finished = False
        self.changed = asyncio.Event()

    def add(self, entry: LogEntry) -> None:
        """A line came."""
        if not self.is_joined or not matches(self.query, entry):
            return
        if entry.stage == PASSING:
            # Left out, never counted: the whole line comes.
            if self.query.has_passing and len(self._waiting) < PASSING_BEHIND_MAX and not self._overflow:
                self._add(entry)
                self.changed.set()
            return
        if len(self._waiting) >= FOLLOWER_ENTRIES_MAX or self._waiting_bytes >= FOLLOWER_BYTES_MAX:
            self._overflow.add(entry)
        else:
            self._take_overflow()
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
        batch = next_batch(self._waiting.popleft() for _ in range(len(self._waiting)))
        self._waiting_bytes -= sum(map(entry_bytes, batch))
        if not self._waiting:
            self._take_overflow()
        return batch

    def _take_overflow(self) -> None:
        if self._overflow:
            for entry in self._overflow.take():
                self._add(entry)

    def _add(self, entry: LogEntry) -> None:
        self._waiting.append(entry)
        self._waiting_bytes += entry_bytes(entry)
        self._progress.came += 1


def matches(query: LogRead, entry: LogEntry) -> bool:
    """Whether a line is one that was asked for."""
    return (
        (not query.app or entry.app_id == query.app)
        and (not query.container_id or entry.container_id == query.container_id)
        and (not query.function or _is_of_function(query, entry))
        and (not query.source or entry.source == query.source)
        and (query.since is None or entry.at >= query.since)
        and (query.until is None or entry.at < query.until)
        and (not query.search or query.search in entry.text)
    )


def _is_of_function(query: LogRead, entry: LogEntry) -> bool:
    if query.function in (entry.variant_id, entry.function_id):
        return query.has_variants or query.function == (entry.variant_id or entry.function_id)
    return False


class FileLogStore:
    """See `LogStore`."""

    def __init__(self, folder: str, bytes_max: int) -> None:
        self._segments = Segments(Path(folder), bytes_max)
        self._queue: list[LogEntry] = []
        self._queue_bytes = 0
        self._overflow = Overflow()
        self._unwritten = Overflow()
        """What the disk did not take. Followers have had it."""
        self._is_refused = False
        """Whether the disk took not all the last time."""
        self._followers: set[_Follower] = set()
        self._thread = ThreadPoolExecutor(1, "log-write")
        self._readers = ThreadPoolExecutor(2, "log-read")
        self._has_entries = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._write_lock = asyncio.Lock()
        self._tasks = TaskSet()

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
            if entry.stage == PASSING:
                for follower in self._followers:
                    follower.add(entry)
                continue
            if len(self._queue) >= QUEUE_ENTRIES_MAX or self._queue_bytes >= QUEUE_BYTES_MAX:
                self._overflow.add(entry)
                continue
            if self._overflow.has(entry.app_id, entry.container_id):
                self._take_overflow(app_id=entry.app_id, container_id=entry.container_id)
            self._take(entry)
        self._has_entries.set()

    def _take(self, entry: LogEntry) -> None:
        self._queue.append(entry)
        self._queue_bytes += entry_bytes(entry)
        for follower in self._followers:
            follower.add(entry)

    async def flush(self) -> None:
        """See `LogStore`. Carried out to the end, whatever becomes of who asked: what the disk refuses is put back."""
        await asyncio.shield(self._tasks.start(self._flush()))

    async def _flush(self) -> None:
        # One at a time: lines that another flush took out of the queue must be written before this one returns.
        async with self._write_lock:
            self._take_overflow()
            entries = [*self._unwritten.take(), *self._queue]
            self._queue, self._queue_bytes = [], 0
            if not entries:
                return
            try:
                await self._on_thread(lambda: self._segments.write(entries))
            except NotWritten as error:
                if not self._is_refused:
                    _log.error("cannot write log lines: %s; free space, or lower the budget of logs", error.__cause__)
                for entry in error.entries:
                    self._unwritten.add(entry)
                self._is_refused = True
                self._has_entries.set()
            else:
                if self._is_refused:
                    _log.warning("log lines are written again")
                self._is_refused = False

    def _take_overflow(self, *, app_id: str = "", container_id: str = "") -> None:
        """Put what stands for lines of an app, a container or all into the queue."""
        for entry in self._overflow.take(app_id=app_id, container_id=container_id):
            self._take(entry)

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
        self._take_overflow(app_id=app_id, container_id=container_id)
        for follower in self._followers:
            query = follower.query
            if query.container_id == container_id if container_id else query.app == app_id:
                follower.finish()

    async def delete(self, app_id: str) -> None:
        """See `LogStore`."""
        await self.flush()
        self._unwritten.take(app_id=app_id)
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
            await asyncio.sleep(RETRY_S if self._is_refused else WRITE_EVERY_S)

    async def _on_thread(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
