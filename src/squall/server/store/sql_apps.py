"""Statements of apps."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.app import STOPPED
from squall.server.model.store import StoredApp
from squall.server.store import sql_scaling
from squall.server.store.many import present
from squall.server.store.schema import APPS, ENVIRONMENTS, FUNCTIONS, VARIANTS, VERSIONS
from squall.server.store.upsert import upsert

FORGOTTEN_MAX = 500
"""Of one app's children at once, so that other writes need not wait long."""


def get_apps(connection: Connection, app_ids: Collection[str]) -> tuple[StoredApp, ...]:
    """See `Store`."""
    rows = present(connection, sa.select(APPS), APPS.c.app_id, app_ids)
    return tuple(app_of(row._mapping) for row in rows)


def app_of(row: Mapping[Any, Any]) -> StoredApp:
    """A row of the table as the store's own record."""
    return StoredApp(
        row["app_id"],
        row["name"],
        row["state"],
        row["created_at"],
        row["stopped_at"],
        json.loads(row["tags"]),
        row["environment"],
        tuple(json.loads(row["ancestors"])),
        row["created_by"],
        row["web_suffix"],
    )


def put_apps(connection: Connection, apps: Sequence[StoredApp]) -> list[None]:
    """See `Store.put_app`; several of them."""
    rows = [
        {
            "app_id": app.app_id,
            "name": app.name,
            "environment": app.environment,
            "state": app.state,
            "created_at": app.created_at,
            "stopped_at": app.stopped_at,
            "tags": json.dumps(app.tags),
            "ancestors": json.dumps(app.ancestors),
            "root_app_id": app.ancestors[0] if app.ancestors else "",
            "created_by": app.created_by,
            "web_suffix": app.web_suffix,
        }
        for app in apps
    ]
    upsert(connection, APPS, rows, but_not="created_at")
    return [None] * len(apps)


def set_app_states(connection: Connection, changes: Sequence[tuple[str, dict[str, Any]]]) -> list[bool]:
    """See `Store.set_app_state`; for each, whether there is such an app."""
    stopped = [app_id for app_id, values in changes if values["state"] == STOPPED]
    if stopped:
        connection.execute(sa.update(VERSIONS).where(VERSIONS.c.app_id.in_(stopped)).values(functions=b""))
    return [
        connection.execute(sa.update(APPS).where(APPS.c.app_id == app_id).values(values)).rowcount > 0
        for app_id, values in changes
    ]


def forget_children(connection: Connection, requests: Sequence[tuple[str, int]]) -> list[tuple[str, ...]]:
    """See `Store.forget_children`; several of them."""
    return [_forget(connection, root_app_id, keep) for root_app_id, keep in requests]


def _forget(connection: Connection, root_app_id: str, keep: int) -> tuple[str, ...]:
    is_it = (APPS.c.root_app_id == root_app_id) & (APPS.c.state == STOPPED)
    newest_first = sa.select(APPS.c.app_id).where(is_it).order_by(APPS.c.created_at.desc(), APPS.c.app_id.desc())
    gone = tuple(connection.execute(newest_first.offset(keep).limit(FORGOTTEN_MAX)).scalars())
    if gone:
        connection.execute(sa.delete(VARIANTS).where(VARIANTS.c.app_id.in_(gone)))
        sql_scaling.reset_apps(connection, gone)
        connection.execute(sa.delete(FUNCTIONS).where(FUNCTIONS.c.app_id.in_(gone)))
        connection.execute(sa.delete(APPS).where(APPS.c.app_id.in_(gone)))
    return gone


def put_environments(connection: Connection, rows: Sequence[dict[str, Any]]) -> list[None]:
    """See `Store.put_environment`; several of them."""
    known = set(connection.execute(sa.select(ENVIRONMENTS.c.name)).scalars())
    for row in rows:
        if row["name"] not in known:
            connection.execute(sa.insert(ENVIRONMENTS).values(row))
            known.add(row["name"])
    return [None] * len(rows)


def delete_environments(connection: Connection, names: Sequence[str]) -> list[None]:
    """See `Store.delete_environment`; several of them."""
    connection.execute(sa.delete(ENVIRONMENTS).where(ENVIRONMENTS.c.name.in_(names)))
    return [None] * len(names)
