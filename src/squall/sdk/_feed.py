"""What a map is given: iterables of the user's, pulled as it gets on."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any


class Feed:
    """The inputs of a map, pulled from the user's iterators in the caller's thread (or task, for async ones)."""

    def __init__(self, iterables: tuple[Any, ...], is_star: bool) -> None:
        for one in iterables:
            if not hasattr(one, "__aiter__") and not _is_iterable(one):
                wanted = "one iterable of tuples of arguments" if is_star else "iterables, one per argument"
                raise TypeError(
                    f"inputs of type {type(one).__name__}: a map takes {wanted}; say .remote(…) for a single input"
                )
        self._is_star = is_star
        are_sized = all(hasattr(type(one), "__len__") for one in iterables)
        self._size = min(len(one) for one in iterables) if are_sized else None
        self._iterators: list[Iterator[Any]] | None = None
        self._async_iterators: list[AsyncIterator[Any]] | None = None
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
                return tuple(next(self._iterators[0]))
            return tuple([next(iterator) for iterator in self._iterators])
        except StopIteration:
            return None

    async def pull_async(self) -> tuple[Any, ...] | None:
        """As `pull`."""
        if self._async_iterators is None:
            return self.pull()
        values = []
        for iterator in self._async_iterators:
            try:
                values.append(await iterator.__anext__())
            except StopAsyncIteration:
                return None
        return tuple(values[0]) if self._is_star else tuple(values)


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
