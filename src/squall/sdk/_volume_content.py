"""The content of files on its way to volumes: in blocks, hashed in threads, a few at a time in memory."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import IO, TYPE_CHECKING, Any, TypeVar

from squall.exception import InvalidError
from squall.protocol import volume as wire
from squall.protocol.blob import BlobMissing, BlobStat
from squall.protocol.volume import BLOCK_BYTES, FILE, HOLE, VolumeChange, to_wire
from squall.sdk import _blob
from squall.sdk._pending import Pending

if TYPE_CHECKING:
    from squall.sdk._client import Client

R = TypeVar("R")

HASH_THREADS = 4
AHEAD = 4
"""Blocks that are read and hashed while others are on their way: with these, twelve are in memory at most."""
CHUNKS_IN_FLIGHT = 6
"""Half a block each: the last of a block waits for the disk, and the others need not wait for that."""
PACKED_BYTES_MAX = 256 * 1024
"""Files up to this size share blocks; larger ones have blocks of their own, which are found again in other versions."""


class Block:
    """Bytes, and what they are called."""

    __slots__ = ("data", "sha256", "size_bytes")

    def __init__(self, data: bytes) -> None:
        import hashlib  # cold start: only where files travel

        self.data = data
        self.size_bytes = len(data)
        # As many zeros to compare with are made only where it begins like that.
        is_hole = not any(data[:64]) and data == bytes(len(data))
        self.sha256 = HOLE if is_hole else hashlib.sha256(data).hexdigest()

    @classmethod
    def hole(cls, size_bytes: int) -> Block:
        """So many zeros, which nobody has read."""
        block = cls(b"")
        block.size_bytes = size_bytes
        return block


class LocalFile:
    """A file of this machine that is to be put: a path, or an open file's content."""

    def __init__(self, path: str, target: str, mode: int | None = None, content: IO[Any] | None = None) -> None:
        """`target` is its path in the volume."""
        self.path = path
        self.target = target
        self.mode = mode
        self.content = content

    def change(self, size: int, blocks: tuple[str, ...], mtime_ns: int, mode: int, offset: int = 0) -> VolumeChange:
        """What puts it."""
        permissions = self.mode if self.mode is not None else mode
        return VolumeChange(
            to_wire(self.target), kind=FILE, mode=permissions & 0o7777, mtime_ns=mtime_ns, size=size, blocks=blocks,
            offset=offset,
        )  # fmt: skip


class Uploader:
    """Puts files into the blob store, and gathers the changes that put them into a volume."""

    def __init__(self, client: Client, progress: Callable[[int], None] | None = None) -> None:
        """`progress` is told of each number of bytes that is in the store."""
        self._client = client
        self._progress = progress or (lambda count: None)
        self._uploads = _blob.Uploads(client, CHUNKS_IN_FLIGHT)
        self._threads = ThreadPoolExecutor(HASH_THREADS, "squall-hash")
        self._under_way: deque[tuple[Pending[Block], Callable[[str], None]]] = deque()
        self._stats: deque[tuple[Block, Pending[Any]]] = deque()
        self._pack = bytearray()
        self._packed: list[tuple[LocalFile, int, int, int, int]] = []
        """Of the files in it: size, when it was changed, mode, where it begins."""
        self.changes: list[VolumeChange] = []

    async def put(self, file: LocalFile) -> None:
        """Put one file. Its change is there after `finish`.

        Raises:
            OSError: it cannot be read.
            InvalidError: it is changed while it is read.
        """
        if file.content is not None:
            await self._put_content(file, file.content)
            return
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            await self._put_opened(file, fd, os.fstat(fd))
        finally:
            os.close(fd)

    async def _put_opened(self, file: LocalFile, fd: int, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode) or (not status.st_size and os.pread(fd, 1, 0)):
            # A pipe, or what a kernel makes up while it is read.
            with os.fdopen(fd, "rb", buffering=0, closefd=False) as content:
                await self._put_content(file, content)
        elif status.st_size <= PACKED_BYTES_MAX:
            data = _read(fd, file.path, 0, status.st_size)
            _check_unchanged(fd, file.path, status)
            await self._put_small(file, data, status.st_mtime_ns, status.st_mode)
        else:
            try:
                await self._put_large(file, fd, status)
            except BaseException:
                await self._let_go()  # threads read from it
                raise

    async def _put_small(self, file: LocalFile, data: bytes, mtime_ns: int, mode: int) -> None:
        if len(self._pack) + len(data) > BLOCK_BYTES:
            await self._close_pack()
        self._packed.append((file, len(data), mtime_ns, mode, len(self._pack)))
        self._pack += data

    async def _close_pack(self) -> None:
        files, data = self._packed, bytes(self._pack)
        self._packed, self._pack = [], bytearray()

        def named(sha256: str) -> None:
            for file, size, mtime_ns, mode, offset in files:
                # Nothing but zeros is nowhere: a file of it begins at no place.
                is_there = size and sha256 != HOLE
                blocks = (sha256,) if size else ()
                self.changes.append(file.change(size, blocks, mtime_ns, mode, offset if is_there else 0))

        await self._add(lambda: Block(data), named)

    async def _put_large(self, file: LocalFile, fd: int, status: os.stat_result) -> None:
        names = _Names(file.path)
        for at in range(0, status.st_size, BLOCK_BYTES):
            size = min(BLOCK_BYTES, status.st_size - at)
            await self._add(partial(_read_block, fd, file.path, at, size), names.add)
        await self._settle()
        _check_unchanged(fd, file.path, status)
        self.changes.append(file.change(status.st_size, names.all(), status.st_mtime_ns, status.st_mode))

    async def _put_content(self, file: LocalFile, content: IO[Any]) -> None:
        names = _Names(file.target)
        total = 0
        while pieces := _read_pieces(content, file.target):
            size_bytes = sum(map(len, pieces))
            if not total and size_bytes <= PACKED_BYTES_MAX:
                # Less than a block: there is no more of it.
                await self._put_small(file, b"".join(pieces), _now_ns(), 0o644)
                return
            total += size_bytes
            await self._add(partial(_joined_block, pieces), names.add)
        await self._settle()
        self.changes.append(file.change(total, names.all(), _now_ns(), 0o644))

    async def _add(self, make: Callable[[], Block], named: Callable[[str], None]) -> None:
        self._under_way.append((_aside(self._threads, make), named))
        while len(self._under_way) > AHEAD:
            await self._next()

    async def _next(self) -> None:
        pending, named = self._under_way.popleft()
        block = await pending
        named(block.sha256)
        if block.sha256 == HOLE:
            self._progress(block.size_bytes)
            return
        self._stats.append((block, self._client.ask("BlobStat", BlobStat((block.sha256,)))))
        while len(self._stats) > AHEAD:
            await self._send()

    async def _send(self) -> None:
        block, asked = self._stats.popleft()
        missing = self._client.codec.record(BlobMissing, (await asked)[0])
        if missing.sha256s:
            await self._uploads.add(block.sha256, [block.data])
        self._progress(block.size_bytes)

    async def _settle(self) -> None:
        while self._under_way:
            await self._next()

    async def _let_go(self) -> None:
        """Wait for what threads make, and send none of it."""
        while self._under_way:
            pending, _ = self._under_way.popleft()
            try:
                await pending
            except (OSError, InvalidError):
                continue  # as the one before, which is told

    async def finish(self) -> None:
        """Wait until the store has everything."""
        if self._packed:
            await self._close_pack()
        await self._settle()
        while self._stats:
            await self._send()
        await self._uploads.finish()

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Names:
    """Of the blocks of a file, in order."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._names: list[str] = []
        self._bytes = 0

    def add(self, sha256: str) -> None:
        """The next one.

        Raises:
            InvalidError: the file has more than a volume takes.
        """
        self._names.append(sha256)
        self._bytes += wire.block_list_bytes((sha256,))
        if self._bytes > wire.BLOCK_LIST_BYTES_MAX:
            raise InvalidError(f"{self._path!r} cannot be put: {wire.TOO_MANY_BLOCKS}; put it in parts")

    def all(self) -> tuple[str, ...]:
        """All there are."""
        return tuple(self._names)


def _read(fd: int, path: str, at: int, size: int) -> bytes:
    """So many bytes of a file.

    Raises:
        InvalidError: it has fewer by now.
    """
    pieces = []
    while size:
        piece = os.pread(fd, size, at)
        if not piece:
            raise InvalidError(f"{path!r} became shorter while it was put; put it again when nobody writes it")
        pieces.append(piece)
        at, size = at + len(piece), size - len(piece)
    return b"".join(pieces)


def _now_ns() -> int:
    return time.time_ns()  # tidy: wall clock, for people


def _check_unchanged(fd: int, path: str, before: os.stat_result) -> None:
    now = os.fstat(fd)
    if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise InvalidError(f"{path!r} was changed while it was put; put it again when nobody writes it")


def _read_pieces(content: IO[Any], target: str) -> list[bytes]:
    """The next block of an open file, as it comes; nothing at its end.

    Raises:
        InvalidError: what it gives is text.
    """
    pieces: list[bytes] = []
    left = BLOCK_BYTES
    while left and (data := content.read(left)):
        if not isinstance(data, (bytes, bytearray)):
            kind = type(data).__name__
            raise InvalidError(f"{target!r} cannot be put: reading it gives {kind}; open it in binary mode")
        pieces.append(bytes(data))
        left -= len(data)
    return pieces


def _joined_block(pieces: list[bytes]) -> Block:
    return Block(b"".join(pieces))


def is_hole(fd: int, at: int, size: int) -> bool:
    """Whether nothing is stored of these bytes of a file: they are zeros, and need not be read."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA) >= at + size
    except OSError as error:
        return error.errno == errno.ENXIO  # no data from there to the end


def _read_block(fd: int, path: str, at: int, size: int) -> Block:
    return Block.hole(size) if is_hole(fd, at, size) else Block(_read(fd, path, at, size))


def _aside(threads: ThreadPoolExecutor, work: Callable[[], R]) -> Pending[R]:
    """What a thread makes."""
    pending: Pending[R] = Pending()

    def done(future: Future[R]) -> None:
        if future.cancelled():
            return  # nobody waits
        error = future.exception()
        if error is not None:
            pending.fail(error)
        else:
            pending.set(future.result())

    threads.submit(work).add_done_callback(done)
    return pending
