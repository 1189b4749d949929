"""Take away whatever is mounted below a container's directory, in our own mount namespace."""

from __future__ import annotations

from squall.runtime.errors import RuntimeFailure
from squall.runtime.removal import mounts_below
from squall.runtime.syscalls import unmount

PASSES_MAX = 3


def ensure_no_mounts(path: str) -> None:
    """Unmount, and look again: one mount may have hidden another.

    Raises:
        RuntimeFailure: something is still mounted there.
    """
    for _ in range(PASSES_MAX):
        points = mounts_below(path)
        if not points:
            return
        for point in points:
            unmount(point)
    raise RuntimeFailure(f"cannot remove what is in {path}: still mounted: {', '.join(mounts_below(path))}")
