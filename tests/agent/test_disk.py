"""Who is looked at when, and who is ended: on folders of the test, with a clock and a disk of its own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from squall.agent import disk as disk_module
from squall.agent.disk import (
    DEFAULT_DISK_MIB,
    GUARD_PAUSE_S,
    IDLE_S_MAX,
    IDLE_S_MIN,
    INODES_MAX,
    INODES_MIN,
    NO_LIMIT,
    DiskLimit,
    DiskWatch,
    Space,
    Writer,
    disk_limit,
    space_of,
)

pytestmark = pytest.mark.long

MIB = 2**20
NO_PID = 2**22 + 1


class Disk:
    """Folders that grow, and how full the machine's disk is said to be."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path = tmp_path
        self.now = 1_000.0
        self.space = Space(100_000 * MIB, 10**7, 2_000 * MIB, 20_000)
        self.writers: list[Writer] = []
        self.watch = DiskWatch(lambda: self.writers, lambda container_id, why: None, lambda: self.space, self.clock)
        self.clock_reads = 0

    def clock(self) -> float:
        self.clock_reads += 1
        return self.now

    def add(self, name: str, limit_mib: int = 10, inodes: int = 1_000) -> Path:
        folder = self.tmp_path / name
        folder.mkdir()
        self.writers.append(Writer(name, (str(folder),), NO_PID, DiskLimit(limit_mib * MIB, inodes)))
        return folder

    def look(self, after_s: float = 0.5) -> dict[str, str]:
        self.now += after_s
        return self.watch.look(self.writers)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def write(folder: Path, mib: float, name: str = "file") -> None:
    (folder / name).write_bytes(bytes(int(mib * MIB)))


def test_a_container_may_write_up_to_its_limit_and_is_ended_beyond(disk: Disk) -> None:
    one, _ = disk.add("ct-1"), disk.add("ct-2")
    write(one, 9)

    assert not disk.look()
    write(one, 11)

    over = disk.look()
    assert list(over) == ["ct-1"]
    assert "its limit is 10 MiB" in over["ct-1"]
    assert "ephemeral_disk=" in over["ct-1"]


def test_what_one_had_when_it_was_ended_is_not_counted_but_what_it_writes_then(disk: Disk) -> None:
    one = disk.add("tp-1")
    write(one, 35)
    assert list(disk.look()) == ["tp-1"]

    disk.writers[0] = replace(disk.writers[0], is_ended=True)
    for _ in range(20):
        assert not disk.look(IDLE_S_MAX)
    write(one, 9, "more")
    assert not disk.look(IDLE_S_MAX)
    write(one, 2, "and more")
    over = disk.look(IDLE_S_MAX)
    assert list(over) == ["tp-1"]


def test_one_that_was_ended_is_not_read_for_ever(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_module, "WHOLE_S_MAX", 0.0)
    one = disk.add("tp-1", limit_mib=50)
    for number in range(100):
        (one / str(number)).mkdir()
    write(one / "99", 40)
    disk.writers[0] = replace(disk.writers[0], is_ended=True)

    assert not disk.look()
    left = disk.watch._watched["tp-1", ""].left
    assert left is not None
    assert left.inodes < 100
    # What was not found is taken for written since, and was within its limit.
    assert not disk.look(IDLE_S_MAX)


def test_one_that_was_ended_is_not_blamed_for_a_disk_that_others_fill(disk: Disk) -> None:
    template, growing = disk.add("tp-1", 10_000), disk.add("ct-1", 10_000)
    write(template, 200)
    disk.look()
    write(template, 10, "more")
    disk.look()
    disk.writers[0] = replace(disk.writers[0], is_ended=True)
    disk.space = Space(1_000 * MIB, 10**7, 2_000 * MIB, 20_000)

    assert not disk.look(), "to end those who read what it had would help nobody"
    write(growing, 70)
    assert list(disk.look(GUARD_PAUSE_S)) == ["ct-1"]
    del disk.writers[1]
    assert not disk.look(GUARD_PAUSE_S)
    write(template, 10, "and more")
    assert list(disk.look(IDLE_S_MAX)) == ["tp-1"]


def test_files_count_as_well_as_bytes(disk: Disk) -> None:
    one = disk.add("ct-1", inodes=100)
    for number in range(99):
        (one / str(number)).touch()

    assert not disk.look()
    (one / "one more").touch()

    assert "100 files and directories" in disk.look()["ct-1"]


def test_one_that_does_not_grow_is_looked_at_seldom(disk: Disk) -> None:
    disk.add("ct-1", 1_000)
    for _ in range(20):
        disk.look(IDLE_S_MAX)
    reads = disk.clock_reads

    for _ in range(int(IDLE_S_MAX / 0.5) - 1):
        disk.look(0.5)

    looks = int(IDLE_S_MAX / 0.5) - 1
    assert disk.clock_reads - reads == looks  # one each: nobody was measured


def test_it_is_looked_at_at_once_when_the_disk_fills(disk: Disk) -> None:
    one = disk.add("ct-1")
    for _ in range(20):
        disk.look(IDLE_S_MAX)
    write(one, 11)

    assert not disk.look()
    disk.space = Space(disk.space.free_bytes - 11 * MIB, 10**7, disk.space.spare_bytes, 20_000)

    assert list(disk.look()) == ["ct-1"]


def test_one_with_little_left_is_looked_at_soon_though_others_hide_what_it_writes(disk: Disk) -> None:
    one = disk.add("ct-1")
    for _ in range(20):
        disk.look(IDLE_S_MAX)
    write(one, 11)

    assert list(disk.look(IDLE_S_MIN)) == ["ct-1"]


def test_what_is_spare_is_kept_by_ending_who_writes_most(disk: Disk) -> None:
    old, one, two = (disk.add(name, 10_000) for name in ("ct-old", "ct-1", "ct-2"))
    write(old, 90)
    disk.look()
    disk.look(100.0)
    write(one, 70)
    write(two, 66)
    disk.space = Space(1_000 * MIB, 10**7, 2_000 * MIB, 20_000)

    over = disk.look()

    assert list(over) == ["ct-1"]
    assert "1000 MiB free, 2000 MiB are kept" in over["ct-1"]
    del disk.writers[1]
    assert not disk.look()
    assert list(disk.look(GUARD_PAUSE_S)) == ["ct-2"]


def test_one_that_fills_the_disk_from_another_place_is_ended_whatever_its_limit(disk: Disk) -> None:
    disk.add("ct-1")
    volumes = disk.tmp_path / "volumes"
    volumes.mkdir()
    disk.writers.append(Writer("ct-1", (str(volumes),), NO_PID, NO_LIMIT, place="volumes"))
    write(volumes, 70)
    assert not disk.look(100.0)
    disk.space = Space(1_000 * MIB, 10**7, 2_000 * MIB, 20_000)

    assert list(disk.look()) == ["ct-1"]


def test_nobody_is_ended_for_a_disk_that_others_filled(disk: Disk) -> None:
    write(disk.add("ct-1"), 1)
    disk.space = Space(0, 0, 2_000 * MIB, 20_000)

    assert not disk.look()


def test_files_without_end_are_ended_before_the_inodes_are(disk: Disk) -> None:
    many, few = disk.add("ct-1", inodes=10_000), disk.add("ct-2")
    for number in range(1_100):
        (many / str(number)).touch()
    write(few, 5)
    disk.space = Space(100_000 * MIB, 10_000, 2_000 * MIB, 20_000)

    assert "1101 files and directories" in disk.look()["ct-1"]


@pytest.mark.parametrize(
    ("disk_mib", "limit"),
    [
        (None, DiskLimit(DEFAULT_DISK_MIB * MIB, INODES_MAX)),
        (1, DiskLimit(MIB, INODES_MIN)),
        (16_384, DiskLimit(16_384 * MIB, 2**20)),
    ],
)
def test_a_limit_of_bytes_brings_one_of_files(disk_mib: int | None, limit: DiskLimit) -> None:
    assert disk_limit(disk_mib) == limit


def test_a_file_systems_space_comes_with_what_is_to_be_spare(tmp_path: Path) -> None:
    space = space_of(tmp_path)

    assert space.free_bytes > 0
    assert 0 < space.spare_bytes <= 2 * 2**30


async def test_the_watch_goes_on_after_a_look_that_failed(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squall.agent.disk.PERIOD_S", 0.01)
    write(disk.add("ct-large", limit_mib=1), 2)
    failures = [ValueError("unforeseen"), OSError("gone")]
    ended: list[str] = []
    has_ended = asyncio.Event()

    def space() -> Space:
        if failures:
            raise failures.pop()
        return disk.space

    def end(container_id: str, why: str) -> None:
        ended.append(container_id)
        has_ended.set()

    running = asyncio.ensure_future(DiskWatch(lambda: disk.writers, end, space).run())
    await asyncio.wait_for(has_ended.wait(), 20)
    running.cancel()

    assert not failures
    assert ended[0] == "ct-large"
