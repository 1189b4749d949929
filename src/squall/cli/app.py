"""`squall app`: list, logs, stop."""

from __future__ import annotations

import click

from squall.cli import tables
from squall.cli.log import log_options, show_logs
from squall.cli.server_calls import ask, is_list_empty, require_server
from squall.protocol.app import STOPPED, AppGet, AppInfo, AppList, AppListing, AppStop, AppStopped
from squall.protocol.log import LogRead


@click.group("app", epilog="Example: squall app list --json")
def app_group() -> None:
    """Apps: what runs, what ran, what it printed."""


@app_group.command("list", epilog="Example: squall app list --limit 5")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=20,
    show_default=True,
    help="At most N, newest first.",
)
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_apps(limit: int, is_json: bool) -> None:
    """List apps, newest first."""
    listing = AppListing(()) if is_list_empty() else ask("AppList", AppList(limit=limit), AppListing)
    rows = [
        (
            app.app_id,
            app.name or None,
            app.state,
            app.container_count,
            tables.local_time(app.created_at),
            tables.local_time(app.stopped_at),
            app.parent_app_id or None,
        )
        for app in listing.apps
    ]
    headings = ("App ID", "Description", "State", "Containers", "Created at", "Stopped at", "Parent app ID")
    # Few apps start others: people see the column where it says something, programs always.
    shown = len(headings) if is_json or any(app.parent_app_id for app in listing.apps) else len(headings) - 1
    tables.show(headings[:shown], [row[:shown] for row in rows], is_json=is_json)


@app_group.command("logs", epilog="Example: squall app logs ap-… --follow")
@click.argument("app")
@click.option("--function", default="", help="Only this function's lines.")
@log_options
def logs(app: str, function: str, query: LogRead, is_timestamped: bool) -> None:
    """Show what an app printed; APP is its id or name."""
    require_server()
    info = ask("AppGet", AppGet(app), AppInfo)
    show_logs(query, is_timestamped, app=info.app_id, function=info.functions.get(function, function))


@app_group.command("stop", epilog="Example: squall app stop ap-… --yes")
@click.argument("app")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def stop(app: str, yes: bool) -> None:
    """Stop an app: cancel its inputs, end its containers."""
    require_server()
    info = ask("AppGet", AppGet(app), AppInfo)
    if info.state == STOPPED:
        click.echo(f"{info.app_id} was stopped already.", err=True)
        return
    if not yes:
        click.confirm(f"Stop app {info.name or info.app_id} with {info.container_count} containers?", abort=True)
    ask("AppStop", AppStop(info.app_id, reason="squall app stop"), AppStopped)
    click.echo(f"Stopped {info.app_id}.", err=True)
