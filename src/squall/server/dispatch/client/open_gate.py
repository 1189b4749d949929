"""A client's events while a call of it waits for its function to be found in the store: they come after it, in order.

Nearly every function that is called is in memory, and then nothing waits. Meanwhile the client is not listened to, so
what is held is what had been read already.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from squall.protocol.channel.contract import Channel
from squall.protocol.errors import PlatformError
from squall.protocol.task_set import TaskSet

T = TypeVar("T")

_log = logging.getLogger("squall.server.dispatch.client.open_gate")


class OpenGate:
    """One connection's."""

    def __init__(self, channel: Channel, handle: Callable[[str, Any, bytes], None], tasks: TaskSet) -> None:
        self._channel = channel
        self._handle = handle
        self._tasks = tasks
        self._held: deque[tuple[str, Any, bytes]] = deque()
        self._is_ended = False
        self.is_closed = False

    def wait(self, looking: Awaitable[T], then: Callable[[T | PlatformError], None]) -> None:
        """Do something with what a search finds, or why it could not; hold what comes until then."""
        self.is_closed = True
        self._channel.pause()
        self._tasks.start(self._wait(looking, then))

    async def _wait(self, looking: Awaitable[T], then: Callable[[T | PlatformError], None]) -> None:
        found: T | PlatformError
        try:
            found = await looking
        except PlatformError as error:
            _log.warning("a function could not be looked up: %s", error.message)
            found = error
        self.is_closed = False
        if self._is_ended:
            return  # the client opens its calls again when it is back
        then(found)
        while self._held and not self.is_closed:
            method, params, body = self._held.popleft()
            try:
                self._handle(method, params, body)
            except Exception:  # noqa: BLE001 - top of the receive loop, as in `Peer`: one bad event must not end the others
                _log.exception("an event %.80r could not be handled", method)
        if not self.is_closed:
            self._channel.resume()

    def hold(self, method: str, params: Any, body: bytes) -> None:
        """Keep an event that came while the gate is closed."""
        self._held.append((method, params, body))

    def end(self) -> None:
        """The connection is gone."""
        self._is_ended = True
        self._held.clear()
