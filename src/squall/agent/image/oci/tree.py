"""Writes files of strangers into a directory: whatever a path in it says, nothing outside is ever reached.

Every path is resolved by the kernel as if the directory were the root (openat2, RESOLVE_IN_ROOT): links stay inside,
absolute or not, and so does `..`. The last name of a path is never followed at all.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Set
from typing import BinaryIO

from squall.agent.beneath import IN_ROOT, NO_MAGICLINKS, NO_XDEV, open_beneath

_DEPTH_MAX = 200
_COPY_BYTES = 1 << 20
_ZEROS = bytes(_COPY_BYTES)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class UnsafePath(Exception):
    """A path is not one that an image may name; the message says why."""


def names_of(path: str) -> tuple[str, ...]:
    """The names in a path, which counts from the root of the tree in any case.

    Raises:
        UnsafePath: it goes up, or is absurdly deep.
    """
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    if ".." in names or "\0" in path:
        raise UnsafePath(f"{path!r} leads out of the image")
    if len(names) > _DEPTH_MAX:
        raise UnsafePath(f"{path[:80]!r}... is deeper than {_DEPTH_MAX} directories")
    return names


class Tree:
    """A directory whose owner trusts nobody who names paths in it."""

    def __init__(self, root: str) -> None:
        self._root = os.open(root, _DIRECTORY)
        self._cached: tuple[tuple[str, ...], int] | None = None
        # Only root can give files away; anybody else makes them their own.
        self._gives_away = os.geteuid() == 0

    def close(self) -> None:
        """Close what is open."""
        self.forget_directory()
        os.close(self._root)

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open what a path leads to, links followed inside; the caller closes it."""
        return open_beneath(self._root, os.fsencode(path), flags, IN_ROOT | NO_MAGICLINKS | NO_XDEV)

    def directory(self, names: tuple[str, ...], *, is_made: bool) -> int:
        """An open directory, kept open until another one is asked for; missing ones are made if `is_made`."""
        if self._cached is not None:
            if self._cached[0] == names:
                return self._cached[1]
            self.forget_directory()
        try:
            found = self.open("/".join(names), _DIRECTORY)
        except FileNotFoundError:
            if not is_made or not names:
                raise
            self._make_directories(names)
            found = self.open("/".join(names), _DIRECTORY)
        self._cached = (names, found)
        return found

    def link(self, names: tuple[str, ...], parent: int, name: str) -> None:
        """Give the file of these names another name; that file may be a link, but what it leads to is not looked at."""
        with self._opened("/".join(names[:-1])) as source:
            os.link(names[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)

    def inode(self, names: tuple[str, ...]) -> int:
        """Of what is there, not followed."""
        with self._opened("/".join(names[:-1])) as parent:
            return os.stat(names[-1], dir_fd=parent, follow_symlinks=False).st_ino

    def _make_directories(self, names: tuple[str, ...]) -> None:
        for count in range(1, len(names) + 1):
            with self._opened("/".join(names[: count - 1])) as parent, contextlib.suppress(FileExistsError):
                os.mkdir(names[count - 1], 0o755, dir_fd=parent)

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        descriptor = self.open(path, _DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def forget_directory(self) -> None:
        """What was resolved may lead elsewhere now."""
        if self._cached is not None:
            os.close(self._cached[1])
            self._cached = None

    def status(self, parent: int, name: str) -> os.stat_result | None:
        """What has this name in an open directory, not followed."""
        try:
            return os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def make_file(self, parent: int, name: str, content: BinaryIO, size_bytes: int) -> int:
        """A new file under a free name, still open; the caller sets its attributes and closes it.

        Long runs of zeros become holes, so that a small archive cannot fill a disk with nothing.
        """
        descriptor = os.open(
            name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent
        )
        try:
            left = size_bytes
            while left:
                chunk = content.read(min(left, _COPY_BYTES))
                if not chunk:
                    raise UnsafePath(f"{name!r} is cut off: {left} bytes are missing")
                left -= len(chunk)
                if chunk == _ZEROS:
                    os.lseek(descriptor, len(chunk), os.SEEK_CUR)
                    continue
                while chunk:
                    chunk = chunk[os.write(descriptor, chunk) :]
            os.ftruncate(descriptor, size_bytes)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def give(self, descriptor: int, uid: int, gid: int, mode: int) -> None:
        """Set owner and mode; in this order, because a new owner takes the set-user-id bit away."""
        if self._gives_away:
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, mode)

    def give_name(self, parent: int, name: str, uid: int, gid: int) -> None:
        """Set the owner of a link or pipe, which is not opened for it."""
        if self._gives_away:
            os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)

    def remove(self, parent: int, name: str, kept: Set[int] = frozenset()) -> None:
        """Remove a name and what is below it; inodes of `kept` stay, and so do the directories they are in."""
        status = self.status(parent, name)
        if status is None:
            return
        if not stat.S_ISDIR(status.st_mode):
            if status.st_ino not in kept:
                os.unlink(name, dir_fd=parent)
            return
        self.empty(parent, name, kept)
        if status.st_ino not in kept:
            with contextlib.suppress(OSError) if kept else contextlib.nullcontext():
                os.rmdir(name, dir_fd=parent)

    def empty(self, parent: int, name: str, kept: Set[int] = frozenset()) -> None:
        """Remove what is in a directory, but not inodes of `kept`."""
        descriptor = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            if os.fstat(descriptor).st_dev != os.fstat(self._root).st_dev:
                raise UnsafePath(f"{name!r} is a mount point")
            for inner in os.listdir(descriptor):
                self.remove(descriptor, inner, kept)
        finally:
            os.close(descriptor)
