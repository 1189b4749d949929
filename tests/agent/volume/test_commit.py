"""Commits of what was written: in pages, what is torn or open left for the next, nothing forgotten by a failure."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from squall.agent.volume import commit as commit_module
from squall.agent.volume import sink
from squall.agent.volume import upper as upper_module
from squall.agent.volume.commit import Committer, Written
from squall.protocol import volume as wire
from squall.protocol.errors import CONFLICT, UNAVAILABLE, PlatformError
from squall.protocol.volume import DEPTH_MAX, VolumeChange, VolumeCommit, VolumeCommitted, VolumeVersion
from squall.runtime.removal import remove_tree

KIB = 1_024


class Store:
    """A server that takes pages, and forgets them when it is told to."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytes] = {}
        self.pages_got: dict[str, list[VolumeCommit]] = {}
        self.commits: list[list[VolumeChange]] = []
        self.causes: list[str] = []
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
        if record.page > len(got):
            raise PlatformError(CONFLICT, "pages are missing")
        got[record.page :] = [record]
        if not record.is_last:
            return VolumeCommitted()
        named = {block for page in got for change in page.changes for block in change.blocks if block}
        if missing := await self.missing(sorted(named)):
            return VolumeCommitted(None, tuple(missing))
        self.causes.append(record.cause)
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
        self.committer = Committer(self.store, executor, Path(upper).parent)
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


@pytest.mark.parametrize("is_frozen", [False, True])
async def test_blocks_that_go_from_the_store_before_they_are_named_are_put_again(
    container: Container, is_frozen: bool
) -> None:
    @contextlib.asynccontextmanager
    async def freeze() -> AsyncIterator[None]:
        yield

    container.write("large", b"large" * 100 * KIB)
    container.write("small", b"small")
    takes = iter([container.store.blocks.clear] * 2)
    container.store.before_commit = lambda record: next(takes, lambda: None)()
    await container.committer.commit(container.written, "test", freeze=freeze if is_frozen else None)
    (changes,) = container.store.commits
    contents = {change.path: container.store.content(change) for change in changes}
    assert contents == {"large": b"large" * 100 * KIB, "small": b"small"}
    assert await container.commit() == {}


async def test_blocks_that_go_from_the_store_all_the_time_are_told_and_nothing_is_forgotten(
    container: Container,
) -> None:
    container.write("one", b"1")
    asked: list[int] = []

    def take(record: VolumeCommit) -> None:
        asked.append(record.page)
        container.store.blocks.clear()

    container.store.before_commit = take
    with pytest.raises(PlatformError, match="1 of its blocks went from the store after they were put; commit again"):
        await container.commit()
    assert len(asked) == commit_module.TRIES_MAX
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


async def test_while_it_is_frozen_only_what_has_changed_is_read_and_nothing_is_put(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_module, "FROZEN_BYTES_MAX", 0)
    container.write("large", os.urandom(300 * KIB))
    container.write("late", b"old" * 100 * KIB)
    puts: list[int] = []

    @contextlib.asynccontextmanager
    async def freeze() -> AsyncIterator[None]:
        if puts:
            container.write("late", b"new" * 100 * KIB)
        puts.append(len(container.store.blocks))
        yield
        puts.append(len(container.store.blocks))

    await container.committer.commit(container.written, "commit", freeze=freeze)
    (changes,) = container.store.commits
    assert {change.path: container.store.content(change)[:3] for change in changes}["late"] == b"new"
    # Not even that, while it waits.
    assert (puts, len(container.store.blocks)) == ([0, 0, 2, 2], 3)


async def test_of_what_is_open_for_writing_only_blocks_that_differ_are_kept_while_it_is_frozen(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_module, "BLOCK_BYTES", 256 * KIB)
    monkeypatch.setattr(commit_module, "FROZEN_BYTES_MAX", 0)
    kept: list[int] = []
    write = sink._write

    def noted(fd: int, data: bytes, offset: int) -> None:
        kept.append(len(data))
        write(fd, data, offset)

    monkeypatch.setattr(sink, "_write", noted)
    path = container.write("database", os.urandom(1_024 * KIB))
    with path.open("r+b") as file:

        @contextlib.asynccontextmanager
        async def freeze() -> AsyncIterator[None]:
            if container.store.blocks:
                file.seek(300 * KIB)
                file.write(b"changed")
                file.flush()
            yield

        await container.committer.commit(container.written, "commit", freeze=freeze)
    ((change,),) = container.store.commits
    assert container.store.content(change) == path.read_bytes()
    assert kept == [256 * KIB]


async def test_a_disk_without_room_for_what_is_kept_while_it_is_frozen_is_gone_round(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes, offset: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(sink, "_write", full)

    @contextlib.asynccontextmanager
    async def freeze() -> AsyncIterator[None]:
        container.write("large", b"new" * 200 * KIB)
        container.write("small", b"new")
        yield

    await container.committer.commit(container.written, "commit", freeze=freeze)
    (changes,) = container.store.commits
    assert {change.path: container.store.content(change) for change in changes} == {
        "large": b"new" * 200 * KIB,
        "small": b"new",
    }


async def test_more_changes_than_a_commit_has_are_several(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit_module, "COMMIT_CHANGES_MAX", 4)
    for number in range(10):
        container.write(f"{number}", b"")
    assert len(await container.commit()) == 10
    assert [len(changes) for changes in container.store.commits] == [4, 4, 2]
    assert container.store.causes[0] == "test (part 1 of 3)"
    assert await container.commit() == {}


# A container that means harm


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory that no container has anything to do with."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "file").write_bytes(b"secret")
    return directory


async def test_a_directory_that_becomes_a_link_while_it_is_committed_leads_nowhere(
    container: Container, outside: Path
) -> None:
    directory = container.upper / "z"
    directory.mkdir()
    container.write("z/file", b"public")
    container.write("a-large", b"x" * 300 * KIB)

    def swap() -> None:
        if not directory.is_symlink():
            directory.rename(container.upper / "away")
            directory.symlink_to(outside)

    container.store.before_put = swap
    changes = await container.commit()
    assert "z/file" not in changes
    assert not any(b"secret" in block for block in container.store.blocks.values())


async def test_a_directory_that_becomes_a_link_while_it_is_listed_leads_nowhere(
    container: Container, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = container.upper / "z"
    directory.mkdir()
    container.write("z/file", b"public")
    entries = upper_module._entries

    def swapping(fd: int) -> list[tuple[str, os.stat_result]]:
        found = entries(fd)
        if not directory.is_symlink():
            directory.rename(container.upper / "away")
            directory.symlink_to(outside)
        return found

    monkeypatch.setattr(upper_module, "_entries", swapping)
    await container.commit()
    assert container.store.blocks == {}


async def test_a_directory_in_the_place_of_another_is_for_the_next_and_nothing_of_it_is_removed(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = container.upper / "z"
    directory.mkdir()
    container.write("z/file", b"one")
    await container.commit()
    entries = upper_module._entries

    def swapping(fd: int) -> list[tuple[str, os.stat_result]]:
        found = entries(fd)
        if not (container.upper / "away").exists():
            directory.rename(container.upper / "away")
            directory.mkdir()
        return found

    monkeypatch.setattr(upper_module, "_entries", swapping)
    assert await container.commit() == {}


async def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(container: Container) -> None:
    container.write("a-large", b"x" * 300 * KIB)
    path = container.write("file", b"one")

    def swap() -> None:
        path.unlink()
        os.mkfifo(path)
        container.store.before_put = lambda: None

    container.store.before_put = swap
    async with asyncio.timeout(10):
        assert set(await container.commit()) == {"a-large"}


async def test_whoever_opens_a_file_while_it_is_looked_at_sends_no_signal_that_ends_the_agent(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = container.write("file", b"one")
    real, opened = fcntl.fcntl, []

    def fcntl_and_open(fd: int, command: int, argument: int = 0) -> int:
        done = real(fd, command, argument)
        if (command, argument) == (fcntl.F_SETLEASE, fcntl.F_RDLCK):
            with contextlib.suppress(BlockingIOError):
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            opened.append(path)
        return done

    monkeypatch.setattr(fcntl, "fcntl", fcntl_and_open)
    got: list[int] = []
    before = signal.signal(signal.SIGIO, lambda number, frame: got.append(number))
    try:
        await container.commit(is_patient=True)
    finally:
        signal.signal(signal.SIGIO, before)
    assert opened
    assert got == []


async def test_what_is_too_deep_for_a_version_is_said_once_and_keeps_nothing_else_from_being_committed(
    container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    fd = os.open(container.upper, os.O_RDONLY)
    for _ in range(1_500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    try:
        container.write("beside", b"")
        changes = await container.commit()
        assert len(changes) == DEPTH_MAX + 1
        assert [line.message.partition(" is in no version")[0][-4:] for line in caplog.records] == ["d/d'"]
        assert await container.commit() == {}
        assert len(caplog.records) == 1
    finally:
        # Whoever tidies up after the tests cannot.
        remove_tree(str(container.upper / "d"))


@pytest.mark.parametrize("is_frozen", [False, True])
async def test_a_file_with_more_content_than_a_version_takes_is_named_read_once_and_keeps_nothing_else_waiting(
    container: Container, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_frozen: bool
) -> None:
    monkeypatch.setattr(commit_module, "BLOCK_BYTES", 64 * KIB)
    monkeypatch.setattr(commit_module, "FROZEN_BYTES_MAX", 0)
    monkeypatch.setattr(wire, "BLOCK_LIST_BYTES_MAX", 600)
    hashed, read_at = commit_module._hashed, list[int]()

    def counted(fd: int, at: int, size: int) -> tuple[str, bytes]:
        read_at.append(at)
        return hashed(fd, at, size)

    monkeypatch.setattr(commit_module, "_hashed", counted)

    @contextlib.asynccontextmanager
    async def freeze() -> AsyncIterator[None]:
        yield

    path = container.write("huge", os.urandom(640 * KIB))
    with container.write("holes", b"").open("r+b") as file:
        file.truncate(6_400 * KIB)
    container.write("small", b"one")
    await container.committer.commit(container.written, "test", freeze=freeze if is_frozen else None)
    assert {change.path for change in container.store.commits[0]} == {"holes", "small"}
    assert read_at.count(0) == 2, "of each file once"
    (line,) = caplog.messages
    assert "'huge' is not in this version of vo-1: a file has about 900 GB of content at most" in line

    container.write("small", b"two")
    assert set(await container.commit()) == {"small"}
    assert (read_at.count(0), len(caplog.messages)) == (2, 1)
    os.truncate(path, 320 * KIB)
    assert set(await container.commit()) == {"huge"}


async def test_what_is_stored_to_mapped_memory_after_a_commit_is_in_the_next(container: Container) -> None:
    path = container.write("mapped", bytes(8_192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        for number in (1, 2, 3):
            memory[0] = number
            changes = await container.commit()
            assert container.store.content(changes["mapped"])[0] == number
    assert set(await container.commit()) == {"mapped"}
    assert await container.commit() == {}


async def test_what_is_closed_is_not_read_so_nothing_of_it_counts_as_removed(container: Container) -> None:
    path = container.write("one", b"1")
    await container.commit()
    await container.written.close()
    path.unlink()
    assert await container.commit() == {}


@pytest.mark.parametrize("then", ["removed", "renamed", "a directory", "a link", "as it was"])
async def test_what_was_open_when_it_was_committed_may_become_anything(container: Container, then: str) -> None:
    path = container.write("log", b"one")
    with path.open("ab") as file:
        assert list(await container.commit()) == ["log"]
        file.write(b"two")
    if then != "as it was":
        path.rename(container.upper / "moved") if then == "renamed" else path.unlink()
    if then == "a directory":
        path.mkdir()
    elif then == "a link":
        path.symlink_to("nowhere")
    container.write("result", b"done")

    changes = await container.commit()

    assert changes["result"].size == 4
    expected = {
        "removed": {"log": "remove"},
        "renamed": {"log": "remove", "moved": "put"},
        "a directory": {"log": "put"},
        "a link": {"log": "put"},
        "as it was": {"log": "put"},
    }[then]
    assert {path: change.action for path, change in changes.items() if path != "result"} == expected
    assert await container.commit() == {}


async def test_a_put_that_fails_ends_all_others_of_its_file(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of a file that is closed is another file's a moment later."""
    monkeypatch.setattr(commit_module, "BLOCK_BYTES", 64 * KIB)
    path = container.write("large", os.urandom(640 * KIB))
    reading: set[str] = set()
    hashed = commit_module._hashed

    def slow(fd: int, at: int, size: int) -> tuple[str, bytes]:
        time.sleep(0.01 * (at > 0))
        reading.add(os.readlink(f"/proc/self/fd/{fd}"))
        return hashed(fd, at, size)

    def refuse() -> None:
        raise PlatformError(UNAVAILABLE, "no server")

    monkeypatch.setattr(commit_module, "_hashed", slow)
    container.store.before_put = refuse
    with pytest.raises(PlatformError, match="no server"):
        await container.commit()
    # Whatever gets the number now is read by nobody.
    others = [(container.upper / f"other-{number}").open("wb") for number in range(3)]
    await asyncio.sleep(0.05)
    for other in others:
        other.close()
    assert reading == {str(path)}


async def test_little_is_read_once_while_it_is_frozen(container: Container) -> None:
    frozen: list[int] = []

    @contextlib.asynccontextmanager
    async def freeze() -> AsyncIterator[None]:
        frozen.append(len(container.store.blocks))
        yield
        frozen.append(len(container.store.blocks))

    container.write("small", b"one")
    await container.committer.commit(container.written, "commit", freeze=freeze)
    assert (frozen, len(container.store.blocks)) == ([0, 0], 1)


async def test_what_is_renamed_while_it_is_looked_for_is_never_away(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "z"):
        (container.upper / name).mkdir()
    container.write("a/file", b"there")
    container.write("gone", b"gone")
    await container.commit(is_patient=True)
    entries = upper_module._entries

    def renaming(fd: int) -> list[tuple[str, os.stat_result]]:
        here = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
        found = entries(fd)
        if here == "z" and (container.upper / "a/file").exists():
            # This one was read, and the other one is not yet.
            os.rename(container.upper / "a/file", container.upper / "z/file")
        return found

    (container.upper / "gone").unlink()
    monkeypatch.setattr(upper_module, "_entries", renaming)
    first = await container.commit(is_patient=True)
    monkeypatch.undo()
    second = await container.commit(is_patient=True)
    assert "remove" not in {change.action for change in first.values()}
    assert {path: change.action for path, change in second.items() if change.kind != "directory"} == {
        "a/file": "remove",
        "gone": "remove",
        "z/file": "put",
    }
    assert await container.commit(is_patient=True) == {}


async def test_more_than_the_agent_can_look_at_is_refused_and_stays(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upper_module, "ENTRIES_MAX", 10)
    (container.upper / "a").mkdir()
    for number in range(15):
        container.write(f"a/{number}", b"")
    for _ in range(2):
        (container.upper / "b").mkdir(exist_ok=True)
        with pytest.raises(PlatformError, match="more than 10 files and directories"):
            await container.commit()
    monkeypatch.undo()
    assert len(await container.commit()) == 17
