"""Group commit: writes that come while a transaction is being committed share the next one.

No timer: a lone write is committed at once, and the slower the disk, the more writes share its wait. Writes that need
not wait for it are with the kernel when they return, which outlives this process, and on the disk a moment later.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from squall.protocol.errors import UNAVAILABLE, PlatformError

WRITES_MAX = 1_000
"""Writes in one transaction at most, so that one transaction never takes long."""

FAILURES_MAX = 64
"""Transactions of one group the database may fail before the rest of the group fails like the last: about six bad
writes in a thousand are found."""
SPLIT_FOR_S = 2.0
"""How long finding them may take: a locked database has each transaction wait first."""

Apply = Callable[[Connection, Sequence[Any]], list[Any]]
"""Carries out several writes of one kind in order and says the result of each."""


SYNC_S = 0.5
"""So long after it returned, at most, a write that did not wait is on the disk."""

_log = logging.getLogger("squall.server.store.writes")


class _Write(NamedTuple):
    apply: Apply
    value: Any
    is_waiting: bool
    done: asyncio.Future[Any]


class _Patience:
    """Tells a refused write from a database that cannot be used: asking the latter for each write only takes longer."""

    def __init__(self, until_s: float) -> None:
        self.error: Exception | None = None
        """What the writes that are not tried any more fail with."""
        self._until_s = until_s
        self._failures_left = FAILURES_MAX

    @property
    def is_over(self) -> bool:
        return self.error is not None

    def note(self, error: Exception) -> None:
        """Count a failed transaction."""
        if not isinstance(error, (OperationalError, InterfaceError)):
            return
        self._failures_left -= 1
        is_lost = error.connection_invalidated or is_disk_full(error)
        if is_lost or self._failures_left < 0 or time.monotonic() > self._until_s:
            self.error = error


class GroupCommit:
    """Commits writes in order, on one thread. Close it before its engine.

    Args:
        sync: puts on the disk what was committed without waiting for it; None where every commit waits.
    """

    def __init__(self, engine: Engine, sync: Callable[[], None] | None = None) -> None:
        self._engine = engine
        self._sync = sync
        self._is_unsynced = False
        self._own: Connection | None = None
        """Of a database in a file of ours: kept, as it cannot go away."""
        self._own_waits = True
        self._syncing: asyncio.TimerHandle | None = None
        self._thread = ThreadPoolExecutor(1, "store-write")
        self._waiting: list[_Write] = []
        self._committing: asyncio.Task[None] | None = None
        self._is_closed = False

    async def write(self, apply: Apply, value: Any, *, is_waiting: bool = True) -> Any:
        """Commit one write; returns its result once it is on disk.

        Args:
            is_waiting: False returns it before: it outlives this process, and a loss of power once `SYNC_S` are over.

        Being cancelled does not undo it: it is committed or not, as after a crash.
        """
        if self._is_closed:
            raise PlatformError(UNAVAILABLE, "the store is closed; the server is stopping")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(_Write(apply, value, is_waiting, done))
        if self._committing is None:
            self._committing = loop.create_task(self._commit_all())
        return await done

    async def close(self) -> None:
        """Commit what waits, then stop."""
        self._is_closed = True
        if self._committing is not None:
            await self._committing
        if self._syncing is not None:
            self._syncing.cancel()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._sync_now)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_own)
        self._thread.shutdown()

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            writes, self._waiting = self._waiting[:WRITES_MAX], self._waiting[WRITES_MAX:]
            results = await loop.run_in_executor(self._thread, self._commit, writes)
            for write, result in zip(writes, results, strict=True):
                if write.done.done():
                    continue
                if isinstance(result, BaseException):
                    write.done.set_exception(result)
                else:
                    write.done.set_result(result)
            if self._is_unsynced and self._syncing is None:
                self._syncing = loop.call_later(SYNC_S, self._sync_aside)
        self._committing = None

    def _sync_aside(self) -> None:
        self._syncing = None
        if not self._is_closed:
            self._thread.submit(self._sync_now)

    # On the thread

    def _commit(self, writes: list[_Write]) -> list[Any]:
        """The result of each write, in order, or what it raised."""
        return self._commit_halves(writes, _Patience(time.monotonic() + SPLIT_FOR_S))

    def _commit_halves(self, writes: list[_Write], patience: _Patience) -> list[Any]:
        if patience.is_over:
            return [patience.error] * len(writes)
        try:
            return self._commit_together(writes)
        except Exception as error:  # noqa: BLE001 - whatever one write raises is the result of that write alone
            patience.note(error)
            if len(writes) == 1:
                return [error]
        # One of them is refused, most likely: some twenty transactions find it in a thousand. A savepoint for each
        # write would cost every transaction for the sake of this rare one.
        middle = len(writes) // 2
        return self._commit_halves(writes[:middle], patience) + self._commit_halves(writes[middle:], patience)

    def _sync_now(self) -> None:
        if self._sync is None or not self._is_unsynced:
            return
        self._is_unsynced = False
        try:
            self._sync()
        except OSError as error:
            _log.error("what was written a moment ago may not be on the disk: %s", error)

    def _commit_together(self, writes: list[_Write]) -> list[Any]:
        results: list[Any] = []
        is_waiting = self._sync is None or any(write.is_waiting for write in writes)
        with self._connection(is_waiting=is_waiting) as connection, connection.begin():
            start = 0
            while start < len(writes):
                end = start + 1
                while end < len(writes) and writes[end].apply == writes[start].apply:
                    end += 1
                results += writes[start].apply(connection, [write.value for write in writes[start:end]])
                start = end
        # One that waits takes along what was written before it.
        self._is_unsynced = not is_waiting
        return results

    @contextmanager
    def _connection(self, *, is_waiting: bool) -> Iterator[Connection]:
        if self._sync is None:
            with self._engine.connect() as connection:
                yield connection
            return
        if self._own is None:
            self._own, self._own_waits = self._engine.connect(), True
        if is_waiting != self._own_waits:
            driver: Any = self._own.connection.dbapi_connection
            driver.execute(f"PRAGMA synchronous={'FULL' if is_waiting else 'NORMAL'}")
            self._own_waits = is_waiting
        try:
            yield self._own
        except BaseException:
            self._close_own()
            raise

    def _close_own(self) -> None:
        if self._own is not None:
            # Nobody is to have one that does not wait.
            self._own.invalidate()
            self._own.close()
            self._own = None


def is_disk_full(error: DBAPIError) -> bool:
    """Whether the database says that its disk takes no more."""
    reason = str(error.orig)
    return any(words in reason for words in ("disk is full", "No space left", "disk I/O error"))
