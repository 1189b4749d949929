"""What images are made of before a server hears of them: steps with the local files they need."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from squall.exception import InvalidError
from squall.protocol.records import record

if TYPE_CHECKING:
    from pathlib import Path

    from squall.sdk._mount import LocalFile, Mount
    from squall.sdk._volume_mounts import Mounted
    from squall.sdk.file_pattern_matcher import IgnoreArgument
    from squall.sdk.image import Image
    from squall.sdk.secret import Secret


@record
class LocalAdd:
    """Files of this machine for an image; read when the image is used, not before."""

    kind: str
    """file, dir or module."""
    source: str
    target: str
    """The directory in the container that holds them; for a file, the whole path."""
    ignore: IgnoreArgument | None

    def files(self) -> tuple[str, list[LocalFile]]:
        """The directory in the container, and the files below it.

        Raises:
            InvalidError: there is nothing to add.
        """
        from squall.sdk import _mount, _source  # cold start: never read in containers
        from squall.sdk.file_pattern_matcher import as_predicate  # cold start: as above

        if self.kind == "file":
            self._check_file()
            directory, name = os.path.split(self.target)
            return directory or "/", [_mount.LocalFile(os.path.abspath(self.source), name)]
        if self.kind == "dir":
            self._check_directory()
            ignore = as_predicate(self.ignore or ())
            return self.target, list(_mount.find_files(os.path.abspath(self.source), "", ignore))
        source = _source.python_module_source(self.source)
        if source.kind == _source.BY_FILE:
            return self.target, [_mount.LocalFile(source.path, os.path.basename(source.path))]
        only_code = as_predicate(self.ignore) if self.ignore is not None else _mount.is_not_python
        found = _mount.find_files(
            source.path, source.module_name, lambda path: _mount.is_code_noise(path) or only_code(path)
        )
        return self.target, list(found)

    def _check_file(self) -> None:
        what = f"add_local_file({self.source!r}, …): it"
        if os.path.isdir(self.source):
            raise InvalidError(f"{what} is a directory; use add_local_dir")
        # What is not there at all is told when it is read.
        if os.path.exists(self.source) and not os.path.isfile(self.source):
            raise InvalidError(f"{what} is no regular file, so its content cannot be added")

    def _check_directory(self) -> None:
        what = f"add_local_dir({self.source!r}, …):"
        if os.path.isfile(self.source):
            raise InvalidError(f"{what} it is a file; use add_local_file")
        if not os.path.isdir(self.source):
            raise InvalidError(f"{what} there is no such directory here")

    def mount(self) -> tuple[str, Mount]:
        """The files, hashed, and the directory they belong to."""
        from squall.sdk import _mount  # cold start: as above

        target, files = self.files()
        return target, _mount.make_mount(files, f"{self.source} for {self.target}")


@record
class Reading:
    """What a Dockerfile, or lines of one, are read with; `squall.sdk._image_dockerfile` does it."""

    place: str
    """The method, for messages."""
    context_dir: str | Path | None
    """The working directory when it is None."""
    ignore: IgnoreArgument | None
    """None takes the file of patterns that is there."""
    build_args: Mapping[str, str]
    env: Mapping[str, str]
    """Of RUN lines alone, as `secrets` are."""
    secrets: tuple[Secret, ...]
    force_build: bool
    context_files: Mapping[str, str] = MappingProxyType({})
    """Paths of the context, and the files of this machine that are to be there."""
    registry_secret: Secret | None = None


@record
class Step:
    """One step: a function of `squall.protocol.image_steps` and its arguments, or what becomes some of those."""

    name: str
    arguments: Mapping[str, Any] = MappingProxyType({})
    add: LocalAdd | None = None
    """Files to copy: their mount and its place are the arguments."""
    files: Callable[[], Mount] | None = None
    """Files the step sees: the mount is one more argument."""
    image: Image | None = None
    """Another image: its id is one more argument."""
    published: tuple[str, str] | None = None
    """A name, and the environment it is of: the id that it stands for is one more argument."""
    secrets: tuple[Secret, ...] = ()
    volumes: Mapping[str, Mounted] = MappingProxyType({})
    """By the path each is mounted at while the step runs."""
    late: Callable[[], tuple[Step, ...]] | None = None
    """What the step stands for, known when the files it is about are read."""


def flat(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps with those in their place that some stand for.

    Raises:
        InvalidError: a file that says which is missing or wrong.
    """
    found: list[Step] = []
    for step in steps:
        found += flat(step.late()) if step.late is not None else (step,)
    return tuple(found)
