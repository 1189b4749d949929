"""Starts, watches, adopts and ends the containers of functions through the runtime.

    start: what it has (`outfit.py`) ─▶ runtime ─▶ pipes to the logs
    end:   last lines ─▶ mounts and cgroup (runtime) ─▶ slot ─▶ directory ─▶ id range ─▶ ContainerExited

Everything a container has is written down before it is made. Removal goes the same way whether a start failed half-way,
the process ended, or an earlier agent left it behind, and each of its steps may be repeated.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from squall.agent.bucket import files_dir
from squall.agent.config import AgentConfig
from squall.agent.container import Container
from squall.agent.disk import NO_LIMIT, Writer, disk_limit
from squall.agent.exec import Inside
from squall.agent.labels import BUILD_KIND, FUNCTION_KIND, KIND_LABEL
from squall.agent.launch import record_of
from squall.agent.outfit import Outfit, Outfits, Services
from squall.agent.record import ContainerRecord, await_record, read_record
from squall.agent.relay import token_hash
from squall.agent.spread import spread_apart
from squall.agent.start_errors import as_platform_error
from squall.agent.starts import Starts
from squall.agent.template.faults import Ending
from squall.agent.template.templates import Templates
from squall.protocol.errors import CONFLICT, UNAVAILABLE, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.node import ContainerExited, ContainerStart, ContainerStarted, NodeContainer
from squall.protocol.task_set import TaskSet
from squall.runtime.contract import Started
from squall.runtime.errors import ContainerMissing, RuntimeFailure
from squall.runtime.spec import ContainerStatus, ExitStatus

_RESUBSCRIBE_S = 0.5
_REMOVED_S = 30.0
END_ALL_S = 30.0
"""For all of a node to be gone, on top of the grace they have."""
ADOPT_AGAIN_S = (5.0, 60.0)
"""Between two attempts to take over one that runs: at first, and at most."""
KILL_AGAIN_S = (0.5, 30.0)
"""Between two attempts to kill one that writes too much: at first, and at most."""
_LOST = ExitStatus(code=None, signal=int(signal.SIGKILL))

_log = logging.getLogger("squall.agent.containers")


class Containers:
    """The containers of this node's functions.

    Args:
        on_exit: told once for each container that ran, when nothing of it is left.
    """

    def __init__(
        self,
        config: AgentConfig,
        services: Services,
        outfits: Outfits,
        templates: Templates,
        on_exit: Callable[[ContainerExited], None],
    ) -> None:
        self._config = config
        self._services = services
        self._on_exit = on_exit
        self._outfits = outfits
        self._templates = templates
        self._known: dict[str, Container] = {}
        self._by_runtime_id: dict[str, Container] = {}
        self._tasks = TaskSet()
        self._starts = Starts(config, services.runtime, outfits, templates, self._wear, self._tasks)
        self._is_taken_down = False

    def running(self) -> tuple[NodeContainer, ...]:
        """Those that run now."""
        return tuple(
            NodeContainer(known.container_id, known.record.function_id, known.record.app_id, known.record.version)
            for known in self._known.values()
            if known.is_running and not known.has_exited
        )

    def inside(self, container_id: str) -> Inside:
        """What a command that is to run in a container needs to know of it; of an unknown one, its id."""
        known = self._known.get(container_id)
        return Inside(container_id) if known is None else Inside(known.runtime_id, known.outfit.env, known.outfit.cwd)

    def found(self, container_id: str) -> tuple[str, str, int] | None:
        """Of a container that runs: what the runtime calls it, its isolation, and its first process."""
        known = self._known.get(container_id)
        if known is None or not self.is_running(container_id):
            return None
        return known.runtime_id, known.record.isolation, known.pid

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
                return known.how_it_started()
            raise PlatformError(CONFLICT, f"cannot start {request.container_id}: it has ended; start one of another id")
        token = secrets.token_urlsafe(32)
        record = record_of(self._config, request, request.container_id, token_hash(token))
        container = Container(Outfit(record, self._config.containers_dir / request.container_id))
        claimed_mib = sum(one.record.memory_mib for one in self._known.values())
        self._known[container.container_id] = self._by_runtime_id[container.runtime_id] = container
        try:
            self._is_up(container, await self._starts.make(container, request, token, claimed_mib))
        except BaseException as error:
            container.started.set()
            # Shielded: a start that is given up half-way must not leave half a container.
            await asyncio.shield(self._tasks.start(self._remove(container, error)))
            failure = as_platform_error(request, error)
            if failure is None:
                raise
            raise failure from error
        return container.how_it_started()

    async def end(self, container_id: str, grace_s: float) -> None:
        """End a container and return when nothing of it is left. An unknown one is no error."""
        container = self._known.get(container_id)
        if container is None:
            return
        container.ending.set()
        await container.started.wait()
        runtime = self._services.runtime
        try:
            if grace_s > 0 and not container.has_exited:
                await runtime.kill(container.runtime_id, signal.SIGTERM)
                if await _happens(container.removed, grace_s):
                    return
            if not container.has_exited:
                await runtime.kill(container.runtime_id, signal.SIGKILL)
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
        would put others in their place. Then nothing is left of them, and of what was ending already, or it is logged
        what is: what a machine does not take back holds up nobody for ever."""
        self._is_taken_down = True
        try:
            async with asyncio.timeout(grace_s + END_ALL_S):
                ends = (self.end(container_id, grace_s) for container_id in self._known)
                await asyncio.gather(*ends, return_exceptions=True)
                await self._templates.end_all()
                await self._outfits.settled()
        except TimeoutError:
            left = {*self._by_runtime_id, *self._outfits.leaving()}
            _log.error("not gone after %g s: %s; the next agent tries again", END_ALL_S, ", ".join(sorted(left)))

    async def adopt(self) -> None:
        """Take over what an earlier agent started, and remove what it left behind. Comes before anything else."""
        services = self._services
        self._config.containers_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        spread_apart(self._config.containers_dir)
        statuses = await services.runtime.list()
        # All of them before anything is taken over, which takes files that could be opened.
        records = await self._records_of(statuses)
        others = await self._templates.adopt(statuses)
        for status in statuses:
            if status.labels.get(KIND_LABEL) == BUILD_KIND or status.container_id in others:
                continue  # the image builder's, and what is there for starts to come
            record = records.get(status.container_id)
            if not await self._adopt_one(status.container_id, record):
                _log.info("%s: left by an earlier agent and not taken over; removed", status.container_id)
                if not await self._is_removed(status.container_id):
                    others.add(status.container_id)
                if record is not None:
                    self._templates.clone_gone(record.template_id, status.container_id)
        for path in self._config.containers_dir.iterdir():
            if path.name not in self._by_runtime_id and path.name not in others:
                if not await self._is_removed(path.name):
                    others.add(path.name)
                elif path.exists():
                    services.grave.bury(path)
        await services.network.sweep((*self._by_runtime_id, *others))

    async def _is_removed(self, runtime_id: str) -> bool:
        """Remove what an earlier agent has left; one that stays is no reason not to begin, and is tried again."""
        directory = self._config.containers_dir / runtime_id
        try:
            if (record := read_record(directory)) is not None:
                return await self._outfits.give_back(Outfit(record, directory))
            await self._services.runtime.remove(runtime_id)
        except (RuntimeFailure, OSError) as error:
            _log.error("%s: cannot be removed: %s; the next agent tries again", runtime_id, error)
            return False
        return True

    async def watch(self) -> None:
        """Follow exits for ever; what was missed while the spawner could not be reached is found by asking."""
        while True:
            try:
                await self._find_lost()
                async for container_id, status in self._services.runtime.exits():
                    self._ended(container_id, status)
            except RuntimeFailure as error:
                _log.warning("cannot follow the containers' exits: %s; trying again", error)
                # The spawner has died, and with it the user namespaces in which forks could enter their slots.
                self._services.network.retire()
            await asyncio.sleep(_RESUBSCRIBE_S)

    async def settle(self, timeout_s: float) -> None:
        """Wait until those that have ended are gone, so that nothing of them is left to the next agent."""
        ended = [known.removed.wait() for known in self._known.values() if known.has_exited]
        if ended:
            await _all_happen(ended, timeout_s)

    async def close(self) -> None:
        """Let go of the containers; they run on."""
        await self._tasks.close()

    # Start

    def _is_up(self, container: Container, started: Started) -> None:
        container.started_at = time.monotonic()
        record = container.record
        catch_up = self._services.logs.add(
            record.container_id, record.app_id, record.function_id, started.stdout_fd, started.stderr_fd
        )
        assert container.outfit.socket is not None
        container.outfit.socket.is_up(functools.partial(self._services.log_sender.ahead, catch_up))
        container.pid = started.pid
        container.bucket_pids = started.bucket_pids
        container.is_running = True
        container.started.set()
        if container.early_exit is not None and container.early_exit[0] == container.runtime_id:
            self._has_ended(container, container.early_exit[1])

    def _wear(self, container: Container, outfit: Outfit) -> None:
        """The container is to be made with another outfit than the one that it has."""
        self._by_runtime_id.pop(container.runtime_id, None)
        container.outfit = outfit
        self._by_runtime_id[container.runtime_id] = container

    # What they write

    def writers(self) -> list[Writer]:
        """Those whose writing is to be watched."""
        found = []
        for one in self._known.values():
            if not one.is_running or one.has_exited or one.over_disk:
                continue
            limit, isolation = disk_limit(one.record.disk_mib), one.record.isolation
            own = str(one.outfit.directory / "rw")
            found.append(Writer(one.container_id, (own,), one.pid, limit, isolation=isolation))
            written = self._services.volumes.written_dir(one.runtime_id)
            if written:
                writer = Writer(one.container_id, (written,), one.pid, NO_LIMIT, isolation=isolation, place="volumes")
                found.append(writer)
            for number, pid in enumerate(one.bucket_pids):
                files = files_dir(one.outfit.directory, number)
                found.append(Writer(one.container_id, (files,), pid, NO_LIMIT, place=f"bucket {number}"))
        return found

    def over_disk(self, container_id: str, why: str) -> None:
        """End a container for what it has written, if it is one of these and runs.

        Args:
            container_id: the server's or the runtime's.
        """
        container = self._known.get(container_id) or self._by_runtime_id.get(container_id)
        # Clones of a template are named at each look, and who is named is being ended already.
        if container is not None and container.is_running and not (container.has_exited or container.over_disk):
            container.over_disk = why
            container.ending.set()
            self._tasks.start(self._kill(container))

    async def _kill(self, container: Container) -> None:
        """Kill a container that nobody looks at any more, again and again until it has ended."""
        pause_s, pause_s_max = KILL_AGAIN_S
        while not container.has_exited:
            try:
                await self._services.runtime.kill(container.runtime_id, signal.SIGKILL)
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

    async def _records_of(self, statuses: Sequence[ContainerStatus]) -> dict[str, ContainerRecord | None]:
        """Records of the containers that run, by the runtime's ids."""
        return {
            status.container_id: await await_record(self._config.containers_dir / status.container_id)
            for status in statuses
            if status.labels.get(KIND_LABEL) == FUNCTION_KIND and not status.is_prepared
        }

    async def _adopt_one(self, runtime_id: str, record: ContainerRecord | None) -> bool:
        if record is None or not record.container_id:
            return False
        container = Container(Outfit(record, self._config.containers_dir / runtime_id))
        self._known[record.container_id] = self._by_runtime_id[record.runtime_id] = container
        is_there = await self._try_to_take_over(container)
        if is_there is None:
            self._tasks.start(self._take_over_later(container))
        elif not is_there:
            del self._known[record.container_id], self._by_runtime_id[record.runtime_id]
            await self._outfits.let_go(container.outfit)
        return is_there is not False

    async def _try_to_take_over(self, container: Container) -> bool | None:
        """None: it cannot be now."""
        try:
            return await self._take_over(container)
        except (RuntimeFailure, OSError) as error:
            _log.error("%s: cannot be adopted now: %s; trying again", container.runtime_id, error)
        except Exception:  # noqa: BLE001 - one container is no reason not to begin, and whoever ends it waits for this
            _log.exception("%s: cannot be adopted now; trying again", container.runtime_id)
        return None

    async def _take_over(self, container: Container) -> bool:
        """False if it is not there any more, or nothing of its directory.

        Raises:
            RuntimeFailure, OSError: this agent lacks something: descriptors, a spawner, room.
        """
        outfit = container.outfit
        try:
            # Before: what may fail comes before there are descriptors to lose.
            await self._outfits.adopt(outfit)
            started = await self._services.runtime.adopt(container.runtime_id)
        except (ContainerMissing, FileNotFoundError) as error:
            _log.warning("%s: cannot be adopted: %s", container.runtime_id, error)
            return False
        outfit.env, outfit.cwd = started.env, started.cwd
        self._templates.clone_began(container.record.template_id, container.runtime_id)
        self._is_up(container, started)
        return True

    async def _take_over_later(self, container: Container) -> None:
        """Nobody is ended for what this agent lacks. Its server may have given it up meanwhile, and refuse it then."""
        pause_s, pause_s_max = ADOPT_AGAIN_S
        while not await _happens(container.ending, pause_s):
            is_there = await self._try_to_take_over(container)
            if is_there:
                return
            if is_there is False:
                break
            pause_s = min(2 * pause_s, pause_s_max)
        container.started.set()
        await self._remove(container)

    # End

    def _ended(self, runtime_id: str, status: ExitStatus) -> None:
        container = self._by_runtime_id.get(runtime_id)
        if container is None:
            self._templates.ended(runtime_id, status)
        elif container.started.is_set():
            self._has_ended(container, status)
        else:
            # A process may end before the answer to its start is here; or it was an attempt that has failed.
            container.early_exit = (runtime_id, status)

    def _has_ended(self, container: Container, status: ExitStatus) -> None:
        if container.is_running and not container.has_exited:
            container.has_exited = True
            if container.record.template_id and status is not _LOST:
                self._templates.clone_ended(container.record.template_id, _ending_of(container, status))
            self._tasks.start(self._bury(container, status))

    async def _find_lost(self) -> None:
        """Take containers that the spawner does not know (it was killed) for ended."""
        before = [known for known in self._known.values() if known.is_running and not known.has_exited]
        there = {status.container_id for status in await self._services.runtime.list()}
        for container in before:
            if container.runtime_id not in there:
                self._has_ended(container, _LOST)
        self._templates.find_lost(there)

    async def _bury(self, container: Container, status: ExitStatus) -> None:
        try:
            self._services.logs.finish(container.container_id)
            await self._remove(container)
        finally:
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

    async def _remove(self, container: Container, failure: BaseException | None = None) -> None:
        try:
            await self._outfits.give_back(container.outfit, failure)
            self._templates.clone_gone(container.record.template_id, container.runtime_id)
        finally:
            del self._known[container.container_id]
            self._by_runtime_id.pop(container.runtime_id, None)
            container.removed.set()


def _ending_of(container: Container, status: ExitStatus) -> Ending:
    lived_s = time.monotonic() - container.started_at
    outfit = container.outfit
    return Ending(
        container.record.function_id,
        outfit.has_guest,
        container.ending.is_set(),
        lived_s,
        status.signal,
        has_served=outfit.has_served,
    )


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
