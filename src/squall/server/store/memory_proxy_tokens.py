"""Proxy tokens in memory, for tests."""

from __future__ import annotations

from dataclasses import replace

from squall.server.model.proxy_token import StoredProxyToken


class MemoryProxyTokens:
    """See `ProxyTokenStore`."""

    def __init__(self) -> None:
        self._tokens: dict[str, StoredProxyToken] = {}

    async def put(self, token: StoredProxyToken) -> None:
        """See `ProxyTokenStore`."""
        self._tokens[token.token_id] = token

    async def list_all(self) -> tuple[StoredProxyToken, ...]:
        """See `ProxyTokenStore`."""
        return tuple(self._tokens.values())

    async def use(self, used_at: dict[str, float]) -> None:
        """See `ProxyTokenStore`."""
        for token_id, at in used_at.items():
            if token_id in self._tokens:
                self._tokens[token_id] = replace(self._tokens[token_id], last_used_at=at)

    async def delete(self, token_id: str) -> None:
        """See `ProxyTokenStore`."""
        self._tokens.pop(token_id, None)
