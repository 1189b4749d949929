"""A stretch of time on the command line, and what was measured in it as a table."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import click

from squall.cli import tables
from squall.cli.log import moment_of
from squall.cli.timeline import shown
from squall.protocol.function_window import PERCENTILES, FunctionWindow
from squall.protocol.node import PATH_PLAIN
from squall.protocol.records import to_wire


def window_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--since` and `--until`, which the command gets as seconds since 1970, or None; and `--json`."""
    for option in reversed(
        (
            click.option("--since", callback=_moment, help="From then on: 2h, 1d, or a date and time (default: 1h)."),
            click.option(
                "--until",
                callback=_moment,
                help="Up to then: 2h, 1d, or a date and time (default: now); at most 7 days after.",
            ),
            click.option("--json", "is_json", is_flag=True, help="As JSON."),
        )
    ):
        command = option(command)
    return command


def _moment(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    return moment_of(text or "")


def show_json(record: Any, **more: Any) -> None:
    """A record for programs, and what belongs to it."""
    click.echo(json.dumps({**to_wire(record), **to_wire(more)}, indent=2))


def show_window(window: FunctionWindow) -> None:
    """The numbers of a function for people."""
    click.echo(f"{_time(window.since)} to {_time(window.until)}")
    failed = [
        (window.failed_inputs, "failed"),
        (window.timed_out_inputs, "timed out"),
        (window.cancelled_inputs, "cancelled"),
        (window.running_inputs, "running at the end"),
    ]
    told = "".join(f", {count:,} {what}" for count, what in failed if count)
    click.echo(f"  inputs      {window.succeeded_inputs:,} succeeded{told}")
    errors = f", {window.failed_containers:,} failed" if window.failed_containers else ""
    starting = f", {window.starting_containers:,} starting at the end" if window.starting_containers else ""
    started = f"{window.started_containers:,} started{by_path(window)}"
    click.echo(f"  containers  {window.container_count:,} in all, {started}{errors}{starting}")
    if window.is_cut:
        click.echo("  (there is more than is counted at once, and the earliest is left out: ask for a shorter time)")
    if window.variant_count:
        click.echo(f"  variants    {window.variant_count:,}")
    rows = [
        (name, *(shown(value * 1000) for value in one.values_s))
        for name, one in (("queue", window.queue), ("run", window.run), ("container start", window.start))
        if one.values_s
    ]
    if rows:
        click.echo("")
        tables.show(("", *(_percentile(one) for one in PERCENTILES)), rows, is_json=False)


def by_path(window: FunctionWindow) -> str:
    """How containers came about, where any was not loaded like all others."""
    if not window.started_by_path.keys() - {PATH_PLAIN}:
        return ""
    counts = sorted(window.started_by_path.items(), key=lambda one: -one[1])
    return f" ({', '.join(f'{count:,} {path}' for path, count in counts)})"


def _percentile(value: float) -> str:
    return "max" if value == 100 else f"p{value:g}"


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S%z")
