"""Images of this node and those of the store: puts what was built here, finds what was built elsewhere.

<data>/images/<image id>.fetched     the manifest of an image that came from the store, until it is built here
<data>/images/<image id>.put         which store has an image that was built here
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from squall.agent.image.block.errors import BlockError, NotInStore
from squall.agent.image.block.lazy import LazyLayers, NoDaemon
from squall.agent.image.block.manifest import ImageManifest, layer_id_of, parse_image
from squall.agent.image.block.put import Putter
from squall.agent.image.block.store import IMAGES, USED, BlockStore
from squall.agent.image.block.sweep import Sweep, Swept
from squall.agent.image.block.turn import SWEEP, Turn
from squall.agent.image.block.whole import fetch_whole
from squall.agent.image.layer import chain
from squall.agent.image.layer.holds import Hold, LayerHolds
from squall.agent.image.layer.store import LayerError
from squall.agent.image.progress import BuiltImage, Progress
from squall.protocol.errors import UNAVAILABLE, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.image_store import NodeStoreGc, StoreGcEvent
from squall.protocol.task_set import TaskSet

T = TypeVar("T")
PUT_AGAIN_S = 60.0
NOTE_S = 12 * 3600.0
"""After so long it is noted again that an image is used."""
LOOK_AGAIN_S = 24 * 3600.0
"""After so long the store is asked whether it still has an image that was put."""
_THREADS = 4

_log = logging.getLogger("squall.agent.image.block.stored")


@dataclass(slots=True)
class _Fetch:
    """An image on its way, for everybody who waits for it."""

    hold: Hold
    """On what has come. Whoever waits takes it over before this lets go."""
    result: asyncio.Future[BuiltImage | None]
    waiters: int = 0

    def release_unless_awaited(self) -> None:
        if self.result.done() and not self.waiters:
            self.hold.release()


class StoredImages:
    """The images that a store has. Enter to begin putting; leaving gives up what is half-way, for the next time."""

    def __init__(
        self,
        store: BlockStore,
        holds: LayerHolds,
        data_dir: Path,
        lazy: LazyLayers | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`lazy` serves layers that are not whole; without it they are fetched whole."""
        self._now = now
        self._store = store
        self._lazy = lazy
        self.holds = holds
        self._layers = holds.store
        self._top = data_dir / "images"
        self._top.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._is_closing = threading.Event()
        self._putter = Putter(store, self._is_closing.is_set)
        self._to_put: dict[str, BuiltImage] = {}
        self._has_more = asyncio.Event()
        self.on_put: Callable[[str], None] = lambda image_id: None
        """Told of each image that has been put."""
        self._fetches: dict[tuple[str, bool], _Fetch] = {}
        self._threads = ThreadPoolExecutor(_THREADS, "stored")
        self._tasks = TaskSet()

    async def __aenter__(self) -> StoredImages:
        self._tasks.start(self._put_all())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._is_closing.set()
        await self._tasks.close()
        # In a thread: the loop must not stand still.
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    # Put

    def put_soon(self, built: BuiltImage) -> None:
        """Put an image that was built here, when there is time. What was put long ago may be gone: it is looked for.

        What came from the store under its id is another.
        """
        self.unlearn(built.image_id)
        if not self._was_put_lately(built):
            self._to_put[built.image_id] = built
            self._has_more.set()

    def was_put(self, image_id: str, layers: tuple[str, ...] = ()) -> bool:
        """Whether this store has an image of this node, with these layers if any are given."""
        try:
            name, *ids = self._note(image_id).read_text().splitlines()
        except (OSError, ValueError):
            return False
        return name == self._store.name and (not layers or ids == list(layers))

    def _was_put_lately(self, built: BuiltImage) -> bool:
        if not self.was_put(built.image_id, built.config.layers):
            return False
        with contextlib.suppress(FileNotFoundError):
            return 0 <= self._now() - self._note(built.image_id).stat().st_mtime < LOOK_AGAIN_S
        return False

    def _note(self, image_id: str) -> Path:
        return self._top / f"{image_id}.put"

    async def _put_all(self) -> None:
        while True:
            await self._has_more.wait()
            self._has_more.clear()
            failed = False
            for built in tuple(self._to_put.values()):
                if await self._put(built):
                    # A forced build may have replaced it meanwhile.
                    if self._to_put.get(built.image_id) is built:
                        del self._to_put[built.image_id]
                else:
                    failed = True
            if failed:
                await asyncio.sleep(PUT_AGAIN_S)
                self._has_more.set()

    async def _put(self, built: BuiltImage) -> bool:
        def put() -> None:
            note = self._note(built.image_id)
            if self.was_put(built.image_id, built.config.layers) and self._is_in_store(built.image_id):
                os.utime(note)
                return
            layers = [self._layers.get(layer_id) for layer_id in built.config.layers]
            self._putter.put_image(built.image_id, built.config, layers)
            name = "\n".join((self._store.name, *built.config.layers))
            _write(note, name.encode())
            # A fetch that was under way as it was built may have learnt of the one before it.
            self.unlearn(built.image_id)

        try:
            await self._blocking(put)
        except LayerError as error:
            # It was removed since: there is nothing to put.
            _log.info("image %s is not put: %s", built.image_id, error)
        except (BlockError, OSError) as error:
            _log.warning("image %s is not in the store yet: %s; trying again", built.image_id, error)
            return False
        else:
            self.on_put(built.image_id)
        return True

    async def is_replaced(self, image_id: str, built: tuple[str, ...]) -> bool:
        """Whether the store has another image under an id than this node, which has nothing of it to put.

        Args:
            built: the layers, where it was built here; none where it came from the store.

        Raises:
            BlockError: that cannot be found out.
        """
        here = self._known(image_id)
        if image_id in self._to_put or not (built or here):
            return False
        there = await self._blocking(lambda: self._store.get_image(image_id))
        # By the names of the node that built it.
        return there.config.layers != built if built else there != here

    def lost(self, image_id: str) -> None:
        """The store does not have an image that was put."""
        self._note(image_id).unlink(missing_ok=True)

    # Garbage

    async def note_used(self, image_ids: Sequence[str]) -> tuple[str, ...]:
        """Note in the store that these are needed; returns those that it does not have.

        Raises:
            BlockError: it cannot be asked.
        """

        def note() -> tuple[str, ...]:
            used = {found.name: found.modified_at for found in self._store.list(USED)}
            there = {found.name for found in self._store.list(IMAGES)}
            for image_id in image_ids:
                if image_id in there and not 0 <= self._now() - used.get(image_id, 0.0) < NOTE_S:
                    self._store.put_mark(f"{USED}/{image_id}")
            return tuple(image_id for image_id in image_ids if image_id not in there)

        return await self._blocking(note)

    async def remove_garbage(self, record: NodeStoreGc, tell: Callable[[str], None]) -> StoreGcEvent:
        """Remove what nothing needs from the store; `tell` gets a line when there is progress.

        Raises:
            BlockError: see `Sweep.run`.
        """
        loop = asyncio.get_running_loop()
        is_over = threading.Event()

        def is_cancelled() -> bool:
            return is_over.is_set() or self._is_closing.is_set()

        def wait(seconds: float) -> None:
            self._is_closing.wait(seconds)
            if is_cancelled():
                raise BlockError(f"cannot remove garbage from {self._store.name}: stopped")

        def tell_soon(line: str) -> None:
            loop.call_soon_threadsafe(tell, line)

        def sweep() -> Swept:
            with Turn(self._store, SWEEP, wait=wait) as turn:
                return Sweep(
                    self._store,
                    turn,
                    frozenset(record.needed),
                    record.older_than_s,
                    is_dry_run=record.is_dry_run,
                    tell=tell_soon,
                    is_cancelled=is_cancelled,
                ).run()

        try:
            swept = await self._blocking(sweep)
        finally:
            is_over.set()
        return StoreGcEvent(
            "done", "", self._store.name, swept.images, swept.layers, swept.blocks, swept.waiting, swept.image_ids
        )

    # Find

    def fetched_ids(self) -> tuple[str, ...]:
        """The images that came from a store."""
        return tuple(sorted(path.stem for path in self._top.glob("im-*.fetched")))

    def layer_ids(self, image_id: str) -> tuple[str, ...]:
        """The layers of an image that came from a store, whether they are here or not."""
        manifest = self._known(image_id)
        return _layer_ids(manifest) if manifest is not None else ()

    def has(self, image_id: str, layers: tuple[str, ...] = ()) -> bool:
        """Whether an image of this node is known to be in the store, with these layers if any are given."""
        if self.was_put(image_id, layers):
            return True
        manifest = self._known(image_id)
        return manifest is not None and (not layers or layers == _layer_ids(manifest))

    def is_coming(self, image_id: str) -> bool:
        """Whether an image is served while it comes, and some is here of each layer that is not whole."""
        manifest = self._known(image_id)
        if self._lazy is None or manifest is None or len(manifest.layers) > chain.DEPTH_MAX:
            return False
        return all(
            os.path.isdir(self._layers.incoming_dir / layer_id) or self._layers.look(layer_id) is not None
            for layer_id in _layer_ids(manifest)
        )

    def find_here(self, image_id: str, *, is_used: bool = True) -> BuiltImage | None:
        """An image that came from the store, if all of its layers are here."""
        manifest = self._known(image_id)
        if manifest is None:
            return None
        progress = Progress(manifest.config, [])
        for digest in manifest.layers:
            layer = self._layers.look(layer_id_of(digest))
            if layer is None:
                return None
            progress.layers.append(layer)
        if progress.find_merged(self._layers):
            return None
        if is_used:
            for layer in (*progress.layers, *progress.merged.values()):
                self._layers.mark_used(layer.layer_id)
        return _built(manifest, progress.paths)

    async def find(self, image_id: str, hold: Hold) -> BuiltImage | None:
        """An image of the store, ready to start from, and held; None when the store does not have it.

        Raises:
            PlatformError: `unavailable`: the store has it, or may have it, and it cannot be had now.
        """
        return await self._find(image_id, hold, is_whole=False)

    async def bring(self, image_id: str, hold: Hold) -> BuiltImage | None:
        """The same with all of its layers here: the steps of a build read them.

        Raises:
            PlatformError: as `find`.
        """
        return await self._find(image_id, hold, is_whole=True)

    async def _find(self, image_id: str, hold: Hold, *, is_whole: bool) -> BuiltImage | None:
        if not is_id(image_id, "im"):
            return None
        name = (image_id, is_whole)
        fetch = self._fetches.get(name)
        if fetch is None:
            its_own = self.holds.begin(f"fetch of {image_id}")
            result = self._tasks.start(self._fetch(image_id, its_own, is_whole=is_whole))
            fetch = self._fetches[name] = _Fetch(its_own, result)
            result.add_done_callback(functools.partial(self._fetched, name, fetch))
        fetch.waiters += 1
        try:
            # Others may wait for it too, and what has come is good for the next start.
            built = await asyncio.shield(fetch.result)
            if built is None:
                return None
            if not hold.add_paths(built.layers) or (is_whole and not hold.add_all(built.config.layers)):
                raise PlatformError(UNAVAILABLE, f"cannot use image {image_id}: its layers were removed; try again")
            return built
        finally:
            fetch.waiters -= 1
            fetch.release_unless_awaited()

    def _fetched(self, name: tuple[str, bool], fetch: _Fetch, result: asyncio.Future[BuiltImage | None]) -> None:
        self._fetches.pop(name, None)
        fetch.release_unless_awaited()

    async def _fetch(self, image_id: str, hold: Hold, *, is_whole: bool) -> BuiltImage | None:
        try:
            known = await self._blocking(lambda: self._known(image_id))
            if known is None:
                learned = await self._blocking(lambda: self._learn(image_id))
                return await self._bring(learned, hold, is_whole=is_whole)
            try:
                return await self._bring(known, hold, is_whole=is_whole)
            except BlockError:
                # Another node may have built it anew since, and what it stood on may be gone.
                learned = await self._blocking(lambda: self._learn(image_id))
                if learned == known:
                    raise
                return await self._bring(learned, hold, is_whole=is_whole)
        except NotInStore as error:
            _log.info("%s", error)
            return None
        except (BlockError, LayerError, OSError) as error:
            raise PlatformError(UNAVAILABLE, f"cannot use image {image_id}: {error}") from error

    async def _bring(self, manifest: ImageManifest, hold: Hold, *, is_whole: bool) -> BuiltImage:
        """An image that is ready to start from, served or fetched.

        Raises:
            BlockError: the store does not give what it needs.
        """
        # A deep one has to be merged before it is mounted, and that reads all of it.
        if self._lazy is not None and not is_whole and len(manifest.layers) <= chain.DEPTH_MAX:
            try:
                return _built(manifest, await self._open(self._lazy, manifest, hold))
            except NoDaemon as error:
                _log.warning("the layers of %s are fetched whole: %s", manifest.image_id, error)
        return _built(manifest, await self._blocking(lambda: self._fetch_whole(manifest, hold)))

    async def _open(self, lazy: LazyLayers, manifest: ImageManifest, hold: Hold) -> tuple[str, ...]:
        """Paths of the layers: of those that are here, and of the others where they are served."""
        looked = {digest: self._layers.look(layer_id_of(digest)) for digest in manifest.layers}
        here = {digest: layer if layer and hold.add(layer.layer_id) else None for digest, layer in looked.items()}
        missing = [digest for digest, layer in here.items() if layer is None]
        served = await lazy.open(manifest, missing) if missing else {}
        return tuple(served[digest] if layer is None else layer.path for digest, layer in here.items())

    def _is_in_store(self, image_id: str) -> bool:
        try:
            self._store.get_image(image_id)
        except NotInStore:
            return False
        return True

    def _fetch_whole(self, manifest: ImageManifest, hold: Hold) -> tuple[str, ...]:
        layers = fetch_whole(manifest.layers, self._store, self._layers, self._is_closing.is_set, hold=hold)
        progress = Progress(manifest.config, layers, hold=hold)
        # The store has the layers one by one, and the kernel stacks no more of them here than where they were built.
        while wanted := progress.find_merged(self._layers):
            self._layers.merge(wanted[0].layers, wanted[0].key)
        return progress.paths

    def _learn(self, image_id: str) -> ImageManifest:
        manifest = self._store.get_image(image_id)
        _write(self._top / f"{image_id}.fetched", manifest.to_bytes())
        return manifest

    def unlearn(self, image_id: str) -> None:
        """Forget that an image came from the store."""
        (self._top / f"{image_id}.fetched").unlink(missing_ok=True)

    def _known(self, image_id: str) -> ImageManifest | None:
        try:
            return parse_image((self._top / f"{image_id}.fetched").read_bytes(), image_id)
        except (OSError, BlockError):
            return None

    async def _blocking(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _built(manifest: ImageManifest, paths: tuple[str, ...]) -> BuiltImage:
    # Layers are called otherwise on the node that built them.
    return BuiltImage(manifest.image_id, paths, replace(manifest.config, layers=_layer_ids(manifest)))


def _layer_ids(manifest: ImageManifest) -> tuple[str, ...]:
    return tuple(layer_id_of(digest) for digest in manifest.layers)


def _write(path: Path, data: bytes) -> None:
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    new.write_bytes(data)
    os.rename(new, path)
