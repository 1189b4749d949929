"""Who asks, and what they may."""

from __future__ import annotations

from dataclasses import dataclass

from squall.protocol.errors import FORBIDDEN, PlatformError
from squall.server.dispatch.client import Client

# What the SDK inside a container may ask, always within its own app. Everything else is for clients outside: a
# container can neither look at other apps nor stop anything but its own calls.
CONTAINER_METHODS = frozenset({
    "Hello", "AppGet", "FunctionGet", "FunctionStats", "BlobStat", "BlobPut", "BlobGet", "CallSpawn", "CallGet",
    "CallInfo", "CallCancel", "CallOpen", "PutInputs", "CallSeal", "CallClose", "ItemCredit",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever asks for a method."""

    client: Client | None = None
    """Its session; None over plain HTTP, which has no events and holds no app."""
    scope_app_id: str = ""
    """For the SDK in a container: its app, the only one it may use."""

    def check_method(self, method: str) -> None:
        """Raises PlatformError `forbidden`."""
        if self.scope_app_id and method not in CONTAINER_METHODS:
            raise PlatformError(FORBIDDEN, f"{method}: not allowed from inside a container")

    def check_app(self, method: str, app_id: str) -> None:
        """Raises PlatformError `forbidden`."""
        if self.scope_app_id and app_id != self.scope_app_id:
            raise PlatformError(FORBIDDEN, f"{method}: a container may use its own app only, and {app_id} is another")
