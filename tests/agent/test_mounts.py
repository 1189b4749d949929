"""Users' files on a node: laid out once, at the right place, never beyond it, and not for ever."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from squall.agent.mounts import Mounts, mount_path, resolve
from squall.erofs import pack
from squall.protocol.errors import PlatformError
from squall.protocol.mount import MountFile, MountManifest, MountRef
from tests.agent.parts import Files


class Laid:
    """Mounts of one data directory and where their files come from."""

    def __init__(self, data_dir: Path, threads: ThreadPoolExecutor) -> None:
        self.data_dir = data_dir
        self.files = Files()
        self.threads = threads
        self.mounts = self.successor()

    def successor(self, bytes_max: int = 10 * 2**20) -> Mounts:
        made = Mounts(self.data_dir, self.files, self.threads, bytes_max)
        made.prepare()
        return made

    def folders(self) -> set[str]:
        return {path.name for path in (self.data_dir / "mounts" / "sets").iterdir()}


@pytest.fixture
async def laid(data_dir: Path) -> AsyncIterator[Laid]:
    with ThreadPoolExecutor(2) as threads:
        yield Laid(data_dir, threads)


async def test_mounts_of_one_target_are_merged_and_nested_ones_are_in_place(laid: Laid) -> None:
    code = laid.files.add({"app.py": b"code", "pkg/__init__.py": b""})
    more = laid.files.add({"lib.py": b"more"})
    data = laid.files.add({"table.csv": b"1,2"})
    refs = [MountRef(code, "/root"), MountRef(more, "/root"), MountRef(data, "/root/pkg/data")]

    root = Path((await laid.mounts.acquire(refs, ())).path) / "root"

    assert (root / "app.py").read_bytes() == b"code"
    assert (root / "lib.py").read_bytes() == b"more"
    assert (root / "pkg" / "data" / "table.csv").read_bytes() == b"1,2"


async def test_files_are_readable_by_all_and_only_programs_are_executable(laid: Laid) -> None:
    old_mask = os.umask(0o077)
    try:
        plain = laid.files.add({"secret.txt": b"x"}, mode=0o600)
        program = laid.files.add({"bin/run": b"#!"}, mode=0o700)
        root = Path((await laid.mounts.acquire([MountRef(plain, "/a"), MountRef(program, "/b")], ())).path)
    finally:
        os.umask(old_mask)

    modes = {str(path.relative_to(root)): path.stat().st_mode & 0o7777 for path in root.rglob("*")}
    assert modes == {"a": 0o755, "a/secret.txt": 0o644, "b": 0o755, "b/bin": 0o755, "b/bin/run": 0o755}


async def test_tmp_keeps_its_mode(laid: Laid) -> None:
    made = await laid.mounts.acquire([MountRef(laid.files.add({"x": b""}), "/tmp")], ())

    assert (Path(made.path) / "tmp").stat().st_mode & 0o7777 == 0o1777


async def test_equal_sets_are_laid_out_once_and_equal_files_fetched_once(laid: Laid) -> None:
    first = laid.files.add({"app.py": b"code", "same.py": b"same"})
    second = laid.files.add({"app.py": b"changed", "same.py": b"same"})

    made = await asyncio.gather(*(laid.mounts.acquire([MountRef(first, "/root")], ()) for _ in range(10)))
    other = await laid.mounts.acquire([MountRef(second, "/root")], ())

    assert len({one.path for one in made}) == 1
    assert other.path != made[0].path
    assert len(laid.files.fetched) == 3


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a//b", ""])
async def test_a_file_outside_its_mount_is_refused(laid: Laid, path: str) -> None:
    manifest = MountManifest((MountFile(path, "0" * 64, 1),))
    laid.files.manifests["mo-bad"] = manifest

    with pytest.raises(PlatformError, match="not a plain relative path"):
        await laid.mounts.acquire([MountRef("mo-bad", "/root")], ())

    assert not laid.folders()


async def test_a_hash_that_is_a_path_is_refused(laid: Laid) -> None:
    laid.files.manifests["mo-bad"] = MountManifest((MountFile("x", "../" * 21 + "x", 1),))

    with pytest.raises(PlatformError, match="no SHA-256"):
        await laid.mounts.acquire([MountRef("mo-bad", "/root")], ())


async def test_a_blob_that_cannot_be_had_leaves_nothing_and_can_be_tried_again(laid: Laid) -> None:
    mount_id = laid.files.add({"app.py": b"code", "other.py": b"other"})
    kept = dict(laid.files.blobs)
    laid.files.blobs.clear()

    with pytest.raises(KeyError):
        await laid.mounts.acquire([MountRef(mount_id, "/root")], ())
    assert not laid.folders()
    laid.files.blobs.update(kept)

    assert await laid.mounts.acquire([MountRef(mount_id, "/root")], ())


async def test_unused_sets_go_the_longest_unused_first_and_used_ones_stay(laid: Laid) -> None:
    laid.mounts = laid.successor(bytes_max=250_000)
    ids = [laid.files.add({"f": bytes([number]) * 100_000}) for number in range(5)]
    held = await laid.mounts.acquire([MountRef(ids[0], "/root")], ())

    for mount_id in ids[1:]:
        await laid.mounts.release((await laid.mounts.acquire([MountRef(mount_id, "/root")], ())).name)

    assert held.name in laid.folders()
    assert len(laid.folders()) == 2
    files = list((laid.data_dir / "mounts" / "files").iterdir())
    assert len(files) == 2


async def test_what_cannot_be_removed_is_used_again_or_removed_the_next_time(laid: Laid) -> None:
    mounts = laid.successor(bytes_max=0)
    ref = MountRef(laid.files.add({"app.py": b"code"}), "/root")
    made = await mounts.acquire([ref], ())
    new = laid.data_dir / "mounts" / "new"
    new.rmdir()

    await mounts.release(made.name)

    assert laid.folders() == {made.name}
    assert await mounts.acquire([ref], ()) is made
    new.mkdir()
    await mounts.release(made.name)
    assert laid.folders() == set()


async def test_the_next_agent_finds_complete_sets_and_drops_the_others(laid: Laid) -> None:
    mount_id = laid.files.add({"app.py": b"code"})
    made = await laid.mounts.acquire([MountRef(mount_id, "/root")], ())
    (laid.data_dir / "mounts" / "sets" / "half").mkdir()
    (laid.data_dir / "mounts" / "new" / "half").mkdir()
    laid.files.fetched.clear()

    successor = laid.successor()
    again = await successor.acquire([MountRef(mount_id, "/root")], ())

    assert again.path == made.path
    assert not laid.files.fetched
    assert laid.folders() == {made.name}
    assert not list((laid.data_dir / "mounts" / "new").iterdir())


async def test_an_image_build_finds_a_mount_by_its_id(laid: Laid) -> None:
    mount_id = laid.files.add({"app.py": b"code"})

    await laid.mounts.acquire([MountRef(mount_id, "/")], ())

    assert (Path(mount_path(laid.data_dir, mount_id)) / "app.py").read_bytes() == b"code"


def test_links_of_the_image_are_followed_inside_it(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    (lower / "usr" / "lib").mkdir(parents=True)
    (upper / "data").mkdir(parents=True)
    (lower / "lib").symlink_to("usr/lib")
    (lower / "home").symlink_to("/data/homes")
    (lower / "data").symlink_to("/nowhere")
    (lower / "out").symlink_to("../../../etc")
    layers = (str(lower), str(upper))

    assert resolve(layers, "/lib/python") == "/usr/lib/python"
    # The upper layer's directory hides the lower layer's link.
    assert resolve(layers, "/home/me") == "/data/homes/me"
    assert resolve(layers, "/out/x") == "/etc/x"
    assert resolve(layers, "/root") == "/root"
    assert resolve(layers, "//root/./a/") == "/root/a"


def test_links_of_a_layer_that_is_an_image_are_followed(tmp_path: Path) -> None:
    (tmp_path / "tree/usr/lib").mkdir(parents=True)
    (tmp_path / "tree/lib").symlink_to("usr/lib")
    assert pack.main([str(tmp_path / "tree"), str(tmp_path / "layer.erofs")]) == 0

    assert resolve((str(tmp_path / "layer.erofs"),), "/lib/python") == "/usr/lib/python"


def test_links_in_a_circle_and_relative_targets_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    for target in ("/a/x", "root", ""):
        with pytest.raises(PlatformError):
            resolve((str(tmp_path),), target)
