"""Removes from a store of layers what no image needs; see docs/decisions/0043.

    images   that nobody needs, nor has used for long ─▶ removed/, which keeps what they name for some days more
    layers   that are named by no image, nor by one of removed/, and are old
    blocks   that are named by no layer, and are old

In this order, and each kind only when all that could name it was read: whoever is killed in between leaves nothing that
names what is gone. Nobody puts an image meanwhile (`turn.py`). What is not understood is left alone, with all that it
could name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from squall.agent.image.block.errors import BlockError
from squall.agent.image.block.manifest import is_digest
from squall.agent.image.block.store import BLOCKS, BUSY, IMAGES, LAYERS, REMOVED, USED, BlockStore, Found
from squall.agent.image.block.turn import DEAD_S, Turn
from squall.protocol.ids import is_id
from squall.protocol.image_store import GRACE_S, StoreKind

T = TypeVar("T")
_BATCH = 1_000
_READ_AT_A_TIME = 8
_TRACE = ".trace"


@dataclass(frozen=True, slots=True)
class Swept:
    """What was there, and what of it is gone."""

    images: StoreKind
    layers: StoreKind
    blocks: StoreKind
    waiting: StoreKind
    """Images that were removed or replaced earlier; those of the last days keep what they name."""
    image_ids: tuple[str, ...] = ()
    """Those that were removed."""


class Sweep:
    """One removal of garbage. Blocks.

    Args:
        needed: images that stay in any case.
        older_than_s: images that were used since stay too.
        tell: gets a line when there is progress.
    """

    def __init__(
        self,
        store: BlockStore,
        turn: Turn,
        needed: frozenset[str],
        older_than_s: float,
        *,
        is_dry_run: bool = False,
        tell: Callable[[str], None] = lambda line: None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = store
        self._turn = turn
        self._needed = needed
        self._older_than_s = max(older_than_s, GRACE_S)
        self._is_dry_run = is_dry_run
        self._tell = tell
        self._is_cancelled = is_cancelled

    def run(self) -> Swept:
        """Remove what may go.

        Raises:
            BlockError: something cannot be read or removed, and what was not removed by then is as it was.
        """
        now = self._turn.begun_at
        wanted, waiting = self._removed(now)
        kept, gone, images = self._images(now, wanted)
        self._tell(f"{images.count - images.removed} images stay; reading them")
        # What a dry run leaves there keeps what it names as it would from removed/.
        for layers_of in self._read(self._layers_of, [*kept, *(gone if self._is_dry_run else ())]):
            wanted.update(layers_of)
        layers, blocks_wanted = self._layers(wanted, now)
        blocks = self._blocks(blocks_wanted, now)
        self._marks(now)
        return Swept(images, layers, blocks, waiting, tuple(sorted(gone)))

    # Images

    def _images(self, now: float, wanted: set[str]) -> tuple[list[str], list[str], StoreKind]:
        """Which stay, and which are moved to removed/; what these name is added to `wanted`."""
        self._tell(f"looking at the images of {self._store.name}")
        used = {found.name: found.modified_at for found in self._store.list(USED)}
        put: dict[str, Found] = {}
        traces: dict[str, Found] = {}
        for found in self._store.list(IMAGES):
            if is_id(found.name, "im"):
                put[found.name] = found
            elif found.name.endswith(_TRACE):
                traces[found.name.removesuffix(_TRACE)] = found
        kept: list[str] = []
        gone: list[str] = []
        for image_id, found in put.items():
            used_at = max(found.modified_at, used.get(image_id, 0.0))
            stays = image_id in self._needed or now - used_at < self._older_than_s
            (kept if stays else gone).append(image_id)
        if not self._is_dry_run:
            for image_id in gone:
                wanted.update(self._remove_image(image_id))
        lost = [traces[one].key for one in traces.keys() - put.keys() if now - traces[one].modified_at >= GRACE_S]
        lost += [f"{USED}/{one}" for one in used.keys() - put.keys() if now - used[one] >= self._older_than_s]
        for keys in _batches(iter(lost)):
            self._remove(keys)
        size_bytes, gone_bytes = (sum(put[one].size_bytes for one in ids) for ids in (put, gone))
        return kept, gone, StoreKind(len(put), size_bytes, len(gone), gone_bytes)

    def _remove_image(self, image_id: str) -> tuple[str, ...]:
        manifest = self._store.get_image(image_id)
        self._check()
        self._store.keep_removed(manifest)
        self._remove([f"{IMAGES}/{image_id}", f"{IMAGES}/{image_id}{_TRACE}", f"{USED}/{image_id}"])
        return manifest.layers

    def _removed(self, now: float) -> tuple[set[str], StoreKind]:
        """The layers of images that were removed not long ago; those removed long ago are forgotten."""
        named: set[str] = set()
        old, count, size_bytes, old_bytes = [], 0, 0, 0
        for found in self._store.list(REMOVED):
            count, size_bytes = count + 1, size_bytes + found.size_bytes
            if now - found.modified_at < GRACE_S:
                named.update(self._store.get_removed(found.key).layers)
            else:
                old_bytes += found.size_bytes
                old.append(found.key)
        for keys in _batches(iter(old)):
            self._remove(keys)
        return named, StoreKind(count, size_bytes, len(old), old_bytes)

    def _layers_of(self, image_id: str) -> tuple[str, ...]:
        return self._store.get_image(image_id).layers

    # Layers and blocks

    def _layers(self, wanted: set[str], now: float) -> tuple[StoreKind, set[bytes]]:
        """Remove layers; the blocks of those that stay, by their hashes."""
        stay: list[str] = []
        gone: list[str] = []
        size_bytes = gone_bytes = 0
        for found in self._store.list(LAYERS):
            if not is_digest(found.name):
                continue
            size_bytes += found.size_bytes
            if found.name in wanted or now - found.modified_at < GRACE_S:
                stay.append(found.name)
            else:
                gone.append(found.key)
                gone_bytes += found.size_bytes
        self._tell(f"{len(stay)} layers stay; reading them")
        blocks: set[bytes] = set()
        for of_layer in self._read(self._blocks_of, stay):
            blocks.update(of_layer)
        for keys in _batches(iter(gone)):
            self._remove(keys)
        return StoreKind(len(stay) + len(gone), size_bytes, len(gone), gone_bytes), blocks

    def _blocks_of(self, digest: str) -> list[bytes]:
        return [bytes.fromhex(block) for block in self._store.get_layer(digest).blocks]

    def _blocks(self, wanted: set[bytes], now: float) -> StoreKind:
        self._tell("looking at the blocks")
        count = size_bytes = gone = gone_bytes = 0

        def old() -> Iterator[Found]:
            nonlocal count, size_bytes
            for found in self._store.list(BLOCKS):
                if not is_digest(found.name):
                    continue
                count, size_bytes = count + 1, size_bytes + found.size_bytes
                if now - found.modified_at >= GRACE_S and bytes.fromhex(found.name) not in wanted:
                    yield found

        for batch in _batches(old()):
            self._remove([found.key for found in batch])
            gone, gone_bytes = gone + len(batch), gone_bytes + sum(found.size_bytes for found in batch)
            self._tell(f"{count} blocks seen, {gone} of them {'would go' if self._is_dry_run else 'removed'}")
        return StoreKind(count, size_bytes, gone, gone_bytes)

    def _marks(self, now: float) -> None:
        """Marks of those who were killed in their turn."""
        dead = [found.key for found in self._store.list(BUSY) if now - found.modified_at >= 2 * DEAD_S]
        self._remove(dead)

    def _remove(self, keys: list[str]) -> None:
        if keys and not self._is_dry_run:
            self._check()
            self._store.remove(keys)

    def _check(self) -> None:
        if self._is_cancelled():
            raise BlockError(f"cannot remove garbage from {self._store.name}: stopped; what is left goes the next time")
        self._turn.check()

    def _read(self, read: Callable[[str], T], names: Iterable[str]) -> Iterator[T]:
        """Several at a time, and never more in memory."""
        with ThreadPoolExecutor(_READ_AT_A_TIME, "sweep") as threads:
            for batch in _batches(iter(names), 4 * _READ_AT_A_TIME):
                yield from threads.map(read, batch)
                self._check()


def _batches(found: Iterator[T], size: int = _BATCH) -> Iterator[list[T]]:
    while batch := list(islice(found, size)):
        yield batch
