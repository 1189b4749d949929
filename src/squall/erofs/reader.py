"""Reads an image without the kernel: what is in it, and the contents of its files."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from squall.erofs import layout
from squall.erofs.errors import BadImage
from squall.erofs.layout import BLOCK_BYTES, CHUNK_ENTRY_BYTES, SLOT_BYTES, Dirent, Inode

_PIECE_BYTES = 1024 * 1024


class Image:
    """An image file, open. Nodes are known by their slot; the root's is `root`.

    Every method raises `BadImage` when the file says what cannot be.
    """

    def __init__(self, path: Path) -> None:
        """Open an image. Call `close`, or use it in a `with` block."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(descriptor).st_size
            if size < BLOCK_BYTES:
                raise BadImage(f"not an EROFS image: {path} has {size} bytes")
            self._data = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        superblock = layout.read_superblock(self._data[:BLOCK_BYTES])
        if superblock.blocks * BLOCK_BYTES > size:
            self._data.close()
            raise BadImage(
                f"damaged EROFS image: {path} has {size} bytes and should have {superblock.blocks * BLOCK_BYTES}"
            )
        self.root = superblock.root
        self.inode_count = superblock.inodes
        self._metadata = superblock.metadata_block * BLOCK_BYTES

    def close(self) -> None:
        """Let go of the file."""
        self._data.close()

    def __enter__(self) -> Image:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def inode(self, slot: int) -> Inode:
        """What an image says of a node."""
        return layout.read_inode(self._slice(self._offset(slot), layout.INODE_BYTES))

    def xattrs(self, slot: int) -> tuple[tuple[bytes, bytes], ...]:
        """The extended attributes of a node: names and values."""
        inode = self.inode(slot)
        return layout.read_xattrs(self._slice(self._offset(slot) + inode.head_bytes, inode.xattr_bytes))

    def entries(self, slot: int) -> Iterator[Dirent]:
        """The names in a directory, without `.` and `..`."""
        content = b"".join(data for _, data in self.content(slot))
        for at in range(0, len(content), BLOCK_BYTES):
            for entry in layout.read_directory_block(content[at : at + BLOCK_BYTES]):
                if entry.name not in (b".", b".."):
                    yield entry

    def target(self, slot: int) -> bytes:
        """Where a symbolic link points."""
        return b"".join(data for _, data in self.content(slot))

    def content(self, slot: int) -> Iterator[tuple[int, bytes]]:
        """The content of a node in pieces, each with its offset; what is missing between them is a hole."""
        inode = self.inode(slot)
        if not (stat.S_ISREG(inode.mode) or stat.S_ISDIR(inode.mode) or stat.S_ISLNK(inode.mode)):
            return
        behind = self._offset(slot) + inode.head_bytes + inode.xattr_bytes
        if inode.layout == layout.CHUNKED:
            yield from self._chunks(inode, behind)
            return
        if inode.layout not in (layout.FLAT_PLAIN, layout.FLAT_INLINE):
            raise BadImage(f"cannot read EROFS image: layout {inode.layout} of node {slot}")
        tail = inode.size % BLOCK_BYTES if inode.layout == layout.FLAT_INLINE else 0
        yield from self._pieces(inode.place * BLOCK_BYTES, 0, inode.size - tail)
        if tail:
            yield inode.size - tail, self._slice(behind, tail)

    def _chunks(self, inode: Inode, table: int) -> Iterator[tuple[int, bytes]]:
        bits = (inode.place & 0x1F) + layout.BLOCK_BITS
        table += -table % CHUNK_ENTRY_BYTES
        for number in range(-(-inode.size >> bits)):
            address = self._slice(table + number * CHUNK_ENTRY_BYTES, CHUNK_ENTRY_BYTES)
            block = int.from_bytes(address, "little")
            if block != layout.HOLE:
                begin = number << bits
                yield from self._pieces(block * BLOCK_BYTES, begin, min(1 << bits, inode.size - begin))

    def _pieces(self, offset: int, begin: int, size: int) -> Iterator[tuple[int, bytes]]:
        for at in range(0, size, _PIECE_BYTES):
            yield begin + at, self._slice(offset + at, min(_PIECE_BYTES, size - at))

    def _offset(self, slot: int) -> int:
        return self._metadata + slot * SLOT_BYTES

    def _slice(self, offset: int, size: int) -> bytes:
        if offset + size > len(self._data):
            raise BadImage(f"damaged EROFS image: {size} bytes at {offset} are behind its end")
        return self._data[offset : offset + size]
