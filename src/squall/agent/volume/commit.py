"""One commit of what a container has written to a volume: read, put into the blob store, made a version.

A commit that is asked for freezes the container while it captures. Little is read at once, and kept on the disk; it is
put when the container goes on. Of more, most is read, hashed and put while the container runs, and what it has changed
meanwhile, or has open for writing, is read again while it is frozen a second time. Nobody asked for those in the
background: they freeze nothing, and leave what is open for writing to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import hashlib
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from squall.agent.volume.aside import aside, together
from squall.agent.volume.note import Note
from squall.agent.volume.sink import Blocks, Sink, SpoolSink, StoreSink
from squall.agent.volume.upper import (
    REMOVALS,
    Fingerprint,
    Reading,
    WrittenFile,
    are_directories_as_read,
    hold_back_removals,
    is_unchanged,
    of_open,
    open_written,
    read_upper,
)
from squall.protocol import volume as wire
from squall.protocol.errors import CONFLICT, PlatformError
from squall.protocol.ids import new_id
from squall.protocol.records import replace
from squall.protocol.volume import (
    BLOCK_BYTES,
    COMMIT_CHANGES_MAX,
    HOLE,
    VolumeChange,
    VolumeCommit,
    VolumeCommitted,
    VolumeVersion,
)

R = TypeVar("R")

PACKED_BYTES_MAX = 256 * 1024
"""Files up to this size share blocks."""
PUTS_MAX = 3
"""Blocks on their way at once."""
BLOCKS_AT_ONCE = 256
"""Of a file, that somebody waits for: a program can make it as large as it likes by saying so."""
FROZEN_BYTES_MAX = 32 * 2**20
"""What is read of a container at once while it is frozen; of more, most is read before."""
NOTHING, OPEN, CHANGED = "nothing", "open", "changed"
RESTARTS_MAX = 5
TRIES_MAX = 3
"""Of a commit whose blocks go from the store while it is made."""
SAID_MAX = 10
"""Paths that are named of those that no version can have."""
SKIPPED_WHY = "volumes have files, directories and symbolic links, not as deep and not as large as this is"

_log = logging.getLogger("squall.agent.volume.commit")


class BlockStore(Blocks, Protocol):
    """Where blocks and commits go."""

    async def commit(self, record: VolumeCommit) -> VolumeCommitted:
        """Send a page of a commit."""

    def pages(self, changes: Sequence[VolumeChange]) -> list[tuple[VolumeChange, ...]]:
        """Changes as they fit into pages."""


@dataclass(slots=True)
class Written:
    """What a container writes on one version of a volume."""

    volume_id: str
    upper: str
    first_id: int
    version: int
    container_id: str = ""
    """As the history shows who wrote it."""
    target: str = ""
    """Where the container has it."""
    committed: dict[str, Fingerprint] = field(default_factory=dict)
    """What has been in a commit, as it was then."""
    is_closed: bool = False
    """It may be removed, and is not read any more: what is missing would be taken for what a program removed."""
    skipped: set[str] = field(default_factory=set)
    """Paths that no version can have, as was said."""
    too_long: dict[str, Fingerprint] = field(default_factory=dict)
    """Files with more content than a version can have, as they were when that was found: nobody reads them again."""
    note: Note | None = None
    """Where `committed` is written down."""
    refused_count: int = 0
    """Commits, one after the other, that were refused, and not because nobody was there to ask."""
    is_too_much: bool = False
    """No commit will ever have it."""
    unsteady_count: int = 0
    """Commits, one after the other, that said nothing of what was gone."""
    walk_s: float = 0.0
    """How long the last look at all of it took."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def close(self) -> None:
        """Wait for whoever reads it, and let nobody begin."""
        async with self.lock:
            self.is_closed = True


class Committer:
    """Commits."""

    def __init__(self, store: BlockStore, executor: Executor, spool_dir: Path) -> None:
        self._store = store
        self._executor = executor
        self._spool_dir = spool_dir
        self._puts = asyncio.Semaphore(PUTS_MAX)

    async def commit(
        self,
        written: Written,
        cause: str,
        *,
        freeze: Callable[[], Any] | None = None,
        is_patient: bool = False,
    ) -> VolumeVersion | None:
        """Make what was written a version; None when nothing has changed.

        Args:
            freeze: gives an async context manager in which the container does nothing.
            is_patient: leave out what is open for writing.

        Raises:
            PlatformError: the server cannot be reached, refuses, or has no room. Nothing is lost: the next one is told.
        """
        async with written.lock:
            if written.is_closed:
                return None
            for _ in range(TRIES_MAX):
                try:
                    return await self._try(written, cause, freeze, is_patient=is_patient)
                except _BlocksGone as error:
                    gone = error
                    _log.warning("%s: %s", written.container_id, error)
        hint = "commit again; if that does not help, look at the server's disk and its SQUALL_BLOB_BYTES_MAX"
        raise PlatformError(CONFLICT, f"cannot commit volume {written.volume_id}: {gone}; {hint}")

    async def _try(
        self, written: Written, cause: str, freeze: Callable[[], Any] | None, *, is_patient: bool
    ) -> VolumeVersion | None:
        """
        Raises:
            _BlocksGone: another try asks of all blocks whether they are there, and puts what is not.
        """
        store = StoreSink(self._store)
        if freeze is not None:
            written.unsteady_count = 0
            return await self._commit_frozen(written, cause, freeze, store, is_patient=is_patient)
        captured = await self._capture(written, {}, store, is_patient=is_patient)
        if is_patient:
            await self._doubt_removals(written, captured.reading)
        return await self._send(written, cause, captured)

    async def _commit_frozen(
        self, written: Written, cause: str, freeze: Callable[[], Any], store: StoreSink, *, is_patient: bool
    ) -> VolumeVersion | None:
        ahead: dict[str, _File] = {}
        with tempfile.TemporaryFile(dir=self._spool_dir) as file:
            spool = SpoolSink(file.fileno(), self._store, store.stored, self._executor)
            for has_limit in (True, False):
                async with freeze():
                    reading = await self._read(written)
                    is_little = sum(one.change.size for one in reading.files) <= FROZEN_BYTES_MAX
                    if is_little or not has_limit:
                        captured = await self._capture(written, ahead, spool, is_patient=is_patient, reading=reading)
                        break
                # Most of it is done while it runs.
                before = await self._capture(written, {}, store, is_patient=False)
                ahead = {one.path: one for one in before.files}
            await spool.put_all()
            return await self._send(written, cause, captured)

    async def _doubt_removals(self, written: Written, reading: Reading) -> None:
        """What runs on may have renamed something to where it was not looked any more: that it is gone is not said
        then."""
        has_removals = any(change.action in REMOVALS for change in reading.changes)
        if not has_removals or await self._aside(lambda: are_directories_as_read(written.upper, reading)):
            written.unsteady_count = 0
            return
        hold_back_removals(reading, written.committed)
        written.unsteady_count += 1

    async def look(self, written: Written) -> str:
        """What there is that no commit has: `NOTHING`, only what is open for writing (`OPEN`), or more (`CHANGED`)."""
        async with written.lock:
            upper, reading = written.upper, await self._read(written)
            if reading.is_empty:
                return NOTHING
            open_now = await self._aside(lambda: _open_for_writing(upper, reading.files))
            return OPEN if not reading.changes and len(open_now) == len(reading.files) else CHANGED

    async def _capture(
        self,
        written: Written,
        ahead: dict[str, _File],
        sink: Sink,
        *,
        is_patient: bool,
        reading: Reading | None = None,
    ) -> _Captured:
        upper = written.upper
        if reading is None:
            reading = await self._read(written)
        pack, captured = _Pack(), _Captured(upper, reading, sink)
        captured.open = await self._aside(lambda: _open_for_writing(upper, reading.files))
        for file in reading.files:
            known = ahead.get(file.path)
            is_open = file.path in captured.open
            if is_patient and is_open:
                captured.left.append(file.path)
            elif known is not None and known.fingerprint == file.fingerprint and not is_open:
                captured.files.append(known)
            elif is_open or written.too_long.get(file.path) != file.fingerprint:
                try:
                    await self._take(file, pack, captured)
                except FileNotFoundError:
                    # Removed since it was read; the next one is told.
                    captured.left.append(file.path)
                except _TooLong:
                    # It counts as told: all else of the volume would wait for it, for ever.
                    _say_too_long(written, file)
        await self._close(pack, captured)
        await self._leave_changed(captured, is_patient=is_patient)
        return captured

    async def _read(self, written: Written) -> Reading:
        began_s = time.monotonic()
        reading = await self._aside(lambda: read_upper(written.upper, written.first_id, written.committed))
        written.walk_s = time.monotonic() - began_s
        _say_skipped(written, reading)
        return reading

    async def _leave_changed(self, captured: _Captured, *, is_patient: bool) -> None:
        """What was written to while it was read may be torn: it is for the next commit. Of a container that is frozen,
        or has ended, nothing is."""
        upper, taken = captured.upper, {one.path for one in captured.files}
        files = [one for one in captured.reading.files if one.path in taken]

        def same() -> set[str]:
            unchanged = {one.path for one in files if is_unchanged(upper, one)}
            return unchanged - _open_for_writing(upper, files) if is_patient else unchanged

        right = await self._aside(same)
        captured.left += [one.path for one in captured.files if one.path not in right]
        captured.files = [one for one in captured.files if one.path in right]

    async def _take(self, file: WrittenFile, pack: _Pack, captured: _Captured) -> None:
        size = file.change.size
        if size <= PACKED_BYTES_MAX:
            data = await self._aside(lambda: _read_all(captured.upper, file))
            if len(pack.data) + len(data) > BLOCK_BYTES:
                await self._close(pack, captured)
            pack.files.append((file, len(pack.data), len(data)))
            pack.data += data
            return
        blocks: list[str] = []
        list_bytes = 0
        opened: list[int] = []
        try:
            await self._aside(lambda: opened.append(open_written(captured.upper, file)))
            for begin in range(0, size, BLOCK_BYTES * BLOCKS_AT_ONCE):
                end = min(size, begin + BLOCK_BYTES * BLOCKS_AT_ONCE)
                putting = (self._put_block(captured.sink, opened[0], at, size) for at in range(begin, end, BLOCK_BYTES))
                some = await together(putting)
                blocks += some
                list_bytes += wire.block_list_bytes(some)
                if list_bytes > wire.BLOCK_LIST_BYTES_MAX:
                    raise _TooLong
        finally:
            for fd in opened:
                os.close(fd)
        captured.files.append(_File(file.path, file.fingerprint, replace(file.change, blocks=tuple(blocks))))

    async def _put_block(self, sink: Sink, fd: int, at: int, size: int) -> str:
        async with self._puts:
            sha256, data = await self._aside(lambda: _hashed(fd, at, min(BLOCK_BYTES, size - at)))
            if sha256 != HOLE:
                await sink.add(sha256, data)
            return sha256

    async def _close(self, pack: _Pack, captured: _Captured) -> None:
        """Put what small files share."""
        if not pack.files:
            return
        files, data = pack.files, bytes(pack.data)
        pack.files, pack.data = [], bytearray()
        sha256 = await self._aside(lambda: hashlib.sha256(data).hexdigest() if data else "")
        if data:
            await captured.sink.add(sha256, data)
        for file, offset, size in files:
            blocks = (sha256,) if size else ()
            change = replace(file.change, size=size, blocks=blocks, offset=offset if size else 0)
            captured.files.append(_File(file.path, file.fingerprint, change))

    async def _send(self, written: Written, cause: str, captured: _Captured) -> VolumeVersion | None:
        reading = captured.reading
        left = set(captured.left)
        seen = {path: one for path, one in reading.seen.items() if path not in left}
        # What is left for the next is as it was known, if it was.
        seen |= {path: written.committed[path] for path in left if path in written.committed}
        seen |= {one.path: of_open(one.fingerprint) for one in captured.files if one.path in captured.open}
        changes = [*reading.changes, *(one.change for one in captured.files)]
        if not changes:
            written.committed = seen
            return None
        version = None
        starts = range(0, len(changes), COMMIT_CHANGES_MAX)
        for number, start in enumerate(starts, 1):
            part = f" (part {number} of {len(starts)})" if len(starts) > 1 else ""
            version = await self._send_pages(written, cause + part, changes[start : start + COMMIT_CHANGES_MAX])
        before, written.committed = written.committed, seen
        if written.note is not None:
            await self._aside(functools.partial(written.note.keep, before, seen))
        return version

    async def _send_pages(self, written: Written, cause: str, changes: Sequence[VolumeChange]) -> VolumeVersion | None:
        pages = self._store.pages(changes)
        commit_id = await self._aside(lambda: _id_of(written, changes))
        number = restarts = 0
        while True:
            is_last = number == len(pages) - 1
            record = VolumeCommit(
                written.volume_id,
                commit_id,
                pages[number],
                number,
                is_last,
                written.version,
                cause=cause,
                created_by=written.container_id,
            )
            try:
                answer = await self._store.commit(record)
            except PlatformError as error:
                if error.code != CONFLICT or not number or restarts >= RESTARTS_MAX:
                    raise
                # A server that was restarted in between has forgotten the pages before.
                number, restarts = 0, restarts + 1
                continue
            if answer.missing:
                raise _BlocksGone(f"{len(answer.missing)} of its blocks went from the store after they were put")
            if is_last:
                return answer.version
            number += 1

    async def _aside(self, work: Callable[[], R]) -> R:
        return await aside(self._executor, work)


class _TooLong(Exception):
    """A file has more content than a version can have."""


class _BlocksGone(Exception):
    """What a commit names was put, and is not in the store any more."""


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    fingerprint: Fingerprint
    change: VolumeChange


@dataclass(slots=True)
class _Captured:
    upper: str
    reading: Reading
    sink: Sink
    files: list[_File] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Paths for the next commit."""
    open: set[str] = field(default_factory=set)
    """Paths that somebody could write to when it began."""


@dataclass(slots=True)
class _Pack:
    data: bytearray = field(default_factory=bytearray)
    files: list[tuple[WrittenFile, int, int]] = field(default_factory=list)


def _id_of(written: Written, changes: Sequence[VolumeChange]) -> str:
    """The same again for who makes the same commit again, as it was not written down that there had been one."""
    count = written.note.count if written.note is not None else 0
    digest = hashlib.sha256(f"{written.upper} {count}".encode("utf-8", "surrogateescape"))
    for change in changes:
        digest.update(repr(change).encode("utf-8", "surrogateescape"))
    return f"rq-{digest.hexdigest()}" if written.note is not None else new_id("rq")


def _say_skipped(written: Written, reading: Reading) -> None:
    """Once of each."""
    skipped = set(reading.skipped)
    for path in sorted(skipped - written.skipped)[:SAID_MAX]:
        _log.warning("%s: %r is in no version of %s: %s", written.container_id, path, written.volume_id, SKIPPED_WHY)
    written.skipped = skipped


def _say_too_long(written: Written, file: WrittenFile) -> None:
    """Each time that it was another one: it may have been most of a version."""
    written.too_long[file.path] = file.fingerprint
    what = f"{file.path!r} is not in this version of {written.volume_id}"
    _log.warning("%s: %s: %s", written.container_id, what, wire.TOO_MANY_BLOCKS)


def _open_for_writing(upper: str, files: Sequence[WrittenFile]) -> set[str]:
    """Which of these files anybody can change just now: by a descriptor, or by memory that is mapped."""
    found = set()
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            fd = open_written(upper, file)
            try:
                if _is_open_for_writing(fd):
                    found.add(file.path)
            finally:
                os.close(fd)
    return found


def _is_open_for_writing(fd: int) -> bool:
    try:
        # Whoever opens it for writing while there is a lease has this signal sent, which ends nobody; SIGIO would.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        # A file system without leases tells nothing: nothing is left out there.
        return error.errno in (errno.EAGAIN, errno.EACCES)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _read_all(upper: str, file: WrittenFile) -> bytes:
    with open(open_written(upper, file), "rb") as opened:
        return opened.read(PACKED_BYTES_MAX + 1)


def _hashed(fd: int, at: int, size: int) -> tuple[str, bytes]:
    """A block of a file and what it is called; of a hole nothing is read."""
    try:
        is_hole = os.lseek(fd, at, os.SEEK_DATA) >= at + size
    except OSError as error:
        is_hole = error.errno == errno.ENXIO
    if is_hole:
        return HOLE, b""
    pieces, left = [], size
    while left and (piece := os.pread(fd, left, at + size - left)):
        pieces.append(piece)
        left -= len(piece)
    # Shorter meanwhile: what comes is of another state, and is read again.
    data = b"".join(pieces) + bytes(left)
    return (HOLE, b"") if data == bytes(len(data)) else (hashlib.sha256(data).hexdigest(), data)
