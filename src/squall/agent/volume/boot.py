"""Which beginning of the machine this is: what was written before it may not be on the disk."""

from __future__ import annotations

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Another one each time that the machine begins."""
    return _BOOT_ID.read_text().strip()
