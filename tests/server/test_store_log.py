"""Log lines are kept in order within a budget, and followers miss none without being told."""

from __future__ import annotations

import asyncio
import errno
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from squall.main.codec import MsgspecCodec
from squall.protocol.frames import HEADER_BYTES_MAX
from squall.protocol.log import LINE_BYTES_MAX, LogBatch, LogEntry, LogRead
from squall.protocol.pages import size_of
from squall.server.model.logs import Progress
from squall.server.store import log, log_overflow
from squall.server.store.log import FileLogStore

MIB = 2**20


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[FileLogStore]:
    """An empty store."""
    async with FileLogStore(str(tmp_path / "logs"), 64 * MIB) as opened:
        yield opened


def make_entries(count: int, container_id: str = "ct-1", app_id: str = "ap-1", first: int = 0) -> tuple[LogEntry, ...]:
    return tuple(
        LogEntry(float(number), "stdout", f"line {number}", container_id, "in-1:0", app_id, "fu-1")
        for number in range(first, first + count)
    )


async def read(logs: FileLogStore, query: LogRead) -> list[str]:
    return [entry.text for batch in [batch async for batch in logs.read(query)] for entry in batch]


async def test_lines_are_read_back_in_order(logs: FileLogStore) -> None:
    entries = make_entries(1_234)

    logs.append(entries[:1_000])
    logs.append(entries[1_000:])

    got = [entry async for batch in logs.read(LogRead(app="ap-1", tail=-1)) for entry in batch]
    assert tuple(got) == entries


async def test_tail_counts_the_last_matching_lines(logs: FileLogStore) -> None:
    logs.append(make_entries(5_000, "ct-1"))
    logs.append(make_entries(5_000, "ct-2", first=5_000))

    assert await read(logs, LogRead(app="ap-1", tail=3)) == ["line 9997", "line 9998", "line 9999"]
    assert await read(logs, LogRead(app="ap-1", container_id="ct-1", tail=2)) == ["line 4998", "line 4999"]
    assert await read(logs, LogRead(container_id="ct-2", tail=1)) == ["line 9999"]
    assert await read(logs, LogRead(app="ap-1", tail=0)) == []


async def test_lines_can_be_asked_for_by_what_they_are(logs: FileLogStore) -> None:
    lines = make_entries(10)
    logs.append((*lines[:5], replace(lines[5], source="stderr"), replace(lines[6], function_id="fu-2"), *lines[7:]))

    assert await read(logs, LogRead(app="ap-1", source="stderr")) == ["line 5"]
    assert await read(logs, LogRead(app="ap-1", function="fu-2")) == ["line 6"]
    assert await read(logs, LogRead(app="ap-1", since=2.0, until=4.0)) == ["line 2", "line 3"]
    assert await read(logs, LogRead(app="ap-1", search="ne 9")) == ["line 9"]
    assert await read(logs, LogRead(app="ap-2", tail=-1)) == []


async def test_lines_are_there_after_a_restart(tmp_path: Path) -> None:
    async with FileLogStore(str(tmp_path), MIB) as before:
        before.append(make_entries(3))
    (cut,) = tmp_path.glob("*/*.log")
    cut.write_bytes(cut.read_bytes() + b'{"at":3.0,"source":"std')

    async with FileLogStore(str(tmp_path), MIB) as after:
        after.append(make_entries(1, first=3))

        assert await read(after, LogRead(app="ap-1", tail=-1)) == ["line 0", "line 1", "line 2", "line 3"]


async def test_oldest_lines_go_when_the_budget_is_used_up(tmp_path: Path) -> None:
    async with FileLogStore(str(tmp_path), 200_000) as logs:
        for first in range(0, 5_000, 100):
            logs.append(make_entries(100, app_id=f"ap-{first % 300}", first=first))
            await logs.flush()

        kept = [await read(logs, LogRead(app=f"ap-{number}", tail=-1)) for number in (0, 100, 200)]

    size = sum(path.stat().st_size for path in tmp_path.glob("*/*.log"))
    assert 100_000 < size <= 200_000
    assert "line 4999" in [line for lines in kept for line in lines]
    assert "line 0" not in kept[0]


async def test_more_than_can_be_written_is_dropped_and_said(logs: FileLogStore) -> None:
    count = log.QUEUE_ENTRIES_MAX
    logs.append(make_entries(count + 170, "ct-1"))
    logs.append(make_entries(5, "ct-2"))

    await logs.flush()
    logs.append(make_entries(1, "ct-1", first=7))

    kept = [f"line {number}" for number in range(count + 70, count + 170)]
    before = f"line {count - 1}"
    assert await read(logs, LogRead(container_id="ct-1", tail=103)) == [
        before,
        "dropped 70 lines here",
        *kept,
        "line 7",
    ]
    assert await read(logs, LogRead(container_id="ct-2")) == [f"line {number}" for number in range(5)]


async def test_more_of_one_source_than_can_be_written_takes_nothing_of_the_other(logs: FileLogStore) -> None:
    flood = make_entries(log.QUEUE_ENTRIES_MAX + 5_000)
    trace = tuple(replace(entry, source="stderr", text=f"frame {entry.text}") for entry in make_entries(3))

    logs.append((*flood[:-2_000], *trace, *flood[-2_000:]))

    assert await read(logs, LogRead(app="ap-1", source="stderr")) == ["frame line 0", "frame line 1", "frame line 2"]
    assert await read(logs, LogRead(app="ap-1", tail=1)) == [flood[-1].text]


async def test_last_lines_of_many_containers_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_overflow, "BYTES_MAX", 10_000)
    overflow = log_overflow.Overflow()

    for number in range(1_000):
        for entry in make_entries(4, f"ct-{number}"):
            overflow.add(entry)
    taken = overflow.take(container_id="ct-0") + overflow.take(app_id="ap-2") + overflow.take()

    said = [entry for entry in taken if entry.source == "system"]
    assert sum(map(log_overflow.entry_bytes, taken)) - sum(map(log_overflow.entry_bytes, said)) <= 10_000
    assert [entry.text for entry in taken[:4]] == ["line 0", "line 1", "line 2", "line 3"]
    assert sum(int(entry.text.split()[1]) for entry in said) + len(taken) - len(said) == 4_000
    assert not overflow


async def test_lines_without_a_container_are_kept_for_their_own_app() -> None:
    overflow = log_overflow.Overflow()
    for app_id in ("ap-1", "ap-2"):
        overflow.add(replace(make_entries(1)[0], container_id="", app_id=app_id))

    assert [entry.app_id for entry in overflow.take(app_id="ap-2")] == ["ap-2"]
    assert [entry.app_id for entry in overflow.take(app_id="ap-1")] == ["ap-1"]


@contextmanager
def full_disk(folder: Path, room_bytes: int = 0) -> Iterator[None]:
    """In the block no file of this process grows beyond the largest one below the folder, and some bytes more."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max((path.stat().st_size for path in folder.rglob("*.log")), default=0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + room_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def dropped_of(lines: list[str]) -> int:
    """How many lines are told to be missing."""
    return sum(int(line.split()[1]) for line in lines if line.startswith("dropped"))


async def test_what_a_full_disk_refuses_is_there_later(logs: FileLogStore, tmp_path: Path) -> None:
    logs.append(make_entries(2))
    await logs.flush()

    with full_disk(tmp_path, room_bytes=50):  # half a line
        logs.append(make_entries(4, first=2))
        await logs.flush()
        during = await read(logs, LogRead(app="ap-1"))

    assert during == ["line 0", "line 1"]
    assert await read(logs, LogRead(app="ap-1")) == [f"line {number}" for number in range(6)]


async def test_lines_that_a_full_disk_costs_are_counted_however_often_it_is_tried(
    logs: FileLogStore, tmp_path: Path
) -> None:
    logs.append(make_entries(10))
    await logs.flush()

    with full_disk(tmp_path):
        for first in range(10, 10_010, 1_000):
            logs.append(make_entries(1_000, first=first))
            await logs.flush()
            await logs.flush()

    lines = await read(logs, LogRead(app="ap-1", tail=-1))
    assert lines[:10] == [f"line {number}" for number in range(10)]
    assert lines[10].startswith("dropped"), lines[10]
    assert lines[-1] == "line 10009"
    assert dropped_of(lines) + sum(line.startswith("line") for line in lines) == 10_010
    assert len(lines) <= 10 + 2 + log_overflow.LAST_ENTRIES


async def test_what_stands_for_lines_counts_for_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    overflow = log_overflow.Overflow()
    said = replace(make_entries(1)[0], source="system", text="dropped 70 lines of stdout here: why", dropped=70)
    for entry in (*make_entries(log_overflow.LAST_ENTRIES + 5), said, said):
        overflow.add(entry)

    assert dropped_of([entry.text for entry in overflow.take()]) == 5 + 140


async def test_followers_of_a_full_disk_read_each_line_once(logs: FileLogStore, tmp_path: Path) -> None:
    following = logs.follow(LogRead(app="ap-1", is_following=True))
    logs.append(make_entries(1))
    first = await anext(following)

    with full_disk(tmp_path):
        for number in range(1, 400):
            logs.append(make_entries(1, first=number))
            if number % 50 == 0:
                await logs.flush()
    logs.finish("ap-1")
    rest = [entry.text async for batch in following for entry in batch]

    assert [entry.text for entry in first] + rest == [f"line {number}" for number in range(400)]


async def test_app_whose_folder_found_no_room_is_written_later(
    logs: FileLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "mkdir", refuse)
        logs.append(make_entries(2))
        await logs.flush()
    logs.append(make_entries(1, first=2))

    assert await read(logs, LogRead(app="ap-1")) == ["line 0", "line 1", "line 2"]


async def test_lines_are_written_when_there_is_room_though_none_comes(
    logs: FileLogStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "RETRY_S", 0.01)
    with full_disk(tmp_path):
        logs.append(make_entries(3))
        await asyncio.sleep(0.2)  # whoever writes has found that out

    def has_written() -> bool:
        return any(path.stat().st_size for path in tmp_path.rglob("*.log"))

    for _ in range(200):
        if not has_written():
            await asyncio.sleep(0.01)
    assert has_written()


async def test_full_disk_is_said_once(logs: FileLogStore, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with full_disk(tmp_path):
        for number in range(5):
            logs.append(make_entries(1, first=number))
            await logs.flush()
    await logs.flush()

    said = [record.getMessage() for record in caplog.records if record.name == "squall.server.store.log"]
    assert len(said) == 2, said
    assert said[0].startswith("cannot write log lines: ")
    assert said[1] == "log lines are written again"


async def test_containers_whose_lines_are_counted_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_overflow, "COUNTED_MAX", 10)
    overflow = log_overflow.Overflow()
    for number in range(1_000):
        overflow.count(make_entries(1, f"ct-{number}")[0])

    taken = overflow.take()

    assert len(taken) == 11
    assert dropped_of([entry.text for entry in taken]) == 1_000


async def test_text_that_is_no_unicode_is_kept_as_well_as_it_can_be(logs: FileLogStore) -> None:
    logs.append((replace(make_entries(1)[0], text="half \ud800 pair"),))

    assert await read(logs, LogRead(app="ap-1")) == ["half ? pair"]


@pytest.mark.parametrize("app_id", ["", "../../etc", "a/b", ".."])
async def test_lines_of_no_proper_app_stay_inside_the_folder(tmp_path: Path, app_id: str) -> None:
    async with FileLogStore(str(tmp_path / "logs"), MIB) as logs:
        logs.append(make_entries(1, app_id=app_id))

        assert await read(logs, LogRead(app=app_id, container_id="ct-1")) == ["line 0"]
    assert [path.parent.name for path in tmp_path.rglob("*.log")] == ["other"]


async def test_follower_gets_every_line_once_from_before_and_after(logs: FileLogStore) -> None:
    got: list[str] = []

    async def follow() -> None:
        async for batch in logs.follow(LogRead(app="ap-1", tail=-1, is_following=True)):
            got.extend(entry.text for entry in batch)

    async def write() -> None:
        for first in range(0, 3_000, 10):
            logs.append(make_entries(10, first=first))
            logs.append(make_entries(1, app_id="ap-2"))
            await asyncio.sleep(0)

    logs.append(make_entries(10))
    writing = asyncio.ensure_future(write())
    await asyncio.sleep(0.002)
    following = asyncio.ensure_future(follow())
    await writing
    logs.finish("ap-1")
    await asyncio.wait_for(following, 10)

    assert got == [entry.text for entry in make_entries(10) + make_entries(3_000)]


async def test_slow_follower_is_told_what_it_missed(logs: FileLogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "FOLLOWER_ENTRIES_MAX", 5)
    monkeypatch.setattr(log_overflow, "LAST_ENTRIES", 2)
    following = logs.follow(LogRead(app="ap-1", is_following=True))
    logs.append(make_entries(1))
    first = await anext(following)

    logs.append(make_entries(9, first=1))
    logs.finish("ap-1")
    rest = [entry.text async for batch in following for entry in batch]

    assert [entry.text for entry in first] == ["line 0"]
    assert rest == [*(f"line {number}" for number in range(1, 6)), "dropped 2 lines here", "line 8", "line 9"]


async def test_what_passes_goes_to_followers_that_ask_and_is_not_kept(
    logs: FileLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "PASSING_BEHIND_MAX", 3)
    asking = logs.follow(LogRead(app="ap-1", is_following=True, has_passing=True))
    others = logs.follow(LogRead(app="ap-1", is_following=True))
    logs.append(make_entries(1))
    await anext(asking)
    await anext(others)

    passing = tuple(replace(entry, stage="passing", text=f"passing {entry.text}") for entry in make_entries(9))
    logs.append((*passing, *make_entries(1, first=1)))
    logs.finish("ap-1")

    assert [entry.text async for batch in asking for entry in batch] == [
        "passing line 0",
        "passing line 1",
        "passing line 2",
        "line 1",
    ]
    assert [entry.text async for batch in others for entry in batch] == ["line 1"]
    assert await read(logs, LogRead(app="ap-1", tail=-1, has_passing=True)) == ["line 0", "line 1"]


async def test_what_waits_for_a_slow_follower_is_bounded(logs: FileLogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "FOLLOWER_BYTES_MAX", 10_000)
    following = logs.follow(LogRead(app="ap-1", is_following=True))
    logs.append(make_entries(1))
    await anext(following)

    logs.append(tuple(replace(entry, text="x" * 1_000) for entry in make_entries(500)))
    logs.finish("ap-1")
    rest = [entry.text async for batch in following for entry in batch]

    assert rest.count("x" * 1_000) == 9 + log_overflow.LAST_ENTRIES
    assert rest[9] == f"dropped {500 - 9 - log_overflow.LAST_ENTRIES} lines here"


async def test_follower_of_a_container_ends_with_it(logs: FileLogStore) -> None:
    async def follow(query: LogRead) -> list[str]:
        return [entry.text async for batch in logs.follow(query) for entry in batch]

    one = asyncio.ensure_future(follow(LogRead(app="ap-1", container_id="ct-1", is_following=True)))
    other = asyncio.ensure_future(follow(LogRead(app="ap-1", container_id="ct-2", is_following=True)))
    await asyncio.sleep(0.01)
    logs.append(make_entries(2, "ct-1"))

    logs.finish("ap-1", "ct-1")

    assert await asyncio.wait_for(one, 5) == ["line 0", "line 1"]
    assert not other.done()
    logs.finish("ap-1")
    assert await asyncio.wait_for(other, 5) == []


async def test_followers_end_when_the_store_is_closed(tmp_path: Path) -> None:
    async with FileLogStore(str(tmp_path), MIB) as logs:
        following = asyncio.ensure_future(anext(logs.follow(LogRead(app="ap-1", is_following=True)), None))
        await asyncio.sleep(0.01)

    assert await asyncio.wait_for(following, 5) is None


async def test_deleted_app_has_no_lines(logs: FileLogStore, tmp_path: Path) -> None:
    logs.append(make_entries(3))
    logs.append(make_entries(3, app_id="ap-2"))

    await logs.delete("ap-1")

    assert await read(logs, LogRead(app="ap-1")) == []
    assert len(await read(logs, LogRead(app="ap-2"))) == 3
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["ap-2"]
    logs.append(make_entries(1))
    assert await read(logs, LogRead(app="ap-1")) == ["line 0"]


async def test_progress_tells_a_follower_that_is_behind(logs: FileLogStore) -> None:
    progress = Progress()
    following = logs.follow(LogRead(app="ap-1", tail=-1, is_following=True), progress)
    first = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0.1)

    logs.append(make_entries(2))
    appended = (progress.came, progress.taken)
    await first
    in_hand = (progress.came, progress.taken)
    logs.finish("ap-1")
    async for _ in following:
        pass

    assert (appended, in_hand) == ((2, 0), (2, 0))
    assert (progress.came, progress.taken) == (2, 2)


async def test_lines_of_a_function_are_its_own_and_with_its_variants_when_asked(logs: FileLogStore) -> None:
    own, small, other = make_entries(1), make_entries(1, first=1), make_entries(1, first=2)
    logs.append((*own, replace(small[0], variant_id="fu-small"), replace(other[0], function_id="fu-2")))

    async def of(function: str, *, has_variants: bool = False) -> list[str]:
        return await read(logs, LogRead(app="ap-1", function=function, tail=-1, has_variants=has_variants))

    assert await of("fu-1") == ["line 0"]
    assert await of("fu-1", has_variants=True) == ["line 0", "line 1"]
    assert await of("fu-small") == await of("fu-small", has_variants=True) == ["line 1"]


@pytest.mark.long
@pytest.mark.parametrize("text", [LINE_BYTES_MAX * "\x1b", LINE_BYTES_MAX * '"'], ids=["escape", "quote"])
async def test_batches_fit_a_frame_whatever_is_in_the_lines(logs: FileLogStore, text: str) -> None:
    # Ids as long as there are.
    line = replace(make_entries(1, "ct-" + 40 * "0")[0], text=text, input_id=100 * "\x1b")

    async def followed() -> list[tuple[LogEntry, ...]]:
        return [batch async for batch in logs.follow(LogRead(app="ap-1", is_following=True, tail=0))]

    following = asyncio.create_task(followed())
    await asyncio.sleep(0.1)
    logs.append(500 * (line,))
    logs.finish("ap-1")
    read = [batch async for batch in logs.read(LogRead(app="ap-1", tail=-1))]

    for batches in (read, await following):
        assert sum(map(len, batches)) == 500
        assert max(size_of(MsgspecCodec(), LogBatch(batch)) for batch in batches) < HEADER_BYTES_MAX / 4


async def test_reader_that_goes_away_takes_no_lines_along_that_a_full_disk_refuses(
    logs: FileLogStore, tmp_path: Path
) -> None:
    logs.append(make_entries(1))
    await logs.flush()

    with full_disk(tmp_path):
        for first in (1, 11):
            logs.append(make_entries(10, first=first))
            reading = asyncio.create_task(read(logs, LogRead(app="ap-1")))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await logs.flush()

    assert await read(logs, LogRead(app="ap-1")) == [f"line {number}" for number in range(21)]


async def test_lines_of_containers_without_an_account_stay_in_order(
    logs: FileLogStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_overflow, "COUNTED_MAX", 1)
    monkeypatch.setattr(log, "QUEUE_ENTRIES_MAX", 1)
    one, *others = make_entries(4, "ct-2")
    logs.append((*make_entries(2, "ct-1"), one, *others[:1]))
    monkeypatch.setattr(log, "QUEUE_ENTRIES_MAX", 50)

    logs.append(tuple(others[1:]))

    assert await read(logs, LogRead(app="ap-1", container_id="ct-2")) == [f"line {number}" for number in range(4)]
