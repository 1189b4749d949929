"""A directory of this machine that files come into, and nothing outside of it, whatever they are called.

Each directory on the way is opened in the one before without following links, and files are made in the opened ones:
neither `..` nor a link that is put in the way meanwhile leads anywhere else. A file is written beside its place under a
name made of its content, and renamed when it is whole. What was cut off is found again by that name; its blocks are
checked, and it goes on behind the last one that is right.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from itertools import chain
from typing import IO

import click

from squall.protocol.volume import BLOCK_BYTES, HOLE, VolumeBlocks, VolumeEntry
from squall.sdk._terminal_text import harmless
from squall.sdk._volume_content import is_hole

PERMISSIONS = 0o777
"""Of a mode that is somebody else's: no set-user-id."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Landing:
    """Use it as a context manager. Directories that were made get their modes and times when it ends without an error:
    before, they can be written."""

    def __init__(self, path: str) -> None:
        """`path` is made, if it is not there.

        Raises:
            OSError: it cannot be opened.
        """
        self.path = path
        os.makedirs(path, exist_ok=True)
        # A link to it is followed: that is the user's.
        self._opened = [("", os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))]
        """The way to where the last thing was put."""
        self._made: list[tuple[Sequence[str], VolumeEntry]] = []

    def __enter__(self) -> Landing:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                for parts, entry in reversed(self._made):
                    _finish(self.folder(parts), entry.mode, entry.mtime_ns)
        finally:
            self._close(0)

    def folder(self, parts: Sequence[str], entry: VolumeEntry | None = None) -> int:
        """The descriptor of a directory, made where it is missing; valid until the next one is asked for.

        Args:
            entry: how it is to be, if it is made.

        Raises:
            click.ClickException: a name is none, or something else has it here.
        """
        for part in parts:
            check_name(part)
        depth = 1
        while depth < len(self._opened) and depth <= len(parts) and self._opened[depth][0] == parts[depth - 1]:
            depth += 1
        self._close(depth)
        for place in range(depth, len(parts)):
            self._open(parts[place - 1], PERMISSIONS)
        if depth <= len(parts):
            is_made = self._open(parts[-1], PERMISSIONS if entry is None else entry.mode & PERMISSIONS | stat.S_IRWXU)
            if is_made and entry is not None:
                self._made.append((parts, entry))
        return self._opened[-1][1]

    def _open(self, name: str, mode: int) -> bool:
        parent = self._opened[-1][1]
        try:
            os.mkdir(name, mode, dir_fd=parent)
            is_made = True
        except FileExistsError:
            is_made = False
        try:
            self._opened.append((name, os.open(name, _FOLDER, dir_fd=parent)))
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            raise click.ClickException(f"{self.shown(name)} is no directory, and one is to come there") from None
        return is_made

    def _close(self, depth: int) -> None:
        while len(self._opened) > depth:
            os.close(self._opened.pop()[1])

    def shown(self, name: str) -> str:
        """A path in the directory that was opened last, for people."""
        parts = [self.path, *(part for part, _ in self._opened[1:]), name]
        text = os.path.normpath(os.path.join(*parts)).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return harmless(text)


def check_name(name: str) -> None:
    """Refuse what is no name of one thing in a directory.

    Raises:
        click.ClickException: it is none.
    """
    try:
        is_name = name not in ("", ".", "..") and "/" not in name and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise click.ClickException(f"the volume has a name that no file can have here: {name!r}")


def is_there(folder: int, name: str, entry: VolumeEntry) -> bool:
    """Whether that very file is there already, as far as size and time tell."""
    found = _look(folder, name)
    return (
        found is not None
        and stat.S_ISREG(found.st_mode)
        and (found.st_size, found.st_mtime_ns) == (entry.size, entry.mtime_ns)
    )


def check_free(folder: int, name: str, shown: str, *, is_forced: bool) -> None:
    """Refuse to replace what is there.

    Raises:
        click.ClickException: it is, and that is not forced; or it is a directory.
    """
    found = _look(folder, name)
    if found is None:
        return
    if stat.S_ISDIR(found.st_mode):
        raise click.ClickException(f"{shown} is a directory, and a file is to come there")
    if not is_forced:
        raise click.ClickException(f"{shown} is there already; --force replaces it")


def put_link(folder: int, name: str, target: str) -> None:
    """Put a symbolic link there, in the place of what is there. It is not followed."""
    new = f".squall-{secrets.token_hex(12)}.part"
    os.symlink(target, new, dir_fd=folder)
    try:
        os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(new, dir_fd=folder)
        raise


def is_same_link(folder: int, name: str, target: str) -> bool:
    """Whether that link is there already."""
    try:
        return os.readlink(name, dir_fd=folder) == target
    except OSError:
        return False


class PartFile:
    """A file on its way."""

    def __init__(self, file: IO[bytes], whole_blocks: int) -> None:
        self._file = file
        self.whole_blocks = whole_blocks
        """So many came before, and are right."""
        self._at = whole_blocks * BLOCK_BYTES
        file.truncate(self._at)
        file.seek(self._at)

    def add(self, data: bytes, size: int) -> None:
        """The next bytes, or so many zeros: a hole."""
        self._at += size
        if data:
            # Unbuffered: it may take a part.
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
        else:
            self._file.truncate(self._at)
            self._file.seek(self._at)


def part_name(page: VolumeBlocks) -> str:
    """What a file of that content is called on its way."""
    content = sha256(f"{page.size} {page.offset} {' '.join(page.blocks)}".encode()).hexdigest()
    return f".squall-{content[:24]}.part"


@contextmanager
def landed(
    folder: int, name: str, entry: VolumeEntry, page: VolumeBlocks, following: Iterable[VolumeBlocks] = ()
) -> Iterator[PartFile]:
    """Write a file: it has its name when the block ends, and what came stays for the next try when that raises.

    Args:
        page: the first of those that say which blocks it has.
        following: the others, which are asked for as far as the file is there already.

    Raises:
        OSError: it cannot be written.
    """
    part = part_name(page)
    fd = _open_part(folder, part)
    if fd is None:
        part = f".squall-{secrets.token_hex(12)}.part"
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with open(fd, "r+b", buffering=0, closefd=False) as file:
            try:
                yield PartFile(file, _right_blocks(fd, chain([page], following)))
                if os.fstat(fd).st_size != entry.size:
                    raise click.ClickException(f"{harmless(name)}: the volume sent another number of bytes than it has")
            except BaseException:
                if page.size <= BLOCK_BYTES:
                    os.unlink(part, dir_fd=folder)
                raise
        _finish(fd, entry.mode, entry.mtime_ns)
        os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(fd)


def _open_part(folder: int, part: str) -> int | None:
    """What was cut off, or a new one; None where another command is at it, or it is something else."""
    try:
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        found, named = os.fstat(fd), _look(folder, part)
        is_ours = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.geteuid()
        # It may have been renamed between the opening and the lock.
        if is_ours and named is not None and (named.st_dev, named.st_ino) == (found.st_dev, found.st_ino):
            return fd
    except BlockingIOError:
        pass
    os.close(fd)
    return None


def _right_blocks(fd: int, pages: Iterable[VolumeBlocks]) -> int:
    """How many whole blocks at the beginning of a file are those that it should have."""
    count, whole = 0, os.fstat(fd).st_size // BLOCK_BYTES
    for page in pages:
        if page.size <= BLOCK_BYTES:
            return 0
        for block in page.blocks:
            if count == whole or not _is_right(fd, count * BLOCK_BYTES, block):
                return count
            count += 1
        if count == whole:
            return count
    return count


def _is_right(fd: int, at: int, block: str) -> bool:
    if block == HOLE and is_hole(fd, at, BLOCK_BYTES):
        return True
    data = os.pread(fd, BLOCK_BYTES, at)
    return data == bytes(len(data)) if block == HOLE else sha256(data).hexdigest() == block


def _look(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _finish(fd: int, mode: int, mtime_ns: int) -> None:
    os.fchmod(fd, mode & PERMISSIONS)
    try:
        os.utime(fd, ns=(mtime_ns, mtime_ns))
    except (OSError, OverflowError):
        return  # a time that this file system does not know
