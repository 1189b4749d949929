"""What is remembered of proxy tokens, and the contract of whatever remembers it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StoredProxyToken:
    """One token; its secret is known to whoever made it only."""

    token_id: str
    secret_sha256: bytes = field(repr=False)
    name: str
    created_at: float
    created_by: str
    environment_ids: frozenset[str] | None = None
    """Of the environments whose web functions it opens, by id: one that is made anew under the name of another is not
    opened. None: of all."""
    last_used_at: float | None = None
    """When it opened something last."""


class ProxyTokenStore(Protocol):
    """All tokens, which are few. Raises as `Store`."""

    async def put(self, token: StoredProxyToken) -> None:
        """Keep it, in the place of one of its id."""

    async def list_all(self) -> tuple[StoredProxyToken, ...]:
        """In any order."""

    async def use(self, used_at: dict[str, float]) -> None:
        """Note when these opened something last; those that there are not any more are passed over."""

    async def delete(self, token_id: str) -> None:
        """Forget it, if it is there."""
