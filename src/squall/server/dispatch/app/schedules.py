"""Schedules of deployed apps: which functions are due, and the durable call that each is run by.

A firing is two writes: the call, whose id follows from the function and the time it was due, and then the row that says
when it is due next. A server that dies between the two fires again when the next one begins, which finds the call made.
Whatever changes a row holds its entry's lock. Those that are due are found on a heap: nothing looks at all of them, but
for a clock that was set back.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Awaitable
from dataclasses import replace

from squall.protocol import call as wire
from squall.protocol.app import DEPLOYED
from squall.protocol.call import CallOpen, CallSpawn, InputBatch
from squall.protocol.errors import CONFLICT, NOT_FOUND, PlatformError
from squall.protocol.function import FunctionSpec
from squall.protocol.ids import new_id
from squall.protocol.log import SYSTEM, LogEntry
from squall.protocol.schedule import (
    RUNNING,
    UNKNOWN,
    ScheduleInfo,
    ScheduleList,
    ScheduleRun,
    ScheduleStarted,
)
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.app.apps import App, Apps
from squall.server.dispatch.app.environments import shown
from squall.server.dispatch.durable.durable import Durable
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.model.clock import Clock, Timer
from squall.server.model.logs import LogStore
from squall.server.model.schedule import StoredSchedule
from squall.server.model.store import Store, StoredApp, StoredOutput
from squall.server.schedule import plan

_log = logging.getLogger("squall.server.dispatch.app.schedules")

FIRINGS_MAX = 200
"""Under way at once; at midnight thousands are due."""
RETRY_S = 5.0
"""Until one that could not be kept is tried again."""
SOON_S = 1.5
"""What is due later is left to the next tick: the clock may be set meanwhile."""
BACK_S = 2.0
"""A clock that went back by less was corrected, as clocks are all the time."""


class _Entry:
    """One function's schedule."""

    def __init__(self, row: StoredSchedule) -> None:
        self.row = row
        self.lock = asyncio.Lock()
        self.ticket = 0
        """Of its place on the heap; others of it there are out of date."""
        self.is_gone = False


class Schedules:
    """Follows them. `load` once, then `tick` each second."""

    def __init__(
        self, *, store: Store, apps: Apps, durable: Durable, logs: LogStore, clock: Clock, tasks: TaskSet
    ) -> None:
        self._store = store
        self._apps = apps
        self._durable = durable
        self._logs = logs
        self._clock = clock
        self._tasks = tasks
        self._entries: dict[str, _Entry] = {}
        """By function."""
        self._running: dict[str, _Entry] = {}
        """By call: those whose output is waited for."""
        self._heap: list[tuple[float, int, _Entry]] = []
        self._tickets = itertools.count(1)
        self._firings = 0
        self._timer: Timer | None = None
        self._read_at = clock.now(), clock.monotonic()
        self._began_at = clock.now()

    async def load(self) -> None:
        """Take up what the store knows, for the functions there are; before anything can have been called."""
        known = {row.function_id: row for row in await self._store.list_schedules()}
        changed = []
        for spec, version in self._scheduled():
            row = plan.settled(known.get(spec.function_id), spec, version, self._clock.now())
            if row != known.get(spec.function_id):
                changed.append(row)
            self._add(row)
        await self._keep(self._store.put_schedules(tuple(changed)))
        await self._keep(self._store.forget_schedules(frozenset(known.keys() - self._entries.keys())))
        for entry in self._entries.values():
            if entry.row.is_running:
                self._running[entry.row.last_call_id] = entry
                self._tasks.start(self._look_up_alone(entry))

    def _scheduled(self) -> list[tuple[FunctionSpec, int]]:
        return [found for app in self._apps.live.values() for found in _scheduled_of(app)]

    # Changes of apps

    def app_changed(self, app: App) -> None:
        """An app has other functions, or begins to end."""
        if app.row.state == DEPLOYED:
            self._tasks.start(self._settle(app))

    async def _settle(self, app: App) -> None:
        scheduled = _scheduled_of(app)
        names = {spec.function_id for spec, _ in scheduled}
        gone = [
            entry
            for function_id, entry in list(self._entries.items())
            if function_id not in names and self._app_id_of(function_id) in (app.app_id, "")
        ]
        for entry in gone:
            entry.is_gone = True
            self._entries.pop(entry.row.function_id, None)
            self._running.pop(entry.row.last_call_id, None)
        if gone:
            await self._keep(self._store.forget_schedules(frozenset(entry.row.function_id for entry in gone)))
        await asyncio.gather(*(self._settle_one(spec, version) for spec, version in scheduled))
        self._look()

    def _app_id_of(self, function_id: str) -> str:
        dispatcher = self._apps.dispatchers.get(function_id)
        return "" if dispatcher is None else dispatcher.spec.app_id

    async def _settle_one(self, spec: FunctionSpec, version: int) -> None:
        entry = self._entries.get(spec.function_id)
        if entry is None:
            entry = self._add(plan.settled(None, spec, version, self._clock.now()))
            async with entry.lock:
                await self._put(entry)
            return
        async with entry.lock:
            row = plan.settled(entry.row, spec, version, self._clock.now())
            if row != entry.row:
                entry.row = row
                self._place(entry)
                await self._put(entry)

    def _add(self, row: StoredSchedule) -> _Entry:
        entry = self._entries[row.function_id] = _Entry(row)
        self._place(entry)
        return entry

    # Time

    def _place(self, entry: _Entry, not_before: float = 0.0) -> None:
        """Put it on the heap, once, for when it is due."""
        entry.ticket = next(self._tickets)
        if entry.row.next_at is not None and not entry.is_gone:
            heapq.heappush(self._heap, (max(entry.row.next_at, not_before), entry.ticket, entry))
        if len(self._heap) > 2 * len(self._entries) + 100:
            self._heap = [one for one in self._heap if one[2].ticket == one[1] and not one[2].is_gone]
            heapq.heapify(self._heap)

    def tick(self) -> None:
        """Look what is due, also when the clock was set."""
        now, passed = self._clock.now(), self._clock.monotonic()
        before, passed_before = self._read_at
        self._read_at = now, passed
        if (now - before) - (passed - passed_before) < -BACK_S:
            self._tasks.start(self._correct_all())
        self._look()

    async def _correct_all(self) -> None:
        _log.warning("the clock was set back: periods are counted from now")
        for entry in list(self._entries.values()):
            async with entry.lock:
                row = plan.corrected(entry.row, self._clock.now())
                if row != entry.row:
                    entry.row = row
                    self._place(entry)
        await self._keep(self._store.put_schedules(tuple(entry.row for entry in self._entries.values())))

    def _look(self) -> None:
        """Begin what is due, and see to it that somebody looks when the next one is."""
        now = self._clock.now()
        while self._heap and self._firings < FIRINGS_MAX:
            at, ticket, entry = self._heap[0]
            if entry.ticket != ticket or entry.is_gone:
                heapq.heappop(self._heap)
                continue
            if at > now:
                break
            heapq.heappop(self._heap)
            self._firings += 1
            self._tasks.start(self._fire(entry))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap and self._firings < FIRINGS_MAX and self._heap[0][0] - now < SOON_S:
            self._timer = self._clock.call_later(max(0.0, self._heap[0][0] - now), self._look)

    # Firing

    async def _fire(self, entry: _Entry) -> None:
        not_before = 0.0
        async with entry.lock:
            try:
                await self._fire_one(entry)
            except PlatformError as error:
                not_before = self._clock.now() + RETRY_S
                _log.warning("function %s is due and cannot be run yet: %s", entry.row.function_id, error.message)
            finally:
                self._firings -= 1
            self._place(entry, not_before)
        self._look()

    async def _fire_one(self, entry: _Entry) -> None:
        due_at, dispatcher = entry.row.next_at, self._apps.dispatchers.get(entry.row.function_id)
        if entry.is_gone or due_at is None or due_at > self._clock.now():
            return  # a deploy has changed it meanwhile
        if dispatcher is None or dispatcher.stopped is not None:
            raise PlatformError(NOT_FOUND, "a deploy is taking it away")
        if entry.row.is_running:
            await self._look_up(entry)
        if entry.row.is_running:
            if not entry.row.skipped_count:
                self._note(dispatcher, f"its schedule was due, and its last run ({entry.row.last_call_id}) goes on")
            entry.row = plan.skipped(entry.row, self._clock.now())
        else:
            call_id = plan.call_id_of(entry.row)
            await self._spawn(entry, call_id, dispatcher)
            entry.row = plan.fired(entry.row, due_at, call_id, self._clock.now())
            if due_at <= self._began_at:
                # The server before this one may have made the call already, and it may be over.
                await self._look_up(entry)
        await self._put(entry)

    async def _spawn(self, entry: _Entry, call_id: str, dispatcher: Dispatcher) -> None:
        function_id, value = entry.row.function_id, wire.NO_ARGUMENTS
        record = CallSpawn(CallOpen(call_id, function_id, wire.SCHEDULE), InputBatch(call_id, (0,), (len(value),)))
        # Before the call is made: its output is not missed, however soon it comes.
        self._running[call_id] = entry
        try:
            await self._durable.spawns.spawn(record, value, dispatcher)
        except BaseException:
            self._running.pop(call_id, None)
            raise

    # Ends of runs

    def output_kept(self, output: StoredOutput) -> None:
        """An output of a durable call is on disk."""
        entry = self._running.pop(output.call_id, None)
        if entry is not None:
            self._tasks.start(self._end(entry, output))

    async def _end(self, entry: _Entry, output: StoredOutput) -> None:
        async with entry.lock:
            if entry.row.last_call_id == output.call_id and entry.row.is_running:
                entry.row = replace(entry.row, last_outcome=wire.STATUS_NAMES[output.status])
                await self._put(entry)

    async def _look_up(self, entry: _Entry) -> None:
        """Ask the store whether the last run is over; whoever calls keeps the row."""
        call_id = entry.row.last_call_id
        try:
            output = await self._store.get_output(call_id, 0)
        except PlatformError as error:
            if error.code != NOT_FOUND:
                _log.warning("whether call %s is over is not known: %s", call_id, error.message)
                return
            outcome = UNKNOWN
        else:
            outcome = "" if output is None else wire.STATUS_NAMES[output.status]
        if outcome:
            self._running.pop(call_id, None)
            entry.row = replace(entry.row, last_outcome=outcome)

    async def _look_up_alone(self, entry: _Entry) -> None:
        async with entry.lock:
            if entry.row.is_running:
                await self._look_up(entry)
                await self._put(entry)

    # Asking

    async def run(self, record: ScheduleRun) -> ScheduleStarted:
        """Run a function with a schedule now, beside it.

        Raises:
            PlatformError: `not_found` for a function without a schedule that is followed, `conflict` while its last run
                goes on, and what the store raises.
        """
        row = await self._apps.find(record.app, environment=record.environment)
        app = self._apps.live.get(row.app_id)
        dispatcher = app.dispatchers.get(record.function) if app is not None else None
        entry = self._entries.get(dispatcher.spec.function_id) if dispatcher is not None else None
        if dispatcher is None or entry is None:
            what = f"function {record.function!r} of app {record.app!r}: it is no deployed function with a schedule"
            raise PlatformError(NOT_FOUND, f"ScheduleRun: {what}; `squall schedule list` shows those")
        async with entry.lock:
            if entry.row.is_running:
                await self._look_up(entry)
            if entry.row.is_running:
                message = f"its last run, {entry.row.last_call_id}, goes on; wait for it, or cancel it"
                raise PlatformError(CONFLICT, f"ScheduleRun: function {record.function}: {message}")
            call_id = new_id("fc")
            await self._spawn(entry, call_id, dispatcher)
            entry.row = plan.started(entry.row, call_id, self._clock.now())
            await self._put(entry)
        return ScheduleStarted(call_id)

    async def list_schedules(self, record: ScheduleList) -> list[ScheduleInfo]:
        """Those that are followed in an environment, by app and function, and are asked for.

        Raises:
            PlatformError: `not_found` for an app that there is not.
        """
        app_id = (await self._apps.find(record.app, environment=record.environment)).app_id if record.app else ""
        infos = [
            self._info(spec)
            for spec, _ in self._scheduled()
            if spec.app_id == app_id or (not app_id and self._row_of(spec).environment == record.environment)
        ]
        keyed = [((info.app_name, info.app_id, info.function_name), info) for info in infos]
        keyed.sort(key=lambda one: one[0])
        return [info for key, info in keyed if key > record.after][: max(0, record.limit)]

    def _info(self, spec: FunctionSpec) -> ScheduleInfo:
        entry = self._entries.get(spec.function_id)
        assert spec.schedule is not None
        row = entry.row if entry is not None else StoredSchedule(spec.function_id, spec.schedule)
        app = self._row_of(spec)
        return ScheduleInfo(
            app_id=spec.app_id,
            app_name=app.name,
            function_id=spec.function_id,
            function_name=spec.name,
            schedule=spec.schedule,
            next_at=row.next_at,
            last_at=row.last_at,
            last_call_id=row.last_call_id,
            last_outcome=RUNNING if row.is_running else row.last_outcome,
            skipped_count=row.skipped_count,
            environment=shown(app.environment),
        )

    def _row_of(self, spec: FunctionSpec) -> StoredApp:
        return self._apps.live[spec.app_id].row

    # Small things

    def _note(self, dispatcher: Dispatcher, text: str) -> None:
        spec = dispatcher.spec
        text = f"function {spec.name}: {text}: passed over"
        self._logs.append((LogEntry(self._clock.now(), SYSTEM, text, "", "", spec.app_id, spec.function_id),))

    async def _put(self, entry: _Entry) -> None:
        if not entry.is_gone:
            await self._keep(self._store.put_schedules((entry.row,)))

    async def _keep(self, writing: Awaitable[None]) -> None:
        """Write; what cannot be written comes with the next change of it, or is found out by the next server."""
        try:
            await writing
        except PlatformError as error:
            _log.warning("a schedule could not be kept: %s", error.message)


def _scheduled_of(app: App) -> list[tuple[FunctionSpec, int]]:
    """The functions of an app that are called by themselves, with the version of the app."""
    if app.row.state != DEPLOYED or app.stopping is not None:
        return []
    specs = [one.spec for one in app.dispatchers.values() if one.stopped is None]
    # Not the version of the function: a period begins anew whatever the deploy has changed.
    return [(spec, app.version) for spec in specs if spec.schedule is not None and not spec.variant_of]
