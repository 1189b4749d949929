"""Stacked layers read without mounting them are what overlayfs shows of them, also beneath files that are copied in."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest

from squall.agent.image.layer.copy_files import CopyPlan, copy_files
from squall.agent.image.layer.merged import Merged, Place, merged
from squall.runtime import syscalls as sc
from squall.runtime.layer_mounts import FROM_FILE, FROM_LOOP_DEVICE
from tests.erofs.trees import facts, make_everything, set_times
from tests.kernel.elsewhere import elsewhere
from tests.kernel.test_deep_chains import AS_DIRECTORY, EACH_WAY, NAMES, Chain

Facts = dict[bytes, tuple[object, ...]]


def shown(root: Path) -> Facts:
    """What the kernel shows, less what nobody reads of a layer: how many names a file has, and device numbers."""
    return {path: (*one[:4], *one[6:]) for path, one in facts(root).items()}


def read(layers: list[str]) -> Facts:
    """What `Merged` says of the same."""
    with merged(layers) as tree:
        root = tree.find("/")
        assert root is not None
        return dict(walk(tree, root))


def walk(tree: Merged, place: Place) -> list[tuple[bytes, tuple[object, ...]]]:
    found, kind = place.found, stat.S_IFMT(place.found.mode)
    size = 0 if kind == stat.S_IFDIR else found.size
    target = os.fsencode(tree.target(place)) if kind == stat.S_IFLNK else b""
    path = os.fsencode("/".join(place.names) or ".")
    one = (found.mode, (found.uid, found.gid), size, found.mtime_ns, target, attributes(tree, place), b"")
    if kind == stat.S_IFREG:
        one = (*one[:-1], content(tree, place))
    inner = tree.entries(place) if place.is_directory else ()
    return [(path, one), *(pair for entry in inner for pair in walk(tree, entry))]


def content(tree: Merged, place: Place) -> bytes:
    data = bytearray(place.found.size)
    for offset, piece in tree.content(place):
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def attributes(tree: Merged, place: Place) -> dict[str, bytes]:
    return {name: value for name, value in tree.xattrs(place).items() if name != "security.selinux"}


def make_base(place: Path) -> Path:
    base = place / "base"
    make_everything(base)
    for name in NAMES:
        (base / name / name / name).mkdir(parents=True)
        (base / name / name / "file").write_bytes(name.encode())
    set_times(base)
    return base


@pytest.mark.parametrize(
    ("way", "seed"), [(FROM_FILE, 10), (FROM_LOOP_DEVICE, 11), (AS_DIRECTORY, 12), (AS_DIRECTORY, 13)]
)
def test_layers_are_read_as_overlayfs_shows_them(data_dir: Path, way: str, seed: int) -> None:
    def make() -> list[tuple[Facts, Facts]]:
        rng = random.Random(seed)
        chain = Chain(data_dir, way)
        chain.add(make_base(data_dir))
        found = []
        for count in range(30):
            chain.step(rng)
            if count % 10 == 9:
                found.append((read(chain.layers), shown(chain.mount(f"shown-{count}", chain.shown))))
        return found

    for ours, theirs in elsewhere(make):
        assert ours == theirs


def change(chain: Chain, data_dir: Path, name: str, *commands: tuple[str, ...]) -> None:
    """Make a layer by an overlay of those that are there."""
    upper = data_dir / f"{name}.upper"
    root = chain.mount(name, chain.shown, upper)
    for what, *names in commands:
        paths = [root / one for one in names]
        if what == "move":
            paths[0].rename(paths[1])
        elif what == "write":
            paths[0].write_text(name)
        elif what == "make":
            paths[0].mkdir()
        elif what == "delete":
            paths[0].unlink()
        elif what == "delete directory":
            paths[0].rmdir()
    sc.unmount(str(root), 0)
    chain.add(upper)


def make_marked_chain(data_dir: Path, way: str) -> Chain:
    """A chain with each mark of overlayfs in a place that is known, one above another."""
    chain = Chain(data_dir, way)
    base = data_dir / "base"
    for name in ("gone/inner", "renamed/deep/er", "again", "swap", "far"):
        (base / name).mkdir(parents=True)
    for name in (
        "gone/inner/file",
        "renamed/deep/er/file",
        "renamed/file",
        "again/old",
        "swap/old",
        "far/file",
        "file",
    ):
        (base / name).write_text("base")
    chain.add(base)
    change(chain, data_dir, "one", ("move", "renamed", "moved"), ("write", "moved/deep/new"), ("delete", "file"))
    change(chain, data_dir, "two", ("move", "moved/deep", "far/deep"), ("delete", "gone/inner/file"))
    change(chain, data_dir, "three", ("delete directory", "gone/inner"), ("delete directory", "gone"), ("make", "gone"))
    change(chain, data_dir, "four", ("delete", "again/old"), ("delete directory", "again"), ("write", "again"))
    change(chain, data_dir, "five", ("delete", "swap/old"), ("delete directory", "swap"), ("move", "far", "swap"))
    change(chain, data_dir, "six", ("write", "gone/new"), ("write", "swap/deep/er/file"), ("make", "renamed"))
    return chain


@EACH_WAY
def test_whiteouts_opaque_and_renamed_directories_are_read_as_the_kernel_does(data_dir: Path, way: str) -> None:
    def make() -> tuple[Facts, Facts, set[str]]:
        chain = make_marked_chain(data_dir, way)
        marks = {
            name
            for upper in data_dir.glob("*.upper")
            for path in upper.rglob("*")
            for name in ("opaque", "redirect")
            if path.is_dir() and f"trusted.overlay.{name}" in os.listxattr(path)
        }
        marks |= {
            "whiteout" for upper in data_dir.glob("*.upper") for path in upper.rglob("*") if path.is_char_device()
        }
        return read(chain.layers), shown(chain.mount("shown", chain.shown)), marks

    ours, theirs, marks = elsewhere(make)

    assert marks == {"opaque", "redirect", "whiteout"}, "the kernel made what this is about"
    assert ours == theirs
    assert b"swap/deep/er/file" in ours
    assert b"gone/inner" not in ours
    assert b"moved/deep" not in ours


@EACH_WAY
def test_copied_files_show_and_nothing_else_changes(data_dir: Path, way: str) -> None:
    targets = ("/gone", "/swap/deep/er", "/renamed/not/there", "/moved")

    def make() -> tuple[Facts, Facts]:
        chain = make_marked_chain(data_dir, way)
        before = shown(chain.mount("before", chain.shown))
        source = data_dir / "source"
        (source / "sub").mkdir(parents=True)
        (source / "sub" / "program").write_bytes(b"#!/bin/sh\n")
        os.link(source / "sub" / "program", source / "again")
        (source / "link").symlink_to("sub/program")
        for number, path in enumerate(targets):
            tree = data_dir / f"copied-{number}"
            tree.mkdir()
            copy_files(CopyPlan(str(tree), tuple(chain.layers), path, (str(source),)))
            chain.add(tree)
        assert read(chain.layers) == shown(chain.mount("after", chain.shown))
        return before, shown(chain.mount("again", chain.shown))

    before, after = elsewhere(make)

    for path in targets:
        name = os.fsencode(path[1:])
        assert after[name + b"/sub/program"][-1] == b"#!/bin/sh\n"
        assert after[name + b"/link"][-3] == b"sub/program"
    outside = [path for path in before if not any(os.fsdecode(path).startswith(one[1:]) for one in targets)]
    assert outside
    assert {path: after[path] for path in outside} == {path: before[path] for path in outside}
    kept = (b"moved/file", b"swap/file")
    assert [after[path] for path in kept] == [before[path] for path in kept]


@EACH_WAY
def test_files_of_another_image_are_copied_as_the_kernel_shows_them(data_dir: Path, way: str) -> None:
    def make() -> tuple[Facts, Facts]:
        chain = make_marked_chain(data_dir, way)
        theirs = shown(chain.mount("shown", chain.shown))
        tree = data_dir / "copied"
        tree.mkdir()
        copy_files(CopyPlan(str(tree), (), "/", tuple(chain.layers)))
        return shown(tree), theirs

    copied, theirs = elsewhere(make)

    # The root of the new layer is its own.
    assert {path: one for path, one in copied.items() if path != b"."} == {
        path: one for path, one in theirs.items() if path != b"."
    }
