"""Terminals lent by clients (`squall run -i`) to containers whose input asks for one (`breakpoint()`)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from squall.protocol.container import TerminalInput, TerminalOffer, TerminalOutput
from squall.protocol.errors import CONFLICT, PlatformError
from squall.protocol.guest import TerminalData
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.fleet.container import Container
from squall.server.model.logs import Progress

WAITING_BYTES_MAX = 4 * 2**20
"""Of a program's output that the terminal has not shown yet; more ends the session."""


class _Lent:
    """One terminal, and the container that uses it."""

    def __init__(self, offer: TerminalOffer, progress: Progress) -> None:
        self.rows = offer.rows
        self.columns = offer.columns
        self.progress = progress
        self.user: Container | None = None
        self.outgoing: deque[tuple[TerminalOutput, bytes]] = deque()
        self.waiting_bytes = 0
        self.is_closing = False
        """Its client types no more and waits for what there is to show."""
        self.changed = asyncio.Event()

    def show(self, data: bytes, exit_code: int | None = None) -> None:
        self.outgoing.append((TerminalOutput(exit_code=exit_code), data))
        self.progress.came += 1
        self.waiting_bytes += len(data)
        self.changed.set()


class Terminals:
    """The terminals on offer, at most one per app."""

    def __init__(self, tasks: TaskSet) -> None:
        self._tasks = tasks
        self._lent: dict[str, _Lent] = {}

    async def offer(
        self, record: TerminalOffer, uploads: AsyncIterator[tuple[TerminalInput, bytes]], progress: Progress
    ) -> AsyncIterator[tuple[TerminalOutput, bytes]]:
        """Lend a terminal until the caller leaves, or says that no more is typed: then what was written is shown first.

        `progress` counts what there is to show.

        Raises:
            PlatformError: `conflict` when the app has one already.
        """
        if record.app_id in self._lent:
            raise PlatformError(CONFLICT, f"TerminalOffer: app {record.app_id} has a terminal already")
        lent = _Lent(record, progress)
        self._lent[record.app_id] = lent
        typing = self._tasks.start(self._type(lent, uploads))
        try:
            while True:
                while lent.outgoing:
                    item, data = lent.outgoing.popleft()
                    lent.waiting_bytes -= len(data)
                    yield item, data
                    progress.taken += 1
                if lent.is_closing:
                    return
                lent.changed.clear()
                await lent.changed.wait()
        finally:
            typing.cancel()
            self._lent.pop(record.app_id, None)
            self._end(lent, "the terminal was closed")

    async def _type(self, lent: _Lent, uploads: AsyncIterator[tuple[TerminalInput, bytes]]) -> None:
        async for record, data in uploads:
            if record.rows and record.columns:
                lent.rows, lent.columns = record.rows, record.columns
            if lent.user is not None:
                lent.user.tell("TerminalData", TerminalData(record.rows, record.columns, is_end=record.is_end), data)
        lent.is_closing = True
        lent.changed.set()

    def open(self, container: Container) -> None:
        """A guest asks for the terminal of its app's client; the answer is an event."""
        lent = self._lent.get(container.spec.app_id)
        if lent is None:
            reason = "no client lends this app its terminal; run it with `squall run -i`"
            container.tell("TerminalData", TerminalData(is_end=True, message=reason))
        elif lent.user is not None and lent.user is not container and not lent.user.is_stopped:
            reason = f"container {lent.user.container_id} uses the terminal; run one input at a time"
            container.tell("TerminalData", TerminalData(is_end=True, message=reason))
        else:
            lent.user = container
            container.tell("TerminalData", TerminalData(lent.rows, lent.columns, is_open=True))

    def data(self, container: Container, record: TerminalData, body: bytes) -> None:
        """A guest's program wrote to the terminal, or is done with it."""
        lent = self._lent.get(container.spec.app_id)
        if lent is None or lent.user is not container:
            return
        if lent.waiting_bytes + len(body) > WAITING_BYTES_MAX:
            self._end(lent, "the terminal is too slow for so much output")
            return
        if body:
            lent.show(body)
        if record.is_end:
            self._give_back(lent)

    def container_gone(self, container: Container) -> None:
        """Its session, if any, is over."""
        lent = self._lent.get(container.spec.app_id)
        if lent is not None and lent.user is container:
            self._give_back(lent)

    @staticmethod
    def _give_back(lent: _Lent) -> None:
        """The session is over: what is typed is the client's own again, until the next one."""
        lent.user = None
        lent.show(b"", exit_code=0)

    @staticmethod
    def _end(lent: _Lent, reason: str) -> None:
        if lent.user is not None:
            lent.user.tell("TerminalData", TerminalData(is_end=True, message=reason))
            lent.user = None
