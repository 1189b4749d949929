"""The scheduler: who is next (`turns.py`) and where it goes (`cluster.py`), and who makes room."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from squall.server.scheduler.claim import Claim, Pending, Placement
from squall.server.scheduler.cluster import Cluster, NodeView
from squall.server.scheduler.giving_way import Try
from squall.server.scheduler.turns import Shape, Turns

PLACEMENTS_MAX = 200
"""Of one plan: what comes after it has its turn on the event loop, too."""
KEPT_S = 2.0
"""An idle container of an app with less is left alone for so long: its next call may be on its way."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Placements, and the containers that no node could ever take, with the reason."""

    placements: tuple[Placement, ...] = ()
    impossible: tuple[tuple[str, str], ...] = ()
    has_more: bool = False
    """There is room for more: ask again."""


class Scheduler:
    """Told of nodes, of containers that need one and of those that have one; says what goes where."""

    def __init__(self) -> None:
        self._cluster = Cluster()
        self._turns = Turns()
        self._is_changed = False

    # What is told

    def node_came(self, view: NodeView) -> None:
        """A node is there, or has changed: one that is away is draining."""
        self._cluster.put(view)
        self._is_changed = True

    def node_gone(self, node_id: str) -> None:
        """A node is lost, and its containers with it."""
        for one in self._cluster.remove(node_id):
            self._gone(one)
        self._is_changed = True

    def images_changed(self) -> None:
        """A node got an image, or lost one."""
        self._cluster.images_changed()
        self._is_changed = True

    def templates_told(self, node_id: str, function_ids: Collection[str]) -> None:
        """For which functions a node has templates: their containers start sooner there."""
        self._cluster.templates_told(node_id, function_ids)

    def want(self, one: Pending) -> None:
        """A container needs a node."""
        self._turns.want(one)
        self._is_changed = True

    def unwant(self, container_id: str) -> None:
        """It does not any more, or not now."""
        self._turns.unwant(container_id)

    def hold(self, one: Pending, node_id: str) -> None:
        """A container is on that node."""
        if self._cluster.hold(one, node_id):
            self._turns.add_share(one, +1)

    def ended(self, container_id: str) -> None:
        """It is there no longer, or the node refused it."""
        one = self._cluster.release(container_id)
        if one is not None:
            self._gone(one)
            self._is_changed = True

    def _gone(self, one: Pending) -> None:
        self._turns.giving_way.promises.ended(one.container_id)
        self._turns.add_share(one, -1)

    def waits(self, container_id: str, *, is_waiting: bool) -> bool:
        """All it runs waits for calls of its own, or not any more; whether that is news."""
        is_news = self._cluster.waits(container_id, is_waiting=is_waiting)
        self._is_changed |= is_news
        return is_news

    # What is decided

    def place(self) -> Plan:
        """Place as many as fit, in the order of their turns. What is placed is held from then on."""
        if not self._is_changed:
            return Plan()
        self._is_changed = False
        turns, cluster = self._turns, self._cluster
        placements: list[Placement] = []
        unfit: set[Shape] = set()
        without_room: set[Claim] = set()
        """Claims that fit nowhere, whatever the image."""
        while (one := turns.first()) is not None and len(placements) < PLACEMENTS_MAX:
            if cluster.is_full:
                without_room.update(turns.claims)
                break
            shape = (one.claim, one.image_id)
            is_unfit = one.claim in without_room or shape in unfit
            node_id = None if is_unfit else cluster.choose(one)
            if node_id is not None:
                turns.unwant(one.container_id)
                self.hold(one, node_id)
                placements.append(Placement(one.container_id, node_id))
                continue
            # Placing others makes no room: what is like it does not fit, either.
            unfit.add(shape)
            if not cluster.has_room(one.claim):
                without_room.add(one.claim)
            if len(without_room) == len(turns.claims) or len(unfit) == len(turns.shapes):
                break
            turns.set_aside(one)
        turns.restore()
        has_more = len(placements) == PLACEMENTS_MAX
        self._is_changed |= has_more
        return Plan(tuple(placements), self._impossible(without_room), has_more)

    def _impossible(self, without_room: set[Claim]) -> tuple[tuple[str, str], ...]:
        never = {claim: reason for claim in without_room if (reason := self._cluster.why_never(claim))}
        if not never:
            return ()
        return tuple((one.container_id, never[one.claim]) for one in self._turns.waiting() if one.claim in never)

    @property
    def cores(self) -> int:
        """Of all nodes that take containers."""
        return self._cluster.cores

    @property
    def waiting_count(self) -> int:
        """How many containers wait for a node."""
        return len(self._turns)

    def waiting_of(self, app_id: str) -> int:
        """How many of them count for that app."""
        return self._turns.waiting_of_app(app_id)

    def is_waiting(self, function_id: str) -> bool:
        """Whether one of them is of that function."""
        return self._turns.is_waiting(function_id)

    def images_wanted(self) -> set[str]:
        """The images of those."""
        return {image_id for _, image_id in self._turns.shapes}

    def waiting_for(self, image_id: str) -> list[str]:
        """Those of one image."""
        return [one.container_id for one in self._turns.waiting() if one.image_id == image_id]

    # Who makes room

    def may_evict(self, container_id: str, idle_s: float) -> bool:
        """Whether an idle container may be ended for who is next: not one of a function that waits itself, nor, right
        after it was busy, one whose owner would then have less than who is next."""
        one, first = self._cluster.held(container_id), self._turns.first()
        if one is None or first is None or self._turns.is_waiting(one.function_id):
            return False
        if idle_s >= KEPT_S:
            return True
        shares = self._turns.share_of_app(one.app_id), self._turns.share_of_app(first.app_id)
        if one.app_id == first.app_id:
            functions = self._turns.share_of_function
            shares = functions(one.function_id), functions(first.function_id)
        return shares[0] - one.claim.weight >= shares[1]

    def give_way(self, now: float, count: int, make: Try) -> bool:
        """Have functions give up a busy container each for others, at most `count` at a time; whether there are more to
        look at in the next turn. `promise` is to be told of those that do."""
        return self._turns.giving_way.choose(now, count, make).has_more

    def promise(self, container_id: str, one: Pending, now: float) -> None:
        """That container gives way to that one."""
        given = self._cluster.held(container_id)
        if given is not None:
            self._turns.promise(container_id, given, one, now)

    def would_fit(self, claim: Claim, without: str) -> bool:
        """Whether one with this claim would have room if that container were not there."""
        return self._cluster.would_fit(claim, without)

    def is_image_missing(self, image_id: str, container_id: str) -> bool:
        """Whether the node of that container said that it does not have the image."""
        return self._cluster.is_image_missing(image_id, container_id)
