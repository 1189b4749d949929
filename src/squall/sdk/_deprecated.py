"""What programs from elsewhere may still write: it works, and a warning says what to write now."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from squall.exception import DeprecationError

F = TypeVar("F", bound=Callable[..., Any])


def deprecated(what: str, instead: str) -> Callable[[F], F]:
    """Decorates the core of what a user calls as `what`, below what makes it a blocking one."""

    def decorate(core: F) -> F:
        @wraps(core)
        def warn(*args: Any, **given: Any) -> Any:
            _warn(f"{what} is deprecated; {instead}")
            return core(*args, **given)

        return cast("F", warn)

    return decorate


def without(name: str, what: str) -> Callable[[F], F]:
    """As `deprecated`, for a parameter that has no effect any more and is left out of what is called."""

    def decorate(core: F) -> F:
        @wraps(core)
        def drop(*args: Any, **given: Any) -> Any:
            if name in given:
                del given[name]
                _warn(f"{what}({name}=…) is deprecated and has no effect; leave it out")
            return core(*args, **given)

        return cast("F", drop)

    return decorate


def _warn(text: str) -> None:
    # Of the user's line: this, the wrapper, and the blocking or async form around it.
    warnings.warn(text, DeprecationError, stacklevel=4)
