"""Durable inputs that wait in the store: each function has a few thousand in memory, and more come in as these go out.

A million spawned inputs would take minutes to read at a start, and gigabytes. So a function's calls are read oldest
first, a page at a time, and new ones stay where they are, on disk, while older ones of their function do.

Invariants:
  * a function without an entry here has all its unfinished calls in memory
  * a call is read at most once: what is in memory, or has ended there since, is passed over
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from squall.protocol.call import Failure
from squall.protocol.errors import PlatformError
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.call_table import CallTable
from squall.server.dispatch.dispatcher import Dispatcher
from squall.server.model.config import ServerConfig
from squall.server.model.store import Store, StoredCall, StoredInput

MEMORY_INPUTS_MAX = 5_000
"""Of one function; new ones stay in the store beyond it."""
ALL_INPUTS_MAX = 50_000
"""The same for all functions that have some in the store, shared between them."""
SHARE_INPUTS_MIN = 200
PAGE_INPUTS = 250
"""Read at a time: a value may have a megabyte."""

CANCELLED = Failure("cancelled", "it was cancelled before it was run")
STOPPED = Failure("stopped", "its app was stopped before the input was run")

_log = logging.getLogger("squall.server.dispatch.backlog")

Inputs = tuple[StoredInput, ...]


class _Entry:
    """One function's calls in the store."""

    def __init__(self, function_id: str, after: tuple[float, str], count: int) -> None:
        self.function_id = function_id
        self.after = after
        """Time and id of the last call that was read."""
        self.count = count
        """Inputs that were not, as far as is known: calls that come while a page is read may be counted off alone."""
        self.is_paging = False
        self.new_since = math.inf
        """When the oldest of those was made that came while a page was read."""
        self.ended: set[str] = set()
        """Calls that ended meanwhile."""


class Backlog:
    """What of every function is in the store only.

    Args:
        enqueue: takes a call into memory.
        fail: ends inputs that nobody can run any more; waits when it is given more than it can write.
        unkept: calls with outputs that are not on disk yet.
    """

    def __init__(
        self, *, store: Store, calls: CallTable, config: ServerConfig, tasks: TaskSet,
        find: Callable[[str], Dispatcher | None],
        enqueue: Callable[[StoredCall, Inputs, Dispatcher], None],
        fail: Callable[[StoredCall, Inputs, Failure], Awaitable[None]],
        unkept: Callable[[], set[str]],
    ) -> None:  # fmt: skip
        self._store = store
        self._calls = calls
        self._config = config
        self._tasks = tasks
        self._find = find
        self._enqueue = enqueue
        self._fail = fail
        self._unkept = unkept
        self._entries: dict[str, _Entry] = {}
        self._made_at = 0.0
        self._coming: dict[str, bool] = {}
        """Calls that are being put in the store: whether they were read from it already, or cancelled."""

    def __len__(self) -> int:
        return sum(max(0, entry.count) for entry in self._entries.values())

    def count(self, function_id: str) -> int:
        """How many inputs of a function are in the store only."""
        entry = self._entries.get(function_id)
        return 0 if entry is None else max(0, entry.count)

    def next_time(self, now: float) -> float:
        """A time for a new call, later than that of any other: calls are read in this order."""
        self._made_at = max(now, math.nextafter(self._made_at, math.inf))
        return self._made_at

    @contextmanager
    def coming(self, call_id: str) -> Iterator[Callable[[], bool]]:
        """While a call is put in the store: gives a function that tells whether it was read or cancelled meanwhile."""
        self._coming.setdefault(call_id, False)
        try:
            yield lambda: self._coming.get(call_id, False)
        finally:
            self._coming.pop(call_id, None)

    async def load(self) -> None:
        """Find out what there is, and read the beginning of each."""
        counts = await self._store.unfinished_counts()
        self._entries = {function_id: _Entry(function_id, (0.0, ""), count) for function_id, count in counts.items()}
        for entry in list(self._entries.values()):
            await self._page(entry)

    def leave(self, stored: StoredCall, inputs: Inputs, dispatcher: Dispatcher) -> bool:
        """Whether a call that was just kept stays in the store for now."""
        entry = self._entries.get(stored.function_id)
        if entry is None:
            has_room = dispatcher.queued + len(inputs) <= MEMORY_INPUTS_MAX
            if has_room and self._calls.waiting_bytes <= self._config.queued_bytes_max // 2:
                return False
            entry = self._entries[stored.function_id] = _Entry(stored.function_id, _before(stored.created_at), 0)
        entry.count += len(inputs)
        if entry.is_paging:
            entry.new_since = min(stored.created_at, entry.new_since)
        elif stored.created_at <= entry.after[0]:
            entry.after = _before(stored.created_at)
        return True

    def cancelled(self, function_id: str, call_id: str, count: int) -> None:
        """So many inputs of a call, all it has left in the store, have ended there."""
        if call_id in self._coming:
            self._coming[call_id] = True
        entry = self._entries.get(function_id)
        if entry is not None:
            entry.count -= count
            if entry.is_paging:
                entry.ended.add(call_id)

    def ended(self, call_id: str, dispatcher: Dispatcher) -> None:
        """A call has ended in memory: there may be room for others of its function."""
        entry = self._entries.get(dispatcher.spec.function_id)
        if entry is None:
            return
        if entry.is_paging:
            entry.ended.add(call_id)
        elif self._is_wanted(entry, self._share() // 2):
            self._tasks.start(self._page(entry))

    def tick(self) -> None:
        """Now and then: functions that were stopped, and pages that could not be read."""
        for entry in list(self._entries.values()):
            if not entry.is_paging and self._is_wanted(entry, self._share() // 2):
                self._tasks.start(self._page(entry))

    def _share(self) -> int:
        return max(SHARE_INPUTS_MIN, min(MEMORY_INPUTS_MAX, ALL_INPUTS_MAX // max(1, len(self._entries))))

    def _is_wanted(self, entry: _Entry, inputs_max: int) -> bool:
        dispatcher = self._find(entry.function_id)
        if dispatcher is None or dispatcher.stopped is not None or not dispatcher.queued:
            return True
        has_memory = self._calls.waiting_bytes <= self._config.queued_bytes_max // 2
        return dispatcher.queued < inputs_max and has_memory

    async def _page(self, entry: _Entry) -> None:
        """Read pages until there is enough in memory, or nothing left."""
        if entry.is_paging:
            return
        entry.is_paging = True
        try:
            is_wanted = True
            while is_wanted:
                if not await self._read(entry):
                    self._entries.pop(entry.function_id, None)
                    return
                is_wanted = self._is_wanted(entry, self._share())
        except PlatformError as error:
            _log.warning("cannot read inputs of %s that wait, trying again: %s", entry.function_id, error.message)
        finally:
            entry.is_paging = False

    async def _read(self, entry: _Entry) -> bool:
        """Read one page; whether there may be more."""
        entry.new_since = math.inf
        entry.ended = self._unkept()
        page = await self._store.unfinished_inputs(entry.function_id, entry.after, PAGE_INPUTS)
        passed_over = entry.ended
        read = 0
        for stored, inputs in page:
            read += len(inputs)
            entry.count -= len(inputs)
            entry.after = (stored.created_at, stored.call_id)
            self._made_at = max(self._made_at, stored.created_at)
            if stored.call_id in passed_over or self._calls.get(stored.call_id) is not None:
                continue
            if stored.call_id in self._coming:
                self._coming[stored.call_id] = True
            dispatcher = self._find(entry.function_id)
            stopped = STOPPED if dispatcher is None else dispatcher.stopped
            if dispatcher is None or stopped is not None:
                await self._fail(stored, inputs, stopped or STOPPED)
            elif stored.is_cancelled:
                await self._fail(stored, inputs, CANCELLED)
            else:
                self._enqueue(stored, inputs, dispatcher)
        if entry.new_since < math.inf:
            if entry.new_since <= entry.after[0]:
                entry.after = _before(entry.new_since)
            return True
        return read >= PAGE_INPUTS


def _before(created_at: float) -> tuple[float, str]:
    return math.nextafter(created_at, 0.0), ""
