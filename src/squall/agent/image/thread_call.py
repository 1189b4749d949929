"""Calls in a thread that are over when the wait for them is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


async def run_whole(executor: Executor, call: Callable[[], T]) -> T:
    """Call in a thread. When this returns, cancelled or not, the call is over, or never began.

    For what writes into a directory that is removed next, or takes holds that are let go next.
    """
    begun = executor.submit(call)
    running = asyncio.wrap_future(begun)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if not begun.cancel():
            await asyncio.wait([running])
            # Seen, so that asyncio does not complain of an exception nobody waits for any more.
            running.exception()
        raise
