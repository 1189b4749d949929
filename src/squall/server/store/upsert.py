"""Insert or replace, in the words of both databases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite


def upsert(connection: Connection, table: sa.Table, rows: Sequence[dict[str, Any]], *, but_not: str = "") -> None:
    """Insert rows, or replace what is there under their primary keys, all columns but `but_not`."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    keys = [column.name for column in table.primary_key]
    changed = {
        column.name: statement.excluded[column.name] for column in table.columns if column.name not in (*keys, but_not)
    }
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), list(rows))
