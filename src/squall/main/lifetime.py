"""When a program ends: a signal, a request, or nobody wanting anything for long."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, Protocol

IDLE_LOOKS = 10
IDLE_PERIOD_S_MAX = 5.0


class Idler(Protocol):
    """Something that knows whether it is wanted."""

    @property
    def is_idle(self) -> bool:
        """Nothing runs, is deployed or connected."""

    @property
    def visit_count(self) -> int:
        """How often somebody has come; short visits are seen by this alone."""


def stop_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def first_of(reasons: dict[str, Coroutine[Any, Any, Any]]) -> str:
    """The name of the one that ended first; the others are given up. What it raises is raised."""
    waits = {asyncio.ensure_future(wait): reason for reason, wait in reasons.items()}
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
        return waits[next(iter(done))]
    finally:
        for one in waits:
            one.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def wait_idle(idle_exit_s: float | None, idler: Idler) -> None:
    """Return when it has been idle for so many seconds without a break; None means never."""
    if idle_exit_s is None:
        await asyncio.Event().wait()
        return
    loop = asyncio.get_running_loop()
    idle_since: float | None = None
    visit_count = idler.visit_count
    while idle_since is None or loop.time() - idle_since < idle_exit_s:
        await asyncio.sleep(min(IDLE_PERIOD_S_MAX, idle_exit_s / IDLE_LOOKS))
        if not idler.is_idle or visit_count != idler.visit_count:
            idle_since = None
            visit_count = idler.visit_count
        elif idle_since is None:
            idle_since = loop.time()
