"""Versions of volumes, and the nodes that they share, in the database."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.errors import CONFLICT, NOT_FOUND, PlatformError
from squall.protocol.records import from_wire, to_wire
from squall.protocol.volume import VolumeRetention
from squall.server.model.volume import ROOT_GONE, NewNode, Nodes, StoredVolumeVersion
from squall.server.store.batches import batches
from squall.server.store.database import Database
from squall.server.store.many import insert_rows
from squall.server.store.schema import ASSETS, VOLUME_NODE_BLOCKS, VOLUME_NODES, VOLUME_RETENTIONS, VOLUME_VERSIONS
from squall.server.store.upsert import upsert

R = TypeVar("R")

NODES_KEPT = 4_096
"""Nodes that one look has in memory, the last read ones: a walk reads each once, a path the same few again."""
LEVEL = 1
"""Of compression: names and times shrink, hashes do not."""


class SqlVolumes:
    """See `VolumeStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def head(self, volume_id: str) -> StoredVolumeVersion:
        """See `VolumeStore`."""
        return await self._database.read(lambda connection: _head(connection, volume_id))

    async def get(self, volume_id: str, number: int) -> StoredVolumeVersion | None:
        """See `VolumeStore`."""
        return await self._one(_is_of(volume_id) & (VOLUME_VERSIONS.c.number == number))

    async def at(self, volume_id: str, moment: float) -> StoredVolumeVersion | None:
        """See `VolumeStore`."""
        return await self._one(_is_of(volume_id) & (VOLUME_VERSIONS.c.created_at <= moment))

    async def committed(self, volume_id: str, commit_id: str) -> StoredVolumeVersion | None:
        """See `VolumeStore`."""
        return await self._one(_is_of(volume_id) & (VOLUME_VERSIONS.c.commit_id == commit_id))

    async def history(self, volume_id: str, limit: int, before: int | None = None) -> tuple[StoredVolumeVersion, ...]:
        """See `VolumeStore`."""
        is_it = _is_of(volume_id)
        if before is not None:
            is_it &= VOLUME_VERSIONS.c.number < before
        query = _newest_first(is_it).limit(limit)
        rows = await self._database.read(lambda connection: connection.execute(query).mappings().all())
        return tuple(StoredVolumeVersion(**row) for row in rows)

    async def add(self, version: StoredVolumeVersion, nodes: Mapping[str, NewNode]) -> StoredVolumeVersion:
        """See `VolumeStore`."""
        # Compressed before it is this one's turn to write.
        rows = await self._database.aside(lambda: _rows_of(nodes))
        size_bytes = sum(len(row["data"]) for row in rows)
        self._database.check_room(f"cannot keep a version of volume {version.volume_id}", size_bytes)
        blocks = [
            {"node_sha256": sha256, "block_sha256": block} for sha256, node in nodes.items() for block in node.blocks
        ]
        kept: StoredVolumeVersion = await self._database.write(_add, (version, rows, blocks))
        return kept

    async def look(self, work: Callable[[Nodes], R]) -> R:
        """See `VolumeStore`."""
        return await self._database.walk(lambda connection: work(_SqlNodes(connection)))

    async def forget(self, volume_id: str, numbers: frozenset[int]) -> int:
        """See `VolumeStore`."""
        count: int = await self._database.write(_forget, (volume_id, numbers))
        return count

    async def roots(self) -> dict[tuple[str, int], str]:
        """See `VolumeStore`."""
        query = sa.select(VOLUME_VERSIONS.c.volume_id, VOLUME_VERSIONS.c.number, VOLUME_VERSIONS.c.root)
        rows = await self._database.walk(lambda connection: connection.execute(query).all())
        return {(volume_id, number): root for volume_id, number, root in rows}

    async def nodes(self) -> frozenset[str]:
        """See `VolumeStore`."""
        query = sa.select(VOLUME_NODES.c.sha256)
        return frozenset(await self._database.walk(lambda connection: connection.execute(query).scalars().all()))

    async def remove_nodes(self, names: frozenset[str]) -> frozenset[str]:
        """See `VolumeStore`."""
        unnamed: frozenset[str] = await self._database.write(_remove_nodes, sorted(names))
        return unnamed

    async def get_retention(self, volume_id: str) -> VolumeRetention | None:
        """See `VolumeStore`."""
        query = sa.select(VOLUME_RETENTIONS.c.retention).where(VOLUME_RETENTIONS.c.volume_id == volume_id)
        text = await self._database.read(lambda connection: connection.execute(query).scalar())
        return from_wire(VolumeRetention, json.loads(text)) if text is not None else None

    async def put_retention(self, volume_id: str, retention: VolumeRetention) -> None:
        """See `VolumeStore`."""
        row = {"volume_id": volume_id, "retention": json.dumps(to_wire(retention))}
        await self._database.write(_put_retentions, row)

    async def _one(self, is_it: sa.ColumnElement[bool]) -> StoredVolumeVersion | None:
        return await self._database.read(lambda connection: _one(connection, is_it))


class _SqlNodes:
    """Nodes as one connection sees them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._kept: dict[str, bytes] = {}

    def get(self, sha256: str) -> bytes:
        """See `Nodes`."""
        data = self._kept.get(sha256)
        if data is None:
            query = sa.select(VOLUME_NODES.c.data).where(VOLUME_NODES.c.sha256 == sha256)
            packed = self._connection.execute(query).scalar()
            if packed is None:
                raise KeyError(sha256)
            data = self._kept[sha256] = zlib.decompress(packed)
            if len(self._kept) > NODES_KEPT:
                del self._kept[next(iter(self._kept))]
        return data

    def put(self, data: bytes, blocks: Collection[str] = ()) -> str:
        """Nodes come with versions."""
        raise AssertionError("nodes are put with the version that brings them")


def live_blocks(connection: Connection) -> Iterable[str]:
    """Every block that a node names."""
    return connection.execute(sa.select(VOLUME_NODE_BLOCKS.c.block_sha256).distinct()).scalars()


def _is_of(volume_id: str) -> sa.ColumnElement[bool]:
    return VOLUME_VERSIONS.c.volume_id == volume_id


def _newest_first(is_it: sa.ColumnElement[bool]) -> sa.Select[Any]:
    return sa.select(VOLUME_VERSIONS).where(is_it).order_by(VOLUME_VERSIONS.c.number.desc())


def _one(connection: Connection, is_it: sa.ColumnElement[bool]) -> StoredVolumeVersion | None:
    row = connection.execute(_newest_first(is_it).limit(1)).mappings().first()
    return StoredVolumeVersion(**row) if row is not None else None


def _head(connection: Connection, volume_id: str) -> StoredVolumeVersion:
    return _one(connection, _is_of(volume_id)) or StoredVolumeVersion(volume_id)


def _rows_of(nodes: Mapping[str, NewNode]) -> list[dict[str, Any]]:
    return [{"sha256": sha256, "data": zlib.compress(node.data, LEVEL)} for sha256, node in nodes.items()]


Addition = tuple[StoredVolumeVersion, list[dict[str, Any]], list[dict[str, Any]]]


def _add(connection: Connection, additions: Sequence[Addition]) -> list[StoredVolumeVersion]:
    return [_add_one(connection, *one) for one in additions]


def _add_one(
    connection: Connection, version: StoredVolumeVersion, nodes: list[dict[str, Any]], blocks: list[dict[str, Any]]
) -> StoredVolumeVersion:
    is_it = _is_of(version.volume_id) & (VOLUME_VERSIONS.c.commit_id == version.commit_id)
    known = _one(connection, is_it)
    if known is not None:
        return known
    if connection.execute(sa.select(ASSETS.c.asset_id).where(ASSETS.c.asset_id == version.volume_id)).scalar() is None:
        raise PlatformError(NOT_FOUND, f"volume {version.volume_id} was deleted")
    head = _head(connection, version.volume_id)
    if version.number != head.number + 1:
        raise PlatformError(CONFLICT, f"volume {version.volume_id} has version {head.number} by now")
    if nodes:
        upsert(connection, VOLUME_NODES, nodes)
    is_root = VOLUME_NODES.c.sha256 == version.root
    if version.root and connection.execute(sa.select(VOLUME_NODES.c.sha256).where(is_root)).scalar() is None:
        raise PlatformError(NOT_FOUND, f"volume {version.volume_id}: {ROOT_GONE}")
    known_blocks = _known_blocks(connection, {row["node_sha256"] for row in blocks})
    new = [row for row in blocks if (row["node_sha256"], row["block_sha256"]) not in known_blocks]
    insert_rows(connection, VOLUME_NODE_BLOCKS, new)
    connection.execute(sa.insert(VOLUME_VERSIONS), [asdict(version)])
    return version


def _known_blocks(connection: Connection, nodes: Collection[str]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for some in batches(sorted(nodes)):
        is_it = VOLUME_NODE_BLOCKS.c.node_sha256.in_(some)
        query = sa.select(VOLUME_NODE_BLOCKS.c.node_sha256, VOLUME_NODE_BLOCKS.c.block_sha256).where(is_it)
        found.update((node, block) for node, block in connection.execute(query))
    return found


def _forget(connection: Connection, requests: Sequence[tuple[str, frozenset[int]]]) -> list[int]:
    return [_forget_some(connection, volume_id, numbers) for volume_id, numbers in requests]


def _forget_some(connection: Connection, volume_id: str, numbers: frozenset[int]) -> int:
    head = _head(connection, volume_id).number
    count = 0
    for some in batches(sorted(numbers - {head})):
        is_it = _is_of(volume_id) & VOLUME_VERSIONS.c.number.in_(some)
        count += connection.execute(sa.delete(VOLUME_VERSIONS).where(is_it)).rowcount
    return count


def _remove_nodes(connection: Connection, requests: Sequence[list[str]]) -> list[frozenset[str]]:
    return [_remove_some(connection, names) for names in requests]


def _remove_some(connection: Connection, names: list[str]) -> frozenset[str]:
    named: set[str] = set()
    for some in batches(names):
        are_theirs = VOLUME_NODE_BLOCKS.c.node_sha256.in_(some)
        named.update(connection.execute(sa.select(VOLUME_NODE_BLOCKS.c.block_sha256).where(are_theirs)).scalars())
        connection.execute(sa.delete(VOLUME_NODE_BLOCKS).where(are_theirs))
        connection.execute(sa.delete(VOLUME_NODES).where(VOLUME_NODES.c.sha256.in_(some)))
    for some in batches(sorted(named)):
        is_named = VOLUME_NODE_BLOCKS.c.block_sha256.in_(some)
        named.difference_update(
            connection.execute(sa.select(VOLUME_NODE_BLOCKS.c.block_sha256).where(is_named)).scalars()
        )
    return frozenset(named)


def _put_retentions(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[None]:
    for row in rows:
        upsert(connection, VOLUME_RETENTIONS, [row])
    return [None] * len(rows)
