"""What `squall.*` decorators make of a function or class: still the user's own, and what was asked of it.

They go below `@app.function` or `@app.cls`, which takes the partial apart. A partial that none of these takes is the
user's own still: as a method it binds, and a class can be derived from.

    @app.cls()                            reads partials: of the class, and of what is in its body
    @squall.concurrent(max_inputs=8)      Partial(class, {"concurrent": Concurrency(8)})
    class Model:
        @squall.enter()                   Partial(function, {"enter": ...})
        def load(self): ...
        @squall.method()                  Partial(function, {"method": ...})
        def predict(self, x): ...
"""

from __future__ import annotations

from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

from squall.exception import InvalidError

P = ParamSpec("P")
R = TypeVar("R")

OF_CLASSES = frozenset(["concurrent"])
"""May be put on a class, and then not on its methods; the others go on functions."""
CALLABLE = frozenset(["method", "batched"])
"""Make a function something to call from outside."""
WEB = frozenset(["fastapi_endpoint", "asgi_app", "wsgi_app", "web_server"])
"""Make it one that answers requests."""
INTERFACES = CALLABLE | WEB
HOOKS = frozenset(["enter", "exit"])
"""Make it something that is run by itself."""
OF_FUNCTIONS = frozenset(["concurrent", "batched"]) | WEB
"""Mean something on a function that is no method."""


class Partial(Generic[P, R]):
    """A function or class that was decorated by `squall.*` and not by an app yet."""

    def __init__(self, raw: Any, asked: dict[str, Any]) -> None:
        self.raw = raw
        """The user's own function or class."""
        self.asked = asked
        """What was asked, by the name of the decorator."""
        self.__doc__ = raw.__doc__
        self.__wrapped__ = raw

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> NoReturn:
        above = "app.cls" if isinstance(self.raw, type) else "app.function"
        raise TypeError(
            f"{self.raw.__qualname__} has {_list(self.asked)} on it and no @{above}() above, so it cannot be called"
        )

    def __get__(self, instance: object, owner: type) -> Any:
        """In an instance, the user's own method; in one that an app's class has made, a function that can be called
        from elsewhere, too."""
        if instance is None:
            return self
        made = getattr(instance, "__dict__", {}).get("_squall_object")
        if made is not None and self.asked.keys() & INTERFACES:
            return getattr(made, self.raw.__name__)
        return self.raw.__get__(instance, owner)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return (self.raw,)

    def __repr__(self) -> str:
        return f"<Partial {self.raw.__qualname__}: {_list(self.asked)}>"


def mark(target: Any, name: str, value: object) -> Partial[..., Any]:
    """`target` with `value` asked of it by the decorator `squall.<name>`.

    Raises:
        InvalidError: that decorator does not go there, or not together with those that are there already.
    """
    raw, asked = (target.raw, target.asked) if isinstance(target, Partial) else (target, {})
    _check_target(raw, name)
    if name in asked:
        raise InvalidError(f"@squall.{name}() is on {raw.__qualname__} twice; leave one out")
    marked = Partial[..., Any](raw, {**asked, name: value})
    _check_together(marked)
    return marked


def check_function(name: str, asked: dict[str, Any]) -> None:
    """What `@app.function` finds below it on the function `name`.

    Raises:
        InvalidError: something that only methods can have.
    """
    foreign = sorted(asked.keys() - OF_FUNCTIONS)
    if foreign:
        raise InvalidError(f"{_list(foreign)} on function {name}: it goes on methods of a class with @app.cls()")


def take_apart(target: Any) -> tuple[Any, dict[str, Any]]:
    """The user's own function or class, and what `squall.*` decorators have asked of it."""
    return (target.raw, target.asked) if isinstance(target, Partial) else (target, {})


def is_method(raw: Any) -> bool:
    """Whether a function was defined in the body of a class."""
    return "." in raw.__qualname__.rpartition("<locals>.")[2]


def _check_target(raw: Any, name: str) -> None:
    if isinstance(raw, type):
        if name in OF_CLASSES:
            return
        what = "a method of it" if name in INTERFACES | HOOKS else "a function"
        raise InvalidError(f"@squall.{name}() on the class {raw.__qualname__}: put it on {what}")
    if not callable(raw) or not hasattr(raw, "__code__"):
        # An app's decorator leaves something that is neither function nor class.
        where = "@app.function() or @app.cls()" if name in OF_CLASSES else "@app.function()"
        raise InvalidError(f"@squall.{name}() on {raw!r}: it goes on a plain function, below {where}")


def _check_together(marked: Partial[..., Any]) -> None:
    asked, where = marked.asked.keys(), marked.raw.__qualname__
    if isinstance(marked.raw, type):
        return
    if HOOKS & asked and asked - HOOKS:
        what = "answer requests" if asked & WEB else "be called"
        raise InvalidError(f"{_list(sorted(asked))} on {where}: what is run by itself cannot {what} as well")
    webs = sorted(asked & WEB)
    if len(webs) > 1:
        raise InvalidError(f"{_list(webs)} on {where}: a function answers requests in one way; leave one out")
    if webs and asked & CALLABLE:
        both = _list([*sorted(asked & CALLABLE), *webs])
        raise InvalidError(f"{both} on {where}: what answers requests cannot be called as well; make two of it")
    if asked >= CALLABLE:
        raise InvalidError(f"@squall.method() on {where}, which is batched: @squall.batched() alone makes it a method")
    if "concurrent" in asked and ("method" in asked or is_method(marked.raw)):
        owner = where.rpartition(".")[0] or "its class"
        raise InvalidError(
            f"@squall.concurrent() on the method {where}: put it on {owner}, all of whose methods share a container"
        )


def _list(names: Any) -> str:
    return " and ".join(f"@squall.{name}()" for name in names)
