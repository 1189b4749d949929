"""Which files of this machine the images and containers of this process were made from: what `squall serve` watches."""

from __future__ import annotations

import os

Stamp = tuple[int, int, int]
"""A file as it was: its inode, size and time of modification."""

files: dict[str, Stamp] = {}
"""Path to how it was when it was read."""
directories: set[str] = set()
"""Those whose files were taken, as many as there were."""


def stamp_of(status: os.stat_result) -> Stamp:
    """What changes with a file."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def took_file(path: str, status: os.stat_result | None = None) -> None:
    """The file was read; one that is gone by now is none to watch."""
    try:
        files[os.path.abspath(path)] = stamp_of(status or os.stat(path))
    except OSError:
        return


def took_directory(path: str) -> None:
    """All in it that is not ignored was taken."""
    directories.add(os.path.abspath(path))
