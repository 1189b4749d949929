"""What versions take: the nodes that can be reached, and the blocks, each counted once."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from squall.protocol.volume import BLOCK_BYTES
from squall.server.model.volume import Nodes
from squall.server.volume.entry import DIRECTORY, FILE, Entry
from squall.server.volume.nodes import blocks_of, entries_of, leaves_of


def reachable(nodes: Nodes, roots: Iterable[str], within: Container[str] | None = None) -> frozenset[str]:
    """The names of all nodes of these trees; with `within` none that is not in it."""
    found: set[str] = set()
    for name, entries in _visited(nodes, roots, within):
        found.add(name)
        found |= {entry.block_list for entry in entries if entry.block_list}
    return frozenset(found)


def block_sizes(nodes: Nodes, roots: Iterable[str]) -> dict[str, int]:
    """Of each block that these trees name, how many of its bytes they use."""
    sizes: dict[str, int] = {}
    for _, entries in _visited(nodes, roots):
        for entry in entries:
            if entry.kind == FILE:
                _add(sizes, nodes, entry)
    return sizes


def _add(sizes: dict[str, int], nodes: Nodes, entry: Entry) -> None:
    left = entry.offset + entry.size
    for block in blocks_of(nodes, entry):
        if block:
            sizes[block] = max(sizes.get(block, 0), min(BLOCK_BYTES, left))
        left -= BLOCK_BYTES


def _visited(
    nodes: Nodes, roots: Iterable[str], within: Container[str] | None = None
) -> Iterator[tuple[str, tuple[Entry, ...]]]:
    """Each node of these trees once: directories, and their leaves with what is in them."""
    seen = {""}
    waiting = list(roots)
    while waiting:
        directory = waiting.pop()
        if directory in seen or not (within is None or directory in within):
            continue
        seen.add(directory)
        yield directory, ()
        for leaf in leaves_of(nodes, directory):
            if leaf.node in seen or not (within is None or leaf.node in within):
                continue
            seen.add(leaf.node)
            entries = entries_of(nodes, leaf)
            yield leaf.node, entries
            waiting += [entry.node for entry in entries if entry.kind == DIRECTORY]
