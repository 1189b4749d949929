"""The methods of deployed apps and of environments; who may ask them is `callers.py`'s to say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from squall.protocol.app import AppInfo
from squall.protocol.deployment import (
    AppHistory,
    AppHistoryGet,
    AppPrepare,
    AppPrepared,
    AppPublish,
    AppPublished,
    AppRollback,
    AppTagsPut,
)
from squall.protocol.environment import (
    EnvironmentCreate,
    EnvironmentDelete,
    EnvironmentDeleted,
    EnvironmentGet,
    EnvironmentInfo,
    EnvironmentList,
    EnvironmentListing,
)
from squall.protocol.errors import INVALID, PlatformError
from squall.protocol.function import FunctionCreate
from squall.server.dispatch.app.spec_size import check_sizes
from squall.server.dispatch.client.callers import Caller
from squall.server.model.definition import check_isolation

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane

Unary = Callable[[Caller, Any, bytes], Awaitable[tuple[Any, bytes]]]


def deployment_methods(plane: ControlPlane) -> dict[str, Unary]:
    """By name."""

    async def prepare(caller: Caller, record: AppPrepare, body: bytes) -> tuple[AppPrepared, bytes]:
        return await plane.deployments.prepare(record), b""

    async def publish(caller: Caller, record: AppPublish, body: bytes) -> tuple[AppPublished, bytes]:
        try:
            functions = plane.codec.record(FunctionCreate, plane.codec.decode(body).params).functions
        except ValueError as error:
            raise PlatformError(INVALID, f"AppPublish: its body is no FunctionCreate: {error}") from error
        check_sizes(plane.codec, "AppPublish", functions)
        check_isolation("AppPublish", functions)
        await plane.secrets.check(caller, "AppPublish", functions)
        await plane.volume_mounts.check(caller, "AppPublish", functions)
        return await plane.deployments.publish(record, functions), b""

    async def roll_back(caller: Caller, record: AppRollback, body: bytes) -> tuple[AppPublished, bytes]:
        row = await plane.apps.find(record.app, environment=record.environment)
        return await plane.deployments.rollback(row.app_id, record), b""

    async def history(caller: Caller, record: AppHistoryGet, body: bytes) -> tuple[AppHistory, bytes]:
        row = await plane.apps.find(record.app, environment=record.environment)
        return await plane.deployments.history(row), b""

    async def put_tags(caller: Caller, record: AppTagsPut, body: bytes) -> tuple[AppInfo, bytes]:
        row = await plane.apps.find(record.app, environment=record.environment)
        return await plane.deployments.put_tags(row.app_id, record), b""

    async def create_environment(
        caller: Caller, record: EnvironmentCreate, body: bytes
    ) -> tuple[EnvironmentInfo, bytes]:
        return await plane.environments.create(record), b""

    async def get_environment(caller: Caller, record: EnvironmentGet, body: bytes) -> tuple[EnvironmentInfo, bytes]:
        return await plane.environments.get(record), b""

    async def list_environments(
        caller: Caller, record: EnvironmentList, body: bytes
    ) -> tuple[EnvironmentListing, bytes]:
        return await plane.environments.list_all(record), b""

    async def delete_environment(
        caller: Caller, record: EnvironmentDelete, body: bytes
    ) -> tuple[EnvironmentDeleted, bytes]:
        return await plane.environments.delete(record), b""

    return {
        "EnvironmentCreate": create_environment,
        "EnvironmentGet": get_environment,
        "EnvironmentList": list_environments,
        "EnvironmentDelete": delete_environment,
        "AppPrepare": prepare,
        "AppPublish": publish,
        "AppRollback": roll_back,
        "AppHistory": history,
        "AppTagsPut": put_tags,
    }
