"""Runs the container of a step to its end, or for as long as somebody looks around in one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from squall.agent.bucket import buckets_of, files_dir
from squall.agent.disk import NO_LIMIT, DiskLimit, Writer, limit_of
from squall.agent.image.ending import to_the_end
from squall.agent.image.making import BuildFailed, Making
from squall.agent.image.output import StepOutput
from squall.agent.image.unreached import REMEDY, unreached
from squall.agent.labels import BUILD_KIND, KIND_LABEL
from squall.protocol import image
from squall.protocol.bucket import BucketStart, keys_in, keys_problem
from squall.protocol.errors import INTERNAL, INVALID, TIMED_OUT, UNAVAILABLE, PlatformError
from squall.protocol.volume import VolumeMount
from squall.runtime.contract import Runtime, Started
from squall.runtime.errors import ProgramMissing, ProgramRefused, RuntimeFailure, SubPathMissing
from squall.runtime.spec import ContainerSpec, ExitStatus, IdRange, NetworkSlot, Volume

LONGER = "give the steps of this node longer with SQUALL_STEP_TIMEOUT_S (0: for ever)"
_EXIT_POLL_S = (0.002, 0.25)
_LATER = "what this wrote to its volumes is not committed yet, so later steps may not see it; the node tries again"


class Network(Protocol):
    """Where build containers get their network from."""

    async def acquire(self, container_id: str) -> NetworkSlot:
        """A slot for this container alone."""

    async def release(self, slot: NetworkSlot) -> None:
        """Give it back, once the container is gone."""


class StepVolumes(Protocol):
    """The volumes of this node."""

    async def open_now(
        self, runtime_id: str, mounts: Sequence[VolumeMount], id_range: IdRange, writer: str
    ) -> tuple[Volume, ...]:
        """What the runtime is to mount for a container: the versions that its volumes have now.

        Args:
            writer: who the history says has written what it writes.

        Raises:
            PlatformError: a version cannot be had.
            OSError: the disk takes no more.
        """

    async def close_now(self, runtime_id: str) -> bool:
        """The container is gone: commit what it has written. False where that is done later, as by the next agent.

        Nothing to do for one that has none.
        """


class OverDisk(Exception):
    """A container was ended for what it wrote; the message says how much, and what to do about it."""


@dataclass(frozen=True, slots=True)
class Room:
    """Where a step can write, and how much."""

    folders: tuple[str, ...]
    limit: DiskLimit | None = None
    """None: that of all steps."""
    more: str = "give the steps of this node more with SQUALL_STEP_BYTES_MAX"
    """How the limit is raised."""


@dataclass(frozen=True, slots=True)
class Mounting:
    """The volumes and buckets of a container."""

    mounts: tuple[VolumeMount, ...] = ()
    writer: str = ""
    """See `StepVolumes.open_now`."""
    on_delay: Callable[[], None] = lambda: None
    """Called when what it has written is committed later than at its end."""
    buckets: tuple[BucketStart, ...] = ()


@dataclass(slots=True)
class _Running:
    """The container of a step, while it runs."""

    writers: tuple[Writer, ...]
    timeout: asyncio.Timeout
    over_disk: str = ""
    """Why it is ended before its time."""


class StepContainers:
    """The build containers of a node.

    Args:
        timeout_s: how long a step may take that says nothing of it. None: for ever.
        disk_bytes_max: what one step may have on the disk, with all it will delete again.
    """

    def __init__(self, runtime: Runtime, network: Network, timeout_s: float | None, disk_bytes_max: int) -> None:
        self._runtime = runtime
        self._network = network
        self.timeout_s = timeout_s
        self.bytes_max = disk_bytes_max
        self._disk_limit = limit_of(disk_bytes_max)
        self._running: dict[str, _Running] = {}
        self.volumes: StepVolumes | None = None
        """Set by the agent, which has them."""

    def writers(self) -> list[Writer]:
        """Those that run now, for whoever watches what is written."""
        return [one for running in self._running.values() if not running.over_disk for one in running.writers]

    def over_disk(self, container_id: str, why: str) -> None:
        """End a step for what it has written, if it still runs."""
        running = self._running.get(container_id)
        if running is not None and not running.over_disk and not running.timeout.expired():
            running.over_disk = why
            running.timeout.reschedule(asyncio.get_running_loop().time())

    async def remove_left(self) -> None:
        """Remove those of an agent that was killed."""
        for status in await self._runtime.list():
            if status.labels.get(KIND_LABEL) == BUILD_KIND:
                await self._runtime.remove(status.container_id)

    @contextlib.asynccontextmanager
    async def opened(
        self,
        spec: ContainerSpec,
        own: Mapping[str, str],
        room: Room,
        timeout_s: float | None = None,
        mounting: Mounting = Mounting(),
    ) -> AsyncIterator[tuple[Started, Mapping[str, str]]]:
        """A container with a network for as long as the block takes; nothing of it but its files is left, and what it
        has written to volumes is committed, however the block ends.

        Gives it with the variables that its first process has.

        Args:
            own: variables that count above those of the machine and the network.
            room: where it can write, and how much.

        Raises:
            OverDisk: it wrote too much; the block was cancelled.
            TimeoutError: the block took too long.
            PlatformError: a volume cannot be had.
            OSError: the disk takes no more.
        """
        slot = await self._network.acquire(spec.container_id)
        try:
            # A proxy on the machine's loopback has another address inside, which the slot knows. The user's word counts
            # above both.
            env = {**spec.env, **slot.env, **own}
            volumes = await self._open(spec, mounting)
            buckets = buckets_of(mounting.buckets)
            started = await self._runtime.start(replace(spec, env=env, network=slot, volumes=volumes, buckets=buckets))
            try:
                async with asyncio.timeout(timeout_s) as timeout:
                    self._running[spec.container_id] = _Running(
                        tuple(self._writers_of(spec, room, started, volumes)), timeout
                    )
                    yield started, env
            finally:
                os.close(started.stdout_fd)
                os.close(started.stderr_fd)
        except TimeoutError:
            running = self._running.get(spec.container_id)
            if running is not None and running.over_disk:
                raise OverDisk(running.over_disk) from None
            raise
        finally:
            self._running.pop(spec.container_id, None)
            # A shell is cancelled by its end and by that of its connection.
            await to_the_end(self._take_back(spec.container_id, slot, mounting))

    async def _take_back(self, container_id: str, slot: NetworkSlot, mounting: Mounting) -> None:
        await self._runtime.remove(container_id)
        try:
            await self._network.release(slot)
        finally:
            await self._close(container_id, mounting)

    def _writers_of(
        self, spec: ContainerSpec, room: Room, started: Started, volumes: Sequence[Volume]
    ) -> Iterator[Writer]:
        yield Writer(spec.container_id, room.folders, started.pid, room.limit or self._disk_limit, room.more)
        written = tuple(volume.writable for volume in volumes if volume.writable)
        if written:
            yield Writer(spec.container_id, written, started.pid, NO_LIMIT, place="volumes")
        for number, pid in enumerate(started.bucket_pids):
            files = files_dir(Path(spec.state_dir), number)
            yield Writer(spec.container_id, (files,), pid, NO_LIMIT, place=f"bucket {number}")

    async def _open(self, spec: ContainerSpec, mounting: Mounting) -> tuple[Volume, ...]:
        if not mounting.mounts:
            return ()
        if self.volumes is None:
            raise PlatformError(UNAVAILABLE, "this node has no volumes")
        return await self.volumes.open_now(spec.container_id, mounting.mounts, spec.id_range, mounting.writer)

    async def _close(self, container_id: str, mounting: Mounting) -> None:
        """Of a container that is gone: one that could not be removed goes on, and is committed in the background."""
        if mounting.mounts and self.volumes is not None and not await self.volumes.close_now(container_id):
            mounting.on_delay()

    async def run(
        self,
        making: Making,
        spec: ContainerSpec,
        on_line: Callable[[str], None],
        room: Room,
    ) -> None:
        """Run a step's container to its end; nothing of it but its files is left.

        Args:
            room: where it can write, and how much.

        Raises:
            BuildFailed: it did not end well.
        """
        output = StepOutput(on_line, making.hidden)
        began_at = time.monotonic()
        own = {**making.progress.config.env, **making.step.env, **making.secret_env}
        timeout_s = making.step.timeout_s or self.timeout_s
        mounting = Mounting(
            making.step.volumes, image.image_id(making.spec), lambda: making.on_line(_LATER), _buckets_of(making)
        )
        try:
            async with self.opened(spec, own, room, timeout_s, mounting) as (started, _):
                await asyncio.gather(output.read(started.stdout_fd), output.read(started.stderr_fd))
                status = await self._exit_of(spec.container_id)
        except OverDisk as error:
            raise making.failure(INVALID, f"was ended: {error}", output.tail, "then build again") from None
        except BuildFailed:
            raise
        except PlatformError as error:
            cause = f"cannot mount its volumes: {error.message}"
            raise making.failure(error.code, cause, "", "see `squall volume list`") from error
        except RuntimeFailure as error:
            raise _not_run(making, error) from error
        except TimeoutError:
            cause = f"did not end within {timeout_s:g} s"
            remedy = "give it a longer timeout=" if making.step.timeout_s else f"split the step, or {LONGER}"
            raise making.failure(TIMED_OUT, cause, output.tail, remedy) from None
        output.finish()
        if status.code != 0:
            cause = f"failed after {time.monotonic() - began_at:.1f} s with {_described(status)}"
            if absent := unreached(output.tail):
                raise making.failure(UNAVAILABLE, f"{cause}: {absent}", output.tail, REMEDY)
            raise making.failure(INVALID, cause, output.tail, "correct the step and build again")

    async def _exit_of(self, container_id: str) -> ExitStatus:
        """The end of a container whose output has ended: normally there already."""
        # Asked for, not taken from `exits()`: that stream belongs to the agent, and has each exit only once.
        pause_s = _EXIT_POLL_S[0]
        while True:
            known = {status.container_id: status for status in await self._runtime.list()}
            if container_id not in known:
                raise BuildFailed(UNAVAILABLE, f"build container {container_id} was removed by somebody; build again")
            ended = known[container_id].exit_status
            if ended is not None:
                return ended
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _EXIT_POLL_S[1])


def _buckets_of(making: Making) -> tuple[BucketStart, ...]:
    starts = []
    for mount in making.step.buckets:
        keys = {}
        if mount.secret_id:
            keys = keys_in(making.secrets.get(mount.secret_id, {}))
            if problem := keys_problem(keys):
                raise making.failure(INVALID, f"cannot mount bucket {mount.bucket}: {problem}", "", "see its secret=")
        starts.append(BucketStart(mount, keys))
    return tuple(starts)


def _not_run(making: Making, error: RuntimeFailure) -> BuildFailed:
    """The error of a step whose container could not be started."""
    if isinstance(error, ProgramMissing | ProgramRefused):
        remedy = "put that program into the image in an earlier step, or begin with an image that has it"
        return making.failure(INVALID, f"could not run: {error}", "", remedy)
    if isinstance(error, SubPathMissing):
        return making.failure(INVALID, f"could not run: {error}", "", "then build again")
    return making.failure(
        INTERNAL, f"could not run: {error}", "", "build again; `squall doctor` says what is missing here"
    )


def _described(status: ExitStatus) -> str:
    if status.is_oom:
        return "out of memory"
    if status.signal is not None:
        return f"signal {signal.Signals(status.signal).name}"
    return f"exit status {status.code}"
