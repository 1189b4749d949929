"""Statements of functions: an app's functions come all at once or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.errors import CONFLICT, NOT_FOUND, PlatformError
from squall.protocol.function import FunctionSpec
from squall.protocol.records import to_wire
from squall.server.store import sql_scaling
from squall.server.store.schema import APPS, FUNCTIONS
from squall.server.store.upsert import upsert


def put_functions(connection: Connection, writes: Sequence[tuple[FunctionSpec, ...]]) -> list[None]:
    """See `Store.put_functions`; several of them, in order."""
    for functions in writes:
        _put(connection, functions)
    return [None] * len(writes)


def _put(connection: Connection, functions: tuple[FunctionSpec, ...]) -> None:
    app_ids = {function.app_id for function in functions}
    known = set(connection.execute(sa.select(APPS.c.app_id).where(APPS.c.app_id.in_(app_ids))).scalars())
    if unknown := app_ids - known:
        raise PlatformError(NOT_FOUND, f"no app {min(unknown)}")
    query = sa.select(FUNCTIONS.c.app_id, FUNCTIONS.c.name, FUNCTIONS.c.function_id).where(
        FUNCTIONS.c.app_id.in_(app_ids)
    )
    names = {(app_id, name): function_id for app_id, name, function_id in connection.execute(query)}
    for function in functions:
        owner = names.setdefault((function.app_id, function.name), function.function_id)
        if owner != function.function_id:
            raise PlatformError(
                CONFLICT,
                f"cannot create function {function.name!r}: app {function.app_id} has one of that name already;"
                " give one of the two another name",
            )
    rows = [
        {
            "function_id": function.function_id,
            "app_id": function.app_id,
            "name": function.name,
            "blob_sha256": function.definition.blob_sha256,
            "spec": json.dumps(to_wire(function)),
            "pinned_version": function.version if function.is_pinned else 0,
        }
        for function in functions
    ]
    if rows:
        upsert(connection, FUNCTIONS, rows)
        sql_scaling.reset(connection, [function.function_id for function in functions])
