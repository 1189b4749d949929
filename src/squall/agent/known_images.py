"""Which definition an image id stands for on this node: what is needed to find a built image again after a restart."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from squall.agent.disk import Writer
from squall.agent.image.block.stored import StoredImages
from squall.agent.image.progress import BuiltImage
from squall.protocol.ids import is_id
from squall.protocol.image import BuildEvent, ImageSpec, image_id
from squall.protocol.records import RecordError, from_wire, to_wire


class Images(Protocol):
    """Builds images and finds built ones; `agent.image.builder.ImageBuilder` is one."""

    async def build(self, spec: ImageSpec, on_event: Callable[[BuildEvent], None]) -> BuiltImage:
        """Build an image, or find it built."""

    def find(self, spec: ImageSpec) -> BuiltImage | None:
        """The image if all of its layers are here."""

    def writers(self) -> Sequence[Writer]:
        """The containers of build steps that run now."""

    def over_disk(self, container_id: str, why: str) -> None:
        """End the step of this container, if there is one, for what it has written."""


class KnownImages:
    """Keeps the definition of every image that was built here, one small file each."""

    def __init__(self, data_dir: Path, images: Images, stored: StoredImages | None = None) -> None:
        """`stored` has the images that other nodes have built."""
        self._top = data_dir / "images"
        self._images = images
        self._stored = stored
        self._built: dict[str, BuiltImage] = {}

    def prepare(self) -> None:
        """Make the directory."""
        self._top.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def build(self, spec: ImageSpec, on_event: Callable[[BuildEvent], None]) -> BuiltImage:
        """As `Images.build`; the image is found by its id from then on."""
        built = await self._images.build(spec, on_event)
        place = self._top / f"{built.image_id}.json"
        new = self._top / f".{built.image_id}.{secrets.token_hex(4)}"
        new.write_text(json.dumps(to_wire(spec)))
        os.rename(new, place)
        self._built[built.image_id] = built
        if self._stored is not None:
            self._stored.put_soon(built)
        return built

    def put_rest(self) -> None:
        """Put what was built here and is not in the store: an earlier agent was stopped before, or had none."""
        if self._stored is None:
            return
        for path in self._top.glob("im-*.json"):
            if not self._stored.was_put(path.stem):
                built = self._find_built(path.stem)
                if built is not None:
                    self._stored.put_soon(built)

    async def get(self, wanted: str) -> BuiltImage | None:
        """As `find`; what is not here is brought from the store, if that has it.

        Raises:
            PlatformError: `unavailable`: it cannot be had now.
        """
        found = self.find(wanted)
        if found is None and self._stored is not None:
            found = await self._stored.find(wanted)
        return found

    def find(self, wanted: str) -> BuiltImage | None:
        """The built image of this id, or None when its definition or one of its layers is not here."""
        known = self._built.get(wanted)
        if known is not None and os.path.isdir(known.layers[-1]):
            return known
        if not is_id(wanted, "im"):
            return None
        found = self._find_built(wanted)
        if found is None and self._stored is not None:
            found = self._stored.find_here(wanted)
        if found is not None:
            self._built[wanted] = found
        return found

    def _find_built(self, wanted: str) -> BuiltImage | None:
        """An image that was built here."""
        try:
            spec = from_wire(ImageSpec, json.loads((self._top / f"{wanted}.json").read_text()))
        except (OSError, RecordError, ValueError):
            return None
        return self._images.find(spec) if image_id(spec) == wanted else None
