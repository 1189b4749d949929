"""How many containers a function should have.

Snapshot in, decision out; the caller passes the time in and carries the decision out.

Words: *need* is what the outstanding inputs ask for, *worth* is what they are worth (a thousand inputs of 20 µs need
no second container), *desired* is the lesser of both plus the buffer, between minimum and maximum.

Invariants of a decision:
  * containers that are pending or starting count as capacity, so that a burst is answered once
  * no more start at a time than are ready, or `STEP_MIN`, or `STEP_KEPT_MAX` of those that are always kept: a machine
    starts only so many at once, and what the first ones measure decides about the others. After `STEP_S` without
    progress loading takes long, and more may start; where inputs are not known to be long, one for each core of the
    nodes at a time or `STEP_BLIND_MIN`, for machines that are too busy to start them would only get busier
  * never more than `max_containers`; never below `min_containers` by stopping
  * a container is stopped only when it is idle and has been for the whole scaledown window, longest idle first
  * after failed starts nothing is started until the backoff is over, and then one at a time
  * where more containers are to come only for demand that lasts (`scaleup_window_s`), the first, and those that are
    always kept, come at once
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from squall.protocol.function import Scaling

CONTAINERS_MAX = 1_000
"""Of a function that names no maximum."""
STEP_MIN = 4
"""Containers that may start at a time while few are ready."""
STEP_KEPT_MAX = 64
"""The same of those that are to be there in any case, `min_containers` and `buffer_containers`."""
STEP_BLIND_MIN = 32
"""Containers that may be on their way while inputs are not known to be long: more where more cores are there to load
on, or more are ready."""
STEP_S = 1.0
"""How long none was started before as many again as there are may start, whether those are ready or not."""
WORTH_S = 0.5
"""A container is worth starting for at least this much work."""
BLOCKED_S = 0.25
"""An input that runs for so long, where inputs were short, blocks its container; containers that run more than their
target for so long need others beside them."""
SHORT_S = 0.01
LOOK_S = 0.05
"""How soon to look again while inputs wait and others run."""
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 60.0


@dataclass(frozen=True, slots=True)
class IdleContainer:
    """A container that is ready and runs nothing."""

    container_id: str
    idle_since: float


@dataclass(frozen=True, slots=True)
class Load:
    """A function at one moment. Times are monotonic."""

    now: float
    scaling: Scaling
    queued: int
    """Inputs that no container has begun: in the queue, or handed out ahead."""
    running: int
    busy: int
    """Containers that run at least one input."""
    pending: int
    """Containers asked for and not placed yet."""
    starting: int
    """Placed and not ready yet."""
    idle: tuple[IdleContainer, ...] = ()
    cores: int = 0
    """Of all nodes: on so many at a time a container loads without taking the processor from others."""
    service_s: float | None = None
    """How long inputs have taken, on average; None before the first output."""
    blocked: int = 0
    """Of the busy ones, those whose input has been running for `BLOCKED_S`."""
    above_target_since: float = math.inf
    """Since when more has run than all containers there are, or are to come, are meant to run."""
    short_since: float = math.inf
    """Since when there should have been more containers than there are, or are to come."""
    last_step_at: float = -math.inf
    """When containers were last started."""
    failures_in_a_row: int = 0
    last_failure_at: float = -math.inf


@dataclass(frozen=True, slots=True)
class Decision:
    """What to change now."""

    start: int = 0
    stop: tuple[str, ...] = ()
    cancel_pending: int = 0
    """Containers not placed yet that nobody needs any more."""


def backoff_s(failures_in_a_row: int) -> float:
    """How long after the last failed start the next may be tried."""
    if failures_in_a_row <= 0:
        return 0.0
    return float(min(BACKOFF_FIRST_S * 2.0 ** min(failures_in_a_row - 1, 20), BACKOFF_MAX_S))


def desired(load: Load) -> int:
    """How many containers there should be."""
    scaling = load.scaling
    limit = _limit(scaling)
    outstanding = load.queued + load.running
    need = 0
    if outstanding:
        target = max(1, scaling.target_inputs or scaling.max_inputs)
        need = min(math.ceil(outstanding / target), max(_worth(load), _relief(load, target)))
        need += scaling.buffer_containers
    return min(max(scaling.min_containers, need), max(limit, 0))


def lacks(load: Load) -> bool:
    """Whether there should be more containers than there are, or are to come."""
    return _existing(load) < desired(load)


def _limit(scaling: Scaling) -> int:
    return CONTAINERS_MAX if scaling.max_containers is None else scaling.max_containers


def _existing(load: Load) -> int:
    return load.busy + len(load.idle) + load.starting + load.pending


def _may_grow_desired(load: Load) -> bool:
    """Whether time alone may make more desired: what is short, as a rule, or not known turns out long while it runs."""
    if load.service_s is None:
        return load.busy > 0 and not load.blocked
    return load.service_s < WORTH_S and load.blocked < load.busy


def _are_long(load: Load) -> bool:
    """Whether inputs are known to be worth a container each."""
    return load.blocked > 0 if load.service_s is None else load.service_s >= WORTH_S


def _relief(load: Load, target: int) -> int:
    """Containers that bring those that run more than their target down to it, once that has lasted. Of short inputs,
    which are handed out ahead, most of what a container seems to run waits in it."""
    is_short = load.service_s is not None and load.service_s < SHORT_S
    if is_short or load.above_target_since + BLOCKED_S > load.now:
        return 0
    return math.ceil(load.running / target)


def _worth(load: Load) -> int:
    """Containers that the work justifies: those busy now, and enough to do what waits in about `WORTH_S`."""
    if load.queued == 0:
        return max(load.busy, 1)
    if load.service_s is None:
        return _limit(load.scaling)
    waiting = math.ceil(load.queued * load.service_s / max(1, load.scaling.max_inputs) / WORTH_S)
    if load.service_s >= WORTH_S:
        return load.busy + waiting
    # Inputs that take longer than those before them block a container each: as many again, which doubles them every
    # `BLOCKED_S`. Not more at once: a busy machine makes short inputs look long, and more containers would make it
    # busier.
    return max(load.busy + min(load.blocked, load.queued), waiting, 1)


def decide(load: Load) -> Decision:
    """What to start and stop, to come from what there is to what there should be."""
    wanted = desired(load)
    existing = _existing(load)
    if existing < wanted:
        return Decision(start=_startable(load, wanted - existing, existing))
    excess = existing - wanted
    cancelled = min(excess, load.pending)
    excess -= cancelled
    window_s = load.scaling.scaledown_window_s
    ripe = sorted(
        (one for one in load.idle if one.idle_since + window_s <= load.now),
        key=lambda one: (one.idle_since, one.container_id),
    )
    return Decision(stop=tuple(one.container_id for one in ripe[:excess]), cancel_pending=cancelled)


def is_short(load: Load, decision: Decision) -> bool:
    """Whether more containers are to come than are there or are asked for now, and it is not yet to be seen whether the
    demand lasts."""
    return _existing(load) + decision.start < desired(load) and not _waits_out(load)


def _waits_out(load: Load) -> bool:
    """Whether it is to be seen first that the demand lasts."""
    return load.short_since < math.inf and load.short_since + load.scaling.scaleup_window_s > load.now


def look_again_s(load: Load, decision: Decision) -> float | None:
    """After how long to ask again if nothing changes until then; None when time alone changes nothing.

    The sums are those of `decide`, to the last bit: asked at that moment it must not find that it is not over yet.
    """
    waits: list[float] = []
    if load.queued or is_short(load, decision):
        # That inputs are long, and that starts are slow, shows in that nothing happens. Who only waits for a place is
        # not asked about: that it has got one is told.
        if load.queued and _may_grow_desired(load):
            waits.append(LOOK_S)
        step_at = load.now if decision.start else load.last_step_at
        wait_s = step_at + STEP_S - load.now
        if wait_s > 0.0:
            waits.append(max(LOOK_S, wait_s))
    if load.failures_in_a_row > 0:
        waits.append(load.last_failure_at + backoff_s(load.failures_in_a_row) - load.now)
    if load.above_target_since < math.inf:
        waits.append(load.above_target_since + BLOCKED_S - load.now)
    if _waits_out(load):
        waits.append(load.short_since + load.scaling.scaleup_window_s - load.now)
    window_s = load.scaling.scaledown_window_s
    waits += [one.idle_since + window_s - load.now for one in load.idle]
    return min((wait_s for wait_s in waits if wait_s > 0.0), default=None)


def _startable(load: Load, missing: int, existing: int) -> int:
    if load.failures_in_a_row > 0:
        is_waiting = load.last_failure_at + backoff_s(load.failures_in_a_row) > load.now
        return 0 if is_waiting or load.starting + load.pending > 0 else 1
    kept = load.scaling.min_containers + load.scaling.buffer_containers
    if _waits_out(load):
        missing = max(0, min(missing, max(1, load.scaling.min_containers) - existing))
    floor = max(STEP_MIN, min(kept, STEP_KEPT_MAX))
    ready, on_their_way = load.busy + len(load.idle), load.starting + load.pending
    if load.last_step_at + STEP_S > load.now:
        return max(0, min(missing, max(floor, ready) - on_their_way))
    step = min(missing, max(floor, existing))
    if _are_long(load):
        return step
    return max(0, min(step, max(STEP_BLIND_MIN, load.cores, kept, ready) - on_their_way))
