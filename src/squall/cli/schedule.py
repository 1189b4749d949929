"""`squall schedule`: list, run."""

from __future__ import annotations

import click

from squall.cli import tables
from squall.cli.environment import environment_option
from squall.cli.server_calls import ask, ask_pages, is_list_empty, require_server
from squall.protocol.schedule import (
    ScheduleInfo,
    ScheduleList,
    ScheduleListing,
    ScheduleRun,
    ScheduleStarted,
    describe,
)
from squall.sdk._environment import environment_of


@click.group("schedule", epilog="Example: squall schedule list")
def schedule_group() -> None:
    """Schedules: what deployed apps run by themselves."""


@schedule_group.command("list", epilog="Example: squall schedule list --app reports --json")
@environment_option
@click.option("--app", default="", metavar="APP", help="Only this app's, by name or id.")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def list_schedules(app: str, is_json: bool) -> None:
    """List the schedules of deployed apps."""
    wanted = ScheduleList(app, tables.LIST_MAX, environment=environment_of(None))
    pages = () if is_list_empty() else ask_pages("ScheduleList", wanted, ScheduleListing)
    schedules = [one for page in pages for one in page.schedules]
    headings = ("App", "Function", "Schedule", "Next run", "Last run", "Result", "Passed over", "Last call")
    # Few are passed over, and a call's id is for programs: people see the first where it says something.
    has_passed = any(one.skipped_count for one in schedules)
    shown = len(headings) if is_json else 7 if has_passed else 6
    tables.show(headings[:shown], [_row(one)[:shown] for one in schedules], is_json=is_json, is_of_all=True)


def _row(one: ScheduleInfo) -> tuple[object, ...]:
    return (
        one.app_name or one.app_id,
        one.function_name,
        describe(one.schedule),
        tables.local_time(one.next_at),
        tables.local_time(one.last_at),
        one.last_outcome or None,
        one.skipped_count,
        one.last_call_id or None,
    )


@schedule_group.command("run", epilog="Example: squall schedule run reports/nightly")
@environment_option
@click.argument("function", metavar="APP/FUNCTION")
def run(function: str) -> None:
    """Run a function with a schedule now, and print the id of its call.

    Its schedule stays as it is.
    """
    app, _, name = function.partition("/")
    if not app or not name:
        raise click.UsageError(f"{function!r} names no function: write APP/FUNCTION, as in reports/nightly")
    require_server()
    click.echo(ask("ScheduleRun", ScheduleRun(app, name, environment_of(None)), ScheduleStarted).call_id)
