"""Variants while they are used: made when asked for, forgotten when nothing uses them, found again in the store.

Each has a dispatcher like any function. An app may have very many in the store; in memory are those that have calls or
containers, or had some a moment ago.

Invariants:
  * a variant with unfinished calls or containers is in memory
  * its record is made from that of its function, as it is now, or as it was in the version that it is held to
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping

from squall.protocol.errors import CONFLICT, EXHAUSTED, INVALID, NOT_FOUND, PlatformError
from squall.protocol.function import FunctionBind, FunctionSpec
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.app.apps import Apps, check_spec
from squall.server.dispatch.app.children import check_numbers
from squall.server.dispatch.clock import AgeClock
from squall.server.dispatch.function.call_table import CallTable
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.model.clock import Clock
from squall.server.model.config import ServerConfig
from squall.server.model.store import Store
from squall.server.model.variant import (
    StoredVariant,
    check_asked,
    composed,
    is_plain,
    merged,
    variant_id,
)  # fmt: skip

IN_MEMORY_MAX = 10_000
"""Of an app and of all started from it, with calls or containers; asking for one more is refused. Containers may ask,
so no app's variants count for another's; how many apps there are is up to who owns the server."""
STORED_MAX = 100_000
"""Of an app and of all started from it, in the store, where those are forgotten that were not used for days."""
SWEEP_FOR_ROOM_S = 1.0
"""Between two searches for room for variants of one app: who is refused asks again, and each search looks at all."""
IDLE_S = 60.0
"""How long one without either stays."""
JUST_ASKED_S = 5.0
"""How long it stays at least, even when there are too many: whoever asked is about to call it."""
SWEEP_EVERY_S = 10.0
NOTE_EVERY_S = 600.0
"""Between two notes in the store of which are used."""

_log = logging.getLogger("squall.server.dispatch.app.variants")

InVersion = Callable[[str, int, str], Awaitable[FunctionSpec]]
"""The record of a function, by app, version and id."""


class Variants:
    """All variants of functions of living apps."""

    def __init__(
        self, *, apps: Apps, calls: CallTable, store: Store, clock: Clock, config: ServerConfig, tasks: TaskSet,
        in_version: InVersion,
    ) -> None:  # fmt: skip
        self._apps = apps
        self._calls = calls
        self._store = store
        self._clock = clock
        self._age_clock = AgeClock(clock)
        self._config = config
        self._tasks = tasks
        self._in_version = in_version
        self._used_at: dict[str, OrderedDict[str, float]] = {}
        """Of those in memory, by root app, the one that was used longest ago first."""
        self._made_room_at: dict[str, float] = {}
        self._stored: dict[str, int] = {}
        """How many the store has, by root app, since the last note; of those that asked for new ones."""
        self._coming: dict[str, asyncio.Future[Dispatcher | None]] = {}
        self._noted_at = self._swept_at = clock.monotonic()
        self._unnoted: set[str] = set()
        """Used since the last note."""

    async def load(self) -> None:
        """Take up those with calls to finish.

        Raises:
            PlatformError: the store cannot be read now. What it has of a variant that is not here would be taken for
                what nobody can run any more.
        """
        await self.restore(await self._store.unfinished_counts())

    async def restore(self, function_ids: Iterable[str]) -> None:
        """Bring those of these into memory that are variants and are not there."""
        missing = frozenset(one for one in function_ids if one not in self._apps.dispatchers)
        for stored in await self._store.get_variants(missing) if missing else ():
            await self._take_up(stored)

    # Asking

    async def bind(self, asked: FunctionBind) -> str:
        """The id of what is asked for; it is made, unless there is such a one.

        Raises:
            PlatformError: `not_found` for the function or its version, `invalid`, `exhausted` when too many are in use.
        """
        base, root_app_id = await self._base_of(asked)
        asked = composed(base, asked)
        if is_plain(asked):
            return asked.function_id
        function_id = variant_id(asked)
        known = self._apps.dispatchers.get(function_id)
        if known is not None:
            if known.spec.variant_of != asked.function_id:
                raise PlatformError(CONFLICT, f"FunctionBind: {function_id} is a function of its own")
            self._use(known)
            return function_id
        self._make_room(root_app_id)
        if await self.find(function_id) is not None:
            return function_id
        spec = await self._made(base.app_id, asked)
        check_spec(spec, "FunctionBind")
        check_numbers(spec, "FunctionBind")
        await self._count_stored(root_app_id)
        stored = StoredVariant(
            function_id, asked.function_id, spec.app_id, asked.parameters, asked.options, asked.version,
            self._clock.now(),
        )  # fmt: skip
        await self._store.put_variant(stored)
        if await self._take_up(stored) is None:
            raise _unknown("FunctionBind", asked.function_id)
        return function_id

    async def _base_of(self, asked: FunctionBind) -> tuple[FunctionSpec, str]:
        """The function that something is asked of, and its root app.

        Raises:
            PlatformError: `not_found`.
        """
        base = await self.find(asked.function_id)
        if base is not None:
            return base.spec, base.root_app_id
        app = self._apps.live.get(asked.app_id)
        if app is None or not asked.version:
            raise _unknown("FunctionBind", asked.function_id)
        # What a later version has left out is still what it was in those that have it.
        return await self._in_version(asked.app_id, asked.version, asked.function_id), app.row.root_app_id

    async def find(self, function_id: str) -> Dispatcher | None:
        """The dispatcher of a function, variant or not; one that is in the store only comes into memory.

        Raises:
            PlatformError: `exhausted` when too many of its app are in use.
        """
        known = self._apps.dispatchers.get(function_id)
        if known is not None:
            if known.spec.variant_of:
                self._use(known)
            return known
        coming = self._coming.get(function_id)
        if coming is None:
            coming = self._coming[function_id] = self._tasks.start(self._read(function_id))
            coming.add_done_callback(lambda _: self._coming.pop(function_id, None))
        return await asyncio.shield(coming)

    async def _read(self, function_id: str) -> Dispatcher | None:
        found = await self._store.get_variants(frozenset({function_id}))
        app = self._apps.live.get(found[0].app_id) if found else None
        if app is None:
            return None
        self._make_room(app.row.root_app_id)
        return await self._take_up(found[0])

    async def _take_up(self, stored: StoredVariant) -> Dispatcher | None:
        """Into memory; None when its function is gone.

        Raises:
            PlatformError: the store cannot be read now.
        """
        try:
            await self._read_scaling(stored)
            spec = await self._made(stored.app_id, stored.asked())
        except PlatformError as error:
            if error.code not in (NOT_FOUND, INVALID, CONFLICT):
                raise  # it may be there
            _log.info("variant %s cannot be used: %s", stored.function_id, error.message)
            return None
        # Again, after the waits.
        app = self._apps.live.get(stored.app_id)
        known = self._apps.dispatchers.get(stored.function_id)
        if known is None and app is not None and app.stopping is None:
            known = self._apps.add_variant(app, spec)
        if known is not None:
            self._use(known)
        return known

    async def _read_scaling(self, stored: StoredVariant) -> None:
        """What its autoscaler went by when it was forgotten here, unless a deploy has reset that meanwhile."""
        app = self._apps.live.get(stored.app_id)
        if app is None or not app.is_scaling_stored:
            return
        found = (await self._store.list_scaling(stored.app_id)).get(stored.function_id)
        if found is not None and app.is_scaling_stored:
            app.scaling.setdefault(stored.function_id, found)

    async def spec_of(self, function_id: str) -> FunctionSpec:
        """The record of a function or variant, also of an app that has stopped.

        Raises:
            PlatformError: `not_found`.
        """
        known = self._apps.dispatchers.get(function_id)
        if known is not None:
            return known.spec
        found = await self._store.get_variants(frozenset({function_id}))
        if not found:
            return await self._store.get_function(function_id)
        return merged(await self._store.get_function(found[0].base_id), found[0].asked())

    async def find_spec(self, function_id: str) -> FunctionSpec | None:
        """The same, or None where there is no such function."""
        try:
            return await self.spec_of(function_id)
        except PlatformError as error:
            if error.code != NOT_FOUND:
                raise
            return None

    async def _made(self, app_id: str, asked: FunctionBind) -> FunctionSpec:
        """The record of what is asked for, as things are.

        Raises:
            PlatformError: `not_found`, `invalid`.
        """
        known = self._apps.dispatchers.get(asked.function_id)
        if known is not None and not asked.version:
            base = known.spec
        elif asked.version:
            base = await self._in_version(app_id, asked.version, asked.function_id)
        else:
            raise _unknown("FunctionBind", asked.function_id)
        check_asked(base, asked)
        return merged(base, asked)

    # Forgetting

    def used(self, function_id: str) -> None:
        """Somebody calls it, or waits for what it is started from; nothing where it is no variant."""
        dispatcher = self._apps.dispatchers.get(function_id)
        if dispatcher is not None and dispatcher.spec.variant_of:
            self._use(dispatcher)

    def _use(self, dispatcher: Dispatcher) -> None:
        function_id = dispatcher.spec.function_id
        used_at = self._used_at.setdefault(dispatcher.root_app_id, OrderedDict())
        used_at[function_id] = self._clock.monotonic()
        used_at.move_to_end(function_id)
        self._unnoted.add(function_id)

    def _make_room(self, root_app_id: str) -> None:
        """Raises PlatformError `exhausted` when too many of the app are in use."""
        used_at: Mapping[str, float] = self._used_at.get(root_app_id, {})
        now = self._clock.monotonic()
        is_search_due = now - self._made_room_at.get(root_app_id, float("-inf")) >= SWEEP_FOR_ROOM_S
        if len(used_at) >= IN_MEMORY_MAX and is_search_due:
            self._made_room_at[root_app_id] = now
            self._sweep(root_app_id, JUST_ASKED_S, len(used_at) - IN_MEMORY_MAX // 2)
        if len(used_at) >= IN_MEMORY_MAX:
            what = f"{IN_MEMORY_MAX} objects of classes and functions with other options are in use by this app"
            raise PlatformError(
                EXHAUSTED, f"cannot use one more: {what}, as many as may be; let calls of some of them end"
            )

    async def _count_stored(self, root_app_id: str) -> None:
        """One more of the app is about to be stored.

        Raises:
            PlatformError: `exhausted` when it has too many.
        """
        if root_app_id not in self._stored:
            count = await self._store.count_variants_below(root_app_id)
            self._stored.setdefault(root_app_id, count)
        if self._stored[root_app_id] >= STORED_MAX:
            days = self._config.results_kept_s / 86_400
            what = f"this app has {STORED_MAX} objects of classes and functions with other options"
            why = f"those that are not used for {days:g} days are forgotten; give fewer different parameters until then"
            raise PlatformError(EXHAUSTED, f"FunctionBind: {what}, as many as may be: {why}")
        self._stored[root_app_id] += 1

    def _sweep(self, root_app_id: str, idle_s: float, at_most: int) -> None:
        """Forget some of an app that nothing uses, those that were used longest ago first."""
        now = self._clock.monotonic()
        with_calls = self._calls.dispatchers()
        for function_id, used_at in list(self._used_at.get(root_app_id, {}).items()):
            dispatcher = self._apps.dispatchers.get(function_id)
            if dispatcher is None:
                self._forget(root_app_id, function_id)
            elif now - used_at < idle_s:
                return
            elif not self._is_idle(dispatcher, with_calls):
                self._use(dispatcher)
                continue
            else:
                self._forget(root_app_id, function_id)
            at_most -= 1
            if at_most <= 0:
                return

    def _is_idle(self, dispatcher: Dispatcher, with_calls: set[Dispatcher]) -> bool:
        has_work = dispatcher.queued or dispatcher.delayed or dispatcher in with_calls
        is_stored = self._apps.stored_count(dispatcher.spec.function_id)
        return not (has_work or is_stored or dispatcher.containers)

    def _forget(self, root_app_id: str, function_id: str) -> None:
        used_at = self._used_at[root_app_id]
        del used_at[function_id]
        if not used_at:
            del self._used_at[root_app_id]
            self._made_room_at.pop(root_app_id, None)
        self._apps.forget_variant(function_id)

    def tick(self, now: float) -> None:
        """Each second: forget what is idle, note what is used, let the store forget what nobody has used in long."""
        if now - self._swept_at >= SWEEP_EVERY_S:
            self._swept_at = now
            for root_app_id, used_at in list(self._used_at.items()):
                self._sweep(root_app_id, IDLE_S, len(used_at))
        if now - self._noted_at >= NOTE_EVERY_S:
            self._noted_at = now
            self._tasks.start(self._note())

    async def _note(self) -> None:
        used, self._unnoted = frozenset(self._unnoted), set()
        try:
            if used:
                await self._store.use_variants(used, self._clock.now())
            await self._store.forget_variants(self._age_clock.now() - self._config.results_kept_s)
            self._stored.clear()
        except PlatformError as error:
            self._unnoted |= used
            _log.warning("cannot note which variants are used: %s", error.message)


def _unknown(method: str, function_id: str) -> PlatformError:
    message = f"{method}: function {function_id[:80]} does not exist, or its app was stopped"
    return PlatformError(NOT_FOUND, message)
