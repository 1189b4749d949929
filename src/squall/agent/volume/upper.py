"""What a container has written on a version of a volume, read from outside: the upper of an overlay, in its own marks.

    nothing there, and a device 0:0     removed
    a directory marked opaque           new, or in the place of something else
    a directory marked with a redirect  that of the version's at another path; what is not in the upper came along
    a file marked metacopy              the content of the version's, at its own path or that of its redirect
    anything else                       as it is

The container may change all of it at any moment. So nothing is found by a path that it could put a link into:
directories and files are opened beneath the upper, and what is found there by then has to be what was listed.

Reading is told what was read before, so that it says what has changed since; what was there then and is gone now has no
mark of its own where the version never had it. A directory that is gone takes only that along which this container
knew of: what others have put into it stays.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field

from squall.agent.beneath import open_beneath
from squall.protocol import volume as wire
from squall.protocol.errors import EXHAUSTED, PlatformError
from squall.protocol.volume import DEPTH_MAX, DIRECTORY, FILE_BYTES_MAX, PATH_BYTES_MAX, RESERVED, SYMLINK, VolumeChange

_OPAQUE, _REDIRECT = "trusted.overlay.opaque", "trusted.overlay.redirect"
_METACOPY = "trusted.overlay.metacopy"
_NOBODY = 65_534
_OTHER_NOW = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENXIO, errno.ENODEV)
"""What says that at a path is something else than was listed there."""
ENTRIES_MAX = 2_000_000
"""Of what a container has written on one version: all of it is in the agent's memory while it is looked at."""
REMOVALS = (wire.REMOVE, wire.REMOVE_SEEN, wire.REMOVE_EMPTY)
_MARK_BLOCKS = 8
"""Of 512 bytes: what marks may take by themselves."""

FIELDS = 7
Fingerprint = tuple[int | str, ...]

"""Of whatever is at a path; two that are equal are of one state. Of a directory the last one says what is below it."""
_MERGED, _OPAQUE_NOW = 0, 1
"""What of the version is below a directory that was not moved: what that has at its path, or nothing."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file whose content is in the upper."""

    path: str
    local: bytes
    """Its path in the upper."""
    change: VolumeChange
    """What puts it, but for its blocks."""
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class _Directory:
    """One that is still to be read."""

    local: bytes
    path: str
    lower: str | None
    """That of the version's directory below it, if there is one."""
    inode: int | None


@dataclass(slots=True)
class Reading:
    """What an upper says."""

    changes: list[VolumeChange] = field(default_factory=list)
    """In order: what was taken away, directories, links, and files whose content is in the version."""
    files: list[WrittenFile] = field(default_factory=list)
    seen: dict[str, Fingerprint] = field(default_factory=dict)
    """Everything there is, by path: what the next reading is told."""
    skipped: list[str] = field(default_factory=list)
    """What no version has: pipes, sockets and devices, what is too deep, and files that are too large."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing has changed."""
        return not (self.changes or self.files)


def read_upper(upper: str, first_id: int, known: Mapping[str, Fingerprint]) -> Reading:
    """What has changed in an upper since it was read last. Blocks.

    Args:
        first_id: that the container's id 0 is mapped to.
        known: `seen` of the reading before, as far as that was committed.

    Raises:
        PlatformError: `exhausted`, where that is too much.
        OSError: it cannot be read.
    """
    reading = Reading()
    if not os.path.isdir(upper):
        # It was never made, or its disk is away: that nothing is there says nothing of what was.
        reading.seen = dict(known)
        return reading
    top = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _Reader(top, reading, first_id, known).read()
    finally:
        os.close(top)
    # What is in a directory comes before it.
    gone = sorted(known.keys() - reading.seen.keys(), reverse=True)
    removed = [change for path in gone if (change := _end_of(path, known[path])) is not None]
    reading.changes = removed + reading.changes
    return reading


def are_directories_as_read(upper: str, reading: Reading) -> bool:
    """Whether nothing came, went or was renamed since. Else what seems to be gone may be where it was not looked any
    more."""
    for path, fingerprint in reading.seen.items():
        if len(fingerprint) > FIELDS and not _is_at(os.path.join(upper, path), fingerprint):
            return False
    return True


def _is_at(path: str, fingerprint: Fingerprint) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return (status.st_ino, status.st_mtime_ns) == (fingerprint[0], fingerprint[5])


def hold_back_removals(reading: Reading, known: Mapping[str, Fingerprint]) -> None:
    """Have what takes something away found again by the next reading, and not by this one."""
    held = [wire.from_wire(change.path) for change in reading.changes if change.action in REMOVALS]
    reading.changes = [change for change in reading.changes if change.action not in REMOVALS]
    for path in held:
        reading.seen.pop(path, None)
    reading.seen |= {path: one for path, one in known.items() if path not in reading.seen}


def _end_of(path: str, known: Fingerprint) -> VolumeChange | None:
    """What takes away at a path what was known there."""
    mode, below = known[1], known[-1]
    assert isinstance(mode, int)
    if stat.S_ISCHR(mode):
        return None  # nothing was there already
    if not stat.S_ISDIR(mode):
        return VolumeChange(wire.to_wire(path), wire.REMOVE)
    if isinstance(below, str):
        return VolumeChange(wire.to_wire(path), wire.REMOVE_SEEN, target=wire.to_wire(below))
    return VolumeChange(wire.to_wire(path), wire.REMOVE_EMPTY)


class TooManyWritten(PlatformError):
    """More than can be looked at was written on one version: no commit ever has it."""


class _Reader:
    def __init__(self, top: int, reading: Reading, first_id: int, known: Mapping[str, Fingerprint]) -> None:
        self._top = top
        self._reading = reading
        self._first_id = first_id
        self._known = known
        self._to_read: list[_Directory] = []

    def read(self) -> None:
        """All directories, each before what is in it."""
        self._to_read.append(_Directory(b"", "", "", None))
        while self._to_read:
            directory = self._to_read.pop()
            try:
                fd = open_beneath(self._top, directory.local, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno not in _OTHER_NOW:
                    raise
                self._leave(directory)
                continue
            try:
                if directory.inode in (None, os.fstat(fd).st_ino):
                    self._read_one(fd, directory)
                else:
                    self._leave(directory)
            finally:
                os.close(fd)
            _check_count(len(self._reading.seen))

    def _leave(self, directory: _Directory) -> None:
        """Something else is there by now: what it is, the next reading finds."""
        below = f"{directory.path}/"
        self._reading.seen |= {path: one for path, one in self._known.items() if path.startswith(below)}

    def _read_one(self, fd: int, directory: _Directory) -> None:
        path, lower = directory.path, directory.lower
        for name, status in _entries(fd):
            here = f"{path}/{name}" if path else name
            kind, fingerprint = stat.S_IFMT(status.st_mode), _fingerprint(status)
            known = self._known.get(here)
            if known == fingerprint:
                # Most of it, most of the time. A directory's has one number more.
                self._reading.seen[here] = known
                continue
            if not _fits(here):
                self._reading.skipped.append(here)
                continue
            local = os.path.join(b"/proc/self/fd", b"%d" % fd, os.fsencode(name))
            below = None if lower is None else f"{lower}/{name}".lstrip("/")
            if kind == stat.S_IFDIR:
                self._reading.seen[here] = self._directory(here, local, status, lower, below)
                continue
            self._no_directory(here, known, None if kind == stat.S_IFCHR else below)
            if kind == stat.S_IFREG:
                self._file(here, local, status, lower, below)
            elif kind == stat.S_IFLNK:
                target = _text(os.readlink(os.fsencode(name), dir_fd=fd))
                change = self._change(here, status, SYMLINK, target=wire.to_wire(target))
                self._reading.changes.append(change)
            elif kind == stat.S_IFCHR and status.st_rdev == 0:
                self._remove_seen(here, below)
            else:
                self._reading.skipped.append(here)
                continue
            self._reading.seen[here] = fingerprint

    def _directory(
        self, here: str, local: bytes, status: os.stat_result, lower: str | None, below: str | None
    ) -> Fingerprint:
        is_opaque = _mark(local, _OPAQUE) == b"y"
        redirect = None if is_opaque else _mark(local, _REDIRECT)
        if redirect is not None:
            below = _redirected(redirect, lower)
        # Numbers of inodes are given again: another directory has something else below it, or nothing to be told by.
        what_below: int | str = _OPAQUE_NOW if is_opaque else _MERGED
        if redirect is not None and below is not None:
            what_below = below
        fingerprint = (*_fingerprint(status), what_below)
        known = self._known.get(here)
        if known != fingerprint:
            if known is None or (known[0], known[-1]) != (status.st_ino, what_below):
                self._another_directory(here, known, what_below, lower)
            self._reading.changes.append(self._change(here, status, DIRECTORY))
        self._to_read.append(_Directory(os.fsencode(here), here, None if is_opaque else below, status.st_ino))
        return fingerprint

    def _no_directory(self, here: str, known: Fingerprint | None, below: str | None) -> None:
        """What is there now is none: one that came from elsewhere in the version, by itself or in another one, goes."""
        if known is not None:
            mode, was_below = known[1], known[-1]
            assert isinstance(mode, int)
            if not stat.S_ISDIR(mode):
                return
            if isinstance(was_below, str):
                self._remove_seen(here, was_below)
        if below != here:
            self._remove_seen(here, below)

    def _another_directory(
        self, here: str, known: Fingerprint | None, what_below: int | str, lower: str | None
    ) -> None:
        """A directory is there that was not: what was below goes, and what is below now comes."""
        is_hidden = False
        if known is not None:
            mode, was_below = known[1], known[-1]
            assert isinstance(mode, int)
            is_directory = stat.S_ISDIR(mode)
            is_hidden = stat.S_ISCHR(mode) or (is_directory and was_below == _OPAQUE_NOW)
            if is_directory and isinstance(was_below, str):
                self._remove_seen(here, was_below)
        if what_below != _MERGED and not is_hidden:
            self._remove_seen(here, _beside(lower, here))
        if isinstance(what_below, str):
            change = VolumeChange(wire.to_wire(here), wire.COPY, target=wire.to_wire(what_below))
            self._reading.changes.append(change)

    def _remove_seen(self, here: str, below: str | None) -> None:
        """What the version has at `below` is not at this path any more. None: it never had anything there."""
        if below is not None:
            target = "" if below == here else wire.to_wire(below)
            self._reading.changes.append(VolumeChange(wire.to_wire(here), wire.REMOVE_SEEN, target=target))

    def _file(self, here: str, local: bytes, status: os.stat_result, lower: str | None, below: str | None) -> None:
        may_be_bare = status.st_blocks <= _MARK_BLOCKS or status.st_blocks * 512 < status.st_size
        if may_be_bare and _mark(local, _METACOPY) is not None:
            redirect = _mark(local, _REDIRECT)
            source = below if redirect is None else _redirected(redirect, lower)
            if source is not None:
                change = self._change(here, status, wire.FILE, action=wire.TOUCH, target=wire.to_wire(source))
                self._reading.changes.append(change)
                return
        if status.st_size > FILE_BYTES_MAX:
            self._reading.skipped.append(here)
            return
        change = self._change(here, status, wire.FILE, size=status.st_size)
        self._reading.files.append(WrittenFile(here, os.fsencode(here), change, _fingerprint(status)))

    def _change(
        self,
        path: str,
        status: os.stat_result,
        kind: str,
        *,
        action: str = wire.PUT,
        size: int = 0,
        target: str = "",
    ) -> VolumeChange:
        return VolumeChange(
            wire.to_wire(path),
            action,
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_mtime_ns,
            size,
            self._inside(status.st_uid),
            self._inside(status.st_gid),
            target=target,
        )

    def _inside(self, number: int) -> int:
        inside = number - self._first_id
        return inside if 0 <= inside < 65_536 else _NOBODY


def _check_count(count: int) -> None:
    if count > ENTRIES_MAX:
        message = f"more than {ENTRIES_MAX:,} files and directories were written on one version of a volume"
        raise TooManyWritten(EXHAUSTED, f"{message}; reload it before there are so many, or write fewer")


def _fits(path: str) -> bool:
    """Whether a version can have it."""
    is_ours = path.partition("/")[0] == RESERVED
    return not is_ours and path.count("/") < DEPTH_MAX and len(os.fsencode(path)) < PATH_BYTES_MAX


def _beside(lower: str | None, here: str) -> str | None:
    return None if lower is None else f"{lower}/{here.rpartition('/')[2]}".lstrip("/")


def _entries(directory: int) -> list[tuple[str, os.stat_result]]:
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            # What was removed meanwhile is not there.
            with contextlib.suppress(FileNotFoundError):
                found.append((entry.name, entry.stat(follow_symlinks=False)))
            _check_count(len(found))
    found.sort(key=lambda one: one[0])
    return found


def open_written(upper: str, file: WrittenFile) -> int:
    """Open a file of an upper for reading; the caller closes it.

    Raises:
        FileNotFoundError: it is not there any more, or something else is.
    """
    top = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Something that waits for whoever opens it may be there by now.
        fd = open_beneath(top, file.local, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in _OTHER_NOW:
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file.path) from error
    finally:
        os.close(top)
    status = os.fstat(fd)
    if stat.S_ISREG(status.st_mode) and status.st_ino == file.fingerprint[0]:
        return fd
    os.close(fd)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), file.path)


def is_unchanged(upper: str, file: WrittenFile) -> bool:
    """Whether a file is as it was read."""
    try:
        fd = open_written(upper, file)
    except FileNotFoundError:
        return False
    try:
        return _fingerprint(os.fstat(fd)) == file.fingerprint
    finally:
        os.close(fd)


def _fingerprint(status: os.stat_result) -> Fingerprint:
    return (
        status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns,
        0 if stat.S_ISDIR(status.st_mode) else status.st_ctime_ns,
    )  # fmt: skip


def of_open(fingerprint: Fingerprint) -> Fingerprint:
    """Of a file that was open for writing when it was read: what is stored to mapped memory changes no time, so it is
    never taken for what it was."""
    return (*fingerprint[:-1], -1)


def is_fingerprint(told: object) -> bool:
    """Whether what was written down of a path is one."""
    if not isinstance(told, (list, tuple)) or len(told) not in (FIELDS, FIELDS + 1):
        return False
    return all(isinstance(one, int) for one in told[:FIELDS]) and isinstance(told[-1], (int, str))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _mark(path: bytes, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return None


def _redirected(redirect: bytes, lower: str | None) -> str | None:
    """A path of the version's: from its top, or a name beside."""
    text = _text(redirect)
    if text.startswith("/"):
        return text[1:]
    return None if lower is None else f"{lower}/{text}".lstrip("/")
