"""Apps and their functions: who holds them, and how they end.

An *ephemeral* app lives as long as a client holds it: the connection that created it, or took it up again, plus a
grace time. A *detached* one lives on without its client until none of its inputs is outstanding (again plus the grace
time, unless its program ended as programs do and left it); a *deployed* one until it is stopped. A *child*
(`children.py`) is ephemeral, and ends with its parent, too.

Invariants:
  * who changes the record of an app or replaces its functions has its *turn*; so has its end, which comes last
  * an app that has ended never lives again
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from squall.protocol import app as wire
from squall.protocol import schedule
from squall.protocol.app import AppCreate, AppInfo
from squall.protocol.call import Failure
from squall.protocol.errors import CONFLICT, FORBIDDEN, INVALID, NOT_FOUND, PlatformError
from squall.protocol.function import BATCH_SIZE_MAX, BATCH_WAIT_MS_MAX, INPUTS_AT_ONCE_MAX, FunctionSpec, Scaling
from squall.protocol.ids import is_id
from squall.protocol.limits import CONTAINERS_MAX, RETRIES_MAX, TAGS_MAX
from squall.protocol.names import WEB_SUFFIX, WEB_SUFFIX_RULE
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.app import children
from squall.server.dispatch.app.environments import shown
from squall.server.dispatch.app.near import near
from squall.server.dispatch.client.client import Client
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.fleet.fleet import ContainerFleet
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.model.clock import Clock, Timer
from squall.server.model.config import ServerConfig
from squall.server.model.logs import LogStore
from squall.server.model.store import Store, StoredApp
from squall.server.model.variant import is_measured
from squall.server.model.version import StoredVersion
from squall.server.model.web_label import web_problem

if TYPE_CHECKING:
    from squall.server.dispatch.function.call_table import CallTable

_log = logging.getLogger("squall.server.dispatch.app.apps")

LIVE = (wire.EPHEMERAL, wire.DETACHED, wire.DEPLOYED)
ENVIRONMENTS_SHOWN = 5
NAME_CHARS_MAX = 64
DEV_SUFFIX = "dev"
"""Behind the labels of apps that do not stay, if they say no other."""
USER_CHARS_MAX = 200
FUNCTIONS_MAX = 20_000
END_GRACE_S = 1.0
"""What containers of a stopped app get between the request to exit and the end; those with exit hooks get longer."""


class App:
    """An app that lives."""

    def __init__(self, row: StoredApp) -> None:
        self.row = row
        self.dispatchers: dict[str, Dispatcher] = {}
        """By name of the function."""
        self.variants: dict[str, dict[str, Dispatcher]] = {}
        """Functions made from these, as far as they are in memory: by the id of that one, then by their own."""
        self.scaling: dict[str, Scaling] = {}
        """What autoscalers go by instead of what their specs say, until the next deploy, by id of the function."""
        self.is_scaling_stored = False
        """The store has more of that: of variants that are not in memory."""
        self.scaling_lock = asyncio.Lock()
        """Held while that is changed, in memory and on disk: of two changes at once, the second sees the first."""
        self.holders: set[Client] = set()
        self.last_holder: Client | None = None
        self.free_since: float | None = None
        self.is_left = False
        """Its program has ended: nobody comes back for it."""
        self.turn = asyncio.Lock()
        """Of whoever changes it: see `Apps.changing`."""
        self.stopping: asyncio.Future[None] | None = None
        """Set as soon as its end is asked for, which comes when it has its turn."""
        self.versions: dict[int, StoredVersion] = {}
        """Of one that is deployed: those that are kept."""

    @property
    def web_suffix(self) -> str:
        """Behind the labels of its web functions; empty while it is deployed."""
        return "" if self.row.state == wire.DEPLOYED else self.row.web_suffix or DEV_SUFFIX

    @property
    def version(self) -> int:
        """The one that is current; 0 where there is none."""
        return max(self.versions, default=0)

    @property
    def app_id(self) -> str:
        """Its id."""
        return self.row.app_id

    @property
    def all_dispatchers(self) -> list[Dispatcher]:
        """Of its functions and of their variants."""
        return [*self.dispatchers.values(), *(one for some in self.variants.values() for one in some.values())]

    def following(self, function_id: str) -> list[Dispatcher]:
        """The variants of a function that change with it."""
        return [one for one in self.variants.get(function_id, {}).values() if not one.spec.is_pinned]

    @property
    def functions(self) -> dict[str, str]:
        """Name to id."""
        return {name: one.spec.function_id for name, one in self.dispatchers.items()}

    @property
    def function_versions(self) -> dict[str, int]:
        """Since which version each of its functions is as it is, by id."""
        return {one.spec.function_id: one.spec.version for one in self.dispatchers.values()}


class Apps:
    """All apps that live; those that ended are the store's."""

    def __init__(
        self, *, store: Store, logs: LogStore, fleet: ContainerFleet, calls: CallTable, clock: Clock,
        config: ServerConfig, tasks: TaskSet,
    ) -> None:  # fmt: skip
        self._store = store
        self._logs = logs
        self._fleet = fleet
        self._calls = calls
        self._clock = clock
        self._config = config
        self._tasks = tasks
        self._timers: dict[str, Timer] = {}
        self._creating: dict[str, asyncio.Future[App]] = {}
        self.live: dict[str, App] = {}
        self.drafts: set[str] = set()
        """Ids of apps that will be deployed: images are built for them, and nothing else is known yet."""
        self.dispatchers: dict[str, Dispatcher] = {}
        """By function id, of all live apps; also those that a deploy left out, until their last input is done."""
        self._retired: list[Dispatcher] = []
        self.on_change: Callable[[App], None] = lambda app: None
        """Told when a deployed app has other functions, and when it begins to end."""
        self.claiming: Callable[[str, StoredApp, str, Sequence[FunctionSpec]], AbstractContextManager[None]] = (
            lambda method, row, suffix, specs: nullcontext()
        )
        """Held while functions become an app's: nobody else gets their labels. See `Routes.claiming`."""
        self.stored_count: Callable[[str], int] = lambda function_id: 0
        """How many inputs of a function are in the store only."""
        self.entering: Callable[[str, str], AbstractContextManager[None]] = lambda method, environment: nullcontext()
        """Held while an app comes into an environment: see `Environments.entering`."""
        self.is_of_its_environment: Callable[[StoredApp], bool] = lambda row: True
        """Whether that environment is still there: see `Environments.is_of_it`."""

    async def load(self) -> None:
        """Take up what the store says lives; ephemeral apps wait for their clients for a time."""
        rows = await self._store.list_apps(limit=100_000, states=(*LIVE, wire.STOPPING))
        # Parents first: a child whose parent is gone goes, too.
        for row in sorted(rows, key=lambda row: len(row.ancestors)):
            is_orphan = bool(row.ancestors) and row.parent_app_id not in self.live
            if row.state == wire.STOPPING or is_orphan:
                await self._store.set_app_state(row.app_id, wire.STOPPED, self._clock.now())
                continue
            app = App(row)
            self.live[row.app_id] = app
            # Also of ephemeral ones that `squall serve` changes.
            if row.state != wire.DETACHED and not row.ancestors:
                app.versions = {one.version: one for one in await self._store.list_versions(row.app_id)}
            app.scaling = await self._store.list_scaling(row.app_id)
            for spec in await self._store.list_functions(row.app_id):
                self.add_function(app, spec)
            self._released(app, max(self._config.restart_grace_s, self._config.app_grace_s))

    # Creating

    async def create(self, record: AppCreate, holder: Client | None, scope_app_id: str = "") -> App:
        """Make an app or take it up; the holder's connection is its lease. With a scope, make a child of that app, or
        take up one of its descendants.

        Raises:
            PlatformError: `invalid` for a wrong id or state, `conflict` when it was stopped already; with a scope also
                `forbidden` for an app that is there and does not descend from it, `exhausted` for too many.
        """
        if not is_id(record.app_id, "ap"):
            raise PlatformError(INVALID, f"AppCreate: {record.app_id!r} is no id of an app")
        if record.state not in LIVE:
            raise PlatformError(INVALID, f"AppCreate: an app cannot begin as {record.state!r}; use one of {LIVE}")
        if record.web_suffix and not re.match(WEB_SUFFIX, record.web_suffix):
            raise PlatformError(INVALID, f"AppCreate: web_suffix {record.web_suffix[:80]!r} must be {WEB_SUFFIX_RULE}")
        if scope_app_id:
            children.check_new(record)
        app = self.live.get(record.app_id) or await self._create_once(record, scope_app_id)
        _check_take_up(app.row, record, scope_app_id)
        check_going("AppCreate", app)
        if app.row.state != record.state:
            await self._set_state(app, record.state)
            check_going("AppCreate", app)
        if holder is not None:
            self._hold(app, holder)
        else:
            self._released(app)
        return app

    async def _create_once(self, record: AppCreate, scope_app_id: str) -> App:
        """Create it to the end, whatever becomes of who asked: a row alone could neither be taken up nor end.

        Who asks again meanwhile, after a broken connection, gets the same.
        """
        creating = self._creating.get(record.app_id)
        if creating is None:
            creating = self._creating[record.app_id] = self._tasks.start(self._create(record, scope_app_id))
            creating.add_done_callback(lambda _: self._creating.pop(record.app_id, None))
        return await asyncio.shield(creating)

    async def _create(self, record: AppCreate, scope_app_id: str) -> App:
        if len(record.created_by) > USER_CHARS_MAX:
            raise PlatformError(INVALID, f"AppCreate: who makes it is said in {USER_CHARS_MAX} characters at most")
        texts = (record.name, *record.tags, *record.tags.values())
        if len(record.tags) > TAGS_MAX or any(len(text) > NAME_CHARS_MAX for text in texts):
            message = (
                f"its name and its tags have {NAME_CHARS_MAX} characters at most, and it has {TAGS_MAX} tags at most"
            )
            raise PlatformError(INVALID, f"AppCreate: app {record.name[:NAME_CHARS_MAX]!r}: {message}")
        with self.entering("AppCreate", record.environment):
            return await self._create_in(record, scope_app_id)

    async def _create_in(self, record: AppCreate, scope_app_id: str) -> App:
        try:
            row = await self._store.get_app(record.app_id)
        except PlatformError as error:
            if error.code != NOT_FOUND:
                raise
        else:
            _check_take_up(row, record, scope_app_id)
            raise PlatformError(CONFLICT, f"AppCreate: app {row.app_id} is {row.state}; create another")
        row = StoredApp(
            record.app_id, record.name, record.state, self._clock.now(), None, record.tags, record.environment,
            created_by=record.created_by, web_suffix=record.web_suffix,
        )  # fmt: skip
        if not scope_app_id:
            await self._store.put_app(row)
            return self._begin(row)
        parent = self.get_live(scope_app_id)
        if row.environment != parent.row.environment:
            message = "an app made inside a container is in the environment of the app it is made by"
            raise PlatformError(INVALID, f"AppCreate: {message}; leave the environment out")
        self._check_room(parent)
        row = replace(row, ancestors=(*parent.row.ancestors, parent.app_id))
        await self._store.put_app(row)
        try:
            # Again, after the wait: what is added to an app that is ending would be stopped by nobody.
            self._check_room(parent)
        except PlatformError:
            await self._store.set_app_state(row.app_id, wire.STOPPED, self._clock.now())
            raise
        return self._begin(row)

    def _begin(self, row: StoredApp) -> App:
        """It lives, and nobody holds it yet."""
        app = self.live[row.app_id] = App(row)
        self._released(app)
        return app

    def _check_room(self, parent: App) -> None:
        is_stopping = parent.stopping is not None or self.live.get(parent.app_id) is not parent
        children.check_room(parent.row, is_stopping, (app.row for app in self.live.values()))

    async def _set_state(self, app: App, state: str) -> None:
        async with self.changing("AppCreate", app):
            await self._store.set_app_state(app.app_id, state)
            app.row = replace(app.row, state=state)
            for dispatcher in app.all_dispatchers:
                dispatcher.outlives_client = state != wire.EPHEMERAL
                dispatcher.is_deployed = state == wire.DEPLOYED

    @asynccontextmanager
    async def changing(self, method: str, app: App) -> AsyncIterator[None]:
        """Nobody else changes the app meanwhile, and an end that is asked for comes after it.

        Raises:
            PlatformError: `conflict` when its end was asked for before.
        """
        async with app.turn:
            check_going(method, app)
            yield

    def _hold(self, app: App, holder: Client) -> None:
        app.holders.add(holder)
        app.last_holder = holder
        app.free_since = None
        app.is_left = False
        timer = self._timers.pop(app.app_id, None)
        if timer is not None:
            timer.cancel()

    def released_by(self, holder: Client) -> None:
        """A client's connection is gone."""
        for app in list(self.live.values()):
            if holder in app.holders:
                app.holders.discard(holder)
                self._released(app)

    def abandoned_by(self, container_id: str) -> None:
        """The clients in a container are gone for good: what they alone held ends now."""
        for app in [one for one in self.live.values() if one.row.ancestors]:
            gone = {holder for holder in app.holders if holder.container_id == container_id}
            app.holders -= gone
            if app.last_holder is not None and app.last_holder.container_id == container_id:
                self._expire(app, "the container that started it has ended")
            elif gone:
                self._released(app)

    def _released(self, app: App, grace_s: float | None = None) -> None:
        """Nobody holds the app: an ephemeral one ends after the grace time."""
        if app.holders or app.stopping is not None:
            return
        app.free_since = self._clock.monotonic()
        if app.row.state != wire.EPHEMERAL:
            return
        timer = self._timers.pop(app.app_id, None)
        if timer is not None:
            timer.cancel()
        self._timers[app.app_id] = self._clock.call_later(
            self._config.app_grace_s if grace_s is None else grace_s,
            lambda: self._expire(app, "its client did not come back"),
        )

    def _expire(self, app: App, reason: str) -> None:
        if not app.holders and app.stopping is None and self.live.get(app.app_id) is app:
            self._tasks.start(self.stop(app, reason))

    def tick(self, now: float) -> None:
        """End detached apps that have nothing left to do, and forget functions that are gone."""
        self._forget_retired()
        for app in list(self.live.values()):
            if app.row.state != wire.DETACHED or app.holders or app.free_since is None:
                continue
            if self.is_busy(app):
                app.free_since = now
            elif app.is_left or now - app.free_since > self._config.app_grace_s:
                self._expire(app, "all its calls are done")

    def leave(self, app: App, client: Client | None) -> bool:
        """The program that is this client has ended: whether its app goes on, which ends when it has nothing left to
        do. Only a detached one does, for calls that are not the client's own; those are cancelled."""
        if app.row.state != wire.DETACHED or app.stopping is not None or not self.is_busy(app, besides=client):
            return False
        for dispatcher in app.all_dispatchers:
            for call in self._calls.of(dispatcher):
                if call.sink is client:
                    dispatcher.attempts.cancel(list(call.inputs.values()))
        if client is not None:
            app.holders.discard(client)
        app.is_left = True
        self._released(app)
        return True

    def is_busy(self, app: App, *, besides: Client | None = None) -> bool:
        """Whether any input has no output, of calls other than that client's."""
        return any(
            self.stored_count(one.spec.function_id)
            or any(call.inputs and call.sink is not besides for call in self._calls.of(one))
            for one in app.all_dispatchers
        )

    # Functions

    async def create_functions(self, specs: tuple[FunctionSpec, ...]) -> tuple[str, ...]:
        """Create the functions of an app; repeating with equal specs is harmless.

        Raises:
            PlatformError: `not_found` for an app or mount, `conflict` for other specs under known ids or an app that is
                being stopped, `invalid`.
        """
        if not specs or len(specs) > FUNCTIONS_MAX or len({spec.app_id for spec in specs}) != 1:
            raise PlatformError(INVALID, f"FunctionCreate: takes 1 to {FUNCTIONS_MAX} functions of one app")
        app = self.get_live(specs[0].app_id)
        check_going("FunctionCreate", app)
        new = []
        for spec in specs:
            check_spec(spec)
            known = self.dispatchers.get(spec.function_id)
            if known is not None and known.spec != spec:
                raise PlatformError(CONFLICT, f"FunctionCreate: {spec.function_id} exists with another definition")
            if known is None:
                new.append(spec)
        with self.claiming("FunctionCreate", app.row, app.web_suffix, new):
            if mount_ids := frozenset(mount.mount_id for spec in new for mount in spec.mounts):
                await self._store.use_mounts(mount_ids, self._clock.now())
            if new:
                await self._check_no_variants(new)
                await self._store.put_functions(tuple(new))
            # Again, after the waits: what is added to an app that is ending would be stopped by nobody.
            check_going("FunctionCreate", app)
            for spec in new:
                if spec.function_id not in self.dispatchers:
                    self.add_function(app, spec)
            self.on_change(app)
        return tuple(spec.function_id for spec in specs)

    async def _check_no_variants(self, specs: list[FunctionSpec]) -> None:
        """Raises PlatformError `conflict` when one would be found in the place of a variant."""
        taken = await self._store.get_variants(frozenset(spec.function_id for spec in specs))
        if taken:
            message = f"{taken[0].function_id} is a variant of {taken[0].base_id}; create it under another id"
            raise PlatformError(CONFLICT, f"FunctionCreate: {message}")

    def functions_below(self, root_app_id: str) -> Iterator[str]:
        """The ids of functions of living apps that descend from that one."""
        for app in self.live.values():
            if app.row.ancestors and app.row.root_app_id == root_app_id:
                yield from app.functions.values()

    def add_function(self, app: App, spec: FunctionSpec) -> None:
        """The app has one more function; the store knows it already."""
        dispatcher = app.dispatchers[spec.name] = self._add(app, spec)
        if dispatcher.scaling.min_containers > 0:
            self._fleet.changed(dispatcher)

    def add_variant(self, app: App, spec: FunctionSpec) -> Dispatcher:
        """One of its functions has a variant in use."""
        dispatcher = self._add(app, spec)
        app.variants.setdefault(spec.variant_of, {})[spec.function_id] = dispatcher
        base = self.dispatchers.get(spec.variant_of)
        if base is not None and base.stopped is not None and not spec.is_pinned:
            # A deploy left its function out a moment ago.
            dispatcher.stopped = base.stopped
            self.retire(dispatcher)
        return dispatcher

    def variants_in_use(self, function_id: str) -> list[FunctionSpec]:
        """Of a function of a living app: the variants that are in memory."""
        base = self.dispatchers.get(function_id)
        app = self.live.get(base.spec.app_id) if base is not None else None
        return [one.spec for one in app.variants.get(function_id, {}).values()] if app is not None else []

    def forget_variant(self, function_id: str) -> None:
        """It has neither calls nor containers; the store can bring it back. Nothing is kept of what was measured."""
        dispatcher = self.dispatchers.pop(function_id, None)
        if dispatcher is not None and is_measured(dispatcher.spec):
            self._fleet.unneeded(dispatcher.spec.app_id, function_id)
        app = self.live.get(dispatcher.spec.app_id) if dispatcher is not None else None
        if dispatcher is None or app is None:
            return
        if app.scaling.pop(function_id, None) is not None:
            app.is_scaling_stored = True
        variants = app.variants.get(dispatcher.spec.variant_of, {})
        variants.pop(function_id, None)
        if not variants:
            app.variants.pop(dispatcher.spec.variant_of, None)

    def _add(self, app: App, spec: FunctionSpec) -> Dispatcher:
        dispatcher = Dispatcher(
            spec,
            app.row.name,
            calls=self._calls,
            fleet=self._fleet,
            clock=self._clock,
            config=self._config,
            root_app_id=app.row.root_app_id,
        )
        dispatcher.outlives_client = app.row.state != wire.EPHEMERAL
        dispatcher.is_deployed = app.row.state == wire.DEPLOYED
        dispatcher.go_by(app.scaling.get(spec.function_id, spec.scaling))
        self.dispatchers[spec.function_id] = dispatcher
        return dispatcher

    # Versions

    def published(self, app: App, row: StoredApp, version: StoredVersion) -> None:
        """The store has a new version of an app, perhaps its first."""
        app.row = row
        app.versions[version.version] = version
        self.live[app.app_id] = app

    def retire(self, dispatcher: Dispatcher) -> None:
        """A deploy left the function or variant out: it is known for as long as anything of it runs."""
        self._retired.append(dispatcher)

    def _forget_retired(self) -> None:
        for dispatcher in list(self._retired):
            if dispatcher.stopped is None or self.dispatchers.get(dispatcher.spec.function_id) is not dispatcher:
                self._retired.remove(dispatcher)  # a later deploy has it again, or its app was stopped
                continue
            dispatcher.fail_waiting(dispatcher.stopped)
            if not dispatcher.containers and not self.stored_count(dispatcher.spec.function_id):
                self._retired.remove(dispatcher)
                self._fleet.unneeded(dispatcher.spec.app_id, dispatcher.spec.function_id)
                if dispatcher.spec.variant_of:
                    self.forget_variant(dispatcher.spec.function_id)
                else:
                    self.dispatchers.pop(dispatcher.spec.function_id, None)

    # Finding

    def get_live(self, app_id: str) -> App:
        """An app that lives, by id.

        Raises:
            PlatformError: `not_found`.
        """
        app = self.live.get(app_id)
        if app is None:
            raise PlatformError(NOT_FOUND, f"app {app_id} does not exist or was stopped; `squall app list` shows them")
        return app

    def row_of(self, dispatcher: Dispatcher) -> StoredApp:
        """The living app that a function belongs to.

        Raises:
            PlatformError: `not_found`.
        """
        return self.get_live(dispatcher.spec.app_id).row

    async def get(self, app_id: str) -> StoredApp:
        """An app by id, ended ones too.

        Raises:
            PlatformError: `not_found`.
        """
        app = self.live.get(app_id)
        return app.row if app is not None else await self._store.get_app(app_id)

    async def find(self, text: str, scope_app_id: str = "", environment: str = "") -> StoredApp:
        """An app by id or name, ended ones too; children by id only. One that is deployed goes before others of its
        name. With a scope, a name is that of the scope's app or of the newest living descendant that has it; whether an
        id is within the scope is the caller's to check.

        Raises:
            PlatformError: `not_found`.
        """
        if text in self.live or is_id(text, "ap"):
            return await self.get(text)
        row = self._find_within(text, scope_app_id) if scope_app_id else await self._store.find_app(text, environment)
        if row is None and not scope_app_id:
            for candidate in await self._store.list_apps(limit=1_000, states=(wire.STOPPED, wire.STOPPING)):
                is_named = (candidate.name, candidate.environment) == (text, environment) and not candidate.ancestors
                if is_named and self.is_of_its_environment(candidate):
                    return candidate
        if row is None:
            raise PlatformError(NOT_FOUND, self._nowhere(text, () if scope_app_id else self.live.values(), environment))
        return row

    def _nowhere(self, name: str, apps: Iterable[App], environment: str) -> str:
        """That none of these is called so in that environment, and where to look."""
        roots = [app.row for app in apps if not app.row.ancestors]
        where = f" in environment {environment}" if environment else ""
        others = sorted({row.environment for row in roots if row.name == name} - {environment})
        if others:
            which = "environments" if len(others) > 1 else "environment"
            some = ", ".join(shown(other) for other in others[:ENVIRONMENTS_SHOWN])
            return f"no app is called {name!r} in environment {shown(environment)}; there is one in {which} {some}"
        option = f" -e {environment}" if environment else ""
        hint = near(name, {row.name for row in roots if row.environment == environment})
        return f"no app is called {name!r}{where}{hint or f'; `squall app list{option}` shows them'}"

    def _find_within(self, name: str, scope_app_id: str) -> StoredApp | None:
        rows = [app.row for app in self.live.values() if app.stopping is None and app.row.name == name]
        own = [row for row in rows if row.app_id == scope_app_id]
        below = [row for row in rows if scope_app_id in row.ancestors]
        return max(own or below, key=lambda row: (row.created_at, row.app_id), default=None)

    def info(self, row: StoredApp, functions: dict[str, str] | None = None) -> AppInfo:
        """An app as listed, with its functions where these are given."""
        app = self.live.get(row.app_id)
        count = sum(len(one.containers) for one in app.all_dispatchers) if app is not None else 0
        return AppInfo(
            row.app_id, row.name, row.state, row.created_at, row.stopped_at, count, functions or {}, row.tags,
            row.parent_app_id, shown(row.environment), app.version if app is not None else 0, row.created_by,
        )  # fmt: skip

    # Ending

    async def stop(self, app: App, reason: str) -> None:
        """Cancel its inputs, end its containers and its children, and return when they are gone (or the time for it is
        over)."""
        await asyncio.shield(self._begin_stop(app, reason))

    def _begin_stop(self, app: App, reason: str) -> asyncio.Future[None]:
        has_failed = app.stopping is not None and app.stopping.done() and self.live.get(app.app_id) is app
        if app.stopping is None or has_failed:
            app.stopping = self._tasks.start(self._stop(app, reason))
        return app.stopping

    async def _stop(self, app: App, reason: str) -> None:
        _log.info("stopping app %s (%s): %s", app.app_id, app.row.name, reason)
        self.on_change(app)
        timer = self._timers.pop(app.app_id, None)
        if timer is not None:
            timer.cancel()
        async with app.turn:
            await self._end(app, reason)

    async def _end(self, app: App, reason: str) -> None:
        failure = Failure("stopped", f"app {app.row.name or app.app_id} was stopped: {reason or 'it was asked to'}")
        below = [one for one in list(self.live.values()) if one.row.parent_app_id == app.app_id]
        ends = [
            self._begin_stop(one, f"app {app.row.name or app.app_id}, which started it, was stopped") for one in below
        ]
        containers: list[Container] = []
        dispatchers = [one for one in self.dispatchers.values() if one.spec.app_id == app.app_id]
        await self._let_finish(dispatchers, failure)
        for dispatcher in dispatchers:
            dispatcher.stop(failure)
            containers += dispatcher.containers.values()
        for container in list(containers):
            self._fleet.kill(container, "its app was stopped", END_GRACE_S)
        try:
            await self._store.set_app_state(app.app_id, wire.STOPPING)
        except PlatformError as error:
            _log.error("app %s: its state could not be kept: %s", app.app_id, error.message)
        hooks_s = max((one.grace_s(END_GRACE_S) for one in containers), default=0.0)
        await self.gone(containers, self._config.stop_timeout_s + hooks_s)
        if ends:
            await asyncio.wait(ends)
        app.row = replace(app.row, state=wire.STOPPED, stopped_at=self._clock.now())
        self.live.pop(app.app_id, None)
        for dispatcher in dispatchers:
            self.dispatchers.pop(dispatcher.spec.function_id, None)
        self._fleet.unneeded(app.app_id)
        try:
            await self._store.set_app_state(app.app_id, wire.STOPPED, app.row.stopped_at)
        except PlatformError as error:
            _log.error("app %s: its end could not be kept: %s", app.app_id, error.message)
        self._logs.finish(app.app_id)
        if app.row.ancestors:
            await self._forget_children(app.row.root_app_id)

    async def _let_finish(self, dispatchers: Iterable[Dispatcher], failure: Failure) -> None:
        """Containers of servers that are to finish what they were given do that first, while all that they may call is
        there."""
        finishing: list[Container] = []
        for dispatcher in dispatchers:
            if any(one.finish_s and one.is_busy for one in dispatcher.containers.values()):
                finishing += dispatcher.retire(failure)
        for container in finishing:
            self._fleet.end(container, "its app was stopped", END_GRACE_S)
        if finishing:
            await self.gone(finishing, max(one.finish_s for one in finishing) + END_GRACE_S)

    async def _forget_children(self, root_app_id: str) -> None:
        """A function may start apps for ever: only so many that have ended are remembered."""
        try:
            for app_id in await self._store.forget_children(root_app_id, children.ENDED_KEPT_MAX):
                await self._logs.delete(app_id)
        except PlatformError as error:
            _log.error("ended children of app %s could not be forgotten: %s", root_app_id, error.message)

    async def gone(self, containers: list[Container], timeout_s: float) -> None:
        """Wait for containers to be gone, but not longer than that."""
        all_gone = asyncio.Event()
        timer = self._clock.call_later(timeout_s, all_gone.set)
        left = [one for one in containers if not one.is_stopped]
        for container in left:
            container.on_stopped.append(lambda: None if any(not one.is_stopped for one in left) else all_gone.set())
        if left:
            await all_gone.wait()
        timer.cancel()


def check_going(method: str, app: App) -> None:
    """Raises PlatformError `conflict` when the end of the app was asked for."""
    if app.stopping is not None:
        what = f"app {app.row.name or app.app_id} is being stopped"
        raise PlatformError(CONFLICT, f"{method}: {what}; run or deploy it again, which makes another")


def _check_take_up(row: StoredApp, record: AppCreate, scope_app_id: str) -> None:
    """Whether an app that is there may be taken up like this.

    Raises:
        PlatformError: `forbidden` from a container whose app is not above it, `invalid` for another state of a child.
    """
    if scope_app_id and scope_app_id not in row.ancestors:
        raise PlatformError(
            FORBIDDEN, f"AppCreate: {row.app_id} was not started by this container's app; create another"
        )
    if row.ancestors and record.state != wire.EPHEMERAL:
        raise PlatformError(INVALID, f"AppCreate: app {row.app_id} was started by another app and ends with it")


def _schedule_problem(spec: FunctionSpec) -> str:
    if spec.schedule is None:
        return ""
    if spec.definition.is_generator:
        return "nobody takes what a generator yields"
    return schedule.problem(spec.schedule)


def _counts(scaling: Scaling) -> tuple[int, ...]:
    return scaling.min_containers, scaling.buffer_containers, scaling.max_containers or 0


def check_spec(spec: FunctionSpec, operation: str = "FunctionCreate") -> None:
    """Refuse what cannot be run.

    Raises:
        PlatformError: `invalid`, with the field and what it should be.
    """
    scaling, batching = spec.scaling, spec.batching
    problems = (
        (not is_id(spec.function_id, "fu"), f"function_id {spec.function_id!r} is no id of a function"),
        (not spec.name or len(spec.name) > 512, "a function needs a name of at most 512 characters"),
        (not spec.image_id, "image_id is missing"),
        (not 1 <= scaling.max_inputs <= INPUTS_AT_ONCE_MAX, f"max_inputs must be from 1 to {INPUTS_AT_ONCE_MAX}"),
        (
            scaling.target_inputs is not None and not 1 <= scaling.target_inputs <= scaling.max_inputs,
            "target_inputs must be from 1 to max_inputs",
        ),
        (
            batching is not None and not 1 <= batching.max_batch_size <= BATCH_SIZE_MAX,
            f"max_batch_size must be from 1 to {BATCH_SIZE_MAX}",
        ),
        (
            batching is not None and not 0 <= batching.wait_ms <= BATCH_WAIT_MS_MAX,
            f"wait_ms must be from 0 to {BATCH_WAIT_MS_MAX}",
        ),
        (batching is not None and spec.definition.is_generator, "a generator cannot be run in batches"),
        (
            scaling.is_single_use
            and (scaling.max_inputs > 1 or (batching is not None and batching.max_batch_size > 1)),
            "a container for one input only cannot run several at once",
        ),
        (
            not all(0 <= count <= CONTAINERS_MAX for count in _counts(scaling)),
            f"counts of containers must be from 0 to {CONTAINERS_MAX}",
        ),
        (
            scaling.max_containers is not None and scaling.max_containers < max(1, scaling.min_containers),
            "max_containers must be at least 1 and at least min_containers",
        ),
        (spec.timeout_s <= 0 or spec.startup_timeout_s <= 0, "timeouts must be above zero"),
        (not 0 <= spec.retries.max_retries <= RETRIES_MAX, f"retries must be between 0 and {RETRIES_MAX}"),
        (bool(web_problem(spec)), web_problem(spec)),
        (bool(_schedule_problem(spec)), f"schedule: {_schedule_problem(spec)}"),
    )
    for is_wrong, message in problems:
        if is_wrong:
            raise PlatformError(INVALID, f"{operation}: function {spec.name!r}: {message}")
