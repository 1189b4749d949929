"""Images that are none, or are damaged: every one is an error that says so, whatever its bytes are."""

from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from squall.erofs import layout
from squall.erofs.errors import BadImage
from squall.erofs.reader import Image
from squall.erofs.unpack import unpack
from squall.erofs.writer import pack
from squall.runtime.removal import remove_tree
from tests.erofs.trees import BLOCK

AT = layout.SUPERBLOCK_OFFSET


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small image with files, a link, two names of one file, and a hole."""
    root = tmp_path_factory.mktemp("reader")
    tree = root / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(b"x" * 5_000)
    (tree / "again").hardlink_to(tree / "sub" / "file")
    (tree / "link").symlink_to("sub")
    with (tree / "hole").open("wb") as file:
        file.seek(100 * BLOCK)
        file.write(b"end")
    pack(str(tree), root / "image")
    return (root / "image").read_bytes()


def with_checksum(data: bytes) -> bytes:
    checksum = layout.superblock_checksum(data[:BLOCK])
    return data[: AT + 4] + checksum.to_bytes(4, "little") + data[AT + 8 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "not an EROFS image"),
        (lambda data: data[: BLOCK - 1], "not an EROFS image"),
        (lambda data: bytes(len(data)), "its magic number is missing"),
        (lambda data: data[:-1], "damaged EROFS image: .* has .* bytes and should have"),
        (lambda data: data[: AT + 40] + b"\1" + data[AT + 41 :], "the checksum of its superblock is wrong"),
        (lambda data: with_checksum(data[: AT + 80] + b"\1" + data[AT + 81 :]), "cannot read EROFS image: .*0x1"),
        (lambda data: with_checksum(data[: AT + 12] + b"\x10" + data[AT + 13 :]), "block size 2\\^16"),
        (lambda data: with_checksum(data[: AT + 14] + b"\xff\xff" + data[AT + 16 :]), "behind its end"),
    ],
)
def test_what_is_no_good_image_is_refused(tmp_path: Path, good: bytes, damage: object, message: str) -> None:
    (tmp_path / "image").write_bytes(damage(good))  # type: ignore[operator]
    (tmp_path / "out").mkdir()

    with pytest.raises(BadImage, match=message):
        unpack(tmp_path / "image", str(tmp_path / "out"))


@pytest.mark.long
def test_random_damage_is_an_error_or_harmless(tmp_path: Path, good: bytes) -> None:
    chance = random.Random(20261124)
    metadata = BLOCK * 2
    refused = 0
    for number in range(400):
        data = bytearray(good)
        for _ in range(chance.choice((1, 1, 2, 8))):
            data[chance.randrange(AT + 128, metadata)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        (tmp_path / "image").write_bytes(with_checksum(bytes(data)))
        out = tmp_path / str(number)
        out.mkdir()
        try:
            unpack(tmp_path / "image", str(out))
        except (BadImage, OSError):
            refused += 1
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(("image", str(number)))
        remove_tree(str(out))

    assert refused > 50


def test_directory_with_two_names_is_refused(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "image").write_bytes(good)
    with Image(tmp_path / "image") as image:
        sub = next(entry.node for entry in image.entries(image.root) if entry.name == b"sub")
        link = next(entry.node for entry in image.entries(image.root) if entry.name == b"link")
    # The link's name now leads to the directory: a tree no more. In a directory: node, offset of the name, kind.
    at = good.index(link.to_bytes(8, "little"))
    changed = good[:at] + sub.to_bytes(8, "little") + good[at + 8 : at + 10] + b"\2" + good[at + 11 :]
    (tmp_path / "image").write_bytes(with_checksum(changed))
    (tmp_path / "out").mkdir()

    with pytest.raises(BadImage, match="has two names"):
        unpack(tmp_path / "image", str(tmp_path / "out"))


def test_threads_that_read_one_image_each_read_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(60):
        (tmp_path / "tree" / f"{number:02}").write_bytes(bytes([number]) * 9_000)
    pack(str(tmp_path / "tree"), tmp_path / "image")
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Image(tmp_path / "image") as image, ThreadPoolExecutor(4) as threads:
            nodes = {int(entry.name): entry.node for entry in image.entries(image.root)}

            def wrong(order: int) -> list[int]:
                numbers = random.Random(order).choices(list(nodes), k=1_000)
                return [
                    number
                    for number in numbers
                    if b"".join(data for _, data in image.content(nodes[number])) != bytes([number]) * 9_000
                ]

            assert list(threads.map(wrong, range(4))) == [[]] * 4
    finally:
        sys.setswitchinterval(before_s)
