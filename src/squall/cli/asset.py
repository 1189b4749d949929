"""What commands about dicts and queues have in common."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import click

from squall.cli import tables
from squall.cli.confirmation import confirm
from squall.cli.result_view import cut
from squall.cli.server_calls import ask, ask_pages, is_list_empty, require_server
from squall.exception import NotFoundError
from squall.protocol.asset import AssetDelete, AssetGet, AssetInfo, AssetList, AssetListing
from squall.protocol.empty import Empty
from squall.sdk._asset import check_name, creation
from squall.sdk._environment import environment_of
from squall.sdk._terminal_text import harmless

CELL_CHARS_MAX = 1_000
"""Of a value in a list for people."""


def create(kind: str, name: str, sample: str) -> None:
    """Make one, and show how it is used."""
    record = creation(kind, check_name(name, "NAME"), environment_of(None), may_exist=False)
    info = ask("AssetCreate", record, AssetInfo)
    click.echo(f"Created {kind} {info.name} in environment {info.environment}. Use it in a program:", err=True)
    click.echo(sample.format(name=info.name))


def find(kind: str, name: str) -> AssetInfo:
    """One by its name.

    Raises:
        NotFoundError: there is none.
        click.ClickException: no server runs.
    """
    require_server()
    return ask("AssetGet", AssetGet(kind, check_name(name, "NAME"), environment_of(None)), AssetInfo)


def all_of(kind: str) -> Iterable[AssetInfo]:
    """Those that have a name, newest first."""
    if is_list_empty():
        return ()
    pages = ask_pages("AssetList", AssetList(kind, environment_of(None), tables.LIST_MAX), AssetListing)
    return (one for page in pages for one in page.assets)


def show_list(
    found: Iterable[AssetInfo],
    titles: tuple[str, ...] = (),
    more: Iterable[tuple[object, ...]] = itertools.repeat(()),
    *,
    is_json: bool,
) -> None:
    """Print some, one a line, with `more` of each in columns of these titles."""
    rows = [
        (one.name, tables.local_time(one.created_at), one.created_by or None, *columns)
        for one, columns in zip(found, more)  # noqa: B905 - nothing more is said of any number of them
    ]
    tables.show(("Name", "Created at", "Created by", *titles), rows, is_json=is_json, is_of_all=True)


def delete(kind: str, name: str, allow_missing: bool, yes: bool) -> None:
    """Delete one, after a question."""
    try:
        found = find(kind, name)
        if not yes:
            confirm(f"Delete {kind} {found.name} of environment {found.environment}, with all that is in it, for good?")
        ask("AssetDelete", AssetDelete(kind, found.asset_id), Empty)
    except NotFoundError:
        if not allow_missing:
            raise
        click.echo(f"There is no {kind} {name}.", err=True)
        return
    click.echo(f"Deleted {kind} {name}.", err=True)


def cell(value: object, *, is_repr: bool) -> str:
    """A user's value in a list for people."""
    text, is_cut = cut(repr(value) if is_repr else value, CELL_CHARS_MAX)
    return harmless(text) + ("…" if is_cut else "")
