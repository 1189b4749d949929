"""Log lines on the terminal: the options every `logs` command has, and how a line is shown."""

from __future__ import annotations

import datetime
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from squall.cli.line_ids import ids_of
from squall.cli.server_calls import ask, follow, wait_for_server
from squall.protocol.app import STOPPED, AppGet, AppInfo
from squall.protocol.ids import input_id, is_id
from squall.protocol.log import PASSING, STANDING, STDERR, SYSTEM, LogBatch, LogEntry, LogRead
from squall.protocol.records import replace
from squall.sdk._client import ConnectionLost
from squall.sdk._last_row import LastRow
from squall.sdk._output import ShownLines
from squall.sdk._terminal_text import for_stream, is_terminal

_SPAN = re.compile(r"^(\d+(?:\.\d+)?)(s|m|h|d)$")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SERVER_BACK_S = 30.0
"""How long whoever follows waits for a server that was killed; it is not for a reader to start one."""
AGAIN_S = 0.5
TAIL = 100
"""How many lines are shown when nothing is said about it."""


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a `logs` command; it gets them as `query` and `is_timestamped`."""

    def wrapped(
        is_following: bool,
        tail: int | None,
        is_all: bool,
        since: str,
        until: str,
        search: str,
        source: str,
        is_timestamped: bool,
        **others: Any,
    ) -> Any:
        query = LogRead(
            is_following=is_following,
            tail=_tail(tail, is_all=is_all, has_beginning=bool(since)),
            since=moment_of(since),
            until=moment_of(until),
            search=search,
            source=source,
        )
        return command(query=query, is_timestamped=is_timestamped, **others)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
    for option in reversed(
        (
            click.option("-f", "--follow", "is_following", is_flag=True, help="Go on until it stops."),
            click.option(
                "-n",
                "--tail",
                type=click.IntRange(min=0),
                metavar="N",
                default=None,
                help=f"Start with the last N lines (default: {TAIL}, or all with --since).",
            ),
            click.option("--all", "is_all", is_flag=True, help="Start with every line that is kept."),
            click.option("--since", default="", help="From then on: 2h, 1d, or a date and time."),
            click.option("--until", default="", help="Up to then: 2h, 1d, or a date and time."),
            click.option("--search", default="", help="Only lines with this text."),
            click.option(
                "-s",
                "--source",
                type=click.Choice(["stdout", "stderr", "system"]),
                default=None,
                help="Only lines of this source.",
            ),
            click.option("--timestamps", "is_timestamped", is_flag=True, help="Begin each log line with its time."),
        )
    ):
        wrapped = option(wrapped)
    return wrapped


def show_logs(
    query: LogRead, is_timestamped: bool, *, app: str = "", container_id: str = "", function: str = "",
    inputs: str = "", is_shown: tuple[bool, ...] = (),
) -> None:  # fmt: skip
    """Print matching lines; returns when there are no more (or, following, when the app has stopped).

    With `inputs` only those of inputs whose ids begin so. `is_shown` says which ids go before a line: see `ids_of`.
    """
    if inputs:
        # Those are picked here: what is not theirs is among the last lines, too.
        query = replace(query, tail=-1)
    view = _View(is_timestamped, is_shown)
    wanted = replace(
        query,
        app=app,
        container_id=container_id,
        function=function,
        source=query.source or "",
        has_passing=query.is_following and view.is_live,
    )
    try:
        _show(wanted, view, inputs)
    finally:
        view.end()


def _show(wanted: LogRead, view: _View, inputs: str) -> None:
    app, shown = wanted.app, ShownLines()
    while True:
        try:
            for batch, _ in follow("LogRead", wanted, LogBatch):
                for entry in batch.entries:
                    if entry.input_id.startswith(inputs) and (entry.stage == PASSING or shown.is_new(entry)):
                        view.show(entry)
        except ConnectionLost:
            if not wanted.is_following or not wait_for_server(SERVER_BACK_S):
                raise
            shown.is_repeating = True
            wanted = replace(wanted, tail=-1, since=shown.last_at or wanted.since)
            continue
        # A server that has just come back may not have heard yet that the app goes on.
        if not (
            shown.is_repeating and app and ask("AppGet", AppGet(app, has_functions=False), AppInfo).state != STOPPED
        ):
            return
        wanted = replace(wanted, tail=-1, since=shown.last_at or wanted.since)
        time.sleep(AGAIN_S)


class _View:
    """Lines below one another; on a terminal, in the last row, what there is of one that goes on."""

    def __init__(self, is_timestamped: bool, is_shown: tuple[bool, ...]) -> None:
        self._is_timestamped = is_timestamped
        self._is_shown = is_shown
        self._last_row = LastRow()
        self._passed: tuple[str, ...] = ()
        self.is_live = is_terminal(sys.stdout) or is_terminal(sys.stderr)

    def show(self, entry: LogEntry) -> None:
        """A line, or what there is of it."""
        stream = sys.stderr if entry.source in (STDERR, SYSTEM) else sys.stdout
        place = (entry.container_id, entry.input_id, entry.source)
        if entry.stage == PASSING:
            if is_terminal(stream):
                self._last_row.draw_end(stream, entry.text)
                self._passed = place
            return
        if entry.stage == STANDING and self._passed == place:
            return  # has been seen as it passed
        self.end()
        show_entry(entry, self._is_timestamped, self._is_shown)

    def end(self) -> None:
        """What went on is seen no more."""
        self._last_row.clear()


def inputs_of(call_id: str) -> str:
    """How the ids of a call's inputs begin; empty for no call.

    Raises:
        click.UsageError: it is no id of a call.
    """
    if not call_id:
        return ""
    if not is_id(call_id, "fc"):
        raise click.UsageError(f"{call_id!r} is no id of a call: those begin with fc-")
    return input_id(call_id, 0).removesuffix("0")


def show_entry(entry: LogEntry, is_timestamped: bool, is_shown: tuple[bool, ...] = ()) -> None:
    """Print one line: output to stdout, the rest to stderr."""
    is_error = entry.source in (STDERR, SYSTEM)
    text = for_stream(sys.stderr if is_error else sys.stdout, entry.text)
    text = " ".join((*ids_of(entry, is_shown), text))
    if is_timestamped:
        moment = datetime.datetime.fromtimestamp(entry.at).astimezone()
        text = f"{moment.isoformat(timespec='milliseconds')} {text}"
    if entry.source == SYSTEM:
        text = click.style(text, fg="yellow")
    click.echo(text, err=is_error)


def _tail(tail: int | None, *, is_all: bool, has_beginning: bool) -> int:
    """How many lines to begin with; -1 for all."""
    if tail is not None and is_all:
        raise click.UsageError("--all and -n say different things; give one of them")
    if tail is not None:
        return tail
    return -1 if is_all or has_beginning else TAIL


def moment_of(text: str) -> float | None:
    """Seconds since 1970 of `2h` (that long ago) or an ISO date and time (local without an offset)."""
    if not text:
        return None
    span = _SPAN.match(text)
    if span:
        # Against the time the server stamped lines with: wall clock.
        return time.time() - float(span.group(1)) * _SECONDS[span.group(2)]  # tidy: users speak of the wall clock
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise click.UsageError(f"{text!r} is no time; write 90s, 2h, 1d, or 2026-01-31T12:00") from None
