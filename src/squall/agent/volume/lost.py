"""What containers wrote to volumes, and nobody commits: kept for a person to look at while there is room.

After a crash of the machine nobody can tell whether it is all there, or not even to which volume it was (`holder.py`).
It is in no version. The oldest goes when the disk is short, or there is too much of it.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from squall.agent.disk import Space
from squall.agent.disk_use import tree_use
from squall.runtime.errors import RuntimeFailure
from squall.runtime.removal import remove_tree

COUNT_MAX = 100
"""Containers of which something is kept."""
FREE_SPARES = 2
"""It goes when less is free than so many times what is to be spare on a disk: before a container is ended for it, and
after contents that can be fetched again."""
NAMED_MAX = 10
"""In one line."""

_log = logging.getLogger("squall.agent.volume.lost")


class LostWrites:
    """The directory of them. All of it blocks."""

    def __init__(self, directory: Path, space: Callable[[Path], Space]) -> None:
        self._directory = directory
        self._space = space

    def keep(self, path: Path, why: str) -> str:
        """Put aside what a container wrote, which is on the same file system; says what, where and why."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        place = self._directory / f"{path.name}-{secrets.token_hex(4)}"
        os.rename(path, place)
        said = f"what {path.name} wrote to volumes is kept in {place}, and is not committed: {why}"
        _log.error("%s", said)
        return said

    def say(self) -> None:
        """Remind whoever reads the log of what there is."""
        found = self._by_age()
        if not found:
            return
        size_bytes = sum(tree_use(str(path), lambda _: True).space_bytes for path in found)
        names = ", ".join(path.name for path in found[:NAMED_MAX]) + (", …" if len(found) > NAMED_MAX else "")
        what = f"what containers wrote to volumes, {-(-size_bytes // 2**20)} MiB that are in no version: {names}"
        _log.warning("in %s is %s; put what is of use into its volume, and delete it", self._directory, what)

    def make_room(self) -> None:
        """Remove the oldest, if need be."""
        left = self._by_age()
        while left and (why := self._why_not(len(left))):
            path = left.pop(0)
            _log.warning("%s, which is in no version of a volume, is removed: %s", path, why)
            try:
                remove_tree(str(path))
            except RuntimeFailure as error:
                _log.warning("%s", error)

    def _why_not(self, count: int) -> str:
        if count > COUNT_MAX:
            return f"of more than {COUNT_MAX} containers nothing is kept"
        space = self._space(self._directory)
        if space.free_bytes < FREE_SPARES * space.spare_bytes or space.free_inodes < FREE_SPARES * space.spare_inodes:
            return "the disk is short"
        return ""

    def _by_age(self) -> list[Path]:
        """All there are, those first that were put aside first."""
        if not self._directory.exists():
            return []
        return sorted(self._directory.iterdir(), key=lambda path: path.lstat().st_ctime_ns)
