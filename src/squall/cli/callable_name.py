"""What can be called, as it is named on the command line: `app.function`, `app.Class.method`, `app/function`, or an id.

Names of apps may have dots, too: the first part that is an app's name is the app.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import click

from squall.cli.function_name import find_function
from squall.cli.server_calls import ask
from squall.cli.target import listed
from squall.exception import NotFoundError
from squall.protocol.app import AppGet, AppInfo
from squall.protocol.function import FunctionSpec
from squall.protocol.ids import is_id
from squall.sdk._environment import environment_of


def find_callable(text: str) -> tuple[FunctionSpec, str]:
    """The function that is named, and of a class the method.

    Raises:
        click.UsageError: it is no such name.
        click.ClickException: there is none, with what may have been meant.
    """
    if is_id(text, "fu"):
        spec = find_function(text)
        return spec, _method_of(spec, "")
    app, name = find_app(text)
    if not name:
        raise click.UsageError(
            f"{text!r} names an app; write APP.FUNCTION, where it has: {listed(sorted(app.functions))}"
        )
    function, method = function_in(app, name)
    spec = find_function(app.functions[function])
    return spec, _method_of(spec, method)


def function_in(app: AppInfo, name: str) -> tuple[str, str]:
    """The function of an app that a name means, and what of it comes after a dot.

    Raises:
        click.ClickException: it has none, with what may have been meant.
    """
    if name in app.functions:
        return name, ""
    function, _, method = name.partition(".")
    if function in app.functions:
        return function, method
    shown = app.name or app.app_id
    close = difflib.get_close_matches(function, app.functions, n=1)
    hint = f"did you mean {shown}.{close[0]}?" if close else f"it has: {listed(sorted(app.functions))}"
    raise click.ClickException(f"app {shown} has no function {name!r}; {hint}")


def find_app(text: str) -> tuple[AppInfo, str]:
    """The app whose name the text begins with, and what comes after it, if anything.

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
        raise click.UsageError(f"{text!r} names no function: write APP.FUNCTION, or its id (fu-…)")
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


def _method_of(spec: FunctionSpec, method: str) -> str:
    """The method to call; where none is named, the only one."""
    names = [one.name for one in spec.definition.methods]
    if not spec.definition.is_class:
        if method:
            raise click.ClickException(f"function {spec.name} is no class, and has no method {method!r}")
        return ""
    if not method and len(names) == 1:
        return names[0]
    if method in names:
        return method
    close = difflib.get_close_matches(method, names, n=1)
    hint = f"did you mean {spec.name}.{close[0]}?" if close else f"it has: {listed(names)}"
    what = f"class {spec.name} has no method {method!r}" if method else f"{spec.name} is a class: name a method"
    raise click.ClickException(f"{what}; {hint}")
