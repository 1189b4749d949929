"""Records, and records to and from plain JSON values.

A record is a frozen dataclass; the fields of one that travels are str, int, float, bool, None, other records,
`tuple[X, ...]`, `dict[str, X]` or unions of one of these with None. Fields that equal their default are left out on the
way out; unknown fields are ignored and missing ones take their default on the way in. The server decodes the same
classes with msgspec, where a wrong type is an error; this module, used inside containers, checks as much as it needs to
build the record.

`@dataclass(frozen=True)` compiles six methods for each class from source text, and the module `dataclasses` loads
`inspect` and all it needs. Every container imports some forty records before it can run anything: that was half its
start. `@record` compiles `__init__` alone, when the first record of the class is made (a program makes records of a
third of the classes it loads), shares the other methods, and makes a dataclass of a class when somebody asks:
`dataclasses` (fields, replace, asdict) and msgspec take a record as any other dataclass.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        """Of `typing` from 3.11 on; it means nothing when a program runs."""
        return lambda decorator: decorator


if TYPE_CHECKING:
    from dataclasses import Field

R = TypeVar("R")
_Convert = Callable[[Any], Any]

_MISSING: Any = object()


class _Factory:
    """In the place of a default that is made anew for each record."""

    def __init__(self, make: Callable[[], Any], *, is_shown: bool) -> None:
        self.make = make
        self.is_shown = is_shown


def field(*, default_factory: Callable[[], R], repr: bool = True) -> R:  # noqa: A002 - as in `dataclasses`
    """A field whose default is made anew for each record; of the same name as that of `dataclasses`.

    Args:
        repr: whether its value is in the record's `repr`: False for what is in secrets.
    """
    return cast("R", _Factory(default_factory, is_shown=repr))


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[R]) -> type[R]:
    """Make a frozen dataclass of a class; records have no base classes and no `__post_init__`."""
    # To a type checker the methods of a class are not for assigning.
    made: Any = cls
    made.__record_defaults__ = {name: vars(made).get(name, _MISSING) for name in made.__annotations__}
    setattr(made, "__match_args__", tuple(made.__record_defaults__))  # noqa: B010 - mypy refuses the plain form
    made.__init__ = _late_init(made)
    for name, default in made.__record_defaults__.items():
        if isinstance(default, _Factory):
            delattr(made, name)
    made.__repr__, made.__eq__, made.__hash__ = _repr, _eq, _hash
    made.__setattr__, made.__delattr__ = _refuse_set, _refuse_delete
    made.__dataclass_fields__ = _LateFields()
    return cls


def replace(record: R, **changes: Any) -> R:
    """A copy with other values for these fields; as `dataclasses.replace`, without that module.

    Raises:
        TypeError: there is no such field.
    """
    return type(record)(**{**vars(record), **changes})


class _LateFields:
    """`__dataclass_fields__` of a record, made when it is first looked at."""

    def __get__(self, instance: object, cls: type) -> dict[str, Field[Any]]:
        import dataclasses  # cold start: the point of this class

        found: Any = cls
        namespace: dict[str, Any] = {"__annotations__": found.__annotations__, "__module__": found.__module__}
        namespace["__doc__"] = found.__doc__ or found.__name__  # or dataclass() makes one, of a signature it parses
        for name, default in found.__record_defaults__.items():
            if isinstance(default, _Factory):
                namespace[name] = dataclasses.field(default_factory=default.make)
            elif default is not _MISSING:
                namespace[name] = default
        plain: Any = dataclasses.dataclass(init=False, repr=False, eq=False)(type(found.__name__, (), namespace))
        fields: dict[str, Field[Any]] = plain.__dataclass_fields__
        found.__dataclass_fields__ = fields
        return fields


def _late_init(made: Any) -> Any:
    def init(self: Any, *values: Any, **named: Any) -> None:
        # Two threads may get here: both make the same.
        made.__init__ = _make_init(made.__record_defaults__)
        made.__init__(self, *values, **named)

    return init


def _make_init(defaults: dict[str, Any]) -> Any:
    known: dict[str, Any] = {"_missing": _MISSING}
    parameters, lines = [], []
    for name, default in defaults.items():
        value = name
        if isinstance(default, _Factory):
            known[f"_f_{name}"] = default.make
            parameters.append(f"{name}=_missing")
            value = f"_f_{name}() if {name} is _missing else {name}"
        elif default is not _MISSING:
            known[f"_d_{name}"] = default
            parameters.append(f"{name}=_d_{name}")
        else:
            parameters.append(name)
        lines.append(f"    _values['{name}'] = {value}\n")
    exec(f"def __init__({', '.join(['self', *parameters])}):\n    _values = self.__dict__\n{''.join(lines)}", known)
    return known["__init__"]


def _values_of(self: Any) -> tuple[Any, ...]:
    return tuple([getattr(self, name) for name in self.__match_args__])


def _repr(self: Any) -> str:
    values = []
    for name, default in self.__record_defaults__.items():
        is_shown = not isinstance(default, _Factory) or default.is_shown
        values.append(f"{name}={getattr(self, name)!r}" if is_shown else f"{name}=…")
    return f"{type(self).__qualname__}({', '.join(values)})"


def _eq(self: Any, other: object) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return _values_of(self) == _values_of(other)


def _hash(self: Any) -> int:
    return hash(_values_of(self))


def _refuse_set(self: Any, name: str, value: object) -> NoReturn:
    from dataclasses import FrozenInstanceError  # cold start: only for a mistake

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: Any, name: str) -> NoReturn:
    from dataclasses import FrozenInstanceError  # cold start: as above

    raise FrozenInstanceError(f"cannot delete field {name!r}")


class RecordError(ValueError):
    """A JSON value does not fit the record it should be."""


def to_wire(record: Any) -> Any:
    """The record as JSON values."""
    if isinstance(record, (str, int, float, bool)) or record is None:
        return record
    if isinstance(record, (tuple, list)):
        # Columns of numbers and texts, the hot case, go to the JSON encoder as they are.
        if not record or isinstance(record[0], (int, str, float)):
            return record
        return [to_wire(item) for item in record]
    if isinstance(record, dict):
        return {key: to_wire(value) for key, value in record.items()}
    out: dict[str, Any] = {}
    for name, default in _defaults(type(record)):
        value = getattr(record, name)
        if default is _MISSING or value != default:
            out[name] = to_wire(value)
    return out


def from_wire(cls: type[R], value: Any) -> R:
    """Build a record from JSON values.

    Raises:
        RecordError: a required field is missing or a value has the wrong shape.
    """
    if not isinstance(value, dict):
        raise RecordError(f"{cls.__name__}: expected an object, got {type(value).__name__}")
    converters = _converters(cls)
    try:
        known: dict[str, Any] = {}
        for name, item in value.items():
            if name in converters:
                convert = converters[name]
                known[name] = item if convert is None else convert(item)
        return cls(**known)
    except RecordError as error:
        raise RecordError(f"{cls.__name__}: {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"{cls.__name__}: {error}") from error


_defaults_cache: dict[type, tuple[tuple[str, Any], ...]] = {}
_converters_cache: dict[type, dict[str, _Convert | None]] = {}


def _defaults(cls: Any) -> tuple[tuple[str, Any], ...]:
    cached = _defaults_cache.get(cls)
    if cached is None:
        cached = tuple(
            (name, default.make() if isinstance(default, _Factory) else default)
            for name, default in cls.__record_defaults__.items()
        )
        _defaults_cache[cls] = cached
    return cached


def _converters(cls: Any) -> dict[str, _Convert | None]:
    cached = _converters_cache.get(cls)
    if cached is None:
        hints = typing.get_type_hints(cls)
        cached = {name: _converter(hints[name]) for name in cls.__record_defaults__}
        _converters_cache[cls] = cached
    return cached


def _converter(hint: Any) -> _Convert | None:
    """How to convert a JSON value of this type; None when it can be used as it is."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is types.UnionType or origin is typing.Union:
        inner = [_converter(argument) for argument in arguments if argument is not type(None)]
        assert len(inner) == 1, f"a record field may be one type or None, not {hint}"
        convert = inner[0]
        return None if convert is None else (lambda value: None if value is None else convert(value))
    if origin is tuple:
        return _tuple_converter(_converter(arguments[0]))
    if origin is dict:
        return _dict_converter(_converter(arguments[1]))
    if hasattr(hint, "__record_defaults__"):
        return lambda value: from_wire(hint, value)
    return None


def _tuple_converter(item: _Convert | None) -> _Convert:
    if item is None:
        return tuple
    return lambda value: tuple(item(element) for element in value)


def _dict_converter(item: _Convert | None) -> _Convert | None:
    if item is None:
        return None
    return lambda value: {key: item(element) for key, element in value.items()}
