"""Which annotations can be given as an option, and what is made of the text."""

from __future__ import annotations

import collections.abc
import datetime
import enum
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import Any, Literal

import click

from squall.cli.annotations import Unreadable
from squall.protocol.records import record

_SEVERAL: dict[Any, Callable[[Iterable[Any]], Any]] = {
    list: list,
    collections.abc.Sequence: list,
    collections.abc.Collection: list,
    collections.abc.Iterable: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
}
"""What holds several values, and what they are gathered in."""


@record
class OptionType:
    """What an annotation is as an option."""

    kind: Any
    """Of click, for one value; `bool` is a flag."""
    gather: Callable[[Iterable[Any]], Any] | None = None
    """The option is repeated, and this makes of its values what the parameter takes."""


def option_type(hint: Any) -> OptionType | None:
    """The type of the option, None for what cannot be typed in."""
    inner = _without_none(hint)
    container = typing.get_origin(inner) or inner
    # A name that cannot be hashed is no type that is known here.
    gather = _SEVERAL.get(container) if isinstance(container, type) else None
    if gather is None:
        kind = _kind(inner)
        return None if kind is None else OptionType(kind)
    arguments = typing.get_args(inner)
    if container is tuple and arguments:
        if len(arguments) != 2 or arguments[1] is not ...:
            return None
        arguments = arguments[:1]
    kind = _kind(_without_none(arguments[0])) if arguments else str
    return None if kind is None or kind is bool else OptionType(kind, gather)


def name_of(hint: Any) -> str:
    """An annotation as its author wrote it, or nearly."""
    if isinstance(hint, Unreadable):
        return f"{hint.text} (which cannot be read here: {hint.reason})"
    # A generic alias has a __name__ too, without what is in its brackets.
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def _without_none(hint: Any) -> Any:
    """`X` of `Optional[X]`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        if len(inner) == 1:
            return inner[0]
    return hint


def _kind(hint: Any) -> Any:
    """The click type for one value."""
    if typing.get_origin(hint) is Literal:
        values = [value for value in typing.get_args(hint) if value is not None]
        if all(isinstance(value, str) for value in values):
            return click.Choice(values)
        if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
            return _IntChoice(values)
        return None
    if hint is str or hint is Any:
        return str
    if not isinstance(hint, type) or typing.get_args(hint):
        return None
    if hint in (int, float, bool):
        return hint
    if hint is datetime.datetime:
        return _Moment("date and time", "YYYY-MM-DD[THH:MM:SS]", _datetime, "2026-01-31 or 2026-01-31T12:30:00")
    if hint is datetime.date:
        return _Moment("date", "YYYY-MM-DD", datetime.date.fromisoformat, "2026-01-31")
    if issubclass(hint, PurePath):
        return _Path(hint)
    return _Member(hint) if issubclass(hint, enum.Enum) else None


def _datetime(text: str) -> datetime.datetime:
    # Python 3.10 does not know the Z.
    return datetime.datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith(("Z", "z")) else text)


class _Moment(click.ParamType):  # type: ignore[type-arg]
    """A day, or a time of one, as ISO writes them."""

    def __init__(self, name: str, metavar: str, read: Callable[[str], Any], examples: str) -> None:
        self.name = name
        self._metavar = metavar
        self._read = read
        self._examples = examples

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return self._metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._read(value)
        except ValueError:
            return self.fail(f"{value!r} is no {self.name}; write {self._examples}", param, ctx)


class _Path(click.ParamType):  # type: ignore[type-arg]
    """A path, here or in a container: whether there is anything is for the function to say."""

    name = "path"

    def __init__(self, kind: type[PurePath]) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> PurePath:
        return self._kind(value)


class _Member(click.Choice):  # type: ignore[type-arg]
    """A member of an enumeration, by its name; in any case, where that leaves no doubt."""

    def __init__(self, kind: type[enum.Enum]) -> None:
        self._members = kind.__members__
        super().__init__(list(self._members))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> enum.Enum:
        alike = [name for name in self._members if name.casefold() == value.casefold()]
        return self._members[super().convert(alike[0] if len(alike) == 1 else value, param, ctx)]


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
