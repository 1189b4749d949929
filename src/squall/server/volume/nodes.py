"""Directories as nodes, named by what is in them: two that are the same are kept once, in all volumes and versions.

A directory is cut into *leaves*, runs of entries in the order of their names, and its node lists these. Where it is cut
follows from the names alone, so that one more entry changes one leaf, and the same entries give the same node however
they came about (as in prolly trees: Noms, Dolt).
"""

from __future__ import annotations

import json
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from squall.server.model.volume import Nodes
from squall.server.volume.entry import DIRECTORY, Entry, decode, dump, encode

LEAF_ENTRIES = 256
"""On average; a power of two."""
LEAF_ENTRIES_MAX = 2_048
BLOCKS_INLINE_MAX = 64
"""A file of more blocks has its list in a node of its own."""


class Leaf(NamedTuple):
    """A run of entries, as the node of its directory lists it."""

    first: str
    """The first name."""
    node: str
    entry_count: int
    below: int
    """Entries in it and below."""
    size: int


def _key(name: str) -> bytes:
    """Names are in the order of their bytes, whatever they are."""
    return name.encode("utf-8", "surrogateescape")


def is_cut_after(name: str) -> bool:
    """Whether a leaf ends with this name, wherever it is."""
    return zlib.crc32(_key(name)) % LEAF_ENTRIES == 0


@lru_cache(maxsize=512)
def _decoded(data: bytes) -> tuple[Entry, ...]:
    return tuple(decode(data))


def leaves_of(nodes: Nodes, directory: str) -> list[Leaf]:
    """The leaves of a directory's node; none of the empty one."""
    return [Leaf(*row) for row in json.loads(nodes.get(directory))] if directory else []


def entries_of(nodes: Nodes, leaf: Leaf) -> tuple[Entry, ...]:
    """The entries of a leaf."""
    return _decoded(nodes.get(leaf.node))


def all_entries(nodes: Nodes, directory: str, after: str = "") -> Iterator[Entry]:
    """The entries of a directory in order; with `after` those behind that name."""
    leaves = leaves_of(nodes, directory)
    first = max(0, _place(leaves, after)) if after else 0
    for leaf in leaves[first:]:
        for entry in entries_of(nodes, leaf):
            if not after or _key(entry.name) > _key(after):
                yield entry


def find_entry(nodes: Nodes, directory: str, name: str) -> Entry | None:
    """One entry of a directory."""
    leaves = leaves_of(nodes, directory)
    place = _place(leaves, name)
    if place < 0:
        return None
    return next((entry for entry in entries_of(nodes, leaves[place]) if entry.name == name), None)


def _place(leaves: Sequence[Leaf], name: str) -> int:
    """The number of the leaf that has this name, if one has; -1 before the first."""
    return bisect_right(leaves, _key(name), key=lambda leaf: _key(leaf.first)) - 1


class Directory:
    """A directory that is being changed; `write` gives its node."""

    def __init__(self, nodes: Nodes, directory: str = "") -> None:
        self._nodes = nodes
        self._leaves = leaves_of(nodes, directory)
        self._changed: dict[int, dict[str, Entry]] = {}
        """By number of the leaf, its entries as they are now; -1 for the empty directory's."""
        self._node = directory

    def get(self, name: str) -> Entry | None:
        """The entry of that name."""
        place = self._place(name)
        if place in self._changed:
            return self._changed[place].get(name)
        if place < 0:
            return None
        return next((one for one in entries_of(self._nodes, self._leaves[place]) if one.name == name), None)

    def set(self, entry: Entry) -> None:
        """Put an entry in the place of the one of its name."""
        self._entries(entry.name)[entry.name] = entry

    def remove(self, name: str) -> None:
        """Take an entry away; harmless when there is none."""
        if self.get(name) is not None:
            self._entries(name).pop(name)

    def _place(self, name: str) -> int:
        # What comes before the first name belongs into the first leaf.
        return max(_place(self._leaves, name), 0 if self._leaves else -1)

    def _entries(self, name: str) -> dict[str, Entry]:
        place = self._place(name)
        if place not in self._changed:
            found = entries_of(self._nodes, self._leaves[place]) if place >= 0 else ()
            self._changed[place] = {one.name: one for one in found}
        return self._changed[place]

    def write(self) -> tuple[str, int, int]:
        """Its node, and what is in it and below: how many entries, how many bytes."""
        if self._changed:
            self._leaves = list(self._written())
            self._changed = {}
            self._node = self._nodes.put(dump(self._leaves)) if self._leaves else ""
        return self._node, sum(leaf.below for leaf in self._leaves), sum(leaf.size for leaf in self._leaves)

    def _written(self) -> Iterator[Leaf]:
        pending: list[Entry] = []
        """Of changed leaves whose end is not certain: what follows may belong to them."""
        for place in range(-1, len(self._leaves)):
            changed = self._changed.get(place)
            if changed is not None:
                pending += sorted(changed.values(), key=lambda one: _key(one.name))
            elif place < 0:
                continue
            elif pending:
                pending += entries_of(self._nodes, self._leaves[place])
            else:
                yield self._leaves[place]
                continue
            while (cut := _cut(pending)) < len(pending) or (pending and is_cut_after(pending[-1].name)):
                yield self._leaf(pending[:cut])
                pending = pending[cut:]
        while pending:
            cut = _cut(pending)
            yield self._leaf(pending[:cut])
            pending = pending[cut:]

    def _leaf(self, entries: Sequence[Entry]) -> Leaf:
        below = sum(entry.below for entry in entries if entry.kind == DIRECTORY)
        return Leaf(
            entries[0].name,
            self._nodes.put(encode(entries), [block for entry in entries for block in entry.blocks]),
            len(entries),
            len(entries) + below,
            sum(entry.size for entry in entries),
        )


def _cut(entries: Sequence[Entry]) -> int:
    """How many of these the next leaf has; all of them where none says that it ends."""
    for number, entry in enumerate(entries[:LEAF_ENTRIES_MAX], 1):
        if number == LEAF_ENTRIES_MAX or is_cut_after(entry.name):
            return number
    return len(entries)


def write_directory(nodes: Nodes, entries: Iterable[Entry]) -> tuple[str, int, int]:
    """As `Directory.write`, of all entries at once."""
    directory = Directory(nodes)
    for entry in entries:
        directory.set(entry)
    return directory.write()


def write_blocks(nodes: Nodes, blocks: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The blocks of a file as its entry has them: themselves, or a node that lists them."""
    if len(blocks) <= BLOCKS_INLINE_MAX:
        return tuple(blocks), ""
    runs: list[str | int] = []
    for block in blocks:
        if block:
            runs.append(block)
        elif runs and isinstance(runs[-1], int):
            runs[-1] += 1
        else:
            runs.append(1)
    return (), nodes.put(dump(runs), blocks)


def blocks_of(nodes: Nodes, entry: Entry) -> tuple[str, ...]:
    """The blocks of a file."""
    if not entry.block_list:
        return entry.blocks
    blocks: list[str] = []
    for run in json.loads(nodes.get(entry.block_list)):
        blocks += [""] * run if isinstance(run, int) else [run]
    return tuple(blocks)
