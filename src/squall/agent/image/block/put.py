"""Puts built images into the store: blocks that it lacks, then the layers' manifests, then the image's.

In that order, so that whoever finds an image finds its layers; killed half-way, nothing is to be found, and the next
attempt puts the rest. Nobody removes garbage from the store meanwhile (`turn.py`).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from squall.agent.image.block.errors import BlockError
from squall.agent.image.block.manifest import BLOCK_BYTES, ImageManifest, LayerManifest, cut, is_zero_block
from squall.agent.image.block.store import BlockStore
from squall.agent.image.block.turn import PUT, Turn
from squall.agent.image.layer.store import IMAGE_NAME, Layer
from squall.protocol.image import ImageConfig

AT_A_TIME = 4
KNOWN_S = 24 * 3600.0
"""For so long a layer that this process has put is taken to be there as it was put."""
PUT_S = 24 * 3600.0
"""An image that takes longer is begun again: what was put or found first has grown old meanwhile."""

_log = logging.getLogger("squall.agent.image.block.put")


class Putter:
    """Puts the images of one node. Blocks; one thread at a time."""

    def __init__(
        self,
        store: BlockStore,
        is_cancelled: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._is_cancelled = is_cancelled
        self._now = now
        self._known: dict[str, tuple[str, float]] = {}
        """Layers that were put by this process: their manifests' names, and when that began."""

    def put_image(self, image_id: str, config: ImageConfig, layers: Sequence[Layer]) -> None:
        """Put an image with its layers. One that another node has put under this name is replaced.

        Raises:
            BlockError: the store does not take it, or not now, or a layer is no file.
        """
        with Turn(self._store, PUT) as turn:
            begun_at = self._now()
            manifest = ImageManifest(image_id, config, tuple(self._put_layer(layer) for layer in layers))
            if not 0 <= self._now() - begun_at < PUT_S:
                raise BlockError(
                    f"cannot put image {image_id}: it took too long; what is there is used by the next try"
                )
            self._keep_replaced(manifest)
            turn.check()
            self._store.put_image(manifest)

    def _keep_replaced(self, manifest: ImageManifest) -> None:
        """Other nodes may still be fetching the layers of the one that was there."""
        try:
            replaced = self._store.get_image(manifest.image_id)
        except BlockError as error:
            # Mostly there is none. One that is damaged names nothing for anybody.
            _log.info("nothing is replaced: %s", error)
            return
        if replaced.layers != manifest.layers:
            self._store.keep_removed(replaced)

    def _put_layer(self, layer: Layer) -> str:
        begun_at = self._now()
        digest, put_at = self._known.get(layer.layer_id, ("", 0.0))
        if digest and 0 <= begun_at - put_at < KNOWN_S:
            return digest
        image = Path(layer.path)
        if image.name != IMAGE_NAME:
            raise BlockError(f"cannot put layer {layer.layer_id}: it is kept as a directory, and only images are put")
        try:
            manifest = cut(image, layer.layer_id, layer.key, layer.facts)
            self._put_blocks(manifest, image)
        except OSError as error:
            raise BlockError(f"cannot put layer {layer.layer_id}: {image}: {error.strerror}") from error
        digest = self._store.put_layer(manifest)
        self._known[layer.layer_id] = (digest, begun_at)
        return digest

    def _put_blocks(self, manifest: LayerManifest, image: Path) -> None:
        numbers = {digest: number for number, digest in enumerate(manifest.blocks)}
        descriptor = os.open(image, os.O_RDONLY | os.O_CLOEXEC)

        def put(digest: str, number: int) -> None:
            if self._is_cancelled():
                raise BlockError(f"cannot put layer {manifest.layer_id}: stopped")
            size = min(BLOCK_BYTES, manifest.size_bytes - number * BLOCK_BYTES)
            if not is_zero_block(manifest, number) and not self._store.has_block(digest, size):
                self._store.put_block(digest, os.pread(descriptor, size, number * BLOCK_BYTES))

        try:
            with ThreadPoolExecutor(AT_A_TIME, "put") as threads:
                puts: list[Future[None]] = [threads.submit(put, *one) for one in numbers.items()]
                try:
                    for future in puts:
                        future.result()
                finally:
                    threads.shutdown(cancel_futures=True)
        finally:
            os.close(descriptor)
