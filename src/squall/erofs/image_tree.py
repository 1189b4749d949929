"""Reads an image into nodes, to make another image of it."""

from __future__ import annotations

import bisect
import os
import stat
from pathlib import Path

from squall.erofs import layout
from squall.erofs.errors import BadImage
from squall.erofs.reader import PIECE_BYTES, Image
from squall.erofs.tree import Contents, Node


class ImageTree:
    """An image, open: its nodes, and later the contents of its files."""

    def __init__(self, path: Path) -> None:
        """Open an image. Call `close`, or use it in a `with` block.

        Raises:
            BadImage: the file is none, or is damaged.
        """
        self.name = str(path)
        self._image = Image(path)
        self._slots: dict[Node, int] = {}

    def __enter__(self) -> ImageTree:
        return self

    def __exit__(self, *error: object) -> None:
        self._image.close()

    def read(self) -> Node:
        """The node of the root, with all others below it.

        Raises:
            BadImage: the image is damaged.
        """
        known: dict[int, Node] = {}
        root = self._node(self._image.root, b"")
        waiting = [(root, self._image.root, b"")]
        while waiting:
            parent, slot, directory = waiting.pop()
            for entry in sorted(self._image.entries(slot)):
                path = directory + entry.name
                child = known.get(entry.node)
                if child is None:
                    child = known[entry.node] = self._node(entry.node, path)
                    if stat.S_ISDIR(child.mode):
                        parent.links += 1
                        waiting.append((child, entry.node, path + b"/"))
                elif stat.S_ISDIR(child.mode):
                    raise BadImage(f"damaged EROFS image: the directory {path!r} has two names")
                else:
                    child.links += 1
                parent.children[entry.name] = child
        return root

    def content(self, node: Node) -> bytes:
        """See `Source`."""
        return b"".join(data for _, data in self._image.content(self._slots[node]))

    def open(self, node: Node) -> Contents:
        """See `Source`."""
        return _File(self._image, self._slots[node], node.size)

    def _node(self, slot: int, path: bytes) -> Node:
        inode = self._image.inode(slot)
        kind = stat.S_IFMT(inode.mode)
        node = Node(inode.mode, inode.uid, inode.gid, inode.mtime_ns, path=path, xattrs=self._image.xattrs(slot))
        if kind == stat.S_IFREG:
            node.size = inode.size
            node.data = self._image.ranges(slot)
            self._slots[node] = slot
        elif kind == stat.S_IFDIR:
            node.links = 2
        elif kind == stat.S_IFLNK:
            node.target = self._image.target(slot)
            node.size = len(node.target)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            node.device = layout.decode_device(inode.place)
        return node


class _File:
    """A file of an image."""

    def __init__(self, image: Image, slot: int, size: int) -> None:
        self._image = image
        self._extents = image.extents(slot)
        self.size = size

    def read(self, begin: int, size: int) -> bytes:
        parts: list[bytes] = []
        while size and (part := self._part(begin, size)):
            parts.append(part)
            begin, size = begin + len(part), size - len(part)
        return b"".join(parts)

    def copy(self, begin: int, size: int, target: int, at: int) -> int:
        return os.pwrite(target, self._part(begin, size), at)

    def close(self) -> None:
        """Nothing is open but the image."""

    def _part(self, begin: int, size: int) -> bytes:
        """From the beginning on, as far as it lies in one piece; nothing at the end."""
        found = bisect.bisect_right(self._extents, begin, key=lambda one: one.begin) - 1
        if found < 0:
            return b""
        one = self._extents[found]
        skipped = begin - one.begin
        return self._image.stored(one.offset + skipped, max(0, min(size, one.size - skipped, PIECE_BYTES)))
