"""A store that forgets when the process ends: for tests, and as the plainest reading of the contract."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from squall.protocol.app import DEPLOYED, STOPPED, STOPPING
from squall.protocol.errors import CONFLICT, NOT_FOUND, PlatformError
from squall.protocol.function import FunctionSpec, Scaling, secrets_named
from squall.protocol.image_catalog import ImageRef
from squall.protocol.mount import MountManifest
from squall.server.model.asset import AssetStore
from squall.server.model.dict import DictStore
from squall.server.model.flight import FlightLimits, StoredFlight, StoredMinute
from squall.server.model.image import EARLIER_NAMES_MAX, StoredImage, StoredImageName
from squall.server.model.proxy_token import ProxyTokenStore
from squall.server.model.queue import QueueStore
from squall.server.model.schedule import StoredSchedule
from squall.server.model.secret import SealedSecret, SecretStore
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
from squall.server.model.version import StoredVersion, superseded
from squall.server.model.volume import VolumeStore
from squall.server.store.memory_assets import MemoryAssets
from squall.server.store.memory_dicts import MemoryDicts
from squall.server.store.memory_proxy_tokens import MemoryProxyTokens
from squall.server.store.memory_queues import MemoryQueues
from squall.server.store.memory_secrets import MemorySecrets
from squall.server.store.memory_volumes import MemoryVolumes

K = TypeVar("K")


class MemoryStore:
    """See `Store`."""

    def __init__(self) -> None:
        self._asset_rows = MemoryAssets()
        self._volumes = MemoryVolumes(self._asset_rows)
        self.assets: AssetStore = self._asset_rows
        self.volumes: VolumeStore = self._volumes
        secrets = MemorySecrets(self._is_secret_needed)
        self.secrets: SecretStore = secrets
        self._asset_rows.on_purge.append(secrets.purge)
        self._dict_rows = MemoryDicts(self._asset_rows)
        self.dicts: DictStore = self._dict_rows
        self.queues: QueueStore = MemoryQueues(self._asset_rows)
        self.proxy_tokens: ProxyTokenStore = MemoryProxyTokens()
        self._apps: dict[str, StoredApp] = {}
        self._functions: dict[str, FunctionSpec] = {}
        self._variants: dict[str, StoredVariant] = {}
        self._scaling: dict[str, tuple[str, Scaling]] = {}
        self._environments: dict[str, float] = {}
        self._versions: dict[tuple[str, int], tuple[StoredVersion, tuple[FunctionSpec, ...] | None]] = {}
        self._mounts: dict[str, tuple[MountManifest, float]] = {}
        """With the time they were used last."""
        self._images: dict[str, StoredImage] = {}
        self._image_names: dict[ImageRef, list[StoredImageName]] = {}
        """With what they pointed to before, the newest first."""
        self._calls: dict[str, StoredCall] = {}
        self._portions: dict[str, list[Portion]] = {}
        self._outputs: dict[str, dict[int, StoredOutput]] = {}
        self._flights: dict[str, StoredFlight] = {}
        self._failed_inputs: dict[tuple[str, int], tuple[StoredInput, float]] = {}
        """With the time they were kept."""
        self._minutes: dict[tuple[str, float], StoredMinute] = {}
        self._schedules: dict[str, StoredSchedule] = {}
        self._settings: dict[str, str] = {}

    async def __aenter__(self) -> MemoryStore:
        """As the other stores: opened by `main`."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Nothing to close."""

    async def put_app(self, app: StoredApp) -> None:
        """See `Store`."""
        known = self._apps.get(app.app_id)
        self._apps[app.app_id] = app if known is None else replace(app, created_at=known.created_at)

    async def get_app(self, app_id: str) -> StoredApp:
        """See `Store`."""
        app = self._apps.get(app_id)
        if app is None:
            raise PlatformError(NOT_FOUND, f"no app {app_id}")
        return app

    async def get_apps(self, app_ids: Collection[str]) -> tuple[StoredApp, ...]:
        """See `Store`."""
        return tuple(self._apps[app_id] for app_id in app_ids if app_id in self._apps)

    async def find_app(self, name: str, environment: str = "") -> StoredApp | None:
        """See `Store`."""
        # A sort keeps the order of equals.
        for app in sorted(self._newest_first(), key=lambda app: app.state != DEPLOYED):
            is_going = app.state not in (STOPPING, STOPPED) and not app.ancestors
            if app.name == name and app.environment == environment and is_going:
                return app
        return None

    async def list_apps(
        self, limit: int = 100, states: tuple[str, ...] = (), environment: str | None = None, name: str = "",
        before: tuple[float, str] | None = None,
    ) -> tuple[StoredApp, ...]:  # fmt: skip
        """See `Store`."""
        found = (app for app in self._newest_first() if environment in (None, app.environment))
        found = (app for app in found if name in ("", app.name))
        found = (app for app in found if before is None or (app.created_at, app.app_id) < before)
        return tuple(app for app in found if not states or app.state in states)[:limit]

    async def set_app_state(self, app_id: str, state: str, stopped_at: float | None = None) -> None:
        """See `Store`."""
        app = await self.get_app(app_id)
        if state == STOPPED:
            for key in [key for key in self._versions if key[0] == app_id]:
                self._versions[key] = self._versions[key][0], None
        self._apps[app_id] = replace(app, state=state, stopped_at=app.stopped_at if stopped_at is None else stopped_at)

    async def forget_children(self, root_app_id: str, keep: int) -> tuple[str, ...]:
        """See `Store`."""
        ended = [app for app in self._newest_first() if app.ancestors[:1] == (root_app_id,) and app.state == STOPPED]
        gone = {app.app_id for app in ended[keep:]}
        self._apps = {app_id: app for app_id, app in self._apps.items() if app_id not in gone}
        self._functions = {key: one for key, one in self._functions.items() if one.app_id not in gone}
        self._scaling = {key: one for key, one in self._scaling.items() if one[0] not in gone}
        self._variants = {key: one for key, one in self._variants.items() if one.app_id not in gone}
        return tuple(gone)

    def _newest_first(self) -> list[StoredApp]:
        return sorted(self._apps.values(), key=lambda app: (app.created_at, app.app_id), reverse=True)

    async def put_functions(self, functions: tuple[FunctionSpec, ...]) -> None:
        """See `Store`."""
        after = dict(self._functions)
        owners = {(one.app_id, one.name): one.function_id for one in after.values()}
        for function in functions:
            await self.get_app(function.app_id)
            if owners.setdefault((function.app_id, function.name), function.function_id) != function.function_id:
                raise PlatformError(
                    CONFLICT,
                    f"cannot create function {function.name!r}: app {function.app_id} has one of that name already;"
                    " give one of the two another name",
                )
            after[function.function_id] = function
        self._functions = after
        for function in functions:
            self._scaling.pop(function.function_id, None)

    async def get_function(self, function_id: str) -> FunctionSpec:
        """See `Store`."""
        function = self._functions.get(function_id)
        if function is None:
            raise PlatformError(NOT_FOUND, f"no function {function_id}")
        return function

    async def find_function(self, app_id: str, name: str) -> FunctionSpec | None:
        """See `Store`."""
        for function in self._functions.values():
            if function.app_id == app_id and function.name == name:
                return function
        return None

    async def page_functions(self, app_id: str, after: str, limit: int) -> tuple[FunctionSpec, ...]:
        """See `Store`."""
        return tuple(spec for spec in await self.list_functions(app_id) if spec.name > after)[:limit]

    async def list_functions(self, app_id: str) -> tuple[FunctionSpec, ...]:
        """See `Store`."""
        found = (function for function in self._functions.values() if function.app_id == app_id)
        return tuple(sorted(found, key=lambda function: function.name))

    async def put_variant(self, variant: StoredVariant) -> None:
        """See `Store`."""
        self._variants[variant.function_id] = variant

    async def get_variants(self, function_ids: frozenset[str]) -> tuple[StoredVariant, ...]:
        """See `Store`."""
        return tuple(self._variants[key] for key in sorted(function_ids) if key in self._variants)

    async def list_variants(self, base_id: str, limit: int) -> tuple[StoredVariant, ...]:
        """See `Store`."""
        found = [one for one in self._variants.values() if one.base_id == base_id]
        return tuple(sorted(found, key=lambda one: (-one.used_at, one.function_id))[:limit])

    async def count_variants(self, base_id: str) -> int:
        """See `Store`."""
        return sum(1 for one in self._variants.values() if one.base_id == base_id)

    async def count_variants_below(self, root_app_id: str) -> int:
        """See `Store`."""
        apps = {root_app_id} | {app.app_id for app in self._apps.values() if app.ancestors[:1] == (root_app_id,)}
        return sum(1 for one in self._variants.values() if one.app_id in apps)

    async def use_variants(self, function_ids: frozenset[str], now: float) -> None:
        """See `Store`."""
        for key in function_ids & self._variants.keys():
            self._variants[key] = replace(self._variants[key], used_at=now)

    async def forget_variants(self, before: float) -> int:
        """See `Store`."""
        working = {call.function_id for call in self._calls.values() if self._unfinished(call) or call.is_growing}
        gone = [key for key, one in self._variants.items() if one.used_at < before and key not in working]
        for key in gone:
            del self._variants[key]
            self._scaling.pop(key, None)
        return len(gone)

    async def set_scaling(self, app_id: str, function_id: str, scaling: Scaling) -> None:
        """See `Store`."""
        self._scaling[function_id] = app_id, scaling

    async def list_scaling(self, app_id: str) -> dict[str, Scaling]:
        """See `Store`."""
        return {key: scaling for key, (owner_id, scaling) in self._scaling.items() if owner_id == app_id}

    async def put_environment(self, name: str, now: float) -> None:
        """See `Store`."""
        self._environments.setdefault(name, now)

    async def list_environments(self) -> dict[str, float]:
        """See `Store`."""
        return dict(self._environments)

    async def delete_environment(self, name: str) -> None:
        """See `Store`."""
        self._environments.pop(name, None)

    async def publish_version(
        self, app: StoredApp, version: StoredVersion, functions: tuple[FunctionSpec, ...], gone_ids: frozenset[str],
        keep: int,
    ) -> None:  # fmt: skip
        """See `Store`."""
        app_id = app.app_id
        if (app_id, version.version) in self._versions:
            raise PlatformError(CONFLICT, f"app {app_id} has a version {version.version} already")
        before = dict(self._apps), self._functions
        await self.put_app(app)
        self._functions = {key: one for key, one in self._functions.items() if key not in gone_ids}
        try:
            await self.put_functions(functions)
        except PlatformError:
            self._apps, self._functions = before
            raise
        self._scaling = {key: one for key, one in self._scaling.items() if one[0] != app_id}
        self._versions[app_id, version.version] = version, functions
        known = [number for key, number in self._versions if key == app_id]
        pinned = [one.version for one in self._functions.values() if one.app_id == app_id and one.is_pinned]
        pinned += [one.version for one in self._variants.values() if one.app_id == app_id]
        for old in superseded(known, keep, pinned):
            del self._versions[app_id, old]

    async def list_versions(self, app_id: str) -> tuple[StoredVersion, ...]:
        """See `Store`."""
        found = [version for version, _ in self._versions.values() if version.app_id == app_id]
        return tuple(sorted(found, key=lambda version: version.version, reverse=True))

    async def list_version_functions(self, app_id: str, version: int) -> tuple[FunctionSpec, ...]:
        """See `Store`."""
        found = self._versions.get((app_id, version))
        if found is None or found[1] is None:
            raise PlatformError(NOT_FOUND, f"app {app_id} has no version {version}, or no longer")
        return found[1]

    def _living_versions(self) -> list[StoredVersion]:
        """Those of apps that have not stopped."""
        return [version for version, _ in self._versions.values() if self._apps[version.app_id].state != STOPPED]

    async def put_mount(self, manifest: MountManifest, now: float) -> str:
        """See `Store`."""
        mount_id = manifest.mount_id()
        self._mounts[mount_id] = manifest, now
        return mount_id

    async def use_mounts(self, mount_ids: frozenset[str], now: float) -> None:
        """See `Store`."""
        for mount_id in sorted(mount_ids):
            self._mounts[mount_id] = await self.get_mount(mount_id), now

    async def prune_mounts(self, before: float) -> int:
        """See `Store`."""
        living = {app.app_id for app in self._apps.values() if app.state != STOPPED}
        of_living = (function for function in self._functions.values() if function.app_id in living)
        named = {mount.mount_id for function in of_living for mount in function.mounts}
        named |= {mount_id for version in self._living_versions() for mount_id in version.mount_ids}
        gone = [key for key, (_, used_at) in self._mounts.items() if used_at < before and key not in named]
        for mount_id in gone:
            del self._mounts[mount_id]
        return len(gone)

    def _is_secret_needed(self, secret: SealedSecret) -> bool:
        if not secret.app_id:
            return self._asset_rows.has(secret.secret_id)
        app = self._apps.get(secret.app_id)
        if app is None or app.state == STOPPED:
            return False
        variants = (one for one in self._variants.values() if one.app_id == app.app_id and one.options is not None)
        versions = (specs for (app_id, _), (_, specs) in self._versions.items() if app_id == app.app_id and specs)
        return (
            any(secret.secret_id in secrets_named(one) for one in self._functions.values() if one.app_id == app.app_id)
            or any(secret.secret_id in secrets_named(one.options) for one in variants if one.options is not None)
            or any(secret.secret_id in secrets_named(one) for specs in versions for one in specs)
        )

    async def get_mount(self, mount_id: str) -> MountManifest:
        """See `Store`."""
        found = self._mounts.get(mount_id)
        if found is None:
            raise PlatformError(NOT_FOUND, f"no mount {mount_id}")
        return found[0]

    async def put_image(self, image: StoredImage) -> None:
        """See `Store`."""
        self._images[image.image_id] = image

    async def get_image(self, image_id: str) -> StoredImage:
        """See `Store`."""
        image = self._images.get(image_id)
        if image is None:
            raise PlatformError(NOT_FOUND, f"no image {image_id}")
        return image

    async def list_images(self, limit: int = 100, before: tuple[float, str] | None = None) -> tuple[StoredImage, ...]:
        """See `Store`."""
        last_used = sorted(self._images.values(), key=lambda one: (one.used_at, one.image_id), reverse=True)
        return tuple(one for one in last_used if before is None or (one.used_at, one.image_id) < before)[:limit]

    async def use_images(self, image_ids: frozenset[str], now: float) -> None:
        """See `Store`."""
        for image_id in image_ids & self._images.keys():
            self._images[image_id] = replace(self._images[image_id], used_at=now)

    async def forget_images(self, image_ids: frozenset[str]) -> frozenset[str]:
        """See `Store`."""
        named = {one.image_id for one in await self.list_image_names()}
        gone = (image_ids & self._images.keys()) - named
        for image_id in gone:
            del self._images[image_id]
        return gone

    async def publish_image(self, name: StoredImageName) -> StoredImageName:
        """See `Store`."""
        await self.get_image(name.image_id)
        known = self._image_names.get(name.ref, [])
        if known and known[0].is_current and known[0].image_id == name.image_id:
            return known[0]
        before = [replace(one, is_current=False) for one in known[:EARLIER_NAMES_MAX]]
        self._image_names[name.ref] = [name, *before]
        return name

    async def find_image_name(self, ref: ImageRef) -> StoredImageName | None:
        """See `Store`."""
        return next((one for one in self._image_names.get(ref, []) if one.is_current), None)

    async def list_image_names(
        self, environment: str | None = None, prefix: str = "", *, earlier: bool = False
    ) -> tuple[StoredImageName, ...]:
        """See `Store`."""
        return tuple(
            one
            for ref in sorted(self._image_names, key=str)
            if environment in (None, ref.environment) and f"{ref.name}:{ref.tag}".startswith(prefix)
            for one in self._image_names[ref]
            if earlier or one.is_current
        )

    async def delete_image_name(self, ref: ImageRef) -> bool:
        """See `Store`."""
        was_there = await self.find_image_name(ref) is not None
        self._image_names[ref] = [replace(one, is_current=False) for one in self._image_names.get(ref, [])]
        return was_there

    async def put_call(self, call: StoredCall, inputs: tuple[StoredInput, ...]) -> bool:
        """See `Store`."""
        if call.call_id in self._calls:
            return False
        self._calls[call.call_id] = replace(call, input_count=len(inputs))
        self._portions[call.call_id] = [Portion(call, 0, call.created_at, inputs)] if inputs else []
        self._outputs[call.call_id] = {}
        return True

    async def put_calls(self, calls: tuple[tuple[StoredCall, tuple[StoredInput, ...]], ...]) -> tuple[bool, ...]:
        """See `Store`."""
        return tuple([await self.put_call(call, inputs) for call, inputs in calls])

    async def extend_call(
        self, call_id: str, first: int, inputs: tuple[StoredInput, ...], made_at: float, *, is_last: bool
    ) -> Portion:
        """See `Store`."""
        call = await self.get_call(call_id)
        if call.is_cancelled:
            raise PlatformError(CONFLICT, f"call {call_id} was cancelled: it takes no more inputs")
        for known in self._portions[call_id]:
            if known.first == first and 0 < len(inputs) <= call.input_count - first:
                return replace(known, call=call)
        is_sealed_already = not call.is_growing and is_last and not inputs
        if first != call.input_count or not (call.is_growing or is_sealed_already):
            has = f"call {call_id} has {call.input_count} inputs" + ("" if call.is_growing else " and takes no more")
            raise PlatformError(CONFLICT, f"{has}: those from {first} to {first + len(inputs)} do not follow")
        call = replace(call, input_count=first + len(inputs), is_growing=not is_last)
        self._calls[call_id] = call
        portion = Portion(call, first, made_at, inputs)
        if inputs:
            self._portions[call_id].append(portion)
        return portion

    async def get_calls(self, call_ids: Sequence[str]) -> tuple[StoredCall, ...]:
        """See `Store`."""
        return tuple([await self.get_call(call_id) for call_id in call_ids if call_id in self._calls])

    async def get_call(self, call_id: str) -> StoredCall:
        """See `Store`."""
        call = self._calls.get(call_id)
        if call is None:
            raise PlatformError(NOT_FOUND, f"no call {call_id}: it never was, or its outputs have expired")
        return call

    async def cancel_call(self, call_id: str) -> StoredCall:
        """See `Store`."""
        call = await self.get_call(call_id)
        if self._unfinished(call) or call.is_growing:
            call = self._calls[call_id] = replace(call, is_cancelled=True)
        return call

    async def unfinished_counts(self) -> dict[str, int]:
        """See `Store`."""
        counts: dict[str, int] = {}
        for call in self._calls.values():
            if inputs := self._unfinished(call):
                counts[call.function_id] = counts.get(call.function_id, 0) + len(inputs)
        return counts

    async def unfinished_inputs(
        self, function_id: str, after: Place = BEGINNING, limit: int = 1_000, bytes_max: int = 2**22
    ) -> tuple[Portion, ...]:
        """See `Store`."""
        found: list[Portion] = []
        of_function = [
            portion
            for call_id, portions in self._portions.items()
            if self._calls[call_id].function_id == function_id
            for portion in portions
        ]
        for portion in sorted(of_function, key=lambda portion: portion.place):
            call = self._calls[portion.call.call_id]
            done = self._outputs[call.call_id]
            inputs = tuple(one for one in portion.inputs if one.index not in done)
            if inputs and portion.place > after and limit > 0 and bytes_max > 0:
                found.append(Portion(call, portion.first, portion.made_at, inputs))
                limit -= len(inputs)
                bytes_max -= found[-1].size_bytes
        return tuple(found)

    async def unfinished_indexes(self, call_id: str, first: int = 0, limit: int = 1_000) -> tuple[int, ...]:
        """See `Store`."""
        call = await self.get_call(call_id)
        return tuple(one.index for one in self._unfinished(call) if one.index >= first)[:limit]

    def _unfinished(self, call: StoredCall) -> list[StoredInput]:
        done = self._outputs[call.call_id]
        inputs = (one for portion in self._portions[call.call_id] for one in portion.inputs)
        return [one for one in inputs if one.index not in done]

    async def put_outputs(self, outputs: tuple[StoredOutput, ...]) -> tuple[bool, ...]:
        """See `Store`."""
        return tuple(self._put_output(output) for output in outputs)

    def _put_output(self, output: StoredOutput) -> bool:
        known = self._outputs.get(output.call_id)
        if known is None or output.index in known:
            return False
        known[output.index] = output
        return True

    async def get_output(self, call_id: str, index: int) -> StoredOutput | None:
        """See `Store`."""
        await self.get_call(call_id)
        return self._outputs[call_id].get(index)

    async def first_outputs(self, call_ids: Sequence[str], bytes_max: int = 2**22) -> tuple[StoredOutput, ...]:
        """See `Store`."""
        found: list[StoredOutput] = []
        size_bytes = 0
        for call_id in call_ids:
            output = self._outputs.get(call_id, {}).get(0)
            if output is not None and size_bytes < bytes_max:
                found.append(output)
                size_bytes += len(output.value)
        return tuple(found)

    async def read_outputs(
        self, call_id: str, first: int, count: int, bytes_max: int = 2**22
    ) -> tuple[StoredOutput, ...]:
        """See `Store`."""
        await self.get_call(call_id)
        outputs, found, size_bytes = self._outputs[call_id], [], 0
        for index in range(first, first + count):
            if index not in outputs or size_bytes >= bytes_max:
                break
            found.append(outputs[index])
            size_bytes += len(outputs[index].value)
        return tuple(found)

    async def output_statuses(self, call_id: str, limit: int = 1_000) -> dict[int, int]:
        """See `Store`."""
        outputs = self._outputs.get(call_id, {})
        return {index: outputs[index].status for index in sorted(outputs) if index < limit}

    async def expire(self, before: float) -> int:
        """See `Store`."""
        expired = [
            call_id
            for call_id, outputs in self._outputs.items()
            if not self._unfinished(self._calls[call_id])
            and max(
                [
                    self._calls[call_id].created_at,
                    *(portion.made_at for portion in self._portions[call_id]),
                    *(output.finished_at for output in outputs.values()),
                ]
            )
            < before
        ]
        for call_id in expired:
            del self._calls[call_id], self._portions[call_id], self._outputs[call_id]
        return len(expired)

    async def live_blobs(self) -> frozenset[str]:
        """See `Store`."""
        named = {blob for manifest, _ in self._mounts.values() for file in manifest.files for blob in file.blobs}
        named |= {function.definition.blob_sha256 for function in self._functions.values()}
        named |= {sha256 for version in self._living_versions() for sha256 in version.blob_sha256s}
        portions = (portion for of_call in self._portions.values() for portion in of_call)
        named |= {one.blob_sha256 for portion in portions for one in portion.inputs}
        named |= {item.blob_sha256 for outputs in self._outputs.values() for item in outputs.values()}
        named |= {item.blob_sha256 for item, _ in self._failed_inputs.values()}
        named |= self._volumes.blocks()
        named |= self._dict_rows.live_blobs()
        return frozenset(named - {""})

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
        found = [one for one in self._calls.values() if _is_wanted(one, function_ids, since, until, app_ids)]
        return tuple(sorted(found, key=lambda one: (one.created_at, one.call_id), reverse=True)[:limit])

    async def get_input(self, call_id: str, index: int) -> StoredInput | None:
        """See `Store`."""
        for portion in self._portions.get(call_id, ()):
            for item in portion.inputs:
                if item.index == index:
                    return item
        kept = self._failed_inputs.get((call_id, index))
        return None if kept is None else kept[0]

    async def list_outputs(
        self, call_id: str, first: int, limit: int, *, failed: bool = False
    ) -> tuple[StoredOutput, ...]:
        """See `Store`."""
        outputs = [one for index, one in sorted(self._outputs.get(call_id, {}).items()) if index >= first]
        wanted = [one for one in outputs if one.status or not failed][:limit]
        return tuple(one if one.status else replace(one, value=b"") for one in wanted)

    async def count_outputs(self, call_ids: tuple[str, ...]) -> dict[str, OutputCounts]:
        """See `Store`."""
        counts: dict[str, OutputCounts] = {}
        for call_id in call_ids:
            outputs = self._outputs.get(call_id, {}).values()
            if outputs:
                by_status = dict(Counter(output.status for output in outputs))
                counts[call_id] = OutputCounts(by_status, max(output.finished_at for output in outputs))
        return counts

    async def put_flights(self, flights: tuple[StoredFlight, ...], inputs: tuple[StoredInput, ...], now: float) -> None:
        """See `Store`."""
        self._flights.update({flight.call_id: flight for flight in flights})
        self._failed_inputs.update({(one.call_id, one.index): (one, now) for one in inputs})

    async def get_flight(self, call_id: str) -> StoredFlight | None:
        """See `Store`."""
        return self._flights.get(call_id)

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
        found = [one for one in self._flights.values() if _is_wanted(one, function_ids, since, until, app_ids)]
        found = [replace(one, detail="") for one in found if one.is_failed or not failed]
        return tuple(sorted(found, key=lambda one: (one.created_at, one.call_id), reverse=True)[:limit])

    async def kept_inputs(self, call_id: str) -> frozenset[int]:
        """See `Store`."""
        return frozenset(index for one, index in self._failed_inputs if one == call_id)

    async def prune_flights(self, limits: FlightLimits) -> int:
        """See `Store`."""
        flights = sorted(self._flights.values(), key=lambda one: (one.finished_at, one.call_id))
        ages = [(one.call_id, one.finished_at, len(one.detail) + len(one.summary)) for one in flights]
        gone = _beyond(ages, limits.before, limits.flights_max, limits.detail_bytes_max)
        for call_id in gone:
            del self._flights[call_id]
        inputs = sorted(self._failed_inputs.items(), key=lambda item: (item[1][1], item[0]))
        sizes = [(key, at, len(one.value) or 64) for key, (one, at) in inputs]
        gone_inputs = _beyond(sizes, limits.before, limits.inputs_max, limits.input_bytes_max)
        for key in gone_inputs:
            del self._failed_inputs[key]
        return len(gone) + len(gone_inputs)

    async def put_minutes(self, minutes: tuple[StoredMinute, ...]) -> None:
        """See `Store`."""
        self._minutes.update({(one.function_id, one.began_at): one for one in minutes})

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
        found = [
            one
            for one in self._minutes.values()
            if (one.function_id in function_ids or one.base_id in base_ids) and since <= one.began_at <= until
        ]
        return tuple(sorted(found, key=lambda one: (one.began_at, one.function_id))[-limit:])

    async def prune_minutes(self, before: float, count_max: int) -> int:
        """See `Store`."""
        newest = sorted(one.began_at for one in self._minutes.values())[-count_max:]
        before = max(before, newest[0]) if newest else before
        gone = [key for key, one in self._minutes.items() if one.began_at < before]
        for key in gone:
            del self._minutes[key]
        return len(gone)

    async def put_schedules(self, schedules: tuple[StoredSchedule, ...]) -> None:
        """See `Store`."""
        self._schedules |= {one.function_id: one for one in schedules}

    async def forget_schedules(self, function_ids: frozenset[str]) -> None:
        """See `Store`."""
        self._schedules = {key: one for key, one in self._schedules.items() if key not in function_ids}

    async def list_schedules(self) -> tuple[StoredSchedule, ...]:
        """See `Store`."""
        return tuple(self._schedules.values())

    async def get_setting(self, name: str) -> str | None:
        """See `Store`."""
        return self._settings.get(name)

    async def put_setting(self, name: str, value: str) -> None:
        """See `Store`."""
        self._settings[name] = value


def _is_wanted(
    one: StoredCall | StoredFlight,
    function_ids: tuple[str, ...],
    since: float,
    until: float | None,
    app_ids: tuple[str, ...],
) -> bool:
    is_function = not function_ids or one.function_id in function_ids
    is_theirs = is_function and (not app_ids or one.app_id in app_ids)
    return is_theirs and one.created_at >= since and (until is None or one.created_at <= until)


def _beyond(ages: list[tuple[K, float, int]], before: float, count_max: int, bytes_max: int) -> list[K]:
    """The oldest of these, which come in order, that are too old or too many."""
    count, size = len(ages), sum(bytes_ for _, _, bytes_ in ages)
    gone = []
    for key, at, bytes_ in ages:
        if at >= before and count <= count_max and size <= bytes_max:
            break
        gone.append(key)
        count, size = count - 1, size - bytes_
    return gone
