"""`squall.parameter`: what objects of a class are told apart by."""

from __future__ import annotations

import sys
from typing import Any

from squall.exception import InvalidError
from squall.protocol.function import ParameterSpec
from squall.protocol.parameters import KINDS
from squall.sdk._parameters import checked
from squall.sdk._value_text import value_text


class _NoDefault:
    """Of a parameter that must be given; the same one also in a class that was pickled."""

    def __reduce__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT = _NoDefault()
_AS_TEXT = 4
"""`annotationlib.Format.STRING`, of Pythons from 3.14 on."""


class Parameter:
    """A field of a class until an instance has a value in its place."""

    def __init__(self, default: Any, is_init: bool) -> None:
        self.default = default
        self.is_init = is_init
        self._name = "?"

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"{name} of class {owner.__qualname__}"

    @property
    def has_default(self) -> bool:
        """Whether it may be left out."""
        return self.default is not NO_DEFAULT

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self
        raise AttributeError(f"parameter {self._name} has no value yet")


@checked("squall.parameter")
def parameter(*, default: Any = NO_DEFAULT, init: bool = True) -> Any:
    """A field that objects of a class with `@app.cls()` are given: `name: str = squall.parameter()`.

    It needs an annotation, which is str, int, bool or bytes. Each set of values that are given is a pool of containers
    of its own; what is left out follows the default from version to version, which is not the same as giving its value.
    With `init=False` it cannot be given: it has its default, or no value until a method or hook sets it.
    """
    if not isinstance(init, bool):
        raise InvalidError(f"squall.parameter(init={value_text(init)}): it must be True or False")
    return Parameter(default, init)


def read_parameters(user_class: type, fields: dict[str, Parameter]) -> dict[str, ParameterSpec]:
    """Their types, by name; `fields` are those of the class and of the classes above it.

    Raises:
        InvalidError: an annotation is missing or of another type, or a default does not fit it.
    """
    hints: dict[str, Any] = {}
    for one in reversed(user_class.__mro__) if fields else ():
        hints.update(_annotations(one))
    return {name: _read(user_class, name, field, hints) for name, field in fields.items()}


def _read(user_class: type, name: str, field: Parameter, hints: dict[str, Any]) -> ParameterSpec:
    where = f"parameter {name} of class {user_class.__qualname__}"
    if name not in hints:
        raise InvalidError(f"{where} has no annotation: write {name}: str = squall.parameter(…); or int, bool, bytes")
    hint = hints[name]
    kind = hint.strip("'\"") if isinstance(hint, str) else getattr(hint, "__name__", str(hint))
    if kind not in KINDS or (isinstance(hint, type) and hint is not KINDS[kind]):
        raise InvalidError(f"{where} is annotated as {kind}: it can be str, int, bool or bytes")
    if field.has_default and type(field.default) is not KINDS[kind]:
        raise InvalidError(f"{where}: default={value_text(field.default)} must be of type {kind}")
    return ParameterSpec(name, kind, is_required=field.is_init and not field.has_default)


def _annotations(one: type) -> dict[str, Any]:
    """Those that a class itself has."""
    if sys.version_info >= (3, 14):
        import inspect  # cold start: classes with parameters only

        # As text: another field's annotation may be of something that cannot be imported here.
        return inspect.get_annotations(one, format=_AS_TEXT)
    return dict(vars(one).get("__annotations__", {}))
