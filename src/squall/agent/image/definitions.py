"""The definitions of images that were built on this node, by their ids: one small file each."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from squall.protocol.ids import is_id
from squall.protocol.image import ImageSpec, image_id
from squall.protocol.records import RecordError, from_wire, to_wire


class Definitions:
    """Keeps them below a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._top = data_dir / "images"

    def prepare(self) -> None:
        """Make the directory."""
        self._top.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, spec: ImageSpec) -> None:
        """Keep a definition."""
        name = image_id(spec)
        new = self._top / f".{name}.{secrets.token_hex(4)}"
        new.write_text(json.dumps(to_wire(spec)))
        os.rename(new, self._top / f"{name}.json")

    def ids(self) -> tuple[str, ...]:
        """The images it has definitions of."""
        return tuple(sorted(path.stem for path in self._top.glob("im-*.json")))

    def forget(self, image_ids: frozenset[str]) -> None:
        """Forget these, but those that an image which stays begins with: it is not found without."""
        stay: set[str] = set()
        new = set(self.ids()) - image_ids
        while new:
            stay |= new
            specs = [spec for name in new if (spec := self.load(name)) is not None]
            new = {step.image_id for spec in specs for step in spec.steps} - stay
        for name in image_ids - stay:
            (self._top / f"{name}.json").unlink(missing_ok=True)

    def load(self, wanted: str) -> ImageSpec | None:
        """The definition of an image, or None when it was not built here."""
        if not is_id(wanted, "im"):
            return None
        try:
            spec = from_wire(ImageSpec, json.loads((self._top / f"{wanted}.json").read_text()))
        except (OSError, RecordError, ValueError):
            return None
        return spec if image_id(spec) == wanted else None
