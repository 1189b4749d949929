"""A user's class as it is read: what can be called, what runs by itself, and what its objects are told apart by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from squall.exception import InvalidError
from squall.protocol.function import MethodSpec, ParameterSpec
from squall.protocol.parameters import Value
from squall.sdk import _source
from squall.sdk._parameter import Parameter, read_parameters
from squall.sdk._partial import INTERFACES, WEB, Partial

OBJECT_ATTRIBUTE = "_squall_object"
"""Of an instance: the object whose methods its own are, when they are called from within."""


class UserClass:
    """A class below `@app.cls()`, with all it has from the classes above it."""

    def __init__(self, raw: type, *, is_server: bool = False) -> None:
        """Raises:
        InvalidError: it has a constructor, nothing to call, or something that cannot be in a class, or in a server.
        """
        self.raw = raw
        self.name = raw.__qualname__.rpartition("<locals>.")[2]
        _check_constructor(raw, self.name)
        members = _members(raw)
        self.fields = {name: one for name, one in members.items() if isinstance(one, Parameter)}
        self.parameters = read_parameters(raw, self.fields)
        partials = {name: one for name, one in members.items() if isinstance(one, Partial)}
        entering = [one for one in partials.values() if "enter" in one.asked]
        self.snap_hooks = tuple(self._hook(one) for one in entering if one.asked["enter"].is_before_snapshot)
        """Those of its enter hooks that come before a memory snapshot."""
        after = tuple(self._hook(one) for one in entering if not one.asked["enter"].is_before_snapshot)
        self.enter_hooks = (*self.snap_hooks, *after)
        """All of them in the order in which they run."""
        self.exit_hooks = tuple(self._hook(one) for one in partials.values() if "exit" in one.asked)
        self.raw_methods = {name: one.raw for name, one in partials.items() if one.asked.keys() & INTERFACES}
        self.methods = {name: _method(name, partials[name]) for name in self.raw_methods}
        self.batching = next((one.asked["batched"] for one in partials.values() if "batched" in one.asked), None)
        if is_server:
            self._check_server()
        else:
            self._check_methods()

    @property
    def is_async(self) -> bool:
        """Whether anything in it needs an event loop."""
        hooks = (*self.enter_hooks, *self.exit_hooks)
        return any(one.is_async for one in self.methods.values()) or any(_source.is_async(one) for one in hooks)

    @property
    def web_methods(self) -> list[str]:
        """Those that answer requests."""
        return [name for name, one in self.methods.items() if one.web is not None]

    @property
    def givable(self) -> tuple[ParameterSpec, ...]:
        """The parameters that its objects may be given."""
        return tuple(one for name, one in self.parameters.items() if self.fields[name].is_init)

    def make(self, values: Mapping[str, Value]) -> Any:
        """An instance with these parameters, and the defaults of the others. No constructor is called."""
        instance: Any = object.__new__(self.raw)
        for name, field in self.fields.items():
            if name in values or field.has_default:
                setattr(instance, name, values.get(name, field.default))
        return instance

    def _hook(self, partial: Partial[..., Any]) -> Any:
        code = partial.raw.__code__
        name = f"{self.name}.{partial.raw.__name__}"
        kind = "enter" if "enter" in partial.asked else "exit"
        if code.co_argcount != 1 or code.co_kwonlyargcount:
            raise InvalidError(f"@squall.{kind}() on {name}: a hook takes no arguments but self")
        if _source.is_generator(partial.raw):
            raise InvalidError(f"@squall.{kind}() on {name}: a hook cannot yield")
        return partial.raw

    def check_snapshot(self, *, is_enabled: bool) -> None:
        """Whether hooks before a snapshot are in a class that has one.

        Raises:
            InvalidError: they are not.
        """
        if self.snap_hooks and not is_enabled:
            name = f"{self.name}.{self.snap_hooks[0].__name__}"
            raise InvalidError(
                f"@squall.enter(snap=True) on {name} needs a memory snapshot: write @app.cls(enable_memory_snapshot="
                "True), or @squall.enter() for a hook that is run in each container"
            )

    def check_batchable(self, where: str) -> None:
        """Whether its method can be given lists.

        Raises:
            InvalidError: it has several methods, or a parameter cannot be a list.
        """
        from squall.sdk._batched import check_parameters  # cold start: batched classes only

        if len(self.methods) > 1:
            names = ", ".join(self.methods)
            raise InvalidError(f"{where}: batches need a class with a single method, and this one has {names}")
        for raw in self.raw_methods.values():
            check_parameters(where, raw)

    def _check_server(self) -> None:
        for name, one in self.methods.items():
            kind = "method" if one.web is None else one.web.kind
            kind = "batched" if self.batching is not None else kind
            raise InvalidError(
                f"server {self.name}: {name} has @squall.{kind}(), and a server is reached by requests to its port "
                "alone; put it into a class with @app.cls()"
            )
        if self.parameters:
            raise InvalidError(
                f"server {self.name} has squall.parameter() {next(iter(self.parameters))}, and nobody who could give "
                "it: write env= or secrets= of @app.server()"
            )
        if not self.enter_hooks:
            raise InvalidError(
                f"server {self.name} starts nothing: put @squall.enter() on a function that lets something listen "
                "at its port"
            )

    def _check_methods(self) -> None:
        if not self.methods:
            raise InvalidError(f"class {self.name} has nothing to call: put @squall.method() on a function in it")
        if self.batching is not None and len(self.methods) > 1:
            names = ", ".join(self.methods)
            raise InvalidError(
                f"class {self.name} has a batched method, so it can have no other one: it has {names}; make another "
                "class for the rest"
            )
        for name, raw in self.raw_methods.items():
            if not raw.__code__.co_argcount:
                raise InvalidError(f"method {self.name}.{name} takes no self")


def _check_constructor(raw: type, name: str) -> None:
    for one in raw.__mro__:
        if one is not object and "__init__" in one.__dict__ and not getattr(one, "_is_protocol", False):
            whose = "" if one is raw else f", from {one.__qualname__}"
            raise InvalidError(
                f"class {name} has an __init__{whose}, which is not called in containers: write fields as "
                "squall.parameter(), and what is to be done at the start into a function with @squall.enter()"
            )


def _members(raw: type) -> dict[str, Any]:
    """All that instances have by name; what is in a class above comes first, and stays there when it is replaced."""
    found: dict[str, Any] = {}
    for one in reversed(raw.__mro__):
        for name, value in vars(one).items():
            found[name] = value
            inner = value.__func__ if isinstance(value, (staticmethod, classmethod)) else None
            if isinstance(inner, Partial):
                kind = type(value).__name__
                asked = next(iter(inner.asked))
                raise InvalidError(f"@{kind} on {raw.__qualname__}.{name}: what has @squall.{asked}() takes self")
    return found


def _method(name: str, partial: Partial[..., Any]) -> MethodSpec:
    options = partial.asked.get("method")
    is_generator = options.is_generator if options is not None else False
    if is_generator is None:
        is_generator = _source.is_generator(partial.raw)
    web = next((partial.asked[one] for one in WEB if one in partial.asked), None)
    return MethodSpec(name, is_generator, _source.is_async(partial.raw), web)
