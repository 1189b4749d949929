"""What can be called, as the command line names it: `app.function`, `app.Class.method`, `app/function`, or an id."""

from __future__ import annotations

import difflib

import click

from squall.cli.function_name import find_app, find_function, function_in
from squall.cli.target import listed
from squall.protocol.function import FunctionSpec
from squall.protocol.ids import is_id

_WRITE = "write APP.FUNCTION"


def find_callable(text: str) -> tuple[FunctionSpec, str]:
    """The function that is named, and of a class the method.

    Raises:
        click.UsageError: it is no such name.
        click.ClickException: there is none, with what may have been meant.
    """
    if is_id(text, "fu"):
        spec = find_function(text)
        return spec, method_of(spec, "")
    app, name = find_app(text, _WRITE)
    if not name:
        raise click.UsageError(f"{text!r} names an app; {_WRITE}, where it has: {listed(sorted(app.functions))}")
    function, method = function_in(app, name)
    spec = find_function(app.functions[function])
    return spec, method_of(spec, method)


def method_of(spec: FunctionSpec, method: str) -> str:
    """The method to call; where none is named, the only one.

    Raises:
        click.ClickException: it has none of that name, or several and none is named.
    """
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
