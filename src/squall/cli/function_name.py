"""Which function is meant on the command line: `app/function`, `app.function`, or an id.

Names of apps may have dots, too: the first part that is an app's name is the app.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import click

from squall.cli.server_calls import ask
from squall.cli.target import listed
from squall.exception import NotFoundError
from squall.protocol.app import AppGet, AppInfo
from squall.protocol.function import FunctionGet, FunctionSpec
from squall.protocol.ids import is_id
from squall.sdk._environment import environment_of

_WRITE = "write app/function, or its id (fu-…)"


def find_function(text: str) -> FunctionSpec:
    """The function that is named.

    Raises:
        click.UsageError: it is no such name.
        click.ClickException: there is none, with what may have been meant.
    """
    if is_id(text, "fu"):
        return ask("FunctionGet", FunctionGet(function_id=text), FunctionSpec)
    app, name = find_app(text)
    joint = "/" if "/" in text else "."
    if not name:
        raise _names_an_app(text, app)
    # As it was asked for: of an app that has ended its name may mean another one.
    function, method = function_in(app, name, joint, text[: -len(name) - 1])
    if method:
        whole = f"{text.removesuffix(method).rstrip('.')}"
        raise click.ClickException(f"all methods of a class are one function; write {whole}, without {method!r}")
    return ask("FunctionGet", FunctionGet(function_id=app.functions[function]), FunctionSpec)


def find_name(text: str) -> tuple[str, str]:
    """The app that is named, and what its function is called, which may be one of an earlier run: it is not looked for.

    Raises:
        click.UsageError: it is no such name.
        NotFoundError: there is no such app.
    """
    app, name = find_app(text)
    if not name:
        raise _names_an_app(text, app)
    # As it was asked for: an id means this run alone.
    return text[: -len(name) - 1], name


def _names_an_app(text: str, app: AppInfo) -> click.UsageError:
    return click.UsageError(f"{text!r} names an app; {_WRITE}, where it has: {listed(sorted(app.functions))}")


def function_in(app: AppInfo, name: str, joint: str = ".", app_text: str = "") -> tuple[str, str]:
    """The function of an app that a name means, and what of it comes after a dot.

    Args:
        joint: between the two, in hints.
        app_text: what the app is called there; by default its name.

    Raises:
        click.ClickException: it has none, with what may have been meant.
    """
    if name in app.functions:
        return name, ""
    function, _, method = name.partition(".")
    if function in app.functions:
        return function, method
    shown = app_text or app.name or app.app_id
    close = difflib.get_close_matches(function, app.functions, n=1)
    hint = f"did you mean {shown}{joint}{close[0]}?" if close else f"it has: {listed(sorted(app.functions))}"
    raise click.ClickException(f"app {shown} has no function {name!r}; {hint}")


def find_app(text: str, advice: str = _WRITE) -> tuple[AppInfo, str]:
    """The app whose name the text begins with, and what comes after it, if anything.

    Args:
        advice: what to write where it is no name.

    Raises:
        click.UsageError: it is no name.
        NotFoundError: there is no such app.
    """
    refused: NotFoundError | None = None
    for app, name in _splits(text):
        try:
            return ask("AppGet", AppGet(app, environment_of(None)), AppInfo), name
        except NotFoundError as error:
            refused = refused or error
    if refused is None:
        raise click.UsageError(f"{text!r} names none: {advice}")
    raise refused


def _splits(text: str) -> Iterator[tuple[str, str]]:
    """The ways to read it, the shortest app first."""
    app, slash, name = text.partition("/")
    if slash:
        if app and name:
            yield app, name
        return
    at = text.find(".")
    while at > 0:
        if at + 1 < len(text):
            yield text[:at], text[at + 1 :]
        at = text.find(".", at + 1)
    if text and not text.startswith("."):
        yield text, ""
