"""`squall function autoscaler`: what the autoscaler of a function goes by."""

from __future__ import annotations

from typing import Any

import click

from squall.cli import tables
from squall.cli.environment import environment_option
from squall.cli.function_name import find_function
from squall.cli.server_calls import ask, require_server
from squall.protocol.autoscaler import AutoscalerGet, AutoscalerSettings, AutoscalerUpdate

NONE = "none"


class _CountOrNone(click.ParamType[Any]):
    """A number of containers, or `none`."""

    name = "integer|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == NONE or isinstance(value, int):
            return NONE if value == NONE else int(value)
        try:
            number = int(value)
        except ValueError:
            number = -1
        if number < 0:
            self.fail(f"{value!r} is neither a number of containers nor {NONE!r}", param, ctx)
        return number


@click.group("autoscaler", epilog="Example: squall function autoscaler settings my-app/square")
def autoscaler_group() -> None:
    """What the autoscaler of a function goes by."""


@autoscaler_group.command("settings", epilog="Example: squall function autoscaler settings my-app/square --json")
@environment_option
@click.argument("function", metavar="FN")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def settings(function: str, is_json: bool) -> None:
    """Show what the autoscaler of FUNCTION (app/name or fu-…) goes by now."""
    require_server()
    _show(ask("AutoscalerGet", AutoscalerGet(find_function(function).function_id), AutoscalerSettings), is_json)


@autoscaler_group.command(
    "update", epilog="Example: squall function autoscaler update my-app/square --min-containers 2 --max-containers none"
)
@environment_option
@click.argument("function", metavar="FN")
@click.option("--min-containers", type=_CountOrNone(), help="Containers that are kept when nothing runs; none is 0.")
@click.option("--max-containers", type=_CountOrNone(), help="The most there may be; none takes the limit away.")
@click.option("--buffer-containers", type=_CountOrNone(), help="Spare ones while inputs run; none is 0.")
@click.option("--scaledown-window", type=click.IntRange(2, 3_600), help="Seconds until an idle container ends.")
@click.option("--json", "is_json", is_flag=True, help="As JSON.")
def update(
    function: str,
    min_containers: int | str | None,
    max_containers: int | str | None,
    buffer_containers: int | str | None,
    scaledown_window: int | None,
    is_json: bool,
) -> None:
    """Change it for FUNCTION (app/name or fu-…), at once and until the next deploy; what is left out stays."""
    given = (min_containers, max_containers, buffer_containers, scaledown_window)
    if all(value is None for value in given):
        raise click.UsageError("nothing to change: give --min-containers, --max-containers, … (see --help)")
    require_server()
    asked = AutoscalerUpdate(
        find_function(function).function_id,
        min_containers=0 if min_containers == NONE else _number(min_containers),
        max_containers=_number(max_containers),
        is_unbounded=max_containers == NONE,
        buffer_containers=0 if buffer_containers == NONE else _number(buffer_containers),
        scaledown_window_s=None if scaledown_window is None else float(scaledown_window),
    )
    _show(ask("AutoscalerUpdate", asked, AutoscalerSettings), is_json)


def _number(value: int | str | None) -> int | None:
    return value if isinstance(value, int) else None


def _show(found: AutoscalerSettings, is_json: bool) -> None:
    most = NONE if found.max_containers is None and not is_json else found.max_containers
    row = (found.min_containers, most, found.buffer_containers, round(found.scaledown_window_s))
    tables.show(("Min", "Max", "Buffer", "Scaledown Window"), [row], is_json=is_json)
