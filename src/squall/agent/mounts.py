"""Lays users' files out on this node, ready to be a layer of a container's root.

    <data>/mounts/files/<sha256>-<mode>      one file, linked into every set that has it
    <data>/mounts/sets/<name>/root/...       the merged files of some mounts, each at its target
    <data>/mounts/sets/<name>/complete       present once all is there
    <data>/mounts/new/...                    in the making; emptied at start

A set is a read-only layer on top of the image's, not a bind: several mounts may share a directory with each other and
with the image, and the container can write beside the files (its home is one such place). Sets are named by what is in
them, shared by every container that wants the same, and never changed. Files belong to id 0 and are readable by all.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import posixpath
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from squall.agent.blobs import BlobSource
from squall.agent.image.layer.merged import merged
from squall.protocol.errors import INVALID, PlatformError
from squall.protocol.mount import MountFile, MountManifest, MountRef
from squall.protocol.task_set import TaskSet
from squall.runtime.errors import RuntimeFailure
from squall.runtime.removal import remove_tree

_FETCHES_MAX = 16
_STICKY = ("/tmp", "/var/tmp")
_RESOLVED_MAX = 4_096
_ATTEMPTS = 3

_log = logging.getLogger("squall.agent.mounts")


@dataclass(slots=True)
class MountSet:
    """Files laid out in one place."""

    name: str
    path: str
    size_bytes: int = 0
    users: int = 0


def mount_path(data_dir: Path, mount_id: str) -> str:
    """Where the files of one mount are, by themselves, once laid out at `/` (image builds copy from there)."""
    return str(data_dir / "mounts" / "sets" / _set_name([MountRef(mount_id, "/")]) / "root")


class Mounts:
    """The sets of this node. Used by one agent at a time.

    Args:
        bytes_max: sets nobody uses are removed to stay below.
    """

    def __init__(self, data_dir: Path, source: BlobSource, executor: Executor, bytes_max: int) -> None:
        self._top = data_dir / "mounts"
        self._source = source
        self._executor = executor
        self._bytes_max = bytes_max
        self._sets: dict[str, MountSet] = {}
        """The longest unused first."""
        self._locks: dict[str, asyncio.Lock] = {}
        self._fetches = asyncio.Semaphore(_FETCHES_MAX)
        self._tasks = TaskSet()

    def prepare(self) -> None:
        """Take stock of what earlier agents laid out, and remove what they did not finish. Blocks."""
        remove_tree(str(self._top / "new"))
        for name in ("", "files", "sets", "new"):
            (self._top / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        found = []
        for path in (self._top / "sets").iterdir():
            with contextlib.suppress(OSError, ValueError):
                size_bytes = int((path / "complete").read_text())
                found.append((path.stat().st_mtime, MountSet(path.name, str(path / "root"), size_bytes)))
                continue
            remove_tree(str(path))
        for _, known in sorted(found, key=lambda pair: pair[0]):
            self._sets[known.name] = known

    async def acquire(self, refs: Sequence[MountRef], layers: Sequence[str]) -> MountSet:
        """The files of these mounts at their targets, above these layers; give it back by `release`.

        Raises:
            PlatformError: a mount or blob cannot be had, or its target cannot be used.
        """
        placed = [MountRef(ref.mount_id, resolve(tuple(layers), ref.target)) for ref in refs]
        name = _set_name(placed)
        # One at a time per set: the second one finds it there.
        async with self._locks.setdefault(name, asyncio.Lock()):
            found = self._sets.get(name)
            if found is None:
                found = await self._lay_out(name, placed)
            found.users += 1
        self._locks.pop(name, None)
        self._touch(found)
        return found

    def adopt(self, name: str) -> None:
        """A container that lives already uses this set."""
        if name in self._sets:
            self._sets[name].users += 1

    async def release(self, name: str) -> None:
        """A container that used this set is gone. Raises nothing for what cannot be removed then."""
        found = self._sets.get(name)
        if found is None or not found.users:
            return
        found.users -= 1
        self._touch(found)
        await self.evict()

    async def evict(self) -> None:
        """Remove unused sets, the longest unused first, while all together are over the limit; which cannot be, the
        next time."""
        total = sum(known.size_bytes for known in self._sets.values())
        doomed = []
        for known in list(self._sets.values()):
            if total <= self._bytes_max:
                break
            if not known.users:
                del self._sets[known.name]
                doomed.append(known)
                total -= known.size_bytes
        if doomed:
            for known in await asyncio.get_running_loop().run_in_executor(self._executor, self._remove, doomed):
                self._sets.setdefault(known.name, known)

    def _touch(self, used: MountSet) -> None:
        self._sets[used.name] = self._sets.pop(used.name, used)

    async def _lay_out(self, name: str, placed: Sequence[MountRef]) -> MountSet:
        loop = asyncio.get_running_loop()
        manifests = [await self._source.manifest(ref.mount_id) for ref in placed]
        files: dict[str, MountFile] = {}
        for ref, manifest in zip(placed, manifests, strict=True):
            files.update(_at_target(ref, manifest))
        for attempt in range(_ATTEMPTS):
            try:
                await self._fetch_missing(files)
                size_bytes = await loop.run_in_executor(self._executor, self._assemble, name, files, placed)
                break
            except FileNotFoundError:
                # Evicting another set took a file that was in no set yet.
                if attempt == _ATTEMPTS - 1:
                    raise
        made = MountSet(name, str(self._top / "sets" / name / "root"), size_bytes)
        self._sets[name] = made
        return made

    async def _fetch_missing(self, files: dict[str, MountFile]) -> None:
        missing = {_file_name(file): file for file in files.values() if not self._file_path(file).exists()}
        fetches = [self._tasks.start(self._fetch(file)) for file in missing.values()]
        try:
            await asyncio.gather(*fetches)
        finally:
            for fetch in fetches:
                fetch.cancel()

    async def _fetch(self, file: MountFile) -> None:
        async with self._fetches:
            new = self._top / "new" / secrets.token_hex(8)
            await self._source.fetch(file, new)
            os.chmod(new, _mode(file))
            os.rename(new, self._file_path(file))

    def _assemble(self, name: str, files: dict[str, MountFile], placed: Sequence[MountRef]) -> int:
        """Link the files together and rename the result into place; returns its size."""
        new = self._top / "new" / secrets.token_hex(8)
        try:
            size_bytes = self._link_all(new / "root", files, placed)
        except BaseException:
            remove_tree(str(new))
            raise
        (new / "complete").write_text(str(size_bytes))
        os.rename(new, self._top / "sets" / name)
        return size_bytes

    def _link_all(self, root: Path, files: dict[str, MountFile], placed: Sequence[MountRef]) -> int:
        root.mkdir(mode=0o755, parents=True)
        made = {""}
        for target in (ref.target for ref in placed):
            _make_directories(root, target.strip("/"), made)
        for path, file in files.items():
            _make_directories(root, posixpath.dirname(path), made)
            _link(self._file_path(file), root / path)
        return sum(file.size_bytes for file in files.values()) + 4_096 * (len(files) + len(made))

    def _remove(self, doomed: Sequence[MountSet]) -> list[MountSet]:
        """Returns those that are there still."""
        left = []
        for known in doomed:
            grave = self._top / "new" / secrets.token_hex(8)
            try:
                os.rename(self._top / "sets" / known.name, grave)
            except OSError as error:
                _log.warning("cannot remove files that nobody uses: %s", error)
                left += [known] if os.path.isdir(known.path) else []
                continue
            try:
                remove_tree(str(grave))
            except (RuntimeFailure, OSError) as error:
                _log.warning("cannot remove files that nobody uses: %s; the next agent tries again", error)
        # A file in no set has one name left. One whose first set is being made just now is fetched again.
        with contextlib.suppress(OSError):
            for path in (self._top / "files").iterdir():
                if path.stat().st_nlink == 1:
                    path.unlink(missing_ok=True)
        return left

    def _file_path(self, file: MountFile) -> Path:
        return self._top / "files" / _file_name(file)


@functools.lru_cache(maxsize=_RESOLVED_MAX)
def resolve(layers: tuple[str, ...], target: str) -> str:
    """The target as a path without links in these layers (bottom first): a layer must not turn a link into a directory.

    Raises:
        PlatformError: `invalid`: not absolute, or its links lead nowhere.
    """
    if not target.startswith("/") or "\0" in target:
        raise PlatformError(INVALID, f"cannot mount files at {target!r}: not an absolute path")
    try:
        with merged(layers) as tree:
            place, missing = tree.resolve(target)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise PlatformError(INVALID, f"cannot mount files at {target!r}: its links lead in a circle") from None
    done = list(place.names)
    for part in missing:
        done = done[:-1] if part == ".." else [*done, part]
    return "/" + "/".join(done)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]


def _set_name(placed: Sequence[MountRef]) -> str:
    rows = [[ref.mount_id, ref.target] for ref in placed]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:40]


def _at_target(ref: MountRef, manifest: MountManifest) -> Iterator[tuple[str, MountFile]]:
    for file in manifest.files:
        parts = file.path.split("/")
        if any(part in {"", ".", ".."} for part in parts) or "\0" in file.path:
            raise PlatformError(INVALID, f"mount {ref.mount_id} has a file {file.path!r}: not a plain relative path")
        if len(file.sha256) != 64 or not all(digit in "0123456789abcdef" for digit in file.sha256):
            raise PlatformError(INVALID, f"mount {ref.mount_id}: {file.sha256!r} is no SHA-256")
        yield f"{ref.target}/{file.path}".strip("/"), file


def _mode(file: MountFile) -> int:
    return 0o755 if file.mode & 0o111 else 0o644


def _file_name(file: MountFile) -> str:
    return f"{file.sha256}-{_mode(file):o}"


def _make_directories(root: Path, path: str, made: set[str]) -> None:
    if path in made:
        return
    _make_directories(root, posixpath.dirname(path), made)
    directory = root / path
    if not directory.is_dir():
        # A file of one mount where another has a directory: the later one wins.
        directory.unlink(missing_ok=True)
        directory.mkdir()
    # The topmost layer says how a directory of an overlay looks.
    directory.chmod(0o1777 if f"/{path}" in _STICKY else 0o755)
    made.add(path)


def _link(source: Path, target: Path) -> None:
    with contextlib.suppress(IsADirectoryError, PermissionError):
        target.unlink(missing_ok=True)
    if target.is_dir():
        return
    try:
        os.link(source, target)
    except OSError:
        # Too many names for one file (an empty __init__.py has thousands), or a file system without links.
        target.write_bytes(source.read_bytes())
        target.chmod(source.stat().st_mode & 0o777)
