"""An image after its first steps, on the layers that it was built with, wherever the keys of its steps lead now.

Its steps are gone through again over these layers, each of which says which key it was made for. A step whose key was
built anew for another image is so found as it was for this one; see docs/decisions/0039.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from squall.agent.image.definitions import Definitions
from squall.agent.image.layer.holds import Hold
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.progress import BuiltImage, Progress
from squall.protocol import image
from squall.protocol.image import ImageConfig, ImageSpec

IMAGES_DEEP_MAX = 100
"""Images that begin with other images."""


@dataclass(frozen=True, slots=True)
class AsBuilt:
    """Finds them."""

    store: LayerStore
    definitions: Definitions
    fetched: Callable[[str], BuiltImage | None]
    """An image that came from a store of layers and is whole here."""

    def reached(self, spec: ImageSpec, count: int, hold: Hold) -> Progress | None:
        """An image after its first steps, held; None when it was not built, or a layer of these is not here. Blocks.

        Raises:
            UnknownUser, LayerError, BadImage, OSError: its layers do not make an image.
        """
        name = image.image_id(spec)
        pinned, fetched = self.definitions.pinned(name), self.fetched(name)
        for config in (pinned, fetched.config if fetched is not None else None):
            if config is not None:
                progress = Progress(ImageConfig(), [], hold=hold)
                if self._take(spec, count, progress, collections.deque(config.layers), 0):
                    progress.find_merged(self.store)
                    return progress
        return None

    def _take(self, spec: ImageSpec, count: int, progress: Progress, rest: collections.deque[str], depth: int) -> bool:
        """Take the first steps of an image, with their layers off the front of the rest."""
        for step, key in zip(spec.steps[:count], image.step_keys(spec)[:count], strict=True):
            if step.kind == image.FROM_IMAGE:
                if not self._take_image(step.image_id, progress, rest, depth + 1):
                    return False
                continue
            layer = self.store.look(rest[0]) if rest else None
            its_own = layer if layer is not None and layer.key == key else None
            if not progress.take(step, its_own):
                return False
            if its_own is not None:
                rest.popleft()
        return True

    def _take_image(self, image_id: str, progress: Progress, rest: collections.deque[str], depth: int) -> bool:
        """Take all of another image, as it was when the one above was begun with it."""
        spec = self.definitions.load(image_id) if depth < IMAGES_DEEP_MAX else None
        if spec is not None:
            if not self._take(spec, len(spec.steps), progress, rest, depth):
                return False
            progress.config = progress.built(spec).config
            return True
        built = self.fetched(image_id)
        if built is None or built.config.layers != tuple(itertools.islice(rest, len(built.config.layers))):
            return False
        progress.take_image(self.store, built)
        for _ in built.config.layers:
            rest.popleft()
        return True
