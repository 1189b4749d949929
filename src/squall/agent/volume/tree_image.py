"""The tree of a version as an image that the kernel mounts: names, sizes, times and owners, and of each file where its
content is. overlayfs finds that by two marks (data-only lower layers; composefs does the same)."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from squall.erofs import writer
from squall.erofs.tree import Contents, Node
from squall.protocol.volume import DIRECTORY, FILE, SYMLINK, VolumeChange, from_wire
from squall.runtime.volume_overlay import CONTENTS, LAYER, way_of

METACOPY, REDIRECT = b"trusted.overlay.metacopy", b"trusted.overlay.redirect"
_KINDS = {FILE: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, SYMLINK: stat.S_IFLNK}


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a file, by blocks."""

    size: int
    blocks: tuple[str, ...]
    offset: int = 0
    block_list: str = ""
    """Of very many blocks, in their place."""

    @property
    def name(self) -> str:
        """What it is called where contents are kept: equals have one name."""
        told = f"{self.size} {self.offset} {self.block_list} {' '.join(self.blocks)}"
        return hashlib.sha256(told.encode()).hexdigest()


def content_of(entry: VolumeChange) -> Content | None:
    """The content of an entry of a tree; None of what has none: a directory, a link, an empty file."""
    if entry.kind != FILE or not entry.size:
        return None
    return Content(entry.size, entry.blocks, entry.offset, entry.block_list)


class _Tree:
    """See `erofs.tree.Source`."""

    name = "a volume"

    def __init__(self, root: Node) -> None:
        self._root = root

    def read(self) -> Node:
        return self._root

    def content(self, node: Node) -> bytes:
        return node.target

    def open(self, node: Node) -> Contents:
        return _Hole()


class _Hole:
    """What the tree has of any file."""

    size = 0

    def read(self, begin: int, size: int) -> bytes:
        return b""

    def copy(self, begin: int, size: int, target: int, at: int) -> int:
        return 0

    def close(self) -> None:
        return None


def write_tree_image(entries: Iterable[VolumeChange], path: Path, way: str | None = None) -> int:
    """Write the image of a tree, whose entries come with directories before what is in them; its size. Blocks.

    Args:
        way: to mount it (`runtime.volume_overlay`); None for this kernel's.

    Raises:
        PackError: a name or a size that no image can have.
    """
    root = Node(stat.S_IFDIR | 0o755, 0, 0, 0, links=2)
    if (way or way_of(os.uname().release)) == LAYER:
        root.children[CONTENTS.encode()] = Node(stat.S_IFCHR, 0, 0, 0)
    directories = {b"": root}
    for entry in entries:
        name = from_wire(entry.path).encode("utf-8", "surrogateescape")
        above, _, last = name.rpartition(b"/")
        parent = directories[above]
        node = parent.children[last] = _node_of(entry)
        if entry.kind == DIRECTORY:
            directories[name] = node
            parent.links += 1
    for directory in directories.values():
        directory.children = dict(sorted(directory.children.items()))
    return writer.write(_Tree(root), path)


def _node_of(entry: VolumeChange) -> Node:
    mode = _KINDS[entry.kind] | entry.mode
    if entry.kind == DIRECTORY:
        return Node(mode, entry.uid, entry.gid, entry.mtime_ns, links=2)
    if entry.kind == SYMLINK:
        target = from_wire(entry.target).encode("utf-8", "surrogateescape")
        return Node(mode, entry.uid, entry.gid, entry.mtime_ns, size=len(target), target=target)
    content = content_of(entry)
    marks: tuple[tuple[bytes, bytes], ...] = ()
    if content is not None:
        marks = ((METACOPY, b""), (REDIRECT, f"/{CONTENTS}/{content.name[:2]}/{content.name}".encode()))
    return Node(mode, entry.uid, entry.gid, entry.mtime_ns, size=entry.size, data=(), xattrs=marks)
