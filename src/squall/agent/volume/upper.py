"""What a container has written on a version of a volume, read from outside: the upper of an overlay, in its own marks.

    nothing there, and a device 0:0     removed
    a directory marked opaque           new, or in the place of something else
    a directory marked with a redirect  that of the version's at another path; what is not in the upper came along
    a file marked metacopy              the content of the version's, at its own path or that of its redirect
    anything else                       as it is

Reading is told what was read before, so that it says what has changed since; what was there then and is gone now has no
mark of its own where the version never had it.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from squall.protocol import volume as wire
from squall.protocol.volume import DIRECTORY, SYMLINK, VolumeChange

_OPAQUE, _REDIRECT = "trusted.overlay.opaque", "trusted.overlay.redirect"
_METACOPY = "trusted.overlay.metacopy"
_NOBODY = 65_534
_MARK_BLOCKS = 8
"""Of 512 bytes: what marks may take by themselves."""

Fingerprint = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file whose content is in the upper."""

    path: str
    local: bytes
    change: VolumeChange
    """What puts it, but for its blocks."""
    fingerprint: Fingerprint


@dataclass(slots=True)
class Reading:
    """What an upper says."""

    changes: list[VolumeChange] = field(default_factory=list)
    """In order: what was taken away, directories, links, and files whose content is in the version."""
    files: list[WrittenFile] = field(default_factory=list)
    seen: dict[str, Fingerprint] = field(default_factory=dict)
    """Everything there is, by path: what the next reading is told."""
    skipped: list[str] = field(default_factory=list)
    """Pipes, sockets and devices, which no version has."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing has changed."""
        return not (self.changes or self.files)


def read_upper(upper: str, first_id: int, known: Mapping[str, Fingerprint]) -> Reading:
    """What has changed in an upper since it was read last. Blocks.

    Args:
        first_id: that the container's id 0 is mapped to.
        known: `seen` of the reading before, as far as that was committed.
    """
    reading = Reading()
    if not os.path.isdir(upper):
        # It was never made, or its disk is away: that nothing is there says nothing of what was.
        reading.seen = dict(known)
        return reading
    reader = _Reader(reading, first_id, known)
    reader.read(os.fsencode(upper), "", "")
    gone = sorted(known.keys() - reading.seen.keys())
    last, removed = None, []
    for path in gone:
        # What was in a directory that is gone went with it.
        if last is None or not path.startswith(f"{last}/"):
            removed.append(VolumeChange(wire.to_wire(path), wire.REMOVE))
            last = path
    reading.changes = removed + reading.changes
    return reading


class _Reader:
    def __init__(self, reading: Reading, first_id: int, known: Mapping[str, Fingerprint]) -> None:
        self._reading = reading
        self._first_id = first_id
        self._known = known

    def read(self, directory: bytes, path: str, lower: str | None) -> None:
        """One directory: where it is, its path, and that of the version's directory below it, if there is one."""
        for name, local, status in _entries(directory):
            here = f"{path}/{name}" if path else name
            below = None if lower is None else f"{lower}/{name}".lstrip("/")
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFDIR:
                self._reading.seen[here] = self._directory(here, local, status, lower, below)
                continue
            fingerprint = _fingerprint(status)
            is_new = self._known.get(here) != fingerprint
            if kind == stat.S_IFREG:
                self._file(here, local, status, lower, below, is_new=is_new)
            elif kind == stat.S_IFLNK:
                if is_new:
                    target = _text(os.readlink(local))
                    change = self._change(here, status, SYMLINK, target=wire.to_wire(target))
                    self._reading.changes.append(change)
            elif kind == stat.S_IFCHR and status.st_rdev == 0:
                if is_new:
                    self._reading.changes.append(_removal(here, below))
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
        # Numbers of inodes are given again: another directory has other marks, or nothing to be told apart by.
        origin = zlib.crc32(redirect) if redirect is not None else -1 - is_opaque
        fingerprint = (*_fingerprint(status), origin)
        known = self._known.get(here)
        if known != fingerprint:
            is_another = known is None or (known[0], known[-1]) != (status.st_ino, origin)
            if known is not None and is_another:
                self._reading.changes.append(VolumeChange(wire.to_wire(here), wire.REMOVE))
            elif is_another and is_opaque:
                self._reading.changes.append(_removal(here, _beside(lower, here)))
            if is_another and redirect is not None and below is not None:
                self._reading.changes.append(VolumeChange(wire.to_wire(here), wire.COPY, target=wire.to_wire(below)))
            self._reading.changes.append(self._change(here, status, DIRECTORY))
        self.read(local, here, None if is_opaque else below)
        return fingerprint

    def _file(
        self, here: str, local: bytes, status: os.stat_result, lower: str | None, below: str | None, *, is_new: bool
    ) -> None:
        if not is_new:
            return
        may_be_bare = status.st_blocks <= _MARK_BLOCKS or status.st_blocks * 512 < status.st_size
        if may_be_bare and _mark(local, _METACOPY) is not None:
            redirect = _mark(local, _REDIRECT)
            source = below if redirect is None else _redirected(redirect, lower)
            if source is not None:
                change = self._change(here, status, wire.FILE, action=wire.TOUCH, target=wire.to_wire(source))
                self._reading.changes.append(change)
                return
        change = self._change(here, status, wire.FILE, size=status.st_size)
        self._reading.files.append(WrittenFile(here, local, change, _fingerprint(status)))

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


def _removal(here: str, below: str | None) -> VolumeChange:
    """Of what the version has at this path. Below a directory that came from elsewhere it has that somewhere else."""
    return VolumeChange(wire.to_wire(here), wire.REMOVE_SEEN if below == here else wire.REMOVE)


def _beside(lower: str | None, here: str) -> str | None:
    return None if lower is None else f"{lower}/{here.rpartition('/')[2]}".lstrip("/")


def _entries(directory: bytes) -> Iterator[tuple[str, bytes, os.stat_result]]:
    with os.scandir(directory) as found:
        entries = [(entry.name, entry.path, entry.stat(follow_symlinks=False)) for entry in found]
    for name, local, status in sorted(entries, key=lambda one: one[0]):
        yield _text(name), local, status


def fingerprint_of(path: bytes) -> Fingerprint | None:
    """Of a file as it is now; None when it is gone."""
    try:
        return _fingerprint(os.lstat(path))
    except OSError:
        return None


def _fingerprint(status: os.stat_result) -> Fingerprint:
    return (
        status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns,
        0 if stat.S_ISDIR(status.st_mode) else status.st_ctime_ns,
    )  # fmt: skip


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
