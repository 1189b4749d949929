"""`squall call`: what was called, what became of it, and once more."""

from __future__ import annotations

import json

import click

from squall.cli import tables
from squall.cli.environment import environment_option
from squall.cli.function_name import find_name
from squall.cli.log import moment_of
from squall.cli.server_calls import ask, is_list_empty, require_server
from squall.cli.timeline import shown
from squall.protocol.flight import INPUTS_SHOWN_MAX, CallFlight, CallList, CallListing, CallShow
from squall.protocol.records import to_wire
from squall.sdk._environment import environment_of


@click.group("call", epilog="Example: squall call list --failed")
def call_group() -> None:
    """Calls: what ran, why it was slow, why it failed."""


@call_group.command("list", epilog="Example: squall call list --app hello --failed")
@environment_option
@click.option("--app", default="", metavar="APP", help="Only this app's, by name or id; a name means all its runs.")
@click.option(
    "--function", default="", metavar="FN", help="Only of this function: app/function, app.function, or its id."
)
@click.option("--failed", "is_failed", is_flag=True, help="Only those of which an input failed.")
@click.option("--since", default="", help="From then on: 2h, 1d, or a date and time.")
@click.option("--until", default="", help="Up to then: 2h, 1d, or a date and time.")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1_000), metavar="N", default=20, show_default=True, help="At most N."
)
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_calls(app: str, function: str, is_failed: bool, since: str, until: str, limit: int, is_json: bool) -> None:
    """List calls, newest first: the last ones, and those that are kept."""
    since_s, until_s = moment_of(since), moment_of(until)
    if is_list_empty():
        # Before a function's name is looked up, for which a server would be started.
        show_calls(CallListing(()), is_json=is_json)
        return
    named_app, name = _named(function, app)
    if named_app and app and app != named_app:
        raise click.UsageError(f"--app {app} and --function {function} name different apps")
    wanted = CallList(
        app=app or named_app,
        function=name,
        is_failed=is_failed,
        since=since_s,
        until=until_s,
        limit=limit,
        has_variants=True,
        environment=environment_of(None),
    )
    show_calls(ask("CallList", wanted, CallListing), is_json=is_json)


def _named(function: str, app: str) -> tuple[str, str]:
    """The app that a function is named with, if it is, and the function."""
    named_app, slash, name = function.partition("/")
    if slash:
        return named_app, name
    if app:
        return "", function.removeprefix(f"{app}.")
    return find_name(function) if "." in function else ("", function)


def show_calls(listing: CallListing, *, is_json: bool) -> None:
    """A table of calls."""
    app_ids: dict[str, set[str]] = {}
    for one in listing.calls:
        app_ids.setdefault(one.app_name or one.app_id, set()).add(one.app_id)
    # Ids are long, and wanted where the name says too little.
    has_app_id = is_json or any(len(ids) > 1 for ids in app_ids.values())
    rows = [
        (
            one.call_id,
            f"{one.function_name}{f'.{one.method}' if one.method else ''}" or one.function_id,
            one.app_name or one.app_id,
            *((one.app_id,) if has_app_id else ()),
            one.kind,
            one.status,
            one.input_count,
            one.failed_count,
            tables.local_time(one.created_at),
            one.duration_ms if is_json else shown(one.duration_ms),
        )
        for one in listing.calls
    ]
    of_app = ("App ID",) if has_app_id else ()
    took = "Took ms" if is_json else "Took"
    headings = ("Call ID", "Function", "App", *of_app, "Kind", "Status", "Inputs", "Failed", "Made at", took)
    tables.show(headings, rows, is_json=is_json, spare=("Made at", "App ID", "App", "Kind", "Failed"))
    if listing.is_cut:
        click.echo("Calls of earlier apps of that name, or of variants not used lately, are left out.", err=True)


@call_group.command("show", epilog="Example: squall call show fc-…")
@click.argument("call_id")
@click.option("--failed", "is_failed", is_flag=True, help="Only inputs that failed.")
@click.option("--first", type=click.IntRange(min=0), default=0, metavar="INDEX", help="Begin with this input.")
@click.option(
    "-n", "--limit", type=click.IntRange(0, INPUTS_SHOWN_MAX), metavar="N", default=20, show_default=True,
    help="At most N inputs.",
)  # fmt: skip
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def show_call(call_id: str, is_failed: bool, first: int, limit: int, is_json: bool) -> None:
    """Show what became of a call: who made it, where its time went, how it failed."""
    require_server()
    flight = ask("CallShow", CallShow(call_id, first, limit, is_failed), CallFlight)
    if is_json:
        click.echo(json.dumps(to_wire(flight), indent=2))
        return
    from squall.cli.call_view import lines_of  # cold start: for people only

    for line in lines_of(flight):
        click.echo(line)


@call_group.command("replay", epilog="Example: squall call replay fc-… --index 3 --local")
@click.argument("call_id")
@click.option(
    "--index", type=click.IntRange(min=0), metavar="N", help="Which input (default: the only one, or that failed)."
)
@click.option("--local", "is_local", is_flag=True, help="Run it here, in the debugger when it fails.")
@click.option("--file", "path", type=click.Path(), default="", help="With --local: where the function's module is.")
def replay(call_id: str, index: int | None, is_local: bool, path: str) -> None:
    """Run an input of a call again: in a container, or here.

    Arguments are kept of inputs that failed, and of spawned calls. A function of an app that has stopped is run in an
    app of its own, as it was then; one that is deployed runs as it is now.
    """
    require_server()
    if path and not is_local:
        raise click.UsageError("--file says where a module is for --local; add that, or leave it out")
    from squall.cli import call_replay  # cold start: as above

    index = call_replay.chosen_index(call_id) if index is None else index
    if is_local:
        call_replay.run_here(call_id, index, path)
    else:
        call_replay.run_in_container(call_id, index)
