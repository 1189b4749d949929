"""Reads an image that skopeo has put into a directory: its `dir:` form, layers uncompressed."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
PYTHON_LABEL = "squall.python"
"""A label with the path of the Python in an image that we have exported. Annotations say less: docker archives have
none."""
_JSON_BYTES_MAX = 4 * 2**20
_LAYERS_MAX = 500
_TEXT_CHARS_MAX = 1_000
_WORDS_MAX = 1_000
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


class BadImage(Exception):
    """An image is not what it should be; the message says in what way."""


@dataclass(frozen=True, slots=True)
class OciImage:
    """What is taken from an image: its files, and how its author wants programs to start."""

    env: Mapping[str, str]
    workdir: str
    """Empty when the image names none but the root."""
    layers: tuple[tuple[Path, str], ...]
    """Uncompressed tar archives and the digests they must have, bottom first."""
    digest: str = ""
    """Of its configuration, which names the layers: the same wherever and however compressed the image is kept."""
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    """Not of OCI but of Docker, whose images have it."""
    labels: Mapping[str, str] = field(default_factory=dict)


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
    _check_platform(config)
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
        digest=digest,
        user=_text(start.get("User")),
        entrypoint=_words(start.get("Entrypoint")),
        cmd=_words(start.get("Cmd")),
        shell=_words(start.get("Shell")),
        labels=_labels(start.get("Labels")),
    )


def architecture() -> str:
    """This machine's, by the name that images have for it."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def _check_platform(config: dict[str, Any]) -> None:
    """A manifest list is a choice that skopeo makes; an image that is in none may be for any machine."""
    system, processor = config.get("os") or "linux", config.get("architecture") or architecture()
    if (system, processor) != ("linux", architecture()):
        raise BadImage(f"it is for {system}/{processor}, and this machine is linux/{architecture()}")


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
        raise BadImage(f"it has no {name}; only images of OCI's form and of Docker's second can be used")
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


def _text(found: object) -> str:
    return found if isinstance(found, str) and len(found) <= _TEXT_CHARS_MAX and "\0" not in found else ""


def _words(found: object) -> tuple[str, ...]:
    """Words as far as they are some that a program can be started with; a shortened command would be another one."""
    if not isinstance(found, list) or len(found) > _WORDS_MAX:
        return ()
    return tuple(found) if all(isinstance(word, str) and "\0" not in word for word in found) else ()


def _labels(found: object) -> dict[str, str]:
    pairs = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in pairs if isinstance(value, str)}
