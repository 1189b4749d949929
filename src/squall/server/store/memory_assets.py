"""Assets in memory, for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from squall.protocol.errors import EXISTS, NOT_FOUND, PlatformError
from squall.server.model.asset import StoredAsset


class MemoryAssets:
    """See `AssetStore`."""

    def __init__(self) -> None:
        self._assets: dict[str, StoredAsset] = {}
        self.on_purge: list[Callable[[str], None]] = []
        """Told the id of each whose content is to go."""
        self._garbage: set[str] = set()

    async def put(self, asset: StoredAsset) -> StoredAsset:
        """See `AssetStore`."""
        named = await self.find(asset.kind, asset.environment, asset.name) if asset.name else None
        return self._assets.get(asset.asset_id) or named or self._assets.setdefault(asset.asset_id, asset)

    def has(self, asset_id: str) -> bool:
        """Whether there is this one."""
        return asset_id in self._assets

    async def get(self, asset_id: str) -> StoredAsset | None:
        """See `AssetStore`."""
        return self._assets.get(asset_id)

    async def find(self, kind: str, environment: str, name: str) -> StoredAsset | None:
        """See `AssetStore`."""
        return next((one for one in self._named(kind, environment) if one.name == name), None)

    async def names(self, kind: str, environment: str, limit: int) -> tuple[str, ...]:
        """See `AssetStore`."""
        return tuple(one.name for one in self._named(kind, environment))[:limit]

    async def list(
        self, kind: str, environment: str, limit: int, before: tuple[float, str] | None = None
    ) -> tuple[StoredAsset, ...]:
        """See `AssetStore`."""
        found = self._named(kind, environment)
        return tuple(one for one in found if before is None or (one.created_at, one.asset_id) < before)[:limit]

    def _named(self, kind: str, environment: str) -> tuple[StoredAsset, ...]:
        found = [
            one for one in self._assets.values() if one.name and (one.kind, one.environment) == (kind, environment)
        ]
        return tuple(sorted(found, key=lambda one: (one.created_at, one.asset_id), reverse=True))

    async def owned(self) -> tuple[StoredAsset, ...]:
        """See `AssetStore`."""
        return tuple(one for one in self._assets.values() if one.owner)

    async def rename(self, asset_id: str, name: str) -> StoredAsset:
        """See `AssetStore`."""
        asset = self._assets.get(asset_id)
        if asset is None:
            raise PlatformError(NOT_FOUND, f"no asset {asset_id}")
        other = await self.find(asset.kind, asset.environment, name)
        if other is not None and other is not asset:
            raise PlatformError(EXISTS, f"there is a {asset.kind} {name!r} already")
        self._assets[asset_id] = replace(asset, name=name)
        return self._assets[asset_id]

    async def delete(self, asset_ids: frozenset[str]) -> None:
        """See `AssetStore`."""
        self._garbage |= asset_ids & self._assets.keys()
        self._assets = {asset_id: one for asset_id, one in self._assets.items() if asset_id not in asset_ids}

    async def delete_of(self, owner: str) -> frozenset[str]:
        """See `AssetStore`."""
        gone = frozenset(one.asset_id for one in self._assets.values() if one.owner == owner != "")
        await self.delete(gone)
        return gone

    async def delete_in(self, environment: str) -> int:
        """See `AssetStore`."""
        gone = [one for one in self._assets.values() if one.environment == environment]
        await self.delete(frozenset(one.asset_id for one in gone))
        return sum(bool(one.name) for one in gone)

    async def purge(self, limit: int) -> bool:
        """See `AssetStore`."""
        for asset_id in self._garbage:
            for purge in self.on_purge:
                purge(asset_id)
        self._garbage.clear()
        return False
