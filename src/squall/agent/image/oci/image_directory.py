"""Reads an image that skopeo has put into a directory: its `dir:` form, layers uncompressed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_JSON_BYTES_MAX = 4 * 2**20
_LAYERS_MAX = 500


class BadImage(Exception):
    """An image is not what it should be; the message says in what way."""


@dataclass(frozen=True, slots=True)
class OciImage:
    """What is taken from an image: its files, and how its author wants programs to start. Not its user and command."""

    env: Mapping[str, str]
    workdir: str
    """Empty when the image names none but the root."""
    layers: tuple[tuple[Path, str], ...]
    """Uncompressed tar archives and the digests they must have, bottom first."""


def read_image(directory: Path) -> OciImage:
    """The image in a directory. The layers are not read yet.

    Raises:
        BadImage: its manifest or configuration is not what it should be.
    """
    manifest = _parsed(_bytes_of(directory / "manifest.json"), "manifest")
    digest = _digest(_inner(manifest, "config").get("digest"))
    raw = _bytes_of(directory / digest.removeprefix("sha256:"))
    found = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    if found != digest:
        raise BadImage(f"the digest of its configuration is {found} and should be {digest}")
    config = _parsed(raw, "configuration")
    layers = [_digest(layer.get("digest")) for layer in _list(manifest.get("layers")) if isinstance(layer, dict)]
    wanted = [_digest(one) for one in _list(_inner(config, "rootfs").get("diff_ids"))]
    if layers != wanted or not layers:
        raise BadImage("its layers are not those that its configuration names")
    start = config.get("config") or {}
    if not isinstance(start, dict):
        raise BadImage("its configuration is not of the form it should be")
    workdir = start.get("WorkingDir") or ""
    return OciImage(
        env=_variables(start.get("Env")),
        workdir=workdir if isinstance(workdir, str) and workdir.strip("/") else "",
        layers=tuple((directory / one.removeprefix("sha256:"), one) for one in layers),
    )


def _bytes_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            found = file.read(_JSON_BYTES_MAX + 1)
    except FileNotFoundError:
        raise BadImage(f"it is incomplete: {path.name} is missing") from None
    if len(found) > _JSON_BYTES_MAX:
        raise BadImage(f"{path.name} is longer than {_JSON_BYTES_MAX >> 20} MiB")
    return found


def _parsed(raw: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        raise BadImage(f"its {what} is no JSON") from None
    if not isinstance(found, dict):
        raise BadImage(f"its {what} is not of the form it should be")
    return found


def _inner(record: dict[str, Any], name: str) -> dict[str, Any]:
    found = record.get(name)
    if not isinstance(found, dict):
        raise BadImage(f"it has no {name}; only images of the OCI form can be used")
    return found


def _list(found: object) -> list[Any]:
    if not isinstance(found, list) or len(found) > _LAYERS_MAX:
        raise BadImage(f"it names no list of layers, or more than {_LAYERS_MAX}")
    return found


def _digest(found: object) -> str:
    # Files are named by it: nothing else may get into a path.
    if not isinstance(found, str) or not _DIGEST.fullmatch(found):
        raise BadImage(f"{str(found)[:80]!r} is no SHA-256 digest")
    return found


def _variables(found: object) -> dict[str, str]:
    pairs = [text.partition("=") for text in found if isinstance(text, str)] if isinstance(found, list) else []
    return {name: value for name, _, value in pairs if _VARIABLE.fullmatch(name) and "\0" not in value}
