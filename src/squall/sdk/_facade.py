"""The blocking face of the core: `thing.method()` blocks, `thing.method.aio()` is the coroutine itself.

class Function:
    @blocking
    async def remote(self, x): ...        # f.remote(1), await f.remote.aio(1)

    @blocking_iterator
    async def remote_gen(self, x): ...    # for i in f.remote_gen(1), async for i in f.remote_gen.aio(1)

    @blocking_context
    async def run(self): yield ...        # with app.run(), async with app.run(), async with app.run.aio()
"""

from __future__ import annotations

import atexit
import os
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

from squall.exception import AsyncUsageWarning, InvalidError
from squall.sdk._pending import iterate, run, running_loop

if TYPE_CHECKING:
    from types import TracebackType

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


def stops_a_loop() -> bool:
    """Whether what blocks here keeps an event loop of the program from going on. That of a notebook is none."""
    if running_loop() is None:
        return False
    from squall.sdk._cell import is_in_cell  # cold start: only in an event loop

    return not is_in_cell()


def warn_in_loop(name: str, suggestion: str, stacklevel: int = 3) -> None:
    """Say that a blocking form is used where it stops an event loop; by default in the caller of our caller."""
    if stops_a_loop():
        warnings.warn(
            f"{name} blocks the event loop it is called in; write {suggestion}",
            AsyncUsageWarning,
            stacklevel=stacklevel,
        )


class BlockingCall(Generic[P, T]):
    """A bound method in both forms."""

    __slots__ = ("_core", "_name")

    def __init__(self, core: Callable[P, Coroutine[Any, Any, T]], name: str) -> None:
        self._core = core
        self._name = name

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        warn_in_loop(f".{self._name}()", f"`await ….{self._name}.aio(…)`")
        try:
            return run(self._core(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - raised again
            from squall.sdk._traceback import for_user_code  # cold start: only when something failed

            raise for_user_code(error)  # noqa: B904 - it is that error

    def aio(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """The same as a coroutine."""
        coroutine = _awaited(self._core, args, kwargs)
        named: Any = coroutine
        named.__qualname__ = getattr(self._core, "__qualname__", self._name)  # as Python says what nobody awaited
        return coroutine


async def _awaited(core: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
    try:
        return await core(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - raised again
        from squall.sdk._traceback import for_user_code  # cold start: only when something failed

        raise for_user_code(error)  # noqa: B904 - it is that error


class blocking(Generic[S, P, T]):  # noqa: N801 - a decorator
    """Give an async method a blocking form; the method itself becomes `.aio`."""

    def __init__(self, core: Callable[Concatenate[S, P], Coroutine[Any, Any, T]]) -> None:
        self._core = core
        self.__doc__ = core.__doc__
        self.__name__ = core.__name__

    @overload
    def __get__(self, owner: None, kind: type) -> blocking[S, P, T]: ...

    @overload
    def __get__(self, owner: S, kind: type) -> BlockingCall[P, T]: ...

    def __get__(self, owner: S | None, kind: type) -> blocking[S, P, T] | BlockingCall[P, T]:
        if owner is None:
            return self
        return BlockingCall(cast("Any", self._core).__get__(owner, kind), self.__name__)


class blocking_itself(Generic[P]):  # noqa: N801 - a decorator
    """As `blocking`, for a method that returns the object itself, whichever class that is of."""

    def __init__(self, core: Callable[Concatenate[Any, P], Coroutine[Any, Any, object]]) -> None:
        self._core = core
        self.__doc__ = core.__doc__
        self.__name__ = core.__name__

    @overload
    def __get__(self, owner: None, kind: type) -> blocking_itself[P]: ...

    @overload
    def __get__(self, owner: S, kind: type) -> BlockingCall[P, S]: ...

    def __get__(self, owner: S | None, kind: type) -> blocking_itself[P] | BlockingCall[P, S]:
        if owner is None:
            return self
        return BlockingCall(cast("Any", self._core).__get__(owner, kind), self.__name__)


class blocking_static(Generic[P, T]):  # noqa: N801 - a decorator
    """As `blocking`, for what needs no object (below `@staticmethod` is not needed)."""

    def __init__(self, core: Callable[P, Coroutine[Any, Any, T]]) -> None:
        self._core = core
        self.__doc__ = core.__doc__
        self.__name__ = core.__name__

    def __get__(self, owner: object, kind: type) -> BlockingCall[P, T]:
        return BlockingCall(self._core, self.__name__)


class _Items(AsyncGenerator[T, None]):
    """What `async for` takes items from: the generator, which the event loop closes, if nobody does."""

    __slots__ = ("_generator",)

    def __init__(self, generator: AsyncGenerator[T, None]) -> None:
        self._generator = generator

    def __anext__(self) -> Coroutine[Any, Any, T]:
        return self._taken(self._generator.__anext__())

    def asend(self, value: None, /) -> Coroutine[Any, Any, T]:
        return self._taken(self._generator.asend(value))

    def athrow(self, *error: Any) -> Coroutine[Any, Any, T]:
        return self._taken(self._generator.athrow(*error))

    async def aclose(self) -> None:
        await self._generator.aclose()

    async def _taken(self, item: Awaitable[T]) -> T:
        try:
            return await item
        except StopAsyncIteration:
            raise
        except BaseException as error:  # noqa: BLE001 - raised again
            from squall.sdk._traceback import for_user_code  # cold start: only when something failed

            raise for_user_code(error)  # noqa: B904 - it is that error


class BlockingIterator(Generic[T]):
    """What an iterator method returns: iterate it, or nothing happens, and a warning says so."""

    def __init__(self, generator: AsyncGenerator[T, None], name: str) -> None:
        self._generator: AsyncGenerator[T, None] | None = generator
        self._name = name
        self._iterator: Generator[T, None, None] | None = None
        self._taken: AsyncGenerator[T, None] | None = None

    def _take(self) -> AsyncGenerator[T, None]:
        if self._generator is None:
            raise RuntimeError(f"the result of .{self._name}() can be iterated once only; call it again")
        self._taken, self._generator = self._generator, None
        return self._taken

    def close(self) -> None:
        """Give the call up, if it still goes on: `contextlib.closing` does. Nothing can be iterated any more."""
        self._generator = None
        if self._iterator is not None:
            self._iterator.close()

    async def aclose(self) -> None:
        """As `close`, of what `async for` iterates: `contextlib.aclosing` does."""
        self._generator = None
        if self._taken is not None:
            await self._taken.aclose()

    def __iter__(self) -> Iterator[T]:
        return self._started()

    def __next__(self) -> T:
        return next(self._started())

    def _started(self) -> Iterator[T]:
        if self._iterator is None:
            suggestion = f"`async for … in ….{self._name}.aio(…)`"
            if self._name != "remote_gen" and stops_a_loop():
                self.close()
                raise InvalidError(f".{self._name}() cannot be iterated in an event loop; write {suggestion}")
            warn_in_loop(f"Iterating .{self._name}()", suggestion, stacklevel=4)
            self._iterator = iterate(self._take())
        return self._iterator

    def __aiter__(self) -> AsyncGenerator[T, None]:
        return _Items(self._take())

    def __del__(self) -> None:
        if getattr(self, "_generator", None) is not None:
            warnings.warn(
                f"the result of .{self._name}() was never iterated, so {_UNDONE.get(self._name, _NOTHING_WAS_RUN)}",
                UserWarning,
                stacklevel=2,
            )


_NOTHING_WAS_RUN = "nothing was run; iterate it, or use .for_each() or .spawn_map() where the results do not matter"
_UNDONE = {
    "remote_gen": "nothing was run; iterate it",
    "iter": "nothing was fetched; iterate it",
    "items": "nothing was read; iterate it",
    "iterate": "nothing was read; iterate it",
    "keys": "nothing was read; iterate it",
    "values": "nothing was read; iterate it",
}
"""What did not happen, by the method whose result nobody iterated."""


class IteratorCall(Generic[P, T]):
    """A bound iterator method in both forms."""

    __slots__ = ("_core", "_name")

    def __init__(self, core: Callable[P, AsyncGenerator[T, None]], name: str) -> None:
        self._core = core
        self._name = name

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> BlockingIterator[T]:
        return BlockingIterator(self._core(*args, **kwargs), self._name)

    def aio(self, /, *args: P.args, **kwargs: P.kwargs) -> BlockingIterator[T]:
        """The same, for `async for`."""
        return BlockingIterator(self._core(*args, **kwargs), self._name)


class blocking_iterator(Generic[S, P, T]):  # noqa: N801 - a decorator
    """Give an async generator method a blocking form."""

    def __init__(self, core: Callable[Concatenate[S, P], AsyncGenerator[T, None]]) -> None:
        self._core = core
        self.__doc__ = core.__doc__
        self.__name__ = core.__name__

    @overload
    def __get__(self, owner: None, kind: type) -> blocking_iterator[S, P, T]: ...

    @overload
    def __get__(self, owner: S, kind: type) -> IteratorCall[P, T]: ...

    def __get__(self, owner: S | None, kind: type) -> blocking_iterator[S, P, T] | IteratorCall[P, T]:
        if owner is None:
            return self
        return IteratorCall(cast("Any", self._core).__get__(owner, kind), self.__name__)


class BlockingContext(Generic[T]):
    """A context manager made from an async generator with one `yield`; `with` and `async with` both work."""

    def __init__(self, generator: AsyncGenerator[T, None], name: str) -> None:
        self._generator = generator
        self._name = name
        self._is_used = False

    def __enter__(self) -> T:
        warn_in_loop(f"`with ….{self._name}()`", f"`async with ….{self._name}()`")
        try:
            entered = run(self.__aenter__())
        except BaseException as error:  # noqa: BLE001 - raised again
            from squall.sdk._traceback import for_user_code  # cold start: only when something failed

            raise for_user_code(error)  # noqa: B904 - it is that error
        _entered.append(self)
        return entered

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self in _entered:
            _entered.remove(self)
        return run(self.__aexit__(kind, error, trace))

    async def __aenter__(self) -> T:
        if self._is_used:
            raise RuntimeError(f"the result of .{self._name}() can be entered once only; call it again")
        self._is_used = True
        return await self._generator.__anext__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            if error is None:
                await self._generator.__anext__()
            else:
                await self._generator.athrow(error)
        except StopAsyncIteration:
            return error is not None
        except BaseException as raised:
            # No async generator can raise these two: Python has put an error of its own in their place.
            is_in_its_place = isinstance(error, (StopIteration, StopAsyncIteration)) and raised.__cause__ is error
            if error is not None and (raised is error or is_in_its_place):
                error.__traceback__ = trace
                return False
            raise
        finally:
            await self._generator.aclose()
        raise RuntimeError("the generator of a context did not stop")


_entered: list[BlockingContext[Any]] = []
"""Entered by `with` and not left yet."""


@atexit.register
def _leave_entered() -> None:
    """Leave what a program never left, as at an interactive prompt, while Python is whole: later nothing can be waited
    for."""
    while _entered:
        _entered[-1].__exit__(None, None, None)


# What the parent has entered is the parent's to leave.
os.register_at_fork(after_in_child=_entered.clear)


class ContextCall(Generic[P, T]):
    """A bound context method in both forms."""

    __slots__ = ("_core", "_name")

    def __init__(self, core: Callable[P, AsyncGenerator[T, None]], name: str) -> None:
        self._core = core
        self._name = name

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> BlockingContext[T]:
        return BlockingContext(self._core(*args, **kwargs), self._name)

    def aio(self, /, *args: P.args, **kwargs: P.kwargs) -> BlockingContext[T]:
        """The same; both work with `async with`."""
        return self(*args, **kwargs)


class blocking_static_context(Generic[P, T]):  # noqa: N801 - a decorator
    """As `blocking_context`, for what needs no object."""

    def __init__(self, core: Callable[P, AsyncGenerator[T, None]]) -> None:
        self._core = core
        self.__doc__ = core.__doc__
        self.__name__ = core.__name__

    def __get__(self, owner: object, kind: type) -> ContextCall[P, T]:
        return ContextCall(self._core, self.__name__)


class blocking_context(Generic[S, P, T]):  # noqa: N801 - a decorator
    """Make a context manager, for `with` and `async with`, of an async generator method."""

    def __init__(self, core: Callable[Concatenate[S, P], AsyncGenerator[T, None]]) -> None:
        self._core = core
        self.__doc__ = core.__doc__
        self.__name__ = core.__name__

    @overload
    def __get__(self, owner: None, kind: type) -> blocking_context[S, P, T]: ...

    @overload
    def __get__(self, owner: S, kind: type) -> ContextCall[P, T]: ...

    def __get__(self, owner: S | None, kind: type) -> blocking_context[S, P, T] | ContextCall[P, T]:
        if owner is None:
            return self
        return ContextCall(cast("Any", self._core).__get__(owner, kind), self.__name__)
