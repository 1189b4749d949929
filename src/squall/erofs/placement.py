"""Says where each node of a tree lies in its image, before anything is written.

The file has two parts. Metadata comes first: inodes in slots of 32 bytes, their attributes, and what is short enough to
lie behind them, so that looking a name up and reading a small file are reads of neighbours. Whole blocks of content
come after it, in the order of the tree. An inode and what lies behind it stay within one block where one block holds
them; what that leaves free at the end of blocks is given to nodes that fit there.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

from squall.erofs import layout
from squall.erofs.errors import PackError
from squall.erofs.layout import BLOCK_BITS, BLOCK_BYTES, SLOT_BYTES
from squall.erofs.tree import Node, walk

_SLOTS_PER_BLOCK = BLOCK_BYTES // SLOT_BYTES
# With more chunks than this in a file, larger chunks keep its table short.
_CHUNKS_OF_A_FILE_MAX = 65_536


@dataclass(slots=True, eq=False)
class Place:
    """Where a node lies."""

    node: Node
    number: int
    """Counted from 1, in the order of the tree."""
    parent: Node
    """The directory of its first name."""
    xattrs: bytes
    layout: int = layout.FLAT_PLAIN
    size: int = 0
    offset: int = 0
    """Of the inode in the file."""
    block: int = 0
    """The first of its whole blocks, if it has any."""
    block_count: int = 0
    tail_bytes: int = 0
    """What lies behind the inode instead of in a block."""
    blocks_of_names: list[int] = field(default_factory=list)
    """Of a directory: how many names are in each of its blocks, the short last one included."""
    chunk_bits: int = 0
    chunks: list[int] = field(default_factory=list)
    """Of a file with holes: which of its chunks have data, ascending."""

    @property
    def slot(self) -> int:
        """What names in directories call it."""
        return self.offset // SLOT_BYTES

    @property
    def head_bytes(self) -> int:
        """The inode and its attributes."""
        return layout.INODE_BYTES + len(self.xattrs)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where everything lies."""

    places: list[Place]
    """In the order of the tree, the root first."""
    of: dict[Node, Place]
    metadata_blocks: int
    blocks: int


def place(root: Node) -> Placement:
    """Decide where the nodes of a tree lie.

    Raises:
        PackError: the tree is larger than the format allows.
    """
    of: dict[Node, Place] = {}
    space = _Space()
    for _, node, parent in walk(root):
        if node in of:
            continue
        found = Place(node, len(of) + 1, parent, layout.pack_xattrs(node.xattrs), size=node.size)
        of[node] = found
        _lay_out(found)
        behind = found.tail_bytes
        if found.layout == layout.CHUNKED:
            behind = -(-found.size >> found.chunk_bits) * layout.CHUNK_ENTRY_BYTES
        found.offset = space.take(found.head_bytes + behind)
    places = list(of.values())
    next_block = space.block_count
    for one in places:
        if one.block_count:
            one.block = next_block
            next_block += one.block_count
    if next_block >= layout.HOLE:
        raise PackError(f"cannot pack a tree of {next_block} blocks: an image has at most 16 TiB")
    return Placement(places, of, space.block_count, next_block)


def _lay_out(one: Place) -> None:
    node = one.node
    if stat.S_ISDIR(node.mode):
        names = sorted((b".", b"..", *node.children))
        one.blocks_of_names = layout.directory_blocks(names)
        one.size = layout.directory_bytes(names, one.blocks_of_names)
    elif node.data is not None:
        _lay_out_chunks(one)
        return
    elif not (stat.S_ISREG(node.mode) or stat.S_ISLNK(node.mode)):
        return
    one.block_count, rest = divmod(one.size, BLOCK_BYTES)
    if rest and one.head_bytes + rest <= BLOCK_BYTES:
        one.layout, one.tail_bytes = layout.FLAT_INLINE, rest
    elif rest:
        one.block_count += 1


def _lay_out_chunks(one: Place) -> None:
    if not one.node.data:
        # Nothing but a hole: one chunk is as large as any file, and its size need not be listed chunk by chunk.
        one.layout, one.chunk_bits = layout.CHUNKED, BLOCK_BITS + layout.CHUNK_BITS_MAX
        return
    bits = BLOCK_BITS
    while one.size >> bits > _CHUNKS_OF_A_FILE_MAX and bits < BLOCK_BITS + layout.CHUNK_BITS_MAX:
        bits += 1
    one.layout, one.chunk_bits = layout.CHUNKED, bits
    last = -1
    for begin, end in one.node.data:
        first = max(begin >> bits, last + 1)
        last = (end - 1) >> bits
        one.chunks.extend(range(first, last + 1))
    per_chunk = 1 << (bits - BLOCK_BITS)
    one.block_count = len(one.chunks) * per_chunk
    if one.chunks and one.chunks[-1] == (one.size - 1) >> bits:
        # The file ends in its last chunk, and so does what is stored of it.
        one.block_count -= per_chunk - (-(-one.size >> BLOCK_BITS) - (one.chunks[-1] * per_chunk))


class _Space:
    """Hands out places for nodes; the smallest gap at the end of a block that is large enough is used first."""

    def __init__(self) -> None:
        self.block_count = 1
        self._gaps: list[list[int]] = [[] for _ in range(_SLOTS_PER_BLOCK)]
        # Bit n: there is a gap of n slots.
        self._present = 0
        begin = layout.SUPERBLOCK_OFFSET + 128
        self._add_gap(begin, (BLOCK_BYTES - begin) // SLOT_BYTES)

    def take(self, size_bytes: int) -> int:
        """An offset in the file with this many bytes behind it, in one block if they fit in one."""
        slots = -(-size_bytes // SLOT_BYTES)
        fitting = self._present >> slots
        if slots < _SLOTS_PER_BLOCK and fitting:
            size = slots + (fitting & -fitting).bit_length() - 1
            gaps = self._gaps[size]
            offset = gaps.pop()
            if not gaps:
                self._present &= ~(1 << size)
            self._add_gap(offset + slots * SLOT_BYTES, size - slots)
            return offset
        offset = self.block_count * BLOCK_BYTES
        blocks = -(-slots // _SLOTS_PER_BLOCK)
        self.block_count += blocks
        self._add_gap(offset + slots * SLOT_BYTES, blocks * _SLOTS_PER_BLOCK - slots)
        return offset

    def _add_gap(self, offset: int, slots: int) -> None:
        if slots:
            self._gaps[slots].append(offset)
            self._present |= 1 << slots
