"""`squall app`: list, logs, history, rollback, rollover, stop."""

from __future__ import annotations

import re
import time

import click

from squall.cli import app_info, tables
from squall.cli.confirmation import confirm
from squall.cli.deploy import say_what_is_left, strategy_option
from squall.cli.environment import environment_option
from squall.cli.line_ids import id_options
from squall.cli.log import inputs_of, log_options, show_logs
from squall.cli.server_calls import ask, ask_pages, is_list_empty, require_server
from squall.cli.target import listed
from squall.protocol.app import DEPLOYED, STOPPED, AppGet, AppInfo, AppList, AppListing, AppStop, AppStopped
from squall.protocol.deployment import RECREATE, AppHistory, AppHistoryGet, AppPublished, AppRollback, Commit
from squall.protocol.ids import new_id
from squall.protocol.log import LogRead
from squall.protocol.records import replace
from squall.protocol.version import VERSION
from squall.sdk._environment import environment_of
from squall.sdk._user import user_name

VERSIONS_SHOWN = 10
"""Of those there are, where another one was asked for."""


@click.group("app", epilog="Example: squall app list --json")
def app_group() -> None:
    """Apps: what runs, what ran, what it printed."""


app_group.add_command(app_info.info)
app_group.add_command(app_info.stats)


@app_group.command("list", epilog="Example: squall app list --limit 5")
@environment_option
@click.option(
    "-n",
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=20,
    show_default=True,
    help="At most N that have stopped; those that live are all shown.",
)
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_apps(limit: int, is_json: bool) -> None:
    """List apps, newest first."""
    query = AppList(limit=limit, environment=environment_of(None))
    pages = () if is_list_empty() else ask_pages("AppList", query, AppListing)
    apps = [app for page in pages for app in page.apps]
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
        for app in apps
    ]
    headings = ("App ID", "Description", "State", "Containers", "Created at", "Stopped at", "Parent app ID")
    # Few apps start others: people see the column where it says something, programs always.
    shown = len(headings) if is_json or any(app.parent_app_id for app in apps) else len(headings) - 1
    spare = ("Stopped at", "Parent app ID", "Containers", "Created at")
    tables.show(headings[:shown], [row[:shown] for row in rows], is_json=is_json, spare=spare)


@app_group.command("logs", epilog="Example: squall app logs ap-… --follow")
@environment_option
@click.argument("app")
@click.option("--function", default="", help="Only this function's lines.")
@click.option("--function-call", "call_id", default="", help="Only lines of this call's inputs.")
@click.option("--container", "container_id", default="", help="Only this container's lines.")
@id_options
@log_options
def logs(
    app: str,
    function: str,
    call_id: str,
    container_id: str,
    query: LogRead,
    is_timestamped: bool,
    is_shown: tuple[bool, ...],
) -> None:
    """Show what an app printed; APP is its id or name."""
    require_server()
    info = ask("AppGet", AppGet(app, environment_of(None)), AppInfo)
    function_id = info.functions.get(function, function)
    show_logs(
        replace(query, has_variants=True),
        is_timestamped,
        app=info.app_id,
        function=function_id,
        container_id=container_id,
        inputs=inputs_of(call_id),
        is_shown=is_shown,
    )


@app_group.command("history", epilog="Example: squall app history greeter --json")
@environment_option
@click.argument("app")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def history(app: str, is_json: bool) -> None:
    """List the versions of a deployed app, newest first; APP is its name or id."""
    require_server()
    found = ask("AppHistory", AppHistoryGet(app, environment_of(None)), AppHistory)
    rows = [
        (
            f"v{one.version}",
            tables.local_time(one.deployed_at),
            one.client_version or None,
            one.deployed_by or None,
            _commit(one.commit, is_json=is_json),
            one.tag or None,
            f"v{one.restored_version}" if one.restored_version else None,
        )
        for one in found.versions
    ]
    headings = ("Version", "Time deployed", "Client", "Deployed by", "Commit", "Tag", "Repeats")
    shown = len(headings) if is_json or any(one.restored_version for one in found.versions) else len(headings) - 1
    tables.show(headings[:shown], [row[:shown] for row in rows], is_json=is_json)


def _commit(commit: Commit | None, *, is_json: bool) -> object:
    if commit is None:
        return None
    if is_json:
        return {"sha": commit.sha, "branch": commit.branch, "is_dirty": commit.is_dirty}
    return commit.sha[:9] + ("+" if commit.is_dirty else "")


@app_group.command("rollback", epilog="Example: squall app rollback greeter v3")
@environment_option
@click.argument("app")
@click.argument("version", required=False, metavar="[vN]")
@strategy_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def rollback(app: str, version: str | None, strategy: str, yes: bool) -> None:
    """Deploy an earlier version of APP again, as a new one: vN, or the one before the current.

    It asks where that cuts off what containers run (--strategy recreate).
    """
    number = _version_number(version)
    info = _deployed(app)
    # By its number, and the same one after the question whatever is deployed meanwhile.
    number = _known_version(info, number)
    if strategy == RECREATE and info.container_count and not yes:
        containers = tables.counted(info.container_count, "container")
        confirm(f"Deploy version {number} of {info.name} again, and end the {containers} of version {info.version}?")
    published = _roll_back(AppRollback(info.app_id, new_id("rq"), version=number, strategy=strategy))
    done = f"Rolled back {info.name} to version {number}, which is now version {published.version}."
    click.echo(f"{done}{_at(published)}", err=True)
    say_what_is_left(published.left_container_count)


@app_group.command("rollover", epilog="Example: squall app rollover greeter")
@environment_option
@click.argument("app")
@strategy_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def rollover(app: str, strategy: str, yes: bool) -> None:
    """Replace all containers of APP by new ones, with the same code; asks where that cuts off what they run."""
    info = _deployed(app)
    if strategy == RECREATE and info.container_count and not yes:
        containers = tables.counted(info.container_count, "container")
        confirm(f"End the {containers} of {info.name}, and run again in new ones what they run?")
    began_at = time.monotonic()
    published = _roll_back(AppRollback(info.app_id, new_id("rq"), is_rollover=True, strategy=strategy))
    seconds = time.monotonic() - began_at
    click.echo(f"Rolled over {info.name} in {seconds:.1f}s, as version {published.version}.{_at(published)}", err=True)
    say_what_is_left(published.left_container_count)


def _deployed(app: str) -> AppInfo:
    """The app, if it has versions to go to.

    Raises:
        click.ClickException: it has none: it was stopped, or never deployed.
    """
    require_server()
    info = ask("AppGet", AppGet(app, environment_of(None), has_functions=False), AppInfo)
    if info.state == DEPLOYED:
        return info
    what = "was stopped" if info.state == STOPPED else f"is {info.state}"
    raise click.ClickException(f"{_shown(info)} {what}: only a deployed app has versions; deploy it")


def _known_version(info: AppInfo, number: int) -> int:
    """That version, or for 0 the newest that is kept besides the current one.

    Raises:
        click.ClickException: there is none.
    """
    found = ask("AppHistory", AppHistoryGet(info.app_id), AppHistory)
    if number:
        if all(one.version != number for one in found.versions):
            there = listed([f"v{one.version}" for one in found.versions], VERSIONS_SHOWN)
            raise click.ClickException(f"{info.name} has no version {number}: it has {there}")
        return number
    number = max((one.version for one in found.versions if one.version < info.version), default=0)
    if not number:
        raise click.ClickException(f"{info.name} has no version before {info.version}; `squall app history` lists them")
    return number


def _shown(app: AppInfo) -> str:
    return f"{app.name} ({app.app_id})" if app.name else app.app_id


def _roll_back(record: AppRollback) -> AppPublished:
    return ask("AppRollback", replace(record, client_version=VERSION, deployed_by=user_name()), AppPublished)


def _at(published: AppPublished) -> str:
    return f" {published.url}" if published.url else ""


def _version_number(text: str | None) -> int:
    """Raises click.UsageError where no version is named."""
    if text is None:
        return 0
    match = re.fullmatch(r"v?([1-9][0-9]{0,8})", text)
    if match is None:
        raise click.UsageError(f"{text!r} names no version; write v3, as `squall app history` does")
    return int(match[1])


@app_group.command("stop", epilog="Example: squall app stop ap-… --yes")
@environment_option
@click.argument("app")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def stop(app: str, yes: bool) -> None:
    """Stop an app: cancel its inputs, end its containers."""
    require_server()
    info = ask("AppGet", AppGet(app, environment_of(None), has_functions=False), AppInfo)
    if info.state == STOPPED:
        click.echo(f"{_shown(info)} was stopped already.", err=True)
        return
    if not yes:
        what = "deployed app" if info.state == DEPLOYED else "app"
        containers = tables.counted(info.container_count, "container")
        confirm(f"Stop {what} {info.name or info.app_id} with {containers}, for good?")
    ask("AppStop", AppStop(info.app_id, reason="squall app stop"), AppStopped)
    click.echo(f"Stopped {_shown(info)}.", err=True)
