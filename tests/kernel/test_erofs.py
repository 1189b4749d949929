"""Images as the kernel mounts them: every fact of a tree, and what overlayfs needs of a layer."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from squall.agent.image.machine.own_program import own_environ, own_program
from squall.erofs.unpack import unpack
from squall.erofs.writer import pack
from squall.runtime import layer_mounts
from squall.runtime import syscalls as sc
from squall.runtime.errors import RuntimeFailure
from squall.runtime.layer_mounts import FROM_FILE, FROM_LOOP_DEVICE, IDLE_MAX, WAYS, LayerMounts, make_image_namespace
from squall.runtime.removal import mounts_below
from tests.erofs.trees import facts, make_everything, set_times
from tests.kernel.conftest import SmallDisk
from tests.kernel.containers import Containers
from tests.kernel.elsewhere import elsewhere

EACH_WAY = pytest.mark.parametrize("way", [FROM_FILE, FROM_LOOP_DEVICE])
PING = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
"""The value of security.capability that lets a program open raw sockets."""


def make_root_things(tree: Path) -> None:
    """What only root can make, beside what anybody can."""
    make_everything(tree)
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(tree / "disk", stat.S_IFBLK | 0o660, os.makedev(259, 0x12345))
    (tree / "ping").write_bytes(b"program" * 1_000)
    os.chown(tree / "ping", 1_000, 65_534)
    (tree / "ping").chmod(0o4755)
    os.setxattr(tree / "ping", "security.capability", PING)
    os.setxattr(tree / "ping", "user.note", b"n" * 300)
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, bits, number)
        for tag, bits, number in (
            (1, 6, 2**32 - 1),
            (2, 7, 1_234),
            (4, 4, 2**32 - 1),
            (16, 7, 2**32 - 1),
            (32, 4, 2**32 - 1),
        )
    )
    os.setxattr(tree / "ping", "system.posix_acl_access", acl)
    os.lchown(tree / "link", 12, 34)
    set_times(tree)


class Mounts(LayerMounts):
    """Images mounted by this process, and a way to look at them."""

    def __init__(self, place: Path, ways: Sequence[str] = WAYS) -> None:
        self.images_fd = make_image_namespace(str(place / "images"))
        super().__init__(self.images_fd, ways)

    def visit(self, look: Callable[[], Any]) -> Any:
        """What `look` returns where the images are mounted."""
        own = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        sc.setns(self.images_fd, sc.CLONE_NEWNS, "the namespace of images")
        try:
            return look()
        finally:
            sc.setns(own, sc.CLONE_NEWNS, "the test's mount namespace")
            os.close(own)

    def bring(self, container_id: str, image: Path) -> Path:
        """Mount an image beside its file."""
        point = self.take(container_id, [str(image)])[str(image)]
        tree = self.visit(partial(sc.open_tree, point))
        target = image.with_suffix(f".{container_id}")
        target.mkdir()
        sc.move_mount(tree, str(target))
        os.close(tree)
        return target

    def count(self) -> int:
        """How many images are mounted."""
        found: list[str] = self.visit(lambda: os.listdir("/"))
        return len(found)


def mounted_facts(image: Path, way: str) -> dict[bytes, tuple[object, ...]]:
    return facts(Mounts(image.parent, [way]).bring("ct-1", image))


@EACH_WAY
def test_kernel_shows_what_was_packed(data_dir: Path, way: str) -> None:
    make_root_things(data_dir / "tree")
    pack(str(data_dir / "tree"), data_dir / "image")

    shown = elsewhere(partial(mounted_facts, data_dir / "image", way))

    assert shown == facts(data_dir / "tree")


def test_unpacking_gives_what_was_packed_where_the_kernel_mounts_none(data_dir: Path) -> None:
    make_root_things(data_dir / "tree")
    pack(str(data_dir / "tree"), data_dir / "image")
    (data_dir / "out").mkdir()

    unpack(data_dir / "image", str(data_dir / "out"))
    pack(str(data_dir / "out"), data_dir / "again")

    assert facts(data_dir / "out") == facts(data_dir / "tree")
    assert (data_dir / "again").read_bytes() == (data_dir / "image").read_bytes()


def test_checker_of_the_erofs_tools_finds_nothing_wrong(data_dir: Path) -> None:
    if shutil.which("fsck.erofs") is None:
        pytest.skip("fsck.erofs is missing; install the package erofs-utils")
    make_root_things(data_dir / "tree")
    pack(str(data_dir / "tree"), data_dir / "image")

    checked = subprocess.run(
        ["fsck.erofs", "--extract", data_dir / "image"], capture_output=True, text=True, timeout=60
    )

    assert checked.returncode == 0, checked
    assert "err" not in (checked.stdout + checked.stderr).lower(), checked


def overlay(point: Path, lowers: list[str], upper: Path | None) -> Path:
    """An overlay as containers have it; `lowers` top first."""
    point.mkdir(exist_ok=True)
    options = f"lowerdir={':'.join(lowers)},redirect_dir=on,metacopy=off,index=off"
    if upper is not None:
        work = upper.with_name(f"{upper.name}-work")
        for directory in (upper, work):
            directory.mkdir(exist_ok=True)
        options += f",upperdir={upper},workdir={work}"
    sc.mount("squall", str(point), "overlay", 0, options)
    return point


def change(root: Path) -> None:
    """Everything a step can do to what is below: delete, replace, hide, move, change."""
    (root / "file-1").unlink()
    shutil.rmtree(root / "many")  # tidy: files of this test, in an overlay of its own
    (root / "many").mkdir()
    (root / "many" / "new").write_bytes(b"new")
    (root / "sub").rename(root / "moved")
    (root / "moved" / "program").chmod(0o700)
    (root / "link").unlink()
    (root / "link").mkdir()
    with (root / "file-131073").open("r+b") as file:
        file.write(b"changed")
    set_times(root)


@EACH_WAY
def test_a_layer_changes_what_is_below_it_as_it_did_when_it_was_made(data_dir: Path, way: str) -> None:
    make_root_things(data_dir / "tree")

    def first() -> tuple[object, object]:
        pack(str(data_dir / "tree"), data_dir / "base.image")
        mounts = Mounts(data_dir, [way])
        base = str(mounts.bring("ct-1", data_dir / "base.image"))
        root = overlay(data_dir / "root", [base], data_dir / "upper")
        change(root)
        before = facts(root)
        sc.unmount(str(root), 0)
        pack(str(data_dir / "upper"), data_dir / "upper.image")
        upper = str(mounts.bring("ct-1", data_dir / "upper.image"))
        return before, facts(overlay(data_dir / "again", [upper, base], None))

    before, after = elsewhere(first)

    assert b"moved/program" in before
    assert b"sub" not in before
    assert sorted(name for name in before if name.startswith(b"many/")) == [b"many/new"]
    assert after == before


def test_marks_of_the_machine_are_left_out_and_those_of_the_layer_stay(data_dir: Path) -> None:
    tree = data_dir / "tree"
    (tree / "hidden").mkdir(parents=True)
    os.setxattr(tree / "hidden", "trusted.overlay.opaque", b"y")
    os.setxattr(tree / "hidden", "trusted.overlay.redirect", b"/somewhere")
    for name in ("trusted.overlay.origin", "trusted.overlay.impure", "trusted.other"):
        os.setxattr(tree / "hidden", name, b"y")
    os.mknod(tree / "gone", stat.S_IFCHR, 0)
    pack(str(tree), data_dir / "image")

    shown = elsewhere(partial(mounted_facts, data_dir / "image", FROM_FILE))

    assert shown[b"hidden"][7] == {"trusted.overlay.opaque": b"y", "trusted.overlay.redirect": b"/somewhere"}
    assert stat.S_ISCHR(shown[b"gone"][0])
    assert shown[b"gone"][5] == 0


@pytest.mark.parametrize(("count", "size"), [(1, 3 * 2**20), (1_000, 3_000)])
def test_full_disk_is_found_out_before_anything_is_written(data_dir: Path, count: int, size: int) -> None:
    tree = data_dir / "tree"
    tree.mkdir()
    # Small ones are written to memory, where a full disk is a signal.
    for number in range(count):
        (tree / f"{number}").write_bytes(b"x" * size)
    (data_dir / "small").mkdir()

    def pack_there() -> tuple[int, str]:
        sc.mount("none", str(data_dir / "small"), "tmpfs", 0, "size=2m")
        command = own_program("squall.erofs.pack", str(tree), str(data_dir / "small" / "image"))
        done = subprocess.run(command, env=own_environ(), capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    code, said = elsewhere(pack_there)

    assert code == 1, (code, said)
    assert said.startswith(f"cannot write image {data_dir}/small/image: No space left on device (it needs "), said
    assert "free some space there" in said


def test_containers_share_what_is_mounted_and_the_machine_sees_nothing_of_it(data_dir: Path) -> None:
    make_everything(data_dir / "tree")
    image = data_dir / "image"
    pack(str(data_dir / "tree"), image)

    def look() -> tuple[Any, ...]:
        mounts = Mounts(data_dir)
        first = mounts.take("ct-1", [str(image), str(data_dir)])
        second = mounts.take("ct-2", [str(image)])
        os.rename(image, data_dir / "old")
        pack(str(data_dir / "tree"), image)
        third = mounts.take("ct-3", [str(image)])
        return first, second, third, mounts.count(), mounts_below(str(data_dir))

    first, second, third, count, seen = elsewhere(look)

    assert first == second == {str(image): "/1"}
    assert third == {str(image): "/2"}
    assert count == 2
    assert seen == []


def test_images_nobody_uses_are_let_go_longest_unused_first(data_dir: Path) -> None:
    (data_dir / "tree").mkdir()
    images = [data_dir / f"image-{number}" for number in range(IDLE_MAX + 3)]
    for image in images:
        pack(str(data_dir / "tree"), image)

    def look() -> tuple[Any, ...]:
        mounts = Mounts(data_dir)
        for number, image in enumerate(images):
            mounts.take(f"ct-{number}", [str(image)])
        mounts.take("ct-user", [str(images[0])])
        many = mounts.count()
        for number in range(len(images)):
            mounts.release(f"ct-{number}")
        return many, mounts.count(), mounts.take("ct-again", [str(images[0])]), mounts.take("ct-2", [str(images[1])])

    many, few, in_use, let_go = elsewhere(look)

    assert many == len(images)
    assert few == IDLE_MAX + 1
    assert in_use == {str(images[0]): "/1"}
    assert let_go == {str(images[1]): f"/{len(images) + 1}"}


@EACH_WAY
@pytest.mark.long
def test_space_of_removed_images_is_free_when_nobody_stands_on_them(
    data_dir: Path, small_disk: SmallDisk, way: str
) -> None:
    (data_dir / "tree").mkdir()
    (data_dir / "tree/file").write_bytes(os.urandom(2**22))
    images = [small_disk.place / f"image-{number}" for number in range(4)]

    def look() -> tuple[Any, ...]:
        mounts, empty = Mounts(data_dir, [way]), small_disk.free_bytes()
        for image in images:
            pack(str(data_dir / "tree"), image)
        mounts.take("ct-1", [str(images[0]), str(images[1])])
        mounts.take("ct-2", [str(images[2]), str(images[3])])
        mounts.release("ct-1")
        images[0].unlink()
        images[2].unlink()
        mounted = mounts.count()
        mounts.drop_removed()
        without_the_idle = mounts.count(), mounts.take("ct-3", [str(images[1])])
        mounts.release("ct-2")
        without_both = mounts.count()
        return mounted, without_the_idle, without_both, (empty - small_disk.free_bytes()) // 2**22

    mounted, without_the_idle, without_both, used = elsewhere(look)

    assert mounted == 4
    assert without_the_idle == (3, {str(images[1]): "/2"})
    assert without_both == 2
    assert used == 2


def test_mounting_that_does_not_end_is_ended(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data_dir / "tree").mkdir()
    pack(str(data_dir / "tree"), data_dir / "image")
    monkeypatch.setattr(layer_mounts, "_CHILD_TIMEOUT_S", 0.3)

    def take() -> tuple[str, dict[str, str]]:
        mounts = Mounts(data_dir)
        said = "taken"
        with monkeypatch.context() as changed:
            changed.setattr(layer_mounts, "_attach", lambda trees: time.sleep(60))
            try:
                mounts.take("ct-1", [str(data_dir / "image")])
            except RuntimeFailure as failure:
                said = failure.message
        return said, mounts.take("ct-2", [str(data_dir / "image")])

    said, after = elsewhere(take)

    assert said == "cannot mount images: the kernel was not done with it after 0 s"
    assert after == {str(data_dir / "image"): "/2"}


@EACH_WAY
def test_what_is_no_image_is_refused_with_its_name(data_dir: Path, way: str) -> None:
    (data_dir / "image").write_bytes(b"no image" * 1_000)

    def take() -> str:
        try:
            Mounts(data_dir, [way]).take("ct-1", [str(data_dir / "image")])
        except RuntimeFailure as failure:
            return failure.message
        return "taken"

    said = elsewhere(take)

    assert said == f"cannot mount layer {data_dir}/image: it is no EROFS image, or is damaged; build its image again"


async def test_container_runs_from_an_image_and_finds_its_bytecode_fresh(containers: Containers) -> None:
    image = containers.base / "rootfs.image"
    pack(containers.rootfs, image)

    code = "import json, sys; print(json.__file__)"
    ended = await containers.run("python3", "-v", "-c", code, layers=[str(image)])

    assert ended.status.code == 0, ended
    assert ended.stdout == "/usr/lib/python3.11/json/__init__.py\n", ended
    assert "code object from '/usr/lib/python3.11/json/__init__.py'" not in ended.stderr
    assert "bytecode is stale" not in ended.stderr


async def test_container_is_root_of_an_image_and_owner_of_nothing_of_the_machine(containers: Containers) -> None:
    image = containers.base / "rootfs.image"
    pack(containers.rootfs, image)
    before = hashlib.sha256(image.read_bytes()).digest()

    script = "stat -c %u:%g /etc/passwd; echo more >>/etc/passwd; mv /usr/share /usr/moved; ls /usr/moved | wc -l"
    ended = await containers.run("sh", "-ec", script, layers=[str(image)])

    assert ended.status.code == 0, ended
    owner, count = ended.stdout.split()
    assert owner == "0:0"
    assert int(count) > 3
    assert hashlib.sha256(image.read_bytes()).digest() == before
