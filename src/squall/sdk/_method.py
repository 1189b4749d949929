"""`squall.method`, `squall.enter` and `squall.exit`: what functions in the body of a class are for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

from squall.exception import InvalidError
from squall.protocol.records import record
from squall.sdk._parameters import checked
from squall.sdk._partial import Partial, mark
from squall.sdk._value_text import value_text

if TYPE_CHECKING:
    from squall.sdk.function import Function

P = ParamSpec("P")
R = TypeVar("R")


@record
class MethodOptions:
    """What `squall.method(…)` was given."""

    is_generator: bool | None = None


@record
class HookOptions:
    """What `squall.enter(…)` was given."""

    is_before_snapshot: bool = False


class MethodDecorator:
    """What `squall.method(…)` returns. To type checkers the method is a function, as it is in objects of the class."""

    def __init__(self, options: MethodOptions) -> None:
        self._options = options

    @overload
    def __call__(self, raw_f: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> Function[P, R]: ...

    @overload
    def __call__(self, raw_f: Callable[Concatenate[Any, P], R]) -> Function[P, R]: ...

    def __call__(self, raw_f: Any) -> Any:
        return mark(raw_f, "method", self._options)


class HookDecorator:
    """What `squall.enter(…)` and `squall.exit()` return."""

    def __init__(self, name: str, options: HookOptions) -> None:
        self._name = name
        self._options = options

    def __call__(self, raw_f: Callable[[Any], Any]) -> Partial[..., Any]:
        return mark(raw_f, self._name, self._options)


@checked("@squall.method")
def method(_wrong: object = None, *, is_generator: bool | None = None) -> MethodDecorator:
    """Let the function below, in a class with `@app.cls()`, be called from outside: `MyCls().name.remote(…)`.

    `is_generator` says so where a plain function returns a generator. Within the class, `self.name` is the same:
    `self.name.local(…)` calls it right there.

    Raises (when a function is decorated):
        InvalidError: it is no plain function, or has another decorator that contradicts this one.
    """
    _refuse_bare("method", _wrong)
    if is_generator is not None and not isinstance(is_generator, bool):
        raise InvalidError(f"@squall.method(is_generator={value_text(is_generator)}): it must be True, False or None")
    return MethodDecorator(MethodOptions(is_generator))


@checked("@squall.enter")
def enter(_wrong: object = None, *, snap: bool = False) -> HookDecorator:
    """Run the function below once in each container, when it starts: before its first input.

    Those of a class run in the order they are written in, those of the classes above it first. What one raises is
    raised by all calls that wait for a container. `snap` is for memory snapshots.
    """
    _refuse_bare("enter", _wrong)
    if not isinstance(snap, bool):
        raise InvalidError(f"@squall.enter(snap={value_text(snap)}): it must be True or False")
    return HookDecorator("enter", HookOptions(snap))


@checked("@squall.exit")
def exit(_wrong: object = None) -> HookDecorator:  # noqa: A001 - the name that programs use
    """Run the function below when a container ends, after its last input, if its enter hooks have run.

    It has 30 s: when a container is no longer needed, when its app stops, and when it is told to end.
    """
    _refuse_bare("exit", _wrong)
    return HookDecorator("exit", HookOptions())


def _refuse_bare(name: str, wrong: object) -> None:
    if wrong is not None:
        raise InvalidError(f"write @squall.{name}() with parentheses")
