"""Puts built images into the store: blocks that it lacks, then the layers' manifests, then the image's.

In that order, so that whoever finds an image finds its layers; killed half-way, nothing is to be found, and the next
attempt puts the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from squall.agent.image.block.errors import BlockError
from squall.agent.image.block.manifest import BLOCK_BYTES, ImageManifest, LayerManifest, cut, is_zero_block
from squall.agent.image.block.store import BlockStore
from squall.agent.image.layer.store import IMAGE_NAME, Layer
from squall.protocol.image import ImageConfig

AT_A_TIME = 4


class Putter:
    """Puts the images of one node. Blocks; one thread at a time."""

    def __init__(self, store: BlockStore, is_cancelled: Callable[[], bool] = lambda: False) -> None:
        self._store = store
        self._is_cancelled = is_cancelled
        self._known: dict[str, str] = {}
        """Layers that were put by this process, and their manifests' names."""

    def put_image(self, image_id: str, config: ImageConfig, layers: Sequence[Layer]) -> None:
        """Put an image with its layers. One that another node has put under this name is replaced.

        Raises:
            BlockError: the store does not take it, or a layer is no file.
        """
        digests = tuple(self._put_layer(layer) for layer in layers)
        self._store.put_image(ImageManifest(image_id, config, digests))

    def _put_layer(self, layer: Layer) -> str:
        known = self._known.get(layer.layer_id)
        if known is not None:
            return known
        image = Path(layer.path)
        if image.name != IMAGE_NAME:
            raise BlockError(f"cannot put layer {layer.layer_id}: it is kept as a directory, and only images are put")
        try:
            manifest = cut(image, layer.layer_id, layer.key, layer.facts)
            self._put_blocks(manifest, image)
        except OSError as error:
            raise BlockError(f"cannot put layer {layer.layer_id}: {image}: {error.strerror}") from error
        digest = self._known[layer.layer_id] = self._store.put_layer(manifest)
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
