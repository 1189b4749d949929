"""Versions of volumes that need not stay, and their blocks: what goes, and what somebody may rely on."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any

import pytest

from squall.protocol import volume as wire
from squall.protocol.asset import VOLUME, AssetDelete
from squall.protocol.blob import BlobMissing, BlobStat
from squall.protocol.empty import Empty
from squall.protocol.ids import new_id
from squall.protocol.volume import VolumeChange
from squall.server.dispatch.asset.volume_garbage import UNHEARD_S
from squall.server.model.volume import NewNode, StoredVolumeVersion
from tests.server.dispatch.asset.test_volumes import (
    collect,
    commit,
    failure_of,
    listed,
    make_volume,
    put_files,
    read,
    retain,
)
from tests.server.doubles import FakeClient, settle, staged

DAY_S = 86_400.0


async def numbers(client: FakeClient, volume_id: str) -> list[int]:
    """The versions that there are."""
    history = await client.ask("VolumeHistoryGet", wire.VolumeHistoryGet(volume_id), wire.VolumeHistory)
    return [one.number for one in history.versions]


async def test_versions_that_need_not_stay_go_with_what_only_they_had() -> None:
    async with staged() as stage:
        client, volume_id, other = (
            stage.client,
            await make_volume(stage.client),
            await make_volume(stage.client, "other"),
        )
        for data in (b"first", b"second", b"third"):
            await put_files(client, volume_id, "a", data=data)
            stage.clock.advance(100)
        await put_files(client, volume_id, "shared", data=b"shared")
        await put_files(client, other, "b", data=b"first")
        await retain(client, volume_id, 1, 0)

        would = await collect(client, volume_id, is_trial=True)
        assert await listed(client, volume_id, version=1) == ["a"]
        gone = await collect(client, volume_id)

        assert gone == would
        assert (gone.version_count, gone.freed_bytes) == (3, len(b"second"))
        assert (await failure_of(listed(client, volume_id, version=3))).code == "not_found"
        assert await read(client, stage, volume_id, "a") == b"third"
        assert await read(client, stage, other, "b") == b"first"
        blocks = [hashlib.sha256(data).hexdigest() for data in (b"first", b"second", b"third", b"shared")]
        assert await stage.blobs.missing(tuple(blocks)) == (blocks[1],)
        assert (await collect(client)).version_count == 0


async def test_what_a_commit_names_anew_while_garbage_is_searched_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, "a", data=b"old")
        await put_files(client, volume_id, "a", data=b"new")
        await retain(client, volume_id, 1, 0)
        stage.clock.advance(1)
        names = stage.store.volumes.nodes

        async def commit_then_names() -> frozenset[str]:
            found = await names()
            await put_files(client, volume_id, "a", data=b"old")
            return found

        monkeypatch.setattr(stage.store.volumes, "nodes", commit_then_names)
        gone = await collect(client, volume_id)

        assert gone.version_count == 1
        assert await read(client, stage, volume_id, "a") == b"old"
        assert await listed(client, volume_id) == ["a"]


@pytest.mark.parametrize("method", ["VolumeRollback", "VolumeCopy", "VolumeRemove"])
async def test_a_change_that_garbage_is_collected_beside_leaves_a_volume_that_can_be_read(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, "a/b", data=b"old")
        await put_files(client, volume_id, "a/b", "a/c", data=b"new")
        await retain(client, volume_id, 1, 0)
        stage.clock.advance(1)
        collecting: list[asyncio.Future[wire.VolumeCollected]] = []
        add = stage.store.volumes.add

        async def collect_then_add(version: StoredVolumeVersion, nodes: Mapping[str, NewNode]) -> StoredVolumeVersion:
            collecting.append(asyncio.ensure_future(collect(client, volume_id)))
            await settle(300)
            return await add(version, nodes)

        monkeypatch.setattr(stage.store.volumes, "add", collect_then_add)
        record = {
            "VolumeRollback": wire.VolumeRollback(volume_id, new_id("rq"), 1),
            "VolumeCopy": wire.VolumeCopy(volume_id, new_id("rq"), ("a",), "d", is_deep=True),
            "VolumeRemove": wire.VolumeRemove(volume_id, new_id("rq"), "a/c"),
        }[method]
        changed: Any
        [changed] = await asyncio.gather(client.ask(method, record, wire.VolumeCommitted), return_exceptions=True)
        await asyncio.gather(*collecting)

        assert isinstance(changed, wire.VolumeCommitted)
        assert await read(client, stage, volume_id, "a/b") == (b"old" if method == "VolumeRollback" else b"new")
        await put_files(client, volume_id, "later")
        assert "later" in await listed(client, volume_id)


async def test_commits_that_come_one_after_the_other_do_not_keep_garbage_from_being_collected() -> None:
    async with staged() as stage:
        garbage, order = stage.plane.volumes.garbage, list[str]()

        async def take() -> None:
            async with garbage.alone():
                order.append("taken")

        async def name() -> None:
            async with garbage.untouched():
                order.append("named")

        async with garbage.untouched():
            taking = asyncio.ensure_future(take())
            await settle()
            naming = asyncio.ensure_future(name())
            await settle()
            assert order == []
        await asyncio.gather(taking, naming)
        assert order == ["taken", "named"]


async def test_a_block_that_a_client_was_told_is_there_stays_also_when_it_is_garbage() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, "a", data=b"old")
        await put_files(client, volume_id, "a", data=b"new")
        await retain(client, volume_id, 1, 0)
        stage.clock.advance(1)
        block = hashlib.sha256(b"old").hexdigest()
        assert await client.ask("BlobStat", BlobStat((block,)), BlobMissing) == BlobMissing(())

        gone = await collect(client, volume_id)

        assert (gone.version_count, gone.freed_bytes) == (1, 0)
        await commit(client, volume_id, VolumeChange("b", size=3, blocks=(block,)))
        assert await read(client, stage, volume_id, "b") == b"old"


async def test_a_spared_block_that_nobody_named_goes_later() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, "a", data=b"old")
        await put_files(client, volume_id, "a", data=b"new")
        await retain(client, volume_id, 1, 0)
        stage.clock.advance(1)
        await client.ask("BlobStat", BlobStat((hashlib.sha256(b"old").hexdigest(),)), BlobMissing)
        assert (await collect(client, volume_id)).freed_bytes == 0

        stage.blobs.told.clear()

        assert (await collect(client, volume_id)).freed_bytes == 3
        assert (await collect(client, volume_id)).freed_bytes == 0


async def test_a_clock_that_is_set_forward_makes_no_version_old_for_a_day() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        for number in range(3):
            await put_files(client, volume_id, "a", data=bytes([number]))
        await retain(client, volume_id, 1, 7)

        stage.clock.set_wall(30 * DAY_S)
        assert (await collect(client, volume_id)).version_count == 0
        stage.clock.set_wall(-30 * DAY_S)
        assert (await collect(client, volume_id)).version_count == 0

        stage.clock.advance(8 * DAY_S)
        await collect(client, volume_id)
        assert await numbers(client, volume_id) == [3]


async def test_for_an_hour_after_the_server_has_started_versions_stay_that_nodes_may_need() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        for number in range(3):
            await put_files(client, volume_id, "a", data=bytes([number]))
        await retain(client, volume_id, 1, 0)
        await stage.restart()
        await client.connect()
        for number in range(2):
            await put_files(client, volume_id, "b", data=bytes([number]))
        stage.clock.advance(UNHEARD_S - 1)

        would, gone = await collect(client, is_trial=True), await collect(client)

        assert gone == would
        assert (gone.version_count, gone.unheard_count) == (1, 3), "the one made since, which nodes have told of"
        assert await listed(client, volume_id, version=3) == ["a"]
        stage.clock.advance(1)
        await collect(client)
        assert await numbers(client, volume_id) == [5]


async def test_a_deleted_volume_leaves_nothing_behind() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        await put_files(client, volume_id, "a", data=b"gone")
        await client.ask("AssetDelete", AssetDelete(VOLUME, volume_id), Empty)
        await stage.pass_time(0.2)

        assert (await collect(client)).freed_bytes == 4
        assert await stage.store.volumes.nodes() == frozenset()


async def test_usage_counts_blocks_once_and_tells_what_no_other_volume_has() -> None:
    async with staged() as stage:
        client, volume_id, other = (
            stage.client,
            await make_volume(stage.client),
            await make_volume(stage.client, "other"),
        )
        await put_files(client, volume_id, "a", "copy", data=b"12345")
        await put_files(client, volume_id, "b", data=b"123")
        await put_files(client, other, "c", data=b"123")

        usage = await client.ask("VolumeUsageGet", wire.VolumeUsageGet(volume_id), wire.VolumeUsage)

        assert usage == wire.VolumeUsage(head_bytes=13, stored_bytes=8, own_bytes=5, version_count=2, oldest=1)


@pytest.mark.parametrize("retention", [wire.VolumeRetention(0, 1), wire.VolumeRetention(1, -1)])
async def test_a_retention_that_makes_no_sense_is_refused(retention: wire.VolumeRetention) -> None:
    async with staged() as stage:
        volume_id = await make_volume(stage.client)

        assert (await failure_of(retain(stage.client, volume_id, retention.count, retention.days))).code == "invalid"
        asked = wire.VolumeRetentionPut(volume_id)
        said = await stage.client.ask("VolumeRetentionPut", asked, wire.VolumeRetention)
        assert said == wire.VolumeRetention()
