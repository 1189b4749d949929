"""Reads stacked layers as overlayfs would, and frees a new layer of places that were mount points.

A layer comes out of a build and is not to be trusted: a name in it may be a link out of it. Every path is therefore
walked one name at a time from an open directory, and no link is followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence

_OPAQUE = "trusted.overlay.opaque"
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def has_directory(layers: Sequence[str], path: str) -> bool:
    """Whether a path is surely a directory in these layers (bottom first), by no link. False where it is not plain."""
    names = _names(path)
    for layer in reversed(layers):
        for count in range(1, len(names) + 1):
            status = _status(layer, names[:count])
            if status is None:
                break
            if not stat.S_ISDIR(status.st_mode):
                return False
            if count == len(names):
                return True
            if _is_opaque(layer, names[:count]):
                return False
    return not names


def drop_mount_points(upper: str, layers: Sequence[str], targets: Sequence[str]) -> None:
    """Remove from a new layer what is there only because something was mounted on it during the step.

    That is an empty file or directory that the layers below do not have, or have with the same owner and mode; and
    then its parents, as far as the same is true of them. What the step itself changed stays.
    """
    for target in targets:
        names = _names(target)
        while names and _drop_if_untouched(upper, layers, names):
            names = names[:-1]


def _drop_if_untouched(upper: str, layers: Sequence[str], names: Sequence[str]) -> bool:
    """Whether the name is gone from the upper now."""
    with _directory(upper, names[:-1]) as parent:
        if parent is None:
            return False
        try:
            status = os.stat(names[-1], dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        is_directory = stat.S_ISDIR(status.st_mode)
        if not is_directory and not (stat.S_ISREG(status.st_mode) and status.st_size == 0):
            return False
        if is_directory and _is_opaque(upper, names):
            return False
        below = _topmost(layers, names)
        if below is not None and _owner_and_mode(below) != _owner_and_mode(status):
            return False
        try:
            if is_directory:
                os.rmdir(names[-1], dir_fd=parent)
            elif below is None:
                os.unlink(names[-1], dir_fd=parent)
            else:
                # Emptied on purpose or never filled: only an empty file below says it was not the step.
                if below.st_size:
                    return False
                os.unlink(names[-1], dir_fd=parent)
        except OSError:
            # A directory with something in it: the step's own.
            return False
        return True


def _topmost(layers: Sequence[str], names: Sequence[str]) -> os.stat_result | None:
    for layer in reversed(layers):
        status = _status(layer, names)
        if status is not None:
            return None if stat.S_ISCHR(status.st_mode) else status
    return None


def _owner_and_mode(status: os.stat_result) -> tuple[int, int, int]:
    return (status.st_mode, status.st_uid, status.st_gid)


def _names(path: str) -> list[str]:
    return [name for name in os.path.normpath(path).split("/") if name]


def _status(layer: str, names: Sequence[str]) -> os.stat_result | None:
    with _directory(layer, names[:-1]) as parent:
        if parent is None:
            return None
        try:
            return os.stat(names[-1], dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None


def _is_opaque(layer: str, names: Sequence[str]) -> bool:
    with _directory(layer, names) as directory:
        if directory is None:
            return False
        try:
            return os.getxattr(directory, _OPAQUE) == b"y"
        except OSError:
            return False


@contextlib.contextmanager
def _directory(top: str, names: Sequence[str]) -> Iterator[int | None]:
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
