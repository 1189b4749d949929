"""What a container writes on a version of a volume, read from outside, makes the tree that the container sees."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from squall.agent.volume.tree_image import content_of, write_tree_image
from squall.agent.volume.upper import Fingerprint, read_upper
from squall.protocol.volume import RESERVED, VolumeChange
from squall.runtime import syscalls as sc
from squall.runtime.layer_mounts import make_image_mount
from squall.runtime.volume_overlay import CONTENTS, DESCRIPTOR, LAYER, PATH, WAYS, make_overlay, way_of
from squall.server.dispatch.asset import volume_changes
from squall.server.model.volume import MemoryNodes
from squall.server.volume.entry import DIRECTORY, FILE, Entry
from squall.server.volume.tree import PathError, parts_of, top_of, walk

NAMES = ["a", "b", "c", "d-long", "ä", os.fsdecode(b"\xff")]
Seen = dict[str, tuple[str, int, bytes | str | None]]


class Written:
    """A volume of one version at a time, with a container's writes on it, and every block in a dictionary."""

    def __init__(self, top: Path, way: str) -> None:
        self._top = top
        self._way = way
        self._contents = top / "contents:with a colon"
        (self._contents / CONTENTS).mkdir(parents=True)
        self.blocks: dict[str, bytes] = {}
        self.nodes = MemoryNodes()
        self.root = ""
        self.seen_root = ""
        self.known: dict[str, Fingerprint] = {}
        self.mounted = top / "mounted"
        self.mounted.mkdir()
        self._count = 0

    def mount(self, *, is_writable: bool = True) -> None:
        """The version there is, with nothing written on it."""
        self._count += 1
        self.seen_root, self.known = self.root, {}
        entries = [
            volume_changes.change_of(path, entry)
            for path, entry in walk(self.nodes, top_of(self.nodes, self.root), "", is_deep=True)
        ]
        for entry in entries:
            self._lay_out(entry)
        image = self._top / f"{self._count}.erofs"
        write_tree_image(entries, image, self._way)
        self._writable = self._top / f"written-{self._count}"
        for name in ("upper", "work"):
            (self._writable / name).mkdir(parents=True)
        lower = make_image_mount(str(image))
        tree = make_overlay(
            "a volume", lower, str(self._contents), str(self._writable) if is_writable else "", 0, self._way
        )
        sc.move_mount(tree, str(self.mounted))
        os.close(lower)
        os.close(tree)

    def unmount(self) -> None:
        sc.unmount(str(self.mounted))

    def _lay_out(self, entry: VolumeChange) -> None:
        content = content_of(entry)
        if content is None:
            return
        path = self._contents / CONTENTS / content.name[:2] / content.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"".join(self.blocks[block] for block in entry.blocks))

    def commit(self) -> None:
        """As the agent does, with blocks that are whole files."""
        reading = read_upper(str(self._writable / "upper"), 0, self.known)
        changes = list(reading.changes)
        for file in reading.files:
            data = (self._writable / "upper" / os.fsdecode(file.local)).read_bytes()
            block = f"{len(self.blocks):064x}"
            self.blocks[block] = data
            changes.append(_with_blocks(file.change, (block,) if data else ()))
        for change in changes:
            volume_changes.check(change)
        made = volume_changes.apply(self.nodes, self.root, self.seen_root, changes, keeps_unseen=True)
        self.nodes.made |= made.nodes
        self.root, self.known = made.root, reading.seen

    def put_by_others(self, path: str) -> None:
        """As somebody else does meanwhile, who has seen the newest version."""
        made = volume_changes.apply(self.nodes, self.root, self.root, [VolumeChange(path, kind="file")])
        self.nodes.made |= made.nodes
        self.root = made.root

    def listed(self) -> Seen:
        """The version there is."""
        found: Seen = {}
        for path, entry in walk(self.nodes, top_of(self.nodes, self.root), "", is_deep=True):
            found[path] = (entry.kind, entry.mode, self._content(entry))
        return found

    def _content(self, entry: Entry) -> bytes | str | None:
        if entry.kind == DIRECTORY:
            return None
        return b"".join(self.blocks[one] for one in entry.blocks) if entry.kind == FILE else entry.target

    def looked(self) -> Seen:
        """What the container sees."""
        found: Seen = {}
        for here, directories, files in os.walk(self.mounted):
            for name in [*directories, *files]:
                path = Path(here, name)
                inside = str(path.relative_to(self.mounted))
                mode = path.lstat().st_mode & 0o7777
                if path.is_symlink():
                    found[inside] = ("l", mode, os.readlink(path))
                elif path.is_dir():
                    found[inside] = ("d", mode, None)
                else:
                    found[inside] = ("f", mode, path.read_bytes())
        return found


def _with_blocks(change: VolumeChange, blocks: tuple[str, ...]) -> VolumeChange:
    return VolumeChange(**{**vars(change), "blocks": blocks})


def act(top: Path, chance: random.Random, number: int) -> None:
    """One thing that programs do to files."""
    paths = [Path(here, name) for here, directories, files in os.walk(top) for name in [*directories, *files]]
    directories = [top, *(path for path in paths if path.is_dir() and not path.is_symlink())]
    files = [path for path in paths if path.is_file() and not path.is_symlink()]
    kind = chance.choice(
        ["write", "write", "append", "mkdir", "remove", "rename", "rename", "link", "symlink", "chmod", "truncate"]
    )
    moved = chance.choice(paths) if kind == "rename" and paths else None
    new = chance.choice(directories) / chance.choice(NAMES)
    if kind == "write" and not new.is_dir():
        new.unlink(missing_ok=True)
        new.write_bytes(b"%d" % number * chance.randrange(1, 2_000))
    elif kind == "append" and files:
        with chance.choice(files).open("ab") as file:
            file.write(b"+%d" % number)
    elif kind == "mkdir" and not os.path.lexists(new):
        new.mkdir()
    elif kind == "remove" and paths:
        path = chance.choice(paths)
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()  # tidy: a tree of the test's
    elif moved is not None:
        if not str(new).startswith(str(moved)) and not (new.exists() and new.is_dir() != moved.is_dir()):
            if new.is_dir() and moved.is_dir() and not new.is_symlink():
                shutil.rmtree(new)  # tidy: a tree of the test's
            os.rename(moved, new)
    elif kind == "link" and files and not os.path.lexists(new):
        os.link(chance.choice(files), new)
    elif kind == "symlink" and not os.path.lexists(new):
        new.symlink_to(chance.choice(["a", "../b", "/nowhere"]))
    elif kind == "chmod" and files:
        chance.choice(files).chmod(chance.choice([0o600, 0o644, 0o755]))
    elif kind == "truncate" and files:
        os.truncate(chance.choice(files), chance.randrange(0, 50))


def difference(ours: Seen, theirs: Seen) -> dict[str, Any]:
    return {
        path: (ours.get(path), theirs.get(path))
        for path in ours.keys() | theirs.keys()
        if ours.get(path) != theirs.get(path)
    }


def begun(directory: str, way: str) -> Written:
    """In a process of its own, which has mounts that nobody else sees."""
    sc.unshare(sc.CLONE_NEWNS)
    sc.mount("none", "/", None, sc.MS_REC | sc.MS_PRIVATE)
    written = Written(Path(directory), way)
    written.mount()
    return written


def replace_what_was_renamed(directory: str, way: str) -> None:
    """A directory of the version is renamed, and then another one is in its place: what came along is gone."""
    written = begun(directory, way)
    top = written.mounted
    (top / "old").mkdir()
    (top / "old" / "kept").write_bytes(b"kept")
    written.commit()
    written.unmount()
    written.mount()
    os.rename(top / "old", top / "new")
    written.commit()
    assert list(written.listed()) == ["new", "new/kept"]
    (top / "new" / "kept").unlink()
    (top / "new").rmdir()
    (top / "new").mkdir()
    written.commit()
    assert list(written.listed()) == ["new"]
    (top / "new").rmdir()
    written.commit()
    assert written.listed() == {}
    written.unmount()


def run(directory: str, seed: int, way: str) -> None:
    """Write, commit, write on, commit again, and now and then go on upon the version made."""
    chance, written = random.Random(seed), begun(directory, way)
    for number in range(240):
        try:
            act(written.mounted, chance, number)
        except OSError:
            continue  # what the file system refuses is no change
        if number % 12 == 11:
            written.commit()
            found = difference(written.looked(), written.listed())
            assert not found, f"seed {seed}, after {number}: {found}"
        if number % 60 == 59:
            written.unmount()
            written.mount()
            found = difference(written.looked(), written.listed())
            assert not found, f"seed {seed}, mounted anew after {number}: {found}"
    written.unmount()


def run_beside_others(directory: str, seed: int, way: str) -> None:
    """The same, while others put files into the directories that there are: none of these ever goes."""
    chance, written = random.Random(seed), begun(directory, way)
    others: set[str] = set()
    for number in range(240):
        try:
            act(written.mounted, chance, number)
        except OSError:
            continue  # what the file system refuses is no change
        if number % 8 == 7:
            written.commit()
            listed, looked = written.listed(), written.looked()
            assert others <= listed.keys(), f"seed {seed}, after {number}: {sorted(others - listed.keys())}"
            kept = {above for path in others for above in map(str, Path(path).parents)}
            found = difference(looked, {path: one for path, one in listed.items() if path not in others})
            # A file that comes where others have something in a directory stays away.
            found = {path: one for path, one in found.items() if path not in kept or looked.get(path, "-")[0] == "d"}
            assert not found, f"seed {seed}, after {number}: {found}"
            path = chance.choice(["", *(f"{path}/" for path, one in listed.items() if one[0] == "d")])
            others.add(f"{path}other-{number}")
            written.put_by_others(f"{path}other-{number}")
        if number % 60 == 59:
            written.commit()
            written.unmount()
            written.mount()
            # From here on the container sees them, and may remove them.
            others = set()
    written.unmount()


@pytest.mark.parametrize("seed", range(12))
def test_nothing_that_others_have_put_meanwhile_goes(seed: int, data_dir: Path) -> None:
    assert failure_of(f"run_beside_others({str(data_dir)!r}, {seed}, {WAYS[seed % 3]!r})") == ""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", range(6))
def test_chance_changes_make_the_version_that_the_container_sees(seed: int, way: str, data_dir: Path) -> None:
    assert failure_of(f"run({str(data_dir)!r}, {seed}, {way!r})") == ""


@pytest.mark.parametrize("way", WAYS)
def test_a_directory_in_the_place_of_one_that_was_renamed_has_nothing_of_it(data_dir: Path, way: str) -> None:
    assert failure_of(f"replace_what_was_renamed({str(data_dir)!r}, {way!r})") == ""


def reach_for_contents(directory: str, way: str, *, is_writable: bool) -> None:
    """Nothing of the contents of other volumes is seen, and what a program puts in their place is its own."""
    written = begun(directory, way)
    top = written.mounted
    (top / "kept").write_bytes(b"kept")
    written.commit()
    written.unmount()
    written.mount(is_writable=is_writable)
    assert os.listdir(top) == ["kept"]
    assert (top / "kept").read_bytes() == b"kept"
    assert not (top / CONTENTS).exists()
    if is_writable:
        (top / CONTENTS).mkdir()
        assert os.listdir(top / CONTENTS) == []
        (top / CONTENTS / "mine").write_bytes(b"mine")
        (top / "more").write_bytes(b"more")
        written.commit()
        assert list(written.listed()) == ["kept", "more"]
    written.unmount()


@pytest.mark.parametrize("is_writable", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_in_other_volumes_is_seen_nowhere(data_dir: Path, way: str, is_writable: bool) -> None:
    assert failure_of(f"reach_for_contents({str(data_dir)!r}, {way!r}, is_writable={is_writable})") == ""


@pytest.mark.parametrize(
    ("release", "way"),
    [
        ("6.18.44-fc", DESCRIPTOR),
        ("6.13", DESCRIPTOR),
        ("6.12.1", PATH),
        ("6.8.0-40-generic", PATH),
        ("6.1.0-20-amd64", LAYER),
        ("7.0", DESCRIPTOR),
    ],
)
def test_each_kernel_mounts_them_in_the_way_that_it_knows(release: str, way: str) -> None:
    assert way_of(release) == way


def test_the_place_of_contents_is_a_name_that_no_version_has() -> None:
    assert CONTENTS == RESERVED
    with pytest.raises(PathError, match="choose another name"):
        parts_of(f"/{CONTENTS}/a")
    assert parts_of(f"a/{CONTENTS}") == ("a", CONTENTS)


def failure_of(call: str) -> str:
    """What is done in a process of its own, and how it fails; empty when it does not."""
    program = f"from tests.kernel import test_volume_uppers; test_volume_uppers.{call}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    return ended.stderr[-3_000:] if ended.returncode else ""
