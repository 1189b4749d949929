"""Asks the server of Squall about an app's server, and makes of the answers what `squall.types` has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.exception import NotFoundError
from squall.protocol.function_window import FunctionWindow, FunctionWindowGet
from squall.protocol.web import SERVER
from squall.sdk._stats import distributions, info_of, moment, spec_and_image
from squall.sdk._web_address import url_of
from squall.sdk.types import ServerInfo, ServerStats

if TYPE_CHECKING:
    from squall.sdk._client import Client


async def server_info(client: Client, function_id: str) -> ServerInfo:
    """About a server, by id.

    Raises:
        NotFoundError: it is none.
    """
    spec, image_name = await spec_and_image(client, function_id)
    web = spec.web
    if web is None or web.kind != SERVER:
        raise NotFoundError(f"{spec.name} is no server; use Function.from_id({function_id!r})")
    found = info_of(spec, image_name)
    return ServerInfo(
        server_url=await url_of(client, function_id, "") or "",
        port=web.port,
        unauthenticated=not web.is_proxy_auth_required,
        h2_enabled=False,
        routing_region=found.routing_region,
        sessioned=False,
        startup_timeout=int(web.port_timeout_s),
        exit_grace_period=int(web.exit_grace_s),
        image_info=ServerInfo.ImageInfo(image_name, spec.image_id),
        cpu=found.cpu,
        memory_mib=found.memory_mib,
        gpus=found.gpus,
        ephemeral_disk_mib=found.ephemeral_disk_mib,
        nonpreemptible=found.nonpreemptible,
        compute_regions=found.regions,
        cloud=found.cloud,
        cluster_info=None,
        volumes=found.volumes,
        cloud_bucket_mounts=found.cloud_bucket_mounts,
        secrets=found.secrets,
    )


async def server_stats(
    client: Client, function_id: str, since: float | None, until: float | None, container: str
) -> ServerStats:
    """What a server did."""
    asked = FunctionWindowGet(function_id, since, until, container)
    found = await client.request("FunctionWindow", asked, FunctionWindow)
    inputs_count = found.succeeded_inputs + found.failed_inputs + found.timed_out_inputs + found.cancelled_inputs
    count = sum(found.responses.values()) or inputs_count
    inputs, containers = distributions(found)
    return ServerStats(
        moment(found.since),
        moment(found.until),
        count,
        {int(status): number for status, number in sorted(found.responses.items())},
        count / max(found.until - found.since, 1e-9),
        inputs,
        found.started_containers,
        found.failed_containers,
        found.starting_containers,
        found.container_count,
        containers,
        None,
    )
