"""The nodes, with what is claimed of each kept as it changes, in the orders in which they are chosen.

Among nodes that have room for a container, one where the image is comes first; then the tightest fit or, without a
request, the one with the fewest containers per core; then one where the function is already.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Collection, Set
from dataclasses import dataclass

from squall.server.scheduler.claim import MEMORY_FLOOR_MIB, Claim, Pending
from squall.server.scheduler.warmth import Warmth

WARM_LOAD = 2
"""Containers per core that a node may have more than the emptiest one and still be preferred for what it has a template
of."""
FEW = 16
"""So many nodes are looked at one by one; more are taken in order."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as the scheduler is told of it."""

    node_id: str
    cpu_milli: int
    memory_mib: int
    containers_max: int
    is_draining: bool = False
    image_ids: Set[str] = frozenset()
    """These two may change later, if `Cluster.images_changed` is told."""
    missing_image_ids: Set[str] = frozenset()
    """Images it said it does not have."""


class _Node:
    """A node and what is claimed of it."""

    __slots__ = ("container_count", "cpu_claimed_milli", "memory_claimed_mib", "places", "view")

    def __init__(self, view: NodeView) -> None:
        self.view = view
        self.container_count = 0
        self.cpu_claimed_milli = 0
        self.memory_claimed_mib = 0
        self.places: tuple[int, int] | None = None
        """Where it stands in the two orders; None when it takes nothing."""

    @property
    def load(self) -> int:
        """Whole containers per core: among nodes about equally full, the warm one."""
        return self.container_count * 1_000 // max(self.view.cpu_milli, 1)

    @property
    def free_mib(self) -> int:
        return self.view.memory_mib - self.memory_claimed_mib

    def has_room(self, claim: Claim) -> bool:
        """Whether one more with this claim fits."""
        return (
            not self.view.is_draining
            and self.container_count < self.view.containers_max
            and self.memory_claimed_mib + claim.memory_mib <= self.view.memory_mib
            and self.cpu_claimed_milli + claim.cpu_milli <= self.view.cpu_milli
        )


class _Held:
    """A container that has a place."""

    __slots__ = ("is_waiting", "node", "one")

    def __init__(self, one: Pending, node: _Node) -> None:
        self.one = one
        self.node = node
        self.is_waiting = False
        """All its inputs wait for calls: it claims no cpu."""


def cores_of(view: NodeView) -> int:
    """How many containers can load at a time on this node without taking the processor from each other."""
    return 0 if view.is_draining else view.cpu_milli // 1_000


class Cluster:
    """All nodes."""

    def __init__(self) -> None:
        self.cores = 0
        """Of the nodes that take anything."""
        self._nodes: dict[str, _Node] = {}
        self._held: dict[str, _Held] = {}
        self._by_load: list[tuple[int, str]] = []
        """Nodes that take anything at all, the emptiest first."""
        self._by_free: list[tuple[int, str]] = []
        """The same by free memory, the tightest first."""
        self._nodes_of: dict[str, Counter[str]] = {}
        """Of each function, how many containers it has on which nodes."""
        self._with_image: dict[str, frozenset[str]] = {}
        """Where an image is, as far as it was asked since that last changed."""
        self._warmth = Warmth()
        self._no_room: set[Claim] = set()
        """Claims that no node has room for, whatever its images, until one has more room than it had."""

    def __len__(self) -> int:
        return len(self._nodes)

    # What is there

    def put(self, view: NodeView) -> None:
        """A node comes, or is told of anew; what is claimed of it stays."""
        node = self._nodes.get(view.node_id)
        if node is None:
            node = self._nodes[view.node_id] = _Node(view)
            self.cores += cores_of(view)
        self.cores += cores_of(view) - cores_of(node.view)
        node.view = view
        self._with_image.clear()
        self._no_room.clear()
        self._reindex(node)

    def remove(self, node_id: str) -> list[Pending]:
        """A node is gone, and its containers with it: these."""
        node = self._nodes.pop(node_id, None)
        if node is None:
            return []
        self.cores -= cores_of(node.view)
        self._warmth.told(node_id, ())
        gone = [held.one for held in self._held.values() if held.node is node]
        for one in gone:
            self.release(one.container_id)
        self._unindex(node)
        self._with_image.clear()
        return gone

    def images_changed(self) -> None:
        """A node got an image, or lost one."""
        self._with_image.clear()

    def templates_told(self, node_id: str, function_ids: Collection[str]) -> None:
        """For which functions a node has templates."""
        if node_id in self._nodes:
            self._warmth.told(node_id, function_ids)

    def hold(self, one: Pending, node_id: str) -> bool:
        """A container is on that node; False if there is none, or the container is known already."""
        node = self._nodes.get(node_id)
        if node is None or one.container_id in self._held:
            return False
        self._held[one.container_id] = _Held(one, node)
        self._count(one, node, +1)
        return True

    def release(self, container_id: str) -> Pending | None:
        """It is not there any more; what it had claimed."""
        held = self._held.pop(container_id, None)
        if held is None:
            return None
        self._count(held.one, held.node, -1, is_waiting=held.is_waiting)
        self._no_room.clear()
        return held.one

    def _count(self, one: Pending, node: _Node, sign: int, *, is_waiting: bool = False) -> None:
        node_id, function_id = node.view.node_id, one.function_id
        node.container_count += sign
        node.cpu_claimed_milli += 0 if is_waiting else sign * one.claim.cpu_milli
        node.memory_claimed_mib += sign * one.claim.memory_mib
        nodes = self._nodes_of.setdefault(function_id, Counter())
        nodes[node_id] += sign
        if not nodes[node_id]:
            del nodes[node_id]
        if not nodes:
            del self._nodes_of[function_id]
        self._reindex(node)

    def waits(self, container_id: str, *, is_waiting: bool) -> bool:
        """All it runs waits for calls, or not any more; whether that is news."""
        held = self._held.get(container_id)
        if held is None or held.is_waiting is is_waiting:
            return False
        held.is_waiting = is_waiting
        held.node.cpu_claimed_milli += -held.one.claim.cpu_milli if is_waiting else held.one.claim.cpu_milli
        self._reindex(held.node)
        self._no_room.clear()
        return True

    def held(self, container_id: str) -> Pending | None:
        """A container that has a place."""
        held = self._held.get(container_id)
        return held.one if held is not None else None

    def _reindex(self, node: _Node) -> None:
        self._unindex(node)
        node_id = node.view.node_id
        if node_id in self._nodes and node.has_room(Claim()):
            node.places = (node.load, node.free_mib)
            insort(self._by_load, (node.places[0], node_id))
            insort(self._by_free, (node.places[1], node_id))

    def _unindex(self, node: _Node) -> None:
        if node.places is None:
            return
        for order, place in zip((self._by_load, self._by_free), node.places, strict=True):
            del order[bisect_left(order, (place, node.view.node_id))]
        node.places = None

    # What fits

    @property
    def is_full(self) -> bool:
        """No node takes anything at all."""
        return not self._by_load

    def has_room(self, claim: Claim) -> bool:
        """Whether any node has room for it now, if it has the image. All that wait are asked about whenever a container
        ends, so the answer is kept until there is more room."""
        if claim in self._no_room:
            return False
        is_by_memory = claim.memory_mib > MEMORY_FLOOR_MIB
        order = self._by_free if is_by_memory else self._by_load
        first = bisect_left(order, (claim.memory_mib, "")) if is_by_memory else 0
        if any(self._nodes[order[index][1]].has_room(claim) for index in range(first, len(order))):
            return True
        self._no_room.add(claim)
        return False

    def choose(self, one: Pending) -> str | None:
        """The node for a container; None when none has room for it now."""
        if not self.has_room(one.claim):
            return None
        if (found := self._with_template(one)) is not None:
            return found
        with_image = self._holders(one.image_id)
        if with_image and (found := self._first(one, with_image)) is not None:
            return found
        return self._first(one, None)

    def _with_template(self, one: Pending) -> str | None:
        """A node where it begins as a fork, unless that is much fuller than the emptiest: one that has to load what it
        needs, on processors that are free, is then the sooner one to work."""
        nodes = [self._nodes[node_id] for node_id in self._warmth.nodes_of(one.function_id)]
        ready = [node for node in nodes if node.has_room(one.claim) and one.image_id not in node.view.missing_image_ids]
        if not ready:
            return None
        if one.claim.memory_mib > MEMORY_FLOOR_MIB:
            return min((node.free_mib, node.view.node_id) for node in ready)[1]
        load, node_id = min((node.load, node.view.node_id) for node in ready)
        return node_id if load <= self._by_load[0][0] + WARM_LOAD else None

    def _holders(self, image_id: str) -> frozenset[str]:
        found = self._with_image.get(image_id)
        if found is None:
            found = frozenset(key for key, node in self._nodes.items() if image_id in node.view.image_ids)
            self._with_image[image_id] = found
        return found

    def _first(self, one: Pending, among: frozenset[str] | None) -> str | None:
        """The first node by rank that takes it."""
        nodes, claim = self._nodes, one.claim
        is_by_memory = claim.memory_mib > MEMORY_FLOOR_MIB

        def takes(node: _Node) -> bool:
            return node.has_room(claim) and one.image_id not in node.view.missing_image_ids

        if among is not None and len(among) <= FEW:
            warm = self._nodes_of.get(one.function_id, ())
            ranked = [
                (node.free_mib if is_by_memory else node.load, node_id not in warm, node_id)
                for node_id in among
                if takes(node := nodes[node_id])
            ]
            return min(ranked)[2] if ranked else None
        order = self._by_free if is_by_memory else self._by_load
        for index in range(bisect_left(order, (claim.memory_mib, "")) if is_by_memory else 0, len(order)):
            place, node_id = order[index]
            if (among is None or node_id in among) and takes(nodes[node_id]):
                return self._warm(one, among, takes, is_by_memory, place) or node_id
        return None

    def _warm(
        self, one: Pending, among: frozenset[str] | None, takes: Callable[[_Node], bool], is_by_memory: bool, place: int
    ) -> str | None:
        """Among those that stand at that place, one where the function is already."""
        alike = [
            node_id
            for node_id in self._nodes_of.get(one.function_id, ())
            if (node := self._nodes[node_id]).places is not None
            and node.places[is_by_memory] == place
            and (among is None or node_id in among)
            and takes(node)
        ]
        return min(alike, default=None)

    def would_fit(self, claim: Claim, without: str) -> bool:
        """Whether one with this claim would have room where that container is, if that were not there."""
        held = self._held.get(without)
        if held is None or held.node.view.is_draining:
            return False
        node, freed = held.node, held.one.claim
        freed_milli = 0 if held.is_waiting else freed.cpu_milli
        is_cpu_there = node.cpu_claimed_milli - freed_milli + claim.cpu_milli <= node.view.cpu_milli
        return (claim.cpu_milli == 0 or is_cpu_there) and claim.memory_mib <= node.free_mib + freed.memory_mib

    def is_image_missing(self, image_id: str, container_id: str) -> bool:
        """Whether the node of that container said that it does not have the image."""
        held = self._held.get(container_id)
        return held is not None and image_id in held.node.view.missing_image_ids

    def why_never(self, claim: Claim) -> str:
        """Why no node could take it even if it were empty; empty when one could, or there is none at all."""
        for node in self._nodes.values():
            if claim.cpu_milli <= node.view.cpu_milli and claim.memory_mib <= node.view.memory_mib:
                return ""
        if not self._nodes:
            return ""
        views = [node.view for node in self._nodes.values()]
        cpu = max(view.cpu_milli for view in views) / 1000
        memory = max(view.memory_mib for view in views)
        asked = f"cpu={claim.cpu_milli / 1000:g} and " if claim.cpu_milli else ""
        return (
            f"no node is large enough for {asked}memory={claim.memory_mib} MiB: "
            f"the largest has {cpu:g} cores and {memory} MiB; ask for less"
        )
