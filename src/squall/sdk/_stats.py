"""Asks the server about apps, functions and call graphs, and makes of the answers what `squall.types` has."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import reduce
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from squall.exception import InvalidError, NotFoundError, PermissionDeniedError
from squall.protocol.app import AppGet
from squall.protocol.app import AppInfo as AppAnswer
from squall.protocol.bucket import BucketMount
from squall.protocol.deployment import AppHistory, AppHistoryGet
from squall.protocol.flight import CallGraph, CallGraphed
from squall.protocol.function import CRON, FunctionGet, FunctionSpec
from squall.protocol.function_window import (
    PERCENTILES,
    WINDOW_S,
    WINDOW_S_MAX,
    AppWindow,
    AppWindowGet,
    Distribution,
    FunctionWindow,
    FunctionWindowGet,
)
from squall.protocol.image_catalog import ImageGet, ImageInfo
from squall.protocol.volume import VolumeMount
from squall.protocol.web import ENDPOINT, SERVER, WebAddressList, WebSpec
from squall.sdk._pages import ask_pages
from squall.sdk._value_text import value_text
from squall.sdk._web_address import addresses, for_programs
from squall.sdk.types import (
    AppInfo,
    AppLifecycle,
    AppState,
    AppStats,
    CloudBucketMountInfo,
    FunctionInfo,
    FunctionStats,
    InputInfo,
    InputStatus,
    StatsPercentile,
    StatsPercentileDistribution,
    VolumeMountInfo,
)

if TYPE_CHECKING:
    from squall.sdk._client import Client

_BUCKET_TYPES: dict[str, Literal["r2", "gcp"]] = {
    ".r2.cloudflarestorage.com": "r2",
    "storage.googleapis.com": "gcp",
}
_STATUSES = {
    "queued": InputStatus.PENDING,
    "running": InputStatus.PENDING,
    "succeeded": InputStatus.SUCCESS,
    "failed": InputStatus.FAILURE,
    "lost": InputStatus.FAILURE,
    "timed_out": InputStatus.TIMEOUT,
    "cancelled": InputStatus.TERMINATED,
}


def window(what: str, since: object, until: object) -> tuple[float | None, float | None]:
    """The two ends as seconds since 1970; a time without a zone is local.

    Raises:
        InvalidError: they are no times, the end does not come after the beginning, or they are over a week apart.
    """
    for name, value in (("since", since), ("until", until)):
        if value is not None and not isinstance(value, datetime):
            raise InvalidError(f"{what}: {name} must be a datetime, not {value_text(value)}")
    begin = since.timestamp() if isinstance(since, datetime) else None
    end = until.timestamp() if isinstance(until, datetime) else None
    end_known = end if end is not None else time.time()  # tidy: users speak of the wall clock
    begin_known = begin if begin is not None else end_known - WINDOW_S
    if begin_known >= end_known:
        raise InvalidError(f"{what}: since must be before until; {since} is not before {until or 'now'}")
    if end_known - begin_known > WINDOW_S_MAX:
        raise InvalidError(f"{what}: at most {WINDOW_S_MAX / 86_400:.0f} days lie between since and until")
    return begin, end


async def app_info(client: Client, app_id: str) -> AppInfo:
    """About an app, by id."""
    found = await client.request("AppGet", AppGet(app_id), AppAnswer)
    names = await _servers(client, app_id) if found.functions else frozenset()
    functions = {name: function_id for name, function_id in found.functions.items() if name not in names}
    servers = {name: function_id for name, function_id in found.functions.items() if name in names}
    return AppInfo(found.app_id, found.name, await _lifecycle(client, found), functions, servers)


async def _servers(client: Client, app_id: str) -> frozenset[str]:
    """The names of an app's servers, while it lives."""
    found = await addresses(client, WebAddressList(app_id))
    return frozenset(one.function_name for one in found if one.kind == SERVER)


async def _lifecycle(client: Client, app: AppAnswer) -> AppLifecycle:
    deployed_at, deployed_by = None, None
    if app.version:
        try:
            history = await client.request("AppHistory", AppHistoryGet(app.app_id), AppHistory)
        except (NotFoundError, PermissionDeniedError):
            history = AppHistory(app.app_id, ())
        current = next((one for one in history.versions if one.version == app.version), None)
        if current is not None:
            deployed_at, deployed_by = moment(current.deployed_at), current.deployed_by or None
    return AppLifecycle(
        AppState(app.state),
        app.version or None,
        moment(app.created_at),
        app.created_by,
        deployed_at,
        deployed_by,
        moment(app.stopped_at) if app.stopped_at is not None else None,
    )


async def app_stats(client: Client, app_id: str, since: float | None, until: float | None) -> AppStats:
    """What an app's functions did."""
    pages = await ask_pages(client, "AppWindow", AppWindowGet(app_id, since, until), AppWindow)
    found = reduce(AppWindow.with_page, pages)
    app = await client.request("AppGet", AppGet(app_id, has_functions=False), AppAnswer)
    names = await _servers(client, app_id)
    functions = {name: one for name, one in found.functions.items() if name not in names}
    servers = {name: one for name, one in found.functions.items() if name in names}
    by_name = {
        name: AppStats.FunctionStats(found.function_ids.get(name, ""), _counts([one]))
        for name, one in functions.items()
    }
    servers_by_name = {
        name: AppStats.ServerStats(found.function_ids.get(name, ""), _server_counts([one]))
        for name, one in servers.items()
    }
    return AppStats(
        moment(found.since),
        moment(found.until),
        AppStats.FunctionStatsGroup(_counts(list(functions.values())), by_name),
        AppStats.ServerStatsGroup(_server_counts(list(servers.values())), servers_by_name),
        AppStats.SandboxCounts(0, 0, 0),
        await _lifecycle(client, app),
        app.version or None,
    )


def _counts(windows: list[FunctionWindow]) -> AppStats.FunctionCounts:
    succeeded = sum(one.succeeded_inputs for one in windows)
    failed = sum(one.failed_inputs + one.timed_out_inputs + one.cancelled_inputs for one in windows)
    errors, total = sum(one.failed_containers for one in windows), sum(one.container_count for one in windows)
    return AppStats.FunctionCounts(
        AppStats.CallCounts(succeeded + failed, succeeded, failed), AppStats.ContainerCounts(errors, total)
    )


def _server_counts(windows: list[FunctionWindow]) -> AppStats.ServerCounts:
    found = _counts(windows)
    requests = AppStats.RequestCounts(found.calls.total, found.calls.succeeded, found.calls.failed)
    return AppStats.ServerCounts(requests, found.containers)


async def function_info(client: Client, function_id: str) -> FunctionInfo:
    """About a function, by id."""
    spec, image_name = await spec_and_image(client, function_id)
    urls: dict[str, str] = {}
    if spec.web is not None or any(one.web is not None for one in spec.definition.methods):
        found = await addresses(client, WebAddressList(function_id=function_id))
        urls = {one.method: for_programs(one) for one in found}
    return info_of(spec, image_name, urls)


async def spec_and_image(client: Client, function_id: str) -> tuple[FunctionSpec, str | None]:
    """A function's record, and a name of its image."""
    spec = await client.request("FunctionGet", FunctionGet(function_id=function_id), FunctionSpec)
    try:
        names = (await client.request("ImageGet", ImageGet(spec.image_id), ImageInfo)).names
    except NotFoundError:
        names = ()
    return spec, names[0] if names else None


def info_of(spec: FunctionSpec, image_name: str | None, urls: Mapping[str, str] = MappingProxyType({})) -> FunctionInfo:
    """The function's record as users read it.

    Args:
        urls: where it answers requests, by method, and under an empty name by itself.
    """
    resources, scaling, batching, hosting = spec.resources, spec.scaling, spec.batching, spec.hosting
    is_concurrent = scaling.max_inputs > 1 and batching is None
    return FunctionInfo(
        cpu=_amount(resources.cpu_milli, resources.cpu_limit_milli, 1000),
        memory_mib=_amount(resources.memory_mib, resources.memory_limit_mib, 1),
        gpus=[],
        ephemeral_disk_mib=resources.disk_mib,
        image_info=FunctionInfo.ImageInfo(image_name, spec.image_id),
        startup_timeout=int(spec.startup_timeout_s),
        timeout=int(spec.timeout_s),
        max_retries=spec.retries.max_retries or None,
        nonpreemptible=hosting.is_nonpreemptible,
        regions=None if hosting.regions is None else list(hosting.regions),
        routing_region=hosting.routing_region,
        cloud=hosting.cloud,
        cluster_info=None,
        batching_info=FunctionInfo.BatchingInfo(batching.max_batch_size, batching.wait_ms) if batching else None,
        concurrency_info=FunctionInfo.ConcurrencyInfo(scaling.max_inputs, scaling.target_inputs)
        if is_concurrent
        else None,
        schedule=_schedule(spec),
        restrict_modal_access=False,
        block_network=spec.is_network_blocked,
        single_use_containers=scaling.is_single_use,
        volumes={one.target: _mounted(one) for one in spec.volumes},
        cloud_bucket_mounts={one.target: _bucket(one) for one in spec.buckets},
        secrets=list(spec.secrets),
        web_info=_web_info(spec.web, urls.get("")) if spec.web is not None else None,
        method_names=[one.name for one in spec.definition.methods] if spec.definition.is_class else None,
        method_details={
            one.name: _web_info(one.web, urls.get(one.name)) for one in spec.definition.methods if one.web is not None
        }
        or None,
    )


def _web_info(web: WebSpec, url: str | None) -> FunctionInfo.WebInfo:
    method = web.method if web.kind == ENDPOINT else ""
    return FunctionInfo.WebInfo(url or "", method, not web.is_proxy_auth_required)


def _mounted(mount: VolumeMount) -> VolumeMountInfo:
    is_read_only = mount.is_read_only or mount.version is not None
    return VolumeMountInfo(mount.name or None, mount.volume_id, is_read_only, mount.sub_path or None)


def _bucket(mount: BucketMount) -> CloudBucketMountInfo:
    host = urlsplit(mount.endpoint_url).hostname or ""
    kind: Literal["s3", "r2", "gcp"] = "s3"
    for end, other in _BUCKET_TYPES.items():
        kind = other if host.endswith(end) else kind
    return CloudBucketMountInfo(mount.bucket, kind, mount.is_read_only, mount.key_prefix or None)


def _amount(request: int | None, limit: int | None, scale: int) -> Any:
    asked = None if request is None else request / scale if scale > 1 else request
    if limit is None:
        return asked
    return (asked or 0, limit / scale if scale > 1 else limit)


def _schedule(spec: FunctionSpec) -> str | None:
    schedule = spec.schedule
    if schedule is None:
        return None
    if schedule.kind == CRON:
        return f"{schedule.cron} ({schedule.timezone})"
    parts = [f"{schedule.months} months"] if schedule.months else []
    parts += [f"{schedule.seconds:g} s"] if schedule.seconds or not parts else []
    return f"every {' and '.join(parts)}"


async def function_stats(
    client: Client, function_id: str, since: float | None, until: float | None, container: str, all_variants: bool
) -> FunctionStats:
    """What a function did."""
    asked = FunctionWindowGet(function_id, since, until, container, all_variants)
    found = await client.request("FunctionWindow", asked, FunctionWindow)
    inputs, containers = distributions(found)
    return FunctionStats(
        moment(found.since),
        moment(found.until),
        found.succeeded_inputs,
        found.failed_inputs + found.cancelled_inputs,
        found.timed_out_inputs,
        found.running_inputs,
        inputs,
        found.started_containers,
        found.failed_containers,
        found.starting_containers,
        containers,
        found.container_count,
        found.variant_count,
        all_variants,
    )


def distributions(
    found: FunctionWindow,
) -> tuple[dict[str, StatsPercentileDistribution], dict[str, StatsPercentileDistribution]]:
    """Of inputs, and of containers; none of what was not measured."""
    times = (("queue_time", found.queue), ("run_time", found.run))
    starts = (("startup_time", found.start),)
    of_inputs, of_containers = (
        {name: _distribution(one) for name, one in some if one.values_s} for some in (times, starts)
    )
    return of_inputs, of_containers


def _distribution(found: Distribution) -> StatsPercentileDistribution:
    pairs = zip(PERCENTILES, found.values_s, strict=True)
    return StatsPercentileDistribution("s", [StatsPercentile(at, value) for at, value in pairs])


async def call_graph(client: Client, call_id: str) -> list[InputInfo]:
    """The inputs of a call, each with those that it called below it."""
    found = await client.request("CallGraph", CallGraph(call_id), CallGraphed)
    by_id: dict[str, InputInfo] = {}
    roots: list[InputInfo] = []
    for one in found.inputs:
        status = _STATUSES.get(one.status, InputStatus.PENDING)
        info = InputInfo(one.input_id, one.call_id, one.container_id, status, one.function_name, one.module)
        by_id[one.input_id] = info
        # Parents come first; the parent of the call that was asked for is not among them.
        parent = by_id.get(one.parent_input_id)
        (parent.children if parent is not None else roots).append(info)
    return roots


def moment(seconds: float) -> datetime:
    """A time as users have it."""
    return datetime.fromtimestamp(seconds, timezone.utc)
