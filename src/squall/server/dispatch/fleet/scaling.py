"""When the autoscaler is asked, and with what: on every change, at most each 50 ms, or each 2 while inputs wait for
containers that are still to be asked for, and when time alone changes what it would say. So a function that has nothing
to do, or has containers that wait for work, costs nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from squall.server.autoscaler import (
    BLOCKED_S,
    SHORT_S,
    STEP_S,
    IdleContainer,
    Load,
    backoff_s,
    decide,
    is_short,
    lacks,
    look_again_s,
)
from squall.server.model.clock import Clock, Timer

if TYPE_CHECKING:
    from squall.server.dispatch.fleet.fleet import ContainerFleet
    from squall.server.dispatch.function.dispatcher import Dispatcher

INTERVAL_S = 0.05
URGENT_S = 0.002
CONTAINER_S = 0.00005
"""For each container of the function, which a look goes through."""


def load_of(dispatcher: Dispatcher, now: float, cores: int) -> Load:
    """The function as it is now, on nodes with so many cores; of one that takes batches, these are counted."""
    running = busy = pending = starting = ahead = blocked = 0
    idle: list[IdleContainer] = []
    batches = dispatcher.batches
    for container in dispatcher.containers.values():
        if container.is_draining or container.ending:
            continue
        if not container.is_ready:
            # One that was asked for as no fork is for an input that no other is given to, while there is one.
            if container.node is None and not (container.is_plain and dispatcher.quarantine.is_in_doubt):
                pending += 1
            else:
                starting += 1
        elif container.is_busy:
            held, most = len(container.held) + len(container.unknown), dispatcher.max_inputs
            if batches is not None:
                held, most = batches.held_by(container), dispatcher.batches_at_once
            count = min(held, most)
            busy += 1
            # What runs alone leaves no room beside it.
            running += dispatcher.target if dispatcher.quarantine.is_apart(container) else count
            ahead += held - count
            began_at = next(iter(container.held)).began_at or now if container.held else now
            blocked += now - max(began_at, container.last_output_at) >= BLOCKED_S
        else:
            idle.append(IdleContainer(container.container_id, container.idle_since))
    ordinary = dispatcher.ordinary
    if running <= dispatcher.target * (busy + len(idle) + starting + pending):
        dispatcher.above_target_since = math.inf
    elif dispatcher.above_target_since == math.inf:
        dispatcher.above_target_since = now
    return Load(
        now=now,
        scaling=dispatcher.scaling,
        queued=(ordinary if batches is None else batches.of(ordinary)) + dispatcher.quarantine.wanted + ahead,
        running=running,
        busy=busy,
        pending=pending,
        starting=starting,
        idle=tuple(idle),
        cores=cores,
        service_s=dispatcher.service_us / 1e6 if dispatcher.service_us else None,
        blocked=blocked,
        above_target_since=dispatcher.above_target_since,
        last_step_at=dispatcher.last_step_at,
        failures_in_a_row=dispatcher.failures_in_a_row,
        last_failure_at=dispatcher.last_failure_at,
    )


def _seen_over_time(dispatcher: Dispatcher, load: Load) -> Load:
    """The same, with since when it has too few containers, where that makes a difference."""
    if not load.scaling.scaleup_window_s or not lacks(load):
        dispatcher.short_since = math.inf
        return load
    dispatcher.short_since = min(dispatcher.short_since, load.now)
    return replace(load, short_since=dispatcher.short_since)


class Scaling:
    """Asks the autoscaler about the functions whose load changed."""

    def __init__(self, fleet: ContainerFleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._due: dict[Dispatcher, tuple[float, Timer]] = {}
        """Those to be looked at, and when."""

    def changed(self, dispatcher: Dispatcher) -> None:
        """Look at it now, or when some time has passed since the last look: less where inputs may wait for it."""
        at = dispatcher.last_scaled_at + _interval_s(dispatcher)
        due = self._due.get(dispatcher)
        if due is not None:
            if due[0] <= at:
                return
            due[1].cancel()
        timer = self._clock.call_later(max(0.0, at - self._clock.monotonic()), lambda: self._look(dispatcher))
        self._due[dispatcher] = at, timer

    def _look(self, dispatcher: Dispatcher) -> None:
        self._due.pop(dispatcher, None)
        if dispatcher.next_look is not None:
            dispatcher.next_look.cancel()
            dispatcher.next_look = None
        if dispatcher.stopped is not None:
            return
        now = self._clock.monotonic()
        dispatcher.last_scaled_at = now
        is_put_off = self._start_proven(dispatcher, now)
        load = _seen_over_time(dispatcher, load_of(dispatcher, now, self._fleet.starts.scheduler.cores))
        decision = decide(load)
        dispatcher.is_provided_for = load.queued > 0 and not is_short(load, decision)
        wait_s = look_again_s(load, decision)
        if decision.start:
            dispatcher.last_step_at = now
            is_put_off |= self._fleet.request(dispatcher, decision.start) < decision.start
        if is_put_off:
            wait_s = STEP_S if wait_s is None else min(wait_s, STEP_S)
        if wait_s is not None:
            dispatcher.next_look = self._clock.call_later(wait_s, lambda: self.changed(dispatcher))
        if decision.cancel_pending:
            self._fleet.cancel_pending(dispatcher, decision.cancel_pending)
        for container_id in decision.stop:
            self._fleet.drain(dispatcher.containers[container_id], "nothing to do")

    def _start_proven(self, dispatcher: Dispatcher, now: float) -> bool:
        """Start one plainly, if an input needs that (`quarantine.py`); whether to try again, as too many wait for a
        place already."""
        is_late_enough = dispatcher.last_failure_at + backoff_s(dispatcher.failures_in_a_row) <= now
        quarantine = dispatcher.quarantine
        if not (is_late_enough and quarantine.lacks_proven):
            return False
        if not self._fleet.room(dispatcher):
            return True
        if quarantine.make_place():
            self._fleet.request(dispatcher, 1, is_plain=True)
        return False


def _interval_s(dispatcher: Dispatcher) -> float:
    """From one look to the next.

    A start may take a few milliseconds only, so inputs that no container has room for, and for which the last look has
    not found containers enough, wait for no more than that either. Where that pays not: a function that has all it is
    worth is busy, and changes all the time, and one of short inputs has done what waits sooner than one has looked.
    """
    is_urgent = dispatcher.queued > len(dispatcher.free) and not dispatcher.is_provided_for
    if not is_urgent or dispatcher.failures_in_a_row or (dispatcher.open and 0 < dispatcher.service_us < SHORT_S * 1e6):
        return INTERVAL_S
    return min(INTERVAL_S, max(URGENT_S, len(dispatcher.containers) * CONTAINER_S))
