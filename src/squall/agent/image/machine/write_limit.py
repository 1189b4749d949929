"""What a program outside of containers may write: so much, and nothing of what the machine keeps spare.

What strangers' archives become when they are decompressed, nobody knows before. The kernel ends a program at the size
of one file; all its files together, and what is free, are looked at while it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from squall.agent.disk import Space, space_of

_MIB = 2**20


class WroteTooMuch(Exception):
    """A program was ended for what it wrote; the message names the work, the limit, and what to do about it."""


@dataclass(frozen=True, slots=True)
class WriteLimit:
    """Where a program writes, and how much it may."""

    what: str
    """What it does, for the error: `decompressing 'files.tar.gz'`."""
    folder: Path
    """Anything on the file system that it writes to."""
    size: Callable[[], int]
    """What it has written so far, with what its step has there already."""
    bytes_max: int
    more: str = "give the steps of this node more with SQUALL_STEP_BYTES_MAX, or give less"
    """How the limit is raised."""
    space: Callable[[Path], Space] = space_of

    def check(self, *, is_refused: bool = False) -> None:
        """Look at what is written and what is free.

        Args:
            is_refused: the kernel has let it write no more.

        Raises:
            WroteTooMuch: it is more than it may be.
        """
        written = self.size()
        if is_refused or written >= self.bytes_max:
            had = max(written, self.bytes_max) // _MIB
            raise WroteTooMuch(
                f"{self.what} takes {had} MiB or more, and one step may have {self.bytes_max // _MIB} MiB on the disk; "
                f"{self.more}"
            )
        space = self.space(self.folder)
        if space.is_short_of_bytes or space.is_short_of_inodes:
            raise WroteTooMuch(
                f"{self.what} would have filled the machine's disk "
                f"({space.free_bytes // _MIB} MiB and {space.free_inodes} inodes free, "
                f"{space.spare_bytes // _MIB} MiB and {space.spare_inodes} inodes are kept); "
                "free some space there, or put the data directory on a larger disk"
            )


def size_of(*paths: Path) -> int:
    """Of files, and of directories of files; what is not there has none."""
    total = 0
    for path in paths:
        try:
            total += sum(size_of(inner) for inner in path.iterdir()) if path.is_dir() else path.stat().st_size
        except FileNotFoundError:
            # Temporary files come and go meanwhile.
            continue
    return total
