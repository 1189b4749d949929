"""Images of registries and archives, unpacked into a tree that can be a base.

skopeo fetches it. What comes is hashed and unpacked as something of strangers (`image_directory.py`, `unpack.py`),
whoever serves it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from squall.agent.image.layer.scratch import Scratch
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import Output, ToolFailed, Watch
from squall.agent.image.machine.write_limit import WriteLimit, size_of
from squall.agent.image.oci.archive_file import PLAIN, NoImage, opened
from squall.agent.image.oci.contents import finish
from squall.agent.image.oci.credentials import Credentials
from squall.agent.image.oci.image_directory import BadImage, OciImage, read_image
from squall.agent.image.oci.refusal import RegistryFailure
from squall.agent.image.oci.skopeo import Skopeo, reference_of
from squall.agent.image.oci.tree import UnsafePath
from squall.agent.image.oci.unpack import BYTES_MAX
from squall.agent.image.oci.unpacking import Archive, unpack_archives
from squall.runtime.removal import remove_tree

ANSWER_S = 30.0
"""How long a registry may be silent at first."""
_STALL_S = 30.0


def pull_image(
    name: str,
    settings: MachineSettings,
    scratch: Scratch,
    root: Path,
    output: Output,
    *,
    needs_python: bool = False,
    credentials: Credentials | None = None,
    answer_s: float = ANSWER_S,
    bytes_max: int = BYTES_MAX,
) -> dict[str, str]:
    """Make the tree of an image in the directory `root`, which does not exist yet; returns the facts of the layer.

    Facts, each left out when there is none: `python_path` and `python_version`; `suite`, of Debian or Ubuntu; `env`
    and `labels`, each a JSON object; `workdir`; `user` as its author wrote it; `entrypoint`, `cmd` and `shell`, each
    a JSON list; `image`, its name; `digest`, of its configuration, by which it can be told from a later one.

    Args:
        needs_python: an image without a Python cannot be used.
        credentials: in place of those this machine has for the registry. Kept nowhere.
        answer_s: how long to wait until somebody answers at all.
        bytes_max: what it may have on the disk decompressed, and again unpacked.

    Raises:
        RegistryFailure: it cannot be had, or not be used. Something half-made may be in `scratch`.
        WroteTooMuch: it is larger, or the disk has no room for it; the same.
    """
    fetched = _Fetch(name, f"docker://{reference_of(name)}", settings, scratch, output, bytes_max, credentials)
    return fetched.into(root, Watch(None, first_line_s=answer_s, stall_s=_STALL_S), needs_python)


def import_archive(
    archive: Path,
    settings: MachineSettings,
    scratch: Scratch,
    root: Path,
    output: Output,
    *,
    name: str,
    bytes_max: int = BYTES_MAX,
) -> dict[str, str]:
    """The same of an image in one file, of OCI's form or of Docker's, compressed or not.

    Args:
        name: what errors and the facts call it.
        bytes_max: as `pull_image`; what the file itself is decompressed to counts as well.

    Raises:
        RegistryFailure: the file has no image, several, or one that cannot be used.
        WroteTooMuch: as `pull_image`.
    """
    try:
        with opened(archive, scratch, output, name=name, bytes_max=bytes_max) as source:
            fetched = _Fetch(name, source, settings, scratch, output, bytes_max)
            try:
                return fetched.into(root, Watch(None), needs_python=False)
            except RegistryFailure as error:
                # Where we keep it is nothing its user knows.
                raise RegistryFailure(str(error).replace(source, name), kind=error.kind) from None
    except NoImage as error:
        raise RegistryFailure(f"{name}: {error}") from None


class _Fetch:
    """One image on its way from where skopeo finds it into a tree."""

    def __init__(
        self,
        name: str,
        source: str,
        settings: MachineSettings,
        scratch: Scratch,
        output: Output,
        bytes_max: int,
        credentials: Credentials | None = None,
    ) -> None:
        self._name = name
        self._bytes_max = bytes_max
        self._source = source
        self._scratch = scratch
        self._output = output
        self._directory = scratch.path / "image"
        self._temporary = scratch.path / "pull"
        self._skopeo = Skopeo(
            name,
            settings,
            output,
            credentials=credentials,
            keep_fds=(scratch.lock_fd,),
            is_in_registry=source.startswith("docker://"),
        )

    def into(self, root: Path, watch: Watch, needs_python: bool) -> dict[str, str]:
        for path in (self._directory, self._temporary, root):
            path.mkdir(mode=0o755)
        try:
            # Not made into OCI's form: from Docker's this would drop what OCI has no field for, such as the shell.
            limit = WriteLimit(f"fetching {self._name}", self._directory, self._size, self._bytes_max)
            arguments = ("--remove-signatures", "--dest-decompress", self._source)
            self._skopeo.run(
                "copy",
                *arguments,
                f"dir:{self._directory}",
                watch=replace(watch, progress=self._size, limit=limit),
                environ={"TMPDIR": str(self._temporary)},
            )
            try:
                found = read_image(self._directory)
                self._unpack(found, root)
                return {**finish(found, root, self._output, needs_python=needs_python), "image": self._name}
            except (BadImage, UnsafePath, ToolFailed, OSError) as error:
                raise RegistryFailure(f"the image {self._name} cannot be used: {error}") from error
        finally:
            # Its archives are as large as the tree itself.
            remove_tree(str(self._directory))
            remove_tree(str(self._temporary))

    def _size(self) -> int:
        # With what an archive as a whole was decompressed to.
        return size_of(self._scratch.path / PLAIN, self._directory, self._temporary)

    def _unpack(self, found: OciImage, root: Path) -> None:
        layers = [Archive(path, digest) for path, digest in found.layers]
        unpack_archives(layers, root, self._scratch, self._output, name=self._name, bytes_max=self._bytes_max)
