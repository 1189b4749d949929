"""`python -m squall.agent.image.oci.export LAYOUT IMAGE`: write an image as OCI has it, in the directory LAYOUT.

IMAGE is a file with an `ImageToExport` in JSON. The layers are archives that are not compressed: skopeo does that on
the way to wherever they go, with every processor and in the form that is wanted there. The same image gives the same
bytes: nothing says when or where it was written.

A program of its own: reading and hashing an image takes a processor for as long as it lasts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from squall.agent.image.oci.image_directory import PYTHON_LABEL, architecture
from squall.agent.image.oci.layer_archive import CannotExport, write_archive
from squall.erofs.errors import BadImage, PackError

_KIND = "application/vnd.oci.image.{}.v1{}"


@dataclass(frozen=True, slots=True)
class ImageToExport:
    """What an image is made of."""

    layers: tuple[str, ...]
    """Paths of images or directories, bottom first."""
    titles: tuple[str, ...]
    """Of the steps that made the layers, in their order."""
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = ""
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    shell: tuple[str, ...] = ()
    python_path: str = ""

    def to_json(self) -> str:
        """In the form that the program reads."""
        return json.dumps(asdict(self))


def main(arguments: Sequence[str]) -> int:
    """Write it; 1 with the reason when it cannot be done."""
    parser = argparse.ArgumentParser(prog="python -m squall.agent.image.oci.export", description=__doc__)
    parser.add_argument("layout", type=Path)
    parser.add_argument("image", type=Path)
    chosen = parser.parse_args(arguments)
    try:
        export(ImageToExport(**json.loads(chosen.image.read_text())), chosen.layout)
    except (CannotExport, BadImage, PackError, OSError) as error:
        print(error)
        return 1
    return 0


def export(image: ImageToExport, layout: Path) -> str:
    """Write an image into a directory that does not exist yet; returns the digest of its manifest.

    Raises:
        CannotExport, BadImage, PackError, OSError: it cannot be read or written; something half-made is left.
    """
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    layers = [_put_layer(image, number, blobs) for number in range(len(image.layers))]
    config = _put(blobs, "config", _configuration(image, [layer["digest"] for layer in layers]))
    manifest = {
        "schemaVersion": 2,
        "mediaType": _KIND.format("manifest", "+json"),
        "config": config,
        "layers": layers,
    }
    named = _put(blobs, "manifest", manifest)
    (layout / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": [named]}))
    (layout / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return str(named["digest"])


def _configuration(image: ImageToExport, digests: Sequence[str]) -> dict[str, Any]:
    start = {
        "Env": [f"{name}={value}" for name, value in sorted(image.env.items())],
        "WorkingDir": image.workdir,
        "User": image.user,
        "Entrypoint": image.entrypoint,
        "Cmd": image.cmd,
        "Shell": image.shell,
        "Labels": {PYTHON_LABEL: image.python_path} if image.python_path else {},
    }
    return {
        "architecture": architecture(),
        "os": "linux",
        "config": {name: value for name, value in start.items() if value},
        "rootfs": {"type": "layers", "diff_ids": digests},
        "history": [{"created_by": title} for title in image.titles],
    }


def _put_layer(image: ImageToExport, number: int, blobs: Path) -> dict[str, Any]:
    new = blobs / f".layer-{number}"
    with new.open("xb") as file:
        hashed = _Hashed(file)
        write_archive(image.layers[: number + 1], hashed, lambda line: print(f"layer {number + 1}: {line}"))
    digest = hashed.digest()
    os.replace(new, blobs / digest.removeprefix("sha256:"))
    return {"mediaType": _KIND.format("layer", ".tar"), "digest": digest, "size": hashed.size}


def _put(blobs: Path, what: str, content: dict[str, Any]) -> dict[str, Any]:
    data = _json(content)
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": _KIND.format(what, "+json"), "digest": f"sha256:{digest}", "size": len(data)}


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


class _Hashed:
    """A file that is hashed as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
