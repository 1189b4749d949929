"""Who asks, and what they may."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from squall.protocol.errors import FORBIDDEN, PlatformError
from squall.protocol.function import NAMESPACES
from squall.server.dispatch.client.client import Client
from squall.server.model.store import StoredApp

if TYPE_CHECKING:
    from squall.server.dispatch.app.held_version import HeldVersion

# What the SDK inside a container may ask: to use its own app and those that descend from it, and to make and change the
# latter. Everything else is for clients outside: a container can neither look at other apps nor stop anything that was
# not started inside. What is named by a hash (blobs, mounts, images) is open to whoever knows the hash,
# and a published image to whoever knows its name. Assets are open to all in their environment; of
# secrets, they may make those that are of apps they may change, and give others to functions of these.
CONTAINER_METHODS = frozenset({
    "Hello", "AppCreate", "AppGet", "AppStop", "FunctionBind", "FunctionCreate", "FunctionGet", "FunctionStats",
    "MountCreate", "BlobStat", "BlobPut", "BlobGet", "CallSpawn", "CallExtend", "CallRead", "CallGet", "CallInfo",
    "CallCancel", "CallOpen", "PutInputs", "CallClose", "ItemCredit", "ImageBuild", "ImageGet", "LogRead",
    "CallGraph", "FunctionWindow", "AppWindow", "AutoscalerGet", "AutoscalerUpdate", "EnvironmentGet",
    "CallSpawnMany", "CallGather", "WebAddressList", "AssetCreate", "AssetGet", "AssetList", "AssetRename",
    "AssetDelete", "TunnelOpen", "TunnelClose",
    "VolumeCommit", "VolumeCopy", "VolumeRemove", "VolumeRollback", "VolumeStat", "VolumeList", "VolumeBlocksGet",
    "VolumeHistoryGet", "VolumeVersionGet", "VolumeDiff", "VolumeFlush", "VolumeReload",
    "SecretGet", "SecretCreate",
    "DictPut", "DictGet", "DictPop", "DictContains", "DictClear", "DictCountGet", "DictRead",
    "QueuePut", "QueueGet", "QueueGiveBack", "QueueRead", "QueueCountGet", "QueueClear",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever asks for a method."""

    client: Client | None = None
    """Its session; None over plain HTTP, which has no events and holds no app."""
    scope_app_id: str = ""
    """For the SDK in a container: its app, which with its descendants is all it may use."""
    is_network_blocked: bool = False
    """It is in a container without a network, and must not get one by way of another."""
    isolation: str = NAMESPACES
    """Of that container, which must not get a weaker one by way of another."""
    held: HeldVersion | None = None
    """What is asked from within that container, or from what will be one, is turned to."""

    @property
    def why_no_builds(self) -> str:
        """Why it may have no image built, in words; empty where it may: the steps of a build run code of its making."""
        if self.is_network_blocked:
            return "the function asking has block_network=True, and the steps of a build have a network"
        if self.isolation != NAMESPACES:
            return f'the function asking has isolation="{self.isolation}", and the steps of a build have not'
        return ""

    def check_method(self, method: str) -> None:
        """Raises PlatformError `forbidden`."""
        if self.scope_app_id and method not in CONTAINER_METHODS:
            raise PlatformError(FORBIDDEN, f"{method}: not allowed from inside a container")

    def forbid_secrets(self, method: str) -> None:
        """Raises PlatformError `forbidden` in a container: it may pass secrets on, and no more."""
        if self.scope_app_id:
            message = (
                "code in a container gives secrets to functions, and neither lists, makes, changes nor deletes them"
            )
            raise PlatformError(FORBIDDEN, f"{method}: {message}")

    def check_use(self, method: str, app: StoredApp) -> None:
        """Whether it may use the app: call its functions, look at them.

        Raises:
            PlatformError: `forbidden`.
        """
        if app.app_id != self.scope_app_id:
            self.check_change(method, app)

    def check_change(self, method: str, app: StoredApp) -> None:
        """Whether it may change the app, stop it, or read its log.

        Raises:
            PlatformError: `forbidden`.
        """
        if not self.scope_app_id or self.scope_app_id in app.ancestors:
            return
        if app.app_id == self.scope_app_id:
            raise PlatformError(FORBIDDEN, f"{method}: not allowed from inside a container on its own app")
        message = f"a container may use its own app and those started from it only, and {app.app_id} is another"
        raise PlatformError(FORBIDDEN, f"{method}: {message}")
