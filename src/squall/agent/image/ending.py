"""What has to be done at an end, however often whoever does it is cancelled meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """When this returns or raises, all of it is done.

    For what takes back, in a `finally`, what others are given next.

    Raises:
        CancelledError: somebody cancelled this meanwhile; else what the work raises.
    """
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        # Seen, so that asyncio does not complain of an exception nobody waits for any more.
        task.exception()
        raise cancelled
    task.result()
