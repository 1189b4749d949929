"""Where the blocks of a commit go: into the blob store at once, or onto the disk while a container is frozen."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from typing import Protocol, TypeVar

from squall.agent.volume.aside import aside

R = TypeVar("R")

ASKED_AT_ONCE = 1_000
"""Blocks that the store is asked about in one request."""


class Blocks(Protocol):
    """Where blocks are kept."""

    async def missing(self, sha256s: Sequence[str]) -> set[str]:
        """Which of these blocks are not there."""

    async def put(self, sha256: str, data: bytes) -> None:
        """Put one."""


class Sink(Protocol):
    """Takes the blocks of a commit."""

    async def add(self, sha256: str, data: bytes) -> None:
        """One block."""


class StoreSink:
    """The blob store."""

    def __init__(self, store: Blocks) -> None:
        self._store = store
        self.stored: set[str] = set()
        """Blocks that are there."""

    async def add(self, sha256: str, data: bytes) -> None:
        """See `Sink`."""
        if sha256 not in self.stored and sha256 in await self._store.missing([sha256]):
            await self._store.put(sha256, data)
        self.stored.add(sha256)


class SpoolSink:
    """A file, for as long as nobody waits for a server. A disk that takes no more is gone round.

    Args:
        fd: of a file that is open for reading and writing, and nobody else's.
        stored: blocks that the store has already.
    """

    def __init__(self, fd: int, store: Blocks, stored: Collection[str], executor: Executor) -> None:
        self._fd = fd
        self._store = store
        self._stored = stored
        self._executor = executor
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0

    async def add(self, sha256: str, data: bytes) -> None:
        """See `Sink`."""
        if sha256 in self._stored or sha256 in self._places:
            return
        place = self._places[sha256] = (self._end, len(data))
        self._end += len(data)
        try:
            await self._aside(lambda: _write(self._fd, data, place[0]))
        except OSError:
            del self._places[sha256]
            await StoreSink(self._store).add(sha256, data)

    async def put_all(self) -> None:
        """Put what was kept into the store."""
        named = list(self._places)
        for start in range(0, len(named), ASKED_AT_ONCE):
            for sha256 in await self._store.missing(named[start : start + ASKED_AT_ONCE]):
                offset, size = self._places[sha256]
                await self._store.put(sha256, await self._aside(lambda: os.pread(self._fd, size, offset)))  # noqa: B023 - awaited in the loop

    async def _aside(self, work: Callable[[], R]) -> R:
        return await aside(self._executor, work)


def _write(fd: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(fd, data[written:], offset + written)
