"""A streaming request from the client's side: items come, more may be sent, either side may end it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from squall.exception import ServiceError
from squall.protocol import codec as wire
from squall.protocol.codec import STREAM_WINDOW
from squall.sdk._pending import Pending

if TYPE_CHECKING:
    from squall.sdk._client import Client

R = TypeVar("R")


class ConnectionLost(ServiceError):
    """The connection broke before the end of a stream."""


class ClientStream:
    """Items of a streaming request; `send` to it, `cancel` it, iterate it."""

    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self._number = number
        self._items: deque[tuple[Any, bytes]] = deque()
        self.item_count = 0
        """How many have come."""
        self.error: BaseException | None = None
        self.is_ended = False
        """No more items come; those that came may not all be taken."""
        self.on_change: Callable[[], None] | None = None
        """Called when an item has come, or the end, in whichever thread reads: for those who use `take`."""
        self._signal: Pending[None] | None = None
        self._unacknowledged = 0

    def send(self, record: Any, body: bytes = b"") -> None:
        """Send more to the running request; None says that was all."""
        self._client.write_frame(wire.UP, self._number, "", record, body)

    def cancel(self) -> None:
        """Give it up."""
        if not self.is_ended:
            self._client.forget_stream(self._number)
            self._client.write_frame(wire.CANCEL, self._number, "", None)
            self.end(None)

    def add(self, params: Any, body: bytes) -> None:
        """An item came."""
        self.item_count += 1
        self._items.append((params, body))
        self._wake()

    def end(self, error: BaseException | None) -> None:
        """No more items."""
        self.error = error
        self.is_ended = True
        self._wake()

    def _wake(self) -> None:
        signal = self._signal
        if signal is not None:
            signal.set(None)
        if self.on_change is not None:
            self.on_change()

    def take(self, cls: type[R]) -> Iterator[tuple[R, bytes]]:
        """The items that have come, without waiting for more."""
        while self._items:
            params, body = self._items.popleft()
            self._acknowledge()
            yield self._client.codec.record(cls, params), body

    async def items(self, cls: type[R], silence_s: float | None = None) -> AsyncGenerator[tuple[R, bytes], None]:
        """All items, or those until none comes for `silence_s`. Leaving early gives the request up.

        Raises:
            ConnectionLost: the connection broke before the end.
            Error: what the server answered.
        """
        try:
            while True:
                for item in self.take(cls):
                    yield item
                if self.is_ended:
                    if self.error is not None:
                        raise self.error
                    return
                signal: Pending[None] = Pending(self._client.connection)
                self._signal = signal
                if not self._items and not self.is_ended and not await signal.within(silence_s):
                    return
        finally:
            self.cancel()

    def _acknowledge(self) -> None:
        self._unacknowledged += 1
        if self._unacknowledged >= STREAM_WINDOW // 2 and not self.is_ended:
            self._client.write_frame(wire.CREDIT, self._number, "", None, b"", self._unacknowledged)
            self._unacknowledged = 0
