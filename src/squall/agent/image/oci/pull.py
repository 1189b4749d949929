"""Images of registries and archives, unpacked into a tree that can be a base.

skopeo fetches it. What comes is hashed and unpacked as something of strangers (`image_directory.py`, `unpack.py`),
whoever serves it.
"""

from __future__ import annotations

import os
from pathlib import Path

from squall.agent.image.layer.store import Scratch
from squall.agent.image.machine.own_program import own_environ, own_program
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import WITH_PARENT, Output, ToolFailed, Watch, run_tool
from squall.agent.image.oci.archive_file import NoImage, opened
from squall.agent.image.oci.contents import finish
from squall.agent.image.oci.credentials import Credentials
from squall.agent.image.oci.image_directory import BadImage, OciImage, read_image
from squall.agent.image.oci.refusal import RegistryFailure
from squall.agent.image.oci.skopeo import Skopeo, reference_of
from squall.agent.image.oci.tree import UnsafePath
from squall.runtime.removal import remove_tree

ANSWER_S = 30.0
"""How long a registry may be silent at first."""
_PULL_TIMEOUT_S = 3_600.0
_STALL_S = 30.0
_UNPACK_TIMEOUT_S = 3_600.0


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
) -> dict[str, str]:
    """Make the tree of an image in the directory `root`, which does not exist yet; returns the facts of the layer.

    Facts, each left out when there is none: `python_path` and `python_version`; `suite`, of Debian or Ubuntu; `env`
    and `labels`, each a JSON object; `workdir`; `user` as its author wrote it; `entrypoint`, `cmd` and `shell`, each
    a JSON list; `image`, its name; `digest`, of its configuration, by which it can be told from a later one.

    Args:
        needs_python: an image without a Python cannot be used.
        credentials: in place of those this machine has for the registry. Kept nowhere.
        answer_s: how long to wait until somebody answers at all.

    Raises:
        RegistryFailure: it cannot be had, or not be used. Something half-made may be in `scratch`.
    """
    fetched = _Fetch(name, f"docker://{reference_of(name)}", settings, scratch, output, credentials)
    return fetched.into(root, Watch(_PULL_TIMEOUT_S, first_line_s=answer_s, stall_s=_STALL_S), needs_python)


def import_archive(
    archive: Path, settings: MachineSettings, scratch: Scratch, root: Path, output: Output, *, name: str
) -> dict[str, str]:
    """The same of an image in one file, of OCI's form or of Docker's, compressed or not.

    Args:
        name: what errors and the facts call it.

    Raises:
        RegistryFailure: the file has no image, several, or one that cannot be used.
    """
    try:
        with opened(archive, scratch, output) as source:
            fetched = _Fetch(name, source, settings, scratch, output)
            try:
                return fetched.into(root, Watch(_PULL_TIMEOUT_S), needs_python=False)
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
        credentials: Credentials | None = None,
    ) -> None:
        self._name = name
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
            arguments = ("--remove-signatures", "--dest-decompress", self._source)
            self._skopeo.run(
                "copy",
                *arguments,
                f"dir:{self._directory}",
                watch=Watch(watch.timeout_s, watch.first_line_s, watch.stall_s, self._size),
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
        total = 0
        for directory in (self._directory, self._temporary):
            with os.scandir(directory) as entries:
                for entry in entries:
                    # Temporary files come and go meanwhile.
                    try:
                        total += entry.stat(follow_symlinks=False).st_size
                    except FileNotFoundError:
                        continue
        return total

    def _unpack(self, found: OciImage, root: Path) -> None:
        layers = [f"{path}={digest}" for path, digest in found.layers]
        command = (*WITH_PARENT, *own_program("squall.agent.image.oci.unpack", str(root), *layers))
        run_tool(command, own_environ(), self._output, Watch(_UNPACK_TIMEOUT_S), (self._scratch.lock_fd,))
