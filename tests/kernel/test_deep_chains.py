"""Chains of many layers: containers stand on them, and a merged layer shows what those it stands for show."""

from __future__ import annotations

import os
import random
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from squall.erofs.image_tree import ImageTree
from squall.erofs.merge import Merged
from squall.erofs.tree import Scan, Source
from squall.erofs.unpack import unpack
from squall.erofs.writer import pack, write
from squall.runtime import syscalls as sc
from squall.runtime.layer_mounts import FROM_FILE, FROM_LOOP_DEVICE
from tests.erofs.trees import content, facts, make_everything, set_times
from tests.kernel.containers import Containers
from tests.kernel.elsewhere import elsewhere
from tests.kernel.test_erofs import Mounts

AS_DIRECTORY = "directory"
EACH_WAY = pytest.mark.parametrize("way", [FROM_FILE, FROM_LOOP_DEVICE, AS_DIRECTORY])
NAMES = ("a", "b", "c", "d")
CHANGES_OF_A_STEP = 6


def change_at_random(root: Path, rng: random.Random, number: int) -> None:
    """What a step may do: make, overwrite, delete, rename and re-make files and directories, at some depth."""
    for _ in range(CHANGES_OF_A_STEP):
        place = _directory(root, rng)
        one, other = place / rng.choice(NAMES), _directory(root, rng) / rng.choice(NAMES)
        what = rng.choice(("file", "file", "directory", "delete", "move", "move", "link", "mode", "append", "again"))
        if what == "file" and not one.is_dir():
            one.write_bytes(content(rng.choice((0, 10, 5_000, 200_000))) + b"%d" % number)
        elif what == "directory" and not os.path.lexists(one):
            one.mkdir()
            (one / rng.choice(NAMES)).write_bytes(b"in a new one %d" % number)
        elif what == "delete":
            _remove(one)
        elif (
            what == "move" and os.path.lexists(one) and not other.is_relative_to(one) and not one.is_relative_to(other)
        ):
            _remove(other)
            one.rename(other)
        elif what == "link" and one.is_file() and not os.path.lexists(other):
            os.link(one, other)
        elif what == "mode" and os.path.lexists(one):
            one.chmod(rng.choice((0o700, 0o711, 0o755)))
            os.setxattr(one, "user.step", b"%d" % number)
        elif what == "append" and one.is_file():
            with one.open("r+b") as file:
                file.truncate(rng.choice((3, 300_000)))
        elif what == "again" and one.is_dir():
            # Deleted and made anew: nothing of the old one may shine through.
            _remove(one)
            one.mkdir()
            (one / "new").write_bytes(b"new %d" % number)


def _directory(root: Path, rng: random.Random) -> Path:
    place = root
    while rng.random() < 0.7:
        inner = [place / name for name in (*NAMES, "sub") if (place / name).is_dir()]
        if not inner:
            break
        place = rng.choice(inner)
    return place


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)  # tidy: files of this test, in an overlay of its own
    elif os.path.lexists(path):
        path.unlink()


class Chain:
    """Layers made one upon the other, each by an overlay of those below it, and mounted in one way."""

    def __init__(self, place: Path, way: str) -> None:
        self._place = place
        self._way = way
        self._mounts = Mounts(place, [way]) if way != AS_DIRECTORY else None
        self.layers: list[str] = []
        self.shown: list[str] = []

    def add(self, layer: Path) -> None:
        """Keep a directory as the topmost layer."""
        number = len(self.layers)
        if self._mounts is None:
            self.layers.append(str(layer))
            self.shown.append(str(layer))
            return
        image = self._place / f"{number}.image"
        pack(str(layer), image)
        self.layers.append(str(image))
        self.shown.append(str(self._mounts.bring("ct-1", image)))

    def step(self, rng: random.Random) -> None:
        """Change something and keep the upper as the next layer."""
        number = len(self.layers)
        upper = self._place / f"upper-{number}"
        root = self.mount(f"root-{number}", self.shown, upper)
        change_at_random(root, rng, number)
        sc.unmount(str(root), 0)
        self.add(upper)

    def mount(self, name: str, layers: list[str], upper: Path | None = None) -> Path:
        """An overlay of layers, bottom first, by short names as containers have them."""
        links = self._place / f"{name}.links"
        links.mkdir()
        point = self._place / name
        point.mkdir()
        os.chdir(links)
        for number, layer in enumerate(layers):
            os.symlink(layer, str(number))
        lowers = ":".join(str(number) for number in reversed(range(len(layers))))
        options = f"lowerdir={lowers},redirect_dir=on,metacopy=off,index=off"
        if upper is not None:
            work = upper.with_name(f"{upper.name}.work")
            for directory in (upper, work):
                directory.mkdir()
            options += f",upperdir={upper},workdir={work}"
        sc.mount("squall", str(point), "overlay", 0, options)
        os.chdir("/")
        return point

    def merge(self, first: int, last: int) -> str:
        """Where the layers `first` to `last - 1` are shown as one."""
        image = self._place / f"merged-{first}-{last}.image"
        with ExitStack() as stack:
            sources: list[Source] = []
            for layer in self.layers[first:last]:
                is_directory = os.path.isdir(layer)
                sources.append(
                    stack.enter_context(Scan(layer)) if is_directory else stack.enter_context(ImageTree(Path(layer)))
                )
            write(Merged(sources), image)
        if self._mounts is not None:
            return str(self._mounts.bring("ct-1", image))
        tree = image.with_suffix(".tree")
        tree.mkdir()
        unpack(image, str(tree))
        return str(tree)


def seen(root: Path) -> dict[bytes, tuple[object, ...]]:
    """What a program sees, with the first name of the same file instead of how many there are.

    Overlayfs counts 1 for a directory that it shows several as, and still counts names of files that are hidden.
    """
    first: dict[tuple[int, int], bytes] = {}
    found: dict[bytes, tuple[object, ...]] = {}
    for path, one in sorted(facts(root).items()):
        status = os.lstat(os.path.join(os.fsencode(root), path))
        found[path] = (*one[:4], first.setdefault((status.st_dev, status.st_ino), path), *one[5:])
    return found


def boundaries(rng: random.Random, count: int) -> Iterator[tuple[int, int]]:
    """Groups above the base, of any sizes."""
    first = 1
    while first < count:
        last = min(count, first + rng.choice((1, 2, 3, 7, 20)))
        yield first, last
        first = last


@pytest.mark.parametrize(("way", "seed"), [(FROM_FILE, 0), (FROM_LOOP_DEVICE, 1), (AS_DIRECTORY, 2)])
def test_merged_layers_show_what_those_they_stand_for_show(data_dir: Path, way: str, seed: int) -> None:
    def make() -> tuple[object, object, int]:
        rng = random.Random(seed)
        chain = Chain(data_dir, way)
        base = data_dir / "base"
        make_everything(base)
        for name in NAMES:
            (base / name / name / name).mkdir(parents=True)
            (base / name / name / "file").write_bytes(name.encode())
        set_times(base)
        chain.add(base)
        for _ in range(60):
            chain.step(rng)
        merged = [chain.shown[0]]
        for first, last in boundaries(rng, len(chain.shown)):
            merged.append(chain.merge(first, last) if last - first > 1 else chain.shown[first])
        before = seen(chain.mount("before", chain.shown))
        after = seen(chain.mount("after", merged))
        return before, after, len(merged)

    before, after, count = elsewhere(make)

    assert count < 60
    assert after == before


@EACH_WAY
def test_a_merged_layer_can_be_merged_and_stood_upon_as_the_ones_it_stands_for(data_dir: Path, way: str) -> None:
    def make() -> tuple[object, object]:
        rng = random.Random(7)
        chain = Chain(data_dir, way)
        make_everything(data_dir / "base")
        chain.add(data_dir / "base")
        for _ in range(20):
            chain.step(rng)
        other = chain.mount("other", [chain.shown[0], chain.merge(1, 21)], data_dir / "other-upper")
        change_at_random(other, random.Random(8), 21)
        root = chain.mount("root", chain.shown, data_dir / "root-upper")
        change_at_random(root, random.Random(8), 21)
        for one in (other, root):
            set_times(one)
        return seen(root), seen(other)

    before, after = elsewhere(make)

    assert after == before


def test_redirects_opaque_directories_and_whiteouts_are_merged_into_marks(data_dir: Path) -> None:
    layers = [data_dir / f"layer-{number}" for number in range(3)]
    for layer in layers:
        layer.mkdir()
    # From the bottom: /old is renamed to /way/new; then /way/new/sub to /top; then /top/gone is deleted.
    (layers[0] / "way/new/own").mkdir(parents=True)
    os.setxattr(layers[0] / "way/new", "trusted.overlay.redirect", b"/old")
    os.mknod(layers[0] / "old", stat.S_IFCHR, 0)
    (layers[1] / "top").mkdir()
    os.setxattr(layers[1] / "top", "trusted.overlay.redirect", b"/way/new/sub")
    (layers[2] / "top").mkdir()
    os.mknod(layers[2] / "top/gone", stat.S_IFCHR, 0)
    (layers[2] / "fresh").mkdir()
    os.setxattr(layers[2] / "fresh", "trusted.overlay.opaque", b"y")

    with ExitStack() as stack:
        write(Merged([stack.enter_context(Scan(str(layer))) for layer in layers]), data_dir / "image")

    (data_dir / "out").mkdir()
    unpack(data_dir / "image", str(data_dir / "out"))
    found = facts(data_dir / "out")
    assert found[b"top"][7] == {"trusted.overlay.redirect": b"/old/sub"}
    assert found[b"way/new"][7] == {"trusted.overlay.redirect": b"/old"}
    assert found[b"fresh"][7] == {"trusted.overlay.opaque": b"y"}
    assert stat.S_ISCHR(os.lstat(data_dir / "out/top/gone").st_mode)
    assert stat.S_ISCHR(os.lstat(data_dir / "out/old").st_mode)


@pytest.mark.parametrize("count", [60, 200, 499])
@pytest.mark.parametrize("is_image", [True, False])
async def test_container_starts_from_a_deep_chain(containers: Containers, count: int, is_image: bool) -> None:
    layers = [containers.rootfs]
    for number in range(1, count):
        tree = containers.base / f"tree-{number}"
        (tree / "opt").mkdir(parents=True)
        (tree / "opt" / "last").write_text(f"{number}")
        (tree / "opt" / f"file-{number}").write_text("x")
        layers.append(str(tree))
        if is_image:
            layers[-1] = str(containers.base / f"{number}.erofs")
            pack(str(tree), Path(layers[-1]))

    ended = await containers.run("sh", "-c", "cat /opt/last; ls /opt | wc -l", layers=layers)

    assert ended.status.code == 0, ended
    assert ended.stdout.split() == [f"{count - 1}{count}"]
