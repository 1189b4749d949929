"""Decide which node each pending container goes to.

Snapshot in, plan out. Nothing here reads the clock or the network; the caller commits the placements, and a node may
refuse: refused containers are simply pending again.

Invariants of a plan:
  * a container appears at most once
  * for every node, what is placed and what runs claims no more cpu and memory than it has, and no more containers
  * a draining node receives nothing, nor does one without the image

A *claim* is what the user requested with cpu= and memory=. Who requested nothing claims no cpu, and `MEMORY_FLOOR_MIB`
of memory. A container whose inputs all wait for their own calls claims no cpu: it does nothing, and without that a
full machine of waiting parents would wait for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MEMORY_FLOOR_MIB = 32


@dataclass(frozen=True, slots=True)
class Claim:
    """What a container reserves."""

    cpu_milli: int = 0
    memory_mib: int = MEMORY_FLOOR_MIB


@dataclass(frozen=True, slots=True)
class Pending:
    """A container that needs a node."""

    container_id: str
    function_id: str
    image_id: str
    claim: Claim


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as the scheduler sees it."""

    node_id: str
    cpu_milli: int
    memory_mib: int
    containers_max: int
    is_draining: bool = False
    cpu_claimed_milli: int = 0
    memory_claimed_mib: int = 0
    container_count: int = 0
    image_ids: frozenset[str] = frozenset()
    missing_image_ids: frozenset[str] = frozenset()
    """Images it said it does not have."""
    function_ids: frozenset[str] = frozenset()
    """Functions with a container here: files and templates are warm."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One container on one node."""

    container_id: str
    node_id: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Placements, the containers that fit nowhere now, and those that no node could ever take, with the reason."""

    placements: tuple[Placement, ...]
    waiting: tuple[str, ...] = ()
    impossible: tuple[tuple[str, str], ...] = ()


def fits(node: NodeView, claim: Claim) -> bool:
    """Whether the node has room for one more with this claim."""
    return (
        not node.is_draining
        and node.container_count < node.containers_max
        and node.cpu_claimed_milli + claim.cpu_milli <= node.cpu_milli
        and node.memory_claimed_mib + claim.memory_mib <= node.memory_mib
    )


def plan(pending: tuple[Pending, ...], nodes: tuple[NodeView, ...]) -> Plan:
    """Place as many as fit, in the order given."""
    views = {node.node_id: node for node in nodes}
    placements: list[Placement] = []
    waiting: list[str] = []
    impossible: list[tuple[str, str]] = []
    for one in pending:
        candidates = [
            node for node in views.values() if fits(node, one.claim) and one.image_id not in node.missing_image_ids
        ]
        if candidates:
            chosen = min(candidates, key=lambda node: _rank(node, one))
            placements.append(Placement(one.container_id, chosen.node_id))
            views[chosen.node_id] = _with(chosen, one)
        elif nodes and not any(_could_fit(node, one.claim) for node in nodes):
            impossible.append((one.container_id, _too_large(one.claim, nodes)))
        else:
            waiting.append(one.container_id)
    return Plan(tuple(placements), tuple(waiting), tuple(impossible))


def _rank(node: NodeView, one: Pending) -> tuple[int, int, int, str]:
    """Less is better: the image is here; then the tightest fit or, without a request, the fewest containers per core;
    then the function is here already."""
    if one.claim.memory_mib > MEMORY_FLOOR_MIB:
        fit = node.memory_mib - node.memory_claimed_mib - one.claim.memory_mib
    else:
        # Whole containers per core: among nodes about equally full, the warm one.
        fit = node.container_count * 1_000 // max(node.cpu_milli, 1)
    return (one.image_id not in node.image_ids, fit, one.function_id not in node.function_ids, node.node_id)


def _with(node: NodeView, one: Pending) -> NodeView:
    return replace(
        node,
        cpu_claimed_milli=node.cpu_claimed_milli + one.claim.cpu_milli,
        memory_claimed_mib=node.memory_claimed_mib + one.claim.memory_mib,
        container_count=node.container_count + 1,
        function_ids=node.function_ids | {one.function_id},
    )


def _could_fit(node: NodeView, claim: Claim) -> bool:
    return claim.cpu_milli <= node.cpu_milli and claim.memory_mib <= node.memory_mib


def _too_large(claim: Claim, nodes: tuple[NodeView, ...]) -> str:
    cpu = max(node.cpu_milli for node in nodes) / 1000
    memory = max(node.memory_mib for node in nodes)
    return (
        f"no node is large enough for cpu={claim.cpu_milli / 1000:g} and memory={claim.memory_mib} MiB: "
        f"the largest has {cpu:g} cores and {memory} MiB; ask for less"
    )
