"""Command-line options from the signature of a Python function.

One option per parameter, never positional: `--param-name`. Which types there are, `option_type` says: a bool is
`--x/--no-x`, a list is an option that is repeated, without annotation a parameter is text. Without default an option is
required; a parameter with a default and another type is left to it. A function that takes only `*args` gets the
arguments as they were typed.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from squall.cli.annotations import annotations_of, parameters_of
from squall.cli.option_type import OptionType, name_of, option_type
from squall.protocol.records import record
from squall.sdk._value_text import value_text

if TYPE_CHECKING:
    import inspect


_TAKES_MORE = 0x04 | 0x08
"""Flags of the code of functions with `*args` and with `**kwargs`."""


TYPES = (
    "str, int, float, bool, datetime, date, Path, Literal, an Enum, Optional of these, or a list, tuple[…, ...] or set"
    " of them"
)
"""As a message lists them."""


class SignatureInvalid(ValueError):
    """A parameter cannot be given on the command line; the message names it and says what can."""


@record
class BoundArguments:
    """What to call the function with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@record
class _Given:
    """A parameter and the option it is given by."""

    parameter: inspect.Parameter
    type: OptionType
    option: click.Option

    @property
    def flag(self) -> str:
        return self.option.opts[0]


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
    hints = annotations_of(function) if parameters else {}
    options, left_out = _options(parameters, hints, name)
    command = click.Command(
        name,
        params=[one.option for one in options],
        help=function.__doc__,
        epilog=f"Left to their defaults, for their types: {', '.join(left_out)}." if left_out else None,
        callback=lambda **given: given,
        # What is too much is told here, with how it should have been written.
        context_settings={"help_option_names": ["-h", "--help"], "allow_extra_args": True},
    )
    if arguments and not arguments[0].startswith("-"):
        # Before what is missing: it was given, in a way that cannot be.
        raise click.UsageError(f"unexpected argument {arguments[0]!r}: {_by_name(options, arguments[0])}")
    try:
        context = command.make_context(typed or name, list(arguments))
    except click.NoSuchOption as error:
        raise left_out.get(error.option_name, error) from None
    except click.BadOptionUsage as error:
        raise _misused(options, error) from None
    except click.BadParameter as error:
        raise _unread(options, error) from None
    if context.args:
        raise click.UsageError(_too_much(options, arguments, context.args[0]), context)
    with context:
        given = command.invoke(context)
    # A default is left to the function: it may be an object that no option can express.
    kwargs = {
        one.parameter.name: one.type.gather(given[key]) if one.type.gather is not None else given[key]
        for one in options
        if (key := one.option.name) is not None
        and context.get_parameter_source(key) is not click.core.ParameterSource.DEFAULT
    }
    return BoundArguments((), kwargs)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    code = function.__code__ if type(function) is types.FunctionType and not vars(function) else None
    if code is not None and not (code.co_argcount or code.co_kwonlyargcount or code.co_flags & _TAKES_MORE):
        return []
    return parameters_of(function)


def _options(
    parameters: Sequence[inspect.Parameter], hints: dict[str, Any], name: str
) -> tuple[list[_Given], dict[str, SignatureInvalid]]:
    """One for each parameter; and why there is none, by its flag, for those that can do without."""
    options: list[_Given] = []
    left_out: dict[str, SignatureInvalid] = {}
    taken: dict[str, str] = {}
    for parameter in parameters:
        try:
            one = _given(parameter, hints.get(parameter.name, str), name, f"p{len(options)}")
        except SignatureInvalid as error:
            if parameter.default is parameter.empty:
                raise
            left_out[_flag(parameter)] = error
            continue
        for flag in (*one.option.opts, *one.option.secondary_opts):
            rival = taken.setdefault(flag, parameter.name)
            if rival != parameter.name:
                what = f"parameters {rival} and {parameter.name} would both be {flag}; rename one"
                raise SignatureInvalid(f"cannot run {name} from the command line: {what}")
        options.append(one)
    return options, left_out


def _flag(parameter: inspect.Parameter) -> str:
    return "--" + parameter.name.replace("_", "-")


def _given(parameter: inspect.Parameter, hint: Any, name: str, key: str) -> _Given:
    """The option for a parameter; `key` tells it apart where click has names in lower case only."""
    cannot = f"cannot run {name} from the command line:"
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise SignatureInvalid(f"{cannot} it takes {parameter}; only a function with *args alone may")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise SignatureInvalid(f"{cannot} parameter {parameter.name} is positional only; options go by name")
    found = option_type(hint)
    if found is None:
        raise SignatureInvalid(
            f"{cannot} parameter {parameter.name} has type {name_of(hint)};"
            f" options can be {TYPES}. Take text and convert it in the function, or call {name} from a local entrypoint"
        )
    flag = _flag(parameter)
    is_required = parameter.default is parameter.empty
    several = ("can be given several times",) if found.gather is not None else ()
    default = (
        () if is_required or parameter.default is None else (f"[default: {_default_text(parameter.default, flag)}]",)
    )
    names = [f"{flag}/--no-{flag[2:]}" if found.kind is bool else flag, key]
    option = click.Option(
        names,
        type=found.kind,
        required=is_required,
        multiple=found.gather is not None,
        help=" ".join((*several, *default)) or None,
    )
    return _Given(parameter, found, option)


def _default_text(value: Any, flag: str) -> str:
    """As it would be typed, where it could be."""
    if isinstance(value, bool):
        return flag if value else f"--no-{flag[2:]}"
    if isinstance(value, enum.Enum):
        return value.name
    typed = str(value) if isinstance(value, PurePath) else value
    text = value_text(typed)
    return text[1:-1] if isinstance(typed, str) and text[1:-1] == typed else text


def _by_name(options: Sequence[_Given], argument: str) -> str:
    """How an argument without a name should have been given."""
    wanted = next((one for one in options if one.option.required), options[0] if options else None)
    return f"write it by name, as in {wanted.flag} {argument}" if wanted else "there are no parameters"


def _too_much(options: Sequence[_Given], arguments: Sequence[str], argument: str) -> str:
    """What is wrong with an argument that no option took: mostly it comes after one that takes it otherwise."""
    before = [text for text in arguments[: arguments.index(argument)] if text.startswith("--")]
    last = next((one for one in options if before and before[-1].partition("=")[0] in one.option.opts), None)
    if last is None or (last.type.kind is not bool and last.type.gather is None):
        how = _by_name(options, argument)
    elif last.type.kind is bool:
        how = _flag_forms(last)
    else:
        value = arguments[arguments.index(argument) - 1].rpartition("=")[2]
        how = _repeated(last, (value, argument))
    return f"unexpected argument {argument!r}: {how}"


def _misused(options: Sequence[_Given], error: click.BadOptionUsage) -> click.UsageError:
    """A flag was given a value, or an option none."""
    flag = next((one for one in options if error.option_name in (*one.option.opts, *one.option.secondary_opts)), None)
    if flag is None or flag.type.kind is not bool:
        return error
    return click.BadOptionUsage(error.option_name, _flag_forms(flag), error.ctx)


def _unread(options: Sequence[_Given], error: click.BadParameter) -> click.UsageError:
    """A value that is none of its type: perhaps several in one."""
    one = next((one for one in options if one.option is error.param), None)
    given = _quoted(error.message)
    if one is None or one.type.gather is None or "," not in given:
        return error
    how = _repeated(one, [part.strip() for part in given.split(",")[:2]])
    return click.BadParameter(f"{error.message.rstrip('.')}; {how}", error.ctx, error.param)


def _quoted(message: str) -> str:
    """The value that a message of click begins with."""
    return message[1:].partition("'")[0] if message.startswith("'") else ""


def _flag_forms(one: _Given) -> str:
    return f"{one.flag} takes no value: write {one.flag} or {one.option.secondary_opts[0]}"


def _repeated(one: _Given, values: Sequence[str]) -> str:
    return f"repeat the option, as in {' '.join(f'{one.flag} {value}' for value in values)}"
