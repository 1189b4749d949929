"""Ids before log lines: the `--show-…-id` options of `logs` commands."""

from __future__ import annotations

from collections.abc import Callable
from itertools import compress
from typing import Any

import click

from squall.protocol.ids import parse_input_id
from squall.protocol.log import LogEntry

NONE = "-"
"""In the place of an id that a line does not have, so that columns stay columns."""


def id_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options about ids; the command gets them as `is_shown`, one flag for each of `ids_of`."""

    def wrapped(shows_function: bool, shows_call: bool, shows_container: bool, **others: Any) -> Any:
        return command(is_shown=(shows_function, shows_call, shows_container), **others)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__click_params__ = list(getattr(command, "__click_params__", []))  # type: ignore[attr-defined]
    for name, what, flag in reversed(
        (
            ("shows_function", "function or variant", "--show-function-id"),
            ("shows_call", "call", "--show-function-call-id"),
            ("shows_container", "container", "--show-container-id"),
        )
    ):
        wrapped = click.option(flag, name, is_flag=True, help=f"Begin each line with the id of its {what}.")(wrapped)
    return wrapped


def ids_of(entry: LogEntry, is_shown: tuple[bool, ...]) -> list[str]:
    """Those ids of a line that are to be shown: of its function or variant, call and container."""
    ids = (entry.variant_id or entry.function_id, _call_id(entry), entry.container_id)
    return [one or NONE for one in compress(ids, is_shown)]


def _call_id(entry: LogEntry) -> str:
    try:
        return parse_input_id(entry.input_id)[0]
    except ValueError:
        return ""  # user code can forge marks, and not every line is an input's
