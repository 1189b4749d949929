"""Statements of schedules."""

from __future__ import annotations

import json
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import Connection

from squall.protocol.function import Schedule
from squall.protocol.records import from_wire, to_wire
from squall.server.model.schedule import StoredSchedule
from squall.server.store.schema import SCHEDULES
from squall.server.store.upsert import upsert

NAMES_MAX = 500
"""In one statement; databases allow some ten thousand."""


def put_schedules(connection: Connection, writes: Sequence[tuple[StoredSchedule, ...]]) -> list[None]:
    """See `Store.put_schedules`; several of them, in order."""
    # The last of each function is what remains; a statement may name a row once only.
    rows = {one.function_id: one for schedules in writes for one in schedules}
    if rows:
        upsert(connection, SCHEDULES, [_row_of(one) for one in rows.values()])
    return [None] * len(writes)


def forget_schedules(connection: Connection, requests: Sequence[frozenset[str]]) -> list[None]:
    """See `Store.forget_schedules`; several of them."""
    gone = sorted(frozenset().union(*requests))
    for start in range(0, len(gone), NAMES_MAX):
        connection.execute(sa.delete(SCHEDULES).where(SCHEDULES.c.function_id.in_(gone[start : start + NAMES_MAX])))
    return [None] * len(requests)


def list_schedules(connection: Connection) -> tuple[StoredSchedule, ...]:
    """See `Store`."""
    return tuple(
        StoredSchedule(**{**row, "schedule": from_wire(Schedule, json.loads(row["schedule"]))})
        for row in connection.execute(sa.select(SCHEDULES)).mappings()
    )


def _row_of(one: StoredSchedule) -> dict[str, object]:
    fields = {name: getattr(one, name) for name in StoredSchedule.__slots__}
    return {**fields, "schedule": json.dumps(to_wire(one.schedule))}
