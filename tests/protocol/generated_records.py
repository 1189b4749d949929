"""Records of every type on the wire, made up by hypothesis from their fields' types."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any

from hypothesis import strategies as st

from squall.protocol.errors import ErrorRecord
from squall.protocol.methods import METHODS


def record_types() -> list[type[Any]]:
    """Every record that a method takes, gives or is sent, by name."""
    found: set[type[Any]] = {ErrorRecord}
    found.update(record for method in METHODS.values() for record in _records_of(method))
    return sorted(found, key=lambda record: record.__name__)


def _records_of(method: Any) -> list[type[Any]]:
    return [record for record in (method.request, method.reply, method.upload) if record is not None]


# What the wire can carry: no lone surrogates (not UTF-8), no numbers that JSON lacks or 64 bits do not hold.
_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    int: st.integers(-(2**63), 2**63 - 1),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
}


def strategy_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of one type that a record's field may have."""
    return _strategy_of(hint)


@functools.cache
def _strategy_of(hint: Any) -> st.SearchStrategy[Any]:
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType or origin is typing.Union:
        return st.one_of([st.none() if one is type(None) else strategy_of(one) for one in arguments])
    if origin is tuple:
        return st.lists(strategy_of(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(_PLAIN[str], strategy_of(arguments[1]), max_size=3)
    assert dataclasses.is_dataclass(hint), f"no idea how to make up a {hint}"
    hints = typing.get_type_hints(hint)
    return st.builds(
        typing.cast("type[Any]", hint),
        **{field.name: strategy_of(hints[field.name]) for field in dataclasses.fields(hint)},
    )
