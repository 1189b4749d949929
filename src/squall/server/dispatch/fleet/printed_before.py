"""What a container printed comes before what it said after: its lines and its events take two ways to the server.

Where lines and events share a process, or are quick, the lines are here first and nothing is held. Where they are not,
the container's events wait for them, but never long: a line may be lost with its connection.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from squall.server.dispatch.fleet.node import Node
    from squall.server.model.clock import Clock, Timer

HOLD_S = 0.1
HELD_BYTES_MAX = 4 * 2**20
"""Of events of one connection; more are let go at once."""
_EVENT_BYTES = 500
"""What an event counts beside its body."""

_log = logging.getLogger("squall.server.dispatch.fleet.printed_before")


class Gate:
    """One connection's events on their way in, in order. Closed while lines that come before them are not here."""

    def __init__(self, clock: Clock, handle: Callable[[str, Any, bytes], None]) -> None:
        self._clock = clock
        self._handle = handle
        self._held: deque[tuple[str, Any, bytes]] = deque()
        self._held_bytes = 0
        self._node: Node | None = None
        self._line_count = 0
        self._timer: Timer | None = None
        self._is_ended = False
        self.is_closed = False

    def close_until(self, node: Node, line_count: int) -> None:
        """Hold what follows until the node has sent so many lines, or a moment has passed."""
        if self._is_ended or node.line_count >= line_count:
            return
        self.is_closed = True
        self._node, self._line_count = node, line_count
        node.gates[self] = None
        self._timer = self._clock.call_later(HOLD_S, self.open)

    def lines_came(self) -> None:
        """The node has sent more."""
        if self._node is not None and self._node.line_count >= self._line_count:
            self.open()

    def hold(self, method: str, params: Any, body: bytes) -> None:
        """Keep an event that came while the gate is closed."""
        self._held.append((method, params, body))
        self._held_bytes += len(body) + _EVENT_BYTES
        if self._held_bytes > HELD_BYTES_MAX:
            self.open()

    def open(self) -> None:
        """Hand out what was held, up to where lines are missing again."""
        if self._timer is not None:
            self._timer.cancel()
        if self._node is not None:
            self._node.gates.pop(self, None)
        self._timer = self._node = None
        self.is_closed = False
        while self._held and not self.is_closed:
            method, params, body = self._held.popleft()
            self._held_bytes -= len(body) + _EVENT_BYTES
            try:
                self._handle(method, params, body)
            except Exception:  # noqa: BLE001 - top of the receive loop, as in `Peer`: one bad event must not end the others
                _log.exception("an event %.80r could not be handled", method)

    def end(self) -> None:
        """The connection is gone: hand out all there is."""
        self._is_ended = True
        self.open()
