"""`squall.concurrent`: several inputs at once in one container."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, overload

from squall.exception import InvalidError
from squall.protocol.function import INPUTS_AT_ONCE_MAX
from squall.protocol.records import record
from squall.sdk._parameters import checked
from squall.sdk._partial import Partial, mark
from squall.sdk._value_text import value_text

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


@record
class Concurrency:
    """How many inputs a container runs at once, and how many it is meant to."""

    max_inputs: int
    target_inputs: int | None = None


class ConcurrentDecorator:
    """What `squall.concurrent(…)` returns."""

    def __init__(self, concurrency: Concurrency) -> None:
        self._concurrency = concurrency

    @overload
    def __call__(self, target: type[C]) -> type[C]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, target: Partial[P, R]) -> Partial[P, R]: ...

    @overload
    def __call__(self, target: Callable[P, R]) -> Partial[P, R]: ...

    def __call__(self, target: Any) -> Any:
        return mark(target, "concurrent", self._concurrency)


@checked("@squall.concurrent")
def concurrent(
    _wrong: object = None, *, max_inputs: int | None = None, target_inputs: int | None = None
) -> ConcurrentDecorator:
    """Let each container of the function, or class, below run up to `max_inputs` inputs at once.

    Async functions run as tasks on one event loop, others in threads, so they must be safe to be run in several. The
    autoscaler aims at `target_inputs` for each container (`max_inputs` where that is left out), so that there is room
    for more until further containers have started. With `squall.batched`, both count batches.

    Raises:
        InvalidError: `max_inputs` is missing or not from 1 to 1,000, or `target_inputs` not from 1 to `max_inputs`; or,
            when something is decorated, it is a method (put it on the class), or decorated by an app already.
    """
    if _wrong is not None:
        raise InvalidError("write @squall.concurrent(max_inputs=…) with parentheses")
    return ConcurrentDecorator(check_concurrency("@squall.concurrent()", max_inputs, target_inputs))


def check_concurrency(what: str, max_inputs: object, target_inputs: object) -> Concurrency:
    """Raises:
    InvalidError: as `concurrent`.
    """
    most = _count(what, "max_inputs", max_inputs, INPUTS_AT_ONCE_MAX)
    if target_inputs is None:
        return Concurrency(most)
    return Concurrency(most, _count(what, "target_inputs", target_inputs, most))


def _count(what: str, name: str, value: object, most: int) -> int:
    if value is None:
        raise InvalidError(f"{what} needs {name}=, an integer from 1 to {most:,}")
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        limit = f"max_inputs={most}" if name == "target_inputs" else f"{most:,}"
        raise InvalidError(f"{what}: {name}={value_text(value)} must be an integer from 1 to {limit}")
    return value
