"""What containers write on volumes: committed whatever happens, and other versions in the place of the first."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from squall.agent.volume import holder as holder_module
from squall.agent.volume import upper as upper_module
from squall.agent.volume import volumes as volumes_module
from squall.protocol.errors import EXHAUSTED, PlatformError
from squall.protocol.volume import (
    VolumeCommit,
    VolumeCommitted,
    VolumeMount,
    VolumeVersion,
)
from squall.runtime.errors import RuntimeFailure, SpawnerGone, SubPathMissing
from tests.agent.parts import until
from tests.agent.volume.node import IDS, Node, happens, nothing, root_of


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with ThreadPoolExecutor(2) as executor:
        yield Node(tmp_path, executor)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BACKGROUND_S", "END_AGAIN_S"):
        monkeypatch.setattr(volumes_module, name, 0.05)
    monkeypatch.setattr(volumes_module, "LAST_TRIES_S", (0.0,))
    monkeypatch.setattr(volumes_module, "FREEZE_S", 0.1)


# What is written


async def test_the_next_agent_does_not_commit_again_what_is_in_a_version(node: Node) -> None:
    (upper,) = await node.open_writable("a", 1)
    (upper / "one").write_bytes(b"")
    (upper / "moved").write_bytes(b"")
    await node.volumes.commit("a", "vo-1")
    (upper / "moved").rename(upper / "there")
    node.start().adopt("a", IDS)
    await node.volumes.commit("a", "vo-1")
    first, second = node.server.commits
    assert [change.path for change in first.changes] == ["moved", "one"]
    assert [(change.path, change.action) for change in second.changes] == [("moved", "remove"), ("there", "put")]


async def test_what_cannot_be_committed_at_the_end_is_kept_until_it_can(node: Node) -> None:
    (upper,) = await node.open_writable("a", 1)
    (upper / "one").write_bytes(b"")
    node.server.is_full = True
    await node.volumes.close("a")
    assert (upper / "one").exists()
    node.server.is_full = False
    assert await node.served(lambda: not upper.exists())
    assert len(node.server.commits) == 1


async def test_a_deleted_volume_takes_nothing_of_the_others_along(node: Node) -> None:
    uppers = await node.open_writable("a", 1, 2)
    for upper in uppers:
        (upper / "one").write_bytes(b"")
    node.server.deleted.add("vo-1")
    await node.volumes.close("a")
    assert [record.volume_id for record in node.server.commits] == ["vo-2"]
    assert not uppers[0].exists()


async def test_records_that_cannot_be_read_are_set_aside_with_what_was_written(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    (upper,) = await node.open_writable("a", 1)
    (upper / "one").write_bytes(b"")
    (upper.parent.parent / "record.json").write_text("{")
    node.start()
    (kept,) = (node.directory / "lost").glob("a-*/0-0/upper/one")
    assert kept.exists()
    assert await node.served(lambda: any("that are in no version: a-" in line for line in caplog.messages))
    # Where the disk is short it goes at last.
    await node.volumes.evict()
    assert not kept.exists()


async def test_what_a_crash_of_the_machine_has_torn_takes_nothing_from_a_version_and_is_set_aside(
    node: Node, boot_again: Callable[[], None]
) -> None:
    node.start()
    (upper,) = await node.open_writable("a", 1)
    for name in ("model.bin", "other"):
        (upper / name).write_bytes(b"weights")
    await node.volumes.commit("a", "vo-1")
    # As a file system may leave what was not on the disk yet: made empty, or without its name.
    (upper / "model.bin").write_bytes(b"")
    (upper / "other").unlink()
    boot_again()
    node.start()
    # Also when agents come and go meanwhile.
    node.start()
    assert await node.served(lambda: not upper.exists())
    await until(lambda: not node.volumes.held())
    assert len(node.server.commits) == 1
    (kept,) = (node.directory / "lost").glob("a-*/0-0/upper/model.bin")
    ((container_id, said),) = node.said
    assert container_id == "ta-1"
    assert "of volume vo-1, on its version 1: 2 paths, as 'other'" in said
    assert str(kept.parents[2]) in said


async def test_after_a_crash_of_the_machine_what_is_in_a_version_as_it_was_goes(
    node: Node, boot_again: Callable[[], None]
) -> None:
    node.start()
    (upper,) = await node.open_writable("a", 1)
    (upper / "one").write_bytes(b"one")
    await node.volumes.commit("a", "vo-1")
    boot_again()
    node.start()
    assert await node.served(lambda: not upper.exists())
    assert not (node.directory / "lost").exists()
    assert not node.said
    assert len(node.server.commits) == 1


async def test_a_container_that_an_agent_left_frozen_goes_on_with_the_next(node: Node) -> None:
    await node.open_writable("a", 1)
    node.containers.living.add("a")
    node.containers.frozen.add("a")
    node.start().adopt("a", IDS)
    assert await node.served(lambda: not node.containers.frozen)


async def test_a_container_that_cannot_be_frozen_goes_on_and_whoever_asked_is_told(node: Node) -> None:
    await node.open_writable("a", 1)
    node.containers.is_stuck = True
    with pytest.raises(PlatformError, match="could not be frozen"):
        await node.volumes.commit("a", "vo-1")
    assert not node.containers.frozen


async def test_a_container_that_cannot_be_taken_over_yet_keeps_what_it_writes(node: Node) -> None:
    (upper,) = await node.open_writable("a", 1)
    (gone,) = await node.open_writable("b", 2)
    node.containers.living.add("a")
    node.start()
    assert await node.served(lambda: not gone.exists())
    assert upper.exists()


async def test_one_that_fails_does_not_keep_others_from_being_committed(node: Node) -> None:
    (broken,) = await node.open_writable("a", 1)
    (upper,) = await node.open_writable("b", 2)
    for path in (broken, upper):
        (path / "one").write_bytes(b"")
    commit = node.server.commit

    async def failing(record: VolumeCommit) -> VolumeCommitted:
        if record.volume_id == "vo-1":
            raise RecursionError
        return await commit(record)

    node.server.commit = failing  # type: ignore[method-assign]
    assert await node.served(lambda: bool(node.server.commits))
    assert node.server.commits[0].volume_id == "vo-2"


async def test_a_half_of_what_was_written_is_never_found_by_the_next_agent(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    (upper,) = await node.open_writable("a", 1)
    for name in ("one", "two"):
        (upper / name).write_bytes(b"")

    def broken_off(path: str) -> None:
        next(Path(path).glob("*/upper/one")).unlink()
        raise RuntimeFailure("cannot delete it")

    monkeypatch.setattr(holder_module, "remove_tree", broken_off)
    await node.volumes.close("a")
    monkeypatch.undo()
    before = len(node.server.commits)
    await node.start().close("a")
    assert len(node.server.commits) == before
    assert not list((node.directory / "gone").iterdir())


async def test_a_commit_whose_note_finds_no_room_is_a_commit(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    (upper,) = await node.open_writable("a", 1)
    (upper / "one").write_bytes(b"")

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("squall.agent.volume.holder.os.replace", full)
    assert await node.volumes.commit("a", "vo-1") == VolumeVersion(1)
    assert await node.volumes.commit("a", "vo-1") is None


async def test_what_can_never_be_committed_is_not_tried_all_the_time(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes_module, "END_AGAIN_S", 60.0)
    (full,) = await node.open_writable("a", 1)
    (full / "one").write_bytes(b"")
    tried: list[str] = []
    looks: list[str] = []

    async def refuse(record: VolumeCommit) -> VolumeCommitted:
        tried.append(record.volume_id)
        if record.volume_id == "vo-1":
            raise PlatformError(EXHAUSTED, "no room")
        looks.append(record.volume_id)
        return VolumeCommitted(VolumeVersion(1))

    node.server.commit = refuse  # type: ignore[method-assign]
    (upper,) = await node.open_writable("b", 2)

    def changed_often() -> bool:
        (upper / f"file-{len(looks)}").write_bytes(b"")
        return len(looks) > 3

    assert await node.served(changed_often)
    assert tried.count("vo-1") == 1


@pytest.mark.parametrize("is_gone", [False, True])
async def test_what_is_refused_is_told_once_in_the_log_of_whoever_wrote_it(
    node: Node, is_gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes_module, "REFUSED_AGAIN_S_MAX", 0.1)
    (upper,) = await node.open_writable("a", 1)
    (upper / "one").write_bytes(b"")
    tried: list[str] = []

    async def refuse(record: VolumeCommit) -> VolumeCommitted:
        tried.append(record.cause)
        raise PlatformError(EXHAUSTED, "the volume would have too many files")

    commit, node.server.commit = node.server.commit, refuse  # type: ignore[method-assign]
    if is_gone:
        await node.volumes.close("a")
    assert await node.served(lambda: len(tried) > 2)
    assert len(node.said) == 1
    container_id, said = node.said[0]
    assert container_id == "ta-1"
    assert "written to /1 (volume vo-1) is not committed: the volume would have too many files" in said
    node.server.commit = commit  # type: ignore[method-assign]
    assert await node.served(lambda: len(node.server.commits) == 1)


def test_whoever_is_refused_waits_ever_longer_and_an_hour_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes_module, "END_AGAIN_S", 30.0)
    assert [volumes_module.again_s(count) for count in (0, 1, 2, 3, 100)] == [30.0, 30.0, 60.0, 120.0, 3_600.0]


async def test_what_no_commit_can_ever_have_is_set_aside_and_told(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upper_module, "ENTRIES_MAX", 2)
    much, little = await node.open_writable("a", 1, 2)
    for name in "xyz":
        (much / name).write_bytes(b"")
    (little / "one").write_bytes(b"")
    await node.volumes.close("a")
    assert not node.volumes.held()
    assert [record.volume_id for record in node.server.commits] == ["vo-2"]
    assert len(list((node.directory / "lost").glob("a-*/0-0/upper/*"))) == 3
    ((_, said),) = node.said
    assert "no version can have it: of volume vo-1, on its version 1: more than 2 files and directories" in said


async def test_a_container_that_takes_long_to_be_committed_keeps_no_other_waiting(node: Node) -> None:
    (slow,) = await node.open_writable("a", 1)
    (upper,) = await node.open_writable("b", 2)
    for path in (slow, upper):
        (path / "one").write_bytes(b"")
    commit = node.server.commit

    async def stuck(record: VolumeCommit) -> VolumeCommitted:
        if record.volume_id == "vo-1":
            await asyncio.sleep(60)
        return await commit(record)

    node.server.commit = stuck  # type: ignore[method-assign]
    assert await node.served(lambda: bool(node.server.commits))
    assert node.server.commits[0].volume_id == "vo-2"
    await node.volumes.stop()


# Steps of images, and shells


async def _open_step(node: Node) -> Path:
    """Where a step writes, that has the newest version and an old one."""
    mounts = (VolumeMount("vo-1", "/new"), VolumeMount("vo-2", "/old", version=3))
    new, old = await node.volumes.open_now("step", mounts, IDS, "im-1")
    assert old.writable == ""
    upper = Path(new.writable) / "upper"
    upper.mkdir(parents=True)
    (upper / "one").write_bytes(b"")
    return upper


async def test_what_a_step_has_written_is_committed_when_it_ends(node: Node) -> None:
    node.server.head = VolumeVersion(7)
    upper = await _open_step(node)
    assert [(one.volume_id, one.version) for one in node.volumes.held()] == [("vo-1", 7), ("vo-2", 3)]

    assert await node.volumes.close_now("step")

    (commit,) = node.server.commits
    assert (commit.volume_id, commit.version, commit.created_by) == ("vo-1", 7, "im-1")
    assert [change.path for change in commit.changes] == ["one"]
    assert not upper.exists()
    assert node.volumes.held() == ()


async def test_what_a_step_has_written_waits_for_a_server_and_not_the_step(node: Node) -> None:
    upper = await _open_step(node)
    node.server.is_connected = False

    assert not await node.volumes.close_now("step")

    assert (upper / "one").exists()
    node.server.is_connected = True
    assert await node.served(lambda: not upper.exists())
    assert len(node.server.commits) == 1


async def test_a_step_that_ends_with_its_agent_leaves_what_it_wrote_to_the_next(node: Node) -> None:
    upper = await _open_step(node)
    await node.volumes.stop()

    assert not await node.volumes.close_now("step")

    assert (upper / "one").exists()
    node.start()
    assert await node.served(lambda: not upper.exists())


async def test_a_step_that_nobody_waits_for_any_more_is_committed(node: Node) -> None:
    upper = await _open_step(node)
    closing = asyncio.create_task(node.volumes.close_now("step"))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing

    assert await happens(lambda: not upper.exists())
    assert len(node.server.commits) == 1


async def test_a_step_whose_volume_is_gone_holds_nothing(node: Node) -> None:
    node.server.deleted.add("vo-1")
    with pytest.raises(PlatformError, match="no volume vo-1"):
        await _open_step(node)
    assert node.volumes.held() == ()


# What the server must not forget


async def test_every_version_that_is_written_on_is_told_until_what_was_written_is_committed(node: Node) -> None:
    told: list[list[tuple[str, int]]] = []
    node.on_held = lambda held: told.append([(one.volume_id, one.version) for one in held])
    await node.open("a", 3)
    (upper,) = await node.open_writable("b", 1)
    (upper / "one").write_bytes(b"")
    node.server.is_full = True
    await node.volumes.close("a")
    await node.volumes.close("b")
    assert told == [[("vo-3", 3)], [("vo-1", 1), ("vo-3", 3)], [("vo-1", 1)]]
    # The next agent tells it when it comes.
    assert [(one.volume_id, one.version) for one in node.start().held()] == [("vo-1", 1)]
    node.server.is_full = False
    assert await node.served(lambda: not upper.exists())
    assert node.volumes.held() == ()


async def test_a_start_that_fails_holds_no_version(node: Node) -> None:
    node.server.gone.add(2)
    with pytest.raises(PlatformError, match="version 2 is gone"):
        await node.open("a", 1, 2)
    assert node.volumes.held() == ()


# Reloads


async def test_a_reload_writes_on_the_newest_version(node: Node) -> None:
    (before,) = await node.open_writable("a", 1)
    (before / "one").write_bytes(b"")
    node.server.head = VolumeVersion(7, root=root_of(7))
    assert (await node.volumes.reload("a", "vo-1")).number == 7
    (volume,) = node.containers.swapped
    (Path(volume.writable) / "upper" / "two").write_bytes(b"")
    await node.volumes.commit("a", "vo-1")
    assert [(one.version, [change.path for change in one.changes]) for one in node.server.commits] == [
        (1, ["one"]),
        (7, ["two"]),
    ]
    assert not before.exists()
    assert not node.containers.frozen
    assert [one.version for one in node.volumes.held()] == [7]


async def test_a_reload_that_nobody_waits_for_any_more_is_brought_to_its_end(node: Node) -> None:
    (before,) = await node.open_writable("a", 1)
    reached, go = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await go.wait()

    node.containers.on_swap = wait
    asked = asyncio.ensure_future(node.volumes.reload("a", "vo-1"))
    await reached.wait()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    go.set()
    assert await happens(lambda: not before.exists())
    (volume,) = node.containers.swapped
    (Path(volume.writable) / "upper" / "two").write_bytes(b"")
    await node.volumes.commit("a", "vo-1")
    assert [change.path for one in node.server.commits for change in one.changes] == ["two"]


@pytest.mark.parametrize("is_agent_new", [False, True])
async def test_where_nobody_knows_which_version_is_mounted_both_are_committed(node: Node, is_agent_new: bool) -> None:
    (before,) = await node.open_writable("a", 1)

    async def gone() -> None:
        raise SpawnerGone("the spawner is gone")

    node.containers.on_swap = gone
    with pytest.raises(PlatformError, match="the spawner is gone"):
        await node.volumes.reload("a", "vo-1")
    node.containers.on_swap = nothing
    if is_agent_new:
        node.start().adopt("a", IDS)
    (volume,) = node.containers.swapped
    after = Path(volume.writable) / "upper"
    assert after.exists()
    (before / "one").write_bytes(b"")
    (after / "two").write_bytes(b"")
    await node.volumes.commit("a", "vo-1")
    assert [change.path for one in node.server.commits for change in one.changes] == ["one", "two"]

    await node.volumes.reload("a", "vo-1")
    assert len({one.writable for one in node.containers.swapped}) == 2
    assert not before.exists()
    assert not after.exists()


@pytest.mark.parametrize(("kind", "code"), [(RuntimeFailure, "unavailable"), (SubPathMissing, "conflict")])
async def test_a_reload_that_fails_leaves_what_there_was(node: Node, kind: type[RuntimeFailure], code: str) -> None:
    (before,) = await node.open_writable("a", 1)

    async def fail() -> None:
        raise kind("it cannot be mounted")

    node.containers.on_swap = fail
    with pytest.raises(PlatformError, match="it cannot be mounted") as failed:
        await node.volumes.reload("a", "vo-1")
    assert failed.value.code == code
    (volume,) = node.containers.swapped
    assert not Path(volume.writable).exists()
    (before / "one").write_bytes(b"")
    await node.volumes.close("a")
    assert [change.path for one in node.server.commits for change in one.changes] == ["one"]


async def test_while_a_container_is_frozen_for_a_reload_nothing_is_put(node: Node) -> None:
    (upper,) = await node.open_writable("a", 1)
    frozen: list[bool] = []
    commit, freeze = node.server.commit, node.containers.freeze

    async def noted(record: VolumeCommit) -> VolumeCommitted:
        frozen.append(bool(node.containers.frozen))
        return await commit(record)

    async def freezing(container_id: str) -> None:
        # What is written at the last moment.
        if not frozen:
            (upper / "late").write_bytes(b"")
        await freeze(container_id)

    node.server.commit = noted  # type: ignore[method-assign]
    node.containers.freeze = freezing  # type: ignore[method-assign]
    await node.volumes.reload("a", "vo-1")
    assert frozen == [False]


async def test_a_reload_while_a_file_is_open_for_writing_is_refused_and_leaves_it(node: Node) -> None:
    (upper,) = await node.open_writable("a", 1)
    with (upper / "open").open("wb"), pytest.raises(PlatformError, match="files on it are open"):
        await node.volumes.reload("a", "vo-1")
    assert not node.containers.swapped
    assert (upper / "open").exists()
    await node.volumes.reload("a", "vo-1")
    assert [change.path for one in node.server.commits for change in one.changes] == ["open"]


async def test_a_commit_that_was_not_written_down_is_made_again_as_the_same(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent killed between the server's answer and its note: what others have written since stays."""
    (upper,) = await node.open_writable("a", 1)
    (upper / "one").write_bytes(b"")
    with monkeypatch.context() as killed:
        killed.setattr("squall.agent.volume.note.Note.keep", lambda *states: None)
        await node.volumes.commit("a", "vo-1")
    node.start().adopt("a", IDS)
    await node.volumes.commit("a", "vo-1")
    for _ in range(2):
        (upper / "one").unlink()
        await node.volumes.commit("a", "vo-1")
        (upper / "one").write_bytes(b"")
        await node.volumes.commit("a", "vo-1")
    ids = [record.commit_id for record in node.server.commits]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 5


async def test_one_that_renames_all_the_time_is_frozen_for_what_is_gone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    (upper,) = await node.open_writable("a", 1)
    (upper / "one").write_bytes(b"")
    await node.volumes.commit("a", "vo-1")
    (upper / "one").unlink()
    frozen: list[int] = []
    freeze = node.containers.freeze

    async def noted(container_id: str) -> None:
        frozen.append(looks[0])
        await freeze(container_id)

    looks = [0]

    def never(path: str, reading: object) -> bool:
        looks[0] += 1
        return False

    monkeypatch.setattr("squall.agent.volume.commit.are_directories_as_read", never)
    node.containers.freeze = noted  # type: ignore[method-assign]
    assert await node.served(lambda: len(node.server.commits) == 2)
    assert [change.action for change in node.server.commits[1].changes] == ["remove"]
    assert frozen == [volumes_module.UNSTEADY_MAX]
