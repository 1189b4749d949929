"""The annotations of a user's function, each by itself: one that means nothing here spoils no other."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from squall.protocol.records import record

if TYPE_CHECKING:
    import inspect


@record
class Unreadable:
    """An annotation that names what is not here, as of a package that only the image has."""

    text: str
    reason: str


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function, whatever they are annotated with."""
    import inspect  # cold start: 6 ms, of what a function takes that takes something

    if sys.version_info >= (3, 14):
        import annotationlib  # cold start: as above

        # Annotations are evaluated when they are asked for there, and these are not.
        return list(inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF).parameters.values())
    return list(inspect.signature(function).parameters.values())


def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """What each parameter and `return` are annotated with, without `Annotated`: a type, or `Unreadable`."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 - an annotation is code of the user's, which may raise anything
        return {name: _alone(function, name, value) for name, value in _as_written(function).items()}


def _as_written(function: Callable[..., Any]) -> dict[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib  # cold start: only where one cannot be read

        return dict(annotationlib.get_annotations(function, format=annotationlib.Format.FORWARDREF))
    return dict(getattr(function, "__annotations__", {}))


def _alone(function: Callable[..., Any], name: str, value: Any) -> Any:
    def only() -> None:
        """For its annotation only."""

    only.__annotations__ = {name: value}
    try:
        return typing.get_type_hints(only, getattr(function, "__globals__", {}))[name]
    except Exception as error:  # noqa: BLE001 - as above
        text = value if isinstance(value, str) else getattr(value, "__forward_arg__", str(value))
        return Unreadable(text.strip("'\""), str(error))
