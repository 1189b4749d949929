"""Manifests: one content, one name, and nothing accepted that contradicts itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from squall.agent.image.block.errors import BlockError
from squall.agent.image.block.manifest import (
    BLOCK_BYTES,
    PART_BYTES,
    ImageManifest,
    cut,
    parse_image,
    parse_layer,
    sealed,
)
from squall.protocol.image import ImageConfig
from tests.agent.image.block.stores import KEY

IMAGE_ID = "im-" + "1" * 32


def test_a_layer_is_cut_into_blocks_and_parts_that_are_named_by_their_content(tmp_path: Path) -> None:
    content = b"a" * BLOCK_BYTES + bytes(PART_BYTES) + b"rest"
    (tmp_path / "image").write_bytes(content)

    made = cut(tmp_path / "image", "ly-1", KEY, {"b": "2", "a": "1"})

    assert made.size_bytes == len(content)
    assert made.blocks == tuple(hashlib.sha256(c).hexdigest() for c in (content[:BLOCK_BYTES], content[BLOCK_BYTES:]))
    assert made.part_count == BLOCK_BYTES // PART_BYTES + 2
    assert made.part_digest(made.part_count - 1) == hashlib.sha256(b"rest").digest()
    assert [made.is_zero_part(part) for part in range(made.part_count)][-3:] == [False, True, False]
    assert parse_layer(made.to_bytes()) == made
    assert made.to_bytes() == cut(tmp_path / "image", "ly-1", KEY, {"a": "1", "b": "2"}).to_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"block_bytes": 1},
        {"size_bytes": 1},
        {"size_bytes": -5},
        {"size_bytes": "many"},
        {"blocks": ["../../etc/passwd"]},
        {"blocks": []},
        {"parts": "AAAA"},
        {"key": "k"},
        {"facts": 3},
    ],
)
def test_a_layer_manifest_that_cannot_be_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / "image").write_bytes(b"x" * (BLOCK_BYTES + 1))
    values = json.loads(cut(tmp_path / "image", "ly-1", KEY, {}).to_bytes())

    with pytest.raises(BlockError):
        parse_layer(json.dumps({**values, **change}).encode())


def test_an_image_manifest_is_read_as_what_was_written_and_as_nothing_else() -> None:
    config = ImageConfig({"A": "b"}, "/srv", "/usr/bin/python3", "3.11.2", layers=("ly-1",))
    made = ImageManifest(IMAGE_ID, config, (KEY,))
    data = made.to_bytes()

    assert parse_image(data, IMAGE_ID) == made
    for wrong in (data[:-1], data.replace(b"/srv", b"/etc"), b"", b"no seal", sealed(b"[]"), sealed(b"{}")):
        with pytest.raises(BlockError):
            parse_image(wrong, IMAGE_ID)
    with pytest.raises(BlockError, match="manifest of im-1111"):
        parse_image(data, "im-" + "2" * 32)
