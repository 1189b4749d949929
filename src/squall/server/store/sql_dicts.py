"""What is in dicts, in the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.asset import DICT
from squall.protocol.errors import CONFLICT, PlatformError
from squall.server.model.dict import DictWrite, EntryKey, StoredEntry, Taking
from squall.server.store import sql_answers, sql_assets
from squall.server.store.database import Database
from squall.server.store.many import for_rows, present_together
from squall.server.store.schema import ASSETS, DICT_ENTRIES
from squall.server.store.sql_answers import Answer, Asked
from squall.server.store.upsert import upsert, upsert_if

_KEYS = (DICT_ENTRIES.c.dict_id, DICT_ENTRIES.c.key_hash)
_TYPES = {"given_dict": DICT_ENTRIES.c.dict_id.type, "given_key": DICT_ENTRIES.c.key_hash.type}
_CONTENT = (DICT_ENTRIES.c.key, DICT_ENTRIES.c.value, DICT_ENTRIES.c.blob_sha256, DICT_ENTRIES.c.used_at)


class SqlDicts:
    """See `DictStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, write: DictWrite) -> bool:
        """See `DictStore`."""
        size_bytes = sum(len(entry.key) + len(entry.value) for entry in write.entries)
        self._database.check_room(f"cannot put entries into {write.dict_id}", size_bytes)
        is_put: bool = await self._database.write(_put, write, is_waiting=False)
        return is_put

    async def get(self, key: EntryKey) -> StoredEntry | None:
        """See `DictStore`."""
        query = sa.select(*_CONTENT).where(_KEYS[0] == sql_assets.content_of(key.dict_id), _KEYS[1] == key.key_hash)
        row = await self._database.read(lambda connection: connection.execute(query).first())
        return _entry_of(row) if row is not None else None

    async def pop(self, taking: Taking) -> StoredEntry | None:
        """See `DictStore`."""
        taken: StoredEntry | None = await self._database.write(_pop, taking, is_waiting=False)
        return taken

    async def clear(self, dict_id: str, request_id: str, now: float) -> None:
        """See `DictStore`."""
        await self._database.write(_clear, (Asked(dict_id, request_id), now), is_waiting=False)

    async def count(self, dict_id: str, limit: int) -> int:
        """See `DictStore`."""
        some = sa.select(_KEYS[1]).where(_KEYS[0] == sql_assets.content_of(dict_id)).limit(limit).subquery()
        query = sa.select(sa.func.count()).select_from(some)
        return int(await self._database.read(lambda connection: connection.execute(query).scalar_one()))

    async def page(
        self, dict_id: str, after: bytes, limit: int, bytes_max: int, *, has_values: bool
    ) -> tuple[StoredEntry, ...]:
        """See `DictStore`."""
        return await self._database.read(
            lambda connection: _page(connection, dict_id, after, limit, bytes_max, has_values)
        )

    async def use(self, used: Mapping[EntryKey, float]) -> None:
        """See `DictStore`."""
        await self._database.write(_use, used, is_waiting=False)

    async def expire(self, before: float, limit: int) -> tuple[EntryKey, ...]:
        """See `DictStore`."""
        expired: tuple[EntryKey, ...] = await self._database.write(_expire, (before, limit))
        return expired

    async def forget_answers(self, before: float) -> None:
        """See `DictStore`."""
        await self._database.write(sql_answers.forget_before, before)


def live_blobs(connection: Connection) -> frozenset[str]:
    """Those that an entry names."""
    column = DICT_ENTRIES.c.blob_sha256
    return frozenset(connection.execute(sa.select(column).where(column != "")).scalars())


def _entry_of(row: Any) -> StoredEntry:
    return StoredEntry(bytes(row.key), bytes(row.value), row.blob_sha256, row.used_at)


def _put(connection: Connection, writes: Sequence[DictWrite]) -> list[bool | PlatformError]:
    if len(writes) == 1 and len(writes[0].entries) == 1 and not writes[0].is_new_only:
        # Most puts, most of the time.
        (write,) = writes
        row = _row(write, write.dict_id, write.entries[0])
        is_there = upsert_if(connection, DICT_ENTRIES, row, ASSETS.c.asset_id, named="dict_id", by=ASSETS.c.content_id)
        return [True if is_there else sql_assets.missing(write.dict_id)]
    contents = sql_assets.contents(connection, {write.dict_id for write in writes})
    looked_at = {
        EntryKey(contents[write.dict_id], write.entries[0].key_hash)
        for write in writes
        if write.is_new_only and write.dict_id in contents
    }
    put_ids = _put_ids(connection, looked_at)
    rows: dict[EntryKey, dict[str, Any]] = {}
    results: list[bool | PlatformError] = []
    for write in writes:
        content_id = contents.get(write.dict_id)
        if content_id is None:
            results.append(sql_assets.missing(write.dict_id))
            continue
        if write.is_new_only:
            put_id = put_ids.get(EntryKey(content_id, write.entries[0].key_hash))
            if put_id is not None:
                results.append(put_id == write.request_id)
                continue
        for entry in write.entries:
            key = EntryKey(content_id, entry.key_hash)
            put_ids[key] = write.request_id
            rows[key] = _row(write, content_id, entry)
        results.append(True)
    if rows:
        upsert(connection, DICT_ENTRIES, list(rows.values()))
    return results


def _row(write: DictWrite, content_id: str, entry: StoredEntry) -> dict[str, Any]:
    return {
        "dict_id": content_id,
        "key_hash": entry.key_hash,
        "put_id": write.request_id,
        "used_at": entry.used_at,
        "blob_sha256": entry.blob_sha256,
        "key": entry.key,
        "value": entry.value,
    }


def _put_ids(connection: Connection, keys: set[EntryKey]) -> dict[EntryKey, str]:
    query = sa.select(*_KEYS, DICT_ENTRIES.c.put_id)
    if len(keys) == 1:
        (one,) = keys
        rows: Iterable[Any] = connection.execute(query.where(_KEYS[0] == one.dict_id, _KEYS[1] == one.key_hash))
    else:
        rows = present_together(connection, query, _KEYS, keys)
    return {EntryKey(row.dict_id, bytes(row.key_hash)): row.put_id for row in rows}


def _pop(connection: Connection, takings: Sequence[Taking]) -> list[StoredEntry | PlatformError | None]:
    contents = sql_assets.contents(connection, {taking.dict_id for taking in takings})
    return [
        _pop_one(connection, contents[taking.dict_id], taking)
        if taking.dict_id in contents
        else sql_assets.missing(taking.dict_id)
        for taking in takings
    ]


def _pop_one(connection: Connection, content_id: str, taking: Taking) -> StoredEntry | PlatformError | None:
    asked = Asked(taking.dict_id, taking.request_id)
    before = sql_answers.answered(connection, [asked]).get(asked)
    if before is not None and not before.key:
        return PlatformError(CONFLICT, f"DictPop: request {taking.request_id} was for something else; use a new one")
    if before is not None:
        return StoredEntry(before.key, before.value, before.blob_sha256)
    sql_answers.forget(connection, [Asked(taking.dict_id, request_id) for request_id in taking.done])
    is_it = (_KEYS[0] == content_id) & (_KEYS[1] == taking.key_hash)
    row = connection.execute(sa.select(*_CONTENT).where(is_it)).first()
    if row is None:
        return None
    entry = _entry_of(row)
    connection.execute(sa.delete(DICT_ENTRIES).where(is_it))
    sql_answers.remember(connection, {asked: Answer(entry.key, entry.value, entry.blob_sha256)}, taking.now)
    return entry


def _clear(connection: Connection, requests: Sequence[tuple[Asked, float]]) -> list[PlatformError | None]:
    return [_clear_one(connection, asked, now) for asked, now in requests]


def _clear_one(connection: Connection, asked: Asked, now: float) -> PlatformError | None:
    content_id = sql_assets.contents(connection, {asked.asset_id}).get(asked.asset_id)
    if content_id is None:
        return sql_assets.missing(asked.asset_id)
    if not sql_answers.answered(connection, [asked]):
        sql_assets.clear(connection, DICT, asked.asset_id, content_id)
        sql_answers.remember(connection, {asked: Answer()}, now)
    return None


def _page(
    connection: Connection, dict_id: str, after: bytes, limit: int, bytes_max: int, has_values: bool
) -> tuple[StoredEntry, ...]:
    # Sizes first: both drivers may fetch all rows of an answer at once.
    size = sa.func.length(DICT_ENTRIES.c.key) + (sa.func.length(DICT_ENTRIES.c.value) if has_values else 0)
    those = (_KEYS[0] == sql_assets.content_of(dict_id)) & (_KEYS[1] > after)
    last, total_bytes = None, 0
    query = sa.select(_KEYS[1], size.label("size_bytes")).where(those).order_by(_KEYS[1]).limit(limit)
    for row in connection.execute(query).all():
        last, total_bytes = row.key_hash, total_bytes + row.size_bytes
        if total_bytes >= bytes_max:
            break
    if last is None:
        return ()
    value = DICT_ENTRIES.c.value if has_values else sa.literal(b"").label("value")
    columns = (DICT_ENTRIES.c.key, value, DICT_ENTRIES.c.blob_sha256, DICT_ENTRIES.c.used_at)
    query = sa.select(*columns).where(those, _KEYS[1] <= last).order_by(_KEYS[1])
    return tuple(map(_entry_of, connection.execute(query)))


def _use(connection: Connection, requests: Sequence[Mapping[EntryKey, float]]) -> list[None]:
    for used in requests:
        contents = sql_assets.contents(connection, {key.dict_id for key in used})
        for_rows(
            connection,
            lambda given: (
                sa.update(DICT_ENTRIES)
                .where(_KEYS[0] == given["given_dict"], _KEYS[1] == given["given_key"])
                .values(used_at=given["given_at"])
            ),
            {**_TYPES, "given_at": DICT_ENTRIES.c.used_at.type},
            [
                {"given_dict": contents[key.dict_id], "given_key": key.key_hash, "given_at": at}
                for key, at in used.items()
                if key.dict_id in contents
            ],
        )
    return [None] * len(requests)


def _expire(connection: Connection, requests: Sequence[tuple[float, int]]) -> list[tuple[EntryKey, ...]]:
    return [_expire_some(connection, before, limit) for before, limit in requests]


def _expire_some(connection: Connection, before: float, limit: int) -> tuple[EntryKey, ...]:
    query = sa.select(*_KEYS).where(DICT_ENTRIES.c.used_at < before).limit(limit)
    gone = tuple(EntryKey(row.dict_id, bytes(row.key_hash)) for row in connection.execute(query))
    for_rows(
        connection,
        lambda given: sa.delete(DICT_ENTRIES).where(_KEYS[0] == given["given_dict"], _KEYS[1] == given["given_key"]),
        _TYPES,
        [{"given_dict": key.dict_id, "given_key": key.key_hash} for key in gone],
    )
    return tuple(EntryKey(sql_assets.owner_of(key.dict_id), key.key_hash) for key in gone)
