"""Secrets in memory, for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from squall.server.model.secret import SealedSecret


class MemorySecrets:
    """See `SecretStore`.

    Args:
        is_needed: whether anything leads to a secret.
    """

    def __init__(self, is_needed: Callable[[SealedSecret], bool]) -> None:
        self._secrets: dict[str, SealedSecret] = {}
        self._is_needed = is_needed

    async def put(self, secret: SealedSecret) -> SealedSecret:
        """See `SecretStore`."""
        known = self._secrets.get(secret.secret_id)
        if known is None and secret.app_id:
            marks = {(one.app_id, one.content_mark): one for one in self._secrets.values()}
            known = marks.get((secret.app_id, secret.content_mark))
        kept = secret if known is None else replace(known, kept_at=max(known.kept_at, secret.kept_at))
        self._secrets[kept.secret_id] = kept
        return kept

    async def get(self, secret_ids: frozenset[str]) -> tuple[SealedSecret, ...]:
        """See `SecretStore`."""
        return tuple(self._secrets[one] for one in sorted(secret_ids) if one in self._secrets)

    async def replace(self, nonce: bytes, secret: SealedSecret) -> bool:
        """See `SecretStore`."""
        known = self._secrets.get(secret.secret_id)
        if known is None or known.nonce != nonce:
            return False
        self._secrets[secret.secret_id] = secret
        return True

    async def sealed_otherwise(self, key_id: str, after: str, limit: int) -> tuple[SealedSecret, ...]:
        """See `SecretStore`."""
        found = [one for name, one in sorted(self._secrets.items()) if name > after and one.key_id != key_id]
        return tuple(found[:limit])

    async def count_of(self, app_id: str) -> int:
        """See `SecretStore`."""
        return sum(one.app_id == app_id for one in self._secrets.values())

    async def use(self, used_at: dict[str, float]) -> None:
        """See `SecretStore`."""
        for secret_id, at in used_at.items():
            if secret_id in self._secrets:
                self._secrets[secret_id] = replace(self._secrets[secret_id], last_used_at=at)

    async def delete(self, secret_id: str) -> None:
        """See `SecretStore`."""
        self._secrets.pop(secret_id, None)

    def purge(self, asset_id: str) -> None:
        """What was in an asset goes."""
        self._secrets.pop(asset_id, None)

    async def prune(self, before: float) -> int:
        """See `SecretStore`."""
        gone = [one.secret_id for one in self._secrets.values() if one.kept_at < before and not self._is_needed(one)]
        for secret_id in gone:
            del self._secrets[secret_id]
        return len(gone)
