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
    assets = plane.assets
    return {
        "AssetCreate": _bodiless(assets.create),
        "AssetGet": _bodiless(assets.get),
        "AssetList": _bodiless(assets.list_some),
        "AssetRename": _bodiless(assets.rename),
        "AssetDelete": _bodiless(assets.delete),
    }


def _bodiless(answer: Callable[[Caller, Any], Awaitable[Any]]) -> Unary:
    async def unary(caller: Caller, record: Any, body: bytes) -> tuple[Any, bytes]:
        return await answer(caller, record), b""

    return unary
