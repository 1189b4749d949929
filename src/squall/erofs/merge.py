"""One layer of several: what overlayfs would show of them, and what it would still look for below.

Follows `ovl_lookup` of the kernel (fs/overlayfs/namei.c) name by name: a whiteout or a file ends the search, a
directory goes on in the layers below unless it is opaque, and a redirect says under which path it goes on there. What
is still open behind the last of the layers becomes the mark of the merged directory, so that a stack with the merged
layer shows what it showed with the ones it stands for.

The layers are such as an overlay leaves in its upper: a new directory is opaque, or inside one that is.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace

from squall.erofs.tree import OPAQUE, REDIRECT, Contents, Node, Source, walk


@dataclass(slots=True)
class _Search:
    """A name on its way through the layers, from the top one down."""

    name: bytes
    """What it is called in the layers below: a name in the directory where the search began, or a path from the
    root."""
    parts: list[tuple[int, Node]]
    """What was found, each with the number of its layer: one file, or the directories that show as one."""
    is_ended: bool = False
    """Nothing below counts."""

    @property
    def is_path(self) -> bool:
        return self.name.startswith(b"/")


@dataclass(slots=True)
class _Directory:
    """A merged directory whose names are still to be found."""

    node: Node
    parts: list[tuple[int, Node]]
    is_open: bool
    """Layers below the merged ones may have more of it."""


class Merged:
    """Several layers, bottom first, as the source of one image. The layers are opened and closed by the caller."""

    def __init__(self, layers: Sequence[Source]) -> None:
        self.name = f"{layers[0].name} and {len(layers) - 1} layers above it"
        self._layers = layers
        self._roots: list[Node] = []
        self._layer_of: dict[Node, Source] = {}

    def read(self) -> Node:
        """See `Source`."""
        self._roots = [layer.read() for layer in self._layers]
        every = list(reversed(list(enumerate(self._roots))))
        root = _empty(every[0][1])
        waiting = [_Directory(root, every, is_open=True)]
        while waiting:
            directory = waiting.pop()
            for name in sorted({name for _, part in directory.parts for name in part.children}):
                child = self._child(directory, name)
                if child is not None:
                    directory.node.children[name] = child.node
                    if stat.S_ISDIR(child.node.mode):
                        waiting.append(child)
        _count_links(root)
        return root

    def content(self, node: Node) -> bytes:
        """See `Source`."""
        return self._layer_of[node].content(node)

    def open(self, node: Node) -> Contents:
        """See `Source`."""
        return self._layer_of[node].open(node)

    def _child(self, parent: _Directory, name: bytes) -> _Directory | None:
        """What a name of a directory is, or None when there is nothing and nothing below to hide."""
        found = self._find(parent, name)
        if not found.parts:
            return None
        number, top = found.parts[0]
        if not stat.S_ISDIR(top.mode):
            if _is_whiteout(top) and not parent.is_open:
                # Where nothing is below, overlayfs would show it.
                return None
            self._layer_of[top] = self._layers[number]
            return _Directory(top, [], is_open=False)
        # A path leads to the layers below even where those of the parent do not count.
        is_open = not found.is_ended and (parent.is_open or found.is_path)
        node = _empty(top)
        marks: list[tuple[bytes, bytes]] = []
        if not is_open and parent.is_open:
            marks.append((OPAQUE, b"y"))
        if is_open and found.name != name:
            marks.append((REDIRECT, found.name))
        node.xattrs = tuple(sorted((*node.xattrs, *marks)))
        return _Directory(node, found.parts, is_open)

    def _find(self, parent: _Directory, name: bytes) -> _Search:
        search = _Search(name, [])
        last = len(self._roots)
        for number, directory in parent.parts:
            if search.is_path or search.is_ended:
                break
            self._look(search, number, directory)
            last = number
        if search.is_path:
            for number in range(last - 1, -1, -1):
                if search.is_ended:
                    break
                self._look(search, number, self._roots[number])
        return search

    def _look(self, search: _Search, number: int, directory: Node) -> None:
        """Follow the name, or path, into one layer."""
        names = search.name.split(b"/")[1:] if search.is_path else [search.name]
        before = b"/" if search.is_path else b""
        at = directory
        for position, name in enumerate(names):
            child = at.children.get(name)
            if child is None:
                return
            is_last = position == len(names) - 1
            behind = b"".join(b"/" + one for one in names[position + 1 :])
            if not stat.S_ISDIR(child.mode):
                search.is_ended = True
                if is_last and not search.parts:
                    search.parts.append((number, child))
                return
            marks = dict(child.xattrs)
            redirect = marks.get(REDIRECT)
            if marks.get(OPAQUE) == b"y":
                search.is_ended = True
            elif redirect is not None:
                if redirect.startswith(b"/"):
                    # Whatever of the way there was covered: it is elsewhere.
                    search.is_ended = False
                    before = redirect
                else:
                    before += redirect
                search.name = before + behind
                before += b"/"
            else:
                before += name + b"/"
            if is_last:
                search.parts.append((number, child))
            at = child


def _empty(top: Node) -> Node:
    """The node of a merged directory: what is known of it is what the topmost one says."""
    xattrs = tuple((name, value) for name, value in top.xattrs if name not in (OPAQUE, REDIRECT))
    return replace(top, xattrs=xattrs, children={}, links=2)


def _is_whiteout(node: Node) -> bool:
    return stat.S_ISCHR(node.mode) and node.device == 0


def _count_links(root: Node) -> None:
    """A file may have lost names to the layers above."""
    names: dict[Node, int] = {}
    for name, node, parent in walk(root):
        if stat.S_ISDIR(node.mode):
            parent.links += 1 if name else 0
        else:
            names[node] = names.get(node, 0) + 1
    for node, count in names.items():
        node.links = count
