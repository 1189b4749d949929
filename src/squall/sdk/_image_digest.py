"""Values as texts that are the same in every process and differ where values do: for hashes of what a step depends on.

Neither `repr` nor pickle gives that: the one has addresses in it, the other the order of sets and which of two equal
strings are one. Objects count by what pickle would make them of. Modules, classes and functions count by their names;
a function that has none of its own, such as a lambda, counts by its code and by what it holds.
"""

from __future__ import annotations

import copyreg
import types
from collections.abc import Callable, Iterable
from typing import Any

from squall.protocol.hashing import sha256_hex

_CHARS_MAX = 100
"""What is longer is hashed at once, so that what is in many places is not written out in all of them."""
_DIRECT = (bool, float, complex, str, bytes, type(None), type(...), type(NotImplemented))


class NoText(Exception):
    """Something in a value cannot be taken apart: a lock, a file, a connection."""


def text_of(value: object, own_module: str) -> str:
    """The text of a value.

    Args:
        own_module: one whose name does not count: run as a script it has another.

    Raises:
        NoText: something in it cannot be taken apart.
    """
    try:
        return _Writer(own_module).text(value)
    except NoText:
        raise
    except Exception as error:  # objects are taken apart by code of theirs, which may do anything
        raise NoText(f"{type(error).__name__}: {error}") from error


def name_of(kind: type, own_module: str) -> str:
    """What stands for a value whose class alone counts."""
    return f"a {_place(kind, own_module)}"


class _Writer:
    """One value, and what is in it."""

    def __init__(self, own_module: str) -> None:
        self._own_module = own_module
        self._depths: dict[int, int] = {}
        """Of what is being written, by identity."""
        self._written: dict[int, tuple[object, str]] = {}
        """By identity, with the object, so that no other gets it."""

    def text(self, value: object) -> str:
        """Its text, of its own if it is short."""
        kind = type(value)
        if kind in _DIRECT:
            return _short(repr(value))
        if kind is int:
            return _short(f"{value:#x}")  # the decimal digits of large ones are refused
        identity = id(value)
        if identity in self._depths:
            return f"^{len(self._depths) - self._depths[identity]}"
        if identity not in self._written:
            self._depths[identity] = len(self._depths)
            text = _short(self._taken_apart(value, kind))
            del self._depths[identity]
            self._written[identity] = (value, text)
        return self._written[identity][1]

    def _taken_apart(self, value: Any, kind: type) -> str:
        if kind in (list, tuple):
            return f"{kind.__name__}[{self._list(value)}]"
        if kind is dict:
            return "dict{" + self._list(item for pair in value.items() for item in pair) + "}"
        if isinstance(value, set | frozenset):
            # Before what pickle says of classes made of them: it gives the items in the order of this process.
            items = ", ".join(sorted(map(self.text, value)))
            return f"{self._place(kind)}{{{items}}} {self.text(getattr(value, '__dict__', None))}"
        if isinstance(value, types.ModuleType):
            return f"module {value.__name__}"
        if isinstance(value, type):
            return f"class {self._place(value)}"
        if isinstance(value, types.CodeType):
            names = (value.co_name, value.co_names, value.co_varnames, value.co_freevars, value.co_consts)
            return f"code {self._list([value.co_code, *names])}"
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if kind.__module__.partition(".")[0] == "squall":
            # Apps, functions and images are new in each run; secrets are to be in no hash.
            return name_of(kind, self._own_module)
        return self._object(value, kind)

    def _function(self, function: types.FunctionType) -> str:
        name = f"function {self._place(function)}"
        if "<" not in function.__qualname__:
            return name
        held = [_content(cell) for cell in function.__closure__ or ()]
        return f"{name} {self._list([function.__code__, function.__defaults__, function.__kwdefaults__, held])}"

    def _object(self, value: Any, kind: type) -> str:
        reduce: Callable[[Any], Any] | None = copyreg.dispatch_table.get(kind)
        made = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        if isinstance(made, str):
            return f"global {getattr(value, '__module__', '')}.{made}"
        how, arguments, state, items, pairs = (*made, None, None, None)[:5]
        parts = (how, arguments, state, list(items or ()), list(pairs or ()))
        return f"{self._place(kind)} {self._list(parts)}"

    def _list(self, values: Iterable[object]) -> str:
        return ", ".join(map(self.text, values))

    def _place(self, named: type | types.FunctionType) -> str:
        return _place(named, self._own_module)


def _place(named: type | types.FunctionType, own_module: str) -> str:
    module = named.__module__
    return named.__qualname__ if module in ("__main__", own_module) else f"{module}.{named.__qualname__}"


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return NotImplemented  # a name that has no value yet


def _short(text: str) -> str:
    return text if len(text) <= _CHARS_MAX else sha256_hex(text.encode())
