"""Inputs of durable calls are kept in portions, as they came, and calls may grow.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ROWS_AT_ONCE = 200


def upgrade() -> None:
    """What there is of a call becomes its first portion, and it grows no more."""
    op.add_column("calls", sa.Column("is_growing", sa.Boolean, nullable=False, server_default=sa.false()))
    portions = op.create_table(
        "portions",
        sa.Column("call_id", sa.String, sa.ForeignKey("calls.call_id"), primary_key=True),
        sa.Column("first_index", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("function_id", sa.String, nullable=False),
        sa.Column("made_at", sa.Float, nullable=False),
        sa.Column("unfinished_count", sa.Integer, nullable=False),
        sa.Column("sizes", sa.Text, nullable=False),
        sa.Column("blobs", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    connection = op.get_bind()
    rows: list[dict[str, Any]] = []
    for row in _portions(connection):
        rows.append(row)
        if len(rows) >= ROWS_AT_ONCE:
            connection.execute(sa.insert(portions), rows)
            rows = []
    if rows:
        connection.execute(sa.insert(portions), rows)
    op.drop_table("inputs")
    op.drop_index("calls_waiting", "calls")
    is_unfinished = sa.text("unfinished_count > 0")
    op.create_index(
        "portions_waiting",
        "portions",
        ["function_id", "made_at", "call_id", "first_index"],
        sqlite_where=is_unfinished,
        postgresql_where=is_unfinished,
    )


def _portions(connection: sa.Connection) -> Iterator[dict[str, Any]]:
    query = sa.text(
        "SELECT c.call_id, c.function_id, c.created_at, c.unfinished_count, i.input_index, i.value, i.blob_sha256 "
        "FROM calls c JOIN inputs i ON i.call_id = c.call_id ORDER BY c.call_id, i.input_index"
    )
    # Read as it is written: the values of all calls of a week may be more than fits in memory.
    found = connection.execute(query, execution_options={"stream_results": True})
    for _, group in groupby(found, key=lambda row: row[0]):
        inputs = list(group)
        call_id, function_id, made_at, unfinished_count = inputs[0][:4]
        yield {
            "call_id": call_id,
            "first_index": 0,
            "function_id": function_id,
            "made_at": made_at,
            "unfinished_count": unfinished_count,
            "sizes": json.dumps([-1 if row[6] else len(row[5]) for row in inputs]),
            "blobs": json.dumps({str(row[4]): row[6] for row in inputs if row[6]}),
            "value": b"".join(bytes(row[5]) for row in inputs),
        }
