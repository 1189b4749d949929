"""What a map is given: iterables of the user's, pulled as it gets on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any

from squall.exception import InvalidError
from squall.sdk._own_loop import OwnLoop
from squall.sdk._pending import is_driven, running_loop
from squall.sdk._value_text import value_text


class Feed:
    """The inputs of a map, pulled from the user's iterators in the caller's thread (or task, for async ones).

    A blocking form may be given async iterators, too: each item is awaited in an event loop of the feed's own.
    """

    def __init__(self, what: str, iterables: tuple[Any, ...], *, is_star: bool) -> None:
        """`what` is how its user wrote the map.

        Raises:
            InvalidError: something else than iterables.
        """
        wanted = "one iterable of tuples of arguments" if is_star else "iterables, one for each argument"
        if not iterables:
            raise InvalidError(f"{what}: give at least one iterable")
        for one in iterables:
            if not hasattr(one, "__aiter__") and not _is_iterable(one):
                raise InvalidError(
                    f"{what}: {value_text(one)} cannot be iterated; it takes {wanted}. For one input say .remote(…)"
                )
        self._what = what
        self._is_star = is_star
        self._size = _least_size(iterables)
        self._iterators: list[Iterator[Any]] | None = None
        self._async_iterators: list[AsyncIterator[Any]] | None = None
        self._own_loop: OwnLoop | None = None
        if any(hasattr(one, "__aiter__") for one in iterables):
            self._async_iterators = [_as_async(one).__aiter__() for one in iterables]
        else:
            self._iterators = [iter(one) for one in iterables]

    @property
    def is_async(self) -> bool:
        """Whether pulling may wait."""
        return self._async_iterators is not None

    @property
    def size(self) -> int | None:
        """How many inputs there will be, where the iterables tell."""
        return self._size

    def pull(self) -> tuple[Any, ...] | None:
        """The next positional arguments, or None at the end of the shortest iterator."""
        assert self._iterators is not None
        try:
            if self._is_star:
                return self._unpacked(next(self._iterators[0]))
            return tuple([next(iterator) for iterator in self._iterators])
        except StopIteration:
            return None

    async def pull_async(self) -> tuple[Any, ...] | None:
        """As `pull`.

        Raises:
            InvalidError: the caller blocks the event loop that async iterators would be awaited in.
        """
        if self._async_iterators is None:
            return self.pull()
        if not is_driven():
            return await self._awaited(self._async_iterators)
        if running_loop() is not None:
            raise InvalidError(
                f"{self._what}: async iterators cannot be awaited in an event loop that stands still; write the form "
                "with .aio"
            )
        if self._own_loop is None:
            self._own_loop = OwnLoop()
        return self._own_loop.run(self._awaited(self._async_iterators))

    def close(self) -> None:
        """No more is pulled; may be repeated."""
        own_loop, self._own_loop = self._own_loop, None
        if own_loop is not None:
            own_loop.close()

    async def _awaited(self, iterators: list[AsyncIterator[Any]]) -> tuple[Any, ...] | None:
        values = []
        for iterator in iterators:
            try:
                values.append(await iterator.__anext__())
            except StopAsyncIteration:
                return None
        return self._unpacked(values[0]) if self._is_star else tuple(values)

    def _unpacked(self, arguments: Any) -> tuple[Any, ...]:
        if not _is_iterable(arguments):
            raise InvalidError(
                f"{self._what}: one of the inputs is {value_text(arguments)}, which is no tuple of arguments; "
                "for one argument each say .map(…)"
            )
        return tuple(arguments)


def keyword_arguments(what: str, kwargs: object) -> dict[str, Any]:
    """What each input of a map is given by name.

    Raises:
        InvalidError: no dictionary of them.
    """
    if kwargs is None:
        return {}
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise InvalidError(
            f"{what}: kwargs={value_text(kwargs)} must be a dictionary: arguments by their names, for all inputs alike"
        )
    return dict(kwargs)


def _least_size(iterables: tuple[Any, ...]) -> int | None:
    """How many items the shortest has, where all of them tell."""
    try:
        return min(map(len, iterables))
    except Exception:  # noqa: BLE001 - also what has a length may not know it: a DataLoader of a stream raises
        return None


def _is_iterable(one: Any) -> bool:
    # Also what has only __getitem__ can be iterated.
    return hasattr(type(one), "__iter__") or hasattr(type(one), "__getitem__")


async def _as_async(iterable: Iterable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
    if isinstance(iterable, AsyncIterable):
        async for item in iterable:
            yield item
    else:
        for item in iterable:
            yield item
