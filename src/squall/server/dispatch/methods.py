"""What the server answers: every unary method of `protocol/methods.py` that clients ask, one small function each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from squall.protocol.app import (
    STOPPED,
    STOPPING,
    AppCreate,
    AppCreated,
    AppGet,
    AppInfo,
    AppList,
    AppListing,
    AppStop,
    AppStopped,
)
from squall.protocol.autoscaler import AutoscalerGet, AutoscalerSettings, AutoscalerUpdate
from squall.protocol.blob import BlobChunk, BlobGet, BlobMissing, BlobPut, BlobStat
from squall.protocol.call import (
    SPAWN,
    CallCancel,
    CallExtend,
    CallGather,
    CallGet,
    CallInfo,
    CallInfoGet,
    CallRead,
    CallSpawn,
    CallSpawned,
    OutputBatch,
    SpawnBatch,
)
from squall.protocol.container import ContainerList, ContainerListing, ContainerStop
from squall.protocol.empty import Empty
from squall.protocol.errors import CONFLICT, FORBIDDEN, INVALID, NOT_FOUND, PlatformError
from squall.protocol.function import (
    FUNCTIONS_SHOWN_MAX,
    FunctionBind,
    FunctionBound,
    FunctionCreate,
    FunctionCreated,
    FunctionGet,
    FunctionList,
    FunctionListing,
    FunctionSpec,
    FunctionStats,
    FunctionStatsGet,
)
from squall.protocol.ids import parse_input_id
from squall.protocol.image_catalog import ImageGet, ImageInfo, ImageList, ImageListing, ImageName, ImagePublish
from squall.protocol.mount import MountCreate, MountCreated, MountGet, MountManifest
from squall.protocol.pages import PAGE_RECORDS_MAX, first_page
from squall.protocol.schedule import ScheduleList, ScheduleListing
from squall.protocol.server import ServerStatus, ServerStatusRequest, ServerStop
from squall.protocol.web import WebAddressList, WebAddressListing
from squall.server.dispatch.app import children
from squall.server.dispatch.app.apps import FUNCTIONS_MAX, LIVE
from squall.server.dispatch.app.methods import deployment_methods
from squall.server.dispatch.app.near import near
from squall.server.dispatch.app.spec_size import check_sizes
from squall.server.dispatch.asset.methods import asset_methods
from squall.server.dispatch.client.callers import Caller
from squall.server.dispatch.durable.spawns import RETRY_S, NoRoom
from squall.server.dispatch.fleet import autoscaling
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.flight.methods import flight_methods
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.dispatch.function.input import Input
from squall.server.dispatch.image.delete import delete_images
from squall.server.dispatch.image.garbage import collect_images
from squall.server.dispatch.server_stop import stop_server
from squall.server.model.definition import check_isolation, check_method
from squall.server.model.variables import without_values

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane

FUNCTIONS_READ = 25
"""How many of a page are read at once."""
DOUBTED_MAX = 4
"""Blobs that are looked at for one request."""
CHUNKS_MAX = 16 * 2**20

Answer = tuple[Any, bytes]
Unary = Callable[[Caller, Any, bytes], Awaitable[Answer]]


class Methods:
    """The table from method to function; both the wire and the HTTP twin use it."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self.table: dict[str, Unary] = {
            "ServerStatus": self._server_status,
            "ServerStop": self._server_stop,
            "AppCreate": self._app_create,
            "AppGet": self._app_get,
            "AppList": self._app_list,
            "AppStop": self._app_stop,
            "FunctionCreate": self._function_create,
            "FunctionGet": self._function_get,
            "FunctionList": self._function_list,
            "FunctionBind": self._function_bind,
            "FunctionStats": self._function_stats,
            "WebAddressList": self._web_address_list,
            "ProxyTokenCreate": _bodiless(plane.proxy_tokens.create),
            "ProxyTokenList": _bodiless(plane.proxy_tokens.list_all),
            "ProxyTokenUpdate": _bodiless(plane.proxy_tokens.update),
            "ProxyTokenAllow": _bodiless(plane.proxy_tokens.allow),
            "ProxyTokenRevoke": _bodiless(plane.proxy_tokens.revoke),
            "ProxyTokenDelete": _bodiless(plane.proxy_tokens.delete),
            "TunnelOpen": _of_caller(plane.tunnels.open),
            "TunnelClose": _of_caller(plane.tunnels.close),
            "AutoscalerGet": self._autoscaler_get,
            "AutoscalerUpdate": self._autoscaler_update,
            "MountCreate": self._mount_create,
            "MountGet": self._mount_get,
            "BlobStat": self._blob_stat,
            "BlobPut": self._blob_put,
            "BlobGet": self._blob_get,
            "CallSpawn": self._call_spawn,
            "CallSpawnMany": self._call_spawn_many,
            "CallExtend": self._call_extend,
            "CallRead": self._call_read,
            "CallGet": self._call_get,
            "CallGather": self._call_gather,
            "CallInfo": self._call_info,
            "CallCancel": self._call_cancel,
            "ContainerList": self._container_list,
            "ContainerStop": self._container_stop,
        }
        self.table |= flight_methods(plane)
        self.table |= deployment_methods(plane)
        self.table |= asset_methods(plane)
        catalog = plane.catalog
        self.table |= {
            "ImageGet": self._image_get,
            "ImageList": self._image_list,
            "ImagePublish": self._image_publish,
            "ImageNameList": _bodiless(catalog.list_names),
            "ImageNameDelete": _bodiless(catalog.delete_name),
            "ImageDelete": _bodiless(lambda record: delete_images(plane, record)),
            "ImageGc": _bodiless(lambda record: collect_images(plane, record)),
            "TemplateList": _bodiless(plane.node_templates.list_all),
            "TemplateDrop": _bodiless(plane.node_templates.drop_some),
            "ScheduleList": self._schedule_list,
            "ScheduleRun": _bodiless(plane.schedules.run),
        }

    async def answer(self, caller: Caller, method: str, record: Any, body: bytes) -> Answer:
        """Carry a method out.

        Raises:
            PlatformError: `invalid` for an unknown method, `forbidden`, and what the method says.
        """
        caller.check_method(method)
        unary = self.table.get(method)
        if unary is None:
            raise PlatformError(INVALID, f"{method}: this server has no such method")
        return await unary(caller, self._plane.environments.meant(method, record, caller), body)

    # Images

    async def _image_get(self, caller: Caller, record: ImageGet, body: bytes) -> tuple[ImageInfo, bytes]:
        info = await self._plane.catalog.get(record)
        if caller.scope_app_id:
            # What a container needs to start one; which others use it and how it is made is not for it to know.
            info = ImageInfo(info.image_id, info.built_at, info.used_at, info.layers, config=info.config)
        return info, b""

    async def _image_list(self, caller: Caller, record: ImageList, body: bytes) -> tuple[ImageListing, bytes]:
        return ImageListing(*first_page(self._plane.codec, await self._plane.catalog.list_images(record))), b""

    async def _image_publish(self, caller: Caller, record: ImagePublish, body: bytes) -> tuple[ImageName, bytes]:
        with self._plane.environments.entering("ImagePublish", record.environment):
            return await self._plane.catalog.publish(record), b""

    # Server

    async def _server_status(
        self, caller: Caller, record: ServerStatusRequest, body: bytes
    ) -> tuple[ServerStatus, bytes]:
        return self._plane.status(), b""

    async def _server_stop(self, caller: Caller, record: ServerStop, body: bytes) -> tuple[Empty, bytes]:
        await stop_server(self._plane, record)
        return Empty(), b""

    # Apps

    async def _app_create(self, caller: Caller, record: AppCreate, body: bytes) -> tuple[AppCreated, bytes]:
        app = await self._plane.apps.create(record, caller.client, caller.scope_app_id)
        return AppCreated(app.app_id), b""

    async def _app_get(self, caller: Caller, record: AppGet, body: bytes) -> tuple[AppInfo, bytes]:
        row = await self._plane.apps.find(record.app, caller.scope_app_id, record.environment)
        caller.check_use("AppGet", row)
        return self._plane.apps.info(row, await self._functions(row.app_id) if record.has_functions else None), b""

    async def _functions(self, app_id: str) -> dict[str, str]:
        app = self._plane.apps.live.get(app_id)
        if app is not None:
            return app.functions
        return {spec.name: spec.function_id for spec in await self._plane.store.list_functions(app_id)}

    async def _app_list(self, caller: Caller, record: AppList, body: bytes) -> tuple[AppListing, bytes]:
        limit, store = max(0, min(record.limit, PAGE_RECORDS_MAX + 1)), self._plane.store
        before = None if record.before_at is None else (record.before_at, record.before_id)
        going = PAGE_RECORDS_MAX + 1 if record.include_stopped else limit
        rows = await store.list_apps(going, (*LIVE, STOPPING), record.environment, before=before)
        if record.include_stopped:
            # Those that live are never cut off by runs that have ended.
            rows += await store.list_apps(limit, (STOPPED,), record.environment, before=before)
            if record.environment is not None:
                rows = tuple(filter(self._plane.environments.is_of_it, rows))
            rows = tuple(sorted(rows, key=lambda row: (row.created_at, row.app_id), reverse=True))
        return AppListing(*first_page(self._plane.codec, map(self._plane.apps.info, rows))), b""

    async def _app_stop(self, caller: Caller, record: AppStop, body: bytes) -> tuple[AppStopped, bytes]:
        row = await self._plane.apps.find(record.app, caller.scope_app_id)
        caller.check_change("AppStop", row)
        app = self._plane.apps.live.get(row.app_id)
        if app is None:
            return AppStopped(was_stopped=True), b""
        if record.is_sparing and self._plane.apps.leave(app, caller.client):
            return AppStopped(goes_on=True), b""
        was_stopped = app.stopping is not None
        await self._plane.apps.stop(app, record.reason)
        return AppStopped(was_stopped=was_stopped), b""

    async def _schedule_list(self, caller: Caller, record: ScheduleList, body: bytes) -> tuple[ScheduleListing, bytes]:
        infos = await self._plane.schedules.list_schedules(record)
        return ScheduleListing(*first_page(self._plane.codec, infos)), b""

    # Functions

    async def _function_create(
        self, caller: Caller, record: FunctionCreate, body: bytes
    ) -> tuple[FunctionCreated, bytes]:
        if caller.scope_app_id:
            await self._check_functions(caller, record.functions)
        check_sizes(self._plane.codec, "FunctionCreate", record.functions)
        check_isolation("FunctionCreate", record.functions)
        await self._plane.secrets.check(caller, "FunctionCreate", record.functions)
        await self._plane.volume_mounts.check(caller, "FunctionCreate", record.functions)
        for spec in record.functions:
            self._plane.image_users.claim(spec.app_id, spec.image_id)
        return FunctionCreated(await self._plane.apps.create_functions(record.functions)), b""

    async def _check_functions(self, caller: Caller, specs: tuple[FunctionSpec, ...]) -> None:
        """What a container may create: functions of apps it may change, under the ids that are theirs."""
        root_app_id = self._plane.apps.get_live(caller.scope_app_id).row.root_app_id
        children.check_count(specs, self._plane.apps.functions_below(root_app_id), root_app_id)
        for spec in specs[:FUNCTIONS_MAX]:
            caller.check_change("FunctionCreate", await self._plane.apps.get(spec.app_id))
            children.check_function(spec, is_network_blocked=caller.is_network_blocked, isolation=caller.isolation)

    async def _function_get(self, caller: Caller, record: FunctionGet, body: bytes) -> tuple[FunctionSpec, bytes]:
        if record.has_env and caller.scope_app_id:
            message = "what is in the variables of a function is not for containers; leave has_env out"
            raise PlatformError(FORBIDDEN, f"FunctionGet: {message}")
        spec = await self._find_function(caller, record)
        return spec if record.has_env else without_values(spec), b""

    async def _function_list(self, caller: Caller, record: FunctionList, body: bytes) -> tuple[FunctionListing, bytes]:
        row = await self._plane.apps.get(record.app_id)
        listed: tuple[FunctionSpec, ...] = ()
        is_cut = True
        # A few at a time: a function may be as large as a page.
        while is_cut and len(listed) < FUNCTIONS_SHOWN_MAX:
            after = listed[-1].name if listed else record.after
            found = await self._plane.store.page_functions(row.app_id, after, FUNCTIONS_READ + 1)
            is_cut = len(found) > FUNCTIONS_READ
            shown = found[:FUNCTIONS_READ] if record.has_env else map(without_values, found[:FUNCTIONS_READ])
            listed, is_full = first_page(self._plane.codec, (*listed, *shown))
            if is_full:
                return FunctionListing(listed, True), b""
        return FunctionListing(listed, is_cut), b""

    async def _find_function(self, caller: Caller, record: FunctionGet) -> FunctionSpec:
        spec: FunctionSpec | None
        if record.function_id:
            dispatcher = await self._plane.variants.find(record.function_id)
            if dispatcher is not None and dispatcher.spec.variant_of:
                spec = dispatcher.spec
            else:
                spec = await self._plane.variants.spec_of(record.function_id)
        else:
            row = await self._plane.apps.find(record.app, caller.scope_app_id, record.environment)
            caller.check_use("FunctionGet", row)
            if record.version:
                return await self._plane.deployments.function_in(row.app_id, record.version, record.name)
            spec = await self._plane.store.find_function(row.app_id, record.name)
            if spec is None:
                app = self._plane.apps.live.get(row.app_id)
                hint = near(record.name, app.dispatchers if app is not None else ())
                hint = hint or f"; `squall app info {row.app_id}` shows what there is"
                what = f"app {record.app!r} has no function {record.name!r}"
                raise PlatformError(NOT_FOUND, f"FunctionGet: {what}{hint}")
        caller.check_use("FunctionGet", await self._plane.apps.get(spec.app_id))
        return spec

    async def _function_bind(self, caller: Caller, record: FunctionBind, body: bytes) -> tuple[FunctionBound, bytes]:
        if record.app_id and record.version and await self._plane.variants.find(record.function_id) is None:
            # The current version may not have it any more.
            caller.check_use("FunctionBind", self._plane.apps.get_live(record.app_id).row)
        else:
            await self._dispatcher(caller, "FunctionBind", record.function_id)
        if not record.version:
            record = replace(record, function_id=await self._held(caller, record.function_id))
        options = record.options
        if options is not None and (options.secrets or options.volumes or options.buckets):
            base = await self._dispatcher(caller, "FunctionBind", record.function_id)
            mounts = options.volumes or (), options.buckets or ()
            asked = replace(
                base.spec, function_id="", secrets=options.secrets or (), volumes=mounts[0], buckets=mounts[1]
            )
            await self._plane.secrets.check(caller, "FunctionBind", (asked,))
            await self._plane.volume_mounts.check(caller, "FunctionBind", (asked,))
        return FunctionBound(await self._plane.variants.bind(record)), b""

    async def _function_stats(
        self, caller: Caller, record: FunctionStatsGet, body: bytes
    ) -> tuple[FunctionStats, bytes]:
        dispatcher = await self._dispatcher(caller, "FunctionStats", record.function_id)
        stats, waiting = dispatcher.stats(), self._plane.durable.backlog.count(record.function_id)
        return replace(stats, queued_inputs=stats.queued_inputs + waiting), b""

    async def _web_address_list(
        self, caller: Caller, record: WebAddressList, body: bytes
    ) -> tuple[WebAddressListing, bytes]:
        app_id = record.app_id
        if record.function_id:
            dispatcher = await self._dispatcher(caller, "WebAddressList", record.function_id)
            app_id = dispatcher.spec.app_id
        caller.check_use("WebAddressList", await self._plane.apps.get(app_id))
        found = [one for one in self._plane.web.routes.addresses(app_id) if one.label > record.after]
        if record.function_id:
            base_id = dispatcher.spec.variant_of or dispatcher.spec.function_id
            found = [one for one in found if one.function_id == base_id]
        return WebAddressListing(*first_page(self._plane.codec, found)), b""

    async def _autoscaler_get(
        self, caller: Caller, record: AutoscalerGet, body: bytes
    ) -> tuple[AutoscalerSettings, bytes]:
        dispatcher = await self._dispatcher(caller, "AutoscalerGet", record.function_id)
        return autoscaling.settings(dispatcher.scaling), b""

    async def _autoscaler_update(
        self, caller: Caller, record: AutoscalerUpdate, body: bytes
    ) -> tuple[AutoscalerSettings, bytes]:
        dispatcher = await self._dispatcher(caller, "AutoscalerUpdate", record.function_id)
        app = self._plane.apps.get_live(dispatcher.spec.app_id)
        return await autoscaling.update(app, dispatcher, self._plane.store, record), b""

    async def _held(self, caller: Caller, function_id: str) -> str:
        """What stands for the function in the version that the caller's container is held to, if it is."""
        return function_id if caller.held is None else await caller.held.find(function_id)

    async def _dispatcher(self, caller: Caller, method: str, function_id: str) -> Dispatcher:
        dispatcher = await self._plane.variants.find(function_id)
        if dispatcher is None:
            raise PlatformError(NOT_FOUND, f"{method}: function {function_id} does not exist, or its app was stopped")
        caller.check_use(method, self._plane.apps.row_of(dispatcher))
        return dispatcher

    # Files

    async def _mount_create(self, caller: Caller, record: MountCreate, body: bytes) -> tuple[MountCreated, bytes]:
        sha256s = tuple(dict.fromkeys(blob for file in record.manifest.files for blob in file.blobs))
        check_paths(record.manifest)
        mount_id = await self._plane.store.put_mount(record.manifest, self._plane.clock.now())
        return MountCreated(mount_id, await self._plane.blobs.missing(sha256s)), b""

    async def _mount_get(self, caller: Caller, record: MountGet, body: bytes) -> tuple[MountManifest, bytes]:
        return await self._plane.store.get_mount(record.mount_id), b""

    async def _blob_stat(self, caller: Caller, record: BlobStat, body: bytes) -> tuple[BlobMissing, bytes]:
        self._plane.blob_budgets.touch(record.sha256s)
        if record.is_doubted:
            for sha256 in record.sha256s[:DOUBTED_MAX]:
                await self._plane.blobs.check(sha256)
        return BlobMissing(await self._plane.blobs.missing(record.sha256s)), b""

    async def _blob_put(self, caller: Caller, record: BlobPut, body: bytes) -> tuple[Empty, bytes]:
        if caller.scope_app_id:
            root_app_id = self._plane.apps.get_live(caller.scope_app_id).row.root_app_id
            await self._plane.blob_budgets.admit(root_app_id, record.sha256, record.size_bytes)
        await self._plane.blobs.put_chunk(record.sha256, record.size_bytes, record.offset, body)
        return Empty(), b""

    async def _blob_get(self, caller: Caller, record: BlobGet, body: bytes) -> tuple[BlobChunk, bytes]:
        length = max(0, min(record.length, CHUNKS_MAX))
        size_bytes, data = await self._plane.blobs.get_chunk(record.sha256, record.offset, length)
        return BlobChunk(size_bytes, record.offset), data

    # Durable calls

    async def _call_spawn(self, caller: Caller, record: CallSpawn, body: bytes) -> tuple[CallSpawned, bytes]:
        opened = replace(record.call, function_id=await self._held(caller, record.call.function_id))
        record = replace(record, call=opened)
        dispatcher = await self._spawned(caller, "CallSpawn", opened.function_id, opened.method, opened.kind)
        try:
            count = await self._plane.durable.spawns.spawn(record, body, dispatcher)
        except NoRoom:
            if not record.is_growing:
                raise
            return CallSpawned(record.call.call_id, retry_s=RETRY_S), b""
        return CallSpawned(record.call.call_id, count), b""

    async def _spawned(self, caller: Caller, name: str, function_id: str, method: str, kind: str) -> Dispatcher:
        dispatcher = await self._dispatcher(caller, name, function_id)
        if dispatcher.stopped is not None:
            raise PlatformError(NOT_FOUND, f"{name}: {dispatcher.stopped.message}")
        check_method(name, dispatcher.spec, method, kind)
        if dispatcher.spec.definition.is_generator:
            raise PlatformError(INVALID, f"{name}: {dispatcher.spec.name} is a generator; use remote_gen")
        return dispatcher

    async def _call_spawn_many(self, caller: Caller, record: SpawnBatch, body: bytes) -> tuple[Empty, bytes]:
        record = replace(record, function_id=await self._held(caller, record.function_id))
        dispatcher = await self._spawned(caller, "CallSpawnMany", record.function_id, record.method, SPAWN)
        await self._plane.durable.spawns.spawn_many(record, body, dispatcher)
        return Empty(), b""

    async def _call_extend(self, caller: Caller, record: CallExtend, body: bytes) -> tuple[CallSpawned, bytes]:
        call_id = record.inputs.call_id
        await self._check_call(caller, "CallExtend", call_id)
        dispatcher = await self._dispatcher(caller, "CallExtend", await self._plane.durable.function_of(call_id))
        try:
            return CallSpawned(call_id, await self._plane.durable.spawns.extend(record, body, dispatcher)), b""
        except NoRoom:
            return CallSpawned(call_id, retry_s=RETRY_S), b""

    async def _call_read(self, caller: Caller, record: CallRead, body: bytes) -> tuple[OutputBatch, bytes]:
        await self._check_call(caller, "CallRead", record.call_id)
        ask = (record.call_id, record.first, record.count, record.timeout_s)
        parent = self._waiting_input(caller, record)
        if parent is None:
            return await self._plane.durable.read(*ask)
        with self._plane.standstill.awaiting(parent, (record.call_id, record.first)):
            return await self._plane.durable.read(*ask)

    async def _call_get(self, caller: Caller, record: CallGet, body: bytes) -> tuple[OutputBatch, bytes]:
        await self._check_call(caller, "CallGet", record.call_id)
        parent = self._waiting_input(caller, record)
        if parent is None:
            return await self._plane.durable.get(record.call_id, record.index, record.timeout_s)
        with self._plane.standstill.awaiting(parent, (record.call_id, record.index)):
            return await self._plane.durable.get(record.call_id, record.index, record.timeout_s)

    async def _call_gather(self, caller: Caller, record: CallGather, body: bytes) -> tuple[OutputBatch, bytes]:
        gathering = self._plane.durable.gathering
        for app_id in await gathering.apps_of(record.call_ids):
            if caller.scope_app_id:
                caller.check_use("CallGather", await self._plane.apps.get(app_id))
        parent = self._waiting_input(caller, record)
        if parent is None:
            return await gathering.gather(record.call_ids, record.timeout_s)
        with self._plane.standstill.awaiting(parent, *[(call_id, 0) for call_id in record.call_ids]):
            return await gathering.gather(record.call_ids, record.timeout_s)

    def _waiting_input(self, caller: Caller, record: CallGet | CallRead | CallGather) -> Input | None:
        """The input of the caller's own app that waits for this output."""
        if not caller.scope_app_id or not record.parent_input_id or record.timeout_s <= 0:
            return None
        try:
            one = self._plane.calls.input(*parse_input_id(record.parent_input_id))
        except ValueError:
            return None
        return one if one is not None and one.call.dispatcher.spec.app_id == caller.scope_app_id else None

    async def _call_info(self, caller: Caller, record: CallInfoGet, body: bytes) -> tuple[CallInfo, bytes]:
        await self._check_call(caller, "CallInfo", record.call_id)
        return await self._plane.durable.info(record.call_id), b""

    async def _call_cancel(self, caller: Caller, record: CallCancel, body: bytes) -> tuple[Empty, bytes]:
        await self._check_call(caller, "CallCancel", record.call_id)
        await self._plane.durable.cancel(record.call_id, is_killing=record.terminate_containers)
        return Empty(), b""

    async def _check_call(self, caller: Caller, method: str, call_id: str) -> None:
        if caller.scope_app_id:
            caller.check_use(method, await self._plane.apps.get(await self._plane.durable.app_of(call_id)))

    # Containers

    async def _container_list(
        self, caller: Caller, record: ContainerList, body: bytes
    ) -> tuple[ContainerListing, bytes]:
        fleet = self._plane.fleet
        found: list[Container] = list(fleet.containers.values())
        if record.include_stopped:
            found = [*fleet.stopped.values(), *found]
        app_ids = {one.dispatcher.spec.app_id for one in found}
        if record.app:
            app_ids = {(await self._plane.apps.find(record.app, environment=record.environment or "")).app_id}
        elif record.environment is not None:
            app_ids = await self._plane.environments.apps_in(record.environment, app_ids)
        infos = [one.info() for one in found if one.dispatcher.spec.app_id in app_ids]
        if record.before_at is not None:
            before = (record.before_at, record.before_id)
            infos = [info for info in infos if (info.created_at, info.container_id) < before]
        infos.sort(key=lambda info: (info.created_at, info.container_id), reverse=True)
        return ContainerListing(*first_page(self._plane.codec, infos[: max(0, record.limit)])), b""

    async def _container_stop(self, caller: Caller, record: ContainerStop, body: bytes) -> tuple[Empty, bytes]:
        container = self.container("ContainerStop", record.container_id)
        if record.is_graceful:
            self._plane.fleet.drain(container, "stopped by request")
        else:
            self._plane.fleet.end(container, "stopped by request", 1.0)
        return Empty(), b""

    def container(self, method: str, container_id: str) -> Container:
        """A container that lives.

        Raises:
            PlatformError: `not_found`; `conflict` when it has ended.
        """
        container = self._plane.fleet.containers.get(container_id)
        if container is not None:
            return container
        if container_id in self._plane.fleet.stopped:
            raise PlatformError(CONFLICT, f"{method}: container {container_id} has ended")
        message = f"{method}: there is no container {container_id}; `squall container list` shows those that run"
        raise PlatformError(NOT_FOUND, message)


def _of_caller(answer: Callable[[Caller, Any], Awaitable[Any]]) -> Unary:
    """Of a method that needs no body."""

    async def unary(caller: Caller, record: Any, body: bytes) -> Answer:
        return await answer(caller, record), b""

    return unary


def _bodiless(answer: Callable[[Any], Awaitable[Any]]) -> Unary:
    """Of a method that needs neither who asks nor a body."""

    async def unary(caller: Caller, record: Any, body: bytes) -> Answer:
        return await answer(record), b""

    return unary


def check_paths(manifest: MountManifest) -> None:
    """Refuse files that would land outside their mount.

    Raises:
        PlatformError: `invalid`, naming the file.
    """
    for file in manifest.files:
        parts = file.path.split("/")
        if not file.path or "\0" in file.path or any(part in ("", ".", "..") for part in parts):
            raise PlatformError(INVALID, f"MountCreate: {file.path!r} is no relative path inside the mount")
