"""What is remembered of assets, and the contract of whatever remembers it.

What is in them has contracts of its own. Invariants as in `model/store.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredAsset:
    """One asset."""

    asset_id: str
    kind: str
    name: str = ""
    """Empty when it is ephemeral: then it has an owner."""
    environment: str = ""
    """As it is kept, as of apps."""
    created_at: float = 0.0
    created_by: str = ""
    owner: str = ""
    """The client that holds an ephemeral one: the app that it is limited to, a slash, its id."""


class AssetStore(Protocol):
    """Which assets there are. Raises as `Store`."""

    async def put(self, asset: StoredAsset) -> StoredAsset:
        """Keep an asset, unless there is one of its id, or of its kind, environment and name: that one is returned and
        stays as it is."""

    async def get(self, asset_id: str) -> StoredAsset | None:
        """One asset."""

    async def find(self, kind: str, environment: str, name: str) -> StoredAsset | None:
        """The asset of that name."""

    async def names(self, kind: str, environment: str, limit: int) -> tuple[str, ...]:
        """Names there are, in no order."""

    async def list(
        self, kind: str, environment: str, limit: int, before: tuple[float, str] | None = None
    ) -> tuple[StoredAsset, ...]:
        """Assets that have a name, newest first; with `before`, those that come after the asset that was made then and
        has that id."""

    async def owned(self) -> tuple[StoredAsset, ...]:
        """The ephemeral ones."""

    async def rename(self, asset_id: str, name: str) -> StoredAsset:
        """Give one another name.

        Raises PlatformError `not_found`; `exists` when another one of its kind and environment has it.
        """

    async def delete(self, asset_ids: frozenset[str]) -> None:
        """Forget these assets: nobody finds them any more. What is in them is still there, until it is purged."""

    async def delete_of(self, owner: str) -> frozenset[str]:
        """Forget the ephemeral ones that this owner has, and nobody else's; their ids."""

    async def delete_in(self, environment: str) -> int:
        """Forget all assets of an environment; how many had a name."""

    async def purge(self, limit: int) -> bool:
        """Remove some of what was in assets that are forgotten, about so many rows; whether there is more."""
