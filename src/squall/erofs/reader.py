"""Reads an image without the kernel: what is in it, and the contents of its files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from squall.erofs import layout
from squall.erofs.errors import BadImage
from squall.erofs.layout import BLOCK_BYTES, CHUNK_ENTRY_BYTES, SLOT_BYTES, Dirent, Inode

PIECE_BYTES = 1024 * 1024
"""Content is read in pieces of at most this."""


class Extent(NamedTuple):
    """A part of a node's content that lies in one piece in the image file."""

    begin: int
    size: int
    offset: int
    """In the image file."""


_WINDOW_BYTES = 64 * 1024


class Image:
    """An image file, open. Nodes are known by their slot; the root's is `root`.

    Every method raises `BadImage` when the file says what cannot be.
    """

    def __init__(self, path: Path) -> None:
        """Open an image. Call `close`, or use it in a `with` block."""
        # Read, and not mapped: of a file that is cut off, or served by somebody who dies, a mapping kills who looks.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._window = (0, b"")
        """Where it begins and what it holds, in one: several threads may read an image."""
        try:
            self._size = size = os.fstat(self._descriptor).st_size
            if size < BLOCK_BYTES:
                raise BadImage(f"not an EROFS image: {path} has {size} bytes")
            superblock = layout.read_superblock(self._slice(0, BLOCK_BYTES))
            if superblock.blocks * BLOCK_BYTES > size:
                raise BadImage(
                    f"damaged EROFS image: {path} has {size} bytes and should have {superblock.blocks * BLOCK_BYTES}"
                )
        except BaseException:
            os.close(self._descriptor)
            raise
        self.root = superblock.root
        self.inode_count = superblock.inodes
        self._metadata = superblock.metadata_block * BLOCK_BYTES

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)

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
        for begin, size, offset in self.extents(slot):
            for at in range(0, size, PIECE_BYTES):
                yield begin + at, self.stored(offset + at, min(PIECE_BYTES, size - at))

    def ranges(self, slot: int) -> tuple[tuple[int, int], ...] | None:
        """Where a file with holes has data, as pairs of begin and end; None when it has no holes."""
        if self.inode(slot).layout != layout.CHUNKED:
            return None
        return tuple((begin, begin + size) for begin, size, _ in self.extents(slot))

    def extents(self, slot: int) -> list[Extent]:
        """Where the content of a node lies, in its order."""
        inode = self.inode(slot)
        if not (stat.S_ISREG(inode.mode) or stat.S_ISDIR(inode.mode) or stat.S_ISLNK(inode.mode)):
            return []
        behind = self._offset(slot) + inode.head_bytes + inode.xattr_bytes
        if inode.layout == layout.CHUNKED:
            return self._chunks(inode, behind)
        if inode.layout not in (layout.FLAT_PLAIN, layout.FLAT_INLINE):
            raise BadImage(f"cannot read EROFS image: layout {inode.layout} of node {slot}")
        tail = inode.size % BLOCK_BYTES if inode.layout == layout.FLAT_INLINE else 0
        whole = Extent(0, inode.size - tail, inode.place * BLOCK_BYTES)
        return [one for one in (whole, Extent(whole.size, tail, behind)) if one.size]

    def stored(self, offset: int, size: int) -> bytes:
        """What the file has at a place; see `extents`."""
        return self._slice(offset, size)

    def _chunks(self, inode: Inode, table: int) -> list[Extent]:
        bits = (inode.place & 0x1F) + layout.BLOCK_BITS
        table += -table % CHUNK_ENTRY_BYTES
        found: list[Extent] = []
        for number in range(-(-inode.size >> bits)):
            address = self._slice(table + number * CHUNK_ENTRY_BYTES, CHUNK_ENTRY_BYTES)
            block = int.from_bytes(address, "little")
            if block == layout.HOLE:
                continue
            begin, offset = number << bits, block * BLOCK_BYTES
            size = min(1 << bits, inode.size - begin)
            last = found[-1] if found else None
            if last and last.begin + last.size == begin and last.offset + last.size == offset:
                found[-1] = last._replace(size=last.size + size)
            else:
                found.append(Extent(begin, size, offset))
        return found

    def _offset(self, slot: int) -> int:
        return self._metadata + slot * SLOT_BYTES

    def _slice(self, offset: int, size: int) -> bytes:
        if offset + size > self._size:
            raise BadImage(f"damaged EROFS image: {size} bytes at {offset} are behind its end")
        if size >= _WINDOW_BYTES:
            return self._read(offset, size)
        begin, window = self._window
        if not begin <= offset <= offset + size <= begin + len(window):
            # Nodes lie beside those that are looked at next.
            begin, window = self._window = offset, self._read(offset, min(_WINDOW_BYTES, self._size - offset))
        return window[offset - begin : offset - begin + size]

    def _read(self, offset: int, size: int) -> bytes:
        parts = []
        while size:
            part = os.pread(self._descriptor, size, offset)
            if not part:
                raise BadImage(f"damaged EROFS image: it became shorter while it was read, at {offset}")
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
