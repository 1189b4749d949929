"""Contents of files of volumes on this node, each a whole file that containers read natively.

    <directory>/layer/.squall-contents/<aa>/<name>    one content; whole, and what its blocks' hashes say
    <directory>/new/…                                 in the making; emptied at start
    <directory>/boot                                  of the machine that the last agent began in
    <directory>/unchecked, checked                    what was written before it, and what of that was looked at since

A file's time of change is when it was used last: reads through an overlay change no time of what is below it.

Files come by a rename. After a crash of the machine what was not on the disk by then may read as anything, so what was
written before this boot is checked once, when it is wanted next.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from squall.agent.disk import Space, space_of
from squall.agent.volume.aside import aside, together
from squall.agent.volume.boot import boot_id
from squall.agent.volume.tree_image import Content
from squall.protocol.blob import is_sha256
from squall.protocol.errors import EXHAUSTED, INTERNAL, PlatformError
from squall.protocol.volume import BLOCK_BYTES, HOLE
from squall.runtime.removal import remove_tree
from squall.runtime.volume_overlay import CONTENTS

R = TypeVar("R")

FETCHES_MAX = 4
"""Blocks on their way at once: each is 8 MiB of memory."""
FREE_SPARES = 4
"""Contents that nobody uses go when less is free than so many times what is to be spare on a disk."""
EVICTED_AT_ONCE = 100

_log = logging.getLogger("squall.agent.volume.contents")


@dataclass(slots=True)
class Progress:
    """How far something is that fetches contents."""

    fetched_bytes: int = 0
    wanted_bytes: int = 0


class BlockSource(Protocol):
    """Gives blocks."""

    async def block(self, sha256: str) -> bytes:
        """All bytes of a block.

        Raises:
            PlatformError: `not_found`; `unavailable` while there is no server.
        """

    async def doubt(self, sha256: str) -> None:
        """Have the store look at a block: it forgets one that is damaged."""

    def file(self, sha256: str) -> Path | None:
        """The same as a file of this machine, if it is one; it may go at any moment."""


class VolumeContents:
    """All there are. Used by one agent at a time."""

    def __init__(
        self,
        directory: Path,
        source: BlockSource,
        executor: Executor,
        space: Callable[[Path], Space] = space_of,
    ) -> None:
        self._layer = directory / "layer"
        self._files = self._layer / CONTENTS
        self._new = directory / "new"
        self._boot = directory / "boot"
        self._unchecked_path, self._checked_path = directory / "unchecked", directory / "checked"
        self._source = source
        self._executor = executor
        self._space = space
        self._fetches = asyncio.Semaphore(FETCHES_MAX)
        self._looking = asyncio.Lock()
        """Whoever looks whether contents are here finds none that are being removed."""
        self.in_use: Callable[[], frozenset[str]] = frozenset
        """Names of what somebody has mounted, or is about to; whoever has contents made is among them before."""
        self.last_used: Callable[[], Mapping[str, int]] = dict
        """When contents were used last, in nanoseconds since 1970, of what was not told to `note_use`. Blocks."""
        self._buffers = threading.local()
        """Of each thread one, for a block."""
        self._unchecked: set[str] = set()
        """Names of what was written before this boot."""

    @property
    def directory(self) -> str:
        """What the marks of trees lead into."""
        return str(self._layer)

    def prepare(self) -> bool:
        """Take stock; whether the machine has begun anew since an agent did so last. Blocks."""
        remove_tree(str(self._new))
        for path in (self._files, self._new):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        boot = boot_id()
        is_new = not self._boot.exists() or self._boot.read_text() != boot
        if is_new:
            # The mark of this boot comes last: whoever begins again in between takes stock again.
            _write_down(self._unchecked_path, "".join(f"{path.name}\n" for path in self._files.glob("*/*")))
            self._checked_path.unlink(missing_ok=True)
            _write_down(self._boot, boot)
        self._unchecked = _names_in(self._unchecked_path) - _names_in(self._checked_path)
        return is_new

    def path(self, name: str) -> Path:
        """Where a content is, or will be."""
        return self._files / name[:2] / name

    async def ensure(
        self,
        wanted: Iterable[Content],
        blocks_of: dict[str, tuple[str, ...]] | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Have all of these contents here.

        Args:
            blocks_of: of those that have a list of their blocks elsewhere, these, by the name of the list.

        Raises:
            PlatformError: a block cannot be had, or is not what its name says.
            OSError: the disk takes no more.
        """
        lists = blocks_of or {}
        async with self._looking:
            missing = await self._aside(lambda: [one for one in wanted if not self._is_here(one, lists)])
        blocks = {one: lists.get(one.block_list, one.blocks) for one in missing}
        missing_bytes = sum(_bytes_of(one, found) for one, found in blocks.items())
        progress = progress or Progress()
        progress.wanted_bytes += missing_bytes
        await self._have_room(missing_bytes, len(missing))
        # Small ones share blocks: each block is fetched once.
        by_block: dict[str, list[Content]] = {}
        tasks = []
        for content, found in blocks.items():
            if len(found) == 1:
                by_block.setdefault(found[0], []).append(content)
            else:
                tasks.append(self._make_large(content, found, progress))
        tasks += [self._make_small(block, contents, progress) for block, contents in by_block.items()]
        await together(tasks)

    def _is_here(self, content: Content, lists: dict[str, tuple[str, ...]]) -> bool:
        name = content.name
        if name not in self._unchecked:
            return self.path(name).exists()
        is_right = _is_right(self.path(name), content, lists.get(content.block_list, content.blocks))
        if not is_right:
            # What fits into a pack cannot be told from its own bytes: it comes again, too.
            self.path(name).unlink(missing_ok=True)
        self._unchecked.discard(name)
        with self._checked_path.open("a") as file:
            file.write(f"{name}\n")
        return is_right

    async def _have_room(self, wanted_bytes: int, wanted_files: int) -> None:
        await self.evict(wanted_bytes, wanted_files)
        space = self._space(self._files)
        if wanted_bytes > space.free_bytes - space.spare_bytes:
            message = (
                f"a volume needs {_mib(wanted_bytes)} more on this node, whose disk has {_mib(space.free_bytes)} free"
            )
        elif space.spare_inodes and wanted_files > space.free_inodes - space.spare_inodes:
            message = f"a volume needs {wanted_files} more files on this node, whose disk takes {space.free_inodes}"
        else:
            return
        raise PlatformError(EXHAUSTED, f"{message}; free space in the file system of the agent's data directory")

    async def evict(self, wanted_bytes: int = 0, wanted_files: int = 0) -> int:
        """Remove contents that nobody uses, those first that nobody has had mounted for the longest time, until enough
        of the disk is free beside what is wanted; how many."""
        space = self._space(self._files)
        missing_bytes = space.spare_bytes * FREE_SPARES + wanted_bytes - space.free_bytes
        # A file system that does not count inodes has plenty.
        missing_files = space.spare_inodes and space.spare_inodes * FREE_SPARES + wanted_files - space.free_inodes
        found = await self._aside(self._by_age) if missing_bytes > 0 or missing_files > 0 else []
        count = 0
        for at in range(0, len(found), EVICTED_AT_ONCE):
            async with self._looking:
                # Asked anew for each few: who begins to use one looks for it when these are gone.
                going = _not_in(self.in_use(), found[at : at + EVICTED_AT_ONCE], missing_bytes, missing_files - count)
                await self._aside(functools.partial(_unlink_all, going))
            missing_bytes -= sum(size_bytes for size_bytes, _ in going)
            count += len(going)
        return count

    def _by_age(self) -> list[tuple[int, Path]]:
        """Contents and what each takes of the disk, those first that were not used for the longest time."""
        last_used = self.last_used()
        found = [(path.stat(), path) for path in self._files.glob("*/*")]
        found.sort(key=lambda one: max(one[0].st_mtime_ns, last_used.get(one[1].name, 0)))
        return [(status.st_blocks * 512, path) for status, path in found]

    def note_use(self, names: Iterable[str], at_ns: int) -> None:
        """Write down that these were in use until then, as far as they are here. Blocks."""
        for name in filter(is_sha256, names):
            with contextlib.suppress(FileNotFoundError):
                if self.path(name).stat().st_mtime_ns < at_ns:
                    os.utime(self.path(name), ns=(at_ns, at_ns))

    async def _make_small(self, block: str, contents: Sequence[Content], progress: Progress) -> None:
        data = b"" if block == HOLE else await self._block(block)
        await self._aside(lambda: self._write_parts(data, contents))
        progress.fetched_bytes += sum(content.size for content in contents) if data else 0

    def _write_parts(self, data: bytes, contents: Sequence[Content]) -> None:
        for content in contents:
            part = data[content.offset : content.offset + content.size] if data else bytes(content.size)
            if len(part) != content.size:
                raise PlatformError(INTERNAL, f"block {content.blocks[0]} is shorter than a file of it")
            new = self._new / secrets.token_hex(8)
            new.write_bytes(part)
            self._place(new, content.name)

    async def _make_large(self, content: Content, blocks: Sequence[str], progress: Progress) -> None:
        new = self._new / secrets.token_hex(8)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(fd, content.size)
            places = [(number, block) for number, block in enumerate(blocks) if block != HOLE]
            await together([self._write_block(fd, number, block, content, progress) for number, block in places])
        except BaseException:
            new.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        await self._aside(lambda: self._place(new, content.name))

    async def _write_block(self, fd: int, number: int, block: str, content: Content, progress: Progress) -> None:
        at = number * BLOCK_BYTES
        async with self._fetches:
            path, size = self._source.file(block), min(BLOCK_BYTES, content.size - at)
            if path is None or not await self._aside(lambda: self._is_copied(path, block, size, fd, at)):
                data = await self._fetched(block)
                if len(data) != size:
                    raise PlatformError(INTERNAL, f"block {block} has {len(data)} bytes, other than its file says")
                await self._aside(lambda: _write_all(fd, data, at))
            progress.fetched_bytes += size

    def _is_copied(self, path: Path, block: str, size: int, fd: int, at: int) -> bool:
        """Write a block from a file of this machine; False where that is not what it should be."""
        buffer = getattr(self._buffers, "block", None) or bytearray(BLOCK_BYTES)
        self._buffers.block = buffer
        view = memoryview(buffer)[:size]
        try:
            with path.open("rb", buffering=0) as file:
                is_whole = file.readinto(view) == size and os.fstat(file.fileno()).st_size == size
        except FileNotFoundError:
            return False
        if not is_whole or hashlib.sha256(view).hexdigest() != block:
            return False
        _write_all(fd, view, at)
        return True

    async def _block(self, block: str) -> bytes:
        async with self._fetches:
            return await self._fetched(block)

    async def _fetched(self, block: str) -> bytes:
        data = await self._source.block(block)
        if await self._aside(lambda: hashlib.sha256(data).hexdigest()) == block:
            return data
        # The store looks at it, and forgets it: whoever has the file puts it again.
        with contextlib.suppress(PlatformError):
            await self._source.doubt(block)
        message = f"block {block} of a volume is damaged in the blob store, or came with other bytes"
        raise PlatformError(INTERNAL, f"{message}; put its file again: squall volume put")

    def _place(self, new: Path, name: str) -> None:
        place = self.path(name)
        place.parent.mkdir(mode=0o700, exist_ok=True)
        os.chmod(new, 0o400)
        os.rename(new, place)

    async def _aside(self, work: Callable[[], R]) -> R:
        return await aside(self._executor, work)


def _not_in(
    in_use: frozenset[str], found: Sequence[tuple[int, Path]], missing_bytes: int, missing_files: int
) -> list[tuple[int, Path]]:
    """Of these the first that nobody uses, and as many as give so much."""
    going: list[tuple[int, Path]] = []
    for size_bytes, path in found:
        if (missing_bytes > 0 or missing_files > len(going)) and path.name not in in_use:
            going.append((size_bytes, path))
            missing_bytes -= size_bytes
    return going


def _unlink_all(going: Sequence[tuple[int, Path]]) -> None:
    for _, path in going:
        path.unlink(missing_ok=True)


def _bytes_of(content: Content, blocks: Sequence[str]) -> int:
    """What it takes of the disk: holes take nothing."""
    return min(content.size, BLOCK_BYTES * sum(block != HOLE for block in blocks))


def _mib(size_bytes: int) -> str:
    return f"{-(-size_bytes // 2**20)} MiB"


def _names_in(path: Path) -> set[str]:
    return set(path.read_text().split()) if path.exists() else set()


def _write_down(path: Path, text: str) -> None:
    """On the disk, whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def _write_all(fd: int, data: bytes | memoryview, at: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, at)
        view, at = view[count:], at + count


def _is_right(path: Path, content: Content, blocks: Sequence[str]) -> bool:
    """Whether a file has this content, block by block. Of a part of a block that cannot be told."""
    if content.offset:
        return False
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != content.size:
                return False
            for block in blocks:
                data = file.read(BLOCK_BYTES)
                if block and hashlib.sha256(data).hexdigest() != block:
                    return False
    except OSError:
        return False
    return True
