"""Which function is meant on the command line: `app/function`, or an id."""

from __future__ import annotations

import difflib

import click

from squall.cli.server_calls import ask
from squall.cli.target import listed
from squall.protocol.app import AppGet, AppInfo
from squall.protocol.function import FunctionGet, FunctionSpec
from squall.protocol.ids import is_id
from squall.sdk._environment import environment_of


def find_function(text: str) -> FunctionSpec:
    """The function that `app/function` or an id names.

    Raises:
        click.ClickException: there is none, with what may have been meant.
    """
    if is_id(text, "fu"):
        return ask("FunctionGet", FunctionGet(function_id=text), FunctionSpec)
    app, name = split(text)
    found = ask("AppGet", AppGet(app, environment_of(None)), AppInfo)
    function_id = found.functions.get(name)
    if function_id is None:
        close = difflib.get_close_matches(name, found.functions, n=1)
        hint = f"did you mean {app}/{close[0]}?" if close else f"it has: {listed(sorted(found.functions))}"
        raise click.ClickException(f"app {app} has no function {name!r}; {hint}")
    return ask("FunctionGet", FunctionGet(function_id=function_id), FunctionSpec)


def split(text: str) -> tuple[str, str]:
    """The app and the function of `app/function`.

    Raises:
        click.UsageError: it is not so.
    """
    app, slash, name = text.partition("/")
    if not slash or not app or not name:
        raise click.UsageError(f"{text!r} names no function: write app/function, or its id (fu-…)")
    return app, name
