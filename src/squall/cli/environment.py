"""`squall environment`: create, list, delete; and the option that says which one a command means."""

from __future__ import annotations

import click

from squall.cli import tables
from squall.cli.confirmation import confirm
from squall.cli.server_calls import ask, is_list_empty, require_server
from squall.protocol.environment import (
    DEFAULT,
    EnvironmentCreate,
    EnvironmentDelete,
    EnvironmentDeleted,
    EnvironmentGet,
    EnvironmentInfo,
    EnvironmentList,
    EnvironmentListing,
)
from squall.sdk._environment import check_environment, choose


def _choose(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    choose(value or "")


environment_option = click.option(
    "-e",
    "--env",
    metavar="ENV",
    default=None,
    expose_value=False,
    callback=_choose,
    help="The environment that names are of; else SQUALL_ENVIRONMENT, else main.",
)


@click.group("environment", epilog="Example: squall environment create staging")
def environment_group() -> None:
    """Environments: names of apps and images apart from those of others."""


@environment_group.command("list", epilog="Example: squall environment list --json")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_environments(is_json: bool) -> None:
    """List environments, the default first."""
    if is_list_empty():
        listing = EnvironmentListing((EnvironmentInfo(DEFAULT),))
    else:
        listing = ask("EnvironmentList", EnvironmentList(), EnvironmentListing)
    rows = [(one.name, tables.local_time(one.created_at or None), one.app_count) for one in listing.environments]
    tables.show(("Name", "Created at", "Apps"), rows, is_json=is_json)


@environment_group.command("create", epilog="Example: squall environment create staging")
@click.argument("name")
def create(name: str) -> None:
    """Make an environment."""
    info = ask("EnvironmentCreate", EnvironmentCreate(check_environment(name, "NAME")), EnvironmentInfo)
    click.echo(f"Created environment {info.name}. Deploy into it: squall deploy --env {info.name} app.py", err=True)


@environment_group.command("delete", epilog="Example: squall environment delete staging --yes")
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(name: str, yes: bool) -> None:
    """Delete an environment with its apps, names of images, volumes, dicts, queues and secrets, for good."""
    require_server()
    info = ask("EnvironmentGet", EnvironmentGet(check_environment(name, "NAME")), EnvironmentInfo)
    if not yes:
        what = tables.counted(info.app_count, "app")
        confirm(f"Delete environment {name} with all that is kept in it, and stop its {what}, for good?")
    gone = ask("EnvironmentDelete", EnvironmentDelete(name), EnvironmentDeleted)
    images = tables.counted(gone.image_name_count, "name") + " of images"
    assets = tables.counted(gone.asset_count, "volume, dict, queue or secret")
    if gone.asset_count != 1:
        assets = f"{gone.asset_count:,} volumes, dicts, queues and secrets"
    click.echo(f"Deleted {name}, with {tables.counted(gone.app_count, 'app')}, {images} and {assets}.", err=True)
