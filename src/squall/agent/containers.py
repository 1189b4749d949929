"""Starts, watches, adopts and ends the containers of functions through the runtime.

    start: image, library, files ─▶ id range, slot, directory, record, socket ─▶ runtime ─▶ pipes to the logs
    end:   last lines ─▶ mounts and cgroup (runtime) ─▶ slot ─▶ directory ─▶ id range ─▶ ContainerExited

Everything a container has is written down before it is made. Removal goes the same way whether a start failed half-way,
the process ended, or an earlier agent left it behind, and each of its steps may be repeated.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from squall.agent.config import AgentConfig
from squall.agent.disk import Writer, disk_limit
from squall.agent.grave import Grave
from squall.agent.guest_library import GuestLibrary
from squall.agent.image.layer.holds import Hold, LayerHolds
from squall.agent.image.progress import BuiltImage
from squall.agent.known_images import KnownImages
from squall.agent.labels import BUILD_KIND, FUNCTION_KIND, KIND_LABEL
from squall.agent.launch import Provision, container_spec, memory_limit_mib
from squall.agent.log_sender import LogSender
from squall.agent.logs import Logs
from squall.agent.mounts import Mounts
from squall.agent.ranges import IdRanges
from squall.agent.record import ContainerRecord, read_record, write_record
from squall.agent.relay import ContainerSocket, Relay, token_hash
from squall.agent.spread import make_apart, spread_apart
from squall.protocol.errors import CONFLICT, INVALID, NOT_FOUND, UNAVAILABLE, UNSUPPORTED, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.node import ContainerExited, ContainerStart, ContainerStarted, NodeContainer
from squall.protocol.task_set import TaskSet
from squall.runtime.contract import Runtime, Started
from squall.runtime.errors import ContainerMissing, FeatureMissing, ProgramMissing, ProgramRefused, RuntimeFailure
from squall.runtime.spec import ContainerStatus, ExitStatus, NetworkSlot

_RESUBSCRIBE_S = 0.5
_REMOVED_S = 30.0
KILL_AGAIN_S = (0.5, 30.0)
"""Between two attempts to kill one that writes too much: at first, and at most."""
_LOST = ExitStatus(code=None, signal=int(signal.SIGKILL))

_log = logging.getLogger("squall.agent.containers")


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


_PYTHON = "begin with Image.debian_slim(), or give add_python= to the method that makes its base"


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
class Container:
    """One container of a function, from the request for it to the last trace of it."""

    record: ContainerRecord
    directory: Path
    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its start has ended, well or not."""
    removed: asyncio.Event = field(default_factory=asyncio.Event)
    socket: ContainerSocket | None = None
    has_range: bool = False
    has_files: bool = False
    hold: Hold | None = None
    """On the layers it stands on."""
    is_running: bool = False
    has_exited: bool = False
    pid: int = 0
    over_disk: str = ""
    """Why it was ended for what it wrote."""
    phase_ms: dict[str, float] = field(default_factory=dict)

    @property
    def container_id(self) -> str:
        """Its id."""
        return self.record.container_id

    @property
    def owner(self) -> str:
        """Who its id range belongs to."""
        return f"{self.record.app_id}/{self.record.function_id}"


class Containers:
    """The containers of this node's functions.

    Args:
        on_exit: told once for each container that ran, when nothing of it is left.
    """

    def __init__(self, config: AgentConfig, services: Services, on_exit: Callable[[ContainerExited], None]) -> None:
        self._config = config
        self._services = services
        self._on_exit = on_exit
        self._known: dict[str, Container] = {}
        self._tasks = TaskSet()
        self._is_taken_down = False

    def running(self) -> tuple[NodeContainer, ...]:
        """Those that run now."""
        return tuple(
            NodeContainer(known.container_id, known.record.function_id, known.record.app_id, known.record.version)
            for known in self._known.values()
            if known.is_running and not known.has_exited
        )

    def is_running(self, container_id: str) -> bool:
        """Whether a container's first process runs."""
        known = self._known.get(container_id)
        return known is not None and known.is_running and not known.has_exited

    async def start(self, request: ContainerStart) -> ContainerStarted:
        """Start a container. Repeating it for one that runs is harmless.

        Raises:
            PlatformError: see `ContainerStart`; nothing of the container is left then.
        """
        if not is_id(request.container_id, "ct"):
            raise PlatformError("invalid", f"cannot start {request.container_id!r}: not the id of a container")
        if self._is_taken_down:
            raise PlatformError(UNAVAILABLE, f"cannot start {request.container_id}: this node is being taken down")
        known = self._known.get(request.container_id)
        if known is not None:
            await known.started.wait()
            if known.is_running and not known.has_exited:
                return ContainerStarted(dict(known.phase_ms))
            raise PlatformError(CONFLICT, f"cannot start {request.container_id}: it has ended; start one of another id")
        token = secrets.token_urlsafe(32)
        record = ContainerRecord(
            request.container_id,
            request.app_id,
            request.function_id,
            request.image_id,
            token_hash(token),
            disk_mib=request.resources.disk_mib,
            version=request.version,
            memory_limit_mib=memory_limit_mib(self._config, request.resources),
        )
        container = Container(record, self._config.containers_dir / request.container_id)
        self._known[request.container_id] = container
        try:
            await self._make(container, request, token)
        except BaseException as error:
            container.started.set()
            # Shielded: a start that is given up half-way must not leave half a container.
            await asyncio.shield(self._tasks.start(self._remove(container)))
            failure = _as_platform_error(request, error)
            if failure is None:
                raise
            raise failure from error
        return ContainerStarted(dict(container.phase_ms))

    async def end(self, container_id: str, grace_s: float) -> None:
        """End a container and return when nothing of it is left. An unknown one is no error."""
        container = self._known.get(container_id)
        if container is None:
            return
        await container.started.wait()
        runtime = self._services.runtime
        try:
            if grace_s > 0 and not container.has_exited:
                await runtime.kill(container_id, signal.SIGTERM)
                if await _happens(container.removed, grace_s):
                    return
            if not container.has_exited:
                await runtime.kill(container_id, signal.SIGKILL)
        except ContainerMissing:
            # It ended by itself; what is left of it is being removed.
            _log.debug("%s: has ended already", container_id)
        if not await _happens(container.removed, _REMOVED_S):
            message = (
                f"container {container_id} was killed but is not gone after {_REMOVED_S:.0f} s; see the node's log"
            )
            raise PlatformError(UNAVAILABLE, message)

    async def end_all(self, grace_s: float) -> None:
        """End every container, those that are starting too, and start no more: the server, which does not know yet,
        would put others in their place."""
        self._is_taken_down = True
        await asyncio.gather(*(self.end(container_id, grace_s) for container_id in self._known), return_exceptions=True)

    async def adopt(self) -> None:
        """Take over what an earlier agent started, and remove what it left behind. Comes before anything else."""
        services = self._services
        self._config.containers_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        spread_apart(self._config.containers_dir)
        for status in await services.runtime.list():
            if status.labels.get(KIND_LABEL) == BUILD_KIND:
                continue  # the image builder's
            if not await self._adopt_one(status):
                _log.info("%s: left by an earlier agent without a record; removed", status.container_id)
                await services.runtime.remove(status.container_id)
        for path in self._config.containers_dir.iterdir():
            if path.name not in self._known:
                await services.runtime.remove(path.name)
                services.grave.bury(path)
        await services.network.sweep(tuple(self._known))

    async def watch(self) -> None:
        """Follow exits for ever; what was missed while the spawner could not be reached is found by asking."""
        while True:
            try:
                await self._find_lost()
                async for container_id, status in self._services.runtime.exits():
                    container = self._known.get(container_id)
                    if container is not None:
                        self._ended(container, status)
            except RuntimeFailure as error:
                _log.warning("cannot follow the containers' exits: %s; trying again", error)
            await asyncio.sleep(_RESUBSCRIBE_S)

    async def settle(self, timeout_s: float) -> None:
        """Wait until those that have ended are gone, so that nothing of them is left to the next agent."""
        ended = [known.removed.wait() for known in self._known.values() if known.has_exited]
        if ended:
            await _all_happen(ended, timeout_s)

    async def close(self) -> None:
        """Let go of the containers; they run on."""
        await self._tasks.close()
        for container in self._known.values():
            if container.socket is not None:
                await container.socket.close()

    # Start

    async def _make(self, container: Container, request: ContainerStart, token: str) -> None:
        services = self._services
        clock = _Phases(container.phase_ms)
        image = await self._take_image(container)
        library_dir = await services.library.get(image.layers, image.config, image.image_id)
        layers: tuple[str, ...] = image.layers
        if request.mounts:
            files = await services.mounts.acquire(request.mounts, image.layers)
            container.has_files = True
            container.record = replace(container.record, mount_set=files.name)
            layers = (*layers, files.path)
        clock.mark("files")
        id_range = services.ranges.acquire(container.owner)
        container.has_range = True
        socket_dir = _make_directory(container.directory, container.record)
        container.socket = services.relay.open(container.container_id, container.record.token_sha256, socket_dir)
        await container.socket.start()
        clock.mark("directory")
        slot = await services.network.acquire(container.container_id, request.is_network_blocked)
        clock.mark("network")
        provision = Provision(str(container.directory), str(socket_dir), library_dir, layers, id_range, slot, token)
        started = await services.runtime.start(container_spec(self._config, request, image.config, provision))
        clock.mark("runtime")
        container.phase_ms.update({f"runtime_{name}": took for name, took in started.phase_ms.items()})
        self._is_up(container, started)

    async def _take_image(self, container: Container) -> BuiltImage:
        """The image of a container, whose layers stay from now on until the container is gone."""
        images = self._services.images
        container.hold = self._services.holds.begin(f"container {container.container_id}")
        image_id = container.record.image_id
        image = await images.get(image_id, container.hold)
        if image is None:
            message = f"cannot start {container.container_id}: image {image_id} is not on this node; build it"
            raise PlatformError(NOT_FOUND, message)
        if not image.config.python_path:
            message = f"image {image.image_id} has no Python on its PATH; {_PYTHON}"
            raise PlatformError(INVALID, f"cannot start {container.container_id}: {message}")
        container.record = replace(container.record, layers=image.layers)
        return image

    def _is_up(self, container: Container, started: Started) -> None:
        record = container.record
        catch_up = self._services.logs.add(
            record.container_id, record.app_id, record.function_id, started.stdout_fd, started.stderr_fd
        )
        assert container.socket is not None
        container.socket.ahead = functools.partial(self._services.log_sender.ahead, catch_up)
        container.pid = started.pid
        container.is_running = True
        container.started.set()

    # What they write

    def writers(self) -> list[Writer]:
        """Those whose writing is to be watched."""
        return [
            Writer(one.container_id, (str(one.directory / "rw"),), one.pid, disk_limit(one.record.disk_mib))
            for one in self._known.values()
            if one.is_running and not one.has_exited and not one.over_disk
        ]

    def over_disk(self, container_id: str, why: str) -> None:
        """End a container for what it has written, if it is one of these."""
        container = self._known.get(container_id)
        if container is not None and not container.has_exited:
            container.over_disk = why
            self._tasks.start(self._kill(container))

    async def _kill(self, container: Container) -> None:
        """Kill a container that nobody looks at any more, again and again until it has ended."""
        pause_s, pause_s_max = KILL_AGAIN_S
        while not container.has_exited:
            try:
                await self._services.runtime.kill(container.container_id, signal.SIGKILL)
            except ContainerMissing:
                return
            except RuntimeFailure as error:
                _log.warning("%s: cannot be killed: %s; trying again", container.container_id, error)
            if await _happens(container.removed, pause_s):
                return
            if pause_s == pause_s_max and not container.has_exited:
                _log.error("%s: goes on writing though it was killed: %s", container.container_id, container.over_disk)
            pause_s = min(2 * pause_s, pause_s_max)

    # Adoption

    async def _adopt_one(self, status: ContainerStatus) -> bool:
        services = self._services
        directory = self._config.containers_dir / status.container_id
        record = read_record(directory)
        if status.labels.get(KIND_LABEL) != FUNCTION_KIND or record is None:
            return False
        socket: ContainerSocket | None = None
        try:
            # The socket first: what may fail comes before there are descriptors to lose.
            socket = services.relay.open(record.container_id, record.token_sha256, directory / "agent")
            await socket.start()
            started = await services.runtime.adopt(status.container_id)
        except (ContainerMissing, OSError) as error:
            _log.warning("%s: cannot be adopted: %s", status.container_id, error)
            if socket is not None:
                await socket.close()
            return False
        hold = services.holds.begin(f"container {record.container_id}")
        if not hold.add_paths(record.layers):
            _log.error("%s: runs on layers that are not here any more", record.container_id)
        container = Container(record, directory, socket=socket, has_range=True, hold=hold)
        services.ranges.acquire(container.owner)
        if record.mount_set:
            services.mounts.adopt(record.mount_set)
            container.has_files = True
        self._known[record.container_id] = container
        self._is_up(container, started)
        return True

    # End

    def _ended(self, container: Container, status: ExitStatus) -> None:
        if not container.has_exited:
            container.has_exited = True
            self._tasks.start(self._bury(container, status))

    async def _find_lost(self) -> None:
        """Take containers that the spawner does not know (it was killed) for ended."""
        before = [known for known in self._known.values() if known.is_running and not known.has_exited]
        there = {status.container_id for status in await self._services.runtime.list()}
        for container in before:
            if container.container_id not in there:
                self._ended(container, _LOST)

    async def _bury(self, container: Container, status: ExitStatus) -> None:
        # A process may end before the answer to its start is here.
        await container.started.wait()
        if not container.is_running:
            return
        self._services.logs.finish(container.container_id)
        await self._remove(container)
        self._on_exit(
            ContainerExited(
                container.container_id,
                status.code,
                status.signal,
                status.is_oom,
                is_lost=status is _LOST,
                over_disk=container.over_disk,
                memory_limit_mib=container.record.memory_limit_mib,
            )
        )

    async def _remove(self, container: Container) -> None:
        services = self._services
        if container.socket is not None:
            await container.socket.close()
        try:
            await services.runtime.remove(container.container_id)
        except RuntimeFailure as error:
            # Without this nothing else may be taken away from it; the next agent's sweep tries again.
            _log.error("%s: %s", container.container_id, error)
            del self._known[container.container_id]
            container.removed.set()
            return
        slot = services.network.slot_of(container.container_id)
        if slot is not None:
            await services.network.release(slot)
        if container.hold is not None:
            container.hold.release()
        services.grave.bury(container.directory)
        if container.has_files:
            await services.mounts.release(container.record.mount_set)
        if container.has_range:
            services.ranges.release(container.owner)
        del self._known[container.container_id]
        container.removed.set()


class _Phases:
    """Durations of the stretches of a start."""

    def __init__(self, phase_ms: dict[str, float]) -> None:
        self._phase_ms = phase_ms
        self._last = time.monotonic()

    def mark(self, name: str) -> None:
        """A stretch ends here."""
        now = time.monotonic()
        self._phase_ms[name] = round((now - self._last) * 1_000, 3)
        self._last = now


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


def _as_platform_error(request: ContainerStart, error: BaseException) -> PlatformError | None:
    """What the server is to hear about a failed start; None for what is not for it."""
    if isinstance(error, PlatformError):
        return error
    what = f"cannot start container {request.container_id}: "
    cause = str(error).removeprefix(what)
    if isinstance(error, ProgramMissing | ProgramRefused):
        # The image's fault, and the same at every attempt.
        cause = cause.partition(";")[0]
        remedy = "see that its steps neither remove nor replace the base's Python, and that its entrypoint is there"
        return PlatformError(INVALID, f"{what}image {request.image_id} cannot run its Python ({cause}); {remedy}")
    if isinstance(error, FeatureMissing):
        return PlatformError(UNSUPPORTED, f"{what}{cause}")
    if isinstance(error, RuntimeFailure | OSError):
        # Not "exhausted": the server would wait for capacity that no ending container gives back.
        is_full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "ENOSPC" in str(error)
        hint = "; free space in the data directory's file system, or move it" if is_full else ""
        return PlatformError(UNAVAILABLE, f"{what}{cause}{hint}")
    return None


async def _all_happen(waits: Sequence[Coroutine[Any, Any, Any]], timeout_s: float) -> None:
    try:
        await asyncio.wait_for(asyncio.gather(*waits), timeout_s)
    except TimeoutError:
        _log.warning("%d containers that ended are not gone after %g s", len(waits), timeout_s)


async def _happens(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), timeout_s)
    except TimeoutError:
        return False
    return True
