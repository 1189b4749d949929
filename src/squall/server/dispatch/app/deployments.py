"""Deployed apps: who becomes the next version, and what becomes of the one before.

A version is published in two steps. The store takes it as a whole, which is when it counts; then, without a wait in
between, each function's dispatcher goes on with its new record. A server that dies between the two is followed by one
that reads the new version, and tells containers of the old one by the version they were started with.

Changes of one app take turns (`Apps.changing`), and so do deploys under one name: each sees what the one before left.
An end that is asked for while a version is published comes right after it: the version then counts, and never begins.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from squall.protocol import deployment as wire
from squall.protocol import ids
from squall.protocol.app import DEPLOYED, EPHEMERAL, AppInfo
from squall.protocol.call import Failure
from squall.protocol.deployment import (
    AppHistory,
    AppPrepare,
    AppPrepared,
    AppPublish,
    AppPublished,
    AppRollback,
    AppTagsPut,
    AppVersion,
)
from squall.protocol.errors import CONFLICT, INVALID, NOT_FOUND, PlatformError
from squall.protocol.function import FunctionSpec
from squall.protocol.ids import is_id, new_id
from squall.protocol.limits import TAGS_MAX
from squall.protocol.names import APP_TAG, APP_TAG_RULE, NAME, NAME_RULE, VERSION_TAG, VERSION_TAG_RULE
from squall.protocol.records import replace as replaced
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.app.apps import App, Apps, check_going, check_spec
from squall.server.dispatch.app.environments import Environments
from squall.server.dispatch.app.near import near
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.fleet.fleet import ContainerFleet
from squall.server.model.clock import Clock
from squall.server.model.store import Store, StoredApp
from squall.server.model.variant import remade
from squall.server.model.version import VERSIONS_KEPT, StoredVersion, needs_of

if TYPE_CHECKING:
    from squall.server.dispatch.function.dispatcher import Dispatcher

RECREATE_S = 40.0
"""How long a deploy by `recreate` waits for the containers of the version before."""
RECREATE_GRACE_S = 30.0
"""What those get between the request to exit and the end."""
DRAFTS_MAX = 1_000
"""Apps that were asked for and of which no version has come yet; the oldest are forgotten."""
NAMES_MAX = 100
"""Versions whose functions' names are remembered."""
TEXT_CHARS_MAX = 200

_log = logging.getLogger("squall.server.dispatch.app.deployments")

Key = tuple[str, str]
"""The environment and the name of a deployed app."""


class Deployments:
    """What makes apps stay, and changes those that do."""

    def __init__(
        self, *, apps: Apps, environments: Environments, fleet: ContainerFleet, store: Store, clock: Clock,
        tasks: TaskSet,
    ) -> None:  # fmt: skip
        self._apps = apps
        self._environments = environments
        self._fleet = fleet
        self._store = store
        self._clock = clock
        self._tasks = tasks
        self._drafts: dict[Key, str] = {}
        self._names: OrderedDict[tuple[str, int], dict[str, str]] = OrderedDict()
        self._turns: dict[Key, tuple[asyncio.Lock, int]] = {}
        """With how many want it: a lock that nobody wants is forgotten."""

    # Preparing

    async def prepare(self, record: AppPrepare) -> AppPrepared:
        """The app that a deploy under this name is of; asking changes nothing that others see.

        Raises:
            PlatformError: `invalid` for a name that is none.
        """
        _check_name("AppPrepare", record.name)
        key = (record.environment, record.name)
        app = self._find(key)
        if app is not None:
            return AppPrepared(app.app_id, app.version)
        app_id = self._drafts.get(key)
        if app_id is None:
            app_id = self._drafts[key] = new_id("ap")
            self._apps.drafts.add(app_id)
            while len(self._drafts) > DRAFTS_MAX:
                self._forget_draft(next(iter(self._drafts)))
        return AppPrepared(app_id)

    def _forget_draft(self, key: Key) -> None:
        app_id = self._drafts.pop(key, None)
        if app_id is not None:
            self._apps.drafts.discard(app_id)

    def _find(self, key: Key) -> App | None:
        return next((app for app in self._deployed_as(key) if app.stopping is None), None)

    def _deployed_as(self, key: Key) -> list[App]:
        """Also those that are ending."""
        rows = ((app, app.row) for app in self._apps.live.values())
        return [app for app, row in rows if row.state == DEPLOYED and (row.environment, row.name) == key]

    @asynccontextmanager
    async def _turn(self, key: Key) -> AsyncIterator[None]:
        """Nobody else publishes under that name meanwhile."""
        lock, count = self._turns.get(key) or (asyncio.Lock(), 0)
        self._turns[key] = lock, count + 1
        try:
            async with lock:
                yield
        finally:
            count = self._turns[key][1] - 1
            if count:
                self._turns[key] = lock, count
            else:
                del self._turns[key]

    # Publishing

    async def publish(self, record: AppPublish, functions: tuple[FunctionSpec, ...]) -> AppPublished:
        """See `AppPublish`. Carried out to the end, whatever becomes of who asked.

        Raises:
            PlatformError: `invalid`, `conflict`, and `not_found` for a mount.
        """
        _check_publish(record, functions)
        return await asyncio.shield(self._tasks.start(self._publish(record, functions)))

    async def _publish(self, record: AppPublish, functions: tuple[FunctionSpec, ...]) -> AppPublished:
        with self._environments.entering("AppPublish", record.environment):
            async with self._turn((record.environment, record.name)):
                app = await self._app_of(record)
                async with self._apps.changing("AppPublish", app):
                    published, leaving = await self._publish_as(app, record, functions)
        return replaced(published, left_container_count=await self._left(leaving, record.strategy))

    async def _publish_as(
        self, app: App, record: AppPublish, functions: tuple[FunctionSpec, ...]
    ) -> tuple[AppPublished, list[Container]]:
        """The answer, and the containers that are to end."""
        known = _by_deploy_id(app, record.deploy_id)
        if known is not None:
            return self._published(app, known.version), []
        number = app.version + 1
        specs = _numbered(app, functions, number)
        is_same = app.row.tags == record.app_tags and record.tag in ("", _tag_of(app))
        if app.version and is_same and _is_unchanged(app, specs):
            return self._published(app, app.version, is_unchanged=True), []
        row = replace(app.row, tags=record.app_tags)
        version = StoredVersion(
            app.app_id, number, self._clock.now(), record.deploy_id, record.strategy, record.tag,
            record.client_version, record.deployed_by, record.commit,
        )  # fmt: skip
        with self._apps.claiming("AppPublish", row, app.web_suffix, specs):
            leaving = await self._carry_out("AppPublish", app, row, version, specs)
        return self._published(app, number), leaving

    async def _app_of(self, record: AppPublish) -> App:
        """The app of that name, or one that lives from its first version on; or the ephemeral one of that id."""
        served = self._apps.live.get(record.app_id)
        if served is not None and served.row.state == EPHEMERAL and not served.row.ancestors:
            if served.dispatchers and not served.versions:
                # Not one that was made to be served: its program would run what somebody else wrote.
                what = f"app {record.app_id} is that of a program that runs, and is not changed by others"
                raise PlatformError(CONFLICT, f"AppPublish: {what}; deploy it under a name")
            return served
        key = (record.environment, record.name)
        if ends := [app.stopping for app in self._deployed_as(key) if app.stopping is not None]:
            await asyncio.wait(ends)
        app = self._find(key)
        if app is not None:
            if app.app_id != record.app_id:
                what = f"app {record.name} was deployed by somebody else meanwhile, as {app.app_id}"
                raise PlatformError(CONFLICT, f"AppPublish: {what}; deploy again")
            return app
        try:
            await self._store.get_app(record.app_id)
        except PlatformError as error:
            if error.code != NOT_FOUND:
                raise
            row = StoredApp(
                record.app_id, record.name, DEPLOYED, self._clock.now(), environment=record.environment,
                created_by=record.deployed_by,
            )  # fmt: skip
            return App(row)
        raise PlatformError(CONFLICT, f"AppPublish: app {record.app_id} was stopped meanwhile; deploy again")

    async def _carry_out(
        self, method: str, app: App, row: StoredApp, version: StoredVersion, specs: tuple[FunctionSpec, ...]
    ) -> list[Container]:
        """Let the store have it, then everybody; the containers that are to end.

        Raises:
            PlatformError: `conflict` when its end is asked for meanwhile: nothing of the version begins then.
        """
        image_ids, mount_ids, blob_sha256s = needs_of(specs)
        version = replace(
            version,
            function_count=len(specs),
            image_ids=image_ids,
            mount_ids=mount_ids,
            blob_sha256s=blob_sha256s,
        )
        names = {spec.name for spec in specs}
        gone = {name: one for name, one in app.dispatchers.items() if name not in names}
        gone_ids = frozenset(one.spec.function_id for one in gone.values())
        if mount_ids:
            await self._store.use_mounts(frozenset(mount_ids), self._clock.now())
            check_going(method, app)
        await self._store.publish_version(row, version, specs, gone_ids, VERSIONS_KEPT)
        check_going(method, app)
        # From here on it counts: nothing waits or fails until every function has its new record.
        self._forget_draft((row.environment, row.name))
        self._apps.published(app, row, version)
        leaving = self._replace(app, specs, version)
        for name, dispatcher in gone.items():
            del app.dispatchers[name]
            self._retire(dispatcher, app, version.version)
        self._fleet.unneeded(app.app_id, functions=app.function_versions)
        self._apps.on_change(app)
        try:
            app.versions = {one.version: one for one in await self._store.list_versions(app.app_id)}
        except PlatformError as error:
            _log.warning("app %s: which of its versions are kept is not known: %s", app.app_id, error.message)
        return leaving

    def _replace(self, app: App, specs: Iterable[FunctionSpec], version: StoredVersion) -> list[Container]:
        """Each function goes on with its new record; returns the containers of the others."""
        reason = f"version {version.version} of its app was deployed"
        leaving: list[Container] = []
        for spec in specs:
            dispatcher = app.dispatchers.get(spec.name) or self._apps.dispatchers.get(spec.function_id)
            if dispatcher is None:
                self._apps.add_function(app, spec)
            elif dispatcher.spec == spec and dispatcher.stopped is None:
                continue
            else:
                app.dispatchers[spec.name] = dispatcher
                leaving += dispatcher.revise(spec)
            # Also of a function that is new here: it was left out for a while, and its variants have work to finish.
            for variant in app.following(spec.function_id):
                leaving += variant.revise(remade(variant.spec, spec))
        app.scaling.clear()
        app.is_scaling_stored = False
        for dispatcher in (
            *app.dispatchers.values(),
            *(one for some in app.variants.values() for one in some.values()),
        ):
            if dispatcher.scaling != dispatcher.spec.scaling:
                dispatcher.rescale(dispatcher.spec.scaling)
        for container in leaving:
            if version.strategy == wire.RECREATE:
                container.is_sacrificed = True
                self._fleet.end(container, reason, RECREATE_GRACE_S)
            else:
                self._fleet.drain(container, reason)
        return leaving

    def _retire(self, dispatcher: Dispatcher, app: App, version: int) -> None:
        message = f"function {dispatcher.spec.name} was deleted in version {version} of app {app.row.name}"
        failure = Failure("not_found", message + near(dispatcher.spec.name, app.dispatchers))
        for one in (dispatcher, *app.following(dispatcher.spec.function_id)):
            for container in one.retire(failure):
                self._fleet.drain(container, f"its function was deleted in version {version} of its app")
            self._apps.retire(one)

    async def _left(self, leaving: list[Container], strategy: str) -> int:
        """How many of these are still there, after the time they have."""
        if strategy == wire.RECREATE:
            await self._apps.gone(leaving, RECREATE_S)
        return sum(not one.is_stopped for one in leaving) if strategy == wire.RECREATE else 0

    def _published(self, app: App, version: int, *, is_unchanged: bool = False) -> AppPublished:
        return AppPublished(app.app_id, version, is_unchanged=is_unchanged)

    # Earlier versions

    async def rollback(self, app_id: str, record: AppRollback) -> AppPublished:
        """See `AppRollback`.

        Raises:
            PlatformError: `not_found` for a version that there is not, or not any more, `conflict` when something of it
                was removed, `invalid`.
        """
        _check_words("AppRollback", record.strategy, record.client_version, record.deployed_by, record.deploy_id)
        if not record.deploy_id:
            raise PlatformError(INVALID, "AppRollback: deploy_id is missing")
        return await asyncio.shield(self._tasks.start(self._rollback(app_id, record)))

    async def _rollback(self, app_id: str, record: AppRollback) -> AppPublished:
        app = self._deployed(app_id, "AppRollback")
        async with self._apps.changing("AppRollback", app):
            known = _by_deploy_id(app, record.deploy_id)
            if known is not None:
                return self._published(app, known.version)
            before = self._version_meant(app, record)
            functions = await self.functions_of(app, before.version)
            await self._check_images(before)
            number = app.version + 1
            if record.is_rollover:
                specs = tuple(replaced(spec, version=number) for spec in functions)
            else:
                specs = _numbered(app, functions, number)
            version = StoredVersion(
                app_id, number, self._clock.now(), record.deploy_id, record.strategy, before.tag,
                record.client_version, record.deployed_by, before.commit, before.version,
            )  # fmt: skip
            with self._apps.claiming("AppRollback", app.row, app.web_suffix, specs):
                leaving = await self._carry_out("AppRollback", app, app.row, version, specs)
        published = self._published(app, number)
        return replaced(published, left_container_count=await self._left(leaving, record.strategy))

    def _deployed(self, app_id: str, method: str) -> App:
        app = self._apps.get_live(app_id)
        if app.row.state != DEPLOYED:
            what = f"app {app.row.name or app_id} is {app.row.state}: it has no versions"
            raise PlatformError(INVALID, f"{method}: {what}; deploy it first, by `squall deploy`")
        check_going(method, app)
        return app

    def _version_meant(self, app: App, record: AppRollback) -> StoredVersion:
        if record.is_rollover:
            number = app.version
        elif record.version:
            number = record.version
        else:
            number = max((one for one in app.versions if one < app.version), default=0)
            if not number:
                raise PlatformError(INVALID, f"AppRollback: app {app.row.name} has no version before {app.version}")
        found = app.versions.get(number)
        if found is None:
            kept = ", ".join(f"v{one}" for one in sorted(app.versions, reverse=True)[:10])
            message = f"app {app.row.name} has no version {number}, or no longer; it has {kept}"
            raise PlatformError(NOT_FOUND, f"AppRollback: {message}")
        if number == app.version and not record.is_rollover:
            raise PlatformError(
                INVALID,
                f"AppRollback: version {number} is the current one; `squall app rollover` replaces its containers",
            )
        return found

    async def _check_images(self, version: StoredVersion) -> None:
        for image_id in version.image_ids:
            try:
                await self._store.get_image(image_id)
            except PlatformError as error:
                if error.code != NOT_FOUND:
                    raise
                message = f"image {image_id} of version {version.version} was removed; deploy its code again"
                raise PlatformError(CONFLICT, f"AppRollback: {message}") from error

    def names_in(self, app_id: str, version: int) -> dict[str, str] | None:
        """Name to id of the functions of a version, if it was read lately: as what is held to it was made."""
        return self._names.get((app_id, version))

    async def functions_of(self, app: App, version: int) -> tuple[FunctionSpec, ...]:
        """The functions of a version, as they were published.

        Raises:
            PlatformError: `not_found`.
        """
        try:
            functions = await self._store.list_version_functions(app.app_id, version)
            self._names[app.app_id, version] = {spec.name: spec.function_id for spec in functions}
            while len(self._names) > NAMES_MAX:
                self._names.popitem(last=False)
            return functions
        except PlatformError as error:
            if error.code != NOT_FOUND:
                raise
            what = f"app {app.row.name} has no version {version}, or no longer"
            raise PlatformError(NOT_FOUND, f"{what}; `squall app history {app.row.name}` shows them") from error

    async def function_in(self, app_id: str, version: int, name: str) -> FunctionSpec:
        """A function as it was in a version.

        Raises:
            PlatformError: `not_found`.
        """
        app = self._deployed(app_id, "FunctionGet")
        functions = {spec.name: spec for spec in await self.functions_of(app, version)}
        if name not in functions:
            what = f"version {version} of app {app.row.name} has no function {name!r}"
            raise PlatformError(NOT_FOUND, f"FunctionGet: {what}{near(name, functions)}")
        return functions[name]

    async def function_of_id(self, app_id: str, version: int, function_id: str) -> FunctionSpec:
        """The same by its id, which no later version need have.

        Raises:
            PlatformError: `not_found`.
        """
        app = self._deployed(app_id, "FunctionBind")
        for spec in await self.functions_of(app, version):
            if spec.function_id == function_id:
                return spec
        known = self._apps.dispatchers.get(function_id)
        which = f"function {known.spec.name!r}" if known is not None else f"function of id {function_id[:80]}"
        raise PlatformError(NOT_FOUND, f"FunctionBind: version {version} of app {app.row.name} has no {which}")

    async def history(self, row: StoredApp) -> AppHistory:
        """The versions of an app, ended ones too."""
        versions = await self._store.list_versions(row.app_id)
        return AppHistory(row.app_id, tuple(_listed(one) for one in versions))

    async def put_tags(self, app_id: str, record: AppTagsPut) -> AppInfo:
        """Replace the tags of an app that lives.

        Raises:
            PlatformError: `not_found`, `invalid`, `conflict` when it is being stopped.
        """
        _check_tags("AppTagsPut", record.tags)
        app = self._apps.get_live(app_id)
        async with self._apps.changing("AppTagsPut", app):
            await self._store.put_app(replace(app.row, tags=record.tags))
            app.row = replace(app.row, tags=record.tags)
            return self._apps.info(app.row)


def _listed(version: StoredVersion) -> AppVersion:
    return AppVersion(
        version.version,
        version.deployed_at,
        version.strategy,
        version.tag,
        version.client_version,
        version.deployed_by,
        version.commit,
        version.restored_version,
        version.function_count,
    )


def _by_deploy_id(app: App, deploy_id: str) -> StoredVersion | None:
    return next((one for one in app.versions.values() if one.deploy_id == deploy_id), None)


def _tag_of(app: App) -> str:
    current = app.versions.get(app.version)
    return current.tag if current is not None else ""


def _numbered(app: App, functions: Iterable[FunctionSpec], version: int) -> tuple[FunctionSpec, ...]:
    """The functions of a new version: what is as it was keeps the number since when it is so, and its containers."""
    found = []
    for spec in functions:
        known = app.dispatchers.get(spec.name)
        is_same = known is not None and replaced(spec, version=known.spec.version) == known.spec
        found.append(known.spec if known is not None and is_same else replaced(spec, version=version))
    return tuple(found)


def _is_unchanged(app: App, specs: Sequence[FunctionSpec]) -> bool:
    if len(specs) != len(app.dispatchers):
        return False
    return all(spec.name in app.dispatchers and app.dispatchers[spec.name].spec is spec for spec in specs)


def _check_name(method: str, name: str) -> None:
    if not re.match(NAME, name) or is_id(name, "ap"):
        message = f"an app is deployed under a name of {NAME_RULE}"
        raise PlatformError(INVALID, f"{method}: {message}, not {name[:80]!r}")


def _check_tags(method: str, tags: dict[str, str]) -> None:
    if len(tags) > TAGS_MAX or not all(re.match(APP_TAG, text) for pair in tags.items() for text in pair):
        message = f"tags are at most {TAGS_MAX} pairs of {APP_TAG_RULE}"
        raise PlatformError(INVALID, f"{method}: {message}")


def _check_words(method: str, strategy: str, *texts: str) -> None:
    if strategy not in wire.STRATEGIES:
        raise PlatformError(INVALID, f"{method}: strategy {strategy[:80]!r} is none of {', '.join(wire.STRATEGIES)}")
    if any(len(text) > TEXT_CHARS_MAX for text in texts):
        raise PlatformError(INVALID, f"{method}: who deploys, and with what, is said in {TEXT_CHARS_MAX} characters")


def _check_publish(record: AppPublish, functions: tuple[FunctionSpec, ...]) -> None:
    """Refuse what could not be a version.

    Raises:
        PlatformError: `invalid`.
    """
    _check_name("AppPublish", record.name)
    _check_tags("AppPublish", record.app_tags)
    commit = record.commit or wire.Commit("")
    texts = (record.client_version, record.deployed_by, record.deploy_id, commit.sha, commit.branch)
    _check_words("AppPublish", record.strategy, *texts)
    names = {spec.name for spec in functions}
    problems = (
        (not record.deploy_id, "deploy_id is missing"),
        (not is_id(record.app_id, "ap"), f"{record.app_id[:80]!r} is no id of an app; ask by AppPrepare"),
        (not re.match(VERSION_TAG, record.tag), f"a tag is {VERSION_TAG_RULE}"),
        (len(functions) > wire.FUNCTIONS_MAX, f"an app has at most {wire.FUNCTIONS_MAX} functions"),
        (len(names) != len(functions), "two functions have one name"),
    )
    for is_wrong, message in problems:
        if is_wrong:
            raise PlatformError(INVALID, f"AppPublish: {message}")
    for spec in functions:
        check_spec(spec)
        if spec.app_id != record.app_id or spec.function_id != ids.function_id(record.app_id, spec.name):
            raise PlatformError(INVALID, f"AppPublish: function {spec.name!r} has the id of another")
        if spec.variant_of or spec.is_pinned or spec.is_interactive:
            message = f"function {spec.name!r} is a variant, or needs a terminal"
            raise PlatformError(INVALID, f"AppPublish: {message}; deploy what was decorated")
