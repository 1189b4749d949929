"""What a container has of its node, from the layers it stands on to its network slot.

Everything is written down before it is taken, in the container's directory. It is given back in the same way whether a
start failed half-way, the container ended, or an earlier agent left it behind, and each step may be repeated.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from squall.agent.grave import Grave
from squall.agent.guest_library import GuestLibrary
from squall.agent.image.layer.holds import Hold, LayerHolds
from squall.agent.image.progress import BuiltImage
from squall.agent.known_images import KnownImages
from squall.agent.launch import Provision
from squall.agent.log_sender import LogSender
from squall.agent.logs import Logs
from squall.agent.mounts import Mounts
from squall.agent.phases import Phases
from squall.agent.ranges import IdRanges
from squall.agent.record import ContainerRecord, write_record
from squall.agent.relay import ContainerSocket, Relay
from squall.agent.spread import make_apart
from squall.protocol.errors import INVALID, NOT_FOUND, PlatformError
from squall.protocol.image import ImageConfig
from squall.protocol.node import ContainerStart
from squall.runtime.contract import Runtime
from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import NetworkSlot

_PYTHON = "begin with Image.debian_slim(), or give add_python= to the method that makes its base"

_log = logging.getLogger("squall.agent.outfit")


class Network(Protocol):
    """Where slots come from; `runtime.network.NetworkPool` is one."""

    async def acquire(self, container_id: str, blocked: bool = False) -> NetworkSlot:
        """A slot for this container."""

    async def release(self, slot: NetworkSlot) -> None:
        """Take a slot back."""

    def slot_of(self, container_id: str) -> NetworkSlot | None:
        """The slot a container holds."""

    async def sweep(self, living: Sequence[str]) -> list[str]:
        """Release the slots of all other containers."""

    async def ensure_rules(self) -> bool:
        """Load the firewall's rules again if somebody flushed them; True when they were gone."""


@dataclass(frozen=True, slots=True)
class Services:
    """What containers are made with."""

    runtime: Runtime
    network: Network
    images: KnownImages
    holds: LayerHolds
    ranges: IdRanges
    mounts: Mounts
    library: GuestLibrary
    relay: Relay
    logs: Logs
    log_sender: LogSender
    grave: Grave


@dataclass(slots=True)
class Outfit:
    """What one container has."""

    record: ContainerRecord
    directory: Path
    hold: Hold | None = None
    """On the layers it stands on."""
    socket: ContainerSocket | None = None
    has_range: bool = False
    has_files: bool = False

    @property
    def container_id(self) -> str:
        """Whose it is."""
        return self.record.container_id

    @property
    def owner(self) -> str:
        """Who its id range belongs to."""
        return f"{self.record.app_id}/{self.record.function_id}"


class Outfits:
    """Makes them, and takes them back."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def take(
        self, outfit: Outfit, request: ContainerStart, token: str, clock: Phases
    ) -> tuple[ImageConfig, Provision]:
        """Take everything that a start needs. What fails half-way is to be given back.

        Raises:
            PlatformError: the image or a mount cannot be had or used.
            RuntimeFailure, OSError: the machine refuses.
        """
        services = self._services
        image = await self._take_image(outfit)
        library_dir = await services.library.get(image.layers, image.config, image.image_id)
        layers: tuple[str, ...] = image.layers
        if request.mounts:
            files = await services.mounts.acquire(request.mounts, image.layers)
            outfit.has_files = True
            outfit.record = replace(outfit.record, mount_set=files.name)
            layers = (*layers, files.path)
        clock.mark("files")
        id_range = services.ranges.acquire(outfit.owner)
        outfit.has_range = True
        socket_dir = _make_directory(outfit.directory, outfit.record)
        outfit.socket = services.relay.open(outfit.container_id, outfit.record.token_sha256, socket_dir)
        await outfit.socket.start()
        clock.mark("directory")
        slot = await services.network.acquire(outfit.container_id, request.is_network_blocked)
        clock.mark("network")
        provision = Provision(str(outfit.directory), str(socket_dir), library_dir, layers, id_range, slot, token)
        return image.config, provision

    async def _take_image(self, outfit: Outfit) -> BuiltImage:
        """The image of a container, whose layers stay from now on until the container is gone."""
        outfit.hold = self._services.holds.begin(f"container {outfit.container_id}")
        image_id = outfit.record.image_id
        image = await self._services.images.get(image_id, outfit.hold)
        if image is None:
            message = f"cannot start {outfit.container_id}: image {image_id} is not on this node; build it"
            raise PlatformError(NOT_FOUND, message)
        if not image.config.python_path:
            message = f"image {image.image_id} has no Python on its PATH; {_PYTHON}"
            raise PlatformError(INVALID, f"cannot start {outfit.container_id}: {message}")
        outfit.record = replace(outfit.record, layers=image.layers)
        return image

    async def adopt(self, record: ContainerRecord, directory: Path) -> Outfit:
        """What a container of an earlier agent has.

        Raises:
            OSError: its directory is gone or full; nothing is taken.
        """
        services = self._services
        socket = services.relay.open(record.container_id, record.token_sha256, directory / "agent")
        await socket.start()
        hold = services.holds.begin(f"container {record.container_id}")
        if not hold.add_paths(record.layers):
            _log.error("%s: runs on layers that are not here any more", record.container_id)
        outfit = Outfit(record, directory, hold, socket, has_range=True)
        services.ranges.acquire(outfit.owner)
        if record.mount_set:
            services.mounts.adopt(record.mount_set)
            outfit.has_files = True
        return outfit

    async def let_go(self, outfit: Outfit) -> None:
        """Take an adopted outfit for none after all: its container cannot be adopted."""
        if outfit.socket is not None:
            await outfit.socket.close()
        await self._give_back_counted(outfit)

    async def give_back(self, outfit: Outfit) -> None:
        """Remove what the runtime has of the container, and take everything back."""
        services = self._services
        if outfit.socket is not None:
            await outfit.socket.close()
        try:
            await services.runtime.remove(outfit.container_id)
        except RuntimeFailure as error:
            # Without this nothing else may be taken away from it; the next agent's sweep tries again.
            _log.error("%s: %s", outfit.container_id, error)
            return
        slot = services.network.slot_of(outfit.container_id)
        if slot is not None:
            await services.network.release(slot)
        services.grave.bury(outfit.directory)
        await self._give_back_counted(outfit)

    async def _give_back_counted(self, outfit: Outfit) -> None:
        """What others of the function may have as well."""
        services = self._services
        if outfit.hold is not None:
            outfit.hold.release()
        if outfit.has_files:
            outfit.has_files = False
            await services.mounts.release(outfit.record.mount_set)
        if outfit.has_range:
            outfit.has_range = False
            services.ranges.release(outfit.owner)


def _make_directory(directory: Path, record: ContainerRecord) -> Path:
    """The container's directory with its record; returns the one for its socket."""
    # Closed to everybody but root: what is in it reaches the container by mounts made before it loses its rights.
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_apart(directory)
    write_record(directory, record)
    socket_dir = directory / "agent"
    socket_dir.mkdir(mode=0o755)
    os.chmod(socket_dir, 0o755)
    return socket_dir
