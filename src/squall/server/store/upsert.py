"""Insert or replace, in the words that both databases understand.

Written out rather than by the dialects' own `insert`: loading PostgreSQL's would cost every start on SQLite a tenth of
a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection


def upsert(connection: Connection, table: sa.Table, rows: Sequence[dict[str, Any]], *, but_not: str = "") -> None:
    """Insert rows, or replace what is there under their primary keys, all columns but `but_not`."""
    connection.execute(_statement(table, but_not), list(rows))


def upsert_if(
    connection: Connection,
    table: sa.Table,
    row: dict[str, Any],
    owner: sa.Column[Any],
    *,
    named: str,
    by: sa.Column[Any],
) -> bool:
    """The same of one row, where there is an owner with what the row has under `named`, which becomes what that has in
    the column `by`; whether there is."""
    return connection.execute(_statement_if(table, owner, named, by), row).rowcount == 1


@cache
def _statement_if(table: sa.Table, owner: sa.Column[Any], named: str, by: sa.Column[Any]) -> sa.TextClause:
    values = f"VALUES ({', '.join(f':{column.name}' for column in table.columns)})"
    given = ", ".join(by.name if column.name == named else f":{column.name}" for column in table.columns)
    chosen = f"SELECT {given} FROM {owner.table} WHERE {owner.name} = :{named}"
    return sa.text(_statement(table, "").text.replace(values, chosen))


@cache
def _statement(table: sa.Table, but_not: str) -> sa.TextClause:
    columns = [column.name for column in table.columns]
    keys = [column.name for column in table.primary_key]
    changed = [name for name in columns if name not in (*keys, but_not)]
    # Every name in it is one of schema.py; values are parameters.
    statement = (
        f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})"
        f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in changed)}"
    )
    return sa.text(statement)
