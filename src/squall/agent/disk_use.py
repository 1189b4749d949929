"""How much of the disk a container has written: read from a tree that its own code may change meanwhile, at any depth.

By descriptors, never by paths: a directory that is exchanged for a link is not followed, and nothing is read through a
mount. What is deleted but still open has no name any more and is found through the processes that hold it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from squall.protocol.function import GVISOR, NAMESPACES

HELD_LEVELS = 64
"""Directories from the top that stay open while those below are read (two descriptors each); deeper ones are left and
found again through `..`, so that no depth costs descriptors."""
DEEP_NAMES_MAX = 10_000
"""Directories in one directory below those levels: their names are kept in memory."""
ASK_EVERY = 1_024
"""Files between two questions whether to go on."""
OPEN_FILES_MAX = 20_000
"""Descriptors of one container that are looked at."""
BLOCK_BYTES = 512
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class DiskUse:
    """What is on the disk. A tree that was too much to be read to its end has at least that."""

    space_bytes: int = 0
    inodes: int = 0
    is_whole: bool = True

    def plus(self, other: DiskUse) -> DiskUse:
        """Both together; whole if both are."""
        is_whole = self.is_whole and other.is_whole
        return DiskUse(self.space_bytes + other.space_bytes, self.inodes + other.inodes, is_whole)


class _Cut(Exception):
    """It is not, or cannot be, read to its end."""


def tree_use(path: str, may_go_on: Callable[[DiskUse], bool]) -> DiskUse:
    """What the directory and all below it on its file system take; a directory that is absent takes nothing.

    Blocks, as long as the tree is large. `may_go_on` is asked at each directory, and now and then in a large one, with
    what has been found so far.

    Returns:
        Not whole when `may_go_on` said no, or the tree was changed so that it could not be followed.
    """
    try:
        top = os.open(path, _OPEN)
    except (FileNotFoundError, NotADirectoryError):
        return DiskUse()
    walk = _Walk(top, may_go_on)
    try:
        walk.run(top)
    except _Cut:
        return walk.use(is_whole=False)
    finally:
        walk.close()
    return walk.use(is_whole=True)


class _Level:
    """One directory on the way down."""

    def __init__(self, fd: int, status: os.stat_result, names: Iterator[str], *, is_held: bool) -> None:
        self.fd = fd
        """-1: left, to be found again."""
        self.identity = (status.st_dev, status.st_ino)
        self.names = names
        """Directories in it that have not been entered."""
        self.is_held = is_held


class _Walk:
    """Depth first, without recursion."""

    def __init__(self, top: int, may_go_on: Callable[[DiskUse], bool]) -> None:
        self._device = os.fstat(top).st_dev
        self._may_go_on = may_go_on
        self._levels: list[_Level] = []
        self._bytes = 0.0
        self._inodes = 0.0
        self._unasked = 0

    def use(self, *, is_whole: bool) -> DiskUse:
        return DiskUse(int(self._bytes), round(self._inodes), is_whole)

    def close(self) -> None:
        for level in self._levels:
            level.names = iter(())
            if level.fd >= 0:
                os.close(level.fd)
        self._levels.clear()

    def run(self, top: int) -> None:
        self._enter(top)
        while self._levels:
            level = self._levels[-1]
            name = next(level.names, None)
            if name is None:
                self._leave()
                continue
            try:
                fd = os.open(name, _OPEN, dir_fd=level.fd)
            except OSError:
                continue  # deleted meanwhile, or no directory any more
            if os.fstat(fd).st_dev != self._device:
                os.close(fd)
                continue
            if not level.is_held:
                os.close(level.fd)
                level.fd = -1
            self._enter(fd)

    def _enter(self, fd: int) -> None:
        status = os.fstat(fd)
        is_held = len(self._levels) < HELD_LEVELS
        level = _Level(fd, status, iter(()), is_held=is_held)
        self._levels.append(level)
        self._count(status)
        self._ask()
        names = self._read(fd)
        if is_held:
            level.names = names
        else:
            deep = list(islice(names, DEEP_NAMES_MAX + 1))
            if len(deep) > DEEP_NAMES_MAX:
                raise _Cut
            level.names = iter(deep)

    def _leave(self) -> None:
        left = self._levels.pop()
        if self._levels and self._levels[-1].fd < 0:
            above = self._levels[-1]
            above.fd = os.open("..", _OPEN, dir_fd=left.fd)
            status = os.fstat(above.fd)
            if (status.st_dev, status.st_ino) != above.identity:
                os.close(left.fd)
                raise _Cut  # it was moved while it was read
        os.close(left.fd)

    def _read(self, fd: int) -> Iterator[str]:
        """Count what is in a directory and name the directories; read no further than asked."""
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue  # deleted meanwhile
                if stat.S_ISDIR(status.st_mode):
                    yield entry.name  # counted when it is entered
                else:
                    self._count(status)
                    self._unasked += 1
                    if self._unasked >= ASK_EVERY:
                        self._ask()

    def _ask(self) -> None:
        self._unasked = 0
        if not self._may_go_on(self.use(is_whole=False)):
            raise _Cut

    def _count(self, status: os.stat_result) -> None:
        # All names of a file are in this tree, and each is met once: no memory of those seen is needed.
        names = 1 if stat.S_ISDIR(status.st_mode) else max(1, status.st_nlink)
        self._bytes += status.st_blocks * BLOCK_BYTES / names
        self._inodes += 1 / names


def deleted_use(pid: int, folders: Sequence[str] = (), isolation: str = NAMESPACES, proc: str = "/proc") -> DiskUse:
    """What files without a name take that processes of a container hold open, `pid` being its first process.

    Files of its root file system and of those the folders are in: what is in its memory is counted as memory. A process
    that ends meanwhile has nothing open.
    """
    found: dict[tuple[int, int], int] = {}
    try:
        device = os.stat(f"{proc}/{pid}/root").st_dev
        if device == os.stat(f"{proc}/self/root").st_dev:
            return DiskUse()  # the number is another process's by now
        devices = {device, *(os.stat(folder).st_dev for folder in folders if os.path.isdir(folder))}
        if isolation == GVISOR:
            # The first process is runsc, and the container's files are at /root of what it sees.
            devices.add(os.lstat(f"{proc}/{pid}/root/root").st_dev)
        processes = [name for name in os.listdir(f"{proc}/{pid}/root/proc") if name.isdigit()]
    except OSError:
        return DiskUse()
    seen = 0
    for name in processes:
        for status in _open_files(f"{proc}/{pid}/root/proc/{name}/fd"):
            seen += 1
            if status.st_nlink == 0 and status.st_dev in devices and stat.S_ISREG(status.st_mode):
                found[status.st_dev, status.st_ino] = status.st_blocks * BLOCK_BYTES
        if seen > OPEN_FILES_MAX:
            break
    return DiskUse(sum(found.values()), len(found), seen <= OPEN_FILES_MAX)


def _open_files(folder: str) -> Iterator[os.stat_result]:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names[: OPEN_FILES_MAX + 1]:
        try:
            yield os.stat(f"{folder}/{name}")
        except OSError:
            continue  # closed meanwhile
