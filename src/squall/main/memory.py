"""Gives the machine back what a busy hour has left: memory that is free and that the C library keeps."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

PERIOD_S = 5.0
_M_ARENA_MAX = -8
GROWN_BYTES_MIN = 8 * 2**20
"""Less than this is not worth the milliseconds that looking through the heap takes."""


@asynccontextmanager
async def memory_given_back(period_s: float = PERIOD_S) -> AsyncIterator[None]:
    """While the context is open: whenever what this process has and does not use has grown, give it back.

    To be entered before threads are started: the C library would give each a heap of its own, and of those it returns
    only what is not at their end.
    """
    trim = _find_trim()
    if trim is not None:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
    running = asyncio.ensure_future(_run(trim, period_s)) if trim is not None else None
    try:
        yield
    finally:
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def _run(trim: Callable[[int], int], period_s: float) -> None:
    in_use_bytes = _find_in_use_bytes()
    floor_bytes = resident_bytes() - in_use_bytes()
    while True:
        await asyncio.sleep(period_s)
        unused_bytes = resident_bytes() - in_use_bytes()
        if unused_bytes - floor_bytes >= GROWN_BYTES_MIN:
            # In a thread, and without the interpreter's lock: requests go on.
            await asyncio.to_thread(trim, 0)
            floor_bytes = resident_bytes() - in_use_bytes()
        else:
            floor_bytes = min(floor_bytes, unused_bytes)


_MALLINFO_FIELDS = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


class _Mallinfo(ctypes.Structure):
    """`struct mallinfo2` of malloc.h."""

    _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO_FIELDS]


def _find_in_use_bytes() -> Callable[[], int]:
    """What programs hold of the C library; where it does not tell (before glibc 2.33), all counts as unused."""
    found = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if found is None:
        return lambda: 0
    found.restype = _Mallinfo

    def in_use_bytes() -> int:
        info = found()
        return int(info.uordblks + info.hblkhd)

    return in_use_bytes


def _find_trim() -> Callable[[int], int] | None:
    """glibc's malloc_trim; None with another C library, which keeps less."""
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return found


def resident_bytes() -> int:
    """What of this process is in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
