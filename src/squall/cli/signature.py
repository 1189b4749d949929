"""Command-line options from the signature of a Python function.

One option per parameter, never positional: `--param-name`. Types: str, int, float, bool (`--x/--no-x`),
datetime.datetime, Literal of texts or of whole numbers, and Optional of these; without annotation a parameter is text.
Without default an option is required; a parameter with a default and another type is left to it. A function that takes
only `*args` gets the arguments as they were typed.
"""

from __future__ import annotations

import datetime
import types
import typing
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from squall.protocol.records import record

if TYPE_CHECKING:
    import inspect


_TAKES_MORE = 0x04 | 0x08
"""Flags of the code of functions with `*args` and with `**kwargs`."""


class SignatureInvalid(ValueError):
    """A parameter cannot be given on the command line; the message names it and says what can."""


@record
class BoundArguments:
    """What to call the function with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def bind(function: Callable[..., Any], name: str, arguments: Sequence[str], *, typed: str = "") -> BoundArguments:
    """Parse command-line arguments for `function`, called `name` in messages.

    `typed` is the command before the arguments, for `--help` and hints: what they show can be typed again.

    Raises:
        SignatureInvalid: a parameter has a type that cannot be typed in.
        click.UsageError: the arguments do not fit.
        click.exceptions.Exit: help was asked for, and shown.
    """
    parameters = _parameters(function)
    if parameters and all(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return BoundArguments(tuple(arguments), {})
    hints = _hints(function) if parameters else {}
    options, left_out = _options(parameters, hints, name)
    command = click.Command(
        name,
        params=list(options),
        help=function.__doc__,
        epilog=f"Left to their defaults, for their types: {', '.join(left_out)}." if left_out else None,
        callback=lambda **given: given,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    if arguments and not arguments[0].startswith("-"):
        # Before what is missing: it was given, in a way that cannot be.
        raise click.UsageError(f"unexpected argument {arguments[0]!r}: {_by_name(options, arguments[0])}")
    try:
        context = command.make_context(typed or name, list(arguments))
    except click.NoSuchOption as error:
        raise left_out.get(error.option_name, error) from None
    with context:
        given = command.invoke(context)
    names = {_parameter_key(parameter.name): parameter.name for parameter in parameters}
    # A default is left to the function: it may be an object that no option can express.
    kwargs = {
        names[key]: value
        for key, value in given.items()
        if context.get_parameter_source(key) is not click.core.ParameterSource.DEFAULT
    }
    return BoundArguments((), kwargs)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    code = function.__code__ if type(function) is types.FunctionType and not vars(function) else None
    if code is not None and not (code.co_argcount or code.co_kwonlyargcount or code.co_flags & _TAKES_MORE):
        return []
    import inspect  # cold start: 6 ms, of what a function takes that takes something

    return list(inspect.signature(function).parameters.values())


def _options(
    parameters: Sequence[inspect.Parameter], hints: dict[str, Any], name: str
) -> tuple[list[click.Option], dict[str, SignatureInvalid]]:
    """One for each parameter; and why there is none, by its flag, for those that can do without."""
    options: list[click.Option] = []
    left_out: dict[str, SignatureInvalid] = {}
    for parameter in parameters:
        try:
            options.append(_option(parameter, hints.get(parameter.name, str), name))
        except SignatureInvalid as error:
            if parameter.default is parameter.empty:
                raise
            left_out[_flag(parameter)] = error
    return options, left_out


def _flag(parameter: inspect.Parameter) -> str:
    return "--" + parameter.name.replace("_", "-")


def _by_name(options: Sequence[click.Option], argument: str) -> str:
    """How an argument without a name should have been given."""
    wanted = next((option for option in options if option.required), options[0] if options else None)
    return f"write it by name, as in {wanted.opts[0]} {argument}" if wanted else "there are no parameters"


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError) as error:
        raise SignatureInvalid(f"cannot read the annotations of {function.__qualname__}: {error}") from error


def _parameter_key(name: str) -> str:
    return name.lower()


def _option(parameter: inspect.Parameter, hint: Any, name: str) -> click.Option:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise SignatureInvalid(
            f"cannot run {name} from the command line: it takes {parameter}; only a function with *args alone may"
        )
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise SignatureInvalid(
            f"cannot run {name} from the command line: parameter {parameter.name} is positional only; options go by"
            f" name"
        )
    flag = _flag(parameter)
    key = _parameter_key(parameter.name)
    kind = _kind(hint, parameter.name, name)
    extra: dict[str, Any] = {"required": True}
    if parameter.default is not parameter.empty:
        extra = {"default": parameter.default, "show_default": parameter.default is not None}
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}", key], **extra)
    return click.Option([flag, key], type=kind, **extra)


def _kind(hint: Any, parameter: str, name: str) -> Any:
    """The click type for an annotation."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [argument for argument in arguments if argument is not type(None)]
        if len(inner) == 1:
            return _kind(inner[0], parameter, name)
    if origin is Literal and all(isinstance(value, str) for value in arguments):
        return click.Choice(list(arguments))
    if origin is Literal and all(isinstance(value, int) and not isinstance(value, bool) for value in arguments):
        return _IntChoice(arguments)
    if hint is str or hint is Any:
        return str
    if hint in (int, float, bool):
        return hint
    if hint is datetime.datetime:
        return _DateTime()
    raise SignatureInvalid(
        f"cannot run {name} from the command line: parameter {parameter} has type {_name_of(hint)};"
        f" options can be str, int, float, bool, datetime.datetime, Literal, or Optional of these"
    )


def _name_of(hint: Any) -> str:
    # A generic alias has a __name__ too, without what is in its brackets.
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


class _DateTime(click.DateTime):
    """A date, with or without a time."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "YYYY-MM-DD[THH:MM:SS]"


class _IntChoice(click.ParamType):  # type: ignore[type-arg]
    """One of some whole numbers."""

    name = "integer"

    def __init__(self, values: Sequence[int]) -> None:
        self._values = tuple(values)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(value)
            if number in self._values:
                return number
        except (TypeError, ValueError):
            pass
        return self.fail(f"{value!r} is not one of {', '.join(map(str, self._values))}", param, ctx)
