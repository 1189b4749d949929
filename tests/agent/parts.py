"""What agent tests are made with: a server's end, slots without a network, images without a build."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from squall.agent.config import AgentConfig
from squall.agent.disk import Writer
from squall.agent.image.making import Secrets
from squall.agent.image.progress import BuiltImage
from squall.agent.image.step_container import StepVolumes
from squall.agent.spread import flags_of
from squall.protocol.blob import BlobChunk, BlobGet
from squall.protocol.channel.contract import Channel
from squall.protocol.channel.memory import MemoryChannel
from squall.protocol.codec import JsonCodec
from squall.protocol.errors import NOT_FOUND, PlatformError
from squall.protocol.frames import Frame
from squall.protocol.image import BuildEvent, ImageConfig, ImageSpec, image_id
from squall.protocol.log import LogBatch, LogEntry
from squall.protocol.mount import BLOCK_BYTES, MountFile, MountGet, MountManifest
from squall.protocol.node import ContainerExited, NodeHello, NodeImagePut, NodeImages, NodeReport, NodeWelcome
from squall.protocol.peer import Peer
from squall.protocol.request import Request
from squall.runtime.network.owner import SlotOwner
from squall.runtime.spec import IdRange, NetworkSlot

CODEC = JsonCodec()


def make_config(data_dir: Path, **changes: Any) -> AgentConfig:
    defaults: dict[str, Any] = {"node_id": "nd-00000001", "cpu_milli": 2_000, "memory_mib": 4_096}
    return AgentConfig(data_dir, **{**defaults, "reconnect_s_max": 0.1, **changes})


class Files:
    """Blobs and manifests by their ids; a `BlobSource`, and what the server's end answers from."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, MountManifest] = {}
        self.fetched: list[str] = []

    def add(self, files: dict[str, bytes], mode: int = 0o644) -> str:
        rows = []
        for path, content in sorted(files.items()):
            sha256 = self._put(content)
            blocks: tuple[str, ...] = ()
            if len(content) > BLOCK_BYTES:
                cuts = range(0, len(content), BLOCK_BYTES)
                blocks = tuple(self._put(content[start : start + BLOCK_BYTES]) for start in cuts)
                del self.blobs[sha256]
            rows.append(MountFile(path, sha256, len(content), mode, blocks))
        made = MountManifest(tuple(rows))
        self.manifests[made.mount_id()] = made
        return made.mount_id()

    async def manifest(self, mount_id: str) -> MountManifest:
        if mount_id not in self.manifests:
            raise PlatformError(NOT_FOUND, f"no mount {mount_id}")
        return self.manifests[mount_id]

    async def fetch(self, file: MountFile, path: Path) -> None:
        self.fetched.append(file.sha256)
        path.write_bytes(b"".join(self.blobs[one] for one in file.blobs))

    def _put(self, content: bytes) -> str:
        sha256 = hashlib.sha256(content).hexdigest()
        self.blobs[sha256] = content
        return sha256


class Slots:
    """Network slots without a network."""

    def __init__(self) -> None:
        self.held: dict[str, NetworkSlot] = {}
        self.owners: dict[str, SlotOwner | None] = {}
        self.spoiled: list[str] = []
        self.retired: list[IdRange | None] = []
        self.env = {"http_proxy": "proxy.test:3128"}
        self.may_release = asyncio.Event()
        self.may_release.set()

    async def acquire(self, container_id: str, blocked: bool = False, owner: SlotOwner | None = None) -> NetworkSlot:
        self.owners[container_id] = owner
        env = {} if blocked else self.env
        return self.held.setdefault(
            container_id, NetworkSlot(container_id, "/proc/self/ns/net", "10.1.2.3/20", "10.1.0.1", "", env)
        )

    async def release(self, slot: NetworkSlot, *, is_spoiled: bool = False) -> None:
        await self.may_release.wait()
        self.held.pop(slot.name, None)
        if is_spoiled:
            self.spoiled.append(slot.name)

    def retire(self, id_range: IdRange | None = None) -> None:
        self.retired.append(id_range)

    def slot_of(self, container_id: str) -> NetworkSlot | None:
        return self.held.get(container_id)

    async def sweep(self, living: Sequence[str]) -> list[str]:
        gone = [container_id for container_id in self.held if container_id not in living]
        for container_id in gone:
            del self.held[container_id]
        return gone

    async def ensure_rules(self) -> bool:
        return False


class BuiltImages:
    """Images that are there at once, with one layer."""

    def __init__(self, layer: Path, config: ImageConfig | None = None) -> None:
        self._layer = str(layer)
        self._config = config or ImageConfig(python_path="/usr/bin/python3", python_version="3.11.2", layers=("ly-1",))
        self.built: list[str] = []
        self.gone: set[str] = set()

    async def build(
        self, spec: ImageSpec, on_event: Callable[[BuildEvent], None], secrets: Secrets | None = None, run_id: str = ""
    ) -> BuiltImage:
        on_event(BuildEvent("step", 1, 1, "a step"))
        on_event(BuildEvent("line", 1, 1, "some output"))
        self.built.append(image_id(spec))
        return BuiltImage(image_id(spec), (self._layer,), self._config)

    def find(self, spec: ImageSpec) -> BuiltImage | None:
        return None if image_id(spec) in self.gone else BuiltImage(image_id(spec), (self._layer,), self._config)

    def writers(self) -> Sequence[Writer]:
        return []

    def use_volumes(self, volumes: StepVolumes) -> None:
        """No step of it has any."""

    def over_disk(self, container_id: str, why: str) -> None:
        pass


@dataclass
class ServerEnd:
    """The server as an agent sees it: welcomes it, and keeps what it says."""

    files: Files = field(default_factory=Files)
    unwanted: tuple[str, ...] = ()
    hellos: list[NodeHello] = field(default_factory=list)
    exits: list[ContainerExited] = field(default_factory=list)
    told_images: list[tuple[str, ...]] = field(default_factory=list)
    put_images: list[str] = field(default_factory=list)
    reports: list[NodeReport] = field(default_factory=list)
    lines: list[LogEntry] = field(default_factory=list)
    container_channels: list[Channel] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    is_down: bool = False

    @property
    def peer(self) -> Peer:
        """The newest control channel."""
        return self.peers[-1]

    async def connect(self) -> Channel:
        if self.is_down:
            raise ConnectionRefusedError("the server is down")
        ours, theirs = MemoryChannel.pair()
        peer = Peer(ours, CODEC, self)
        self.peers.append(peer)
        peer.start()
        return theirs

    async def connect_container(self) -> Channel:
        ours, theirs = MemoryChannel.pair()
        self.container_channels.append(ours)
        return theirs

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        if request.method == "NodeHello":
            self.hellos.append(request.record(NodeHello))
            return NodeWelcome("sv-00000001", self.unwanted), b""
        if request.method == "MountGet":
            return await self.files.manifest(request.record(MountGet).mount_id), b""
        assert request.method == "BlobGet"
        asked = request.record(BlobGet)
        content = self.files.blobs[asked.sha256]
        self.files.fetched.append(asked.sha256)
        return BlobChunk(len(content), asked.offset), content[asked.offset : asked.offset + asked.length]

    def event(self, method: str, params: Any, body: bytes) -> None:
        if method == "ContainerExited":
            self.exits.append(CODEC.record(ContainerExited, params))
        elif method == "NodeImages":
            self.told_images.append(CODEC.record(NodeImages, params).image_ids)
        elif method == "NodeImagePut":
            self.put_images.append(CODEC.record(NodeImagePut, params).image_id)
        elif method == "NodeReport":
            self.reports.append(CODEC.record(NodeReport, params))
        elif method == "Logs":
            self.lines.extend(CODEC.record(LogBatch, params).entries)

    def closed(self, reason: str) -> None:
        pass


class Inbox:
    """A channel's receiver that keeps what comes."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.reason: str | None = None

    def frames_received(self, frames: list[Frame]) -> None:
        self.frames.extend(frames)

    def closed(self, reason: str) -> None:
        assert self.reason is None
        self.reason = reason


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the condition is anything, not an event
            await asyncio.sleep(0.005)


@asynccontextmanager
async def closing(channel: Channel) -> AsyncIterator[Channel]:
    try:
        yield channel
    finally:
        channel.close()
        await asyncio.sleep(0)


def is_spread(directory: Path) -> bool:
    """Whether `lsattr` would show a T for a directory; skips the test where the file system has no such flags."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        return bool(flags_of(descriptor) & 0x00020000)
    except OSError:
        pytest.skip(f"the file system of {directory} has no such flags")
    finally:
        os.close(descriptor)
