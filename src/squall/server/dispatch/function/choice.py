"""Which of a function's containers are given what is queued, and how much each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from squall.server.policy.sharing import shares

if TYPE_CHECKING:
    from squall.server.dispatch.fleet.container import Container
    from squall.server.dispatch.function.dispatcher import Dispatcher

SPREAD_US = 1_000
"""Work that is handed to one container before a second one gets a frame of its own."""
PACK_US = 5_000
"""Work up to which a container that is busy takes short inputs before one that is idle is woken for them."""
PACK_QUIET_S = 0.01
"""After that long without an output it may run something long, and gets no more."""


def choose(dispatcher: Dispatcher, count: int) -> Iterable[tuple[Container, int]]:
    """Who gets how many of what is queued, at most so many in all, as far as they have room (which may be below 0 for
    one that holds more than its share); some are free."""
    queued = dispatcher.ordinary
    if len(dispatcher.free) == 1:
        only = next(iter(dispatcher.free))
        return ((only, min(dispatcher.window(only) - len(only.held), queued)),)
    chosen = _chosen(dispatcher)
    if dispatcher.batches_at_once > 1:
        held, windows = [len(one.held) for one in chosen], [dispatcher.window(one) for one in chosen]
        counts = shares(held, windows, _packed_to(dispatcher), min(queued, count))
    else:
        # Fill up to one level, so that who holds least gets most.
        level = -(-(sum([len(one.held) for one in chosen]) + queued) // len(chosen))
        counts = [min(dispatcher.window(one), level) - len(one.held) for one in chosen]
    return zip(chosen, counts, strict=True)


def next_in_use(dispatcher: Dispatcher) -> Container:
    """Who gets the next batch; there is one that may."""
    return _in_order_of_use(dispatcher)[0]


def _chosen(dispatcher: Dispatcher) -> list[Container]:
    """The containers that share what is queued, as many as the work is worth: where several inputs are for each,
    those that run already; else those that hold least."""
    wanted = dispatcher.ordinary
    if dispatcher.expected_us:
        wanted = min(wanted, int(wanted * dispatcher.expected_us / SPREAD_US) + 1)
    if dispatcher.batches_at_once > 1:
        return _in_order_of_use(dispatcher)[:wanted]
    if wanted < dispatcher.ordinary and len(dispatcher.idle) < len(dispatcher.free):
        return _running_first(dispatcher, wanted)
    if wanted <= len(dispatcher.idle):
        # Who ran last is warmest, and the others may reach the end of their scaledown window.
        return list(itertools.islice(reversed(dispatcher.idle), wanted))
    free = list(dispatcher.free)
    if len(free) > 1:
        free.sort(key=lambda container: len(container.held))
    return free[:wanted]


def _running_first(dispatcher: Dispatcher, count: int) -> list[Container]:
    """So many of the containers that may be handed short inputs: those that run and hold little, the fullest first,
    for one process that goes on leaves more of the machine to others than several that take turns; then those that
    run nothing; then all others, the emptiest first."""
    now, few = dispatcher.clock.monotonic(), PACK_US / dispatcher.expected_us
    packed: list[Container] = []
    others: list[Container] = []
    for one in sorted([one for one in dispatcher.free if one.held], key=lambda container: len(container.held)):
        goes_on = len(one.held) < few and one.quiet_s(now) < PACK_QUIET_S
        (packed if goes_on else others).append(one)
    return list(itertools.islice(itertools.chain(reversed(packed), reversed(dispatcher.idle), others), count))


def _in_order_of_use(dispatcher: Dispatcher) -> list[Container]:
    """The containers that may be handed something: those to be packed, the fullest first; then those that run
    nothing, the one that ran last first; then all others, the emptiest first."""
    packed_to = _packed_to(dispatcher)
    busy = sorted([one for one in dispatcher.free if one.is_busy], key=dispatcher.load, reverse=True)
    below = [one for one in busy if dispatcher.load(one) < packed_to]
    return [*below, *reversed(dispatcher.idle), *reversed(busy[: len(busy) - len(below)])]


def _packed_to(dispatcher: Dispatcher) -> int:
    """The target, where fewer containers may do; those that the function keeps anyway share what there is."""
    return dispatcher.target if len(dispatcher.containers) > dispatcher.scaling.min_containers else 0
