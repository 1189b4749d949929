"""Reads stacked layers as overlayfs would, and frees a new layer of places that were mount points."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence

from squall.agent.image.layer.view import DirectoryView, Found, LayerView, layer_view, open_directory


def has_directory(layers: Sequence[str], path: str) -> bool:
    """Whether a path is surely a directory in these layers (bottom first), by no link. False where it is not plain."""
    names = _names(path)
    with _views(layers) as views:
        for view in reversed(views):
            for count in range(1, len(names) + 1):
                found = view.find(names[:count])
                if found is None:
                    break
                if not stat.S_ISDIR(found.mode):
                    return False
                if count == len(names):
                    return True
                if any(view.marks(names[:count])):
                    return False
    return not names


def drop_mount_points(upper: str, layers: Sequence[str], targets: Sequence[str]) -> None:
    """Remove from a new layer what is there only because something was mounted on it during the step.

    That is an empty file or directory that the layers below do not have, or have with the same owner and mode; and
    then its parents, as far as the same is true of them. What the step itself changed stays.
    """
    with _views(layers) as views:
        for target in targets:
            names = _names(target)
            while names and _drop_if_untouched(upper, views, names):
                names = names[:-1]


def _drop_if_untouched(upper: str, views: Sequence[LayerView], names: Sequence[str]) -> bool:
    """Whether the name is gone from the upper now."""
    with open_directory(upper, names[:-1]) as parent:
        if parent is None:
            return False
        try:
            status = os.stat(names[-1], dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        is_directory = stat.S_ISDIR(status.st_mode)
        if not is_directory and not (stat.S_ISREG(status.st_mode) and status.st_size == 0):
            return False
        below = _topmost(views, names)
        marks = DirectoryView(upper).marks(names)
        if marks.is_moved or (marks.is_opaque and below is not None):
            return False
        if below is not None and below[:3] != (status.st_mode, status.st_uid, status.st_gid):
            return False
        try:
            if is_directory:
                os.rmdir(names[-1], dir_fd=parent)
            elif below is None:
                os.unlink(names[-1], dir_fd=parent)
            else:
                # Emptied on purpose or never filled: only an empty file below says it was not the step.
                if below.size:
                    return False
                os.unlink(names[-1], dir_fd=parent)
        except OSError:
            # A directory with something in it: the step's own.
            return False
        return True


def _topmost(views: Sequence[LayerView], names: Sequence[str]) -> Found | None:
    for view in reversed(views):
        found = view.find(names)
        if found is not None:
            return None if stat.S_ISCHR(found.mode) else found
    return None


def _names(path: str) -> list[str]:
    return [name for name in os.path.normpath(path).split("/") if name]


@contextlib.contextmanager
def _views(layers: Sequence[str]) -> Iterator[list[LayerView]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(layer_view(layer)) for layer in layers]
