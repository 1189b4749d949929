"""Volumes: files that outlive containers, every state of which is a version that stays."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from squall.exception import AlreadyExistsError, ConflictError, InvalidError, NotFoundError
from squall.protocol.asset import VOLUME, AssetInfo, AssetRename
from squall.protocol.ids import new_id
from squall.protocol.volume import (
    DIRECTORY,
    SYMLINK,
    VolumeBlocksGet,
    VolumeChange,
    VolumeCommit,
    VolumeCommitted,
    VolumeCopy,
    VolumeEntry,
    VolumeFlush,
    VolumeList,
    VolumeListing,
    VolumeReload,
    VolumeRemove,
    VolumeVersion,
    from_wire,
    to_wire,
)
from squall.sdk._asset import (
    Asset,
    check_name,
    client_of,
    held,
    time_of,
)
from squall.sdk._asset_objects import AssetObjects
from squall.sdk._environment import environment_of
from squall.sdk._facade import (
    blocking,
    blocking_context,
    blocking_iterator,
    blocking_static,
    blocking_static_context,
)
from squall.sdk._value_text import value_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from squall.sdk._client import Client
    from squall.sdk._volume_content import LocalFile
    from squall.sdk.types import FileEntry, VolumeCreateOptions, VolumeInfo

FILE_SYSTEMS = (1, 2)
"""What `version` may be where programs of elsewhere say which kind of volume to make; all are of one kind here."""


class MissingPath(NotFoundError, FileNotFoundError):
    """There is no such path in the volume."""


class PathExists(AlreadyExistsError, FileExistsError):
    """There is a file at that path already."""


class OpenFiles(ConflictError, RuntimeError):
    """Files on the volume are open: another version cannot take the place of this one now."""


class VolumeObjects(AssetObjects["Volume"]):
    """All volumes that have a name."""

    @blocking
    async def create(
        self,
        name: str,
        *,
        version: int | None = None,
        allow_existing: bool = False,
        environment_name: str | None = None,
        client: Client | None = None,
        experimental_options: dict[str, Any] | None = None,
    ) -> None:
        """Make one. `version` says which kind elsewhere; here all are of one kind.

        Raises:
            AlreadyExistsError: there is one of that name, and `allow_existing` is not given.
            InvalidError: none can be called that.
        """
        _check_kind(version, "Volume.objects.create")
        await self._create(name, environment_name, client, allow_existing=allow_existing)


class Volume(Asset):
    """A handle to a volume. Its paths begin at its top, with or without a slash."""

    _kind = VOLUME
    _version: int | None = None
    _is_read_only = False
    _sub_path = ""

    objects = VolumeObjects()
    """Makes, lists and deletes volumes."""

    @staticmethod
    def from_name(
        name: str,
        *,
        environment_name: str | None = None,
        create_if_missing: bool = False,
        version: int | None = None,
        create_options: VolumeCreateOptions | None = None,
        client: Client | None = None,
    ) -> Volume:
        """The volume of that name; with `create_if_missing` its first use makes it, if there is none.

        Args:
            version: read this version of its history, instead of the newest. With `create_if_missing` it is what it is
                elsewhere, the kind of the volume to make (1 or 2), and means nothing here.

        Raises:
            InvalidError: none can be called that.
        """
        volume = Volume._named(name, environment_name, client, is_created=create_if_missing)
        if create_if_missing:
            _check_kind(version, "Volume.from_name")
        elif version is not None:
            volume._version = _checked_version(version, "Volume.from_name")
        return volume

    @staticmethod
    def from_id(volume_id: str, client: Client | None = None) -> Volume:
        """The volume of that id.

        Raises:
            InvalidError: no volume has such an id.
        """
        return Volume._of_id(volume_id, client)

    @blocking_static_context
    async def ephemeral(
        client: Client | None = None,  # noqa: N805 - static
        environment_name: str | None = None,
        version: int | None = None,
        create_options: VolumeCreateOptions | None = None,
    ) -> AsyncGenerator[Volume, None]:
        """While the block runs, there is a volume without a name."""
        _check_kind(version, "Volume.ephemeral")
        async with held(Volume, environment_name, client) as made:
            yield made

    @blocking_static
    async def rename(
        old_name: str,  # noqa: N805 - static
        new_name: str,
        *,
        client: Client | None = None,
        environment_name: str | None = None,
    ) -> None:
        """Give one another name. Handles that know its id stay right.

        Raises:
            NotFoundError: there is none of that name.
            AlreadyExistsError: there is one of the new name.
        """
        names = check_name(old_name, "Volume.rename"), check_name(new_name, "Volume.rename")
        record = AssetRename(VOLUME, *names, environment_of(environment_name))
        await client_of(client).request("AssetRename", record, AssetInfo)

    @blocking
    async def info(self) -> VolumeInfo:
        """About it.

        Raises:
            NotFoundError: there is none of that name or id.
        """
        from squall.sdk.types import VolumeInfo  # cold start: seldom asked for

        info = await self._known()
        return VolumeInfo(info.name or None, time_of(info.created_at), info.created_by or None)

    # Looking

    @blocking_iterator
    async def iterdir(self, path: str, *, recursive: bool = True) -> AsyncGenerator[FileEntry, None]:
        """What is in a directory, each before what is in it; of a file, itself.

        Raises:
            FileNotFoundError: there is no such path; it is a NotFoundError too.
            InvalidError: it is none.
        """
        async for entry in self._walk(path, is_deep=recursive, what="iterdir"):
            yield _entry(entry)

    @blocking
    async def listdir(self, path: str, *, recursive: bool = False) -> list[FileEntry]:
        """The same as a list; by default without what is deeper.

        Raises:
            FileNotFoundError: there is no such path; it is a NotFoundError too.
            InvalidError: it is none, or a pattern.
        """
        if any(sign in _checked_path(path, "listdir") for sign in "*?["):
            raise InvalidError(f"Volume.listdir({path!r}): patterns are not expanded; list the directory and choose")
        return [_entry(entry) async for entry in self._walk(path, is_deep=recursive, what="listdir")]

    async def _walk(self, path: str, *, is_deep: bool, what: str) -> AsyncGenerator[VolumeEntry, None]:
        checked = _checked_path(path, what)
        client = client_of(self._client)
        following: VolumeList | None = VolumeList(
            await self._resolved(), to_wire(checked), is_deep=is_deep, version=self._version
        )
        while following is not None:
            with missing_path():
                listing = await client.request("VolumeList", following, VolumeListing)
            for entry in listing.entries:
                yield entry
            following = following.following(listing)

    @blocking_iterator
    async def read_file(self, path: str) -> AsyncGenerator[bytes, None]:
        """The content of a file, in pieces of 8 MiB at most.

        Raises:
            FileNotFoundError: there is no such file; it is a NotFoundError too.
            DataLossError: what came is not what was put.
        """
        async for data, size in self._read(path, "read_file"):
            yield data or bytes(size)

    @blocking
    async def read_file_into_fileobj(
        self, path: str, fileobj: IO[bytes], progress_cb: Callable[..., Any] | None = None
    ) -> int:
        """Write the content of a file into an open one; how many bytes.

        Args:
            progress_cb: called with the number of bytes of each piece.

        Raises:
            FileNotFoundError: there is no such file; it is a NotFoundError too.
            DataLossError: what came is not what was put.
        """
        total = 0
        async for data, size in self._read(path, "read_file_into_fileobj"):
            fileobj.write(data or bytes(size))
            total += size
            if progress_cb is not None:
                progress_cb(size)
        return total

    async def _read(self, path: str, what: str) -> AsyncGenerator[tuple[bytes, int], None]:
        from squall.sdk._volume_reader import VolumeReader  # cold start: only where files travel

        checked = _checked_path(path, what)
        asked = VolumeBlocksGet(await self._resolved(), to_wire(checked), self._version)
        with missing_path():
            async for piece in VolumeReader(client_of(self._client)).read(asked):
                yield piece

    # In containers

    def with_mount_options(
        self, *, read_only: bool | None = None, sub_path: str | PurePosixPath | None = None
    ) -> Volume:
        """Another handle to it, for `volumes=`: mounted so that nothing can be written, or with one directory of it to
        be seen, which is made if it is not there.

        Raises:
            InvalidError: `sub_path` leads out of the volume, or is its top.
        """
        if read_only is not None and not isinstance(read_only, bool):
            raise InvalidError(f"Volume.with_mount_options: read_only={value_text(read_only)} must be True or False")
        other = Volume._make(self._name, self._environment, asset_id=self._asset_id, is_created=self._is_created)
        other._client, other._info, other._version = self._client, self._info, self._version
        other._is_read_only = self._is_read_only if read_only is None else read_only
        other._sub_path = self._sub_path
        if sub_path is not None:
            parts = _checked_path(sub_path, "with_mount_options").split("/")
            text = "/".join(part for part in parts if part not in ("", "."))
            if not text:
                raise InvalidError("Volume.with_mount_options: sub_path is the top of the volume; leave it out")
            other._sub_path = text
        return other

    @blocking
    async def commit(self) -> None:
        """In a container that has it mounted: make what was written there the newest version, for all to see. The
        container stands still while that is captured.

        Also done by itself, every few seconds and when the container ends; then without files that are open for
        writing. In a step of an image's build it has nothing to do: what the step writes is committed at its end.

        Raises:
            ConflictError: it is not mounted here, or read-only.
        """
        if self._is_in_build_step("commit"):
            return
        record = VolumeFlush(await self._resolved())
        await client_of(self._client).request("VolumeFlush", record, VolumeCommitted)

    @blocking
    async def reload(self) -> None:
        """In a container that has it mounted: see the newest version from now on. What was written here is committed
        before.

        Raises:
            RuntimeError: files on it are open, or a process is in it; it is a ConflictError too.
            ConflictError: it is not mounted here, or this is a step of an image's build.
        """
        if self._is_in_build_step("reload"):
            raise ConflictError("Volume.reload: a step of an image's build sees what there was when it began")
        record = VolumeReload(await self._resolved())
        try:
            await client_of(self._client).request("VolumeReload", record, VolumeVersion)
        except ConflictError as error:
            if "are open" in str(error):
                raise OpenFiles(str(error)) from None
            raise

    def _is_in_build_step(self, what: str) -> bool:
        """Raises:
        ConflictError: this is no container.
        """
        from squall.sdk import _container  # cold start: handles are often only passed on

        state = _container.current()
        if state is None:
            raise ConflictError(
                f"Volume.{what}: it is mounted in containers of functions that name it in volumes=, and this is none"
            )
        return state.is_build_step

    # Changing

    @blocking_context
    async def batch_upload(self, force: bool = False) -> AsyncGenerator[VolumeUpload, None]:
        """Put files: all that the block names are there when it ends, in one new version; none when it raises.

        Args:
            force: replace files that are there. A directory is never replaced by a file.

        Raises:
            FileExistsError: a file is there already; it is an AlreadyExistsError too.
            ConflictError: a file would take the place of a directory, or lie in a file.
            FileNotFoundError: there is no such file on this machine.
        """
        upload = VolumeUpload(self)
        yield upload
        await upload.send(is_forced=force)

    @blocking
    async def remove_file(self, path: str, recursive: bool = False) -> None:
        """Remove a file, or with `recursive` a directory and all that is in it.

        Raises:
            FileNotFoundError: there is no such path; it is a NotFoundError too.
            ConflictError: it is a directory, and `recursive` is not given.
        """
        checked = self._changed_path(path, "remove_file")
        record = VolumeRemove(await self._resolved(), new_id("rq"), to_wire(checked), bool(recursive), _user())
        with missing_path():
            await client_of(self._client).request("VolumeRemove", record, VolumeCommitted)

    @blocking
    async def copy_files(self, src_paths: Sequence[str], dst_path: str, recursive: bool = False) -> None:
        """Copy within the volume, as `cp` does: into a directory that is there, or else to that path.

        Raises:
            FileNotFoundError: one is not there; it is a NotFoundError too.
            InvalidError: one is a directory, and `recursive` is not given.
            ConflictError: something is in the way.
        """
        if isinstance(src_paths, (str, bytes)):
            raise InvalidError(f"Volume.copy_files({value_text(src_paths)}, …): give a list of paths")
        sources = tuple(to_wire(_checked_path(path, "copy_files")) for path in src_paths)
        if not sources:
            raise InvalidError("Volume.copy_files([], …): name at least one path")
        target = to_wire(self._changed_path(dst_path, "copy_files"))
        record = VolumeCopy(await self._resolved(), new_id("rq"), sources, target, bool(recursive), _user())
        with missing_path():
            await client_of(self._client).request("VolumeCopy", record, VolumeCommitted)

    def _changed_path(self, path: object, what: str) -> str:
        if self._version is not None:
            raise InvalidError(
                f"Volume.{what}: this is a handle to version {self._version}, which stays as it is; change the newest "
                "by a handle without a version, or bring this one back by `squall volume rollback`"
            )
        return _checked_path(path, what)

    def __reduce__(self) -> tuple[Any, ...]:
        options = (self._version, self._is_read_only, self._sub_path)
        return _handle, (self._name, self._environment, self._asset_id, self._is_created, *options)


def _handle(
    name: str, environment: str, asset_id: str, is_created: bool, version: int | None, is_read_only: bool, sub_path: str
) -> Volume:
    volume = Volume._make(name, environment, asset_id=asset_id, is_created=is_created)
    volume._version, volume._is_read_only, volume._sub_path = version, is_read_only, sub_path
    return volume


class VolumeUpload:
    """What a block of `batch_upload` puts, once it ends."""

    def __init__(self, volume: Volume) -> None:
        volume._changed_path("", "batch_upload")
        self._volume = volume
        self._files: list[LocalFile] = []
        self._changes: dict[str, VolumeChange] = {}
        """Of directories and symbolic links."""

    def put_file(
        self,
        local_file: Path | str | BinaryIO,
        remote_path: PurePosixPath | str,
        mode: int | None = None,
    ) -> None:
        """Put a file of this machine, or what can be read from an open one, at a path of the volume.

        Args:
            mode: its permission bits; those of the file here when it is None.

        Raises:
            InvalidError: the path is none, or a directory's.
        """
        from squall.sdk._volume_content import LocalFile  # cold start: only where files travel

        target = _checked_path(remote_path, "batch_upload: put_file")
        if not target.strip("/") or str(remote_path).endswith("/"):
            raise InvalidError(f"put_file(…, {str(remote_path)!r}): name the file, not the directory it is to be in")
        if mode is not None and (not isinstance(mode, int) or not 0 <= mode <= 0o7777):
            raise InvalidError(f"put_file(…, mode={value_text(mode)}): give permission bits, such as 0o644")
        if not isinstance(local_file, (str, bytes, os.PathLike)):
            self._files.append(LocalFile("", target, mode, local_file))
            return
        path = os.fsdecode(local_file)
        if os.path.isdir(path):
            raise InvalidError(f"put_file({path!r}, …) is a directory; put_directory puts all that is in it")
        self._files.append(LocalFile(path, target, mode))

    def put_directory(self, local_path: Path | str, remote_path: PurePosixPath | str, recursive: bool = True) -> None:
        """Put what is in a directory of this machine into one of the volume.

        Symbolic links stay what they are. What is neither file, directory nor link is left out.

        Raises:
            InvalidError: it is no directory.
        """
        from squall.sdk._volume_content import LocalFile  # cold start: only where files travel

        base = os.fsdecode(local_path)
        target = _checked_path(remote_path, "batch_upload: put_directory").strip("/")
        if not os.path.isdir(base):
            raise InvalidError(f"put_directory({base!r}, …): that is no directory of this machine")
        for here, directories, names in os.walk(base, onerror=_raise):
            inner = os.path.relpath(here, base)
            place = "/".join(part for part in (target, "" if inner == "." else inner) if part)
            if place:
                self._put_directory(place, here)
            links = [name for name in directories if os.path.islink(os.path.join(here, name))]
            if not recursive:
                directories.clear()
            for name in sorted([*names, *links]):
                path, inside = os.path.join(here, name), f"{place}/{name}".lstrip("/")
                if os.path.islink(path):
                    link = os.readlink(path)
                    self._changes[inside] = VolumeChange(
                        to_wire(inside),
                        kind=SYMLINK,
                        mode=0o777,
                        mtime_ns=os.lstat(path).st_mtime_ns,
                        target=to_wire(link),
                    )
                elif os.path.isfile(path):
                    self._files.append(LocalFile(path, inside))

    def _put_directory(self, place: str, here: str) -> None:
        status = os.stat(here)
        self._changes[place] = VolumeChange(
            to_wire(place), kind=DIRECTORY, mode=status.st_mode & 0o7777, mtime_ns=status.st_mtime_ns
        )

    @property
    def file_count(self) -> int:
        """How many files it puts."""
        return len(self._files)

    def size_bytes(self) -> int:
        """Of all files, as far as that is known.

        Raises:
            OSError: one is not there.
        """
        return sum(os.path.getsize(file.path) for file in self._files if file.content is None)

    async def send(self, *, is_forced: bool, progress: Callable[[int], None] | None = None) -> VolumeVersion | None:
        """Put all of it, in one new version; None where there is nothing to put. Not for users, whose block does it.

        Args:
            progress: told of each number of bytes that is in the store.
        """
        from squall.sdk._volume_content import Uploader  # cold start: only where files travel

        if not self._files and not self._changes:
            return None
        client = client_of(self._volume._client)
        volume_id = await self._volume._resolved()
        uploader = Uploader(client, progress)
        try:
            for file in self._files:
                await uploader.put(file)
            await uploader.finish()
        finally:
            uploader.close()
        changes = [*self._changes.values(), *uploader.changes]
        return (await commit(client, volume_id, changes, "put", is_replacing=is_forced)).version


async def commit(
    client: Client, volume_id: str, changes: Sequence[VolumeChange], cause: str, *, is_replacing: bool
) -> VolumeCommitted:
    """Make these changes one new version.

    Raises:
        PathExists, ConflictError: something is in the way.
    """
    from squall.protocol.pages import pages  # cold start: only where files travel

    commit_id, user = new_id("rq"), _user()
    some = list(pages(client.codec, changes)) or [()]
    number = 0
    restarts = 0
    while True:
        record = VolumeCommit(
            volume_id,
            commit_id,
            some[number],
            number,
            is_last=number == len(some) - 1,
            is_forced=False,
            is_replacing=is_replacing,
            cause=cause,
            created_by=user,
        )
        try:
            answer = await client.request("VolumeCommit", record, VolumeCommitted)
        except AlreadyExistsError as error:
            raise PathExists(str(error)) from None
        except ConflictError as error:
            # The server was restarted in between, and has forgotten the pages before.
            if "begin again with page 0" not in str(error) or restarts >= RESTARTS_MAX:
                raise
            restarts += 1
            number = 0
            continue
        if answer.missing:
            raise NotFoundError(f"{len(answer.missing)} blocks went from the store while they were put; put them again")
        if record.is_last:
            return answer
        number += 1


_NO_PATH = (": there is no '", ': there is no "')
"""In what the server says of a path; a volume or a version may be what is missing instead."""
RESTARTS_MAX = 5
"""Of the server, while one commit is sent to it."""


@contextmanager
def missing_path() -> Iterator[None]:
    """A path that is not found meanwhile is a FileNotFoundError, too."""
    try:
        yield
    except NotFoundError as error:
        if not any(begin in str(error) for begin in _NO_PATH):
            raise
        raise MissingPath(str(error)) from None


def _entry(entry: VolumeEntry) -> FileEntry:
    from squall.sdk.types import FileEntry, FileEntryType  # cold start: only where directories are listed

    kinds = {DIRECTORY: FileEntryType.DIRECTORY, SYMLINK: FileEntryType.SYMLINK}
    kind = kinds.get(entry.kind, FileEntryType.FILE)
    size = entry.size if kind is not FileEntryType.DIRECTORY else 0
    return FileEntry(from_wire(entry.path), kind, entry.mtime_ns // 10**9, size)


def _checked_path(path: object, what: str) -> str:
    if not isinstance(path, (str, PurePosixPath)):
        raise InvalidError(f"Volume.{what}: {value_text(path)} is no path; write it as text, such as 'models/a.bin'")
    text = str(path)
    if "\0" in text or ".." in text.split("/"):
        raise InvalidError(f"Volume.{what}: {text[:200]!r} leads out of the volume, or is no path at all")
    return text


def _checked_version(version: object, what: str) -> int:
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise InvalidError(f"{what}: version={value_text(version)} must be the number of a version, from 1 up")
    return version


def _check_kind(version: object, what: str) -> None:
    if version is not None and (version not in FILE_SYSTEMS or isinstance(version, bool)):
        raise InvalidError(f"{what}: version={value_text(version)} must be 1 or 2, where a volume is made")


def _user() -> str:
    from squall.sdk._user import user_name  # cold start: only where something is changed

    return user_name()


def _raise(error: OSError) -> None:
    raise error
