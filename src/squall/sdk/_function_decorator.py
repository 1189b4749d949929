"""`@app.function(…)`: what makes a function of the app of what it is put on."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from squall.exception import InvalidError
from squall.sdk import _container, _source
from squall.sdk._definition import Definition
from squall.sdk._entrypoint import LocalEntrypoint
from squall.sdk._names import check_name
from squall.sdk._options import Options, check_flag
from squall.sdk._partial import Partial, check_function, take_apart
from squall.sdk.function import Function

if TYPE_CHECKING:
    from squall.sdk.app import App

P = ParamSpec("P")
R = TypeVar("R")


class FunctionDecorator:
    """What `app.function(…)` returns."""

    def __init__(self, app: App, given: dict[str, Any]) -> None:
        self._app = app
        self._given = given

    @overload
    def __call__(self, raw_f: Partial[P, Coroutine[Any, Any, R]]) -> Function[P, R]: ...

    @overload
    def __call__(self, raw_f: Partial[P, R]) -> Function[P, R]: ...

    @overload
    def __call__(self, raw_f: Callable[P, Coroutine[Any, Any, R]]) -> Function[P, R]: ...

    @overload
    def __call__(self, raw_f: Callable[P, R]) -> Function[P, R]: ...

    def __call__(self, raw_f: Any) -> Function[..., Any]:
        given = self._given
        raw_f, asked = take_apart(raw_f)
        if isinstance(raw_f, (Function, LocalEntrypoint)):
            raise InvalidError(
                f"{raw_f!r} is decorated already: put one of @app.function and @app.local_entrypoint on it"
            )
        _source.check_definable(raw_f, given["serialized"])
        name = given["name"] if given["name"] is not None else raw_f.__qualname__.rpartition("<locals>.")[2]
        way_out = "" if given["name"] is not None else "; or give it another one: @app.function(name=…)"
        check_name(name, "function name", way_out)
        check_function(name, asked)
        options = Options(name, given, asked)
        if given["include_source"] is not None:
            check_flag("include_source", given["include_source"], f"function {name}")
        is_generator = given["is_generator"]
        if is_generator is None:
            is_generator = _source.is_generator(raw_f)
        else:
            check_flag("is_generator", is_generator, f"function {name}")
        if is_generator and options.retries is not None:
            raise InvalidError(f"function {name}: retries= cannot be used on a generator, which has yielded already")
        if is_generator and options.batching is not None:
            raise InvalidError(f"function {name}: is_generator= cannot be used on a batched function; return a list")
        if is_generator and options.web is not None:
            raise InvalidError(f"function {name}: is_generator= cannot be used on what answers requests")
        if options.schedule is not None:
            from squall.sdk.schedule import check_schedulable  # cold start: functions with a schedule only

            check_schedulable(name, raw_f, is_generator=is_generator)
        source = _source.find_source(raw_f, given["serialized"])
        if source.is_main and source.kind != _source.SERIALIZED and _container.current() is None:
            from squall.sdk._serialization import ship_main_as  # cold start: scripts only

            ship_main_as(source.module_name)
        function: Function[..., Any] = Function._make(
            name,
            app=self._app,
            definition=Definition(raw_f, source, options, given["image"], given["include_source"]),
            is_generator=is_generator,
            web=options.web,
        )
        self._app._add(function)
        return function
