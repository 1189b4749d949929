"""Proxy tokens in the database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.server.model.proxy_token import StoredProxyToken
from squall.server.store.database import Database
from squall.server.store.schema import PROXY_TOKENS
from squall.server.store.upsert import upsert


class SqlProxyTokens:
    """See `ProxyTokenStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, token: StoredProxyToken) -> None:
        """See `ProxyTokenStore`."""
        await self._database.write(_put, token)

    async def list_all(self) -> tuple[StoredProxyToken, ...]:
        """See `ProxyTokenStore`."""
        query = sa.select(PROXY_TOKENS)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return tuple(map(_token_of, rows))

    async def use(self, used_at: dict[str, float]) -> None:
        """See `ProxyTokenStore`."""
        await self._database.write(_use, used_at)

    async def delete(self, token_id: str) -> None:
        """See `ProxyTokenStore`."""
        await self._database.write(_delete, token_id)


def _token_of(row: Mapping[Any, Any]) -> StoredProxyToken:
    ids = row["environment_ids"]
    return StoredProxyToken(**{**row, "environment_ids": None if ids is None else frozenset(json.loads(ids))})


def _put(connection: Connection, tokens: Sequence[StoredProxyToken]) -> list[None]:
    for token in tokens:
        ids = token.environment_ids
        row = asdict(token) | {"environment_ids": None if ids is None else json.dumps(sorted(ids))}
        upsert(connection, PROXY_TOKENS, [row])
    return [None] * len(tokens)


def _use(connection: Connection, requests: Sequence[dict[str, float]]) -> list[None]:
    for used_at in requests:
        for token_id, at in used_at.items():
            is_it = PROXY_TOKENS.c.token_id == token_id
            connection.execute(sa.update(PROXY_TOKENS).where(is_it).values(last_used_at=at))
    return [None] * len(requests)


def _delete(connection: Connection, token_ids: Sequence[str]) -> list[None]:
    connection.execute(sa.delete(PROXY_TOKENS).where(PROXY_TOKENS.c.token_id.in_(token_ids)))
    return [None] * len(token_ids)
