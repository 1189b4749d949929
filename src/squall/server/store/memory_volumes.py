"""Versions of volumes in memory, for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from squall.protocol.errors import CONFLICT, NOT_FOUND, PlatformError
from squall.protocol.volume import VolumeRetention
from squall.server.model.volume import ROOT_GONE, MemoryNodes, NewNode, Nodes, StoredVolumeVersion
from squall.server.store.memory_assets import MemoryAssets

R = TypeVar("R")


class MemoryVolumes:
    """See `VolumeStore`."""

    def __init__(self, assets: MemoryAssets) -> None:
        self._assets = assets
        self._versions: dict[str, dict[int, StoredVolumeVersion]] = {}
        self._retentions: dict[str, VolumeRetention] = {}
        self._nodes: dict[str, NewNode] = {}
        assets.on_purge.append(self._purge)

    def _purge(self, asset_id: str) -> None:
        self._versions.pop(asset_id, None)
        self._retentions.pop(asset_id, None)

    async def head(self, volume_id: str) -> StoredVolumeVersion:
        """See `VolumeStore`."""
        found = await self.history(volume_id, 1)
        return found[0] if found else StoredVolumeVersion(volume_id)

    async def get(self, volume_id: str, number: int) -> StoredVolumeVersion | None:
        """See `VolumeStore`."""
        return self._versions.get(volume_id, {}).get(number)

    async def at(self, volume_id: str, moment: float) -> StoredVolumeVersion | None:
        """See `VolumeStore`."""
        return next((one for one in self._newest_first(volume_id) if one.created_at <= moment), None)

    async def committed(self, volume_id: str, commit_id: str) -> StoredVolumeVersion | None:
        """See `VolumeStore`."""
        return next((one for one in self._newest_first(volume_id) if one.commit_id == commit_id), None)

    async def history(self, volume_id: str, limit: int, before: int | None = None) -> tuple[StoredVolumeVersion, ...]:
        """See `VolumeStore`."""
        found = self._newest_first(volume_id)
        return tuple(one for one in found if before is None or one.number < before)[:limit]

    def _newest_first(self, volume_id: str) -> list[StoredVolumeVersion]:
        return sorted(self._versions.get(volume_id, {}).values(), key=lambda one: -one.number)

    async def add(self, version: StoredVolumeVersion, nodes: Mapping[str, NewNode]) -> StoredVolumeVersion:
        """See `VolumeStore`."""
        known = await self.committed(version.volume_id, version.commit_id)
        if known is not None:
            return known
        if await self._assets.get(version.volume_id) is None:
            raise PlatformError(NOT_FOUND, f"volume {version.volume_id} was deleted")
        head = await self.head(version.volume_id)
        if version.number != head.number + 1:
            raise PlatformError(CONFLICT, f"volume {version.volume_id} has version {head.number} by now")
        if version.root and version.root not in {**self._nodes, **nodes}:
            raise PlatformError(NOT_FOUND, f"volume {version.volume_id}: {ROOT_GONE}")
        self._nodes |= nodes
        self._versions.setdefault(version.volume_id, {})[version.number] = version
        return version

    async def look(self, work: Callable[[Nodes], R]) -> R:
        """See `VolumeStore`."""
        nodes = MemoryNodes()
        nodes.made = dict(self._nodes)
        return work(nodes)

    async def forget(self, volume_id: str, numbers: frozenset[int]) -> int:
        """See `VolumeStore`."""
        versions = self._versions.get(volume_id, {})
        gone = [number for number in numbers - {max(versions, default=0)} if number in versions]
        for number in gone:
            del versions[number]
        return len(gone)

    async def roots(self) -> dict[tuple[str, int], str]:
        """See `VolumeStore`."""
        versions = [one for found in self._versions.values() for one in found.values()]
        return {(one.volume_id, one.number): one.root for one in versions}

    async def nodes(self) -> frozenset[str]:
        """See `VolumeStore`."""
        return frozenset(self._nodes)

    async def remove_nodes(self, names: frozenset[str]) -> frozenset[str]:
        """See `VolumeStore`."""
        named = {block for name in names & self._nodes.keys() for block in self._nodes.pop(name).blocks}
        return frozenset(named - self.blocks())

    async def get_retention(self, volume_id: str) -> VolumeRetention | None:
        """See `VolumeStore`."""
        return self._retentions.get(volume_id)

    async def put_retention(self, volume_id: str, retention: VolumeRetention) -> None:
        """See `VolumeStore`."""
        self._retentions[volume_id] = retention

    def blocks(self) -> frozenset[str]:
        """Every block that a node names."""
        return frozenset(block for node in self._nodes.values() for block in node.blocks)
