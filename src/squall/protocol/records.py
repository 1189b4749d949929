"""Records, and records to and from plain JSON values.

A record is a frozen dataclass whose fields are str, int, float, bool, None, other records, `tuple[X, ...]`,
`dict[str, X]` or unions of one of these with None. Fields that equal their default are left out on the way out; unknown
fields are ignored and missing ones take their default on the way in. The server decodes the same classes with msgspec,
where a wrong type is an error; this module, used inside containers, checks as much as it needs to build the record.

`@dataclass(frozen=True)` compiles six methods for each class from source text. Every container imports some forty
records before it can run anything, and that was a third of its start. `@record` compiles `__init__` alone; the other
methods are the same functions for all records. To `dataclasses` (fields, replace, asdict) and to msgspec a record is a
dataclass like any other.
"""

from __future__ import annotations

import dataclasses
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


R = TypeVar("R")
_Convert = Callable[[Any], Any]

_MISSING = dataclasses.MISSING


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def record(cls: type[R]) -> type[R]:
    """Make a frozen dataclass of a class; records have no base classes and no `__post_init__`."""
    # To a type checker the methods of a class are not for assigning.
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    made.__init__ = _make_init(dataclasses.fields(made))
    made.__repr__, made.__eq__, made.__hash__ = _repr, _eq, _hash
    made.__setattr__, made.__delattr__ = _refuse_set, _refuse_delete
    return cast("type[R]", made)


def _make_init(fields: tuple[dataclasses.Field[Any], ...]) -> Any:
    known: dict[str, Any] = {"_missing": _MISSING}
    parameters, lines = [], []
    for field in fields:
        name = field.name
        value = name
        if field.default is not _MISSING:
            known[f"_d_{name}"] = field.default
            parameters.append(f"{name}=_d_{name}")
        elif field.default_factory is not _MISSING:
            known[f"_f_{name}"] = field.default_factory
            parameters.append(f"{name}=_missing")
            value = f"_f_{name}() if {name} is _missing else {name}"
        else:
            parameters.append(name)
        lines.append(f"    _values['{name}'] = {value}\n")
    exec(f"def __init__({', '.join(['self', *parameters])}):\n    _values = self.__dict__\n{''.join(lines)}", known)
    return known["__init__"]


def _values_of(self: Any) -> tuple[Any, ...]:
    return tuple([getattr(self, name) for name in self.__match_args__])


def _repr(self: Any) -> str:
    values = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
    return f"{type(self).__qualname__}({values})"


def _eq(self: Any, other: object) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return _values_of(self) == _values_of(other)


def _hash(self: Any) -> int:
    return hash(_values_of(self))


def _refuse_set(self: Any, name: str, value: object) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: Any, name: str) -> NoReturn:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


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


def _defaults(cls: type) -> tuple[tuple[str, Any], ...]:
    cached = _defaults_cache.get(cls)
    if cached is None:
        cached = tuple(
            (field.name, field.default_factory() if field.default_factory is not _MISSING else field.default)
            for field in dataclasses.fields(cls)
        )
        _defaults_cache[cls] = cached
    return cached


def _converters(cls: type) -> dict[str, _Convert | None]:
    cached = _converters_cache.get(cls)
    if cached is None:
        hints = typing.get_type_hints(cls)
        cached = {field.name: _converter(hints[field.name]) for field in dataclasses.fields(cls)}
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
    if dataclasses.is_dataclass(hint):
        cls = cast("type[Any]", hint)
        return lambda value: from_wire(cls, value)
    return None


def _tuple_converter(item: _Convert | None) -> _Convert:
    if item is None:
        return tuple
    return lambda value: tuple(item(element) for element in value)


def _dict_converter(item: _Convert | None) -> _Convert | None:
    if item is None:
        return None
    return lambda value: {key: item(element) for key, element in value.items()}
