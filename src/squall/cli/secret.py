"""`squall secret`: create, list, delete, and encrypt anew. Nothing here shows what is in one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from squall.cli import tables
from squall.cli.confirmation import confirm
from squall.cli.environment import environment_option
from squall.cli.server_calls import ask, ask_pages, is_list_empty, require_server
from squall.exception import NotFoundError
from squall.protocol.asset import SECRET, AssetDelete, AssetGet, AssetInfo
from squall.protocol.empty import Empty
from squall.protocol.ids import new_id
from squall.protocol.secret import (
    SecretCreate,
    SecretInfo,
    SecretKeyRotate,
    SecretKeyRotated,
    SecretList,
    SecretListing,
    problem,
)
from squall.sdk._asset import check_name
from squall.sdk._environment import environment_of
from squall.sdk._user import user_name

_SHOWN_MAX = 5

_SAMPLE = """\
@app.function(secrets=[squall.Secret.from_name({name!r})])
def f():
    {uses}"""


@click.group("secret", epilog="Example: squall secret create openai OPENAI_API_KEY=-")
def secret_group() -> None:
    """Secrets: variables that only the containers see which name them."""


@secret_group.command("create", epilog="Example: squall secret create openai OPENAI_API_KEY=- < key.txt")
@environment_option
@click.argument("name")
@click.argument("keyvalues", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--from-dotenv", type=click.Path(exists=True, dir_okay=False), help="Of a file of lines KEY=VALUE.")
@click.option("--from-json", type=click.Path(exists=True, dir_okay=False), help="Of a file, an object of strings.")
@click.option("-f", "--force", is_flag=True, help="Replace what is in one of that name.")
def create(name: str, keyvalues: Sequence[str], from_dotenv: str | None, from_json: str | None, force: bool) -> None:
    """Make a secret of variables.

    With KEY=- the value is read: typed without being shown, or from a pipe. What is written here as VALUE can be read
    by all of this machine while the command runs, and stays in the history of your shell.
    """
    check_name(name, "NAME")
    values = _values(keyvalues, from_dotenv, from_json)
    wrong = problem(values)
    if wrong:
        raise click.UsageError(f"secret {name}: {wrong}")
    record = SecretCreate(new_id("st"), values, name, environment_of(None), user_name(), is_replacing=force)
    info = ask("SecretCreate", record, SecretInfo)
    click.echo(f"Created secret {info.name} in environment {info.environment}. Use it in a function:", err=True)
    uses = "\n    ".join(f"os.environ[{one!r}]" for one in list(values)[:_SHOWN_MAX])
    click.echo(_SAMPLE.format(name=info.name, uses=uses))


def _values(keyvalues: Sequence[str], from_dotenv: str | None, from_json: str | None) -> dict[str, str]:
    if sum(map(bool, (keyvalues, from_dotenv, from_json))) != 1:
        raise click.UsageError("give KEY=VALUE, or --from-dotenv, or --from-json: one of these")
    if from_dotenv:
        from dotenv import dotenv_values  # cold start: only for such a file

        return {name: value for name, value in dotenv_values(from_dotenv).items() if value is not None}
    if from_json:
        return _of_json(from_json)
    values: dict[str, str] = {}
    for given in keyvalues:
        name, mark, value = given.partition("=")
        if not mark:
            raise click.UsageError("an argument is no KEY=VALUE; write KEY=- for a value that is read")
        if value == "-":
            if any(one.endswith("=-") for one in keyvalues if one != given):
                raise click.UsageError(
                    "only one value can be read; put several into a file: --from-dotenv, --from-json"
                )
            value = _read(name)
        values[name] = value
    return values


def _read(name: str) -> str:
    if sys.stdin.isatty():
        typed: str = click.prompt(name, hide_input=True, err=True)
        return typed
    return sys.stdin.read().removesuffix("\n")


def _of_json(path: str) -> dict[str, str]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        # What a decoder says of a file has some of it.
        why = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise click.ClickException(f"{path}: {why}") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise click.ClickException(f"{path}: it must be an object whose values are strings")
    return found


@secret_group.command("list", epilog="Example: squall secret list --json")
@environment_option
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_secrets(is_json: bool) -> None:
    """List secrets, newest first."""
    if is_list_empty():
        pages: Iterable[SecretListing] = ()
    else:
        pages = ask_pages("SecretList", SecretList(environment_of(None), tables.LIST_MAX), SecretListing)
    rows = [
        (
            one.name,
            tables.local_time(one.created_at),
            one.created_by or None,
            tables.local_time(one.last_used_at),
        )
        for page in pages
        for one in page.secrets
    ]
    tables.show(("Name", "Created at", "Created by", "Last used at"), rows, is_json=is_json, is_of_all=True)


@secret_group.command("delete", epilog="Example: squall secret delete openai --yes")
@environment_option
@click.argument("name")
@click.option("--allow-missing", is_flag=True, help="It is no failure if there is none.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(name: str, allow_missing: bool, yes: bool) -> None:
    """Delete a secret. What runs keeps its variables; no other container starts whose function names it."""
    require_server()
    environment = environment_of(None)
    try:
        found = ask("AssetGet", AssetGet(SECRET, check_name(name, "NAME"), environment), AssetInfo)
        if not yes:
            confirm(f"Delete secret {found.name} of environment {found.environment} for good?")
        ask("AssetDelete", AssetDelete(SECRET, found.asset_id, environment), Empty)
    except NotFoundError:
        if not allow_missing:
            raise
        click.echo(f"There is no secret {name}.", err=True)
        return
    click.echo(f"Deleted secret {name}.", err=True)


@secret_group.command("rotate-key", epilog="Example: squall secret rotate-key")
def rotate_key() -> None:
    """Encrypt all secrets anew: with a new key, or the first one of SQUALL_SECRET_KEY of the server."""
    require_server()
    rotated = ask("SecretKeyRotate", SecretKeyRotate(), SecretKeyRotated)
    click.echo(f"Encrypted {tables.counted(rotated.count, 'secret')} anew.", err=True)
    if rotated.unreadable_count:
        what = tables.counted(rotated.unreadable_count, "secret")
        raise click.ClickException(
            f"{what} can be read with no key there is, and stayed as before; see the server's log"
        )
    if rotated.is_key_given:
        click.echo("Take the other keys out of SQUALL_SECRET_KEY when the server is started next.", err=True)
