"""Versions of volumes that need not stay, and what is left when they are forgotten.

Three things go, one after the other: versions; nodes that no version has; blocks that nothing names. Commits go on
meanwhile, and may name anew what was garbage. So nothing is taken away while a commit is between looking and naming
(`untouched`), and what was named since the search began (`named`) is not garbage.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from squall.protocol.errors import NOT_FOUND, PlatformError
from squall.protocol.pages import PAGE_RECORDS_MAX
from squall.protocol.volume import VolumeCollected, VolumeUsage
from squall.server.dispatch.clock import AgeClock
from squall.server.model.volume import Nodes, StoredVolumeVersion
from squall.server.volume import retention
from squall.server.volume.usage import block_sizes, reachable

if TYPE_CHECKING:
    from squall.server.model.blobs import BlobStore
    from squall.server.model.clock import Clock
    from squall.server.model.store import Store

AT_ONCE = 500
"""Nodes that are removed in one transaction, and blocks in one go: commits wait for it."""
UNHEARD_S = 3_600.0
"""So long nodes have, after the server has started, to come back and say which versions they need."""

_log = logging.getLogger("squall.server.dispatch.asset.volume_garbage")


class VolumeGarbage:
    """What may go of all volumes."""

    def __init__(self, store: Store, blobs: BlobStore, clock: Clock) -> None:
        self._all = store
        self._store = store.volumes
        self._blobs = blobs
        self._clock = clock
        self._age = AgeClock(clock)
        self._began_at = clock.monotonic()
        self._heads: dict[str, int] = {}
        """By volume, the newest version when the server started: of these nodes may have some that are not back yet."""
        self.held: Callable[[str], frozenset[int]] = lambda volume_id: frozenset()
        """Versions of a volume that containers have mounted."""
        self._naming = 0
        """Commits that have looked what is there, and have not named it yet."""
        self._is_taking = False
        self._changed = asyncio.Condition()
        self._collecting = asyncio.Lock()
        self._spared: set[str] = set()
        """Blocks that nothing named, and somebody had been told of."""
        self._since: set[str] | None = None
        """Nodes that were named since a search for garbage began; None while there is none."""

    async def load(self) -> None:
        """Take up what there is as the server starts."""
        for volume_id, number in await self._store.roots():
            self._heads[volume_id] = max(number, self._heads.get(volume_id, 0))

    @asynccontextmanager
    async def untouched(self) -> AsyncIterator[None]:
        """Meanwhile nothing is taken away."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_taking)
            self._naming += 1
        try:
            yield
        finally:
            async with self._changed:
                self._naming -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Meanwhile nobody names anything."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._is_taking)
            self._is_taking = True
        try:
            # From here on none begins, so those that go on come to an end.
            async with self._changed:
                await self._changed.wait_for(lambda: not self._naming)
            yield
        finally:
            async with self._changed:
                self._is_taking = False
                self._changed.notify_all()

    def named(self, nodes: Iterable[str]) -> None:
        """A commit brings these."""
        if self._since is not None:
            self._since.update(nodes)

    async def collect(self, volume_ids: Iterable[str], *, is_trial: bool = False) -> VolumeCollected:
        """Forget versions of these volumes that need not stay, and remove what no volume needs any more."""
        async with self._collecting:
            old = {volume_id: await self._to_forget(volume_id) for volume_id in sorted(volume_ids)}
            going = {volume_id: numbers - self._unheard(volume_id, numbers) for volume_id, numbers in old.items()}
            unheard_count = sum(len(numbers - going[volume_id]) for volume_id, numbers in old.items())
            if is_trial:
                return await self._would_go(going, unheard_count)
            version_count = 0
            async with self.alone():
                self._since = set()
                for volume_id, numbers in going.items():
                    if numbers:
                        version_count += await self._store.forget(volume_id, numbers)
            try:
                node_count, unnamed = await self._sweep()
                freed = await self._delete(unnamed | self._spared)
            finally:
                self._since = None
        return VolumeCollected(version_count, node_count, freed, unheard_count)

    async def volume_ids(self) -> frozenset[str]:
        """Volumes that have versions, also of those that are deleted and not purged yet."""
        return frozenset(volume_id for volume_id, _ in await self._store.roots())

    async def versions(self, volume_id: str) -> list[StoredVolumeVersion]:
        """All versions of a volume that are kept, newest first."""
        found: list[StoredVolumeVersion] = []
        while page := await self._store.history(volume_id, PAGE_RECORDS_MAX, found[-1].number if found else None):
            found += page
        return found

    async def _to_forget(self, volume_id: str) -> frozenset[int]:
        said = await self._store.get_retention(volume_id) or retention.DEFAULT
        held = self.held(volume_id)
        return retention.to_forget(await self.versions(volume_id), said, self._age.now(), held)

    def _unheard(self, volume_id: str, numbers: frozenset[int]) -> frozenset[int]:
        """Those of these that a node may need which has not said so yet."""
        if self._clock.monotonic() - self._began_at >= UNHEARD_S:
            return frozenset()
        return frozenset(number for number in numbers if number <= self._heads.get(volume_id, 0))

    async def _would_go(self, going: dict[str, frozenset[int]], unheard_count: int) -> VolumeCollected:
        roots = await self._store.roots()
        dead = {root for (volume_id, number), root in roots.items() if number in going.get(volume_id, ())}
        kept = {root for (volume_id, number), root in roots.items() if number not in going.get(volume_id, ())}

        def look(nodes: Nodes) -> tuple[int, int]:
            return len(reachable(nodes, dead) - reachable(nodes, kept)), _own_bytes(nodes, dead, kept)

        return VolumeCollected(sum(map(len, going.values())), *await self._store.look(look), unheard_count)

    async def _sweep(self) -> tuple[int, set[str]]:
        roots = set((await self._store.roots()).values())
        live = await self._store.look(lambda nodes: reachable(nodes, roots))
        dead = sorted(await self._store.nodes() - live)
        count, unnamed = 0, set[str]()
        for start in range(0, len(dead), AT_ONCE):
            async with self.alone():
                some = frozenset(dead[start : start + AT_ONCE]) - (self._since or set())
                unnamed |= await self._store.remove_nodes(some)
            count += len(some)
        return count, unnamed

    async def _delete(self, unnamed: set[str]) -> int:
        """Delete blocks that nothing names; how many bytes they had."""
        freed, blocks = 0, sorted(unnamed)
        for start in range(0, len(blocks), AT_ONCE):
            async with self.alone():
                # Named by what else there is, or again by a commit.
                named = await self._all.live_blobs()
                self._spared -= named
                for block in set(blocks[start : start + AT_ONCE]) - named:
                    freed += await self._delete_one(block)
        return freed

    async def _delete_one(self, block: str) -> int:
        try:
            size, _ = await self._blobs.get_chunk(block, 0, 0)
            is_gone = await self._blobs.delete_untold(block)
        except PlatformError as error:
            if error.code == NOT_FOUND:
                self._spared.discard(block)
            else:
                _log.warning("block %s is left for now: %s", block, error)
                self._spared.add(block)
            return 0
        (self._spared.discard if is_gone else self._spared.add)(block)
        return size if is_gone else 0

    async def usage(self, volume_id: str) -> VolumeUsage:
        """How much of the store a volume takes."""
        roots = await self._store.roots()
        own = {root for (owner, _), root in roots.items() if owner == volume_id}
        others = {root for (owner, _), root in roots.items() if owner != volume_id}

        def look(nodes: Nodes) -> tuple[int, int]:
            return sum(block_sizes(nodes, own).values()), _own_bytes(nodes, own, others)

        stored_bytes, own_bytes = await self._store.look(look)
        numbers = [number for owner, number in roots if owner == volume_id]
        head = await self._store.head(volume_id)
        return VolumeUsage(head.size, stored_bytes, own_bytes, len(numbers), min(numbers, default=0))


def _own_bytes(nodes: Nodes, roots: Iterable[str], others: Iterable[str]) -> int:
    """Of the blocks that these trees name and the others do not."""
    named = block_sizes(nodes, others)
    return sum(size for block, size in block_sizes(nodes, roots).items() if block not in named)
