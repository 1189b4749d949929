"""`-n/--name` of the commands that make apps: what can be no name is refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from squall.exception import InvalidError
from squall.sdk._names import check_name


def name_option(told: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option, as `app_name`; `told` is its help."""
    return click.option("-n", "--name", "app_name", default=None, callback=_checked, help=told)


def _checked(context: click.Context, option: click.Parameter, name: str | None) -> str | None:
    if name is None:
        return None
    try:
        return check_name(name, "--name")
    except InvalidError as error:
        raise click.UsageError(str(error)) from error
