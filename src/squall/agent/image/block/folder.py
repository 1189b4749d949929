"""Whether all who share a folder see at once what one of them does."""

from __future__ import annotations

from pathlib import Path

SETTLE_S = 130.0
"""Clients of file servers look again after 60 s at the latest, unless they are told otherwise: NFS's `acdirmax`. Twice,
because both sides of a turn look."""
_LOCAL = frozenset({"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "tmpfs", "xfs", "zfs"})


def settle_s(folder: str, mountinfo_path: str = "/proc/self/mountinfo") -> float:
    """How long after something was put others may not see it: no time on file systems of this machine."""
    inner, kind = "", ""
    for line in Path(mountinfo_path).read_text(errors="surrogateescape").splitlines():
        fields = line.split(" ")
        point = fields[4].encode("latin-1", "surrogateescape").decode("unicode_escape")
        # Of two at one place the later one is on top.
        if f"{folder}/".startswith(f"{point.rstrip('/')}/") and len(point) >= len(inner):
            inner, kind = point, fields[fields.index("-") + 1]
    return 0.0 if kind in _LOCAL else SETTLE_S
