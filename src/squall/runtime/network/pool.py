"""Network slots made ahead of time, handed out in no time, and found again after a crash.

All kernel work happens on one named thread: the kernel serialises it anyway, and a thread that changes namespaces
must do nothing else. What the event loop keeps is only lists.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from squall.runtime.errors import RuntimeFailure
from squall.runtime.network.names import SlotName, parse_slot_name
from squall.runtime.network.node_network import RESOLV_CONF, NetworkConfig, NodeNetwork
from squall.runtime.network.owner import MakeNamespaces, SlotOwner
from squall.runtime.network.stock import Stock
from squall.runtime.network.watch import ChangeWatch
from squall.runtime.spec import IdRange, NetworkSlot

Result = TypeVar("Result")

log = logging.getLogger(__name__)

ACQUIRE_TIMEOUT_S = 60.0
FREE_MAX = 512
"""Free slots of the machine's own that are kept, whatever was in use lately."""
OWNER_FREE_MAX = 256
OWNED_FREE_MAX = 512
"""Free slots of one owner, and of all owners: those used longest ago go first."""
BATCH_MAX = 16
"""Namespaces of an owner asked for at once: whoever makes them starts a process for it."""
BATCHES_AT_ONCE_MAX = 2
"""Of an owner: one is made while another one is furnished. And of all: whoever makes them has more to do."""
TRIM_PERIOD_S = 10.0


class NetworkPool:
    """Hands network slots to containers. An async context manager, used from one event loop.

    Entering removes what a crashed run left (slots of `living` containers are adopted), sets up the instance's subnet
    and rules, and starts to fill the pool. Leaving removes everything, except slots that are still in use and what
    they stand on: containers outlive the agent.

    Slots are the machine's, or those of an owner whose clones can enter them. What an owner had goes back to it alone,
    and only as it was: if anything was changed inside, the slot is removed.
    """

    def __init__(
        self,
        config: NetworkConfig,
        make_namespaces: MakeNamespaces | None,
        monotonic_s: Callable[[], float],
    ) -> None:
        self._node = NodeNetwork(config)
        self._make_namespaces = make_namespaces
        self._monotonic_s = monotonic_s
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="squall-network")
        self._ordinary = Stock(None, False, config.size, FREE_MAX)
        self._stocks: dict[tuple[SlotOwner | None, bool], Stock] = {(None, False): self._ordinary}
        self._strangers = Stock(None, False, 0, free_max=0)
        """Slots of owners that are retired, or that an earlier agent knew: kept for nobody once they are free."""
        self._stock_of: dict[str, Stock] = {}
        """Of each slot, by name."""
        self._watches: dict[str, ChangeWatch] = {}
        self._free_indexes: deque[int] = deque()
        self._blocked_count = 0
        self._in_use: dict[str, NetworkSlot] = {}
        self._has_remover = False
        self._all_made = asyncio.Event()
        self._all_made.set()
        self._batch_turn = asyncio.Semaphore(BATCHES_AT_ONCE_MAX)
        self._background: set[asyncio.Task[None]] = set()
        self._trimmer: asyncio.Task[None] | None = None
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
        make_namespaces: MakeNamespaces | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> NetworkPool:
        """A pool that keeps `size` slots free, more after many were in use; enter it before use.

        `proxy_env` is the part of the machine's environment that names proxies. `living` names the containers that
        survived. `make_namespaces` makes those of owners.
        """
        env = dict(proxy_env or {})
        config = NetworkConfig(state_dir, instance, size, frozenset(living), env, resolv_conf)
        return cls(config, make_namespaces, monotonic_s)

    async def __aenter__(self) -> NetworkPool:
        try:
            adopted = await self._run(self._node.prepare)
        except BaseException:
            # Whatever was set up by then is found and removed, or adopted, by the next start.
            self._thread.shutdown(wait=True)
            self._node.close()
            raise
        for container_id, text in adopted.items():
            name = parse_slot_name(text)
            stock = self._strangers if name.is_owned else self._stock(None, name.is_blocked)
            self._stock_of[text] = stock
            self._in_use[container_id] = self._node.describe(text)
            stock.lend(self._monotonic_s())
        names = [parse_slot_name(text) for text in adopted.values()]
        self._blocked_count = max((name.number for name in names if name.is_blocked), default=-1) + 1
        taken = {name.number for name in names if not name.is_blocked}
        self._free_indexes.extend(index for index in self._node.subnet.slot_indexes if index not in taken)
        self._refill(self._ordinary)
        self._trimmer = asyncio.get_running_loop().create_task(self._trim())
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
        """Slots of the machine's own, with a network, ready to be handed out."""
        return len(self._ordinary.free)

    def free_of(self, owner: SlotOwner, blocked: bool = False) -> int:
        """Slots of an owner ready to be handed out."""
        stock = self._stocks.get((owner, blocked))
        return len(stock.free) if stock else 0

    async def acquire(self, container_id: str, blocked: bool = False, owner: SlotOwner | None = None) -> NetworkSlot:
        """A slot for this container, at once while the pool has one.

        May be repeated: a container that has a slot gets the same one.

        Args:
            blocked: with nothing but a loopback.
            owner: whose clone is to enter it. Without one the slot is the machine's, where no clone can go.

        Raises:
            RuntimeFailure: the kernel refused, or all addresses of the subnet are in use.
        """
        present = self._in_use.get(container_id)
        if present is not None:
            return present
        slot = await self._take(self._stock(owner, blocked))
        stock = self._stock_of[slot.name]
        present = self._in_use.get(container_id)
        if present is not None:
            self._put_back(stock, slot)
            return present
        try:
            self._node.record(slot.name, container_id)
        except BaseException:
            self._put_back(stock, slot)
            raise
        self._in_use[container_id] = slot
        stock.lend(self._monotonic_s())
        self._refill(stock)
        return slot

    async def release(self, slot: NetworkSlot, *, is_spoiled: bool = False) -> None:
        """Take a slot back; every process of its container must be gone. Idempotent, and never waits for the kernel.

        Args:
            is_spoiled: nothing has come of its container, and the slot may be why: it is removed.
        """
        holders = [container_id for container_id, held in self._in_use.items() if held.name == slot.name]
        for container_id in holders:
            del self._in_use[container_id]
            self._node.forget(slot.name)
            stock = self._stock_of[slot.name]
            stock.take_back(self._monotonic_s())
            if not is_spoiled and (stock.owner is None or self._is_as_made(slot.name)):
                self._put_back(stock, slot)
            else:
                why = "nothing came of its container" if is_spoiled else "its container changed what is inside"
                log.info("network slot %s is removed: %s", slot.name, why)
                self._start(self._remove(slot))
                # Whoever waits, or is to find one ready, gets another one.
                self._refill(stock)

    def reserve(self, owner: SlotOwner, count: int, blocked: bool = False) -> None:
        """Keep that many slots of an owner free from now on, as far as all owners together may have them.

        They are made meanwhile. `retire` ends it, as does a count of 0.
        """
        stock = self._stock(owner, blocked)
        stock.minimum = count
        self._refill(stock)
        self._start_remover()

    def retire(self, id_range: IdRange | None = None) -> None:
        """Give nobody any more what the owners of a range have now, or all owners: free slots are removed, those in use
        when they come back. Whoever asks from now on gets another one.

        A range that goes to another function takes no slots along; and who has made their namespaces may be gone, and
        with it the user namespace in which clones could enter them.
        """
        now_s = self._monotonic_s()
        for key, stock in list(self._stocks.items()):
            if stock.owner is None or id_range not in (None, stock.owner.id_range):
                continue
            del self._stocks[key]
            stock.retire(RuntimeFailure("cannot acquire a network slot: those of its owner were retired"))
            for slot in self._in_use.values():
                if self._stock_of[slot.name] is stock:
                    self._strangers.lend(now_s)
            self._strangers.free.extend(stock.free)
            stock.free.clear()
            for name in [name for name, one in self._stock_of.items() if one is stock]:
                self._stock_of[name] = self._strangers
        self._start_remover()

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
        if self._trimmer is not None:
            self._trimmer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._trimmer
        doomed: list[str] = []
        for stock in self._all_stocks():
            stock.cancel_waiters()
            doomed += [slot.name for slot in stock.free]
            stock.free.clear()
        for name in doomed:
            self._end_watch(name)
        try:
            await self._run(self._node.remove_all, doomed)
            # Slots that are being made meanwhile go one by one when they are done.
            while self._background:
                await asyncio.gather(*self._background)
            if not self._in_use:
                await self._run(self._node.tear_down)
            else:
                held = ", ".join(f"{slot.name} of {container_id}" for container_id, slot in self._in_use.items())
                log.info("network slots stay for the containers that have them: %s", held[:1_000])
        finally:
            for name in list(self._watches):
                self._end_watch(name)
            self._thread.shutdown(wait=True)
            self._node.close()

    async def _run(self, function: Callable[..., Result], *args: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _stock(self, owner: SlotOwner | None, is_blocked: bool) -> Stock:
        stock = self._stocks.get((owner, is_blocked))
        if stock is None:
            stock = Stock(owner, is_blocked, minimum=0, free_max=OWNER_FREE_MAX)
            self._stocks[owner, is_blocked] = stock
        return stock

    def _all_stocks(self) -> list[Stock]:
        return [*self._stocks.values(), self._strangers]

    def _owned_free_count(self) -> int:
        return sum(len(stock.free) for stock in self._stocks.values() if stock.owner)

    async def _take(self, stock: Stock) -> NetworkSlot:
        if self._is_closing:
            raise RuntimeFailure("cannot acquire a network slot: the pool is closed")
        if stock.free:
            # Oldest first, so that what the outside still sends to a slot's last container has time to stop.
            return stock.free.popleft()
        waiting = stock.wait()
        self._refill(stock)
        try:
            return await asyncio.wait_for(asyncio.shield(waiting), ACQUIRE_TIMEOUT_S)
        except BaseException as error:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self._put_back(self._stock_of[waiting.result().name], waiting.result())
            else:
                waiting.cancel()
            if isinstance(error, TimeoutError):
                raise RuntimeFailure(
                    f"cannot acquire a network slot: none was made in {ACQUIRE_TIMEOUT_S:g} s"
                ) from error
            raise

    def _put_back(self, stock: Stock, slot: NetworkSlot) -> None:
        if not stock.hand_over(slot):
            stock.free.append(slot)
            self._start_remover()

    def _is_as_made(self, name: str) -> bool:
        watch = self._watches.get(name)
        return watch is not None and watch.is_unchanged()

    def _refill(self, stock: Stock) -> None:
        """Start making as many slots as are missing."""
        if stock.owner is not None:
            if self._missing(stock) > 0 and stock.batch_count < BATCHES_AT_ONCE_MAX:
                stock.batch_count += 1
                self._start(self._make_batch(stock, stock.owner))
            return
        for _ in range(self._missing(stock)):
            name = self._begin_one(stock)
            if name is None:
                return
            self._start(self._make(stock, name))

    def _missing(self, stock: Stock) -> int:
        if self._is_closing:
            return 0
        if stock.owner is None:
            return stock.missing()
        # A reservation must not make what is removed again since there are too many.
        room = max(OWNED_FREE_MAX - self._owned_free_count(), 0)
        return min(stock.missing(), stock.waiter_count() + room)

    def _begin_one(self, stock: Stock) -> SlotName | None:
        name = self._new_name(stock)
        if name is None:
            stock.fail_one(RuntimeFailure("cannot acquire a network slot: all addresses of the subnet are in use"))
            return None
        stock.making += 1
        self._all_made.clear()
        return name

    def _end_one(self, stock: Stock) -> None:
        stock.making -= 1
        if not any(other.making for other in self._all_stocks()):
            self._all_made.set()

    def _new_name(self, stock: Stock) -> SlotName | None:
        if stock.is_blocked:
            self._blocked_count += 1
            return SlotName(self._blocked_count - 1, is_blocked=True, is_owned=stock.owner is not None)
        if not self._free_indexes:
            return None
        return SlotName(self._free_indexes.popleft(), is_blocked=False, is_owned=stock.owner is not None)

    def _give_back(self, name: SlotName) -> None:
        if not name.is_blocked:
            self._free_indexes.append(name.number)

    async def _make(self, stock: Stock, name: SlotName) -> None:
        try:
            slot = await self._run(self._node.make, str(name))
        except (RuntimeFailure, OSError) as error:
            self._fail(stock, name, _in_words(name, error))
            return
        finally:
            self._end_one(stock)
        self._stock_of[slot.name] = stock
        self._put_back(stock, slot)

    async def _make_batch(self, stock: Stock, owner: SlotOwner) -> None:
        names: deque[SlotName] = deque()
        descriptors: deque[int] = deque()
        # Who is at its limit of descriptors is given fewer than were sent, without a word.
        failure = RuntimeFailure("cannot acquire a network slot for a clone: fewer namespaces came than were asked for")
        try:
            async with self._batch_turn:
                # Those that are asked for in the same turn of the loop are one batch.
                await asyncio.sleep(0)
                wanted = range(min(self._missing(stock), BATCH_MAX))
                names.extend(name for _ in wanted if (name := self._begin_one(stock)) is not None)
                if not names:
                    return
                try:
                    descriptors.extend(await self._ask_for_namespaces(owner, len(names)))
                except RuntimeFailure as error:
                    failure = error
            if descriptors:
                # The next batch is made while this one is furnished.
                self._refill(stock)
            while names and descriptors:
                await self._make_owned(stock, names.popleft(), descriptors.popleft())
        finally:
            has_failed = bool(names)
            for name in names:
                self._fail(stock, name, failure)
                self._end_one(stock)
            for descriptor in descriptors:
                os.close(descriptor)
            stock.batch_count -= 1
        if not has_failed or stock.waiter_count():
            self._refill(stock)

    async def _ask_for_namespaces(self, owner: SlotOwner, count: int) -> Sequence[int]:
        if self._make_namespaces is None:
            raise RuntimeFailure("cannot acquire a network slot for a clone: nothing here makes its namespace")
        return await self._make_namespaces(owner.id_range, owner.uid, count)

    async def _make_owned(self, stock: Stock, name: SlotName, descriptor: int) -> None:
        try:
            slot, watch = await self._run(self._node.make_owned, str(name), descriptor)
        except (RuntimeFailure, OSError) as error:
            self._fail(stock, name, _in_words(name, error))
            return
        finally:
            self._end_one(stock)
        if stock.is_retired:
            stock = self._strangers
        self._stock_of[slot.name] = stock
        self._watches[slot.name] = watch
        self._put_back(stock, slot)

    def _fail(self, stock: Stock, name: SlotName, failure: RuntimeFailure) -> None:
        self._give_back(name)
        log.warning("%s", failure)
        stock.fail_one(failure)

    async def _trim(self) -> None:
        """Remove, for ever, what is no longer worth keeping."""
        while True:
            await asyncio.sleep(TRIM_PERIOD_S)
            now_s = self._monotonic_s()
            for key, stock in list(self._stocks.items()):
                if stock is not self._ordinary and stock.is_over(now_s):
                    del self._stocks[key]
            self._start_remover()

    def _next_surplus(self) -> Stock | None:
        """What the next slot is to be removed from."""
        now_s = self._monotonic_s()
        for stock in self._all_stocks():
            if stock.free and (self._is_closing or stock.surplus(now_s)):
                return stock
        if self._owned_free_count() > OWNED_FREE_MAX:
            owned = [stock for stock in self._stocks.values() if stock.owner and stock.free]
            return min(owned, key=lambda stock: stock.used_at_s)
        return None

    def _start_remover(self) -> None:
        if not self._has_remover and self._next_surplus() is not None:
            self._has_remover = True
            self._start(self._remove_surplus())

    async def _remove_surplus(self) -> None:
        try:
            while self._next_surplus() is not None:
                # One at a time and after what somebody waits for: the kernel takes some 20 ms per interface.
                await self._all_made.wait()
                stock = self._next_surplus()
                if stock is not None:
                    # Those that came back last: they are the ones that the outside may still send something to.
                    await self._remove(stock.free.pop())
        finally:
            self._has_remover = False

    async def _remove(self, slot: NetworkSlot) -> None:
        self._end_watch(slot.name)
        del self._stock_of[slot.name]
        try:
            await self._run(self._node.remove, slot.name)
        except RuntimeFailure as failure:
            # Its name is not used again; the next start sweeps it up.
            log.warning("%s", failure)
            return
        self._give_back(parse_slot_name(slot.name))

    def _end_watch(self, name: str) -> None:
        # Before the namespace is to go: a socket in it keeps it.
        watch = self._watches.pop(name, None)
        if watch is not None:
            watch.close()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        running = asyncio.get_running_loop().create_task(work)
        self._background.add(running)
        running.add_done_callback(self._background.discard)


def _in_words(name: SlotName, error: RuntimeFailure | OSError) -> RuntimeFailure:
    if isinstance(error, RuntimeFailure):
        return error
    return RuntimeFailure(f"cannot set up network slot {name}: {error.strerror or error}")
