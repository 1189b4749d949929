"""Owners of background activities: no task runs without one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from squall.protocol.errors import INTERNAL, PlatformError

_log = logging.getLogger("squall.protocol.task_set")


class TaskSet:
    """Owns tasks: each is kept until it ends, its failure is logged, and `close` cancels and awaits what is left."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Run a coroutine under this owner."""
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, PlatformError) and error.code != INTERNAL:
            # Somebody was told, as the end of a build that fails is; where it was raised says nothing more.
            _log.info("a background activity ended: %s", error)
        elif error is not None:
            _log.error("a background activity failed", exc_info=error)

    def cancel(self) -> None:
        """Cancel all, without waiting."""
        for task in list(self._tasks):
            task.cancel()

    async def close(self) -> None:
        """Cancel all and wait until they have ended."""
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
