"""What the server keeps of its disk for itself: uploads and new calls are refused first, and can be tried again."""

from __future__ import annotations

import os
from pathlib import Path

from squall.protocol.errors import EXHAUSTED, PlatformError

SPARE_SHARE = 16
SPARE_BYTES_MAX = 5 * 2**29
SPARE_INODES = 1_000
"""Left of the file system: a sixteenth, at most 2.5 GiB. The agent ends containers that write a little later
(agent/disk.py)."""


def check_room(directory: str | Path, what: str, size_bytes: int, *, part: float = 1.0) -> None:
    """Refuse what would fill the disk: that would stop the database and everybody's containers too.

    Args:
        what: the sentence's beginning, such as "cannot put blob 1234".
        part: how much of what is spare must be left: less for what is small and must not be kept out by what is large.

    Raises:
        PlatformError: `exhausted`.
    """
    state = os.statvfs(directory)
    free_bytes = state.f_bavail * state.f_frsize
    spare_bytes = int(min(SPARE_BYTES_MAX, state.f_blocks * state.f_frsize // SPARE_SHARE) * part)
    if free_bytes - size_bytes < spare_bytes or (state.f_files and state.f_favail < SPARE_INODES):
        raise PlatformError(
            EXHAUSTED,
            f"{what} with {size_bytes >> 20} MiB to come: the server's disk is full: "
            f"{free_bytes >> 20} MiB and {state.f_favail} inodes are free, of which "
            f"{spare_bytes >> 20} MiB are kept; free space in the data directory's file system, or move it",
        )
