"""Looks into one layer: a directory, or an image that is read without mounting it.

A layer comes out of a build and is not to be trusted: a name in it may be a link out of it. A directory is therefore
walked one name at a time from an open descriptor, and no link is followed; an image has no way out.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from squall.erofs.reader import Image

_OPAQUE, _MOVED = "trusted.overlay.opaque", "trusted.overlay.redirect"
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Found(NamedTuple):
    """What a name in a layer is."""

    mode: int
    uid: int
    gid: int
    size: int


class Marks(NamedTuple):
    """What overlayfs has noted of a directory in a layer."""

    is_opaque: bool
    """It covers what the layers below have at its path. New directories are, too, where nothing is below."""
    is_moved: bool
    """What the layers below have of it is at another path, the one it was renamed from."""


class LayerView(Protocol):
    """What overlayfs would find in one layer."""

    def find(self, names: Sequence[str]) -> Found | None:
        """What is at a path, or None when it is not there or a link is on the way."""

    def marks(self, names: Sequence[str]) -> Marks:
        """What overlayfs knows of a directory besides."""


@contextlib.contextmanager
def layer_view(path: str) -> Iterator[LayerView]:
    """A view of the layer at a path.

    Raises:
        BadImage: a file there is no image.
    """
    if os.path.isdir(path):
        yield DirectoryView(path)
        return
    with Image(Path(path)) as image:
        yield ImageView(image)


class DirectoryView:
    """A layer that is a directory."""

    def __init__(self, top: str) -> None:
        self._top = top

    def find(self, names: Sequence[str]) -> Found | None:
        """See `LayerView`."""
        with open_directory(self._top, names[:-1]) as parent:
            if parent is None:
                return None
            try:
                status = os.stat(names[-1] if names else ".", dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                return None
        return Found(status.st_mode, status.st_uid, status.st_gid, status.st_size)

    def marks(self, names: Sequence[str]) -> Marks:
        """See `LayerView`."""
        with open_directory(self._top, names) as directory:
            return _marks(os.listxattr(directory) if directory is not None else ())


class ImageView:
    """A layer that is an image."""

    def __init__(self, image: Image) -> None:
        self._image = image

    def find(self, names: Sequence[str]) -> Found | None:
        """See `LayerView`."""
        slot = self._slot(names)
        if slot is None:
            return None
        inode = self._image.inode(slot)
        return Found(inode.mode, inode.uid, inode.gid, inode.size)

    def marks(self, names: Sequence[str]) -> Marks:
        """See `LayerView`."""
        slot = self._slot(names)
        return _marks([os.fsdecode(name) for name, _ in self._image.xattrs(slot)] if slot is not None else ())

    def _slot(self, names: Sequence[str]) -> int | None:
        slot = self._image.root
        for name in names:
            if not stat.S_ISDIR(self._image.inode(slot).mode):
                return None
            wanted = os.fsencode(name)
            found = next((entry.node for entry in self._image.entries(slot) if entry.name == wanted), None)
            if found is None:
                return None
            slot = found
        return slot


def _marks(names: Sequence[str]) -> Marks:
    return Marks(_OPAQUE in names, _MOVED in names)


@contextlib.contextmanager
def open_directory(top: str, names: Sequence[str]) -> Iterator[int | None]:
    """An open directory below `top`, or None when it is not there or a link is on the way."""
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            try:
                inner = os.open(name, _OPEN, dir_fd=descriptor)
            except OSError:
                yield None
                return
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)
