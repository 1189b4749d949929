"""The user's files on their way into containers: found, hashed, registered, uploaded.

Hashes are kept per process by path, size and time of modification, so that running an app again reads no file twice.
"""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from squall.exception import InvalidError, ServiceError
from squall.protocol.hashing import new_sha256, sha256_hex
from squall.protocol.mount import BLOCK_BYTES, MountCreate, MountCreated, MountFile, MountManifest
from squall.protocol.records import record
from squall.sdk import _blob, _container, _shipped
from squall.sdk._client import Client
from squall.sdk.file_pattern_matcher import can_prune

COMPILED = (".pyc", ".pyo")
FILES_MAX = 100_000
LARGE_BYTES = 2 * 2**30
"""From here on somebody is told: it may not be meant."""

Ignore = Callable[[Path], bool]


@record
class _Hashes:
    """Of a file and, if it is large, of its blocks."""

    sha256: str
    blocks: tuple[str, ...]


_hashes: dict[tuple[str, int, int, int], _Hashes] = {}


@record
class LocalFile:
    """A file here and its place below the mount's target."""

    local_path: str
    remote_path: str


@record
class LocalPart:
    """A piece of a file here."""

    path: str
    offset: int
    size_bytes: int


@record
class Content:
    """A file that is nowhere but in this program, and its place below the mount's target."""

    data: bytes
    remote_path: str


@record
class Mount:
    """Hashed files and what the server calls them."""

    manifest: MountManifest
    parts: dict[str, LocalPart]
    """SHA-256 to where that is here."""
    contents: dict[str, bytes]
    """SHA-256 to what is at no path."""

    @property
    def mount_id(self) -> str:
        """The id that their content gives them."""
        return self.manifest.mount_id()


def is_code_noise(path: Path) -> bool:
    """Dot-files and compiled files: never part of a package that is shipped."""
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts) or path.suffix in COMPILED


def is_not_python(path: Path) -> bool:
    """The default of `add_local_python_source`: only `.py` files travel."""
    return is_code_noise(path) or path.suffix != ".py"


def find_files(directory: str, remote_path: str, ignore: Ignore) -> Iterator[LocalFile]:
    """The files of a tree that are not ignored; `ignore` sees paths relative to the tree.

    Links are followed: what they lead to is what travels. A link back into the tree above it is not entered, and one
    that leads to nothing, or to itself, is left out.
    """
    yield from _walk(directory, "", remote_path, ignore, frozenset({os.path.realpath(directory)}), [])


def _walk(
    root: str, below: str, remote_path: str, ignore: Ignore, above: frozenset[str], seen: list[str]
) -> Iterator[LocalFile]:
    is_pruning = can_prune(ignore)
    seen.append(below)
    if len(seen) > FILES_MAX:
        raise InvalidError(
            f"cannot ship {root}: more than {FILES_MAX} directories, each counted as often as links lead to it; use "
            "ignore= to leave some out"
        )
    _shipped.took_directory(os.path.join(root, below))
    try:
        with os.scandir(os.path.join(root, below)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidError(f"cannot ship {root}: {os.path.join(root, below)}: {error.strerror}") from error
    for entry in entries:
        relative = f"{below}/{entry.name}" if below else entry.name
        if _is_circular(entry):
            continue
        if entry.is_dir():
            # Files below may be taken back, so only what is certain is passed over as a whole.
            real = os.path.realpath(entry.path)
            is_left_out = entry.name == "__pycache__" or (is_pruning and ignore(Path(relative)))
            if real not in above and not is_left_out:
                yield from _walk(root, relative, remote_path, ignore, above | {real}, seen)
        elif entry.is_file() and not ignore(Path(relative)):
            yield LocalFile(entry.path, f"{remote_path}/{relative}" if remote_path else relative)


def _is_circular(entry: os.DirEntry[str]) -> bool:
    try:
        entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return True
    return False


def make_mount(
    files: Iterator[LocalFile] | list[LocalFile],
    what: str,
    contents: Sequence[Content] = (),
    *,
    is_size_meant: bool = False,
) -> Mount:
    """Hash files, and `contents` that are none yet.

    Args:
        is_size_meant: nobody needs to be told that there is much.

    Raises:
        InvalidError: a file cannot be read, or there are more than anybody means.
        ServiceError: a file grows or shrinks while it is read.
    """
    found: dict[str, MountFile] = {}
    parts: dict[str, LocalPart] = {}
    for file in files:
        _check_name(file.remote_path, what)
        try:
            status = os.stat(file.local_path)
            hashes = _hash(file.local_path, status)
            _shipped.took_file(file.local_path, status)
        except OSError as error:
            raise InvalidError(f"cannot ship {what}: {file.local_path}: {error.strerror}{_where()}") from error
        mode = 0o755 if status.st_mode & stat.S_IXUSR else 0o644
        one = MountFile(file.remote_path, hashes.sha256, status.st_size, mode, hashes.blocks)
        found[file.remote_path] = one
        parts.update(_parts(file.local_path, one))
        if len(found) > FILES_MAX:
            raise InvalidError(f"cannot ship {what}: more than {FILES_MAX} files; use ignore= to leave some out")
    if not is_size_meant:
        _warn_if_large(found, what)
    made: dict[str, bytes] = {}
    for content in contents:
        sha256 = sha256_hex(content.data)
        found[content.remote_path] = MountFile(content.remote_path, sha256, len(content.data))
        made[sha256] = content.data
    return Mount(MountManifest(tuple(found[path] for path in sorted(found))), parts, made)


def _check_name(path: str, what: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise InvalidError(
            f"cannot ship {what}: the name {shown} is not UTF-8; rename the file, or leave it out with ignore="
        ) from None


def _warn_if_large(found: Mapping[str, MountFile], what: str) -> None:
    """Much of what is shipped by accident is one folder: data, an environment, a history."""
    total = sum(file.size_bytes for file in found.values())
    if total < LARGE_BYTES:
        return
    folders: dict[str, int] = {}
    for path, file in found.items():
        folder = "/".join(path.split("/")[:-1][:2]) or "."
        folders[folder] = folders.get(folder, 0) + file.size_bytes
    biggest = sorted(folders, key=lambda folder: -folders[folder])[:5]
    shown = ", ".join(f"{folder} ({folders[folder] / 2**20:.0f} MiB)" for folder in biggest)
    warnings.warn(
        f"{what} is {total / 2**30:.1f} GiB to be shipped; the biggest folders are {shown}; leave out what is not "
        "needed with ignore=, or a .dockerignore",
        stacklevel=2,
    )


def _where() -> str:
    """What to know where files are missed."""
    if _container.current() is None:
        return ""
    return "; a function that runs an app ships files of its own container: add them to the function's image first"


def _hash(path: str, status: os.stat_result) -> _Hashes:
    key = (path, status.st_ino, status.st_size, status.st_mtime_ns)
    hashes = _hashes.get(key)
    if hashes is None:
        digest, blocks = new_sha256(status.st_size), []
        has_blocks = status.st_size > BLOCK_BYTES
        with open(path, "rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                if has_blocks:
                    blocks.append(sha256_hex(block))
            read_bytes = file.tell()
        if read_bytes != status.st_size:
            raise ServiceError(f"cannot ship {path}: it changed while it was read; run again")
        hashes = _hashes[key] = _Hashes(digest.hexdigest(), tuple(blocks))
    return hashes


def _parts(path: str, file: MountFile) -> Iterator[tuple[str, LocalPart]]:
    for number, sha256 in enumerate(file.blobs):
        offset = number * BLOCK_BYTES
        yield sha256, LocalPart(path, offset, min(BLOCK_BYTES, file.size_bytes - offset))


async def upload(client: Client, mount: Mount) -> str:
    """Register a mount and put what the server lacks; returns its id.

    Raises:
        ServiceError: a file changes, or goes, before it is sent.
    """
    created = await client.request("MountCreate", MountCreate(mount.manifest), MountCreated)
    uploads = _blob.Uploads(client)
    for sha256 in created.missing_sha256s:
        data = mount.contents.get(sha256)
        await uploads.add(sha256, [_read(mount.parts[sha256], sha256) if data is None else data])
    await uploads.finish()
    return created.mount_id


def _read(part: LocalPart, sha256: str) -> bytes:
    """In this thread, loop or not: files are local, and one part is on its way while the next is read."""
    try:
        with open(part.path, "rb") as file:
            file.seek(part.offset)
            data = file.read(part.size_bytes)
    except OSError as error:
        raise ServiceError(
            f"cannot ship {part.path}: {error.strerror}; it was there a moment ago, run again"
        ) from error
    if sha256_hex(data) != sha256:
        raise ServiceError(f"cannot ship {part.path}: it changed while it was read; run again")
    return data
