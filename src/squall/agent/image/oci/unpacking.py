"""Has archives unpacked by the program that is for it (`unpack.py`), within what its step may write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from squall.agent.image.layer.scratch import Scratch
from squall.agent.image.machine.own_program import own_environ, own_program
from squall.agent.image.machine.tool import WITH_PARENT, Output, Watch, run_tool
from squall.agent.image.machine.write_limit import WriteLimit


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar archive, uncompressed, and what it must be."""

    path: Path
    digest: str


def unpack_archives(
    archives: Sequence[Archive], root: Path, scratch: Scratch, output: Output, *, name: str, bytes_max: int
) -> None:
    """Lay archives over one another in the empty directory `root`. Blocks.

    Args:
        name: what errors call them.
        bytes_max: of all their files together.

    Raises:
        ToolFailed: one is no tar archive, is not what it must be, or has what none may have.
        WroteTooMuch: the disk has no room for them.
    """
    layers = [f"{archive.path}={archive.digest}" for archive in archives]
    command = own_program("squall.agent.image.oci.unpack", "--bytes-max", str(bytes_max), str(root), *layers)
    # How much they are the program itself counts, before it writes.
    limit = WriteLimit(f"unpacking {name}", root, lambda: 0, bytes_max)
    run_tool((*WITH_PARENT, *command), own_environ(), output, Watch(None, limit=limit), (scratch.lock_fd,))
