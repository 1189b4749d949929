"""Statements of what autoscalers go by instead of what the specs of their functions say."""

from __future__ import annotations

import json
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.function import Scaling
from squall.protocol.records import from_wire, to_wire
from squall.server.store.schema import SCALING
from squall.server.store.upsert import upsert

_IDS_MAX = 500
"""Of one statement: databases take only so many parameters."""


def set_scaling(connection: Connection, writes: Sequence[tuple[str, str, Scaling]]) -> list[None]:
    """See `Store.set_scaling`; several of them, in order."""
    for app_id, function_id, scaling in writes:
        row = {"function_id": function_id, "app_id": app_id, "scaling": json.dumps(to_wire(scaling))}
        upsert(connection, SCALING, [row])
    return [None] * len(writes)


def list_scaling(connection: Connection, app_id: str) -> dict[str, Scaling]:
    """See `Store.list_scaling`."""
    query = sa.select(SCALING.c.function_id, SCALING.c.scaling).where(SCALING.c.app_id == app_id)
    return {function_id: from_wire(Scaling, json.loads(text)) for function_id, text in connection.execute(query)}


def reset(connection: Connection, function_ids: Sequence[str]) -> None:
    """These go by their specs again."""
    for first in range(0, len(function_ids), _IDS_MAX):
        some = function_ids[first : first + _IDS_MAX]
        connection.execute(sa.delete(SCALING).where(SCALING.c.function_id.in_(some)))


def reset_apps(connection: Connection, app_ids: Sequence[str]) -> None:
    """All functions of these apps do, and their variants."""
    connection.execute(sa.delete(SCALING).where(SCALING.c.app_id.in_(app_ids)))
