"""Deletes directories of gone containers and builds aside: out of sight at once, off the disk soon, many in one go."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from squall.protocol.task_set import going_on
from squall.runtime.errors import RuntimeFailure
from squall.runtime.removal import remove_tree

_log = logging.getLogger("squall.agent.grave")


class Grave:
    """A directory of things to delete. `run` must be awaited by its owner."""

    def __init__(self, data_dir: Path) -> None:
        self._top = data_dir / "removed"
        self._has_work = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._batch = 0
        self._in_place: list[Path] = []

    def prepare(self) -> None:
        """Make the directory; what an earlier agent did not get to is deleted by `run`."""
        self._top.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._has_work.set()

    def bury(self, path: Path) -> None:
        """Delete a directory that nothing uses any more; absent is no error."""
        if not os.path.lexists(path):
            return
        grave = self._top / f"{self._batch:x}"
        try:
            grave.mkdir(mode=0o700, exist_ok=True)
            os.rename(path, grave / f"{path.name}.{secrets.token_hex(4)}")
        except OSError as error:
            # A full disk has no room for a new directory; deleting needs none.
            _log.warning("cannot move %s away before it is deleted: %s", path, error)
            self._in_place.append(path)
        self._is_empty.clear()
        self._has_work.set()

    async def run(self) -> None:
        """Delete for ever, one batch at a time."""
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            # What comes from here on goes into the next batch.
            self._batch += 1
            in_place, self._in_place = self._in_place, []
            await asyncio.to_thread(self._delete, f"{self._batch:x}", in_place)
            if not self._has_work.is_set():
                self._is_empty.set()

    async def wait_empty(self, timeout_s: float) -> None:
        """Return when all is deleted, or the time is over."""
        try:
            await asyncio.wait_for(self._is_empty.wait(), timeout_s)
        except TimeoutError:
            _log.warning("still deleting %s; the next agent goes on", self._top)

    def _delete(self, current: str, in_place: Sequence[Path]) -> None:
        paths = list(in_place)
        with going_on(f"cannot see what is in {self._top}"):
            paths += [path for path in self._top.iterdir() if path.name != current]
        for path in paths:
            try:
                remove_tree(str(path))
            except (RuntimeFailure, OSError) as error:
                _log.error("%s stays: %s", path, error)
