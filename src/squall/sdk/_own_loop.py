"""An event loop for async code that a blocking form is given: it runs only while that code is waited for."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from squall.sdk._pending import running_loop

T = TypeVar("T")


class OwnLoop:
    """To be used by one thread, in which no other event loop runs, and closed by it."""

    def __init__(self) -> None:
        import asyncio  # cold start: only programs with async code of their own

        self._asyncio = asyncio
        self._loop = asyncio.new_event_loop()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's value. What it raises is raised; after a Ctrl-C it is cancelled by `close`."""
        return self._loop.run_until_complete(coroutine)

    def close(self) -> None:
        """Cancel what was begun in it and wait for that, let async generators end, and close it. Only once."""
        if running_loop() is None:
            self._end()
            return
        # Begun in sync code, and left by code of another event loop: no two run in one thread.
        from concurrent.futures import ThreadPoolExecutor  # cold start: as above
        from contextvars import copy_context

        with ThreadPoolExecutor(1) as thread:
            thread.submit(copy_context().run, self._end).result()

    def _end(self) -> None:
        loop = self._loop
        try:
            left = self._asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(self._asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
