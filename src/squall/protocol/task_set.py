"""Owners of background activities: no task runs without one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from squall.protocol.errors import INTERNAL, PlatformError

AGAIN_S, AGAIN_S_MAX = 1.0, 60.0
"""Until an activity begins again that has failed: after the first time, and after many that follow each other."""

_log = logging.getLogger("squall.protocol.task_set")


@contextlib.contextmanager
def going_on(what: str) -> Iterator[None]:
    """One round of something that goes on for ever: what fails of it is logged, and the next round may be better.

    Args:
        what: has failed then, in words.
    """
    try:
        yield
    except (OSError, PlatformError) as error:
        _log.warning("%s: %s; trying again", what, error)
    except Exception:  # noqa: BLE001 - top of a loop: one bad round must not end all others
        _log.exception("%s; trying again", what)


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

    def keep(self, activity: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Future[Any]:
        """Run an activity that goes on for ever; one that fails all the same begins again, after a pause."""
        return self.start(_again_and_again(activity))

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


async def _again_and_again(activity: Callable[[], Coroutine[Any, Any, None]]) -> None:
    loop = asyncio.get_running_loop()
    pause_s = AGAIN_S
    is_over = False
    while True:
        began = loop.time()
        with going_on(f"a lasting activity has failed ({getattr(activity, '__qualname__', activity)})"):
            await activity()
            is_over = True
        if is_over:
            return
        if loop.time() - began > AGAIN_S_MAX:
            pause_s = AGAIN_S
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, AGAIN_S_MAX)
