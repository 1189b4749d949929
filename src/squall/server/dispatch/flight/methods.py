"""Methods about what ran; one line each, as `methods.py` has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from squall.server.dispatch.client.callers import Caller

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane

Unary = Callable[[Caller, Any, bytes], Awaitable[tuple[Any, bytes]]]


def flight_methods(plane: ControlPlane) -> dict[str, Unary]:
    """Name to what answers."""
    flights, windows = plane.flights, plane.windows
    return {
        "CallList": _bodiless(flights.list_calls),
        "CallShow": _bodiless(flights.show_page),
        "CallGraph": _bodiless(flights.graph),
        "CallInputGet": lambda caller, record, body: flights.get_input(caller, record),
        "CallReplay": _bodiless(flights.replay),
        "ContainerShow": _bodiless(lambda caller, record: flights.show_container(record)),
        "FunctionWindow": _bodiless(windows.function),
        "AppWindow": _bodiless(windows.app),
        "VariantList": _bodiless(windows.variants),
    }


def _bodiless(answer: Callable[[Caller, Any], Awaitable[Any]]) -> Unary:
    async def unary(caller: Caller, record: Any, body: bytes) -> tuple[Any, bytes]:
        return await answer(caller, record), b""

    return unary
