"""Group commit: writes that come while a transaction is being committed share the next one.

No timer: a lone write is committed at once, and the slower the disk, the more writes share its wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError

from squall.protocol.errors import UNAVAILABLE, PlatformError

WRITES_MAX = 1_000
"""Writes in one transaction at most, so that one transaction never takes long."""

Apply = Callable[[Connection, Sequence[Any]], list[Any]]
"""Carries out several writes of one kind in order and says the result of each."""


class _Write(NamedTuple):
    apply: Apply
    value: Any
    done: asyncio.Future[Any]


class GroupCommit:
    """Commits writes in order, on one thread. Close it before its engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, "store-write")
        self._waiting: list[_Write] = []
        self._committing: asyncio.Task[None] | None = None
        self._is_closed = False

    async def write(self, apply: Apply, value: Any) -> Any:
        """Commit one write; returns its result once it is on disk.

        Being cancelled does not undo it: it is committed or not, as after a crash.
        """
        if self._is_closed:
            raise PlatformError(UNAVAILABLE, "the store is closed; the server is stopping")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        self._waiting.append(_Write(apply, value, done))
        if self._committing is None:
            self._committing = loop.create_task(self._commit_all())
        return await done

    async def close(self) -> None:
        """Commit what waits, then stop."""
        self._is_closed = True
        if self._committing is not None:
            await self._committing
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
        self._committing = None

    # On the thread

    def _commit(self, writes: list[_Write]) -> list[Any]:
        try:
            return self._commit_together(writes)
        except (OperationalError, InterfaceError) as error:
            # The database itself: asking it again for each of them would only take longer.
            return [error] * len(writes)
        except Exception as error:  # noqa: BLE001 - whatever one write raises is the result of that write alone
            if len(writes) == 1:
                return [error]
        # One of them is refused. A savepoint for each would cost every transaction for the sake of this rare one.
        return [self._commit([write])[0] for write in writes]

    def _commit_together(self, writes: list[_Write]) -> list[Any]:
        results: list[Any] = []
        with self._engine.begin() as connection:
            start = 0
            while start < len(writes):
                end = start + 1
                while end < len(writes) and writes[end].apply == writes[start].apply:
                    end += 1
                results += writes[start].apply(connection, [write.value for write in writes[start:end]])
                start = end
        return results
