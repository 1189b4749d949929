"""Assets in the database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.asset import DICT, QUEUE, SECRET, VOLUME
from squall.protocol.errors import EXISTS, NOT_FOUND, PlatformError
from squall.server.model.asset import StoredAsset
from squall.server.store.database import Database
from squall.server.store.many import present
from squall.server.store.schema import (
    ASSET_ANSWERS,
    ASSET_GARBAGE,
    ASSETS,
    DICT_ENTRIES,
    QUEUE_ITEMS,
    QUEUE_PARTITIONS,
    QUEUES,
    SECRETS,
    VOLUME_RETENTIONS,
    VOLUME_VERSIONS,
)
from squall.server.store.upsert import upsert

CONTENTS: dict[str, tuple[sa.Column[str], ...]] = {
    DICT: (DICT_ENTRIES.c.dict_id, ASSET_ANSWERS.c.asset_id),
    QUEUE: (QUEUE_ITEMS.c.queue_id, QUEUE_PARTITIONS.c.queue_id, QUEUES.c.queue_id, ASSET_ANSWERS.c.asset_id),
    SECRET: (SECRETS.c.secret_id,),
    VOLUME: (VOLUME_VERSIONS.c.volume_id, VOLUME_RETENTIONS.c.volume_id),
}
"""Of each kind the columns that say whose a row is, of all tables that hold what is in assets of that kind."""

_CLEARED = "cleared "
"""In front of the kind of an asset that lives on: what it had is garbage, and what it remembers to have done is not."""


class SqlAssets:
    """See `AssetStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, asset: StoredAsset) -> StoredAsset:
        """See `AssetStore`."""
        kept: StoredAsset = await self._database.write(_put, asset)
        return kept

    async def get(self, asset_id: str) -> StoredAsset | None:
        """See `AssetStore`."""
        return await self._database.read(lambda connection: _one(connection, ASSETS.c.asset_id == asset_id))

    async def find(self, kind: str, environment: str, name: str) -> StoredAsset | None:
        """See `AssetStore`."""
        return await self._database.read(lambda connection: _one(connection, _is_called(kind, environment, name)))

    async def names(self, kind: str, environment: str, limit: int) -> tuple[str, ...]:
        """See `AssetStore`."""
        is_it = _is_in(kind, environment)
        query = sa.select(ASSETS.c.name).where(is_it).order_by(ASSETS.c.created_at.desc()).limit(limit)
        return tuple(await self._database.read(lambda connection: connection.execute(query).scalars().all()))

    async def list(
        self, kind: str, environment: str, limit: int, before: tuple[float, str] | None = None
    ) -> tuple[StoredAsset, ...]:
        """See `AssetStore`."""
        query = sa.select(ASSETS).where(_is_in(kind, environment))
        if before is not None:
            query = query.where(sa.tuple_(ASSETS.c.created_at, ASSETS.c.asset_id) < before)
        return await self._all(query.order_by(ASSETS.c.created_at.desc(), ASSETS.c.asset_id.desc()).limit(limit))

    async def owned(self) -> tuple[StoredAsset, ...]:
        """See `AssetStore`."""
        return await self._all(sa.select(ASSETS).where(ASSETS.c.owner != ""))

    async def rename(self, asset_id: str, name: str) -> StoredAsset:
        """See `AssetStore`."""
        renamed: StoredAsset = await self._database.write(_rename, (asset_id, name))
        return renamed

    async def delete(self, asset_ids: frozenset[str]) -> None:
        """See `AssetStore`."""
        await self._database.write(_delete, asset_ids)

    async def delete_of(self, owner: str) -> frozenset[str]:
        """See `AssetStore`."""
        gone: frozenset[str] = await self._database.write(_delete_of, owner)
        return gone

    async def delete_in(self, environment: str) -> int:
        """See `AssetStore`."""
        count: int = await self._database.write(_delete_in, environment)
        return count

    async def purge(self, limit: int) -> bool:
        """See `AssetStore`."""
        has_more: bool = await self._database.write(_purge, limit)
        return has_more

    async def _all(self, query: sa.Select[Any]) -> tuple[StoredAsset, ...]:
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return tuple(map(_asset_of, rows))


_KNOWN = sa.select(ASSETS.c.asset_id, ASSETS.c.content_id)
_KNOWN_ONE = _KNOWN.where(ASSETS.c.asset_id == sa.bindparam("one"))


def contents(connection: Connection, asset_ids: Collection[str]) -> dict[str, str]:
    """Those of these assets that there are, with the id that what is in them is under."""
    if len(asset_ids) == 1:
        rows: Iterable[Any] = connection.execute(_KNOWN_ONE, {"one": next(iter(asset_ids))})
    else:
        rows = present(connection, _KNOWN, ASSETS.c.asset_id, asset_ids)
    return {row.asset_id: row.content_id for row in rows}


def content_of(asset_id: str) -> sa.ScalarSelect[str]:
    """The same of one, for a query; nothing is under that of an asset that is not there."""
    return sa.select(ASSETS.c.content_id).where(ASSETS.c.asset_id == asset_id).scalar_subquery()


def owner_of(content_id: str) -> str:
    """The asset that something is in, or was."""
    return content_id.partition(".")[0]


def clear(connection: Connection, kind: str, asset_id: str, content_id: str) -> None:
    """Nothing is in an asset from now on. What was in it is garbage, which is purged some at a time."""
    generation = int(content_id.partition(".")[2] or 0) + 1
    upsert(connection, ASSET_GARBAGE, [{"asset_id": content_id, "kind": f"{_CLEARED}{kind}"}])
    emptied = {"content_id": f"{asset_id}.{generation}"}
    connection.execute(sa.update(ASSETS).where(ASSETS.c.asset_id == asset_id).values(emptied))


def missing(asset_id: str) -> PlatformError:
    """What to answer where an asset is not there (any more)."""
    return PlatformError(NOT_FOUND, f"there is no {asset_id}; it was deleted")


def _asset_of(row: Mapping[Any, Any]) -> StoredAsset:
    known = {name: value for name, value in row.items() if name != "content_id"}
    return StoredAsset(**{**known, "name": row["name"] or ""})


def _is_in(kind: str, environment: str) -> sa.ColumnElement[bool]:
    return (ASSETS.c.kind == kind) & (ASSETS.c.environment == environment) & ASSETS.c.name.is_not(None)


def _is_called(kind: str, environment: str, name: str) -> sa.ColumnElement[bool]:
    return (ASSETS.c.kind == kind) & (ASSETS.c.environment == environment) & (ASSETS.c.name == name)


def _one(connection: Connection, is_it: sa.ColumnElement[bool]) -> StoredAsset | None:
    row = connection.execute(sa.select(ASSETS).where(is_it)).mappings().first()
    return _asset_of(row) if row is not None else None


def _put(connection: Connection, assets: Sequence[StoredAsset]) -> list[StoredAsset]:
    return [_put_one(connection, asset) for asset in assets]


def _put_one(connection: Connection, asset: StoredAsset) -> StoredAsset:
    is_it = ASSETS.c.asset_id == asset.asset_id
    if asset.name:
        is_it |= _is_called(asset.kind, asset.environment, asset.name)
    known = _one(connection, is_it)
    if known is not None:
        return known
    row = {
        "asset_id": asset.asset_id,
        "kind": asset.kind,
        "name": asset.name or None,
        "environment": asset.environment,
        "created_at": asset.created_at,
        "created_by": asset.created_by,
        "owner": asset.owner,
        "content_id": asset.asset_id,
    }
    connection.execute(sa.insert(ASSETS), [row])
    return asset


def _rename(connection: Connection, requests: Sequence[tuple[str, str]]) -> list[StoredAsset | PlatformError]:
    return [_rename_one(connection, asset_id, name) for asset_id, name in requests]


def _rename_one(connection: Connection, asset_id: str, name: str) -> StoredAsset:
    asset = _one(connection, ASSETS.c.asset_id == asset_id)
    if asset is None:
        raise PlatformError(NOT_FOUND, f"no asset {asset_id}")
    other = _one(connection, _is_called(asset.kind, asset.environment, name))
    if other is not None and other.asset_id != asset_id:
        raise PlatformError(EXISTS, f"there is a {asset.kind} {name!r} already")
    connection.execute(sa.update(ASSETS).where(ASSETS.c.asset_id == asset_id).values(name=name))
    renamed = _one(connection, ASSETS.c.asset_id == asset_id)
    assert renamed is not None
    return renamed


def _delete(connection: Connection, requests: Sequence[frozenset[str]]) -> list[int]:
    return [len(_delete_those(connection, ASSETS.c.asset_id.in_(sorted(asset_ids)))) for asset_ids in requests]


def _delete_of(connection: Connection, owners: Sequence[str]) -> list[frozenset[str]]:
    return [frozenset(_delete_those(connection, ASSETS.c.owner == owner)) if owner else frozenset() for owner in owners]


def _delete_in(connection: Connection, environments: Sequence[str]) -> list[int]:
    return [
        sum(map(bool, _delete_those(connection, ASSETS.c.environment == environment).values()))
        for environment in environments
    ]


def _delete_those(connection: Connection, are_they: sa.ColumnElement[bool]) -> dict[str, str | None]:
    """Names by id."""
    columns = (ASSETS.c.asset_id, ASSETS.c.content_id, ASSETS.c.kind, ASSETS.c.name)
    gone = connection.execute(sa.select(*columns).where(are_they)).all()
    connection.execute(sa.delete(ASSETS).where(are_they))
    kinds = {one_id: one.kind for one in gone for one_id in (one.asset_id, one.content_id)}
    if kinds:
        # What was cleared out of one under its id is garbage already.
        rows = [{"asset_id": one_id, "kind": kind} for one_id, kind in kinds.items()]
        upsert(connection, ASSET_GARBAGE, rows)
    return {one.asset_id: one.name for one in gone}


def _purge(connection: Connection, limits: Sequence[int]) -> list[bool]:
    return [_purge_some(connection, limit) for limit in limits]


def _purge_some(connection: Connection, limit: int) -> bool:
    for asset_id, kind in connection.execute(sa.select(ASSET_GARBAGE).limit(limit)).all():
        columns = CONTENTS.get(kind.removeprefix(_CLEARED), ())
        for column in columns:
            if kind.startswith(_CLEARED) and column is ASSET_ANSWERS.c.asset_id:
                continue
            limit -= _purge_rows(connection, column, asset_id, limit)
            if limit <= 0:
                return True
        connection.execute(sa.delete(ASSET_GARBAGE).where(ASSET_GARBAGE.c.asset_id == asset_id))
        limit -= 1
        if limit <= 0:
            return True
    return False


def _purge_rows(connection: Connection, column: sa.Column[str], asset_id: str, limit: int) -> int:
    keys = list(column.table.primary_key)
    some = sa.select(*keys).where(column == asset_id).limit(limit)
    return connection.execute(sa.delete(column.table).where(sa.tuple_(*keys).in_(some))).rowcount
