"""Tells programs why their calls wait: in a deployed app no start that fails fails a call.

A program is told once, however many calls of the function it has, until a container gets ready and starts fail anew.
Spawned calls have no program: their app's log says it, and that of callers too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from squall.server.dispatch.function.dispatcher import Dispatcher
    from squall.server.dispatch.function.input import Sink


class WaitNotices:
    """Of one function."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._told: set[Sink] = set()

    def begin(self) -> None:
        """Its starts have begun to fail."""
        self._told.clear()

    def tell(self, why: str) -> None:
        """A start has failed, and nothing is ready."""
        text = f"{self._dispatcher.in_words()}: its containers do not start: {why}; the call waits"
        waiting: dict[Sink, str] = {}
        for call in self._dispatcher.calls.of(self._dispatcher):
            if call.inputs and not call.is_closed:
                waiting.setdefault(call.sink, call.call_id)
        for sink, call_id in waiting.items():
            if sink not in self._told:
                sink.put_notice(call_id, text)
        # Whoever waits no more need not be remembered.
        self._told = set(waiting)
