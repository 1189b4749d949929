"""Lists for people and for programs."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import sys
import time
from collections.abc import Sequence
from typing import TypeVar

import click

from squall.sdk._terminal_text import size_text

T = TypeVar("T")


def _leave_colors_out(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        context.color = False


no_color_option = click.option(
    "--no-color", is_flag=True, expose_value=False, callback=_leave_colors_out, help="Without colours and bold letters."
)
GAP = 2
"""Columns of a terminal between two of a table."""
LIST_MAX = 10_000
"""What a list is asked for when all of it is wanted; it says so where that was not all (`say_if_cut`)."""


def say_if_cut(count: int) -> None:
    """Tell people, beside the output, of a list that has as much as was asked for."""
    if count >= LIST_MAX:
        click.echo(f"(The first {LIST_MAX:,} are shown; there may be more.)", err=True)


def show(
    headings: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    is_json: bool,
    spare: Sequence[str] = (),
    is_of_all: bool = False,
) -> None:
    """Print rows under headings, or as JSON objects whose keys are the headings in lower case with underscores.

    `spare`: columns that a terminal without room for all goes without, one after the other; programs get all of them.
    `is_of_all`: `LIST_MAX` were asked for.
    """
    if is_of_all:
        say_if_cut(len(rows))
    if is_json:
        keys = [re.sub(r"[^a-z0-9]+", "_", heading.lower()).strip("_") for heading in headings]
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2, default=str))
        return
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max([len(heading), *(len(row[column]) for row in texts)]) for column, heading in enumerate(headings)]
    left_out = _without_room(headings, widths, spare) if sys.stdout.isatty() else set()
    if left_out:
        texts = [_kept(headings, row, left_out) for row in texts]
        widths = _kept(headings, widths, left_out)
        headings = _kept(headings, headings, left_out)
        click.echo(f"(No room here for: {', '.join(one for one in spare if one in left_out)}.)", err=True)
    _line([click.style(heading.ljust(width), bold=True) for heading, width in zip(headings, widths, strict=True)])
    for row in texts:
        _line([cell.ljust(width) for cell, width in zip(row, widths, strict=True)])


def _without_room(headings: Sequence[str], widths: Sequence[int], spare: Sequence[str]) -> set[str]:
    """Which columns of those a table as wide as this terminal has no room for."""
    columns = shutil.get_terminal_size().columns
    width = sum(widths) + GAP * (len(widths) - 1)
    left_out: set[str] = set()
    for heading in spare:
        if width <= columns:
            break
        if heading in headings:
            left_out.add(heading)
            width -= widths[headings.index(heading)] + GAP
    return left_out


def _kept(headings: Sequence[str], cells: Sequence[T], left_out: set[str]) -> list[T]:
    return [cell for heading, cell in zip(headings, cells, strict=True) if heading not in left_out]


def _line(cells: Sequence[str]) -> None:
    click.echo((" " * GAP).join(cells).rstrip())


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    return str(cell)


def plain(record: object) -> dict[str, object]:
    """A record without records in it for programs: all of its fields, also those that are as they mostly are."""
    return {name: getattr(record, name) for name in type(record).__annotations__}


def size(size_bytes: int, *, is_json: bool) -> object:
    """A size for people or for programs."""
    return size_bytes if is_json else size_text(size_bytes)


def several(texts: Sequence[str], *, is_json: bool) -> object:
    """Several texts in one cell: for people the first two, and how many more there are."""
    if is_json:
        return list(texts)
    more = f" and {len(texts) - 2} more" if len(texts) > 2 else ""
    return ", ".join(texts[:2]) + more if texts else None


def local_time(seconds: float | None) -> str | None:
    """A time for people: local, to the second."""
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S%z")


def ago(seconds: float) -> str:
    """How long ago that was, in one unit."""
    passed_s = max(0.0, time.time() - seconds)  # tidy: users speak of the wall clock
    for unit, length_s in (("d", 86400.0), ("h", 3600.0), ("m", 60.0)):
        if passed_s >= length_s:
            return f"{passed_s / length_s:.0f}{unit} ago"
    return f"{passed_s:.0f}s ago"


def counted(number: int, thing: str) -> str:
    """`1 layer`, `2,000 layers`."""
    return f"{number} {thing}" if number == 1 else f"{number:,} {thing}s"
