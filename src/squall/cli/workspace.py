"""`squall workspace`: what is of the server as a whole."""

from __future__ import annotations

import json

import click

from squall.cli import tables
from squall.cli.confirmation import confirm
from squall.cli.server_calls import is_list_empty, require_server
from squall.sdk.types import ProxyTokenInfo
from squall.sdk.workspace import Workspace


@click.group("workspace", epilog="Example: squall workspace proxy-tokens create --name ci")
def workspace_group() -> None:
    """The workspace: what is of the server as a whole."""


@workspace_group.group("proxy-tokens", epilog="Example: squall workspace proxy-tokens create --name ci")
def proxy_tokens_group() -> None:
    """Proxy tokens: what opens web functions that ask for one."""


@proxy_tokens_group.command("create", epilog="Example: squall workspace proxy-tokens create --name ci")
@click.option("--name", default="", help="For people.")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def create(name: str, is_json: bool) -> None:
    """Make a token, and show it as the two headers of a request. Its secret is shown this once.

    It opens the web functions of every environment, until it is allowed one.
    """
    made = Workspace.from_context().proxy_tokens.create(name)
    if is_json:
        click.echo(json.dumps({"token_id": made.token_id, "token_secret": made.token_secret}, indent=2))
        return
    click.echo(f"Modal-Key: {made.token_id}\nModal-Secret: {made.token_secret}")
    click.echo("Send both with each request. The secret is kept nowhere and cannot be shown again.", err=True)


@proxy_tokens_group.command("list", epilog="Example: squall workspace proxy-tokens list --json")
@click.option("-e", "--environment", metavar="ENV", help="Only those that open web functions of this environment.")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_tokens(environment: str | None, is_json: bool) -> None:
    """List tokens, newest first."""
    tokens = [] if is_list_empty() else Workspace.from_context().proxy_tokens.list(environment)
    rows = [
        (
            one.token_id,
            one.name or None,
            _opened(one, is_json=is_json),
            tables.local_time(one.created_at.timestamp()),
            one.created_by or None,
            tables.local_time(one.last_used.timestamp() if one.last_used else None),
        )
        for one in tokens
    ]
    headings = ("Token ID", "Name", "Environments", "Created at", "Created by", "Last used at")
    tables.show(headings, rows, is_json=is_json, spare=("Created by", "Created at"))


def _opened(token: ProxyTokenInfo, *, is_json: bool) -> object:
    if not token.scoped:
        return None if is_json else "all"
    if is_json:
        return token.environment_names
    return tables.several(token.environment_names, is_json=False) or "none"


@proxy_tokens_group.command("update", epilog="Example: squall workspace proxy-tokens update wk-… name ci")
@click.argument("token_id")
@click.argument("setting", type=click.Choice(["name"]))
@click.argument("value")
def update(token_id: str, setting: str, value: str) -> None:
    """Give a token another name."""
    require_server()
    Workspace.from_context().proxy_tokens.update(token_id, name=value)
    click.echo(f"The {setting} of {token_id} is {value!r} now.", err=True)


@proxy_tokens_group.command("allow", epilog="Example: squall workspace proxy-tokens allow wk-… staging")
@click.argument("token_id")
@click.argument("environment_name")
def allow(token_id: str, environment_name: str) -> None:
    """Let a token open the web functions of an environment. With the first it is allowed it opens no others."""
    require_server()
    Workspace.from_context().proxy_tokens.allow(token_id, environment_name)
    click.echo(f"{token_id} opens web functions of environment {environment_name}.", err=True)


@proxy_tokens_group.command("revoke", epilog="Example: squall workspace proxy-tokens revoke wk-… staging")
@click.argument("token_id")
@click.argument("environment_name")
def revoke(token_id: str, environment_name: str) -> None:
    """Take an environment from a token: from now on no request to its web functions passes with it."""
    require_server()
    Workspace.from_context().proxy_tokens.revoke(token_id, environment_name)
    click.echo(f"{token_id} opens no web functions of environment {environment_name} any more.", err=True)


@proxy_tokens_group.command("delete", epilog="Example: squall workspace proxy-tokens delete wk-… --yes")
@click.argument("token_id")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(token_id: str, yes: bool) -> None:
    """Delete a token, for good: from now on no request passes with it."""
    require_server()
    if not yes:
        confirm(f"Delete proxy token {token_id} for good?")
    Workspace.from_context().proxy_tokens.delete(token_id)
    click.echo(f"Deleted {token_id}.", err=True)
