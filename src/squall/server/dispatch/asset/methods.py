"""The methods of assets, and of what is in them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from squall.server.dispatch.client.callers import Caller

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane

Unary = Callable[[Caller, Any, bytes], Awaitable[tuple[Any, bytes]]]


def asset_methods(plane: ControlPlane) -> dict[str, Unary]:
    """By name."""
    assets, secrets, volumes, dicts = plane.assets, plane.secrets, plane.volumes, plane.dicts
    queues = plane.queues
    return {
        "AssetCreate": _bodiless(assets.create),
        "AssetGet": _bodiless(assets.get),
        "AssetList": _bodiless(assets.list_some),
        "AssetRename": _bodiless(assets.rename),
        "AssetDelete": _bodiless(assets.delete),
        "VolumeCommit": _bodiless(volumes.commit),
        "VolumeCopy": _bodiless(volumes.copy),
        "VolumeRemove": _bodiless(volumes.remove),
        "VolumeRollback": _bodiless(volumes.roll_back),
        "VolumeStat": _bodiless(volumes.stat),
        "VolumeList": _bodiless(volumes.list_some),
        "VolumeTreeGet": _bodiless(volumes.tree),
        "VolumeFlush": _bodiless(plane.volume_mounts.flush),
        "VolumeReload": _bodiless(plane.volume_mounts.reload),
        "VolumeBlocksGet": _bodiless(volumes.blocks),
        "VolumeHistoryGet": _bodiless(volumes.history),
        "VolumeVersionGet": _bodiless(volumes.version),
        "VolumeDiff": _bodiless(volumes.differences),
        "VolumeRetentionPut": _bodiless(volumes.put_retention),
        "VolumeUsageGet": _bodiless(volumes.usage),
        "VolumeGc": _bodiless(volumes.collect),
        "SecretCreate": _bodiless(secrets.create),
        "SecretGet": _bodiless(secrets.get),
        "SecretList": _bodiless(secrets.list_some),
        "SecretUpdate": _bodiless(secrets.update),
        "SecretKeyRotate": _bodiless(lambda caller, record: secrets.rotate(record)),
        "DictPut": dicts.put,
        "DictGet": dicts.get,
        "DictPop": dicts.pop,
        "DictContains": dicts.contains,
        "DictClear": dicts.clear,
        "DictCountGet": dicts.count,
        "DictRead": dicts.read,
        "QueuePut": queues.put,
        "QueueGet": queues.get,
        "QueueGiveBack": queues.give_back,
        "QueueRead": queues.read,
        "QueueCountGet": queues.count,
        "QueueTotalsGet": _bodiless(queues.totals),
        "QueueClear": queues.clear,
    }


def _bodiless(answer: Callable[[Caller, Any], Awaitable[Any]]) -> Unary:
    async def unary(caller: Caller, record: Any, body: bytes) -> tuple[Any, bytes]:
        return await answer(caller, record), b""

    return unary
