"""What is in secrets, in the database: encrypted before it comes here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.app import STOPPED
from squall.server.model.secret import SealedSecret
from squall.server.store import sql_versions
from squall.server.store.database import Database
from squall.server.store.schema import APPS, ASSETS, FUNCTIONS, SECRETS, VARIANTS

NAMED_MAX = 500
"""In one statement."""


class SqlSecrets:
    """See `SecretStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, secret: SealedSecret) -> SealedSecret:
        """See `SecretStore`."""
        kept: SealedSecret = await self._database.write(_put, secret)
        return kept

    async def get(self, secret_ids: frozenset[str]) -> tuple[SealedSecret, ...]:
        """See `SecretStore`."""
        return await self._all(
            sa.select(SECRETS).where(SECRETS.c.secret_id.in_(sorted(secret_ids))).order_by(SECRETS.c.secret_id)
        )

    async def replace(self, nonce: bytes, secret: SealedSecret) -> bool:
        """See `SecretStore`."""
        is_there: bool = await self._database.write(_replace, (nonce, secret))
        return is_there

    async def sealed_otherwise(self, key_id: str, after: str, limit: int) -> tuple[SealedSecret, ...]:
        """See `SecretStore`."""
        is_it = (SECRETS.c.key_id != key_id) & (SECRETS.c.secret_id > after)
        return await self._all(sa.select(SECRETS).where(is_it).order_by(SECRETS.c.secret_id).limit(limit))

    async def count_of(self, app_id: str) -> int:
        """See `SecretStore`."""
        query = sa.select(sa.func.count()).select_from(SECRETS).where(SECRETS.c.app_id == app_id)
        return await self._database.read(lambda connection: connection.execute(query).scalar_one())

    async def use(self, used_at: dict[str, float]) -> None:
        """See `SecretStore`."""
        await self._database.write(_use, used_at)

    async def delete(self, secret_id: str) -> None:
        """See `SecretStore`."""
        await self._database.write(_delete, ((secret_id,), None))

    async def prune(self, before: float) -> int:
        """See `SecretStore`."""
        # Found while others write: what is asked for again meanwhile is passed over by its time.
        gone = await self._database.read(lambda connection: _unneeded(connection, before))
        count = 0
        for start in range(0, len(gone), NAMED_MAX):
            count += await self._database.write(_delete, (tuple(gone[start : start + NAMED_MAX]), before))
        return count

    async def _all(self, query: sa.Select[Any]) -> tuple[SealedSecret, ...]:
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return tuple(map(_secret_of, rows))


def _secret_of(row: Mapping[Any, Any]) -> SealedSecret:
    return SealedSecret(**{**row, "names": tuple(json.loads(row["names"]))})


def _row(secret: SealedSecret) -> dict[str, Any]:
    return asdict(secret) | {"names": json.dumps(secret.names)}


def _put(connection: Connection, secrets: Sequence[SealedSecret]) -> list[SealedSecret]:
    return [_put_one(connection, secret) for secret in secrets]


def _put_one(connection: Connection, secret: SealedSecret) -> SealedSecret:
    is_it = SECRETS.c.secret_id == secret.secret_id
    if secret.app_id:
        is_it |= (SECRETS.c.app_id == secret.app_id) & (SECRETS.c.content_mark == secret.content_mark)
    row = connection.execute(sa.select(SECRETS).where(is_it)).mappings().first()
    if row is None:
        connection.execute(sa.insert(SECRETS), [_row(secret)])
        return secret
    known = _secret_of(row)
    kept_at = max(known.kept_at, secret.kept_at)
    connection.execute(sa.update(SECRETS).where(SECRETS.c.secret_id == known.secret_id).values(kept_at=kept_at))
    return replace(known, kept_at=kept_at)


def _replace(connection: Connection, requests: Sequence[tuple[bytes, SealedSecret]]) -> list[bool]:
    return [
        connection.execute(
            sa.update(SECRETS)
            .where((SECRETS.c.secret_id == secret.secret_id) & (SECRETS.c.nonce == nonce))
            .values(_row(secret))
        ).rowcount
        > 0
        for nonce, secret in requests
    ]


def _use(connection: Connection, requests: Sequence[dict[str, float]]) -> list[None]:
    for used_at in requests:
        for secret_id, at in used_at.items():
            connection.execute(sa.update(SECRETS).where(SECRETS.c.secret_id == secret_id).values(last_used_at=at))
    return [None] * len(requests)


def _delete(connection: Connection, requests: Sequence[tuple[tuple[str, ...], float | None]]) -> list[int]:
    counts = []
    for secret_ids, before in requests:
        is_it: sa.ColumnElement[bool] = SECRETS.c.secret_id.in_(secret_ids)
        if before is not None:
            is_it &= SECRETS.c.kept_at < before
        counts.append(connection.execute(sa.delete(SECRETS).where(is_it)).rowcount)
    return counts


def _unneeded(connection: Connection, before: float) -> list[str]:
    old = SECRETS.c.kept_at < before
    is_asset = sa.exists().where(ASSETS.c.asset_id == SECRETS.c.secret_id)
    gone = list(
        connection.execute(sa.select(SECRETS.c.secret_id).where(old & (SECRETS.c.app_id == "") & ~is_asset)).scalars()
    )
    by_app: dict[str, set[str]] = {}
    for app_id, secret_id in connection.execute(
        sa.select(SECRETS.c.app_id, SECRETS.c.secret_id).where(old & (SECRETS.c.app_id != ""))
    ):
        by_app.setdefault(app_id, set()).add(secret_id)
    for app_id, secret_ids in by_app.items():
        gone += secret_ids - _named(connection, app_id)
    return sorted(gone)


def _named(connection: Connection, app_id: str) -> set[str]:
    """What the functions of an app name, its variants, and its versions; nothing when it has stopped."""
    state = connection.execute(sa.select(APPS.c.state).where(APPS.c.app_id == app_id)).scalar()
    if state is None or state == STOPPED:
        return set()
    named: set[str] = set()
    specs = connection.execute(sa.select(FUNCTIONS.c.spec).where(FUNCTIONS.c.app_id == app_id)).scalars()
    options = connection.execute(sa.select(VARIANTS.c.options).where(VARIANTS.c.app_id == app_id)).scalars()
    for values in map(json.loads, filter(None, (*specs, *options))):
        named.update(values.get("secrets") or ())
        named.update(bucket["secret_id"] for bucket in values.get("buckets") or () if "secret_id" in bucket)
    return named | sql_versions.named_secrets(connection, app_id)
