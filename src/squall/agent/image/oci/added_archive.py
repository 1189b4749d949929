"""Archives that a step unpacks: as strangers' as the layers of images, and by the same program (`unpack.py`)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from squall.agent.image.layer.scratch import Scratch
from squall.agent.image.machine.tool import Output
from squall.agent.image.machine.write_limit import WriteLimit, size_of
from squall.agent.image.oci.archive_file import NoImage, decompressed
from squall.agent.image.oci.unpacking import Archive, unpack_archives


def add_archives(archives: Sequence[Path], root: Path, scratch: Scratch, output: Output, *, bytes_max: int) -> None:
    """Lay tar archives, compressed or not, over one another in the directory `root`, which does not exist yet.

    Args:
        bytes_max: what they may become when they are decompressed, and again when they are unpacked.

    Raises:
        NoImage: one cannot be decompressed.
        ToolFailed: one is no tar archive, or has what none may have.
        WroteTooMuch: they become more, or more than the disk has room for.
    """
    root.mkdir(mode=0o755)
    plain: list[Path] = []
    found = []
    for number, archive in enumerate(archives, start=1):
        # Their names are ours; the title of the step has the user's.
        name = f"archive {number} of {len(archives)}"
        plain.append(scratch.path / f"plain-{number}.tar")
        limit = WriteLimit(f"decompressing {name}", scratch.path, lambda: size_of(*plain), bytes_max)
        try:
            readable = decompressed(archive, plain[-1], scratch, output, limit)
        except NoImage as error:
            raise NoImage(f"{name} {error}") from None
        found.append(Archive(readable, f"sha256:{_sha256(readable)}"))
    unpack_archives(found, root, scratch, output, name=f"{len(archives)} archives", bytes_max=bytes_max)
    # What comes next needs the room.
    for path in plain:
        path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
