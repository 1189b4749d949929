"""Tells the file system that the directories in a directory have nothing to do with one another."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from pathlib import Path

# linux/fs.h; what `chattr +T` sets.
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_TOPDIR = 0x00020000

_TRIES_MAX = 6
_QUICK_NS = 250_000
"""Of the processor, for a directory: it takes 30,000 to 60,000, and 600,000 to 2,000,000 where much was deleted."""


def spread_apart(directory: Path) -> None:
    """Have each directory that is made in this one put at a place of its own on the disk, where that can be asked for.

    ext4 puts a directory's files beside it, and new directories beside their parent. Without a journal it does not use
    the place of a file again for minutes after it was deleted, and passes all such places one by one: where containers
    come and go side by side, each of the dozen files of a start takes 2 ms instead of 0.03 (docs/decisions/0042).
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Others than ext4 know nothing like it, and need it less.
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("l", flags_of(descriptor) | _TOPDIR))
    finally:
        os.close(descriptor)


def make_apart(path: Path) -> None:
    """Make a directory, for root alone, in one that was given to `spread_apart`: where files are quickly made.

    The file system takes the place that has the fewest directories or, of many, one by the new name: this may be the
    place that a large tree has just been deleted from. What the directory itself took tells that, and other names are
    tried. A process that is killed meanwhile leaves empty directories of other names, which begin with that of `path`.

    Raises:
        FileExistsError: it is there.
        FileNotFoundError: somebody removed it meanwhile, or what it should be in.
    """
    made = [(_make(path), path)]
    while made[-1][0] > _QUICK_NS and len(made) < _TRIES_MAX:
        other = path.with_name(f"{path.name}.{len(made)}")
        made.append((_make(other), other))
    _, best = min(made)
    for _, other in made:
        if other != best:
            other.rmdir()
    if best != path:
        best.rename(path)


def _make(path: Path) -> int:
    """Make a directory; returns the nanoseconds of the processor that it took: others' work does not count."""
    before_ns = time.thread_time_ns()
    path.mkdir(mode=0o700)
    return time.thread_time_ns() - before_ns


def flags_of(descriptor: int) -> int:
    """The flags of an open file; raises `OSError` where there are none."""
    # The kernel says long and reads and writes an int.
    answer: bytes = fcntl.ioctl(descriptor, _GET_FLAGS, bytes(struct.calcsize("l")))
    return int.from_bytes(answer[:4], "little")
