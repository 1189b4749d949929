"""One request in the server, between the ingress that has its client and the container that answers it.

ingress                       exchange                          container
  give(data) ────────────────▶ waits for credit ────────────────▶ WebIn
  leave() ───────────────────▶ (its client has gone) ───────────▶ WebIn (gone)
  ◀── next() ──────────────── what has come, in order ◀────────── WebOut, Outputs
      taken ─────────────────▶ credit, a quarter of a window at a time ▶ WebCredit
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from squall.protocol.call import Failure
from squall.protocol.ids import input_id
from squall.protocol.web import ACCEPT, CHUNK_BYTES_MAX, DATA, GONE, WINDOW_BYTES, WebCredit, WebIn, WebOut
from squall.server.model.web import LATE, Out, RequestFailed, Whole

if TYPE_CHECKING:
    from squall.server.dispatch.fleet.container import Container
    from squall.server.dispatch.function.input import Input

UNTAKEN_BYTES_MAX = 4 * WINDOW_BYTES
"""Of what a guest may have sent that its client has not taken; it is told to send a window."""


class Exchange:
    """A request that was taken in."""

    taker: Whole | None = None
    """Who is told of what comes first."""
    one: Input | None = None
    """What the dispatcher has of it; None once that has ended."""
    _waiter: asyncio.Future[None] | None = None
    _waits_credit: asyncio.Future[None] | None = None
    _credit = 0
    _untaken = 0
    """Bytes that have come and were not taken."""
    _untold = 0
    """Bytes that were taken, and that the guest has not been told of."""
    _is_begun = False
    """Some of its response, or of its body, has passed."""
    _is_over = False
    _is_left = False
    _failure: Failure | None = None

    def __init__(self, call_id: str, index: int) -> None:
        self._call_id = call_id
        self.index = index
        self._come: deque[Out] = deque()

    @property
    def request_id(self) -> str:
        """See `model.web.Exchange`."""
        return input_id(self._call_id, self.index)

    @property
    def container(self) -> Container | None:
        """Who has it now."""
        return None if self.one is None else self.one.container

    @property
    def is_running(self) -> bool:
        """See `model.web.Exchange`."""
        return self.container is not None

    # The container's side

    def came(self, record: WebOut, data: bytes) -> bool:
        """Something of the response; False when the guest sends more than it may."""
        if self._is_over or self._is_left:
            return True
        self._is_begun = True
        if record.kind == ACCEPT:
            self._credited(WINDOW_BYTES)
        self._untaken += len(data)
        self._put(Out(record.kind, data, record.status, record.headers, record.subprotocol, record.code, record.reason))
        return self._untaken <= UNTAKEN_BYTES_MAX

    def credited(self, record: WebCredit) -> None:
        """The application has taken so much of the request."""
        self._is_begun = True
        self._credited(record.byte_count)

    def _credited(self, count: int) -> None:
        self._credit += count
        if self._credit > 0 and self._waits_credit is not None and not self._waits_credit.done():
            self._waits_credit.set_result(None)

    def ended(self, out: Out | None, failure: Failure | None = None) -> None:
        """Its input has an output: the last of the response, or why there is none."""
        self.one = None
        if self._is_over:
            return
        self._is_over, self._failure = True, failure
        if out is not None:
            self._put(out)
        self._wake()

    def cut(self, failure: Failure) -> None:
        """The connection to its container broke: what has passed cannot be gone on with."""
        if self._is_begun and not self._is_over:
            self._is_over, self._failure = True, failure
            self._wake()

    def _put(self, out: Out) -> None:
        self._come.append(out)
        self._tell_taker()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _tell_taker(self) -> None:
        taker, self.taker = self.taker, None
        if taker is not None:
            taker.other()

    def _wake(self) -> None:
        self._tell_taker()
        for waiter in (self._waiter, self._waits_credit):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    # The ingress's side

    async def next(self) -> Out | None:
        """See `model.web.Exchange`."""
        while not self._come:
            if self._is_left:
                return None
            if self._is_over:
                raise RequestFailed(self._failure or Failure("lost", "the response came to no end"))
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._come.popleft()

    def remind(self) -> None:
        """See `model.web.Exchange`."""
        if not self._come and not self._is_over and not self._is_left:
            self._put(Out(LATE, b""))

    def taken(self, count: int) -> None:
        """See `model.web.Exchange`."""
        self._untaken -= count
        self._untold += count
        if self._untold >= WINDOW_BYTES // 4:
            self._tell("WebCredit", WebCredit(self._call_id, self.index, self._untold))
            self._untold = 0

    async def give(self, data: bytes, *, has_more: bool, kind: str = DATA) -> bool:
        """See `model.web.Exchange`."""
        place = 0
        while True:
            while self._credit <= 0 and not self._is_over and not self._is_left:
                self._waits_credit = asyncio.get_running_loop().create_future()
                try:
                    await self._waits_credit
                finally:
                    self._waits_credit = None
            if self._is_over or self._is_left or self.container is None:
                return False
            end = len(data) if kind != DATA else min(len(data), place + CHUNK_BYTES_MAX)
            chunk = data[place:end] if place or end < len(data) else data
            self._credit -= len(chunk)
            is_last = end >= len(data)
            self._tell("WebIn", WebIn(self._call_id, self.index, kind, has_more or not is_last), chunk)
            if is_last:
                return True
            place = end

    def leave(self, code: int = 1006, reason: str = "") -> None:
        """Its client has gone: whoever answers it is told, and what comes is dropped."""
        if self._is_left:
            return
        self._is_left = True
        if not self._is_over:
            self._tell("WebIn", WebIn(self._call_id, self.index, GONE, False, code, reason))
        self._come.clear()
        self._wake()

    def _tell(self, method: str, record: Any, body: bytes = b"") -> None:
        container = self.container
        if container is not None:
            container.tell(method, record, body)
