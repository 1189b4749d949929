"""The store in SQLite or PostgreSQL, by the same statements."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.app import DEPLOYED, STOPPED, STOPPING
from squall.protocol.errors import NOT_FOUND, PlatformError
from squall.protocol.function import FunctionSpec, Scaling
from squall.protocol.image_catalog import ImageRef
from squall.protocol.mount import MountManifest
from squall.protocol.records import from_wire, to_wire
from squall.server.model.asset import AssetStore
from squall.server.model.dict import DictStore
from squall.server.model.flight import FlightLimits, StoredFlight, StoredMinute
from squall.server.model.image import StoredImage, StoredImageName
from squall.server.model.proxy_token import ProxyTokenStore
from squall.server.model.queue import QueueStore
from squall.server.model.schedule import StoredSchedule
from squall.server.model.secret import SecretStore
from squall.server.model.store import (
    BEGINNING,
    OutputCounts,
    Place,
    Portion,
    StoredApp,
    StoredCall,
    StoredInput,
    StoredOutput,
)
from squall.server.model.variant import StoredVariant
from squall.server.model.version import StoredVersion
from squall.server.model.volume import VolumeStore
from squall.server.store import (
    sql_answers,
    sql_apps,
    sql_calls,
    sql_dicts,
    sql_flights,
    sql_functions,
    sql_images,
    sql_mounts,
    sql_portions,
    sql_queues,
    sql_scaling,
    sql_schedules,
    sql_variants,
    sql_versions,
    sql_volumes,
)
from squall.server.store.database import Database
from squall.server.store.schema import (
    APPS,
    ENVIRONMENTS,
    FUNCTIONS,
    IMAGES,
    MOUNTS,
    SETTINGS,
)
from squall.server.store.sql_assets import SqlAssets
from squall.server.store.sql_proxy_tokens import SqlProxyTokens
from squall.server.store.sql_secrets import SqlSecrets
from squall.server.store.sql_volumes import SqlVolumes
from squall.server.store.upsert import upsert

CALLS_PART = 0.5
"""Of what uploads leave of the disk, new calls leave so much for outputs: uploads alone must not keep calls out."""


class SqlStore:
    """See `Store`. Entering opens the database and brings it to the newest schema."""

    def __init__(self, url: str, migrate: Callable[[Connection], None]) -> None:
        """See `Database`."""
        self._database = Database(url, migrate)
        self._read = self._database.read
        self._write = self._database.write
        self.assets: AssetStore = SqlAssets(self._database)
        self.volumes: VolumeStore = SqlVolumes(self._database)
        self.secrets: SecretStore = SqlSecrets(self._database)
        self.dicts: DictStore = sql_dicts.SqlDicts(self._database)
        self.queues: QueueStore = sql_queues.SqlQueues(self._database)
        self.proxy_tokens: ProxyTokenStore = SqlProxyTokens(self._database)

    async def __aenter__(self) -> SqlStore:
        """See `Database`."""
        await self._database.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Commit what waits and close."""
        await self._database.__aexit__(*exc_info)

    # Apps

    async def put_app(self, app: StoredApp) -> None:
        """See `Store`."""
        await self._write(sql_apps.put_apps, app)

    async def get_app(self, app_id: str) -> StoredApp:
        """See `Store`."""
        rows = await self._apps(sa.select(APPS).where(APPS.c.app_id == app_id))
        if not rows:
            raise PlatformError(NOT_FOUND, f"no app {app_id}")
        return rows[0]

    async def get_apps(self, app_ids: Collection[str]) -> tuple[StoredApp, ...]:
        """See `Store`."""
        return await self._read(lambda connection: sql_apps.get_apps(connection, app_ids))

    async def find_app(self, name: str, environment: str = "") -> StoredApp | None:
        """See `Store`."""
        is_it = (APPS.c.name == name) & (APPS.c.environment == environment) & (APPS.c.root_app_id == "")
        is_it &= APPS.c.state.not_in((STOPPING, STOPPED))
        deployed_first = sa.case((APPS.c.state == DEPLOYED, 0), else_=1)
        rows = await self._apps(_newest_first(sa.select(APPS).where(is_it).order_by(deployed_first)).limit(1))
        return rows[0] if rows else None

    async def list_apps(
        self, limit: int = 100, states: tuple[str, ...] = (), environment: str | None = None, name: str = "",
        before: tuple[float, str] | None = None,
    ) -> tuple[StoredApp, ...]:  # fmt: skip
        """See `Store`."""
        query = sa.select(APPS).where(APPS.c.state.in_(states)) if states else sa.select(APPS)
        if environment is not None:
            query = query.where(APPS.c.environment == environment)
        if name:
            query = query.where(APPS.c.name == name)
        if before is not None:
            query = query.where(sa.tuple_(APPS.c.created_at, APPS.c.app_id) < before)
        return await self._apps(_newest_first(query).limit(limit))

    async def set_app_state(self, app_id: str, state: str, stopped_at: float | None = None) -> None:
        """See `Store`."""
        values = {"state": state} if stopped_at is None else {"state": state, "stopped_at": stopped_at}
        if not await self._write(sql_apps.set_app_states, (app_id, values)):
            raise PlatformError(NOT_FOUND, f"no app {app_id}")

    async def forget_children(self, root_app_id: str, keep: int) -> tuple[str, ...]:
        """See `Store`."""
        gone: tuple[str, ...] = await self._write(sql_apps.forget_children, (root_app_id, keep))
        return gone

    async def _apps(self, query: sa.Select[Any]) -> tuple[StoredApp, ...]:
        rows = await self._read(lambda connection: connection.execute(query).mappings().all())
        return tuple(sql_apps.app_of(row) for row in rows)

    # Functions

    async def put_functions(self, functions: tuple[FunctionSpec, ...]) -> None:
        """See `Store`."""
        await self._write(sql_functions.put_functions, functions)

    async def get_function(self, function_id: str) -> FunctionSpec:
        """See `Store`."""
        found = await self._functions(FUNCTIONS.c.function_id == function_id)
        if not found:
            raise PlatformError(NOT_FOUND, f"no function {function_id}")
        return found[0]

    async def find_function(self, app_id: str, name: str) -> FunctionSpec | None:
        """See `Store`."""
        found = await self._functions((FUNCTIONS.c.app_id == app_id) & (FUNCTIONS.c.name == name))
        return found[0] if found else None

    async def page_functions(self, app_id: str, after: str, limit: int) -> tuple[FunctionSpec, ...]:
        """See `Store`."""
        query = sa.select(FUNCTIONS.c.spec).where((FUNCTIONS.c.app_id == app_id) & (FUNCTIONS.c.name > after))
        return tuple(await self._specs(query.order_by(FUNCTIONS.c.name).limit(limit)))

    async def list_functions(self, app_id: str) -> tuple[FunctionSpec, ...]:
        """See `Store`."""
        # Sorted here: PostgreSQL would sort by the rules of its locale.
        return tuple(sorted(await self._functions(FUNCTIONS.c.app_id == app_id), key=lambda function: function.name))

    async def _functions(self, is_it: sa.ColumnElement[bool]) -> list[FunctionSpec]:
        return await self._specs(sa.select(FUNCTIONS.c.spec).where(is_it))

    async def _specs(self, query: sa.Select[Any]) -> list[FunctionSpec]:
        specs = await self._read(lambda connection: connection.execute(query).scalars().all())
        return [from_wire(FunctionSpec, json.loads(spec)) for spec in specs]

    # Variants

    async def put_variant(self, variant: StoredVariant) -> None:
        """See `Store`."""
        size_bytes = len(variant.parameters)
        self._database.check_room(f"cannot keep variant {variant.function_id}", size_bytes, part=CALLS_PART)
        await self._write(sql_variants.put_variants, variant)

    async def get_variants(self, function_ids: frozenset[str]) -> tuple[StoredVariant, ...]:
        """See `Store`."""
        return await self._read(lambda connection: sql_variants.get_variants(connection, function_ids))

    async def list_variants(self, base_id: str, limit: int) -> tuple[StoredVariant, ...]:
        """See `Store`."""
        return await self._read(lambda connection: sql_variants.list_variants(connection, base_id, limit))

    async def count_variants(self, base_id: str) -> int:
        """See `Store`."""
        return await self._read(lambda connection: sql_variants.count_variants(connection, base_id))

    async def count_variants_below(self, root_app_id: str) -> int:
        """See `Store`."""
        return await self._read(lambda connection: sql_variants.count_variants_below(connection, root_app_id))

    async def use_variants(self, function_ids: frozenset[str], now: float) -> None:
        """See `Store`."""
        await self._write(sql_variants.use_variants, (function_ids, now))

    async def forget_variants(self, before: float) -> int:
        """See `Store`."""
        total = 0
        while count := await self._write(sql_variants.forget_some, before):
            total += count
        return total

    async def set_scaling(self, app_id: str, function_id: str, scaling: Scaling) -> None:
        """See `Store`."""
        await self._write(sql_scaling.set_scaling, (app_id, function_id, scaling))

    async def list_scaling(self, app_id: str) -> dict[str, Scaling]:
        """See `Store`."""
        return await self._read(lambda connection: sql_scaling.list_scaling(connection, app_id))

    # Environments

    async def put_environment(self, name: str, now: float) -> None:
        """See `Store`."""
        await self._write(sql_apps.put_environments, {"name": name, "created_at": now})

    async def list_environments(self) -> dict[str, float]:
        """See `Store`."""
        query = sa.select(ENVIRONMENTS.c.name, ENVIRONMENTS.c.created_at)
        rows = await self._read(lambda connection: connection.execute(query).all())
        return {row.name: row.created_at for row in rows}

    async def delete_environment(self, name: str) -> None:
        """See `Store`."""
        await self._write(sql_apps.delete_environments, name)

    # Versions

    async def publish_version(
        self, app: StoredApp, version: StoredVersion, functions: tuple[FunctionSpec, ...], gone_ids: frozenset[str],
        keep: int,
    ) -> None:  # fmt: skip
        """See `Store`."""
        # Packed where others do not wait for it.
        packed = await self._database.aside(lambda: sql_versions.pack(functions))
        publication = sql_versions.Publication(app, version, functions, gone_ids, keep, packed)
        await self._write(sql_versions.publish, publication)

    async def list_versions(self, app_id: str) -> tuple[StoredVersion, ...]:
        """See `Store`."""
        return await self._read(lambda connection: sql_versions.list_versions(connection, app_id))

    async def list_version_functions(self, app_id: str, version: int) -> tuple[FunctionSpec, ...]:
        """See `Store`."""
        return await self._read(lambda connection: sql_versions.functions_of(connection, app_id, version))

    # Mounts

    async def put_mount(self, manifest: MountManifest, now: float) -> str:
        """See `Store`."""
        mount_id = manifest.mount_id()
        row = {"mount_id": mount_id, "manifest": json.dumps(to_wire(manifest)), "used_at": now}
        await self._write(sql_mounts.put_mounts, row)
        return mount_id

    async def use_mounts(self, mount_ids: frozenset[str], now: float) -> None:
        """See `Store`."""
        missing: frozenset[str] = await self._write(sql_mounts.use_mounts, (mount_ids, now))
        if missing:
            raise PlatformError(NOT_FOUND, f"no mount {min(missing)}")

    async def prune_mounts(self, before: float) -> int:
        """See `Store`."""
        # Found while others write: what comes into use meanwhile is passed over by its time.
        unnamed = await self._read(lambda connection: sql_mounts.unnamed(connection, before))
        total = 0
        for start in range(0, len(unnamed), sql_mounts.PRUNED_MAX):
            total += await self._write(sql_mounts.prune, (unnamed[start : start + sql_mounts.PRUNED_MAX], before))
        return total

    async def get_mount(self, mount_id: str) -> MountManifest:
        """See `Store`."""
        query = sa.select(MOUNTS.c.manifest).where(MOUNTS.c.mount_id == mount_id)
        text = await self._read(lambda connection: connection.execute(query).scalar())
        if text is None:
            raise PlatformError(NOT_FOUND, f"no mount {mount_id}")
        return from_wire(MountManifest, json.loads(text))

    # Images

    async def put_image(self, image: StoredImage) -> None:
        """See `Store`."""
        await self._write(sql_images.put_images, image)

    async def get_image(self, image_id: str) -> StoredImage:
        """See `Store`."""
        found = await self._images(sa.select(IMAGES).where(IMAGES.c.image_id == image_id))
        if not found:
            raise PlatformError(NOT_FOUND, f"no image {image_id}")
        return found[0]

    async def list_images(self, limit: int = 100, before: tuple[float, str] | None = None) -> tuple[StoredImage, ...]:
        """See `Store`."""
        query = sa.select(IMAGES).order_by(IMAGES.c.used_at.desc(), IMAGES.c.image_id.desc()).limit(limit)
        if before is not None:
            query = query.where(sa.tuple_(IMAGES.c.used_at, IMAGES.c.image_id) < before)
        return await self._images(query)

    async def _images(self, query: sa.Select[Any]) -> tuple[StoredImage, ...]:
        rows = await self._read(lambda connection: connection.execute(query).mappings().all())
        return tuple(sql_images.image_of(row) for row in rows)

    async def use_images(self, image_ids: frozenset[str], now: float) -> None:
        """See `Store`."""
        await self._write(sql_images.use_images, (image_ids, now))

    async def forget_images(self, image_ids: frozenset[str]) -> frozenset[str]:
        """See `Store`."""
        gone: frozenset[str] = await self._write(sql_images.forget_images, image_ids)
        return gone

    async def publish_image(self, name: StoredImageName) -> StoredImageName:
        """See `Store`."""
        published: StoredImageName | None = await self._write(sql_images.publish, name)
        if published is None:
            raise PlatformError(NOT_FOUND, f"no image {name.image_id}")
        return published

    async def find_image_name(self, ref: ImageRef) -> StoredImageName | None:
        """See `Store`."""
        return await self._read(lambda connection: sql_images.find_name(connection, ref))

    async def list_image_names(
        self, environment: str | None = None, prefix: str = "", *, earlier: bool = False
    ) -> tuple[StoredImageName, ...]:
        """See `Store`."""
        return tuple(
            await self._read(lambda connection: sql_images.list_names(connection, environment, prefix, earlier))
        )

    async def delete_image_name(self, ref: ImageRef) -> bool:
        """See `Store`."""
        was_there: bool = await self._write(sql_images.delete_names, ref)
        return was_there

    # Durable calls

    async def put_call(self, call: StoredCall, inputs: tuple[StoredInput, ...]) -> bool:
        """See `Store`."""
        return (await self.put_calls(((call, inputs),)))[0]

    async def put_calls(self, calls: tuple[tuple[StoredCall, tuple[StoredInput, ...]], ...]) -> tuple[bool, ...]:
        """See `Store`."""
        size_bytes = sum([len(one.value) for _, inputs in calls for one in inputs])
        self._check_room(calls[0][0].call_id, size_bytes)
        are_new: tuple[bool, ...] = await self._write(sql_calls.put_calls, calls)
        return are_new

    async def extend_call(
        self, call_id: str, first: int, inputs: tuple[StoredInput, ...], made_at: float, *, is_last: bool
    ) -> Portion:
        """See `Store`."""
        self._check_room(call_id, sum([len(one.value) for one in inputs]))
        more = sql_portions.More(call_id, first, inputs, made_at, is_last)
        portion: Portion = await self._write(sql_portions.extend_calls, more)
        return portion

    def _check_room(self, call_id: str, size_bytes: int) -> None:
        self._database.check_room(f"cannot keep call {call_id}", size_bytes, part=CALLS_PART)

    async def get_calls(self, call_ids: Sequence[str]) -> tuple[StoredCall, ...]:
        """See `Store`."""
        return await self._read(lambda connection: sql_calls.get_calls(connection, call_ids))

    async def get_call(self, call_id: str) -> StoredCall:
        """See `Store`."""
        return await self._read(lambda connection: sql_calls.get_call(connection, call_id))

    async def cancel_call(self, call_id: str) -> StoredCall:
        """See `Store`."""
        await self._write(sql_calls.cancel_calls, call_id)
        return await self.get_call(call_id)

    async def unfinished_counts(self) -> dict[str, int]:
        """See `Store`."""
        return await self._read(sql_calls.unfinished_counts)

    async def unfinished_inputs(
        self, function_id: str, after: Place = BEGINNING, limit: int = 1_000, bytes_max: int = 2**22
    ) -> tuple[Portion, ...]:
        """See `Store`."""
        return await self._read(
            lambda connection: sql_portions.unfinished_inputs(connection, function_id, after, limit, bytes_max)
        )

    async def unfinished_indexes(self, call_id: str, first: int = 0, limit: int = 1_000) -> tuple[int, ...]:
        """See `Store`."""
        return await self._read(lambda connection: sql_portions.unfinished_indexes(connection, call_id, first, limit))

    async def put_outputs(self, outputs: tuple[StoredOutput, ...]) -> tuple[bool, ...]:
        """See `Store`."""
        accepted: tuple[bool, ...] = await self._write(sql_calls.put_outputs, outputs)
        return accepted

    async def get_output(self, call_id: str, index: int) -> StoredOutput | None:
        """See `Store`."""
        return await self._read(lambda connection: sql_calls.get_output(connection, call_id, index))

    async def first_outputs(self, call_ids: Sequence[str], bytes_max: int = 2**22) -> tuple[StoredOutput, ...]:
        """See `Store`."""
        return await self._read(lambda connection: sql_calls.first_outputs(connection, call_ids, bytes_max))

    async def read_outputs(
        self, call_id: str, first: int, count: int, bytes_max: int = 2**22
    ) -> tuple[StoredOutput, ...]:
        """See `Store`."""
        return await self._read(lambda connection: sql_calls.read_outputs(connection, call_id, first, count, bytes_max))

    async def output_statuses(self, call_id: str, limit: int = 1_000) -> dict[int, int]:
        """See `Store`."""
        return await self._read(lambda connection: sql_calls.output_statuses(connection, call_id, limit))

    async def expire(self, before: float) -> int:
        """See `Store`."""
        total, has_more = 0, True
        # Some at a time, so that spawns in between do not wait for all of it.
        while has_more:
            count, has_more = await self._write(sql_calls.expire_some, before)
            total += count
        return total

    async def live_blobs(self) -> frozenset[str]:
        """See `Store`."""
        return await self._read(_live_blobs)

    # What became of calls

    async def list_calls(
        self,
        function_ids: tuple[str, ...],
        limit: int,
        since: float = 0.0,
        until: float | None = None,
        *,
        app_ids: tuple[str, ...] = (),
    ) -> tuple[StoredCall, ...]:
        """See `Store`."""
        return await self._read(
            lambda connection: sql_flights.list_calls(connection, function_ids, limit, since, until, app_ids)
        )

    async def get_input(self, call_id: str, index: int) -> StoredInput | None:
        """See `Store`."""
        return await self._read(lambda connection: sql_flights.get_input(connection, call_id, index))

    async def list_outputs(
        self, call_id: str, first: int, limit: int, *, failed: bool = False
    ) -> tuple[StoredOutput, ...]:
        """See `Store`."""
        return await self._read(lambda connection: sql_flights.list_outputs(connection, call_id, first, limit, failed))

    async def count_outputs(self, call_ids: tuple[str, ...]) -> dict[str, OutputCounts]:
        """See `Store`."""
        return await self._read(lambda connection: sql_flights.count_outputs(connection, call_ids))

    async def put_flights(self, flights: tuple[StoredFlight, ...], inputs: tuple[StoredInput, ...], now: float) -> None:
        """See `Store`."""
        size_bytes = sum(len(one.value) for one in inputs) + sum(len(one.detail) for one in flights)
        self._database.check_room("cannot keep what became of calls", size_bytes, part=CALLS_PART)
        await self._write(sql_flights.put_flights, (flights, inputs, now))

    async def get_flight(self, call_id: str) -> StoredFlight | None:
        """See `Store`."""
        return await self._read(lambda connection: sql_flights.get_flight(connection, call_id))

    async def list_flights(
        self,
        function_ids: tuple[str, ...],
        limit: int,
        since: float = 0.0,
        until: float | None = None,
        *,
        failed: bool = False,
        app_ids: tuple[str, ...] = (),
    ) -> tuple[StoredFlight, ...]:
        """See `Store`."""
        return await self._read(
            lambda connection: sql_flights.list_flights(connection, function_ids, limit, since, until, failed, app_ids)
        )

    async def kept_inputs(self, call_id: str) -> frozenset[int]:
        """See `Store`."""
        return await self._read(lambda connection: sql_flights.kept_inputs(connection, call_id))

    async def prune_flights(self, limits: FlightLimits) -> int:
        """See `Store`."""
        total = 0
        while count := await self._write(sql_flights.prune, limits):
            total += count
        return total

    async def put_minutes(self, minutes: tuple[StoredMinute, ...]) -> None:
        """See `Store`."""
        await self._write(sql_flights.put_minutes, minutes)

    async def list_minutes(
        self,
        function_ids: tuple[str, ...],
        since: float,
        until: float,
        limit: int,
        *,
        base_ids: tuple[str, ...] = (),
    ) -> tuple[StoredMinute, ...]:
        """See `Store`."""
        return await self._read(
            lambda connection: sql_flights.list_minutes(connection, function_ids, base_ids, since, until, limit)
        )

    async def prune_minutes(self, before: float, count_max: int) -> int:
        """See `Store`."""
        count: int = await self._write(sql_flights.prune_minutes, (before, count_max))
        return count

    # Schedules

    async def put_schedules(self, schedules: tuple[StoredSchedule, ...]) -> None:
        """See `Store`."""
        await self._write(sql_schedules.put_schedules, schedules)

    async def forget_schedules(self, function_ids: frozenset[str]) -> None:
        """See `Store`."""
        await self._write(sql_schedules.forget_schedules, function_ids)

    async def list_schedules(self) -> tuple[StoredSchedule, ...]:
        """See `Store`."""
        return await self._read(sql_schedules.list_schedules)

    # Settings

    async def get_setting(self, name: str) -> str | None:
        """See `Store`."""
        query = sa.select(SETTINGS.c.value).where(SETTINGS.c.name == name)
        value: str | None = await self._read(lambda connection: connection.execute(query).scalar())
        return value

    async def put_setting(self, name: str, value: str) -> None:
        """See `Store`."""
        await self._write(_put_settings, {"name": name, "value": value})


def _newest_first(query: sa.Select[Any]) -> sa.Select[Any]:
    return query.order_by(APPS.c.created_at.desc(), APPS.c.app_id.desc())


def _put_settings(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[None]:
    upsert(connection, SETTINGS, rows)
    return [None] * len(rows)


def _live_blobs(connection: Connection) -> frozenset[str]:
    named: set[str] = set()
    for text in connection.execute(sa.select(MOUNTS.c.manifest)).scalars():
        named.update(blob for file in from_wire(MountManifest, json.loads(text)).files for blob in file.blobs)
    named.update(connection.execute(sa.select(FUNCTIONS.c.blob_sha256)).scalars())
    named.update(sql_versions.named_blobs(connection))
    named |= sql_calls.live_blobs(connection) | sql_flights.live_blobs(connection)
    named.update(sql_volumes.live_blocks(connection))
    named |= sql_dicts.live_blobs(connection) | sql_answers.live_blobs(connection)
    return frozenset(named - {""})
