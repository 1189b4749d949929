"""Archives that a step unpacks: as strangers' as the layers of images, and by the same program (`unpack.py`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from squall.agent.image.layer.store import Scratch
from squall.agent.image.machine.own_program import own_environ, own_program
from squall.agent.image.machine.tool import WITH_PARENT, Output, Watch, run_tool
from squall.agent.image.oci.archive_file import decompressed

_UNPACK_TIMEOUT_S = 3_600.0


def unpack_archives(archives: Iterable[Path], root: Path, scratch: Scratch, output: Output) -> None:
    """Lay tar archives, compressed or not, over one another in the directory `root`, which does not exist yet.

    Raises:
        NoImage: one cannot be decompressed.
        ToolFailed: one is no tar archive, or has what none may have.
    """
    root.mkdir(mode=0o755)
    layers = []
    for number, archive in enumerate(archives):
        readable = decompressed(archive, scratch.path / f"plain-{number}.tar", scratch, output)
        layers.append(f"{readable}=sha256:{_sha256(readable)}")
    command = (*WITH_PARENT, *own_program("squall.agent.image.oci.unpack", str(root), *layers))
    run_tool(command, own_environ(), output, Watch(_UNPACK_TIMEOUT_S), (scratch.lock_fd,))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
