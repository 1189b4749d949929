"""Statements of mounts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.app import STOPPED
from squall.protocol.function import FunctionSpec
from squall.protocol.records import from_wire
from squall.server.store import sql_versions
from squall.server.store.schema import APPS, FUNCTIONS, MOUNTS
from squall.server.store.upsert import upsert

PRUNED_MAX = 500
"""At once, so that other writes need not wait long."""


def put_mounts(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[None]:
    """See `Store.put_mount`; several of them."""
    upsert(connection, MOUNTS, rows)
    return [None] * len(rows)


def use_mounts(connection: Connection, uses: Sequence[tuple[frozenset[str], float]]) -> list[frozenset[str]]:
    """See `Store.use_mounts`; of each, those that there are not."""
    return [_use(connection, mount_ids, now) for mount_ids, now in uses]


def _use(connection: Connection, mount_ids: frozenset[str], now: float) -> frozenset[str]:
    names, missing = sorted(mount_ids), set(mount_ids)
    for start in range(0, len(names), PRUNED_MAX):
        is_it = MOUNTS.c.mount_id.in_(names[start : start + PRUNED_MAX])
        connection.execute(sa.update(MOUNTS).where(is_it).values(used_at=now))
        missing.difference_update(connection.execute(sa.select(MOUNTS.c.mount_id).where(is_it)).scalars())
    return frozenset(missing)


def unnamed(connection: Connection, before: float) -> list[str]:
    """Mounts that were used before that time, and that no function or version of an app names that has not stopped."""
    old = set(connection.execute(sa.select(MOUNTS.c.mount_id).where(MOUNTS.c.used_at < before)).scalars())
    if old:
        is_living = (FUNCTIONS.c.app_id == APPS.c.app_id) & (APPS.c.state != STOPPED)
        for spec in connection.execute(sa.select(FUNCTIONS.c.spec).where(is_living)).scalars():
            old.difference_update(mount.mount_id for mount in from_wire(FunctionSpec, json.loads(spec)).mounts)
        old.difference_update(sql_versions.named_mounts(connection))
    return sorted(old)


def prune(connection: Connection, requests: Sequence[tuple[list[str], float]]) -> list[int]:
    """Forget those of these mounts that are still unused since that time; how many."""
    return [
        connection.execute(
            sa.delete(MOUNTS).where(MOUNTS.c.mount_id.in_(mount_ids) & (MOUNTS.c.used_at < before))
        ).rowcount
        for mount_ids, before in requests
    ]
