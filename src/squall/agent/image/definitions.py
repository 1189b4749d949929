"""The definitions of images that were to be built on this node, by their ids, and what came of them.

    <data>/images/<image id>.json     its steps
    <data>/images/<image id>.built    with which layers, and how its containers start, since it was built last

A definition is kept from a build's begin on, so that a step that failed can be looked at. Neither says whether the
image is there: its layers do.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from squall.protocol.ids import is_id
from squall.protocol.image import ImageConfig, ImageSpec, image_id
from squall.protocol.records import RecordError, from_wire, to_wire

UNBUILT_S = 7 * 24 * 3600.0
UNBUILT_MAX = 200
"""How long, and how many, definitions stay of images that are not there."""
_SECRET_NAMES, _HAS_FAILED = "secret_names", "has_failed"


class Definitions:
    """Keeps them below a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._top = data_dir / "images"

    def prepare(self) -> None:
        """Make the directory."""
        self._top.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(
        self, spec: ImageSpec, secret_names: Mapping[str, Sequence[str]] | None = None, *, has_failed: bool = False
    ) -> None:
        """Keep a definition.

        Args:
            secret_names: of the variables that steps get as secrets, by the names that steps have for these.
            has_failed: the last build of it.
        """
        more = {_SECRET_NAMES: dict(secret_names or {}), _HAS_FAILED: has_failed}
        self._write(f"{image_id(spec)}.json", {**to_wire(spec), **more})

    def pin(self, name: str, config: ImageConfig) -> None:
        """Keep with which layers an image was built: it has these until it is built anew."""
        self._write(f"{name}.built", to_wire(config))

    def pinned(self, wanted: str) -> ImageConfig | None:
        """What `pin` was told last of an image; None when that is nothing, or no layer."""
        try:
            config = from_wire(ImageConfig, self._read(wanted, "built"))
        except RecordError:
            return None
        return config if config.layers else None

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        new = self._top / f".{name}.{secrets.token_hex(4)}"
        new.write_text(json.dumps(values))
        os.rename(new, self._top / name)

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
            self.drop(name)

    def drop(self, wanted: str) -> None:
        """Forget this one, whoever begins with it: the store has it."""
        for suffix in ("json", "built"):
            (self._top / f"{wanted}.{suffix}").unlink(missing_ok=True)

    def forget_unbuilt(self, built: Collection[str], now: float) -> None:
        """Forget images that are not there and that nobody has tried to build for long. Blocks.

        Args:
            built: those that are there.
            now: seconds since 1970.
        """
        unbuilt = {}
        for name in set(self.ids()) - set(built):
            with contextlib.suppress(FileNotFoundError):
                unbuilt[name] = (self._top / f"{name}.json").stat().st_mtime
        newest_first = sorted(unbuilt, key=lambda name: unbuilt[name], reverse=True)
        old = {name for name, tried_at in unbuilt.items() if now - tried_at > UNBUILT_S}
        self.forget(frozenset({*old, *newest_first[UNBUILT_MAX:]}))

    def load(self, wanted: str) -> ImageSpec | None:
        """The definition of an image, or None when nobody has tried to build it here."""
        try:
            spec = from_wire(ImageSpec, self._read(wanted, "json"))
        except (RecordError, ValueError):
            return None
        return spec if image_id(spec) == wanted else None

    def secret_names(self, wanted: str) -> dict[str, tuple[str, ...]]:
        """What `save` was told of the secrets of an image."""
        named = self._read(wanted, "json").get(_SECRET_NAMES, {})
        return {name: tuple(variables) for name, variables in named.items()}

    def has_failed(self, wanted: str) -> bool:
        """Whether the last build of an image failed."""
        return bool(self._read(wanted, "json").get(_HAS_FAILED))

    def _read(self, wanted: str, suffix: str) -> dict[str, Any]:
        """What is kept of an image; nothing where that is no file of ours."""
        if not is_id(wanted, "im"):
            return {}
        try:
            found = json.loads((self._top / f"{wanted}.{suffix}").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
