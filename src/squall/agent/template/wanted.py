"""Image templates that starts would have been forked from, and that are made in the background."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Coroutine
from typing import Any

from squall.agent.template.way import Wish
from squall.protocol.node import ContainerStart
from squall.protocol.task_set import TaskSet

SETTLE_S = 1.0
"""After a first container has got going, until its image template is made: the function is loaded there meanwhile."""
AT_ONCE = 1
TURN_S = 10.0
"""After so long the next one is begun beside it: what an image runs at its start of Python may wait for ever."""
_KEYS_MAX = 4_096
_INSISTENT = 3
"""Starts that want one make room for it where memory is short."""


class Wanted:
    """By key: how often a template was wanted, and which of them are about to be made. One that its function has been
    started without since it was wanted is made for nobody.

    Args:
        make: makes one, if it still is of use, and returns when it is ready or unfit.
        tasks: it is made there.
    """

    def __init__(self, make: Callable[[Wish], Coroutine[Any, Any, None]], tasks: TaskSet) -> None:
        self._make = make
        self._tasks = tasks
        self._counts: collections.OrderedDict[str, int] = collections.OrderedDict()
        self._to_begin: dict[str, Wish] = {}
        self._last_keys: collections.OrderedDict[str, str] = collections.OrderedDict()
        """What each function was started with last."""
        self._begun: dict[str, asyncio.Future[None]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)

    def key_of(self, function_id: str) -> str:
        """What the function was started with last, or would have been; empty for none."""
        return self._last_keys.get(function_id, "")

    def is_coming(self, key: str) -> bool:
        """One is about to be made, or being made in the background."""
        return key in self._to_begin or key in self._begun

    def started_with(self, function_id: str, key: str) -> None:
        """What a function's containers are started with now; empty: with no image template any more."""
        self._last_keys.pop(function_id, None)
        self._last_keys[function_id] = key
        while len(self._last_keys) > _KEYS_MAX:
            self._last_keys.popitem(last=False)

    def _is_of_before(self, wish: Wish) -> bool:
        return self._last_keys.get(wish.request.function_id, wish.key) != wish.key

    def note(self, key: str) -> None:
        """A start was plain that might have been a fork of it."""
        self._counts[key] = self._counts.pop(key, 0) + 1
        while len(self._counts) > _KEYS_MAX:
            self._counts.popitem(last=False)

    def is_insistent(self, key: str) -> bool:
        """It is wanted so often that another one may go for it."""
        return self._counts.get(key, 0) >= _INSISTENT

    def is_there(self, key: str) -> None:
        """There is one now."""
        self._counts.pop(key, None)

    def begin_later(self, wish: Wish, pause_s: float) -> None:
        """Make it in the background, for the last one that has wanted it."""
        is_about_to_be = wish.key in self._to_begin
        self._to_begin[wish.key] = wish
        if not is_about_to_be:
            self._tasks.start(self._begin(wish.key, pause_s))

    def forget(self, is_gone: Callable[[ContainerStart], bool]) -> None:
        """Make none for these."""
        for key in [key for key, one in self._to_begin.items() if is_gone(one.request)]:
            del self._to_begin[key]

    async def _begin(self, key: str, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        async with self._turn:
            wish = self._to_begin.pop(key, None)
            if wish is not None and not self._is_of_before(wish):
                begun = self._begun[key] = self._tasks.start(self._make(wish))
                begun.add_done_callback(lambda _: self._begun.pop(key, None))
                await asyncio.wait((begun,), timeout=TURN_S)
