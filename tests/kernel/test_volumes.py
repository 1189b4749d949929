"""Volumes of containers: what is seen, what is written where, and other versions in the place of the first."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from squall.agent.volume.tree_image import content_of, write_tree_image
from squall.protocol import volume as wire
from squall.protocol.volume import VolumeChange
from squall.runtime.errors import ContainerMissing, SubPathMissing, VolumeBusy
from squall.runtime.spec import Volume
from squall.runtime.volume_overlay import CONTENTS
from tests.kernel.containers import Containers, shell

UNDER_GVISOR = {
    "test_a_version_is_read_and_written_on_and_stays_as_it_was",
    "test_a_read_only_volume_takes_no_write",
    "test_another_version_takes_the_place_of_one_that_nobody_uses",
    "test_a_version_in_use_stays_and_whoever_asks_is_told",
    "test_a_sub_path_is_all_that_is_seen",
    "test_a_sub_path_of_one_version_after_the_other_is_seen",
    "test_a_version_without_the_sub_path_leaves_the_one_that_there_was",
    "test_two_volumes_of_a_container_and_volumes_of_two_are_apart",
    "test_a_container_cannot_undo_its_volumes",
}
NOT_UNDER_GVISOR = {"test_a_sub_path_through_a_link_is_refused": "it is refused before runsc begins, as elsewhere"}


class Versions:
    """Versions of one volume, laid out as an agent does."""

    def __init__(self, top: Path) -> None:
        self._top = top
        self.contents = top / "contents"
        self._count = 0

    def make(self, files: dict[str, bytes], name: str = "0", **fields: object) -> Volume:
        """A version with these files, to be mounted at /data."""
        self._count += 1
        entries: dict[str, VolumeChange] = {}
        for path, data in sorted(files.items()):
            for above in [path[:end] for end, letter in enumerate(path) if letter == "/"]:
                entries.setdefault(above, VolumeChange(above, kind=wire.DIRECTORY, mode=0o755))
            sha256 = hashlib.sha256(data).hexdigest()
            entries[path] = VolumeChange(path, size=len(data), blocks=(sha256,) if data else ())
            content = content_of(entries[path])
            if content is not None:
                place = self.contents / CONTENTS / content.name[:2] / content.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
                place.chmod(0o400)
        image = self._top / f"{self._count}.erofs"
        write_tree_image(entries.values(), image)
        given = {"writable": str(self._top / f"written-{self._count}"), **fields}
        return Volume(name, "/data", str(image), str(self.contents), **given)  # type: ignore[arg-type]

    def written(self, number: int) -> list[str]:
        """What is in an upper."""
        upper = self._top / f"written-{number}" / "upper"
        return sorted(str(path.relative_to(upper)) for path in upper.rglob("*"))


@pytest.fixture
def versions(data_dir: Path) -> Versions:
    return Versions(data_dir)


async def test_a_version_is_read_and_written_on_and_stays_as_it_was(containers: Containers, versions: Versions) -> None:
    volume = versions.make({"a": b"one", "dir/b": b"two", "empty": b""})
    script = shell(
        "cd /data; cat a dir/b; stat -c ' %u %a %s' a", "echo three > dir/c; echo more >> a; rm empty; cat a; ls dir"
    )

    ended = await containers.run(*script, volumes=[volume])

    assert (ended.stdout, ended.stderr) == ("onetwo 0 644 3\nonemore\nb\nc\n", "")
    assert versions.written(1) == ["a", "dir", "dir/c", "empty"]
    again = await containers.run("cat", "/data/a", volumes=[versions.make({"a": b"one"})])
    assert again.stdout == "one"


async def test_a_read_only_volume_takes_no_write(containers: Containers, versions: Versions) -> None:
    volume = versions.make({"a": b"one"}, writable="")

    ended = await containers.run(
        *shell("cat /data/a; echo x > /data/b; rm /data/a; chmod 600 /data/a"), volumes=[volume]
    )

    assert ended.stdout == "one"
    assert ended.stderr.count("Read-only file system") == 3


async def test_another_version_takes_the_place_of_one_that_nobody_uses(
    containers: Containers, versions: Versions
) -> None:
    running = await containers.start("sleep", "600", volumes=[versions.make({"a": b"one"})])
    before = await containers.exec(running, "cat", "/data/a")
    await containers.exec(running, "sh", "-c", "echo mine > /data/mine")

    for number, data in ((2, b"two"), (3, b"three")):
        await containers.runtime.freeze(running.container_id)
        await containers.runtime.swap_volume(running.container_id, versions.make({"a": data}))
        await containers.runtime.thaw(running.container_id)
        seen = await containers.exec(running, "sh", "-c", "cat /data/a; ls /data; echo > /data/new")
        assert seen.stdout == data.decode() + "a\n"
        assert versions.written(number) == ["new"]

    assert before.stdout == "one"
    assert versions.written(1) == ["mine"]


@pytest.mark.parametrize(
    "use",
    [
        "exec 5< /data/a; echo ready; sleep 600",
        "cd /data; echo ready; sleep 600",
        "exec 5> /data/b; echo ready; sleep 600",
        'python3 -c \'import mmap,time; f=open("/data/a"); m=mmap.mmap(f.fileno(),0,prot=1); f.close(); '
        'print("ready",flush=True); time.sleep(600)\'',
    ],
)
async def test_a_version_in_use_stays_and_whoever_asks_is_told(
    use: str, containers: Containers, versions: Versions
) -> None:
    running = await containers.start("sh", "-c", use, volumes=[versions.make({"a": b"one"})])
    await running.stdout.read_until("ready")

    await containers.runtime.freeze(running.container_id)
    with pytest.raises(VolumeBusy, match="/data: its files are in use"):
        await containers.runtime.swap_volume(running.container_id, versions.make({"a": b"two"}))
    await containers.runtime.thaw(running.container_id)

    assert (await containers.exec(running, "cat", "/data/a")).stdout == "one"


async def test_a_sub_path_is_all_that_is_seen(containers: Containers, versions: Versions) -> None:
    volume = versions.make({"in/a": b"one", "out": b"hidden"}, sub_path="in")
    made = versions.make({"out": b"hidden"}, sub_path="new/dir")

    seen = await containers.run(*shell("cd /data; ls -a . ..; cat a; echo b > b; ls ../data/.."), volumes=[volume])
    new = await containers.run(*shell("ls /data; echo c > /data/c"), volumes=[made])

    assert "one" in seen.stdout
    assert "hidden" not in seen.stdout
    assert versions.written(1) == ["in", "in/b"]
    assert versions.written(2) == ["new", "new/dir", "new/dir/c"]
    assert new.stdout == ""


async def test_a_sub_path_of_one_version_after_the_other_is_seen(containers: Containers, versions: Versions) -> None:
    running = await containers.start("sleep", "600", volumes=[versions.make({"in/a": b"0"}, sub_path="in")])

    for number in range(1, 4):
        await containers.runtime.freeze(running.container_id)
        await containers.runtime.swap_volume(
            running.container_id, versions.make({"in/a": b"%d" % number, "out": b"hidden"}, sub_path="in")
        )
        await containers.runtime.thaw(running.container_id)
        seen = await containers.exec(running, "sh", "-c", "cat /data/a; ls -A /data; echo > /data/new")
        assert seen.stdout == f"{number}a\n"
        assert versions.written(number + 1) == ["in", "in/new"]


@pytest.mark.parametrize("files", [{"in": b"no directory"}, {"out": b""}])
async def test_a_version_without_the_sub_path_leaves_the_one_that_there_was(
    containers: Containers, versions: Versions, files: dict[str, bytes]
) -> None:
    before = versions.make({"in/a": b"one"}, sub_path="in", writable="")
    running = await containers.start("sleep", "600", volumes=[before])

    for _ in range(2):
        await containers.runtime.freeze(running.container_id)
        with pytest.raises(SubPathMissing, match="'in'"):
            await containers.runtime.swap_volume(running.container_id, versions.make(files, sub_path="in", writable=""))
        await containers.runtime.thaw(running.container_id)
        assert (await containers.exec(running, "cat", "/data/a")).stdout == "one"

    await containers.runtime.freeze(running.container_id)
    await containers.runtime.swap_volume(
        running.container_id, versions.make({"in/a": b"two"}, sub_path="in", writable="")
    )
    await containers.runtime.thaw(running.container_id)
    assert (await containers.exec(running, "cat", "/data/a")).stdout == "two"


async def test_a_sub_path_through_a_link_is_refused(containers: Containers, versions: Versions, data_dir: Path) -> None:
    volume = versions.make({"a": b"one"}, sub_path="a/b")

    with pytest.raises(SubPathMissing, match="is no directory, or leads elsewhere"):
        await containers.run("true", volumes=[volume])


async def test_a_read_only_volume_without_its_sub_path_is_refused_with_what_to_do(
    containers: Containers, versions: Versions
) -> None:
    with pytest.raises(SubPathMissing, match=r"no directory 'in', .*; put something there first, or mount"):
        await containers.run("true", volumes=[versions.make({"a": b"one"}, sub_path="in", writable="")])


async def test_two_volumes_of_a_container_and_volumes_of_two_are_apart(
    containers: Containers, versions: Versions, data_dir: Path
) -> None:
    first = versions.make({"a": b"one"})
    other = versions.make({"a": b"two"}, "1")
    second = Volume("1", "/data/below", other.image, other.contents, other.writable)

    ended = await containers.run(*shell("cat /data/a /data/below/a; ls -d /data/below"), volumes=[first, second])

    assert ended.stdout == "onetwo/data/below\n"


async def test_a_container_cannot_undo_its_volumes(containers: Containers, versions: Versions) -> None:
    volume = versions.make({"a": b"one"}, writable="")
    attacks = shell(
        "umount /data", "mount -o remount,rw /data", "mount -t tmpfs none /data", "cat /data/a; ls /volumes"
    )

    ended = await containers.run(*attacks, volumes=[volume])

    assert ended.stdout == "one"


async def test_a_container_that_is_removed_while_its_volume_is_swapped_is_gone(
    containers: Containers, versions: Versions
) -> None:
    """A swap that is under way comes to its end first: it would mount where nothing is any more."""
    for number in range(6):
        running = await containers.start("sleep", "600", volumes=[versions.make({"a": b"one"})])
        swapping = asyncio.ensure_future(
            containers.runtime.swap_volume(running.container_id, versions.make({"a": b"two"}))
        )
        await asyncio.sleep(0.003 * number)
        await containers.runtime.remove(running.container_id)
        await asyncio.gather(swapping, return_exceptions=True)

        assert await containers.runtime.list() == []
        with pytest.raises(ContainerMissing):
            await containers.runtime.swap_volume(running.container_id, versions.make({"a": b"two"}))


def test_what_is_mounted_is_found_where_it_looks_like_no_mount(data_dir: Path) -> None:
    """A directory of the same file system at another place: its device is that of what is around it."""
    code = f"""
import os
from squall.runtime import syscalls as sc
from squall.runtime.volumes import _unmount_all
sc.mount("none", "/", None, sc.MS_REC | sc.MS_PRIVATE)
sc.mount("squall", {str(data_dir)!r}, "tmpfs")
os.chdir({str(data_dir)!r})
os.mkdir("one"), os.mkdir("other")
for _ in range(2):
    sc.mount("one", "other", None, sc.MS_BIND)
assert not os.path.ismount("other")
_unmount_all("other")
os.rmdir("other")
"""
    ended = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, "")


async def test_nothing_is_left_of_volumes_when_containers_are_gone(containers: Containers, versions: Versions) -> None:
    for _ in range(3):
        await containers.run(
            "true",
            volumes=[
                versions.make({"a": b"one"}),
            ],
        )
        for status in await containers.runtime.list():
            await containers.runtime.remove(status.container_id)

    again = await containers.start("sleep", "600", container_id="ct-9", volumes=[versions.make({"a": b"two"})])
    assert (await containers.exec(again, "cat", "/data/a")).stdout == "two"
