"""What nobody can tell the volume of: kept while there is room, named in the log whatever happens to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from squall.agent.disk import Space
from squall.agent.volume import lost as lost_module
from squall.agent.volume.lost import LostWrites

PLENTY = Space(2**40, 10**9, 2**20, 100)
PLENTY_REST = (PLENTY.free_inodes, PLENTY.spare_bytes, PLENTY.spare_inodes)


class Disk:
    """As much is free as the test says, and what was removed."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.space = PLENTY
        self.freed_by = 0
        """Bytes that one more is free for each that is removed."""
        self.kept: list[str] = []
        self.lost = LostWrites(top / "lost", self._now)

    def _now(self, path: Path) -> Space:
        gone = len(self.kept) - len(self.names())
        return Space(self.space.free_bytes + gone * self.freed_by, *PLENTY_REST)

    def keep(self, name: str) -> None:
        written = self.top / name
        (written / "0-0" / "upper").mkdir(parents=True)
        (written / "0-0" / "upper" / "file").write_bytes(bytes(2**20))
        self.lost.keep(written, "")
        self.kept.append(name)

    def names(self) -> list[str]:
        return sorted(path.name.rpartition("-")[0] for path in (self.top / "lost").iterdir())


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_while_there_is_room_it_stays_and_is_named_with_its_size(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    disk.lost.say()
    disk.lost.make_room()
    assert not caplog.messages
    for name in ("ta-1", "ta-2"):
        disk.keep(name)
    caplog.clear()
    disk.lost.make_room()
    disk.lost.say()
    assert disk.names() == ["ta-1", "ta-2"]
    (line,) = caplog.messages
    assert line.startswith(
        f"in {disk.top}/lost is what containers wrote to volumes, 3 MiB that are in no version: ta-1-"
    )


def test_the_oldest_goes_when_the_disk_is_short_and_no_more_than_needed(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("ta-3", "ta-1", "ta-2"):
        disk.keep(name)
    caplog.clear()
    disk.space, disk.freed_by = Space(2**20, *PLENTY_REST), 2**19
    disk.lost.make_room()
    assert disk.names() == ["ta-2"]
    assert [line.partition("lost/")[2][:4] for line in caplog.messages] == ["ta-3", "ta-1"]
    assert all("in no version of a volume, is removed: the disk is short" in line for line in caplog.messages)


def test_the_oldest_goes_when_there_are_too_many(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_module, "COUNT_MAX", 2)
    for name in ("ta-3", "ta-1", "ta-2"):
        disk.keep(name)
    disk.lost.make_room()
    assert disk.names() == ["ta-1", "ta-2"]


def test_what_somebody_puts_there_that_is_no_directory_keeps_nothing_from_going(disk: Disk) -> None:
    disk.keep("ta-1")
    (disk.top / "lost" / "README-").symlink_to(os.devnull)
    disk.space = Space(0, *PLENTY_REST)
    disk.lost.say()
    disk.lost.make_room()
    assert "ta-1" not in disk.names()
