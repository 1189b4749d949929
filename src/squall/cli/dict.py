"""`squall dict`: create, list, get, items, clear, delete. Values are unpickled here: they are the user's own."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import click

from squall.cli import asset, result_view, tables
from squall.cli.confirmation import confirm
from squall.cli.environment import environment_option
from squall.exception import DeserializationError
from squall.protocol.asset import DICT
from squall.sdk._pending import iterate
from squall.sdk.dict import Dict

_SAMPLE = """\
cache = squall.Dict.from_name({name!r})
cache["key"] = "value\""""


class _Unreadable:
    """In the place of what cannot be unpickled here."""

    def __init__(self, error: DeserializationError) -> None:
        self._error = error

    def __repr__(self) -> str:
        return f"<{self._error}>"


@click.group("dict", epilog="Example: squall dict items cache")
def dict_group() -> None:
    """Dicts: keys and values that programs share."""


@dict_group.command("create", epilog="Example: squall dict create cache")
@environment_option
@click.argument("name")
def create(name: str) -> None:
    """Make a dict."""
    asset.create(DICT, name, _SAMPLE)


@dict_group.command("list", epilog="Example: squall dict list --json")
@environment_option
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_dicts(is_json: bool) -> None:
    """List dicts, newest first."""
    asset.show_list(asset.all_of(DICT), is_json=is_json)


@dict_group.command("get", epilog="Example: squall dict get cache answer")
@environment_option
@click.argument("name")
@click.argument("key")
def get(name: str, key: str) -> None:
    """Print the value of a key, which is a string here."""
    try:
        value = _find(name)[key]
    except KeyError:
        raise click.ClickException(f"dict {name} has no key {key!r}; `squall dict items {name}` shows some") from None
    result_view.show(value)


@dict_group.command("items", epilog="Example: squall dict items cache 50 --repr")
@environment_option
@click.argument("name")
@click.argument("n", default=20, type=click.IntRange(min=1))
@click.option("-a", "--all", "is_all", is_flag=True, help="All of them.")
@click.option("-r", "--repr", "is_repr", is_flag=True, help="As Python writes them.")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def items(name: str, n: int, is_all: bool, is_repr: bool, is_json: bool) -> None:
    """List N entries, in no order. What cannot be read here is shown as that."""
    found = iterate(_readable(_find(name)))
    rows: list[tuple[object, object]] = []
    is_cut = False
    for pair in found:
        is_cut = not is_all and len(rows) == n
        if is_cut:
            break
        rows.append(pair)
    found.close()
    if is_json:
        show = repr if is_repr else str
        click.echo(json.dumps([{"key": key, "value": value} for key, value in rows], indent=2, default=show))
    else:
        tables.show(
            ("Key", "Value"),
            [(asset.cell(key, is_repr=is_repr), asset.cell(value, is_repr=is_repr)) for key, value in rows],
            is_json=False,
        )
    if is_cut:
        click.echo(f"(There are more than {n}: --all shows all of them.)", err=True)


async def _readable(found: Dict) -> AsyncGenerator[tuple[Any, Any], None]:
    async for encoded, body, blob_sha256 in found._read(has_values=True):
        key: Any
        try:
            key = found._read_key(encoded)
        except DeserializationError as error:
            key = _Unreadable(error)
        try:
            yield key, await found._value(key, body, blob_sha256)
        except DeserializationError as error:
            yield key, _Unreadable(error)


@dict_group.command("clear", epilog="Example: squall dict clear cache --yes")
@environment_option
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def clear(name: str, yes: bool) -> None:
    """Take all entries out of a dict."""
    found = _find(name)
    if not yes:
        confirm(f"Take all entries out of dict {name}, for good?")
    found.clear()
    click.echo(f"Cleared dict {name}.", err=True)


@dict_group.command("delete", epilog="Example: squall dict delete cache --yes")
@environment_option
@click.argument("name")
@click.option("--allow-missing", is_flag=True, help="It is no failure if there is none.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(name: str, allow_missing: bool, yes: bool) -> None:
    """Delete a dict with everything in it."""
    asset.delete(DICT, name, allow_missing, yes)


def _find(name: str) -> Dict:
    return Dict._of_info(asset.find(DICT, name), None)
