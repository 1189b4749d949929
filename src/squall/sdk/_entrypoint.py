"""Functions that `squall run` starts on the caller's machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

from squall.exception import InvalidError
from squall.sdk._names import check_name
from squall.sdk._partial import Partial
from squall.sdk.function import Function

if TYPE_CHECKING:
    from squall.sdk.app import App

P = ParamSpec("P")
R = TypeVar("R")


class LocalEntrypoint(Generic[P, R]):
    """A function that runs on the caller's machine, chosen by `squall run`. Calling it calls the function."""

    def __init__(self, raw_f: Callable[P, R], name: str, app: App) -> None:
        self.raw_f = raw_f
        self.name = name
        self.app = app
        self.__doc__ = raw_f.__doc__
        self.__name__ = name
        self.__wrapped__ = raw_f

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.raw_f(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<LocalEntrypoint {self.name}>"


class EntrypointDecorator:
    """What `app.local_entrypoint(…)` returns."""

    def __init__(self, app: App, name: str | None) -> None:
        self._app = app
        self._name = name

    def __call__(self, raw_f: Callable[P, R]) -> LocalEntrypoint[P, R]:
        if isinstance(raw_f, (Function, LocalEntrypoint)):
            raise InvalidError(
                f"{raw_f!r} is decorated already: put one of @app.function and @app.local_entrypoint on it"
            )
        if isinstance(raw_f, (type, Partial)) or not callable(raw_f):
            raise InvalidError(f"@app.local_entrypoint() on {raw_f!r}: it takes a plain function")
        name = check_name(self._name, "entrypoint name") if self._name is not None else raw_f.__qualname__
        return self._app._add_entrypoint(LocalEntrypoint(raw_f, name, self._app))
