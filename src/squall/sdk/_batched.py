"""`squall.batched`: inputs of many calls, run together as lists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from squall.exception import InvalidError
from squall.protocol.function import BATCH_SIZE_MAX, BATCH_WAIT_MS_MAX, Batching
from squall.sdk import _source
from squall.sdk._parameters import checked
from squall.sdk._partial import Partial, is_method, mark
from squall.sdk._value_text import value_text


class BatchedDecorator:
    """What `squall.batched(…)` returns."""

    def __init__(self, batching: Batching) -> None:
        self._batching = batching

    def __call__(self, target: Callable[..., Any]) -> Partial[..., Any]:
        marked = mark(target, "batched", self._batching)
        check_parameters(f"@squall.batched() on {marked.raw.__qualname__}", marked.raw)
        return marked


@checked("@squall.batched")
def batched(*, max_batch_size: int, wait_ms: int) -> BatchedDecorator:
    """Run inputs of the function, or only method of a class, below together.

    Callers pass single values and get single results. The function is given one list for each of its parameters, and
    returns a list of as many results; what it raises is raised by every call of the batch. A batch is run when there
    are `max_batch_size` (1 to 1,000) inputs, or when the first of them has waited `wait_ms` (0 to 600,000), which are
    milliseconds.

    Raises:
        InvalidError: a value is no integer, or too small or large; or, when something is decorated, it is a class or a
            generator, has a parameter with a default value or a star, or is decorated by an app already.
    """
    return BatchedDecorator(check_batching("@squall.batched()", max_batch_size, wait_ms))


def check_batching(what: str, max_batch_size: object, wait_ms: object) -> Batching:
    """Raises:
    InvalidError: as `batched`.
    """
    return Batching(
        _whole(what, "max_batch_size", max_batch_size, 1, BATCH_SIZE_MAX),
        _whole(what, "wait_ms", wait_ms, 0, BATCH_WAIT_MS_MAX),
    )


def _whole(what: str, name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidError(f"{what}: {name}={value_text(value)} must be an integer from {least} to {most:,}")
    return value


def parameter_names(raw: Any) -> list[str]:
    """What a batched function's lists are called, in order; of a method without `self`."""
    return [one.name for one in _parameters(raw)]


def _parameters(raw: Any) -> list[Any]:
    import inspect  # cold start: batched functions only

    return list(inspect.signature(raw).parameters.values())[is_method(raw) :]


def check_parameters(where: str, raw: Any) -> None:
    """Whether each parameter can be given as a list.

    Raises:
        InvalidError: as `batched` says of what is decorated.
    """
    if _source.is_generator(raw):
        raise InvalidError(f"{where}: it is a generator, and a batch has a list of results; return one")
    parameters = _parameters(raw)
    if not parameters:
        raise InvalidError(f"{where}: it takes nothing that there could be a list of; give it a parameter")
    for one in parameters:
        if one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD):
            raise InvalidError(f"{where}: name the parameters that are lists, instead of {one}")
        if one.default is not one.empty:
            raise InvalidError(
                f"{where}: parameter {one.name} has a default value, and every input of a batch must give every one; "
                "take the default away"
            )
