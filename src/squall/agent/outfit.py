"""What a container has of its node, from the layers it stands on to its network slot.

Everything is written down before it is taken, in the container's directory. It is given back in the same way whether a
start failed half-way, the container ended, or an earlier agent left it behind, and each step may be repeated.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from squall.agent.relay import ContainerSocket, Relay, TemplateOf
from squall.agent.spread import make_apart
from squall.agent.volume.volumes import NodeVolumes, places_of
from squall.protocol.errors import INVALID, NOT_FOUND, PlatformError
from squall.protocol.image import ImageConfig
from squall.protocol.node import ContainerStart
from squall.protocol.task_set import TaskSet
from squall.runtime.contract import Runtime
from squall.runtime.errors import JoinFailure, RuntimeFailure, SlotUnfit
from squall.runtime.network.owner import SlotOwner
from squall.runtime.spec import IdRange, NetworkSlot, Volume

# After these somebody may be in the network of a fork, and stay: who was told the way to it and has not become the
# container, or of whom nobody knows yet what has become. After all else, a template that has ended first of all, nobody
# is, and what was changed there is heard.
FAILURES_OF_A_SLOT = (JoinFailure, SlotUnfit, TimeoutError, asyncio.CancelledError)

REMOVE_AGAIN_S = (5.0, 60.0, 600.0)
"""After removals that failed; then in ever the last of these. Who is in the way, as a process that waits for a disk,
may have gone."""

_PYTHON = "begin with Image.debian_slim(), or give add_python= to the method that makes its base"

_log = logging.getLogger("squall.agent.outfit")


class Network(Protocol):
    """Where slots come from; `runtime.network.NetworkPool` is one."""

    async def acquire(self, container_id: str, blocked: bool = False, owner: SlotOwner | None = None) -> NetworkSlot:
        """A slot for this container; with an owner one that forks of its templates can enter."""

    async def release(self, slot: NetworkSlot, *, is_spoiled: bool = False) -> None:
        """Take a slot back; a spoiled one is given to nobody any more."""

    def retire(self, id_range: IdRange | None = None) -> None:
        """Give nobody any more what the owners of a range have now, or all owners."""

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
    volumes: NodeVolumes
    library: GuestLibrary
    relay: Relay
    logs: Logs
    log_sender: LogSender
    grave: Grave


@dataclass(slots=True, eq=False)
class Outfit:
    """What one container, template or cell has."""

    record: ContainerRecord
    directory: Path
    hold: Hold | None = None
    """On the layers it stands on."""
    socket: ContainerSocket | None = None
    slot_owner: SlotOwner | None = None
    """Of the network slot of a fork."""
    has_range: bool = False
    has_files: bool = False
    has_guest: bool = False
    """Its guest has introduced itself."""
    on_guest: Callable[[], None] | None = None
    """Called when it does for the first time."""
    has_served: bool = False
    """Something has come of an input."""
    on_output: Callable[[], None] | None = None
    """Called when it does for the first time."""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    """Of a clone, what it began with: no process was started with these, so the kernel does not know them."""

    @property
    def runtime_id(self) -> str:
        """What the runtime calls whose it is."""
        return self.record.runtime_id

    @property
    def owner(self) -> str:
        """Who its id range belongs to."""
        return self.record.range_owner or f"{self.record.app_id}/{self.record.function_id}"

    def guest_came(self) -> None:
        """Its guest has introduced itself, perhaps again."""
        if not self.has_guest:
            self.has_guest = True
            if self.on_guest is not None:
                self.on_guest()

    def output_came(self) -> None:
        """Its guest has sent something that came of an input."""
        self.has_served = True
        if self.on_output is not None:
            self.on_output()


class Outfits:
    """Makes them, and takes them back."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.volumes = services.volumes
        self._open: set[Outfit] = set()
        """Those with a socket."""
        self._tasks = TaskSet()
        self._leaving: collections.Counter[str] = collections.Counter()
        self._none_leaves = asyncio.Event()
        self._none_leaves.set()

    async def settled(self) -> None:
        """Return when nothing is on its way back."""
        await self._none_leaves.wait()

    def leaving(self) -> Iterable[str]:
        """What is on its way back, by the runtime's ids."""
        return self._leaving.keys()

    async def close(self) -> None:
        """Close all sockets. Whose they are lives on, and the next agent opens them again; it also removes what this
        one has not been able to."""
        await self._tasks.close()
        for outfit in list(self._open):
            await self._close_socket(outfit)

    async def take(
        self,
        outfit: Outfit,
        request: ContainerStart,
        clock: Phases,
        *,
        is_clone: bool = False,
        template_of: TemplateOf | None = None,
    ) -> tuple[ImageConfig, Provision]:
        """Take everything that a start needs. What fails half-way is to be given back.

        Args:
            is_clone: a fork is to live in it, whose volumes are opened when it begins.
            template_of: a template is.

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
        volumes: tuple[Volume, ...] = ()
        if request.volumes:
            if is_clone:
                volumes = places_of(request.volumes)
                await services.volumes.make_ready(outfit.runtime_id)
            else:
                volumes = await self.open_volumes(outfit, request, id_range)
            clock.mark("volumes")
        socket_dir = _make_directory(outfit.directory, outfit.record)
        record = outfit.record
        outfit.socket = services.relay.open(record.container_id, record.token_sha256, socket_dir, template_of)
        self._open.add(outfit)
        outfit.socket.on_guest, outfit.socket.on_output = outfit.guest_came, outfit.output_came
        await outfit.socket.start()
        clock.mark("directory")
        owner = SlotOwner(id_range, image.config.uid) if is_clone else None
        outfit.slot_owner = owner
        slot = await services.network.acquire(outfit.runtime_id, request.is_network_blocked, owner)
        clock.mark("network")
        paths = (str(outfit.directory), str(socket_dir), library_dir)
        return image.config, Provision(outfit.runtime_id, *paths, layers, id_range, slot, volumes)

    async def open_volumes(self, outfit: Outfit, request: ContainerStart, id_range: IdRange) -> tuple[Volume, ...]:
        """The versions of its volumes that a container sees from its beginning.

        Raises:
            PlatformError, OSError: one cannot be had.
        """
        if not request.volumes:
            return ()
        return await self.volumes.open(outfit.runtime_id, request.volumes, id_range, outfit.record.container_id)

    async def _take_image(self, outfit: Outfit) -> BuiltImage:
        """The image of a container, whose layers stay from now on until the container is gone."""
        outfit.hold = self._services.holds.begin(_user(outfit.record))
        image_id = outfit.record.image_id
        image = await self._services.images.get(image_id, outfit.hold)
        if image is None:
            message = f"cannot start {outfit.runtime_id}: image {image_id} is not on this node; build it"
            raise PlatformError(NOT_FOUND, message)
        if not image.config.python_path:
            message = f"image {image.image_id} has no Python on its PATH; {_PYTHON}"
            raise PlatformError(INVALID, f"cannot start {outfit.runtime_id}: {message}")
        outfit.record = replace(outfit.record, layers=image.layers)
        return image

    async def adopt(self, outfit: Outfit, template_of: TemplateOf | None = None) -> None:
        """Take what a container of an earlier agent has: first what nobody else is to get. May be repeated after a
        failure, or let go.

        Raises:
            FileNotFoundError: its directory is gone.
            OSError, RuntimeFailure: this agent lacks something, as descriptors.
        """
        services, record = self._services, outfit.record
        # It has spoken to the agent before, and served; at least nobody can say that it has not.
        outfit.has_guest = outfit.has_served = True
        if not outfit.has_range:
            services.volumes.adopt(outfit.runtime_id, services.ranges.acquire(outfit.owner))
            outfit.has_range = True
        if record.mount_set and not outfit.has_files:
            services.mounts.adopt(record.mount_set)
            outfit.has_files = True
        if outfit.hold is None:
            outfit.hold = services.holds.begin(_user(record))
        if not outfit.hold.add_paths(record.layers):
            _log.error("%s: runs on layers that are not here any more", record.container_id)
        if outfit.socket is None:
            opened = services.relay.open(
                record.container_id, record.token_sha256, outfit.directory / "agent", template_of
            )
            try:
                await opened.start()
            except BaseException:
                await opened.close()
                raise
            outfit.socket = opened
            self._open.add(outfit)

    async def let_go(self, outfit: Outfit) -> None:
        """Take an adopted outfit for none after all: its container cannot be adopted."""
        await self._close_socket(outfit)
        await self._give_back_counted(outfit)

    async def give_back(self, outfit: Outfit, failure: BaseException | None = None) -> bool:
        """Remove what the runtime has of the container, and take everything back; whether that is gone now.

        Raises nothing: what cannot be taken back is logged, and the rest is all the same. What the runtime cannot
        remove is tried again later, and has until then what it has: nobody else may get it.

        Args:
            failure: of the attempt to make something of it.
        """
        if await self._is_taken_away(outfit, failure):
            return True
        self._keep_ids(outfit)
        self._tasks.start(self._give_back_later(outfit, failure))
        return False

    async def _give_back_later(self, outfit: Outfit, failure: BaseException | None) -> None:
        for pause_s in itertools.chain(REMOVE_AGAIN_S, itertools.repeat(REMOVE_AGAIN_S[-1])):
            await asyncio.sleep(pause_s)
            if await self._is_taken_away(outfit, failure):
                _log.info("%s: is removed after all", outfit.runtime_id)
                return

    def _keep_ids(self, outfit: Outfit) -> None:
        """Also of what an earlier agent had: whose process may be left has the ids of its function."""
        if outfit.has_range:
            return
        try:
            self._services.ranges.acquire(outfit.owner)
            outfit.has_range = True
        except (RuntimeFailure, OSError) as error:
            _log.error("%s: its ids may become another function's while it is there: %s", outfit.runtime_id, error)

    async def _is_taken_away(self, outfit: Outfit, failure: BaseException | None) -> bool:
        """Try it; it is among those that leave meanwhile."""
        runtime_id = outfit.runtime_id
        self._leaving[runtime_id] += 1
        self._none_leaves.clear()
        try:
            return await self._take_away(outfit, failure)
        finally:
            self._leaving -= collections.Counter((runtime_id,))
            if not self._leaving:
                self._none_leaves.set()

    async def _take_away(self, outfit: Outfit, failure: BaseException | None) -> bool:
        """False where the runtime has it still."""
        services = self._services
        await self._close_socket(outfit)
        is_removed = False
        with _logged(outfit, "what the runtime has"):
            await services.runtime.remove(outfit.runtime_id)
            is_removed = True
        if not is_removed:
            # Without this nothing else may be taken away from it.
            return False
        with _logged(outfit, "its volumes"):
            await services.volumes.close(outfit.runtime_id)
        with _logged(outfit, "its network slot"):
            await self._give_back_slot(outfit, failure)
        with _logged(outfit, "its directory"):
            services.grave.bury(outfit.directory)
        await self._give_back_counted(outfit)
        return True

    async def _give_back_slot(self, outfit: Outfit, failure: BaseException | None) -> None:
        network = self._services.network
        slot = network.slot_of(outfit.runtime_id)
        if slot is not None:
            if isinstance(failure, SlotUnfit) and outfit.slot_owner is not None:
                # So are all that were made with it: the spawner that has made them, or a part of it, is gone.
                network.retire(outfit.slot_owner.id_range)
            await network.release(slot, is_spoiled=isinstance(failure, FAILURES_OF_A_SLOT))

    async def _close_socket(self, outfit: Outfit) -> None:
        self._open.discard(outfit)
        if outfit.socket is not None:
            with _logged(outfit, "its socket"):
                await outfit.socket.close()

    async def _give_back_counted(self, outfit: Outfit) -> None:
        """What others of the function may have as well."""
        services = self._services
        if outfit.hold is not None:
            with _logged(outfit, "its layers"):
                outfit.hold.release()
        if outfit.has_files:
            outfit.has_files = False
            with _logged(outfit, "its files"):
                await services.mounts.release(outfit.record.mount_set)
        if outfit.has_range:
            outfit.has_range = False
            with _logged(outfit, "its id range"):
                services.ranges.release(outfit.owner)


@contextlib.contextmanager
def _logged(outfit: Outfit, what: str) -> Iterator[None]:
    """While something is given back: whatever fails of it, the rest is as well."""
    try:
        yield
    except (RuntimeFailure, OSError) as error:
        _log.error("%s: cannot give back %s: %s", outfit.runtime_id, what, error)
    except Exception:  # noqa: BLE001 - whoever has ended is told of, whatever mistake of ours is found at it
        _log.exception("%s: cannot give back %s", outfit.runtime_id, what)


def _user(record: ContainerRecord) -> str:
    """Who holds the layers, in words."""
    return f"container {record.container_id}" if record.container_id else f"cell {record.cell_id}"


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
