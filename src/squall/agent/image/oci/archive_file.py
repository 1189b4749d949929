"""One file with an image in it, as somebody gives it to us: which form it has, and how skopeo can read it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from squall.agent.image.layer.scratch import Scratch
from squall.agent.image.machine.own_program import own_environ
from squall.agent.image.machine.tool import PATH, WITH_PARENT, Output, ToolFailed, Watch, run_tool
from squall.agent.image.machine.write_limit import WriteLimit, size_of
from squall.protocol.image_transfer import DOCKER, OCI

PLAIN = "plain.tar"
"""Below a scratch directory, what a file that is compressed as a whole is decompressed to."""
_FORMS = {"oci-layout": OCI, "manifest.json": DOCKER}
# First bytes, and what makes the rest of it; by magic numbers, because names of files say nothing.
_PROGRAMS = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
}


class NoImage(Exception):
    """A file is no archive of an image; the message says why."""


@contextlib.contextmanager
def opened(archive: Path, scratch: Scratch, output: Output, *, name: str, bytes_max: int) -> Iterator[str]:
    """What skopeo calls the image in a file, compressed as a whole or not. Nothing is left in `scratch` afterwards.

    Args:
        name: what errors call it.
        bytes_max: what it may become.

    Raises:
        NoImage: there is none in it.
        WroteTooMuch: it becomes more, or more than the disk has room for.
    """
    plain = scratch.path / PLAIN
    try:
        limit = WriteLimit(f"decompressing {name}", scratch.path, lambda: size_of(plain), bytes_max)
        readable = decompressed(archive, plain, scratch, output, limit)
        yield f"{_form_of(readable, output)}-archive:{readable}"
    finally:
        plain.unlink(missing_ok=True)


def decompressed(archive: Path, plain: Path, scratch: Scratch, output: Output, limit: WriteLimit) -> Path:
    """The file itself, or `plain` with what it is when it is decompressed: skopeo 1.9 cannot read Docker's in gzip.

    Raises:
        NoImage: it cannot be read, or not be decompressed.
        WroteTooMuch: it becomes more than it may.
    """
    try:
        with archive.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise NoImage(f"cannot be read: {error.strerror}") from None
    program = next((program for magic, program in _PROGRAMS.items() if head.startswith(magic)), "")
    if not program:
        return archive
    if not shutil.which(program, path=PATH):
        raise NoImage(f"is compressed by {program}, which is not installed here (apt-get install {program})")
    # By a shell, because these write to where their output goes. Archive and target are arguments and no text of it.
    command = ("/bin/sh", "-c", 'exec "$0" -dc < "$1" > "$2"', program, str(archive), str(plain))
    try:
        run_tool((*WITH_PARENT, *command), own_environ(), output, Watch(None, limit=limit), (scratch.lock_fd,))
    except ToolFailed as failure:
        raise NoImage(f"cannot be decompressed: {failure}") from None
    return plain


def _form_of(archive: Path, output: Output) -> str:
    """By the files in it; who writes both forms has written OCI's as well as Docker's."""
    found: set[str] = set()

    def look(line: str) -> None:
        if form := _FORMS.get(line.strip().removeprefix("./")):
            found.add(form)

    # Not by us: it is a stranger's, and may claim to have headers of any size.
    command = (*WITH_PARENT, "tar", "--list", "--file", str(archive))
    try:
        run_tool(command, own_environ(), Output(look, output.is_cancelled), Watch(None))
    except ToolFailed as failure:
        raise NoImage(f"no archive of an image: {failure}") from None
    if not found:
        raise NoImage(
            "no archive of an image: it has neither oci-layout nor manifest.json; `docker save`, `podman save` and "
            "`squall image export` write such"
        )
    return OCI if OCI in found else DOCKER
