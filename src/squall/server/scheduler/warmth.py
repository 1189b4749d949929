"""Where a function's containers start by a fork: which nodes have a template for it, as far as they have said."""

from __future__ import annotations

from collections.abc import Collection, Set


class Warmth:
    """Nodes by function, kept with what each node said last."""

    def __init__(self) -> None:
        self._nodes: dict[str, set[str]] = {}
        self._functions: dict[str, frozenset[str]] = {}
        """By node."""

    def told(self, node_id: str, function_ids: Collection[str]) -> None:
        """A node has templates for these now, and for no others."""
        before, now = self._functions.get(node_id, frozenset()), frozenset(function_ids)
        for function_id in before - now:
            self._nodes[function_id].discard(node_id)
            if not self._nodes[function_id]:
                del self._nodes[function_id]
        for function_id in now - before:
            self._nodes.setdefault(function_id, set()).add(node_id)
        if now:
            self._functions[node_id] = now
        else:
            self._functions.pop(node_id, None)

    def nodes_of(self, function_id: str) -> Set[str]:
        """Nodes that have one for it."""
        return self._nodes.get(function_id, frozenset())
