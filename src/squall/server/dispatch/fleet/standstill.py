"""When everything that runs waits for something that cannot start, one call fails, and the rest goes on.

Waiting containers give back their claim on cpu, but they keep their memory and their place. Parents that fill all
places and wait for calls of their own would wait for ever: nothing that runs ends before what is queued has run. So
would calls that wait in a circle for containers that their functions may not have (`wait_cycles.py`), whatever else
runs.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from squall.protocol.call import Failure, InputRefs
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.fleet.fleet import ContainerFleet
from squall.server.dispatch.fleet.wait_cycles import WaitCycles, containers_max, is_full
from squall.server.dispatch.function.call_table import CallTable
from squall.server.dispatch.function.input import Input

_log = logging.getLogger("squall.server.dispatch.fleet.standstill")

STANDSTILL_S = 5.0
"""How long nothing may move before a call is given up: a container about to be placed must not look like it."""


class Standstill:
    """Looks once a second."""

    def __init__(self, fleet: ContainerFleet, calls: CallTable) -> None:
        self._fleet = fleet
        self._calls = calls
        self._since: float | None = None
        self._awaited: Counter[tuple[Input, str, int]] = Counter()
        """Inputs in containers, with the id and index of what they wait for of durable calls: these have no parent."""
        self._circling_since: dict[Input, float] = {}

    @contextmanager
    def awaiting(self, one: Input, *awaited: tuple[str, int]) -> Iterator[None]:
        """In the block, that input waits for inputs of durable calls."""
        trouble = one.with_trouble()
        trouble.children += 1
        keys = [(one, call_id, index) for call_id, index in awaited]
        for key in keys:
            self._awaited[key] += 1
        # Its claim on cpu may be all that the call it waits for lacks.
        if one.container is not None:
            self._fleet.claim_changed(one.container)
        try:
            yield
        finally:
            trouble.children -= 1
            if one.container is not None:
                self._fleet.claim_changed(one.container)
            for key in keys:
                self._awaited[key] -= 1
                if not self._awaited[key]:
                    del self._awaited[key]

    def tick(self, now: float) -> None:
        """Give up the call that has waited longest if nothing has moved for long."""
        if self._has_broken_cycles(now):
            self._since = None
            return
        pending, containers = self._fleet.starts.pending, self._fleet.containers
        running = len(containers) - len(pending)
        # All of them are looked at only when none of those before moves.
        if not pending or not running or any(_moves(one) for key, one in containers.items() if key not in pending):
            self._since = None
            return
        if self._since is None:
            self._since = now
        if now - self._since < STANDSTILL_S:
            return
        self._since = None
        one = min(self._blocked(), key=lambda one: (one.call.created_at, one.index), default=None)
        if one is not None:
            self._give_up(one, running)

    def _has_broken_cycles(self, now: float) -> bool:
        """Give up one call of each circle there has been for long."""
        containers = self._fleet.containers.values()
        full = [one for one in self._fleet.active.values() if is_full(one)]
        if not full:
            self._circling_since.clear()
            return False
        cycles = WaitCycles(containers, full, self._calls, self._awaited)
        self._circling_since = {one: self._circling_since.get(one, now) for one in cycles.closing()}
        has_broken = False
        while True:
            # Asked again after each: what waited for it can move, and needs no failure of its own.
            ripe = [one for one in cycles.closing() if now - self._circling_since.get(one, now) >= STANDSTILL_S]
            if not ripe:
                return has_broken
            self._give_up_in_cycle(cycles.doomed_with(ripe[0]))
            cycles.answered(ripe[0])
            has_broken = True

    @staticmethod
    def _give_up_in_cycle(inputs: list[Input]) -> None:
        call, ahead = inputs[0].call, [(one, one.container) for one in inputs if one.container is not None]
        dispatcher = call.dispatcher
        what = f"function {dispatcher.spec.name} has as many containers as it may"
        message = (
            f"{what} (max_containers={containers_max(dispatcher)}), and all of them wait, directly or through other "
            "calls, for inputs that only they could run, this one among them; let more of them run (max_containers=), "
            "or do not wait in them for calls that come back to the same function"
        )
        _log.warning("standstill: %s", message)
        dispatcher.fail(inputs, Failure("exhausted", message))
        for one, container in ahead:
            # It was handed out ahead of its turn: nobody wants it to run once the container is free.
            container.tell("CancelInputs", InputRefs(call.call_id, (one.index,)))
            dispatcher.refresh(container)

    def _blocked(self) -> Iterator[Input]:
        """Inputs that something running waits for, and that wait for a container with no place."""
        awaited = {call_id for _, call_id, _ in self._awaited}
        for dispatcher in {one.dispatcher for one in self._fleet.starts.pending.values()}:
            for call in self._calls.of(dispatcher):
                if call.parent is not None or call.call_id in awaited:
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
