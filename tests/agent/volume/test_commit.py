"""Commits of what was written: in pages, what is torn or open left for the next, nothing forgotten by a failure."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from squall.agent.volume.commit import Committer, Written
from squall.protocol.errors import CONFLICT, UNAVAILABLE, PlatformError
from squall.protocol.volume import VolumeChange, VolumeCommit, VolumeCommitted, VolumeVersion

KIB = 1_024


class Store:
    """A server that takes pages, and forgets them when it is told to."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytes] = {}
        self.pages_got: dict[str, list[VolumeCommit]] = {}
        self.commits: list[list[VolumeChange]] = []
        self.page_size = 1_000
        self.before_put: Callable[[], object] = lambda: None
        self.before_commit: Callable[[VolumeCommit], object] = lambda record: None

    async def missing(self, sha256s: Sequence[str]) -> set[str]:
        return set(sha256s) - self.blocks.keys()

    async def put(self, sha256: str, data: bytes) -> None:
        assert hashlib.sha256(data).hexdigest() == sha256
        self.before_put()
        self.blocks[sha256] = data

    async def commit(self, record: VolumeCommit) -> VolumeCommitted:
        self.before_commit(record)
        got = self.pages_got.setdefault(record.commit_id, [])
        if record.page != len(got):
            raise PlatformError(CONFLICT, "pages are missing")
        got.append(record)
        if not record.is_last:
            return VolumeCommitted()
        self.commits.append([change for page in self.pages_got.pop(record.commit_id) for change in page.changes])
        return VolumeCommitted(VolumeVersion(len(self.commits)))

    def pages(self, changes: Sequence[VolumeChange]) -> list[tuple[VolumeChange, ...]]:
        return [tuple(changes[at : at + self.page_size]) for at in range(0, len(changes), self.page_size)]

    def content(self, change: VolumeChange) -> bytes:
        data = b"".join(self.blocks[block] for block in change.blocks)
        return data[change.offset : change.offset + change.size]


class Container:
    """What it has written, and who commits it."""

    def __init__(self, upper: Path, executor: ThreadPoolExecutor) -> None:
        self.upper = upper
        self.store = Store()
        self.committer = Committer(self.store, executor)
        self.written = Written("vo-1", str(upper), 0, 1, "ta-1")

    def write(self, name: str, data: bytes) -> Path:
        path = self.upper / name
        path.write_bytes(data)
        return path

    async def commit(self, *, is_patient: bool = False) -> dict[str, VolumeChange]:
        """What the next version was told."""
        before = len(self.store.commits)
        await self.committer.commit(self.written, "test", is_patient=is_patient)
        return {change.path: change for changes in self.store.commits[before:] for change in changes}


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    upper = tmp_path / "upper"
    upper.mkdir()
    with ThreadPoolExecutor(2) as executor:
        yield Container(upper, executor)


async def test_small_files_share_a_block_and_each_is_found_in_it(container: Container) -> None:
    told = {f"file-{number}": os.urandom(number) for number in range(50)}
    for name, data in told.items():
        container.write(name, data)
    changes = await container.commit()
    assert {name: container.store.content(change) for name, change in changes.items()} == told
    assert len(container.store.blocks) == 1


async def test_a_large_file_has_blocks_of_its_own(container: Container) -> None:
    data = os.urandom(300 * KIB)
    container.write("large", data)
    changes = await container.commit()
    assert container.store.content(changes["large"]) == data


async def test_what_has_not_changed_is_not_committed_again(container: Container) -> None:
    container.write("one", b"1")
    container.write("two", b"2")
    assert set(await container.commit()) == {"one", "two"}
    assert await container.commit() == {}
    container.write("two", b"22")
    assert set(await container.commit()) == {"two"}
    (container.upper / "one").unlink()
    assert [change.action for change in (await container.commit()).values()] == ["remove"]


async def test_what_is_open_for_writing_is_left_to_the_next_by_one_that_nobody_asked_for(container: Container) -> None:
    path = container.write("open", b"begun")
    container.write("closed", b"whole")
    with path.open("ab") as file:
        assert set(await container.commit(is_patient=True)) == {"closed"}
        file.write(b", ended")
    assert container.store.content((await container.commit(is_patient=True))["open"]) == b"begun, ended"


async def test_one_that_was_asked_for_takes_what_is_open_too(container: Container) -> None:
    with container.write("open", b"begun").open("ab"):
        assert set(await container.commit()) == {"open"}


async def test_a_file_that_changes_while_it_is_read_is_left_to_the_next(container: Container) -> None:
    container.write("torn", b"old" * 100 * KIB)
    container.write("whole", b"whole")
    container.store.before_put = lambda: container.write("torn", b"new" * 100 * KIB)
    assert set(await container.commit()) == {"whole"}
    container.store.before_put = lambda: None
    assert container.store.content((await container.commit())["torn"]) == b"new" * 100 * KIB


async def test_a_file_that_is_removed_while_it_is_read_is_left_to_the_next(container: Container) -> None:
    gone = container.write("a-gone", b"1")
    container.write("b-large", b"old" * 100 * KIB)
    container.store.before_put = lambda: gone.unlink(missing_ok=True)
    assert set(await container.commit()) == {"b-large"}
    assert await container.commit() == {}


async def test_pages_begin_again_when_a_restarted_server_has_forgotten_them(container: Container) -> None:
    for number in range(10):
        container.write(f"file-{number}", b"x")
    container.store.page_size = 3
    restarts = iter([True])

    def forget(record: VolumeCommit) -> None:
        if record.page == 2 and next(restarts, False):
            container.store.pages_got.clear()

    container.store.before_commit = forget
    assert len(await container.commit()) == 10
    assert len(container.store.commits) == 1


async def test_a_failure_forgets_nothing(container: Container) -> None:
    container.write("one", b"1")

    def fail(record: VolumeCommit) -> None:
        raise PlatformError(UNAVAILABLE, "no server")

    container.store.before_commit = fail
    with pytest.raises(PlatformError, match="no server"):
        await container.commit()
    container.store.before_commit = lambda record: None
    assert set(await container.commit()) == {"one"}


async def test_a_conflict_that_stays_is_told(container: Container) -> None:
    for number in range(10):
        container.write(f"file-{number}", b"x")
    container.store.page_size = 3

    def forget(record: VolumeCommit) -> None:
        if record.page == 2:
            container.store.pages_got.clear()

    container.store.before_commit = forget
    with pytest.raises(PlatformError, match="pages are missing"):
        await container.commit()


async def test_an_upper_that_is_away_removes_nothing(container: Container) -> None:
    container.write("one", b"1")
    await container.commit()
    away = container.upper.rename(container.upper.with_name("away"))
    assert await container.commit() == {}
    away.rename(container.upper)
    assert await container.commit() == {}


async def test_while_it_is_frozen_only_what_has_changed_is_put(container: Container) -> None:
    container.write("large", os.urandom(300 * KIB))
    container.write("late", b"old" * 100 * KIB)
    puts: list[int] = []

    @contextlib.asynccontextmanager
    async def freeze() -> AsyncIterator[None]:
        container.write("late", b"new" * 100 * KIB)
        puts.append(len(container.store.blocks))
        yield
        puts.append(len(container.store.blocks))

    await container.committer.commit(container.written, "commit", freeze=freeze)
    (changes,) = container.store.commits
    assert {change.path: container.store.content(change)[:3] for change in changes}["late"] == b"new"
    assert puts == [2, 3]
