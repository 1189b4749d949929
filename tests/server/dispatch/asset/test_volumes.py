"""Volumes: commits make versions, whole or not at all; versions are looked at, compared, brought back and forgotten."""

from __future__ import annotations

import asyncio
import hashlib
import random
from dataclasses import replace
from typing import Any

import pytest

from squall.protocol import volume as wire
from squall.protocol.asset import VOLUME, AssetCreate, AssetDelete, AssetInfo
from squall.protocol.blob import BlobMissing, BlobPut, BlobStat
from squall.protocol.empty import Empty
from squall.protocol.environment import EnvironmentCreate, EnvironmentInfo
from squall.protocol.errors import EXHAUSTED, UNAVAILABLE, PlatformError
from squall.protocol.ids import new_id
from squall.protocol.volume import BLOCK_BYTES, VolumeChange, VolumeCommit, VolumeCommitted, VolumeVersion
from squall.server.dispatch.asset import volumes as module
from tests.server.dispatch.client.test_callers import container_of
from tests.server.doubles import FakeClient, Stage, staged


async def make_volume(client: FakeClient, name: str = "weights", environment: str = "") -> str:
    record = AssetCreate(new_id("vo"), VOLUME, name, environment)
    info: AssetInfo = await client.ask("AssetCreate", record, AssetInfo)
    return info.asset_id


async def put_blob(client: FakeClient, data: bytes) -> str:
    sha256 = hashlib.sha256(data).hexdigest()
    await client.ask("BlobPut", BlobPut(sha256, len(data)), Empty, data)
    return sha256


async def file(client: FakeClient, path: str, data: bytes = b"data", **fields: Any) -> VolumeChange:
    """A change that puts a file; its block is in the store."""
    return VolumeChange(path, size=len(data), blocks=(await put_blob(client, data),) if data else (), **fields)


async def send(client: FakeClient, volume_id: str, *changes: VolumeChange, **fields: Any) -> VolumeCommitted:
    fields.setdefault("commit_id", new_id("rq"))
    record = VolumeCommit(volume_id, changes=changes, **fields)
    committed: VolumeCommitted = await client.ask("VolumeCommit", record, VolumeCommitted)
    return committed


async def commit(client: FakeClient, volume_id: str, *changes: VolumeChange, **fields: Any) -> VolumeVersion:
    version = (await send(client, volume_id, *changes, **fields)).version
    assert version is not None
    return version


async def put_files(client: FakeClient, volume_id: str, *paths: str, data: bytes = b"data") -> VolumeVersion:
    return await commit(client, volume_id, *[await file(client, path, data) for path in paths])


async def listed(client: FakeClient, volume_id: str, path: str = "", **fields: Any) -> list[str]:
    asked = wire.VolumeList(volume_id, path, is_deep=True, **fields)
    listing = await client.ask("VolumeList", asked, wire.VolumeListing)
    return [one.path for one in listing.entries]


async def read(client: FakeClient, stage: Stage, volume_id: str, path: str, version: int | None = None) -> bytes:
    """A file as clients read it: each block checked by its name."""
    answer = await client.ask("VolumeBlocksGet", wire.VolumeBlocksGet(volume_id, path, version), wire.VolumeBlocks)
    data = b""
    for block in answer.blocks:
        _, found = await stage.blobs.get_chunk(block, 0, BLOCK_BYTES)
        assert hashlib.sha256(found).hexdigest() == block
        data += found
    return data[answer.offset : answer.offset + answer.size]


async def collect(client: FakeClient, volume_id: str = "", *, is_trial: bool = False) -> wire.VolumeCollected:
    gone: wire.VolumeCollected = await client.ask("VolumeGc", wire.VolumeGc(volume_id, is_trial), wire.VolumeCollected)
    return gone


async def retain(client: FakeClient, volume_id: str, count: int, days: float) -> None:
    record = wire.VolumeRetentionPut(volume_id, wire.VolumeRetention(count, days))
    await client.ask("VolumeRetentionPut", record, wire.VolumeRetention)


async def failure_of(awaitable: Any) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await awaitable
    return caught.value


# Commits


async def test_each_commit_is_a_version_and_earlier_ones_stay_as_they_were() -> None:
    async with staged() as stage:
        client = stage.client
        volume_id = await make_volume(client)
        first = await commit(client, volume_id, await file(client, "a/b", b"one"), cause="put", created_by="ann")
        second = await commit(
            client,
            volume_id,
            await file(client, "a/b", b"two!"),
            VolumeChange("a/c", wire.REMOVE),
            VolumeChange("d", kind=wire.DIRECTORY),
        )

        assert (first.number, first.cause, first.created_by, first.entry_count, first.size) == (1, "put", "ann", 2, 3)
        assert (first.put_count, first.removed_count, second.put_count, second.removed_count) == (2, 0, 2, 0)
        assert (second.number, second.entry_count, second.size) == (2, 3, 4)
        assert await listed(client, volume_id) == ["a", "a/b", "d"]
        assert await listed(client, volume_id, version=1) == ["a", "a/b"]
        assert await listed(client, volume_id, version=0) == []
        assert await read(client, stage, volume_id, "a/b") == b"two!"
        assert await read(client, stage, volume_id, "a/b", 1) == b"one"


async def test_a_commit_that_changes_nothing_makes_no_version() -> None:
    async with staged() as stage:
        volume_id = await make_volume(stage.client)
        change = await file(stage.client, "a", mtime_ns=7)
        first = await commit(stage.client, volume_id, change)

        assert await commit(stage.client, volume_id, change) == first
        assert await commit(stage.client, volume_id, VolumeChange("b", wire.REMOVE)) == first


async def test_a_commit_asked_for_twice_is_one_version_also_over_a_restart() -> None:
    async with staged() as stage:
        volume_id, commit_id = await make_volume(stage.client), new_id("rq")
        change = await file(stage.client, "a")
        first = await commit(stage.client, volume_id, change, commit_id=commit_id)
        await put_files(stage.client, volume_id, "b")

        assert await commit(stage.client, volume_id, change, commit_id=commit_id) == first
        await stage.restart()
        await stage.client.connect()
        assert await commit(stage.client, volume_id, change, commit_id=commit_id) == first
        assert await listed(stage.client, volume_id) == ["a", "b"]


async def test_blocks_that_are_missing_are_told_and_nothing_is_changed_before_they_are_there() -> None:
    async with staged() as stage:
        volume_id, commit_id = await make_volume(stage.client), new_id("rq")
        here, away = await put_blob(stage.client, b"here"), hashlib.sha256(b"away").hexdigest()
        changes = VolumeChange("a", size=4, blocks=(here,)), VolumeChange("b", size=4, blocks=(away,))

        answer = await send(stage.client, volume_id, *changes, commit_id=commit_id)
        assert answer == VolumeCommitted(None, (away,))
        assert await listed(stage.client, volume_id) == []
        await put_blob(stage.client, b"away")
        assert (await commit(stage.client, volume_id, *changes, commit_id=commit_id)).number == 1
        assert await listed(stage.client, volume_id) == ["a", "b"]


async def test_many_changes_come_in_pages_and_all_of_them_happen_with_the_last() -> None:
    async with staged() as stage:
        volume_id, commit_id = await make_volume(stage.client), new_id("rq")
        changes = [await file(stage.client, f"dir/{number}") for number in range(9)]

        for page in (0, 0, 1, 1):
            some = changes[page * 3 : page * 3 + 3]
            answer = await send(stage.client, volume_id, *some, commit_id=commit_id, page=page, is_last=False)
            assert answer == VolumeCommitted()
        assert await listed(stage.client, volume_id) == []
        version = await commit(stage.client, volume_id, *changes[6:], commit_id=commit_id, page=2)
        assert (version.number, version.put_count, version.entry_count) == (1, 10, 10)


async def test_pages_that_the_server_has_forgotten_are_sent_from_the_first() -> None:
    async with staged() as stage:
        volume_id, commit_id = await make_volume(stage.client), new_id("rq")
        one, two = await file(stage.client, "a"), await file(stage.client, "b")
        await send(stage.client, volume_id, one, commit_id=commit_id, is_last=False)
        await stage.restart()
        await stage.client.connect()

        refused = await failure_of(send(stage.client, volume_id, two, commit_id=commit_id, page=1))

        assert refused.code == "conflict"
        assert "begin again with page 0" in refused.message
        await send(stage.client, volume_id, one, commit_id=commit_id, is_last=False)
        assert (await commit(stage.client, volume_id, two, commit_id=commit_id, page=1)).entry_count == 2


@pytest.mark.parametrize(
    "change",
    [
        VolumeChange(""),
        VolumeChange("/"),
        VolumeChange("../a"),
        VolumeChange("a/../../b"),
        VolumeChange("x" * 256),
        VolumeChange("a\0b"),
        VolumeChange("a", "chown"),
        VolumeChange("a", kind="socket"),
        VolumeChange("a", size=1),
        VolumeChange("a", size=-1),
        VolumeChange("a", size=2**60),
        VolumeChange("a", size=1, blocks=("x",)),
        VolumeChange("a", size=1, blocks=("A" * 64,)),
        VolumeChange("a", size=1, blocks=("a" * 64, "b" * 64)),
        VolumeChange("a", size=2, blocks=("a" * 64,), offset=BLOCK_BYTES - 1),
        VolumeChange("a", size=1, blocks=("",), offset=1),
        VolumeChange("a", kind=wire.DIRECTORY, blocks=("a" * 64,)),
        VolumeChange("a", kind=wire.SYMLINK),
        VolumeChange("a", kind=wire.SYMLINK, target="x" * 5_000),
        VolumeChange("a", mode=0o10000),
        VolumeChange("a", uid=65_536),
        VolumeChange("a", mtime_ns=2**70),
        VolumeChange("a", wire.COPY, target="../b"),
    ],
)
async def test_a_change_that_no_tree_should_have_is_refused_and_none_is_made(change: VolumeChange) -> None:
    async with staged() as stage:
        volume_id = await make_volume(stage.client)

        refused = await failure_of(send(stage.client, volume_id, VolumeChange("b", kind=wire.DIRECTORY), change))

        assert refused.code == "invalid"
        assert await listed(stage.client, volume_id) == []


async def test_names_that_are_no_utf8_travel_and_stay_as_they_are() -> None:
    async with staged() as stage:
        volume_id = await make_volume(stage.client)
        name = wire.to_wire("ä\udcff/\udc80b")
        await put_files(stage.client, volume_id, name)

        assert await listed(stage.client, volume_id) == ["ä\0ff", "ä\0ff/\x0080b"]
        assert await read(stage.client, stage, volume_id, name) == b"data"
        assert wire.from_wire(name) == "ä\udcff/\udc80b"


async def test_what_is_in_the_way_is_replaced_where_that_is_forced_and_else_a_conflict() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, "a", "d/e")
        below, over = await file(client, "a/b"), await file(client, "d")

        for change in (below, over):
            refused = await failure_of(send(client, volume_id, change, is_forced=False))
            assert refused.code == "conflict"
        assert await listed(client, volume_id) == ["a", "d", "d/e"]
        await commit(client, volume_id, below, over)
        assert await listed(client, volume_id) == ["a", "a/b", "d"]


async def test_a_file_that_is_there_is_replaced_unless_that_is_refused() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, "a", "dir/b")
        new = [VolumeChange("dir", kind=wire.DIRECTORY), await file(client, "dir/c"), await file(client, "a", b"other")]

        refused = await failure_of(send(client, volume_id, *new, is_replacing=False))
        assert refused.code == "exists"
        assert "'a'" in refused.message
        assert await listed(client, volume_id) == ["a", "dir", "dir/b"]
        await commit(client, volume_id, *new[:2], is_replacing=False)
        await commit(client, volume_id, *new)
        assert await read(client, stage, volume_id, "a") == b"other"


async def test_the_last_write_of_a_file_wins_and_others_stay_when_two_began_with_one_version() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        base = (await put_files(client, volume_id, "both", "gone/old", "kept")).number
        mine = [await file(client, "both", b"mine"), VolumeChange("gone", wire.REMOVE_SEEN)]
        theirs = [await file(client, "both", b"theirs"), await file(client, "gone/new")]

        await commit(client, volume_id, *theirs, version=base)
        await commit(client, volume_id, *mine, version=base)

        assert await listed(client, volume_id) == ["both", "gone", "gone/new", "kept"]
        assert await read(client, stage, volume_id, "both") == b"mine"


async def test_a_renamed_directory_is_a_copy_of_what_it_was_and_a_removal() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        base = (await put_files(client, volume_id, "old/a", "old/b/c")).number

        moved = VolumeChange("new", wire.COPY, target="old"), VolumeChange("old", wire.REMOVE_SEEN)
        await commit(client, volume_id, *moved, version=base)

        assert await listed(client, volume_id) == ["new", "new/a", "new/b", "new/b/c"]
        missing = VolumeChange("x", wire.COPY, target="nowhere")
        assert (await failure_of(send(client, volume_id, missing))).code == "not_found"


async def test_a_directory_that_comes_from_elsewhere_is_beside_what_others_have_put_there() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        base = (await put_files(client, volume_id, "old/a")).number
        await put_files(client, volume_id, "new/theirs")

        await commit(client, volume_id, VolumeChange("new", wire.COPY, target="old"), version=base)

        assert await listed(client, volume_id, "new") == ["new/a", "new/theirs"]


async def test_what_came_from_elsewhere_is_removed_without_what_others_have_put_there() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        base = (await put_files(client, volume_id, "old/a", "old/b/c")).number
        await commit(client, volume_id, VolumeChange("new", wire.COPY, target="old"), version=base)
        await put_files(client, volume_id, "new/b/theirs")

        await commit(client, volume_id, VolumeChange("new", wire.REMOVE_SEEN, target="old"), version=base)

        assert await listed(client, volume_id, "new") == ["new/b", "new/b/theirs"]


async def test_a_file_takes_the_place_of_a_directory_as_it_was_seen_and_of_no_other() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        base = (await put_files(client, volume_id, "mine/a", "both/a", "touched/a", "source")).number
        await put_files(client, volume_id, "both/new", "new/b", "touched/new")

        files = [await file(client, path) for path in ("mine", "both", "new", "more")]
        touched = VolumeChange("touched", wire.TOUCH, target="source")
        version = await commit(client, volume_id, touched, *files, version=base, cause="at the end")

        kept = ["both", "both/new", "mine", "more", "new", "new/b", "source", "touched", "touched/new"]
        assert await listed(client, volume_id) == kept
        assert version.cause == "at the end (3 files were left out: others have directories of their names)"


@pytest.mark.parametrize("removal", [wire.REMOVE, wire.REMOVE_SEEN])
async def test_a_file_that_others_have_made_a_directory_is_not_removed(removal: str) -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        base = (await put_files(client, volume_id, "x", "d/x")).number
        await commit(client, volume_id, await file(client, "x/new"), await file(client, "d/x/new"))

        changes = [VolumeChange("x", removal), VolumeChange("d/x", removal), VolumeChange("d", wire.REMOVE_SEEN)]
        await commit(client, volume_id, *changes, version=base)

        assert await listed(client, volume_id) == ["d", "d/x", "d/x/new", "x", "x/new"]


async def test_a_directory_is_removed_where_nothing_is_in_it() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, "full/a", "file")
        empty = VolumeChange("empty", kind=wire.DIRECTORY), VolumeChange("empty/below", kind=wire.DIRECTORY)
        await commit(client, volume_id, *empty)

        paths = ("full", "file", "empty/below", "empty", "nowhere")
        await commit(client, volume_id, *(VolumeChange(path, wire.REMOVE_EMPTY) for path in paths))

        assert await listed(client, volume_id) == ["file", "full", "full/a"]


async def test_for_a_version_that_is_not_kept_any_more_nothing_of_others_goes() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        base = (await put_files(client, volume_id, "gone", "moved/a", "touched", "lost")).number
        await commit(client, volume_id, await file(client, "gone", b"theirs"), VolumeChange("lost", wire.REMOVE))
        await retain(client, volume_id, 1, 0)
        stage.clock.advance(100)
        await collect(client, volume_id)

        version = await commit(
            client,
            volume_id,
            VolumeChange("gone", wire.REMOVE_SEEN),
            VolumeChange("there", wire.COPY, target="moved"),
            VolumeChange("moved", wire.REMOVE_SEEN),
            VolumeChange("touched", wire.TOUCH, mode=0o600, target="touched"),
            VolumeChange("lost", wire.TOUCH, mode=0o600, target="lost"),
            await file(client, "new"),
            version=base,
            cause="background",
        )

        assert await listed(client, volume_id) == ["gone", "moved", "moved/a", "new", "there", "there/a", "touched"]
        assert await read(client, stage, volume_id, "gone") == b"theirs"
        assert version.cause == "background (made in version 1, which is not kept: what it removed there stays)"


async def test_a_version_that_a_node_needs_stays_also_while_its_agent_is_away() -> None:
    async with staged() as stage:
        client, volume_id, node = stage.client, await make_volume(stage.client), stage.node
        base = (await put_files(client, volume_id, "seen")).number
        await put_files(client, volume_id, "other")
        await put_files(client, volume_id, "third")
        await retain(client, volume_id, 1, 0)
        stage.clock.advance(100)
        node.tell("NodeVolumesHeld", wire.NodeVolumesHeld((wire.VolumeHeld(volume_id, base),)))
        await settled(stage)
        assert (await collect(client, volume_id)).version_count == 1
        assert node.peer is not None
        await node.peer.close()
        assert (await collect(client, volume_id)).version_count == 0

        await commit(client, volume_id, VolumeChange("seen", wire.REMOVE_SEEN), version=base)

        assert await listed(client, volume_id) == ["other", "third"]
        await node.connect()
        node.tell("NodeVolumesHeld", wire.NodeVolumesHeld())
        await settled(stage)
        assert (await collect(client, volume_id)).version_count == 2


async def settled(stage: Stage) -> None:
    """What the node has told is known."""
    assert stage.node.peer is not None
    await stage.node.peer.request("BlobStat", BlobStat(()), BlobMissing)


async def test_of_a_deleted_volume_nothing_is_committed() -> None:
    async with staged() as stage:
        volume_id = await make_volume(stage.client)
        await stage.client.ask("AssetDelete", AssetDelete(VOLUME, volume_id), Empty)

        assert (await failure_of(put_files(stage.client, volume_id, "a"))).code == "not_found"


@pytest.mark.parametrize("code", [EXHAUSTED, UNAVAILABLE])
async def test_a_blob_store_that_fails_in_a_commit_leaves_the_version_there_is(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, "a", data=b"old")
        change, commit_id = await file(client, "a", b"new"), new_id("rq")

        async def fail(sha256s: tuple[str, ...], *, is_told: bool = True) -> tuple[str, ...]:
            raise PlatformError(code, "the blob store fails")

        with monkeypatch.context() as failing:
            failing.setattr(stage.blobs, "missing", fail)
            assert (await failure_of(send(client, volume_id, change, commit_id=commit_id))).code == code
        assert await read(client, stage, volume_id, "a") == b"old"
        assert (await commit(client, volume_id, change, commit_id=commit_id)).number == 2
        assert await read(client, stage, volume_id, "a") == b"new"


@pytest.mark.parametrize("seed", range(4))
async def test_many_writers_and_readers_and_restarts_leave_versions_that_are_whole(seed: int) -> None:
    """Each commit writes its number into several files: a version in which they differ was torn."""
    chance = random.Random(seed)
    async with staged() as stage:
        volume_id = await make_volume(stage.client)
        clients = [await FakeClient(stage.plane, stage.codec).connect() for _ in range(4)]

        async def write(client: FakeClient, number: int) -> None:
            data = f"{number}".encode()
            paths = [f"set/{part}" for part in range(3)] + [f"own/{number}"]
            await commit(client, volume_id, *[await file(client, path, data) for path in paths], cause=data.decode())

        async def look(client: FakeClient) -> None:
            version = await client.ask("VolumeVersionGet", wire.VolumeVersionGet(volume_id), VolumeVersion)
            await _check_version(stage, client, volume_id, version)

        for step in range(8):
            numbers = range(step * 10, step * 10 + chance.randrange(2, 6))
            tasks = [write(chance.choice(clients), number) for number in numbers]
            tasks += [look(chance.choice(clients)) for _ in range(3)]
            chance.shuffle(tasks)
            await asyncio.gather(*tasks)
            if chance.random() < 0.3:
                await stage.restart()
                clients = [await FakeClient(stage.plane, stage.codec).connect() for _ in range(4)]
        history = await clients[0].ask("VolumeHistoryGet", wire.VolumeHistoryGet(volume_id), wire.VolumeHistory)
        assert [one.number for one in history.versions] == list(range(len(history.versions), 0, -1))
        for version in history.versions:
            await _check_version(stage, clients[0], volume_id, version)


async def _check_version(stage: Stage, client: FakeClient, volume_id: str, version: VolumeVersion) -> None:
    if not version.number:
        return
    found = {await read(client, stage, volume_id, f"set/{part}", version.number) for part in range(3)}
    assert found == {version.cause.encode()}
    assert f"own/{version.cause}" in await listed(client, volume_id, version=version.number)


# Looks


async def test_a_directory_is_listed_flat_or_deep_and_page_by_page_of_one_version() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        paths = [f"dir/{number:03}/file" for number in range(30)]
        await put_files(client, volume_id, *paths)

        found: list[str] = []
        asked: wire.VolumeList | None = wire.VolumeList(volume_id, "dir", is_deep=True, limit=7)
        while asked is not None:
            listing = await client.ask("VolumeList", asked, wire.VolumeListing)
            found += [one.path for one in listing.entries]
            await put_files(client, volume_id, "dir/zzz")
            asked = replace(asked, version=listing.version, after=found[-1]) if len(listing.entries) == 7 else None

        assert found == [one for path in paths for one in (path[:-5], path)]
        flat = await client.ask("VolumeList", wire.VolumeList(volume_id, "dir"), wire.VolumeListing)
        assert [one.path for one in flat.entries] == [*[path[:-5] for path in paths], "dir/zzz"]
        of_a_file = await client.ask("VolumeList", wire.VolumeList(volume_id, paths[3]), wire.VolumeListing)
        assert [(one.path, one.kind, one.size) for one in of_a_file.entries] == [(paths[3], wire.FILE, 4)]


async def test_a_list_goes_on_to_its_end_however_long_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE_RECORDS_MAX", 1)
    async with staged() as stage:
        client = stage.client
        volume_id = await make_volume(client)
        await put_files(client, volume_id, *[f"{number}" for number in range(5)])
        following: wire.VolumeList | None = wire.VolumeList(volume_id)
        found = []
        while following is not None:
            # No question of them gives less than what one volume may have.
            assert following.limit > 10**9
            listing = await client.ask("VolumeList", following, wire.VolumeListing)
            found += [one.path for one in listing.entries]
            following = following.following(replace(listing, is_cut=len(found) < 5))
        assert found == ["0", "1", "2", "3", "4"]


async def test_a_list_says_where_files_of_one_block_are_when_it_is_asked() -> None:
    async with staged() as stage:
        client = stage.client
        volume_id = await make_volume(client)
        block = await put_blob(client, b"smallfiles")
        second = await put_blob(client, b"2" * 10)
        await commit(
            client,
            volume_id,
            VolumeChange("empty"),
            VolumeChange("files", size=5, blocks=(block,), offset=5),
            VolumeChange("hole", size=7, blocks=(wire.HOLE,)),
            VolumeChange("large", size=BLOCK_BYTES + 10, blocks=(block, second)),
            VolumeChange("link", kind=wire.SYMLINK, target="files"),
        )
        asked = wire.VolumeList(volume_id, has_blocks=True)
        found = (await client.ask("VolumeList", asked, wire.VolumeListing)).entries
        assert [(one.path, one.block, one.offset) for one in found] == [
            ("empty", "", 0),
            ("files", block, 5),
            ("hole", "", 0),
            ("large", "", 0),
            ("link", "", 0),
        ]
        unasked = await client.ask("VolumeList", wire.VolumeList(volume_id), wire.VolumeListing)
        assert {one.block for one in unasked.entries} == {""}


@pytest.mark.parametrize(
    ("method", "record", "reply"),
    [
        ("VolumeList", wire.VolumeList("", "missing"), wire.VolumeListing),
        ("VolumeStat", wire.VolumeStat("", "missing"), wire.VolumeStatted),
        ("VolumeStat", wire.VolumeStat("", "a", 9), wire.VolumeStatted),
        ("VolumeBlocksGet", wire.VolumeBlocksGet("", "missing"), wire.VolumeBlocks),
        ("VolumeVersionGet", wire.VolumeVersionGet("", 9), VolumeVersion),
        ("VolumeDiff", wire.VolumeDiff("", 9), wire.VolumeDifferences),
        ("VolumeRollback", wire.VolumeRollback("", "", 9), VolumeCommitted),
        ("VolumeRemove", wire.VolumeRemove("", "", "missing"), VolumeCommitted),
        ("VolumeCopy", wire.VolumeCopy("", "", ("missing",), "b"), VolumeCommitted),
    ],
)
async def test_what_is_not_there_is_not_found(method: str, record: Any, reply: type[Any]) -> None:
    async with staged() as stage:
        volume_id = await make_volume(stage.client)
        await put_files(stage.client, volume_id, "a")
        fields = {"volume_id": volume_id} | ({"commit_id": new_id("rq")} if hasattr(record, "commit_id") else {})

        refused = await failure_of(stage.client.ask(method, type(record)(**{**vars(record), **fields}), reply))

        assert (refused.code, refused.message.partition(":")[0]) == ("not_found", method)


async def test_versions_are_found_by_time() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        began = stage.clock.now()
        stage.clock.advance(10)
        await put_files(client, volume_id, "a")
        stage.clock.advance(10)
        await put_files(client, volume_id, "b")

        async def at(moment: float) -> int:
            asked = wire.VolumeVersionGet(volume_id, at=moment)
            return int((await client.ask("VolumeVersionGet", asked, VolumeVersion)).number)

        assert [await at(began + 15), await at(began + 25)] == [1, 2]
        assert (await failure_of(at(began + 5))).code == "not_found"


async def test_differences_of_two_versions_come_by_path_page_by_page() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, *[f"{number:04}" for number in range(1_500)])
        await commit(client, volume_id, VolumeChange("0007", wire.REMOVE), await file(client, "0008", b"other"))

        small = await client.ask("VolumeDiff", wire.VolumeDiff(volume_id, 1), wire.VolumeDifferences)
        sizes = [(one.before and one.before.size, one.after and one.after.size) for one in small.paths]
        assert sizes == [(4, None), (4, 5)]
        found: list[str] = []
        asked: wire.VolumeDiff | None = wire.VolumeDiff(volume_id, 0, 1)
        while asked is not None:
            answer = await client.ask("VolumeDiff", asked, wire.VolumeDifferences)
            found += [one.after.path for one in answer.paths]
            asked = asked.following(answer)
        assert found == [f"{number:04}" for number in range(1_500)]


async def test_a_rollback_is_a_new_version_and_nothing_between_is_lost() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, "a", "b")
        await commit(client, volume_id, VolumeChange("a", wire.REMOVE), VolumeChange("b", wire.REMOVE))
        record = wire.VolumeRollback(volume_id, new_id("rq"), 1)

        for _ in range(2):
            answer = await client.ask("VolumeRollback", record, VolumeCommitted)
            assert (answer.version.number, answer.version.cause, answer.version.put_count) == (3, "rollback to 1", 2)
        assert await listed(client, volume_id) == ["a", "b"]
        assert await listed(client, volume_id, version=2) == []


# Within a volume


async def copied(client: FakeClient, volume_id: str, *sources: str, to: str, is_deep: bool = False) -> list[str]:
    record = wire.VolumeCopy(volume_id, new_id("rq"), sources, to, is_deep)
    await client.ask("VolumeCopy", record, VolumeCommitted)
    return await listed(client, volume_id)


async def test_paths_are_copied_as_cp_does() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, "a", "dir/x", "other/y")

        assert "b" in await copied(client, volume_id, "a", to="b")
        assert "dir/a" in await copied(client, volume_id, "a", "b", to="dir")
        assert "new/x" in await copied(client, volume_id, "dir", to="new", is_deep=True)
        assert "other/dir/x" in await copied(client, volume_id, "dir", to="other", is_deep=True)
        merged = await copied(client, volume_id, "new", to="other", is_deep=True)
        assert {"other/y", "other/new/x"} <= set(merged)
        for sources, to, is_deep, code in (
            (("dir",), "z", False, "invalid"),
            (("dir",), "dir/below", True, "invalid"),
            (("a", "b"), "nowhere", False, "conflict"),
            (("dir",), "a", True, "conflict"),
            (("a",), "../z", False, "invalid"),
        ):
            failed = await failure_of(copied(client, volume_id, *sources, to=to, is_deep=is_deep))
            assert failed.code == code, (sources, to, failed)


async def test_directories_are_removed_when_that_is_asked_for() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, "a", "dir/x", "dir/y")

        async def remove(path: str, *, is_deep: bool = False) -> list[str]:
            record = wire.VolumeRemove(volume_id, new_id("rq"), path, is_deep)
            await client.ask("VolumeRemove", record, VolumeCommitted)
            return await listed(client, volume_id)

        assert (await failure_of(remove("dir"))).code == "conflict"
        assert (await failure_of(remove("/"))).code == "conflict"
        assert await remove("dir/x") == ["a", "dir", "dir/y"]
        assert await remove("dir", is_deep=True) == ["a"]
        assert await remove("", is_deep=True) == []


# Who may


async def test_a_container_changes_volumes_of_its_environment_and_is_named_in_their_history() -> None:
    async with staged() as stage:
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)
        here, there = await make_volume(stage.client), await make_volume(stage.client, environment="dev")
        inside = await container_of(stage, await stage.client.function(min_containers=1))

        version = await commit(inside, here, VolumeChange("a", kind=wire.DIRECTORY), created_by="root")
        assert version.created_by == next(iter(stage.node.guests))
        assert (await failure_of(send(inside, there, VolumeChange("a", kind=wire.DIRECTORY)))).code == "forbidden"
        assert (await failure_of(listed(inside, there))).code == "forbidden"
        for method, record in (
            ("VolumeGc", wire.VolumeGc(here)),
            ("VolumeRetentionPut", wire.VolumeRetentionPut(here, wire.VolumeRetention(1, 0))),
        ):
            assert (await failure_of(inside.ask(method, record, wire.VolumeCollected))).code == "forbidden"
