"""A plain poll loop: callbacks for readable descriptors, and timers. One thread, nothing more."""

from __future__ import annotations

import heapq
import itertools
import select
import time
import traceback
from collections.abc import Callable, Iterable

WAIT_MAX_S = 60.0


class Poller:
    """Calls back when a descriptor is ready or a time has come.

    Args:
        private: descriptors that nobody else is to keep open, as a lock is held by whoever does, and a connection lives
            as long.
    """

    def __init__(self, private: Iterable[int] = ()) -> None:
        self.private = set(private)
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.is_stopped = False

    def watch(self, descriptor: int, callback: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        """Call back with the events when the descriptor is ready, until `unwatch`."""
        if descriptor in self._callbacks:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._callbacks[descriptor] = callback

    def unwatch(self, descriptor: int) -> None:
        """Stop watching. Must come before the descriptor is closed."""
        if self._callbacks.pop(descriptor, None):
            self._epoll.unregister(descriptor)

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call back once, after a delay."""
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), callback))

    def run(self) -> None:
        """Until `is_stopped`."""
        while not self.is_stopped:
            timeout_s = min(self._timers[0][0] - time.monotonic(), WAIT_MAX_S) if self._timers else WAIT_MAX_S
            for descriptor, events in self._epoll.poll(max(timeout_s, 0.0)):
                # An earlier callback of this round may have stopped watching it.
                callback = self._callbacks.get(descriptor)
                if callback:
                    self._call(descriptor, callback, events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                timer = heapq.heappop(self._timers)[2]
                self._call(None, timer)

    def _call(self, descriptor: int | None, callback: Callable[..., None], *arguments: int) -> None:
        try:
            callback(*arguments)
        except Exception:  # noqa: BLE001  a mistake about one container must not end all the others
            traceback.print_exc()
            if descriptor is not None:
                # It would be ready again at once, and for ever.
                self.unwatch(descriptor)
