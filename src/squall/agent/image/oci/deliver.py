"""Takes a built image out of this node: to a registry, or into one file.

The image is written as a directory of OCI's form first (`export.py`, a program of its own); skopeo brings that to where
it is to go, compressed as it is wanted there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from squall.agent.image.layer.scratch import Scratch
from squall.agent.image.machine.own_program import own_environ, own_program
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import WITH_PARENT, Output, ToolFailed, Watch, run_tool
from squall.agent.image.oci.credentials import Credentials
from squall.agent.image.oci.export import ImageToExport
from squall.agent.image.oci.refusal import RegistryFailure
from squall.agent.image.oci.skopeo import Skopeo
from squall.protocol.image import ImageConfig
from squall.protocol.image_transfer import DOCKER, GZIP
from squall.runtime.removal import remove_tree

_EXPORT_TIMEOUT_S = 3_600.0
_SEND_TIMEOUT_S = 4 * 3_600.0
_STALL_S = 60.0
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class CannotExport(Exception):
    """An image cannot be written in the form of registries; the message says why."""


@dataclass(frozen=True, slots=True)
class Layout:
    """An image in a directory of OCI's form."""

    path: Path
    scratch: Scratch


def write_layout(
    layers: Sequence[str], titles: Sequence[str], config: ImageConfig, scratch: Scratch, output: Output
) -> Layout:
    """Write an image into `scratch`.

    Args:
        layers: paths of directories or images, bottom first.
        titles: what made each of them.

    Raises:
        CannotExport: it has something that no registry's image can hold, cannot be read, or there is no room.
    """
    image = ImageToExport(
        layers=tuple(layers),
        titles=tuple(titles),
        env=config.env,
        workdir=config.workdir,
        user=config.user,
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        shell=config.shell,
        python_path=config.python_path,
    )
    described = scratch.path / "image.json"
    # Variables of an image are nobody else's business.
    described.touch(mode=0o600)
    described.write_text(image.to_json())
    layout = scratch.path / "layout"
    command = (*WITH_PARENT, *own_program("squall.agent.image.oci.export", str(layout), str(described)))
    try:
        run_tool(command, own_environ(), output, Watch(_EXPORT_TIMEOUT_S), (scratch.lock_fd,))
    except ToolFailed as failure:
        raise CannotExport(str(failure)) from None
    return Layout(layout, scratch)


def push_image(
    layout: Layout,
    name: str,
    settings: MachineSettings,
    output: Output,
    *,
    credentials: Credentials | None = None,
    compression: str = GZIP,
) -> str:
    """Bring an image to a registry under a name; returns its digest there.

    A registry shows the name when all of the image is there, and not before: broken off half-way, nothing has changed.

    Args:
        credentials: in place of those this machine has for the registry. Kept nowhere.

    Raises:
        RegistryFailure: the registry does not take it.
    """
    noted = layout.scratch.path / "digest"
    options = (f"--dest-compress-format={compression}", f"--digestfile={noted}")
    skopeo = Skopeo(name, settings, output, credentials=credentials, keep_fds=(layout.scratch.lock_fd,))
    _copy(skopeo, layout, f"docker://{name}", *options)
    digest = noted.read_text().strip()
    if not _DIGEST.fullmatch(digest):
        raise RegistryFailure(f"{name}: skopeo says that the digest is {digest[:80]!r}")
    return digest


def write_archive(
    layout: Layout,
    form: str,
    tag: str,
    settings: MachineSettings,
    output: Output,
    *,
    compression: str = GZIP,
) -> Path:
    """Write an image into one file, of OCI's form or of Docker's, beside its layout; returns where it is.

    Args:
        tag: what it is called in the file; Docker's form has a name and a tag (`name:tag`) or nothing.

    Raises:
        RegistryFailure: it cannot be written.
    """
    archive = layout.scratch.path / "archive.tar"
    skopeo = Skopeo(tag or form, settings, output, keep_fds=(layout.scratch.lock_fd,), is_in_registry=False)
    place = f"{archive}:{tag}" if tag else str(archive)
    if form == DOCKER:
        # Its layers are never compressed.
        _copy(skopeo, layout, f"docker-archive:{place}")
    else:
        _copy(skopeo, layout, f"oci-archive:{place}", f"--dest-compress-format={compression}")
    return archive


def _copy(skopeo: Skopeo, layout: Layout, target: str, *options: str) -> None:
    temporary = layout.scratch.path / "send"
    temporary.mkdir(mode=0o700)
    try:
        # It says nothing while it sends something large.
        watch = Watch(_SEND_TIMEOUT_S, stall_s=_STALL_S, first_line_s=_STALL_S, counts_io=True)
        skopeo.run("copy", *options, f"oci:{layout.path}", target, watch=watch, environ={"TMPDIR": str(temporary)})
    finally:
        remove_tree(str(temporary))
