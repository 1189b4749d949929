"""Work in threads that nobody leaves behind: a thread that has begun is waited for, also by who is cancelled.

What a thread works on, a descriptor or a buffer, is its starter's, who gives it up when the work is over. A number that
is closed too early is another file's a moment later, and the thread writes there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import Executor
from typing import Any, TypeVar

R = TypeVar("R")


async def aside(executor: Executor, work: Callable[[], R]) -> R:
    """The result of work in a thread. Cancelled, it ends when the work has."""
    doing: asyncio.Future[R] = asyncio.get_running_loop().run_in_executor(executor, work)
    await _ended([doing])
    return doing.result()


async def together(waiting: Iterable[Coroutine[Any, Any, R]]) -> list[R]:
    """The results of all; when one fails, or this is cancelled, the others are given up, and have ended by then."""
    tasks = [asyncio.ensure_future(one) for one in waiting]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await _ended(tasks)
        for task in tasks:
            # Whoever raised first has been heard; nobody asks for the others.
            if not task.cancelled():
                task.exception()


async def _ended(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Return, or be cancelled, when all of these have ended and not before."""
    cancelled: asyncio.CancelledError | None = None
    left = [one for one in futures if not one.done()]
    while left:
        try:
            await asyncio.wait(left)
        except asyncio.CancelledError as error:
            cancelled = error
        left = [one for one in left if not one.done()]
    if cancelled is not None:
        raise cancelled
