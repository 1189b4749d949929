"""`@app.cls(…)`: what makes a class of the app of what it is put on."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, TypeVar, cast

from squall.exception import InvalidError
from squall.sdk import _container, _source
from squall.sdk._definition import Definition
from squall.sdk._entrypoint import LocalEntrypoint
from squall.sdk._names import check_name
from squall.sdk._options import Options, check_flag
from squall.sdk._partial import take_apart
from squall.sdk._user_class import UserClass
from squall.sdk.cls import Cls
from squall.sdk.function import Function

if TYPE_CHECKING:
    from squall.sdk.app import App

C = TypeVar("C")


class ClassDecorator:
    """What `app.cls(…)` returns."""

    def __init__(self, app: App, given: dict[str, Any]) -> None:
        self._app = app
        self._given = given

    def __call__(self, target: type[C]) -> type[C]:
        given: dict[str, Any] = {**self._given, "schedule": None}
        raw, asked = take_apart(target)
        check_class("@app.cls()", raw, is_serialized=self._given["serialized"])
        user_class = UserClass(raw)
        name = check_name(user_class.name, "class name")
        options = Options(name, given, {**asked, "batched": user_class.batching})
        user_class.check_snapshot(is_enabled=options.is_snapshot_enabled)
        self._check_minimum(user_class, options)
        if options.retries is not None and all(one.is_generator for one in user_class.methods.values()):
            raise InvalidError(
                f"class {name}: retries= must be left out where all methods are generators, which have yielded already"
            )
        self._check_web(user_class, options)
        if given["include_source"] is not None:
            check_flag("include_source", given["include_source"], f"class {name}")
        source = _source.find_source(raw, given["serialized"])
        if source.is_main and source.kind != _source.SERIALIZED and _container.current() is None:
            from squall.sdk._serialization import ship_main_as  # cold start: scripts only

            ship_main_as(source.module_name)
        definition = Definition(raw, source, options, given["image"], given["include_source"], user_class)
        function: Function[..., Any] = Function._make(name, app=self._app, definition=definition)
        made = Cls._make(function, user_class)
        self._app._add(function, made)
        return cast("type[C]", made)

    def _check_web(self, user_class: UserClass, options: Options) -> None:
        webs = user_class.web_methods
        if not webs:
            return
        name, methods = user_class.name, ", ".join(webs)
        if options.retries is not None and options.retries.max_retries:
            raise InvalidError(
                f"class {name}: retries= cannot be used with what answers requests: {methods}; make another class for "
                "the rest"
            )
        required = [one.name for one in user_class.givable if one.is_required]
        if required:
            raise InvalidError(
                f"class {name}: requests for {methods} name no object, so each parameter needs a default, and "
                f"{', '.join(required)} has none"
            )

    def _check_minimum(self, user_class: UserClass, options: Options) -> None:
        """Nobody can keep containers of objects that nobody has named."""
        required = [one.name for one in user_class.givable if one.is_required]
        if required and options.min_containers:
            options.min_containers = 0
            if _container.current() is None:
                warnings.warn(
                    f"class {user_class.name}: min_containers= means nothing for a class whose objects need "
                    f"{', '.join(required)}; containers start when an object is called",
                    stacklevel=3,
                )


def check_class(decorator: str, raw: Any, *, is_serialized: bool) -> None:
    """Refuse what is no class that a container could find again.

    Raises:
        InvalidError: it is not; `decorator` is what it is below.
    """
    if isinstance(raw, (Cls, Function, LocalEntrypoint)) or hasattr(type(raw), "service_function"):
        raise InvalidError(f"{decorator} on {raw!r}: it is decorated by an app already")
    if not isinstance(raw, type):
        raise InvalidError(f"{decorator} on {raw!r}: it takes a class; functions have @app.function()")
    if "<locals>" in raw.__qualname__ and not is_serialized:
        raise InvalidError(
            f"class {raw.__qualname__}: it is defined inside a function, where a container cannot import it; move "
            "it to the top level of its module, or use serialized=True"
        )
    if "." in raw.__qualname__.rpartition("<locals>.")[2]:
        raise InvalidError(f"class {raw.__qualname__}: it is defined in another class; move it out of there")
