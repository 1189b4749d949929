"""The lifespan of an ASGI application: it is told of its begin before the first request, of its end after the last."""

from __future__ import annotations

import asyncio
from typing import Any

from squall.guest.web.exchange import Application, Event

SHUTDOWN_S = 20.0
"""For what an application does at its end; a container's own end comes later."""


class LifespanFailed(Exception):
    """The application said that it cannot begin."""


class Lifespan:
    """Of one application. One that has none is left in peace."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self.state: dict[str, Any] = {}
        """What requests get a copy of."""
        self._to_application: asyncio.Queue[Event] = asyncio.Queue()
        self._from_application: asyncio.Queue[Event | None] = asyncio.Queue()
        self._running: asyncio.Task[None] | None = None
        self._has_begun = False

    async def begin(self) -> None:
        """Return when the application is ready, or has shown that it has no lifespan.

        Raises:
            LifespanFailed: it said so.
        """
        self._running = asyncio.ensure_future(self._run())
        self._to_application.put_nowait({"type": "lifespan.startup"})
        answer = await self._from_application.get()
        if answer is None:
            return
        if answer["type"] == "lifespan.startup.failed":
            await self._running
            raise LifespanFailed(answer.get("message") or "the application's lifespan failed to start")
        self._has_begun = True

    async def end(self) -> None:
        """Return when the application has put its things away, or its time is over."""
        if self._running is None or not self._has_begun:
            return
        self._to_application.put_nowait({"type": "lifespan.shutdown"})
        done, _ = await asyncio.wait([self._running], timeout=SHUTDOWN_S)
        if not done:
            self._running.cancel()
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._application(scope, self._to_application.get, self._send)
        except Exception as error:  # noqa: BLE001 - an application without a lifespan raises whatever it likes
            if self._has_begun:
                from squall.guest.runner import print_failure  # cold start: only when something failed

                print_failure(error)
        finally:
            self._from_application.put_nowait(None)

    async def _send(self, event: Event) -> None:
        self._from_application.put_nowait(event)
