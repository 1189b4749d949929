"""What is mounted where in our own mount namespace; asked before anything is deleted."""

from __future__ import annotations

import os
import re

from squall.runtime.errors import RuntimeFailure
from squall.runtime.syscalls import unmount

_ESCAPE = re.compile(r"\\([0-7]{3})")
PASSES_MAX = 3


def parse_mountinfo(text: str) -> list[str]:
    """Mount points in a /proc/<pid>/mountinfo, in the order they were made."""
    points = (line.split(" ", 5)[4] for line in text.splitlines() if line)
    return [_ESCAPE.sub(lambda match: chr(int(match[1], 8)), point) for point in points]


def mounts_below(path: str) -> list[str]:
    """Mount points at or below a path, as this process sees them, innermost last."""
    top = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = parse_mountinfo(file.read())
    return [point for point in points if point == top or point.startswith(f"{top}/")]


def ensure_no_mounts(path: str) -> None:
    """Unmount whatever is mounted below a container's directory, and look again.

    Raises:
        RuntimeFailure: something is still mounted there.
    """
    for _ in range(PASSES_MAX):
        points = mounts_below(path)
        if not points:
            return
        for point in reversed(points):
            unmount(point)
    raise RuntimeFailure(f"cannot remove what is in {path}: still mounted: {', '.join(mounts_below(path))}")
