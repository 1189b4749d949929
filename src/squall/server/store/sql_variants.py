"""Statements of variants of functions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.function import FunctionOptions
from squall.protocol.records import from_wire, to_wire
from squall.server.model.variant import StoredVariant
from squall.server.store import sql_scaling
from squall.server.store.schema import APPS, CALLS, VARIANTS
from squall.server.store.upsert import upsert

NAMES_MAX = 500
FORGOTTEN_MAX = 500
"""At once, so that other writes need not wait long."""


def put_variants(connection: Connection, variants: Sequence[StoredVariant]) -> list[None]:
    """See `Store.put_variant`; several of them."""
    last = {one.function_id: one for one in variants}
    upsert(connection, VARIANTS, [_row(one) for one in last.values()])
    return [None] * len(variants)


def _row(one: StoredVariant) -> dict[str, Any]:
    return {
        "function_id": one.function_id,
        "base_id": one.base_id,
        "app_id": one.app_id,
        "parameters": one.parameters,
        "options": "" if one.options is None else json.dumps(to_wire(one.options)),
        "version": one.version,
        "used_at": one.used_at,
    }


def get_variants(connection: Connection, function_ids: Iterable[str]) -> tuple[StoredVariant, ...]:
    """See `Store.get_variants`."""
    found: list[StoredVariant] = []
    ids = sorted(set(function_ids))
    for start in range(0, len(ids), NAMES_MAX):
        query = sa.select(VARIANTS).where(VARIANTS.c.function_id.in_(ids[start : start + NAMES_MAX]))
        found += [variant_of(row) for row in connection.execute(query).mappings()]
    return tuple(found)


def list_variants(connection: Connection, base_id: str, limit: int) -> tuple[StoredVariant, ...]:
    """See `Store`."""
    query = sa.select(VARIANTS).where(VARIANTS.c.base_id == base_id)
    query = query.order_by(VARIANTS.c.used_at.desc(), VARIANTS.c.function_id).limit(limit)
    return tuple(variant_of(row) for row in connection.execute(query).mappings())


def count_variants(connection: Connection, base_id: str) -> int:
    """See `Store`."""
    query = sa.select(sa.func.count()).select_from(VARIANTS).where(VARIANTS.c.base_id == base_id)
    return connection.execute(query).scalar_one()


def count_variants_below(connection: Connection, root_app_id: str) -> int:
    """See `Store`."""
    below = sa.select(APPS.c.app_id).where(APPS.c.root_app_id == root_app_id)
    is_it = (VARIANTS.c.app_id == root_app_id) | VARIANTS.c.app_id.in_(below)
    return connection.execute(sa.select(sa.func.count()).select_from(VARIANTS).where(is_it)).scalar_one()


def variant_of(row: Mapping[Any, Any]) -> StoredVariant:
    """A row as the store's own record."""
    options = from_wire(FunctionOptions, json.loads(row["options"])) if row["options"] else None
    return StoredVariant(
        row["function_id"], row["base_id"], row["app_id"], row["parameters"], options, row["version"], row["used_at"]
    )


def use_variants(connection: Connection, uses: Sequence[tuple[frozenset[str], float]]) -> list[None]:
    """See `Store.use_variants`; several of them."""
    for function_ids, now in uses:
        ids = sorted(function_ids)
        for start in range(0, len(ids), NAMES_MAX):
            is_it = VARIANTS.c.function_id.in_(ids[start : start + NAMES_MAX])
            connection.execute(sa.update(VARIANTS).where(is_it).values(used_at=now))
    return [None] * len(uses)


def forget_some(connection: Connection, befores: Sequence[float]) -> list[int]:
    """Part of `Store.forget_variants`: forget a bounded number; how many."""
    has_unfinished = sa.exists().where(
        (CALLS.c.function_id == VARIANTS.c.function_id) & ((CALLS.c.unfinished_count > 0) | CALLS.c.is_growing)
    )
    counts = []
    for before in befores:
        is_old = (VARIANTS.c.used_at < before) & ~has_unfinished
        ids = list(connection.execute(sa.select(VARIANTS.c.function_id).where(is_old).limit(FORGOTTEN_MAX)).scalars())
        connection.execute(sa.delete(VARIANTS).where(VARIANTS.c.function_id.in_(ids)))
        sql_scaling.reset(connection, ids)
        counts.append(len(ids))
    return counts


def pinned_versions(connection: Connection, app_id: str) -> set[int]:
    """The versions of an app that variants are held to."""
    query = sa.select(VARIANTS.c.version).where((VARIANTS.c.app_id == app_id) & (VARIANTS.c.version > 0)).distinct()
    return set(connection.execute(query).scalars())
