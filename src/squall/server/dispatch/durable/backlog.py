"""Durable inputs that wait in the store: each function has a few thousand in memory, and more come in as these go out.

A million spawned inputs would take minutes to read at a start, and gigabytes. So a function's portions are read oldest
first, a page at a time, and new ones stay where they are, on disk, while older ones of their function do. When what
waits in memory, of whichever function, uses half of what may, no more comes in, but for one portion of a function that
has nothing there: it would never get on otherwise.

Invariants:
  * a function without an entry here has all its unfinished inputs in memory
  * an input comes into memory once: what is there, or has ended there since the page was asked for, is passed over
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Container, Iterator, Sequence
from contextlib import contextmanager

from squall.protocol.call import Failure
from squall.protocol.errors import PlatformError
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.function.call_table import CallTable
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.model.config import ServerConfig
from squall.server.model.store import BEGINNING, Place, Portion, Store, StoredCall, StoredInput

MEMORY_INPUTS_MAX = 5_000
"""Of one function; new ones stay in the store beyond it."""
ALL_INPUTS_MAX = 50_000
"""The same for all functions that have some in the store, shared between them."""
SHARE_INPUTS_MIN = 200
PAGE_INPUTS = 250
PAGE_BYTES = 4 * 2**20
"""Read at a time, for one function at a time."""

CANCELLED = Failure("cancelled", "it was cancelled before it was run")
STOPPED = Failure("stopped", "its app was stopped before the input was run")

_log = logging.getLogger("squall.server.dispatch.durable.backlog")

Inputs = tuple[StoredInput, ...]


Key = tuple[str, int]
"""Of an input: its call and index."""


class _Entry:
    """One function's inputs in the store."""

    def __init__(self, function_id: str, after: Place, count: int) -> None:
        self.function_id = function_id
        self.after = after
        """The last portion that was read."""
        self.count = count
        """Inputs that were not, as far as is known: calls that come while a page is read may be counted off alone."""
        self.is_paging = False
        self.again_from: Place | None = None
        """The oldest portion that came while a page was read, or is to be read again."""
        self.ended: set[Key] = set()
        """Inputs that ended meanwhile."""
        self.cancelled: set[str] = set()
        """Calls that were cancelled meanwhile."""

    def read_from(self, place: Place) -> None:
        """The portion there is to be read (again), after the page that is being read."""
        if self.is_paging:
            self.again_from = place if self.again_from is None else min(place, self.again_from)
        elif place <= self.after:
            self.after = _before(place)

    def goes_back(self) -> bool:
        """A page was read; whether there is more to be, because something came meanwhile."""
        place, self.again_from = self.again_from, None
        if place is not None and place <= self.after:
            self.after = _before(place)
        return place is not None


class Backlog:
    """What of every function is in the store only.

    Args:
        enqueue: takes inputs of a call into memory.
        fail: ends inputs that nobody can run any more; waits when it is given more than it can write.
        unkept: inputs with outputs that are not on disk yet.
    """

    def __init__(
        self, *, store: Store, calls: CallTable, config: ServerConfig, tasks: TaskSet,
        find: Callable[[str], Dispatcher | None],
        enqueue: Callable[[StoredCall, Inputs, Dispatcher], None],
        fail: Callable[[StoredCall, Inputs, Failure], Awaitable[None]],
        unkept: Callable[[], set[Key]],
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
        self._reading = asyncio.Lock()
        self._coming: dict[Key, bool] = {}
        """Portions that are being put in the store: whether they were read from it already, or cancelled."""

    def __len__(self) -> int:
        return sum(max(0, entry.count) for entry in self._entries.values())

    def count(self, function_id: str) -> int:
        """How many inputs of a function are in the store only."""
        entry = self._entries.get(function_id)
        return 0 if entry is None else max(0, entry.count)

    def next_time(self, now: float) -> float:
        """A time for a new portion, later than that of any other: they are read in this order."""
        self._made_at = max(now, math.nextafter(self._made_at, math.inf))
        return self._made_at

    @contextmanager
    def coming(self, keys: Sequence[Key]) -> Iterator[Callable[[Key], bool]]:
        """While portions (by call and first index) are put in the store: gives a function that tells of one whether it
        was read or cancelled meanwhile."""
        for key in keys:
            self._coming.setdefault(key, False)
        try:
            yield lambda key: self._coming.get(key, False)
        finally:
            for key in keys:
                self._coming.pop(key, None)

    async def load(self) -> None:
        """Find out what there is, and read the beginning of each."""
        counts = await self._store.unfinished_counts()
        self._entries = {function_id: _Entry(function_id, BEGINNING, count) for function_id, count in counts.items()}
        for entry in list(self._entries.values()):
            await self._page(entry)

    def leave(self, portion: Portion, dispatcher: Dispatcher) -> bool:
        """Whether a portion that was just kept stays in the store for now."""
        function_id = portion.call.function_id
        entry = self._entries.get(function_id)
        if entry is None:
            has_room = dispatcher.queued + len(portion.inputs) <= MEMORY_INPUTS_MAX
            if has_room and self._has_memory:
                return False
            entry = self._entries[function_id] = _Entry(function_id, _before(portion.place), 0)
        entry.count += len(portion.inputs)
        entry.read_from(portion.place)
        return True

    def look_again(self, function_id: str, place: Place) -> None:
        """A portion that was kept before is put again, and nobody knows what became of it: read it, if it waits."""
        entry = self._entries.get(function_id)
        if entry is None:
            entry = self._entries[function_id] = _Entry(function_id, _before(place), 0)
        entry.read_from(place)
        self._page_if_wanted(entry)

    def cancelled(self, function_id: str, call_id: str) -> None:
        """A call was cancelled: what of it is in the store is not to be run."""
        for key in self._coming:
            if key[0] == call_id:
                self._coming[key] = True
        entry = self._entries.get(function_id)
        if entry is not None and entry.is_paging:
            entry.cancelled.add(call_id)

    def count_off(self, function_id: str, count: int) -> None:
        """So many inputs have ended in the store."""
        entry = self._entries.get(function_id)
        if entry is not None:
            entry.count -= count

    def ended(self, call_id: str, indexes: tuple[int, ...], dispatcher: Dispatcher) -> None:
        """Inputs have ended in memory: there may be room for others of their function."""
        entry = self._entries.get(dispatcher.spec.function_id)
        if entry is None:
            return
        if entry.is_paging:
            entry.ended.update([(call_id, index) for index in indexes])
        else:
            self._page_if_wanted(entry)

    def tick(self) -> None:
        """Now and then: functions that were stopped, and pages that could not be read."""
        for entry in list(self._entries.values()):
            self._page_if_wanted(entry)

    def _page_if_wanted(self, entry: _Entry) -> None:
        if not entry.is_paging and self._is_wanted(entry, self._share() // 2):
            self._tasks.start(self._page(entry))

    def _share(self) -> int:
        return max(SHARE_INPUTS_MIN, min(MEMORY_INPUTS_MAX, ALL_INPUTS_MAX // max(1, len(self._entries))))

    @property
    def _bytes_left(self) -> int:
        return self._config.queued_bytes_max // 2 - self._calls.waiting_bytes

    @property
    def _has_memory(self) -> bool:
        return self._bytes_left >= 0

    def _runner(self, entry: _Entry) -> Dispatcher | None:
        """Who can run the inputs; nobody, if their app was stopped."""
        dispatcher = self._find(entry.function_id)
        return None if dispatcher is None or dispatcher.stopped is not None else dispatcher

    def _is_wanted(self, entry: _Entry, inputs_max: int) -> bool:
        dispatcher = self._runner(entry)
        if dispatcher is None:
            return True  # they only end
        if self._has_memory:
            return not dispatcher.queued or dispatcher.queued < inputs_max
        return not dispatcher.has_inputs

    async def _page(self, entry: _Entry) -> None:
        """Read pages until there is enough in memory, or nothing left."""
        if entry.is_paging:
            return
        entry.is_paging = True
        try:
            while True:
                async with self._reading:
                    # Not before it is our turn: those before us may have taken the memory.
                    if not self._is_wanted(entry, self._share()):
                        return
                    if not await self._read(entry):
                        self._entries.pop(entry.function_id, None)
                        return
        except PlatformError as error:
            _log.warning("cannot read inputs of %s that wait, trying again: %s", entry.function_id, error.message)
        finally:
            entry.is_paging = False

    async def _read(self, entry: _Entry) -> bool:
        """Read a page, or one portion at least and as many as there is memory for; whether there may be more."""
        entry.goes_back()  # for a page that was not read to its end
        entry.ended, entry.cancelled = self._unkept(), set()
        # What is not run any more ends, and takes no memory.
        is_ending = self._runner(entry) is None
        limit = PAGE_INPUTS if self._has_memory or is_ending else 1
        bytes_max = PAGE_BYTES if is_ending else max(1, min(PAGE_BYTES, self._bytes_left))
        page = await self._store.unfinished_inputs(entry.function_id, entry.after, limit, bytes_max)
        # Both go on to grow while what was read is taken in.
        ended, cancelled = entry.ended, entry.cancelled
        read = read_bytes = 0
        for portion in page:
            if read and not self._has_memory and self._runner(entry) is not None:
                return True
            read += len(portion.inputs)
            read_bytes += portion.size_bytes
            entry.after = portion.place
            self._made_at = max(self._made_at, portion.made_at)
            await self._take(entry, portion, ended, cancelled)
        return entry.goes_back() or read >= limit or read_bytes >= bytes_max

    async def _take(self, entry: _Entry, portion: Portion, ended: set[Key], cancelled: set[str]) -> None:
        """Bring what waits of a portion into memory, or end what nobody can run."""
        stored = portion.call
        key = (stored.call_id, portion.first)
        if key in self._coming:
            self._coming[key] = True
        call = self._calls.get(stored.call_id)
        here: Container[int] = () if call is None else call.inputs
        inputs = tuple(
            one for one in portion.inputs if one.index not in here and (stored.call_id, one.index) not in ended
        )
        if not inputs or stored.call_id in cancelled:
            return
        entry.count -= len(inputs)
        dispatcher = self._find(entry.function_id)
        stopped = STOPPED if dispatcher is None else dispatcher.stopped
        if dispatcher is None or stopped is not None:
            await self._fail(stored, inputs, stopped or STOPPED)
        elif stored.is_cancelled:
            await self._fail(stored, inputs, CANCELLED)
        else:
            self._enqueue(stored, inputs, dispatcher)


def _before(place: Place) -> Place:
    made_at, call_id, first = place
    return made_at, call_id, first - 1
