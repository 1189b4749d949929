"""Images written and read again, without the kernel; what it makes of them is in tests/kernel/test_erofs.py."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from squall.erofs import layout
from squall.erofs.errors import PackError
from squall.erofs.image_tree import ImageTree
from squall.erofs.placement import Placement, place
from squall.erofs.reader import Image
from squall.erofs.tree import Node
from squall.erofs.unpack import unpack
from squall.erofs.writer import pack, write
from tests.erofs.trees import BLOCK, content, facts, make_everything, set_times

pytestmark = pytest.mark.long


def packed(tree: Path, image: Path) -> bytes:
    pack(str(tree), image)
    return image.read_bytes()


def unpacked(image: Path, directory: Path) -> Path:
    directory.mkdir()
    unpack(image, str(directory))
    return directory


def test_everything_comes_out_as_it_went_in(tmp_path: Path) -> None:
    make_everything(tmp_path / "tree")

    size = pack(str(tmp_path / "tree"), tmp_path / "image")

    assert size == (tmp_path / "image").stat().st_size
    assert size % BLOCK == 0
    assert facts(unpacked(tmp_path / "image", tmp_path / "out")) == facts(tmp_path / "tree")


def test_names_of_one_file_stay_names_of_one_file(tmp_path: Path) -> None:
    make_everything(tmp_path / "tree")
    pack(str(tmp_path / "tree"), tmp_path / "image")

    out = unpacked(tmp_path / "image", tmp_path / "out")

    assert (out / "sub" / "program").samefile(out / "sub" / "deeper" / "same program")


def test_one_tree_gives_the_same_bytes_wherever_and_whenever_it_is_made(tmp_path: Path) -> None:
    make_everything(tmp_path / "tree")
    first = packed(tmp_path / "tree", tmp_path / "first")
    # Made in another order, so that directories list their names in another one.
    again = tmp_path / "again"
    again.mkdir()
    for name in sorted(os.listdir(os.fsencode(tmp_path / "tree")), reverse=True):
        source, target = (os.path.join(str(root), os.fsdecode(name)) for root in (tmp_path / "tree", again))
        if os.path.isdir(source):
            shutil.copytree(source, target, symlinks=True)
        elif name in (b"pipe", b"socket"):
            os.rename(source, target)
        else:
            shutil.copy2(source, target, follow_symlinks=False)
    os.unlink(again / "sub" / "program")
    os.link(again / "sub" / "deeper" / "same program", again / "sub" / "program")
    set_times(again)

    second = packed(again, tmp_path / "second")

    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()
    build_time = struct.unpack_from("<Q", first, layout.SUPERBLOCK_OFFSET + 24)[0]
    assert build_time == 0


def test_names_may_be_listed_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_everything(tmp_path / "tree")
    first = packed(tmp_path / "tree", tmp_path / "first")
    scandir = os.scandir

    @contextlib.contextmanager
    def listed_backwards(descriptor: int) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(descriptor) as found:
            yield list(found)[::-1]

    with monkeypatch.context() as changed:
        changed.setattr(os, "scandir", listed_backwards)
        second = packed(tmp_path / "tree", tmp_path / "second")

    assert second == first


@pytest.mark.skipif(os.geteuid() != 0, reason="the owner of the files is part of the image: root")
def test_bytes_are_those_of_every_version_before(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        make_everything(tmp_path / "tree")
    finally:
        os.umask(mask)
    with (tmp_path / "tree" / "holes").open("wb") as file:
        file.truncate(3 * 2**20)
        file.seek(2**20)
        file.write(content(70_000))
    set_times(tmp_path / "tree")

    # Other bytes are another layer on every node that has this one: they need a decision.
    digest = hashlib.sha256(packed(tmp_path / "tree", tmp_path / "image")).hexdigest()
    assert digest == "9ea365b9f78bda54fa8868c43ac179b3ad542e8491a5c6642a2b2826abbca575"


def test_what_is_packed_from_an_image_is_that_image(tmp_path: Path) -> None:
    make_everything(tmp_path / "tree")
    with (tmp_path / "tree" / "holes").open("wb") as file:
        file.truncate(3 * 2**20)
        file.seek(2**20)
        file.write(content(70_000))
    first = packed(tmp_path / "tree", tmp_path / "first")

    with ImageTree(tmp_path / "first") as tree:
        write(tree, tmp_path / "second")

    assert (tmp_path / "second").read_bytes() == first


@pytest.mark.parametrize("size", [200_000, 2_000_000])
def test_a_large_file_that_shrinks_while_it_is_packed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(content(size))

    def place_and_change(root: Node) -> Placement:
        os.truncate(tmp_path / "tree" / "file", size - 100_000)
        return place(root)

    monkeypatch.setattr("squall.erofs.writer.place", place_and_change)

    with pytest.raises(PackError, match="file: it changed while it was read"):
        pack(str(tmp_path / "tree"), tmp_path / "image")


def test_a_time_more_or_less_is_another_image(tmp_path: Path) -> None:
    make_everything(tmp_path / "tree")
    first = packed(tmp_path / "tree", tmp_path / "first")
    time_ns = (tmp_path / "tree" / "file-1").stat().st_mtime_ns + 1
    os.utime(tmp_path / "tree" / "file-1", ns=(time_ns, time_ns))

    assert packed(tmp_path / "tree", tmp_path / "second") != first


def make_sparse(path: Path, size: int, *data: tuple[int, bytes]) -> None:
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
        for offset, written in data:
            os.pwrite(file.fileno(), written, offset)


def test_holes_stay_holes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    make_sparse(tree / "middle", 50 * BLOCK, (20 * BLOCK, b"data"))
    make_sparse(tree / "end", 1_000 * BLOCK + 77, (1_000 * BLOCK, b"e" * 77))
    make_sparse(tree / "nothing", 10**12)
    # More chunks than a table should have: they are larger than a block, and so is what is stored of each.
    make_sparse(tree / "huge", 2**40, (5 * 2**30 + 123, b"five"), (2**40 - 3, b"end"))

    size = pack(str(tree), tmp_path / "image")

    out = unpacked(tmp_path / "image", tmp_path / "out")
    for name in ("middle", "end"):
        assert (out / name).read_bytes() == (tree / name).read_bytes()
    for name in ("middle", "end", "nothing", "huge"):
        assert (out / name).stat().st_size == (tree / name).stat().st_size
    with (out / "huge").open("rb") as file:
        assert os.pread(file.fileno(), 6, 5 * 2**30 + 122) == b"\0five\0"
        assert os.pread(file.fileno(), 9, 2**40 - 5) == b"\0\0end"
    assert (out / "huge").stat().st_blocks * 512 < 100 * 2**20
    # The chunk tables of the two large files: 65,536 addresses at most each, and the data of a few chunks.
    assert size < 2 * 4 * 65_536 + 3 * 2**24 + 100 * BLOCK


def test_image_of_a_file_with_holes_is_as_small_as_its_data(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    make_sparse(tmp_path / "tree" / "file", 2_000 * BLOCK, (700 * BLOCK, b"data"))

    size = pack(str(tmp_path / "tree"), tmp_path / "image")

    out = unpacked(tmp_path / "image", tmp_path / "out")
    # The chunk table takes two of them.
    assert size <= 5 * BLOCK
    assert (out / "file").stat().st_blocks * 512 <= 2 * BLOCK


def test_reader_finds_names_without_unpacking(tmp_path: Path) -> None:
    make_everything(tmp_path / "tree")
    pack(str(tmp_path / "tree"), tmp_path / "image")

    with Image(tmp_path / "image") as image:
        names = {entry.name: entry.node for entry in image.entries(image.root)}
        found = b"".join(data for _, data in image.content(names[b"file-1048581"]))
        assert sorted(names) == sorted(os.listdir(os.fsencode(tmp_path / "tree")))
        assert found == content(1_048_581)
        assert image.target(names[b"link"]) == b"sub/program"


def test_extended_attributes_are_kept_and_those_of_the_machine_are_not(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * 4_000)
    try:
        for name, value in (("user.one", b"1"), ("user.two", b"\0" * 3_000), ("user.none", b"")):
            os.setxattr(tree / "file", name, value)
    except OSError as error:
        pytest.skip(f"the file system of {tmp_path} keeps no user attributes: {error}")
    pack(str(tree), tmp_path / "image")

    out = unpacked(tmp_path / "image", tmp_path / "out")

    assert facts(out) == facts(tree)
    assert os.getxattr(out / "file", "user.two") == b"\0" * 3_000


@pytest.mark.parametrize("size", [10, 500_000])
def test_a_file_that_grows_while_it_is_packed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * size)

    def place_then_grow(root: Node) -> Placement:
        found = place(root)
        os.truncate(tree / "file", size + 1)
        return found

    monkeypatch.setattr("squall.erofs.writer.place", place_then_grow)

    with pytest.raises(PackError, match=r"cannot pack .*/file: it changed while it was read"):
        pack(str(tree), tmp_path / "image")


def test_tree_too_deep_to_be_named_is_refused(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=here)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)

    with pytest.raises(PackError, match="nested so deeply that no program can name"):
        pack(str(tree), tmp_path / "image")


def test_an_image_is_never_written_over_another_file(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "image").write_bytes(b"precious")

    with pytest.raises(FileExistsError):
        pack(str(tmp_path / "tree"), tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == b"precious"


def test_what_others_are_to_find_free_is_not_taken(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * 500_000)

    with pytest.raises(PackError, match=r"it needs 1 MB, and of \d+ MB that are free there 1000000000000 MB are kept;"):
        pack(str(tree), tmp_path / "image", spare_bytes=10**18)
    assert (tmp_path / "image").stat().st_blocks == 0
    assert pack(str(tree), tmp_path / "other", spare_bytes=1) > 500_000
