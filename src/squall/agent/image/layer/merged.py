"""Stacked layers as one tree, read without mounting them: what overlayfs would show.

Paths are resolved inside: a link, absolute or not, never leads out, and `..` stops at the root.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from squall.agent.image.layer.view import Found, LayerView, layer_view

_LINKS_MAX = 40


class Part(NamedTuple):
    """What one layer has of a place."""

    depth: int
    """The number of the layer, from the bottom."""
    names: tuple[str, ...]
    """Where it is in that layer: not where it is seen, when a directory above it was renamed."""
    found: Found


class Place(NamedTuple):
    """Something in the tree."""

    names: tuple[str, ...]
    """Its path, without links."""
    parts: tuple[Part, ...]
    """What shows there, topmost first; more than one for directories alone. The root of no layers has none."""

    @property
    def found(self) -> Found:
        """What it is."""
        return self.parts[0].found

    @property
    def is_directory(self) -> bool:
        """Whether it is one."""
        return not self.parts or stat.S_ISDIR(self.found.mode)


class Merged:
    """The tree that layers (bottom first) make together."""

    def __init__(self, views: Sequence[LayerView]) -> None:
        self._views = tuple(views)

    def find(self, path: str, *, follows: bool = True) -> Place | None:
        """What is at a path; its last name, if that is a link, is followed unless `follows` is False.

        Raises:
            OSError: more links than anybody means.
        """
        place, missing = self.resolve(path, follows=follows)
        return place if not missing else None

    def resolve(self, path: str, *, follows: bool = True) -> tuple[Place, tuple[str, ...]]:
        """The last place on a path that there is, and the names behind it that there are not."""
        stack = [Place((), self._root(len(self._views)))]
        names = _names(path)[::-1]
        links = 0
        while names:
            name = names.pop()
            here = stack[-1]
            if name == ".." and here.is_directory:
                stack = stack[:-1] or stack
                continue
            parts = self._child(here.parts, name) if here.is_directory else ()
            if not parts:
                return here, (name, *names[::-1])
            place = Place((*here.names, name), parts)
            if stat.S_ISLNK(place.found.mode) and (names or follows):
                links += 1
                if links > _LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = self.target(place)
                names += _names(target)[::-1]
                stack = stack[:1] if target.startswith("/") else stack
                continue
            stack.append(place)
        return stack[-1], ()

    def entry(self, place: Place, name: str) -> Place | None:
        """What a directory has of a name; a link is not followed."""
        parts = self._child(place.parts, name)
        return Place((*place.names, name), parts) if parts else None

    def entries(self, place: Place) -> Iterator[Place]:
        """What is in a directory, sorted by name."""
        known = {name for part in place.parts for name in self._views[part.depth].names(part.names)}
        for name in sorted(known):
            entry = self.entry(place, name)
            if entry is not None:
                yield entry

    def target(self, place: Place) -> str:
        """Where a link points."""
        part = place.parts[0]
        return self._views[part.depth].target(part.names)

    def content(self, place: Place) -> Iterator[tuple[int, bytes]]:
        """A file in pieces, each with its offset; what is missing between them is a hole."""
        part = place.parts[0]
        return self._views[part.depth].content(part.names)

    def xattrs(self, place: Place) -> Mapping[str, bytes]:
        """The attributes of what is there."""
        part = place.parts[0]
        return self._views[part.depth].xattrs(part.names)

    def read(self, path: str, bytes_max: int) -> bytes:
        """The beginning of a file; nothing when there is no such file."""
        place = self.find(path)
        if place is None or not stat.S_ISREG(place.found.mode):
            return b""
        content = bytearray(min(place.found.size, bytes_max))
        for offset, piece in self.content(place):
            if offset >= bytes_max:
                break
            content[offset : offset + len(piece)] = piece
        return bytes(content[:bytes_max])

    def _root(self, below: int) -> tuple[Part, ...]:
        depths = range(below - 1, -1, -1)
        found = ((depth, self._views[depth].find(())) for depth in depths)
        return tuple(Part(depth, (), one) for depth, one in found if one is not None)

    def _child(self, parts: Sequence[Part], name: str) -> tuple[Part, ...]:
        children: list[Part] = []
        for part in parts:
            view = self._views[part.depth]
            names = (*part.names, name)
            found = view.find(names)
            if found is None:
                continue
            if not stat.S_ISDIR(found.mode):
                # A device is a whiteout: containers can make none.
                if not children and not stat.S_ISCHR(found.mode):
                    children.append(Part(part.depth, names, found))
                break
            children.append(Part(part.depth, names, found))
            marks = view.marks(names)
            if marks.is_opaque:
                break
            if marks.moved_from.startswith("/"):
                children += self._directory(_names(marks.moved_from), part.depth)
                break
            name = marks.moved_from or name
        return tuple(children)

    def _directory(self, names: Sequence[str], below: int) -> tuple[Part, ...]:
        """What the layers below one have of a directory at this path of theirs."""
        parts = self._root(below)
        for name in names:
            parts = self._child(parts, name)
        return parts if parts and stat.S_ISDIR(parts[0].found.mode) else ()


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


@contextlib.contextmanager
def merged(layers: Sequence[str]) -> Iterator[Merged]:
    """The tree of the layers at these paths, bottom first.

    Raises:
        BadImage: one of them is neither a directory nor an image.
    """
    with contextlib.ExitStack() as stack:
        yield Merged([stack.enter_context(layer_view(layer)) for layer in layers])
