"""Volumes of a node on a disk of the test's, with a server and containers of which the test says what they do."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from squall.agent.disk import Space
from squall.agent.volume.volumes import NodeVolumes
from squall.protocol.errors import EXHAUSTED, NOT_FOUND, PlatformError
from squall.protocol.volume import (
    VolumeChange,
    VolumeCommit,
    VolumeCommitted,
    VolumeHeld,
    VolumeMount,
    VolumeStart,
    VolumeVersion,
)
from squall.runtime.spec import ContainerStatus, IdRange, Volume
from tests.agent.parts import until

IDS = IdRange(100_000)
SHORT = Space(2**20 + 4_096, 10**9, 2**20, 100)
"""Of a disk: room for what is wanted here, and less than is to be free."""


class Server:
    """Versions of volumes, by their numbers; with one file each, that says which it is."""

    is_connected = True

    def __init__(self) -> None:
        self.gone: set[int] = set()
        self.commits: list[VolumeCommit] = []
        self.deleted: set[str] = set()
        self.is_full = False
        self.head = VolumeVersion(1)

    async def tree(self, volume_id: str, version: int) -> list[VolumeChange]:
        if version in self.gone:
            raise PlatformError(NOT_FOUND, f"version {version} is gone")
        data = data_of(version)
        return [VolumeChange("file", size=len(data), blocks=(hashlib.sha256(data).hexdigest(),))]

    async def block(self, sha256: str) -> bytes:
        return next(data for data in map(data_of, range(100)) if hashlib.sha256(data).hexdigest() == sha256)

    async def missing(self, sha256s: Sequence[str]) -> set[str]:
        return set()

    def file(self, sha256: str) -> None:
        return None

    def pages(self, changes: Sequence[VolumeChange]) -> list[tuple[VolumeChange, ...]]:
        return [tuple(changes)]

    async def newest(self, volume_id: str) -> VolumeVersion:
        if volume_id in self.deleted:
            raise PlatformError(NOT_FOUND, f"no volume {volume_id}")
        return self.head

    async def version(self, volume_id: str, number: int | None) -> VolumeVersion:
        newest = await self.newest(volume_id)
        return newest if number is None else VolumeVersion(number)

    async def commit(self, record: VolumeCommit) -> VolumeCommitted:
        await self.newest(record.volume_id)
        if self.is_full:
            raise PlatformError(EXHAUSTED, "no room")
        self.commits.append(record)
        return VolumeCommitted(await self.newest(record.volume_id))


async def nothing() -> None:
    pass


class Containers:
    """What a runtime has, and which of them are frozen."""

    def __init__(self) -> None:
        self.living: set[str] = set()
        self.frozen: set[str] = set()
        self.is_stuck = False
        self.swapped: list[Volume] = []
        self.on_swap: Callable[[], Awaitable[None]] = nothing

    async def swap_volume(self, container_id: str, volume: Volume) -> None:
        assert container_id in self.frozen
        Path(volume.writable, "upper").mkdir(parents=True)
        self.swapped.append(volume)
        await self.on_swap()

    async def freeze(self, container_id: str) -> None:
        self.frozen.add(container_id)
        if self.is_stuck:
            await asyncio.sleep(60)

    async def thaw(self, container_id: str) -> None:
        self.frozen.discard(container_id)

    async def list(self) -> list[ContainerStatus]:
        return [ContainerStatus(container_id, 1, {}, None) for container_id in self.living]


def data_of(version: int) -> bytes:
    return f"version {version}".encode()


class Node:
    """The volumes of an agent, and of the one after it."""

    def __init__(self, directory: Path, executor: ThreadPoolExecutor) -> None:
        self.directory = directory
        self.server = Server()
        self.containers = Containers()
        self._executor = executor
        self.on_held: Callable[[tuple[VolumeHeld, ...]], None] = lambda held: None
        self.space: Callable[[], Space] = lambda: SHORT
        self.said: list[tuple[str, str]] = []
        """In the logs of containers."""
        self.volumes = self.start()

    def start(self) -> NodeVolumes:
        self.volumes = NodeVolumes(
            self.directory,
            cast(Any, self.server),
            cast(Any, self.containers),
            self._executor,
            lambda held: self.on_held(held),
            lambda container_id, line: self.said.append((container_id, line)),
            space=lambda path: self.space(),
        )
        self.volumes.prepare()
        return self.volumes

    async def open(self, runtime_id: str, *versions: int) -> None:
        starts = [
            VolumeStart(VolumeMount(f"vo-{number}", f"/{number}", is_read_only=True), number, root_of(number))
            for number in versions
        ]
        await self.volumes.open(runtime_id, starts, IDS, "ta-1")

    async def open_writable(self, runtime_id: str, *versions: int) -> list[Path]:
        """Where it writes."""
        starts = [VolumeStart(VolumeMount(f"vo-{one}", f"/{one}"), one, root_of(one)) for one in versions]
        made = await self.volumes.open(runtime_id, starts, IDS, "ta-1")
        uppers = [Path(one.writable) / "upper" for one in made]
        for upper in uppers:
            upper.mkdir(parents=True)
        return uppers

    async def served(self, is_so: Callable[[], bool]) -> bool:
        """Whether it comes to be so in the background."""
        task = asyncio.create_task(self.volumes.run())
        try:
            return await happens(is_so)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def trees(self) -> set[str]:
        return {path.stem for path in (self.directory / "trees").glob("*.tree")}

    def data(self) -> set[bytes]:
        """What is in the contents that are here."""
        found = (self.directory / "contents" / "layer" / ".squall-contents").glob("*/*")
        return {path.read_bytes() for path in found}

    def contents(self) -> int:
        return len(list((self.directory / "contents" / "layer" / ".squall-contents").glob("*/*")))


async def happens(is_so: Callable[[], bool]) -> bool:
    with contextlib.suppress(TimeoutError):
        await until(is_so)
    return is_so()


def root_of(version: int) -> str:
    return f"{version:064x}"


def roots_of(versions: Sequence[int]) -> set[str]:
    return {root_of(version) for version in versions}
