"""Network slots made ahead of time, handed out in no time, and found again after a crash.

All kernel work happens on one named thread: the kernel serialises it anyway, and a thread that changes namespaces
must do nothing else. What the event loop keeps is only lists.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from squall.runtime.errors import RuntimeFailure
from squall.runtime.network.node_network import BLOCKED, RESOLV_CONF, NetworkConfig, NodeNetwork
from squall.runtime.spec import NetworkSlot

Result = TypeVar("Result")

log = logging.getLogger(__name__)

ACQUIRE_TIMEOUT_S = 60.0


class NetworkPool:
    """Hands network slots to containers. An async context manager, used from one event loop.

    Entering removes what a crashed run left (slots of `living` containers are adopted), sets up the instance's subnet
    and rules, and starts to fill the pool. Leaving removes everything, except slots that are still in use and what
    they stand on: containers outlive the agent.
    """

    def __init__(self, config: NetworkConfig) -> None:
        self._config = config
        self._node = NodeNetwork(config)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="squall-network")
        self._free: deque[NetworkSlot] = deque()
        self._free_names: deque[str] = deque()
        self._blocked_count = 0
        self._in_use: dict[str, NetworkSlot] = {}
        self._waiting: deque[asyncio.Future[NetworkSlot]] = deque()
        self._doomed: deque[NetworkSlot] = deque()
        self._has_remover = False
        self._making = 0
        self._all_made = asyncio.Event()
        self._all_made.set()
        self._background: set[asyncio.Task[None]] = set()
        self._is_closing = False

    @classmethod
    def open(
        cls,
        state_dir: str,
        instance: str,
        size: int,
        *,
        living: Collection[str] = (),
        proxy_env: Mapping[str, str] | None = None,
        resolv_conf: str = RESOLV_CONF,
    ) -> NetworkPool:
        """A pool that keeps `size` slots free; enter it before use.

        `proxy_env` is the part of the machine's environment that names proxies. `living` names the containers that
        survived.
        """
        env = dict(proxy_env or {})
        return cls(NetworkConfig(state_dir, instance, size, frozenset(living), env, resolv_conf))

    async def __aenter__(self) -> NetworkPool:
        try:
            adopted = await self._run(self._node.prepare)
        except BaseException:
            # Whatever was set up by then is found and removed, or adopted, by the next start.
            self._thread.shutdown(wait=True)
            self._node.close()
            raise
        self._in_use = {container_id: self._node.describe(name) for container_id, name in adopted.items()}
        taken = set(adopted.values())
        self._blocked_count = max((int(name[1:]) for name in taken if name.startswith(BLOCKED)), default=-1) + 1
        self._free_names.extend(str(i) for i in self._node.subnet.slot_indexes if str(i) not in taken)
        self._refill()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def findings(self) -> list[str]:
        """What may keep containers from reaching the outside, each with its fix."""
        return list(self._node.findings)

    @property
    def free_count(self) -> int:
        """Slots ready to be handed out."""
        return len(self._free)

    async def acquire(self, container_id: str, blocked: bool = False) -> NetworkSlot:
        """A slot for this container, at once while the pool has one. `blocked`: with nothing but a loopback.

        May be repeated: a container that has a slot gets the same one.

        Raises:
            RuntimeFailure: the kernel refused, or all addresses of the subnet are in use.
        """
        present = self._in_use.get(container_id)
        if present is not None:
            return present
        slot = await (self._make_blocked() if blocked else self._take())
        present = self._in_use.get(container_id)
        if present is not None:
            self._put_back(slot)
            return present
        try:
            self._node.record(slot.name, container_id)
        except BaseException:
            self._put_back(slot)
            raise
        self._in_use[container_id] = slot
        self._refill()
        return slot

    async def release(self, slot: NetworkSlot) -> None:
        """Take a slot back; every process of its container must be gone. Idempotent, and never waits for the kernel."""
        owners = [container_id for container_id, held in self._in_use.items() if held.name == slot.name]
        for container_id in owners:
            del self._in_use[container_id]
            self._node.forget(slot.name)
            self._put_back(slot)

    def slot_of(self, container_id: str) -> NetworkSlot | None:
        """The slot a container holds, adopted ones included."""
        return self._in_use.get(container_id)

    async def sweep(self, living: Collection[str]) -> list[str]:
        """Release the slots of containers that are not among `living`. Returns the ids of those containers."""
        gone = [container_id for container_id in self._in_use if container_id not in living]
        for container_id in gone:
            await self.release(self._in_use[container_id])
        return gone

    async def ensure_rules(self) -> bool:
        """Load the rules again if somebody flushed them; True when they were gone. Call it regularly."""
        return await self._run(self._node.repair)

    async def close(self) -> None:
        """Remove free slots and, when none is in use, everything else. Idempotent."""
        if self._is_closing:
            return
        self._is_closing = True
        for waiting in self._waiting:
            waiting.cancel()
        doomed = [slot.name for slot in (*self._free, *self._doomed)]
        self._free.clear()
        self._doomed.clear()
        try:
            await self._run(self._node.remove_all, doomed)
            # Slots that are being made meanwhile go one by one when they are done.
            while self._background:
                await asyncio.gather(*self._background)
            if not self._in_use:
                await self._run(self._node.tear_down)
        finally:
            self._thread.shutdown(wait=True)
            self._node.close()

    async def _run(self, function: Callable[..., Result], *args: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def _make_blocked(self) -> NetworkSlot:
        name = f"{BLOCKED}{self._blocked_count}"
        self._blocked_count += 1
        return await self._run(self._node.make, name)

    async def _take(self) -> NetworkSlot:
        if self._is_closing:
            raise RuntimeFailure("cannot acquire a network slot: the pool is closed")
        if self._free:
            # Oldest first, so that what the outside still sends to a slot's last container has time to stop.
            return self._free.popleft()
        if self._doomed:
            return self._doomed.popleft()
        waiting: asyncio.Future[NetworkSlot] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._refill()
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), ACQUIRE_TIMEOUT_S)
        except BaseException as error:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self._put_back(waiting.result())
            else:
                waiting.cancel()
            if isinstance(error, TimeoutError):
                raise RuntimeFailure(
                    f"cannot acquire a network slot: none was made in {ACQUIRE_TIMEOUT_S:g} s"
                ) from error
            raise

    def _put_back(self, slot: NetworkSlot) -> None:
        if slot.name.startswith(BLOCKED):
            self._start(self._remove(slot))
        elif self._hand_over(slot):
            return
        elif len(self._free) < self._config.size and not self._is_closing:
            self._free.append(slot)
        else:
            self._doomed.append(slot)
            self._start_remover()

    def _hand_over(self, slot: NetworkSlot) -> bool:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(slot)
                return True
        return False

    def _refill(self) -> None:
        """Start making as many slots as are missing."""
        live = sum(not waiting.done() for waiting in self._waiting)
        wanted = 0 if self._is_closing else live + self._config.size - len(self._free) - self._making
        while wanted > 0 and self._doomed and not live:
            self._free.append(self._doomed.popleft())
            wanted -= 1
        for _ in range(wanted):
            if not self._free_names:
                self._fail_one(RuntimeFailure("cannot acquire a network slot: all addresses of the subnet are in use"))
                return
            self._making += 1
            self._all_made.clear()
            self._start(self._make(self._free_names.popleft()))

    async def _make(self, name: str) -> None:
        try:
            slot = await self._run(self._node.make, name)
        except RuntimeFailure as failure:
            self._free_names.append(name)
            log.warning("%s", failure)
            self._fail_one(failure)
            return
        finally:
            self._making -= 1
            if not self._making:
                self._all_made.set()
        self._put_back(slot)

    def _start_remover(self) -> None:
        if self._doomed and not self._has_remover:
            self._has_remover = True
            self._start(self._remove_doomed())

    async def _remove_doomed(self) -> None:
        try:
            while self._doomed:
                # One at a time and after what somebody waits for: the kernel takes some 20 ms per interface.
                await self._all_made.wait()
                if self._doomed:
                    await self._remove(self._doomed.popleft())
        finally:
            self._has_remover = False

    async def _remove(self, slot: NetworkSlot) -> None:
        try:
            await self._run(self._node.remove, slot.name)
        except RuntimeFailure as failure:
            # Its name is not used again; the next start sweeps it up.
            log.warning("%s", failure)
            return
        if not slot.name.startswith(BLOCKED):
            self._free_names.append(slot.name)

    def _fail_one(self, failure: RuntimeFailure) -> None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(failure)
                return

    def _start(self, work: Coroutine[None, None, None]) -> None:
        running = asyncio.get_running_loop().create_task(work)
        self._background.add(running)
        running.add_done_callback(self._background.discard)
