"""Looks into one layer: a directory, or an image that is read without mounting it.

A layer comes out of a build and is not to be trusted: a name in it may be a link out of it. A directory is therefore
walked one name at a time from an open descriptor, and no link is followed; an image has no way out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from squall.erofs.reader import Image

_OVERLAY = "trusted.overlay."
_OPAQUE, _MOVED = f"{_OVERLAY}opaque", f"{_OVERLAY}redirect"
_PIECE_BYTES = 2**20
_DIRECTORIES_MAX = 1_000
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Found(NamedTuple):
    """What a name in a layer is."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    node: int
    """The same for two names of one file."""


class Marks(NamedTuple):
    """What overlayfs has noted of a directory in a layer."""

    is_opaque: bool
    """It covers what the layers below have at its path. New directories are, too, where nothing is below."""
    moved_from: str
    """What the layers below have of it is at another path: an absolute one, or a name beside it. Else empty."""

    @property
    def is_moved(self) -> bool:
        """Whether it was renamed."""
        return bool(self.moved_from)


class LayerView(Protocol):
    """What overlayfs would find in one layer."""

    def find(self, names: Sequence[str]) -> Found | None:
        """What is at a path, or None when it is not there or a link is on the way."""

    def marks(self, names: Sequence[str]) -> Marks:
        """What overlayfs knows of a directory besides."""

    def names(self, names: Sequence[str]) -> tuple[str, ...]:
        """What is in a directory, sorted."""

    def target(self, names: Sequence[str]) -> str:
        """Where a link points."""

    def content(self, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        """A file in pieces, each with its offset; what is missing between them is a hole."""

    def xattrs(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """The attributes of what is there, without those of overlayfs."""


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
        return Found(status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, status.st_ino)

    def marks(self, names: Sequence[str]) -> Marks:
        """See `LayerView`."""
        with open_directory(self._top, names) as directory:
            if directory is None:
                return Marks(False, "")
            found = os.listxattr(directory)
            moved_from = os.fsdecode(os.getxattr(directory, _MOVED)) if _MOVED in found else ""
            return Marks(_OPAQUE in found, moved_from)

    def names(self, names: Sequence[str]) -> tuple[str, ...]:
        """See `LayerView`."""
        with open_directory(self._top, names) as directory:
            return tuple(sorted(os.listdir(directory))) if directory is not None else ()

    def target(self, names: Sequence[str]) -> str:
        """See `LayerView`."""
        with self._parent(names) as parent:
            return os.readlink(names[-1], dir_fd=parent)

    def content(self, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        """See `LayerView`."""
        with self._parent(names) as parent:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(names[-1], flags, dir_fd=parent)
        with open(descriptor, "rb", buffering=0) as file:
            offset = 0
            while piece := file.read(_PIECE_BYTES):
                yield offset, piece
                offset += len(piece)

    def xattrs(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """See `LayerView`."""
        with self._parent(names) as parent:
            # There is no call that takes a name in an open directory; the path leads to it and not through a link.
            path = f"/proc/self/fd/{parent}/{names[-1] if names else '.'}"
            found = os.listxattr(path, follow_symlinks=False)
            return {name: os.getxattr(path, name, follow_symlinks=False) for name in found if not _is_own(name)}

    @contextlib.contextmanager
    def _parent(self, names: Sequence[str]) -> Iterator[int]:
        with open_directory(self._top, names[:-1]) as parent:
            if parent is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/" + "/".join(names))
            yield parent


class ImageView:
    """A layer that is an image."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._directories: dict[int, dict[str, int]] = {}
        """Names and nodes of those looked into last."""

    def find(self, names: Sequence[str]) -> Found | None:
        """See `LayerView`."""
        slot = self._slot(names)
        if slot is None:
            return None
        inode = self._image.inode(slot)
        return Found(inode.mode, inode.uid, inode.gid, inode.size, inode.mtime_ns, slot)

    def marks(self, names: Sequence[str]) -> Marks:
        """See `LayerView`."""
        slot = self._slot(names)
        found = self._image.xattrs(slot) if slot is not None else ()
        known = {os.fsdecode(name): value for name, value in found}
        return Marks(_OPAQUE in known, os.fsdecode(known.get(_MOVED, b"")))

    def names(self, names: Sequence[str]) -> tuple[str, ...]:
        """See `LayerView`."""
        slot = self._slot(names)
        return tuple(sorted(self._entries(slot))) if slot is not None else ()

    def target(self, names: Sequence[str]) -> str:
        """See `LayerView`."""
        return os.fsdecode(self._image.target(self._known(names)))

    def content(self, names: Sequence[str]) -> Iterator[tuple[int, bytes]]:
        """See `LayerView`."""
        return self._image.content(self._known(names))

    def xattrs(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """See `LayerView`."""
        found = {os.fsdecode(name): value for name, value in self._image.xattrs(self._known(names))}
        return {name: value for name, value in found.items() if not _is_own(name)}

    def _known(self, names: Sequence[str]) -> int:
        slot = self._slot(names)
        if slot is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/" + "/".join(names))
        return slot

    def _slot(self, names: Sequence[str]) -> int | None:
        slot: int | None = self._image.root
        for name in names:
            if slot is None or not stat.S_ISDIR(self._image.inode(slot).mode):
                return None
            slot = self._entries(slot).get(name)
        return slot

    def _entries(self, slot: int) -> dict[str, int]:
        found = self._directories.get(slot)
        if found is None:
            if len(self._directories) >= _DIRECTORIES_MAX:
                self._directories.clear()
            found = {os.fsdecode(entry.name): entry.node for entry in self._image.entries(slot)}
            self._directories[slot] = found
        return found


def _is_own(name: str) -> bool:
    return name.startswith(_OVERLAY)


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
