"""Statements about many rows, as each database likes them.

SQLite runs one statement for each row, in this process. For PostgreSQL each is an exchange, so there the rows are
columns of a table that one statement reads (`unnest`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.types import TypeEngine

from squall.server.store.batches import batches, within

Row = Mapping[str, Any]
Given = Mapping[str, sa.ColumnElement[Any]]
"""What a row gives to a statement, by name."""

STATEMENT_BYTES = 8 * 2**20
"""Of values in one statement; the first row counts, however large."""
ROWS_MAX = 1_000


def insert_rows(connection: Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Insert rows; all have the same columns."""
    if not rows:
        return
    if not _is_postgres(connection):
        connection.execute(sa.insert(table), rows)
        return
    statement = _insertion(table, tuple(rows[0]))
    for some in _pieces(rows):
        connection.execute(statement, _columns(some))


def for_rows(
    connection: Connection,
    statement: Callable[[Given], sa.Executable],
    types: Mapping[str, TypeEngine[Any]],
    rows: Sequence[Row],
) -> None:
    """Update by rows: no two may be about the same row of the table, or only one of them counts.

    Args:
        statement: an update by what one row gives.
        types: of what rows give, by name.
    """
    if not rows:
        return
    if not _is_postgres(connection):
        connection.execute(statement({name: sa.bindparam(name, type_=kind) for name, kind in types.items()}), rows)
        return
    given = _table(types)
    made = statement({name: given.c[name] for name in types})
    for some in _pieces(rows):
        connection.execute(made, _columns(some))


def present(connection: Connection, query: sa.Select[Any], column: sa.ColumnElement[Any], of: Collection[Any]) -> Any:
    """What the query finds where the column is one of these; rows, in any order."""
    if not of:
        return ()
    if _is_postgres(connection):
        is_one = column == sa.any_(sa.bindparam("one_of", list(of), type_=sa.ARRAY(column.type)))
        return connection.execute(query.where(is_one))
    return _in_pieces(connection, query, column, of)


def _in_pieces(
    connection: Connection, query: sa.Select[Any], column: sa.ColumnElement[Any], of: Collection[Any]
) -> Iterator[Any]:
    for some in batches(sorted(of)):
        yield from connection.execute(query.where(column.in_(some)))


def present_together(
    connection: Connection,
    query: sa.Select[Any],
    columns: tuple[sa.ColumnElement[Any], ...],
    of: Collection[tuple[Any, ...]],
) -> Iterator[Any]:
    """As `present`, of several columns: where together they are one of these."""
    if not of:
        return
    names = [f"one_{number}" for number in range(len(columns))]
    types = [column.type for column in columns]
    if _is_postgres(connection):
        given: sa.FromClause = _table(dict(zip(names, types, strict=True)))
        lists = dict(zip(names, map(list, zip(*of, strict=True)), strict=True))
        yield from connection.execute(query.where(*_equal(columns, given)), lists)
        return
    named = [sa.column(name, kind) for name, kind in zip(names, types, strict=True)]
    for some in batches(sorted(of)):
        # Joined: for `(a, b) IN (VALUES …)` SQLite reads the whole table.
        given = sa.values(*named, name="given").data(some).cte("given")
        yield from connection.execute(query.where(*_equal(columns, given)))


def _equal(columns: tuple[sa.ColumnElement[Any], ...], given: sa.FromClause) -> list[sa.ColumnElement[bool]]:
    return [column == other for column, other in zip(columns, given.c, strict=True)]


def _is_postgres(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


@cache
def _insertion(table: sa.Table, names: tuple[str, ...]) -> sa.Insert:
    given = _table({name: table.c[name].type for name in names})
    return sa.insert(table).from_select(names, sa.select(*given.c))


def _table(types: Mapping[str, TypeEngine[Any]]) -> sa.TableValuedAlias:
    lists = [sa.bindparam(name, type_=sa.ARRAY(kind)) for name, kind in types.items()]
    columns = [sa.column(name, kind) for name, kind in types.items()]
    return sa.func.unnest(*lists).table_valued(*columns).render_derived(name="given")


def _columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _pieces(rows: Sequence[Row]) -> Iterator[list[Row]]:
    sizes = [sum([len(value) for value in row.values() if isinstance(value, (bytes, str))]) for row in rows]
    return within(rows, sizes, ROWS_MAX, STATEMENT_BYTES)
