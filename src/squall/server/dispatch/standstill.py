"""When everything that runs waits for something that cannot start, one call fails, and the rest goes on.

Waiting containers give back their claim on cpu, but they keep their memory and their place. Parents that fill all
places and wait for calls of their own would wait for ever: nothing that runs ends before what is queued has run.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from squall.protocol.call import Failure
from squall.server.dispatch.call_table import CallTable
from squall.server.dispatch.container import Container
from squall.server.dispatch.fleet import ContainerFleet
from squall.server.dispatch.input import Input

_log = logging.getLogger("squall.server.dispatch.standstill")

STANDSTILL_S = 5.0
"""How long nothing may move before a call is given up: a container about to be placed must not look like it."""


class Standstill:
    """Looks once a second."""

    def __init__(self, fleet: ContainerFleet, calls: CallTable) -> None:
        self._fleet = fleet
        self._calls = calls
        self._since: float | None = None
        self._awaited: Counter[str] = Counter()
        """Durable calls that inputs in containers wait for, by id: these have no parent."""

    @contextmanager
    def awaiting(self, one: Input, call_id: str) -> Iterator[None]:
        """In the block, that input waits for a durable call."""
        trouble = one.with_trouble()
        trouble.children += 1
        self._awaited[call_id] += 1
        # Its claim on cpu may be all that the call it waits for lacks.
        self._fleet.starts.place()
        try:
            yield
        finally:
            trouble.children -= 1
            self._awaited[call_id] -= 1
            if not self._awaited[call_id]:
                del self._awaited[call_id]

    def tick(self, now: float) -> None:
        """Give up the call that has waited longest if nothing has moved for long."""
        running = [one for one in self._fleet.containers.values() if one.container_id not in self._fleet.starts.pending]
        if not self._fleet.starts.pending or not running or any(_moves(one) for one in running):
            self._since = None
            return
        if self._since is None:
            self._since = now
        if now - self._since < STANDSTILL_S:
            return
        self._since = None
        one = min(self._blocked(), key=lambda one: (one.call.created_at, one.index), default=None)
        if one is not None:
            self._give_up(one, len(running))

    def _blocked(self) -> Iterator[Input]:
        """Inputs that something running waits for, and that wait for a container with no place."""
        for dispatcher in {one.dispatcher for one in self._fleet.starts.pending.values()}:
            for call in self._calls.of(dispatcher):
                if call.parent is not None or call.call_id in self._awaited:
                    yield from (one for one in call.inputs.values() if one.is_queued)

    @staticmethod
    def _give_up(one: Input, count: int) -> None:
        dispatcher = one.call.dispatcher
        message = (
            f"no container for function {dispatcher.spec.name}: the {count} that there is room for all wait for calls "
            "of their own; run fewer inputs at a time (max_containers=), reserve less memory, or add a node"
        )
        _log.warning("standstill: %s", message)
        dispatcher.fail([one], Failure("exhausted", message))


def _moves(container: Container) -> bool:
    """Whether it may bring anything about by itself: it starts, ends or runs."""
    if not container.is_ready or container.is_draining or container.ending:
        return True
    return bool(container.held) and not container.is_waiting
