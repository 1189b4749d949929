"""Images of the trees of versions, which the kernel mounts, and what of the contents they need."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from squall.agent.volume.aside import aside
from squall.agent.volume.contents import Progress, VolumeContents
from squall.agent.volume.source import PeerVolumes
from squall.agent.volume.tree_image import content_of, write_tree_image
from squall.protocol.volume import VolumeChange

_IMAGE, _NAMES, _EMPTY = ".tree", ".names", "empty"


class VolumeTrees:
    """Those of a node, by their roots: equal trees are one.

    Args:
        used: roots of all that is mounted, or about to be.
        now_ns: nanoseconds since 1970.
    """

    def __init__(
        self,
        directory: Path,
        source: PeerVolumes,
        contents: VolumeContents,
        executor: Executor,
        used: Callable[[], Collection[str]],
        now_ns: Callable[[], int] = time.time_ns,  # tidy: compared with times of files
    ) -> None:
        self._directory = directory
        self._source = source
        self._contents = contents
        self._executor = executor
        self._used = used
        self._making: dict[str, _Turns] = {}
        self._names: dict[str, frozenset[str]] = {}
        """Of each tree that is used, or being made, the names of its contents."""
        self._whole: set[str] = set()
        """Of those that are used the ones of which all contents are here, and stay."""
        self._used_before: set[str] = set()
        self._left_at_ns: dict[str, int] = {}
        """Until when somebody had a tree mounted that may be here still, by what its files are called."""
        self._began_ns = now_ns()
        self._now_ns = now_ns
        contents.in_use, contents.last_used = self._names_in_use, self._last_used

    def prepare(self, *, is_new_boot: bool) -> None:
        """Remove what an earlier agent has not finished, and what may not have been on the disk when the machine ended.
        Blocks."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if is_new_boot:
            for path in self._directory.glob(f"*{_NAMES}"):
                self._contents.note_use(_names_in(path), self._began_ns)
        for path in self._directory.glob("*" if is_new_boot else "*.new"):
            path.unlink()

    def take_up(self) -> None:
        """Find the names of contents of what an earlier agent has mounted. Blocks."""
        self._used_before = set(self._used())
        for root in self._used_before:
            self._names[root] = frozenset(_names_in(self._directory / f"{root or _EMPTY}{_NAMES}"))

    async def image(self, volume_id: str, version: int, root: str, progress: Progress | None = None) -> Path:
        """The image of a version's tree, with all contents of its files here.

        Raises:
            PlatformError: the version cannot be had.
            OSError: the disk takes no more.
        """
        path = self._directory / f"{root or _EMPTY}{_IMAGE}"
        if root in self._whole and path.exists():
            return path
        async with self._turn(path.name):
            # The contents may have gone since.
            entries = await self._source.tree(volume_id, version) if root else []
            names = frozenset(one.name for entry in entries if (one := content_of(entry)) is not None)
            self._names[root] = names
            await self._fetch(volume_id, version, entries, progress)
            if not path.exists():
                await self._aside(lambda: _write_image(entries, path, names))
            self._whole.add(root)
        return path

    @contextlib.asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """Meanwhile nobody else makes or removes this image."""
        turns = self._making.setdefault(name, _Turns())
        turns.count += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.count -= 1
            if not turns.count:
                del self._making[name]

    async def _fetch(
        self, volume_id: str, version: int, entries: Sequence[VolumeChange], progress: Progress | None
    ) -> None:
        wanted = {entry.path: content for entry in entries if (content := content_of(entry)) is not None}
        lists = {
            content.block_list: await self._source.blocks(volume_id, version, path)
            for path, content in wanted.items()
            if content.block_list
        }
        await self._contents.ensure(set(wanted.values()), lists, progress)

    def _names_in_use(self) -> frozenset[str]:
        """Names of contents that somebody has mounted, or is about to."""
        roots = set(self._used())
        making = {name.removesuffix(_IMAGE) for name in self._making}
        for root in [root for root in list(self._names) if root not in roots | making]:
            del self._names[root]
        return frozenset().union(*self._names.values())

    def used_are_others(self) -> None:
        """Look at contents again of trees that nobody uses now: some may go."""
        used = set(self._used())
        self._whole &= used
        self._left_at_ns |= dict.fromkeys((root or _EMPTY for root in self._used_before - used), self._now_ns())
        self._used_before = used

    def _left_at(self, path: Path) -> int:
        """Until when a tree, of which this is a file, was used. One of an earlier agent was until shortly before that
        ended: it would have been removed otherwise."""
        return self._left_at_ns.get(path.stem, self._began_ns)

    def _last_used(self) -> dict[str, int]:
        """Of the names of contents that trees have which are here. Blocks."""
        found: dict[str, int] = {}
        for path in self._directory.glob(f"*{_NAMES}"):
            at_ns = self._left_at(path)
            for name in _names_in(path):
                found[name] = max(at_ns, found.get(name, 0))
        return found

    async def evict(self) -> None:
        """Remove those that nobody has mounted."""
        left = list(self._left_at_ns)
        found = await self._aside(lambda: list(self._directory.glob(f"*{_IMAGE}")))
        for name in set(left) - {path.stem for path in found}:
            self._left_at_ns.pop(name, None)
        for path in found:
            # Asked anew for each: who begins to use one has his turn when it is gone.
            if path.name not in self._making and path.stem not in {root or _EMPTY for root in self._used()}:
                async with self._turn(path.name):
                    await self._aside(functools.partial(self._remove, path))

    def _remove(self, path: Path) -> None:
        names = path.with_suffix(_NAMES)
        self._contents.note_use(_names_in(names), self._left_at(path))
        path.unlink(missing_ok=True)
        names.unlink(missing_ok=True)

    async def _aside(self, work: Callable[[], Any]) -> Any:
        return await aside(self._executor, work)


@dataclass(slots=True)
class _Turns:
    """Who makes one image, one after the other."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    count: int = 0
    """Of those who do, or wait to."""


def _names_in(path: Path) -> list[str]:
    """What is written down there; torn, some of it has another name than any content."""
    try:
        return path.read_text(errors="replace").split()
    except FileNotFoundError:
        return []


def _write_image(entries: Sequence[VolumeChange], path: Path, names: frozenset[str]) -> None:
    path.with_suffix(_NAMES).write_text("\n".join(sorted(names)))
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    write_tree_image(entries, new)
    os.replace(new, path)
