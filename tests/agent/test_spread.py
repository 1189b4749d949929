"""Directories whose own are put apart on the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from squall.agent import spread
from squall.agent.image.layer.store import LayerStore
from squall.agent.spread import make_apart, spread_apart
from tests.agent.parts import is_spread


def test_a_directory_is_marked_and_keeps_what_it_has(tmp_path: Path) -> None:
    assert not is_spread(tmp_path)

    spread_apart(tmp_path)
    spread_apart(tmp_path)

    assert is_spread(tmp_path)
    (tmp_path / "below").mkdir()
    assert not is_spread(tmp_path / "below")


def test_a_file_system_without_it_is_left_alone() -> None:
    spread_apart(Path("/proc"))


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What making a directory takes, in nanoseconds: one for each, and nothing when there are no more."""
    given: list[int] = []
    real = spread._make

    def make(path: Path) -> int:
        real(path)
        return given.pop(0) if given else 0

    monkeypatch.setattr(spread, "_make", make)
    return given


def test_directory_is_made_once_where_that_is_quick(tmp_path: Path, costs: list[int]) -> None:
    costs[:] = [50_000, 10_000_000]

    make_apart(tmp_path / "a")

    assert costs == [10_000_000]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").stat().st_mode & 0o7777 == 0o700


def test_other_names_are_tried_where_it_is_slow(tmp_path: Path, costs: list[int]) -> None:
    costs[:] = [2_000_000, 1_900_000, 40_000, 10]

    make_apart(tmp_path / "a")

    assert costs == [10]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_quickest_is_kept_where_all_are_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inodes: dict[int, int] = {}

    def make(path: Path) -> int:
        path.mkdir()
        cost = 1_000_000 if len(inodes) == 3 else 2_000_000
        inodes[len(inodes)] = path.stat().st_ino
        return cost

    monkeypatch.setattr(spread, "_make", make)

    make_apart(tmp_path / "a")

    assert len(inodes) == 6
    assert (tmp_path / "a").stat().st_ino == inodes[3]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_directory_that_is_there_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()

    with pytest.raises(FileExistsError):
        make_apart(tmp_path / "a")


def test_what_builds_write_is_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    real = spread._make

    def make(path: Path) -> int:
        made.append(path)
        real(path)
        return 0

    monkeypatch.setattr(spread, "_make", make)
    store = LayerStore(tmp_path)

    with store.scratch() as scratch:
        assert made == [scratch.path]
        assert is_spread(scratch.path.parent)
