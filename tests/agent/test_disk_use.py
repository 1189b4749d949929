"""Measuring trees that their owner may change while they are read."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

import pytest

from squall.agent import disk_use
from squall.agent.disk_use import DiskUse, deleted_use, tree_use
from squall.runtime.removal import remove_tree

pytestmark = pytest.mark.long


def always(use: DiskUse) -> bool:
    return True


def du(path: Path) -> tuple[int, int]:
    """What du says: bytes, and files with directories."""
    found = [
        subprocess.run(["du", "-s", "-x", *options, str(path)], check=True, capture_output=True, text=True, timeout=60)
        for options in (["-B1"], ["--inodes"])
    ]
    return int(found[0].stdout.split()[0]), int(found[1].stdout.split()[0])


def make_deep(path: Path, levels: int, name: str = "deeper") -> None:
    """Directories inside each other, more than a path can name."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    with open(os.open("bottom", os.O_WRONLY | os.O_CREAT, dir_fd=fd), "wb") as file:
        file.write(bytes(100_000))
    os.close(fd)


def test_a_tree_is_measured_as_du_does(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for number in range(20):
        (top / f"folder {number}" / "inner").mkdir(parents=True)
        (top / f"folder {number}" / "inner" / "file").write_bytes(bytes(number * 1_000))
    (top / "sparse").write_bytes(b"")
    os.truncate(top / "sparse", 2**40)
    (top / "hole").symlink_to("/")
    os.mkfifo(top / "pipe")
    (top / os.fsdecode(b"\xff\xfe\n\t*")).write_bytes(bytes(5_000))
    os.link(top / "folder 19" / "inner" / "file", top / "second name")

    found = tree_use(str(top), always)

    assert (found.space_bytes, found.inodes) == du(top)
    assert found.is_whole


def test_depth_costs_neither_recursion_nor_descriptors(tmp_path: Path) -> None:
    opened: list[int] = []

    def may_go_on(use: DiskUse) -> bool:
        opened.append(len(os.listdir("/proc/self/fd")))
        return True

    try:
        make_deep(tmp_path, 3_000)
        found, expected = tree_use(str(tmp_path), may_go_on), du(tmp_path)
    finally:
        remove_tree(str(tmp_path / "deeper"))  # pytest's own way of deleting is recursive

    assert (found.space_bytes, found.inodes) == expected
    assert found.is_whole
    assert max(opened) - opened[0] <= 2 * disk_use.HELD_LEVELS + 4


def test_nothing_there_takes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(10_000))
    (tmp_path / "link").symlink_to(tmp_path)

    assert tree_use(str(tmp_path / "absent"), always) == DiskUse()
    assert tree_use(str(tmp_path / "file"), always) == DiskUse()


def test_a_large_directory_is_read_no_further_than_asked(tmp_path: Path) -> None:
    for number in range(5_000):
        (tmp_path / str(number)).touch()

    found = tree_use(str(tmp_path), lambda use: use.inodes < 1_000)

    assert not found.is_whole
    assert 1_000 <= found.inodes < 3_000


def test_many_directories_in_a_deep_one_are_not_all_remembered(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * (disk_use.HELD_LEVELS + 2))
    deep.mkdir(parents=True)
    for number in range(disk_use.DEEP_NAMES_MAX + 1):
        (deep / str(number)).mkdir()

    assert not tree_use(str(tmp_path), always).is_whole


def test_a_deep_directory_that_is_moved_leads_nowhere_else(tmp_path: Path) -> None:
    make_deep(tmp_path / ".", disk_use.HELD_LEVELS * 3, "d")
    (tmp_path / "aside").mkdir()
    moved = tmp_path.joinpath(*["d"] * (disk_use.HELD_LEVELS * 2))

    def move(use: DiskUse) -> bool:
        if use.inodes > disk_use.HELD_LEVELS * 5 // 2 and moved.exists():
            moved.rename(tmp_path / "aside" / "moved")
        return True

    found = tree_use(str(tmp_path), move)

    assert not found.is_whole
    assert tree_use(str(tmp_path), always).is_whole


def test_trees_that_change_all_the_time_are_read_without_an_error(tmp_path: Path) -> None:
    is_ended = threading.Event()

    def churn() -> None:
        for number in range(1_000):
            folder = tmp_path / f"a{number % 7}"
            folder.mkdir(exist_ok=True)
            (folder / "x").write_bytes(bytes(3_000))
            folder.rename(tmp_path / f"b{number}")
            if number > 50:
                (tmp_path / f"b{number - 50}" / "x").unlink()
                (tmp_path / f"b{number - 50}").rmdir()
        is_ended.set()

    changing = threading.Thread(target=churn)
    changing.start()
    reads = 0
    while not is_ended.is_set():
        tree_use(str(tmp_path), always)
        reads += 1
    changing.join()

    assert reads > 1


def test_a_process_of_the_machine_has_nothing_deleted_open() -> None:
    assert deleted_use(os.getpid()) == DiskUse()
    assert deleted_use(2**22 + 1) == DiskUse()
