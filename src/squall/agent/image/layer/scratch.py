"""Directories that layers are made in, locked by the process that makes one: what a killed process left can be told."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from squall.agent.image.layer.lock import is_at, try_lock
from squall.agent.spread import make_apart
from squall.runtime.removal import remove_tree

_TRIES_MAX = 10


@dataclass(frozen=True, slots=True)
class Scratch:
    """A directory of the store's file system that is removed unless it becomes a layer."""

    path: Path
    lock_fd: int
    """Inherited by processes that write below `path`, it keeps `sweep` away while any of them lives."""


@contextlib.contextmanager
def fresh_scratch(place: Path) -> Iterator[Scratch]:
    """A directory of its own in `place`, removed at the end with what is left in it."""
    path, descriptor = _make(place)
    try:
        yield Scratch(path, descriptor)
    finally:
        os.close(descriptor)
        if path.exists():
            remove_tree(str(path))


def sweep_scratch(place: Path) -> int:
    """Remove what killed processes left in the making; returns how many directories that were."""
    count = 0
    for path in sorted(place.iterdir()):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # who made it is done with it
        try:
            if try_lock(descriptor):
                remove_tree(str(path))
                count += 1
        finally:
            os.close(descriptor)
    return count


def _make(place: Path) -> tuple[Path, int]:
    """Its path, and a descriptor that holds its lock."""
    for _ in range(_TRIES_MAX):
        path = place / secrets.token_hex(8)
        with contextlib.suppress(FileNotFoundError):
            make_apart(path)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if is_at(descriptor, path):
                return path, descriptor
            os.close(descriptor)
        # `sweep` of another process saw it before it was locked, and removed it.
    raise FileNotFoundError(errno.ENOENT, "each directory to build in was removed as soon as it was made", str(place))
