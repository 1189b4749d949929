"""What the store says of a layer and of an image: canonical bytes, so that one content has one name.

A layer's file is cut into blocks of 8 MiB, which are what is stored, and these into parts, which are the least that is
fetched. Both have their hash in the manifest: no byte is used before it was checked, even of a block that is not whole.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from squall.agent.image.block.errors import BlockError
from squall.protocol.ids import is_id
from squall.protocol.image import ImageConfig
from squall.protocol.records import RecordError, from_wire, to_wire

BLOCK_BYTES = 8 * 2**20
PART_BYTES = 256 * 2**10
"""Measured with a first `import numpy`, see docs/decisions/0033."""
PARTS_PER_BLOCK = BLOCK_BYTES // PART_BYTES
_VERSION = 1
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_SIZE_BYTES_MAX = 16 * 2**40


@dataclass(frozen=True, slots=True)
class LayerManifest:
    """A layer in blocks."""

    layer_id: str
    """What it is called on the node that made it."""
    key: str
    size_bytes: int
    blocks: tuple[str, ...]
    """The hash of each block, in hexadecimal digits: its name in the store."""
    parts: bytes
    """The hashes of all parts, 32 bytes each."""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def part_count(self) -> int:
        """How many parts it has; the last may be shorter."""
        return -(-self.size_bytes // PART_BYTES)

    def part_range(self, part: int) -> tuple[int, int]:
        """Where a part begins and ends in the file."""
        return part * PART_BYTES, min((part + 1) * PART_BYTES, self.size_bytes)

    def part_digest(self, part: int) -> bytes:
        """The hash of a part."""
        return self.parts[part * 32 : (part + 1) * 32]

    def is_zero_part(self, part: int) -> bool:
        """Whether a part is nothing but zeros, which nobody needs to fetch."""
        begin, end = self.part_range(part)
        return self.part_digest(part) == zero_digest(end - begin)

    def to_bytes(self) -> bytes:
        """The same manifest gives the same bytes."""
        return _canonical(
            {
                "version": _VERSION,
                "layer_id": self.layer_id,
                "key": self.key,
                "size_bytes": self.size_bytes,
                "block_bytes": BLOCK_BYTES,
                "part_bytes": PART_BYTES,
                "blocks": list(self.blocks),
                "parts": base64.b64encode(self.parts).decode(),
                "facts": dict(self.facts),
            }
        )


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """A built image: what its containers start with, and its layers, bottom first, by the names of their manifests.

    The steps it was built by are not in it. They are not needed to start it, and may name an index with its password.
    """

    image_id: str
    config: ImageConfig
    layers: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """With its own hash in front: its name is the image's, and says nothing of its bytes."""
        body = _canonical(
            {
                "version": _VERSION,
                "image_id": self.image_id,
                "config": to_wire(self.config),
                "layers": list(self.layers),
            }
        )
        return sealed(body)


def layer_id_of(digest: str) -> str:
    """What a layer that came from a store is called here: by its content.

    Not by its key: another node may have built the same key with other packages, and its upper layers fit these alone.
    """
    return f"ly-{digest[:32]}"


@cache
def zero_digest(size_bytes: int) -> bytes:
    """The hash of so many zeros."""
    return hashlib.sha256(bytes(size_bytes)).digest()


def is_zero_block(manifest: LayerManifest, number: int) -> bool:
    """Whether a block is nothing but zeros."""
    size = min(BLOCK_BYTES, manifest.size_bytes - number * BLOCK_BYTES)
    return bytes.fromhex(manifest.blocks[number]) == zero_digest(size)


def cut(image: Path, layer_id: str, key: str, facts: Mapping[str, str]) -> LayerManifest:
    """The manifest of an image file: reads all of it."""
    blocks: list[str] = []
    parts: list[bytes] = []
    size_bytes = 0
    with image.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(BLOCK_BYTES))
        while count := _fill(file.fileno(), buffer, size_bytes):
            size_bytes += count
            block = buffer[:count]
            blocks.append(hashlib.sha256(block).hexdigest())
            parts += [hashlib.sha256(block[at : at + PART_BYTES]).digest() for at in range(0, count, PART_BYTES)]
    return LayerManifest(layer_id, key, size_bytes, tuple(blocks), b"".join(parts), facts)


def parse_layer(data: bytes) -> LayerManifest:
    """Read a manifest whose hash was checked.

    Raises:
        BlockError: it is of another format, or contradicts itself.
    """
    try:
        values = json.loads(data)
        if values["version"] != _VERSION or values["block_bytes"] != BLOCK_BYTES or values["part_bytes"] != PART_BYTES:
            raise BlockError("it is of another version of Squall; build the image again with this one")
        made = LayerManifest(
            str(values["layer_id"]),
            str(values["key"]),
            int(values["size_bytes"]),
            tuple(values["blocks"]),
            base64.b64decode(values["parts"], validate=True),
            {str(name): str(value) for name, value in values["facts"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BlockError(f"it is no manifest of a layer ({error!r})") from error
    is_possible = 0 < made.size_bytes <= _SIZE_BYTES_MAX and len(made.parts) == 32 * made.part_count
    if not is_possible or len(made.blocks) != -(-made.size_bytes // BLOCK_BYTES) or not _are_digests(made.blocks):
        raise BlockError("it is no manifest of a layer: its blocks and its size contradict each other")
    if not _DIGEST.match(made.key):
        raise BlockError("it is no manifest of a layer: it names no key")
    return made


def parse_image(data: bytes, image_id: str) -> ImageManifest:
    """Read what the store has under an image's name.

    Raises:
        BlockError: it is damaged, or of another image.
    """
    body = unsealed(data)
    try:
        values = json.loads(body)
        if values["version"] != _VERSION:
            raise BlockError("it is of another version of Squall; build the image again with this one")
        config = from_wire(ImageConfig, values["config"])
        made = ImageManifest(str(values["image_id"]), config, tuple(values["layers"]))
    except (ValueError, KeyError, TypeError, RecordError) as error:
        raise BlockError(f"it is no manifest of an image ({error!r})") from error
    if made.image_id != image_id or not is_id(image_id, "im") or not made.layers or not _are_digests(made.layers):
        raise BlockError(f"it is the manifest of {made.image_id}, or of no image")
    return made


def sealed(body: bytes) -> bytes:
    """Bytes with their hash in front."""
    return hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def unsealed(data: bytes) -> bytes:
    """The bytes behind their hash.

    Raises:
        BlockError: they are not those it is of.
    """
    seal, _, body = data.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != seal:
        raise BlockError("its content is not that of its hash: it is damaged, or was not put whole")
    return body


def _canonical(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def is_digest(name: object) -> bool:
    """Whether this is how a block or the manifest of a layer is named."""
    return isinstance(name, str) and _DIGEST.match(name) is not None


def _are_digests(names: Sequence[object]) -> bool:
    return all(map(is_digest, names))


def _fill(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Read until the buffer is full or the file ends."""
    done = 0
    while done < len(buffer):
        count = os.preadv(descriptor, [buffer[done:]], offset + done)
        if not count:
            break
        done += count
    return done
