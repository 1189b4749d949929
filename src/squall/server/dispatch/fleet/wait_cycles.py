"""Calls that wait in a circle: what they wait for could only run where they run themselves.

A function is *clogged* when it has as many containers as it may have, and every input that these run is stuck. An input
in a container is *stuck* when it waits for calls, and each is stuck itself or waits for a container of a clogged
function. None of them ever ends by itself.

Found by elimination: at first all that might be stuck is, then whatever can move is taken out, and what waits for it,
until nothing changes. What is in doubt can move. So one call that runs, however long and wherever, is enough for all
that wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from squall.server.autoscaler import CONTAINERS_MAX
from squall.server.dispatch.fleet.container import FROM_BEFORE, Container
from squall.server.dispatch.function.call_table import CallTable
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.dispatch.function.input import Call, Input


@dataclass(frozen=True, slots=True)
class _Need:
    """What an input waits for of one call."""

    begun: tuple[Input, ...]
    unbegun: Input | None
    """One of those that no container has begun."""


def containers_max(dispatcher: Dispatcher) -> int:
    """How many containers the function may have."""
    limit = dispatcher.scaling.max_containers
    return CONTAINERS_MAX if limit is None else limit


def is_full(dispatcher: Dispatcher) -> bool:
    """Whether the function gets no other container, and those it has run nothing but inputs that wait for calls."""
    containers = dispatcher.containers
    has_all = 0 < containers_max(dispatcher) <= len(containers) and not dispatcher.holdings.absent
    return has_all and all(_is_taken(one) for one in containers.values())


def _is_taken(container: Container) -> bool:
    dispatcher = container.dispatcher
    room = min(dispatcher.max_inputs, dispatcher.window(container)) - len(container.held)
    return container.is_open and not container.unknown and room <= 0 and container.is_waiting


class WaitCycles:
    """Who waits for whom at one moment, as far as it can never end."""

    def __init__(
        self,
        containers: Iterable[Container],
        full: Iterable[Dispatcher],
        calls: CallTable,
        awaited: Iterable[tuple[Input, str, int]],
    ) -> None:
        self._begun = begun = {
            one: container
            for container in containers
            for one in list(container.held)[: container.dispatcher.max_inputs]
        }
        self._needs: dict[Input, list[_Need]] = {}
        self._stuck: set[Input] = set()
        self._clogged = {one: [other for other in begun if other.call.dispatcher is one] for one in full}
        self._reached: dict[Dispatcher, set[Input]] = {}
        in_doubt = self._collect(begun, calls, awaited)
        self._share_in_batches(begun, in_doubt)
        for one, container in begun.items():
            is_ending = not container.is_open or (one.trouble is not None and bool(one.trouble.cut_short_by))
            if one in self._needs and one not in in_doubt and not is_ending:
                self._stuck.add(one)
        self._eliminate()

    def _collect(
        self, begun: dict[Input, Container], calls: CallTable, awaited: Iterable[tuple[Input, str, int]]
    ) -> set[Input]:
        """Note what all inputs in containers wait for; returns those of which it is not known."""
        begun_of: dict[Call, list[Input]] = {}
        for one in begun:
            begun_of.setdefault(one.call, []).append(one)
        for call in calls.waited_for():
            if call.parent is not None:
                unbegun = next((one for one in call.inputs.values() if one not in begun), None)
                need = _Need(tuple(begun_of.get(call, ())), unbegun)
                self._needs.setdefault(call.parent, []).append(need)
        in_doubt: set[Input] = set()
        for parent, call_id, index in awaited:
            awaited_one = calls.input(call_id, index)
            if awaited_one is None:
                in_doubt.add(parent)  # its output is on its way, or it waits in the store only
                continue
            need = _Need((awaited_one,), None) if awaited_one in begun else _Need((), awaited_one)
            self._needs.setdefault(parent, []).append(need)
        return in_doubt

    def _share_in_batches(self, begun: dict[Input, Container], in_doubt: set[Input]) -> None:
        """What one input of a batch waits for, all of the batch wait for."""
        batches: dict[tuple[Container, int], list[Input]] = {}
        for one, container in begun.items():
            if one.batch:
                batches.setdefault((container, one.batch), []).append(one)
        for (_, number), together in batches.items():
            needs = [need for one in together for need in self._needs.get(one, ())]
            if number == FROM_BEFORE or not in_doubt.isdisjoint(together):
                in_doubt.update(together)
            elif needs:
                self._needs.update(dict.fromkeys(together, needs))

    def _eliminate(self) -> None:
        """Take out whatever can move."""
        self._reached.clear()
        while True:
            moving = [one for one in self._stuck if any(self._can_end(need) for need in self._needs[one])]
            free = [one for one, running in self._clogged.items() if not self._stuck.issuperset(running)]
            if not moving and not free:
                return
            self._stuck.difference_update(moving)
            for dispatcher in free:
                del self._clogged[dispatcher]

    def _can_end(self, need: _Need) -> bool:
        if any(one not in self._stuck for one in need.begun):
            return True
        return need.unbegun is not None and need.unbegun.call.dispatcher not in self._clogged

    def closing(self) -> list[Input]:
        """Inputs that close a circle: no container can begin them before one of those that wait for them has ended.

        One of each call that has some. The one that has waited longest comes first.
        """
        found = {
            need.unbegun
            for one in self._stuck
            for need in self._needs[one]
            if need.unbegun is not None and one in self._reach(need.unbegun.call.dispatcher)
        }
        return sorted(found, key=lambda one: (one.call.created_at, one.index))

    def _reach(self, dispatcher: Dispatcher) -> set[Input]:
        """Inputs that must end before this clogged function can begin another one."""
        reached = self._reached.get(dispatcher)
        if reached is not None:
            return reached
        reached = self._reached[dispatcher] = set()
        left = list(self._clogged[dispatcher])
        while left:
            one = left.pop()
            if one in reached:
                continue
            reached.add(one)
            for need in self._needs[one]:
                left += need.begun
                if need.unbegun is not None:
                    left += self._clogged[need.unbegun.call.dispatcher]
        return reached

    def doomed_with(self, one: Input) -> list[Input]:
        """What must fail for its circle to be free. All of a map has to, if who made it is to wait for it no longer; of
        a durable call each input is waited for by itself."""
        if one.call.is_durable:
            return [one]
        return [other for other in one.call.inputs.values() if other not in self._begun]

    def answered(self, failed: Input) -> None:
        """That one has failed, and what was doomed with it: what waited for it can move, and what waits for that."""
        self._stuck -= {one for one in self._stuck if any(need.unbegun is failed for need in self._needs[one])}
        self._eliminate()
