"""Reads the pipes that containers print to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

_READ_BYTES = 64 * 1024


async def read_pipe(descriptor: int, take: Callable[[bytes], None]) -> None:
    """Hand what comes out of a non-blocking pipe to `take`, until its end. The caller closes it.

    Raises:
        OSError: it cannot be read. What `take` raises ends the reading, too, and is raised.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def on_readable() -> None:
        if ended.done():
            return
        try:
            chunk = os.read(descriptor, _READ_BYTES)
            if chunk:
                take(chunk)
            else:
                ended.set_result(None)
        except BlockingIOError:
            return
        except Exception as error:  # noqa: BLE001 - raised below, where somebody waits for it
            ended.set_exception(error)

    loop.add_reader(descriptor, on_readable)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
