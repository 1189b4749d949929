"""Id ranges: nobody gets somebody else's ids while a container of theirs lives."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from squall.agent import ranges
from squall.agent.ranges import BLOCK, BUILD_RANGES_MAX, IdRanges, build_ranges, read_taken_ids
from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import IdRange


def test_containers_of_one_function_share_a_range_and_other_functions_do_not(tmp_path: Path) -> None:
    lent = IdRanges(tmp_path)

    first, again, other = lent.acquire("ap-1/fu-1"), lent.acquire("ap-1/fu-1"), lent.acquire("ap-2/fu-1")

    assert first == again
    assert first.size == BLOCK
    assert abs(first.start - other.start) >= BLOCK
    assert first.start > 0


def test_thousands_of_functions_have_thousands_of_ranges(tmp_path: Path) -> None:
    lent = IdRanges(tmp_path)

    starts = {lent.acquire(f"ap/fu-{number}").start for number in range(5_000)}

    assert len(starts) == 5_000
    assert max(starts) + BLOCK <= 2**32 - 2


def test_a_successor_gives_every_owner_the_same_range(tmp_path: Path) -> None:
    first = IdRanges(tmp_path)
    mine, other = first.acquire("ap/fu-1"), first.acquire("ap/fu-2")

    second = IdRanges(tmp_path)

    assert second.acquire("ap/fu-3").start not in {mine.start, other.start}
    assert second.acquire("ap/fu-1") == mine
    assert second.acquire("ap/fu-2") == other


def test_a_line_cut_short_by_a_crash_does_not_confuse_the_successor(tmp_path: Path) -> None:
    mine = IdRanges(tmp_path).acquire("ap/fu-1")
    with open(tmp_path / "id-ranges", "a", encoding="utf-8") as journal:
        journal.write(f"+ {mine.start + 5 * BLOCK}")

    second = IdRanges(tmp_path)

    assert second.acquire("ap/fu-1") == mine
    assert second.acquire("ap/fu-2") != mine


def test_ids_of_the_machine_are_never_lent(tmp_path: Path) -> None:
    free = IdRanges(tmp_path).acquire("x")
    (tmp_path / "id-ranges").unlink()

    lent = IdRanges(tmp_path, [range(free.start + 7, free.start + 8)]).acquire("x")

    assert lent.start >= free.start + BLOCK


def test_users_groups_and_lent_ids_of_the_machine_are_read(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0::/root:/bin/sh\nbroken\nann:x:1879048200:100::/:/bin/sh\n")
    (tmp_path / "group").write_text("big:x:1900000000:\n")
    (tmp_path / "subuid").write_text("ann:2000000000:65536\n")

    taken = read_taken_ids(tmp_path)

    assert any(1879048200 in ids for ids in taken)
    assert any(1900000000 in ids for ids in taken)
    assert any(2000065535 in ids for ids in taken)
    assert not any(2000065536 in ids for ids in taken)


def test_a_range_in_use_is_never_given_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "LAST_START", ranges._first_start(tmp_path) + (BUILD_RANGES_MAX + 2) * BLOCK)
    lent = IdRanges(tmp_path)
    held = [lent.acquire(f"ap/fu-{number}") for number in range(3)]

    with pytest.raises(RuntimeFailure, match="all are in use"):
        lent.acquire("ap/fu-9")
    lent.release("ap/fu-1")

    assert lent.acquire("ap/fu-9") == held[1]
    with pytest.raises(RuntimeFailure, match="all are in use"):
        lent.acquire("ap/fu-1")


def test_a_range_is_in_use_until_the_last_container_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "LAST_START", ranges._first_start(tmp_path) + BUILD_RANGES_MAX * BLOCK)
    lent = IdRanges(tmp_path)
    lent.acquire("ap/fu-1")
    lent.acquire("ap/fu-1")

    lent.release("ap/fu-1")

    with pytest.raises(RuntimeFailure):
        lent.acquire("ap/fu-2")


def test_owners_long_gone_are_forgotten(tmp_path: Path) -> None:
    lent = IdRanges(tmp_path)
    for number in range(ranges.IDLE_OWNERS_MAX + 50):
        lent.acquire(f"ap/fu-{number}")
        lent.release(f"ap/fu-{number}")

    successor = IdRanges(tmp_path)

    assert len((tmp_path / "id-ranges").read_text().splitlines()) == ranges.IDLE_OWNERS_MAX
    assert successor.acquire("ap/fu-1073") == lent.acquire("ap/fu-1073")


def test_it_is_told_which_range_its_owner_has_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "IDLE_OWNERS_MAX", 1)
    freed: list[IdRange] = []
    lent = IdRanges(tmp_path, on_freed=freed.append)
    first, second = lent.acquire("ap/fu-1"), lent.acquire("ap/fu-2")

    lent.release("ap/fu-1")
    assert freed == []
    lent.release("ap/fu-2")

    assert freed == [first]
    assert second not in freed


def test_builds_have_ranges_of_their_own(tmp_path: Path) -> None:
    for_builds = {one.start for one in build_ranges(tmp_path, BUILD_RANGES_MAX)}
    lent = IdRanges(tmp_path)

    for_functions = {lent.acquire(f"ap/fu-{number}").start for number in range(100)}

    assert len(for_builds) == BUILD_RANGES_MAX
    assert not for_builds & for_functions
    with pytest.raises(RuntimeFailure):
        build_ranges(tmp_path, BUILD_RANGES_MAX + 1)


def test_nothing_lent_is_an_id_that_domains_and_systemd_give_to_others(tmp_path: Path) -> None:
    for number in range(50):
        data_dir = tmp_path / str(number)
        data_dir.mkdir()
        lent = IdRanges(data_dir, read_taken_ids(tmp_path))

        starts = [one.start for one in build_ranges(data_dir, BUILD_RANGES_MAX)]
        starts += [lent.acquire(f"ap-1/fu-{count}").start for count in range(2_100 if number == 0 else 5)]

        assert min(starts) > 2_000_200_000
        assert 0x7FFE_0000 not in starts
        assert len(set(starts)) == len(starts)


@contextmanager
def room_in_the_journal(data_dir: Path, left_bytes: int) -> Iterator[None]:
    """The kernel writes so much more of a file that is as long as the journal, and no byte more."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size_bytes = (data_dir / "id-ranges").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes + left_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_half_a_line_that_the_disk_took_is_not_continued_by_the_next_one(tmp_path: Path) -> None:
    lent = IdRanges(tmp_path)
    mine = lent.acquire("ap/fu-1")
    with room_in_the_journal(tmp_path, len(f"+ {mine.start} ap/f")), pytest.raises(OSError, match="large"):
        lent.acquire("ap/fu-2")
    other = lent.acquire("ap/fu-3")

    second = IdRanges(tmp_path)

    assert second.acquire("ap/fu-2").start not in {mine.start, other.start}
    assert second.acquire("ap/fu-1") == mine
    assert second.acquire("ap/fu-3") == other


def test_what_cannot_be_written_down_stays_with_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "IDLE_OWNERS_MAX", 1)
    freed: list[IdRange] = []
    lent = IdRanges(tmp_path, on_freed=freed.append)
    first, second = lent.acquire("ap/fu-1"), lent.acquire("ap/fu-2")
    lent.release("ap/fu-1")

    with room_in_the_journal(tmp_path, 5):
        lent.release("ap/fu-2")

    assert lent.acquire("ap/fu-1") == first
    assert IdRanges(tmp_path).acquire("ap/fu-1") == first
    # Once there is room, the one that has rested longest is forgotten, on the disk and here.
    lent.release("ap/fu-1")
    assert freed[-1] == second
    assert [line.split()[0] for line in (tmp_path / "id-ranges").read_text().splitlines()] == ["+", "+", "-"]


def test_a_range_is_taken_from_its_owner_on_the_disk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "LAST_START", ranges._first_start(tmp_path) + BUILD_RANGES_MAX * BLOCK)
    freed: list[IdRange] = []
    lent = IdRanges(tmp_path, on_freed=freed.append)
    mine = lent.acquire("ap/fu-1")
    lent.release("ap/fu-1")

    with room_in_the_journal(tmp_path, 5), pytest.raises(OSError, match="large"):
        lent.acquire("ap/fu-2")

    freed.clear()
    assert lent.acquire("ap/fu-2") == mine
    assert freed == [mine]
    with pytest.raises(RuntimeFailure):
        lent.acquire("ap/fu-1")
    assert IdRanges(tmp_path).acquire("ap/fu-2") == mine


def test_no_range_has_two_owners_whatever_the_journal_says(tmp_path: Path) -> None:
    start = IdRanges(tmp_path).acquire("ap/fu-1").start
    with open(tmp_path / "id-ranges", "a", encoding="utf-8") as journal:
        journal.write(f"+ {start} ap/fu-2\n+ {start + BLOCK} ap/fu-3\n+ {start + 2 * BLOCK} ap/fu-3\n")

    second = IdRanges(tmp_path)

    assert second.acquire("ap/fu-2").start == start
    assert second.acquire("ap/fu-3").start == start + 2 * BLOCK
    assert len({second.acquire(f"ap/fu-{number}").start for number in range(1, 9)}) == 8


def test_a_disk_without_room_for_a_shorter_journal_keeps_the_long_one(tmp_path: Path) -> None:
    mine = IdRanges(tmp_path).acquire("ap/fu-1")
    with open(tmp_path / "id-ranges", "a", encoding="utf-8") as journal:
        journal.write(f"- {mine.start} ap/fu-1\n+ {mine.start} ap/fu-1\n")
    (tmp_path / ".id-ranges.new").mkdir()  # what cannot be written

    assert IdRanges(tmp_path).acquire("ap/fu-1") == mine
    assert len((tmp_path / "id-ranges").read_text().splitlines()) == 3
