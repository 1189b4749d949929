"""Containers of functions that are held to a version: what they call of their own app is held to the same one.

The code of a version was written against the others of its time. It knows its functions by the ids that every version
has, so where the call arrives it is turned to the variant that is held, which is made if there is none yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from squall.protocol.errors import NOT_FOUND, PlatformError
from squall.protocol.function import FunctionBind

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane
    from squall.server.dispatch.fleet.container import Container
    from squall.server.dispatch.fleet.templates import Template


class HeldVersion:
    """What one container's calls are turned to."""

    def __init__(self, plane: ControlPlane, container: Container | Template | None) -> None:
        self._plane = plane
        self._spec = container.spec if container is not None and container.spec.is_pinned else None
        self._targets: dict[str, str] = {}
        """Of functions that were asked for: as many as the app has, at most."""

    def known(self, function_id: str) -> str | None:
        """What a call of the function is turned to, if that can be said at once."""
        if self._spec is None:
            return function_id
        return self._targets.get(function_id)

    async def find(self, function_id: str) -> str:
        """The same, found out.

        Raises:
            PlatformError: as `Variants.bind`, such as `not_found` where the version has no such function.
        """
        variants = self._plane.variants
        base = await variants.find(function_id)
        if self._spec is None:
            return function_id
        if base is not None and (base.spec.app_id != self._spec.app_id or base.spec.is_pinned):
            return function_id
        asked = FunctionBind(function_id, version=self._spec.version, app_id=self._spec.app_id)
        try:
            target = await variants.bind(asked)
        except PlatformError as error:
            if base is not None or error.code != NOT_FOUND:
                raise
            return function_id  # it is of no version of this app: whoever opens the call says so
        self._targets[function_id] = target
        return target
