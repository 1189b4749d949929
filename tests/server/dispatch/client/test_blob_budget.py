"""What containers put is bounded for each app, given back when nobody names it, and other apps are not touched."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import pytest

from squall.protocol.blob import BlobMissing, BlobPut, BlobStat
from squall.protocol.call import InputBatch
from squall.protocol.empty import Empty
from squall.protocol.errors import PlatformError
from squall.protocol.ids import new_id
from squall.protocol.volume import FILE, PUT, VolumeChange, VolumeCommit, VolumeCommitted
from squall.server.dispatch.client.blob_budget import AGE_MIN_S
from squall.server.model.config import ServerConfig
from tests.server.dispatch.asset.test_volumes import make_volume
from tests.server.doubles import FakeClient, Stage, double, settle, staged

MIB = 2**20
CONFIG = ServerConfig(app_blob_bytes_max=4 * MIB, heartbeat_timeout_s=1e6)


async def inside(stage: Stage) -> tuple[FakeClient, str]:
    """The SDK in a container of a new app, and its function."""
    spec = await stage.client.function(max_containers=1, timeout_s=86_400)
    stage.node.run = double
    await stage.done(stage.client.call(spec.function_id, 1), 1)
    made = await FakeClient(stage.plane, stage.codec).connect_inside(stage.node.started[-1].container_id)
    await settle()
    return made, spec.function_id


async def put(client: FakeClient, number: int, size_bytes: int = MIB) -> str:
    data = number.to_bytes(8, "big") * (size_bytes // 8)
    sha256 = hashlib.sha256(data).hexdigest()
    await client.ask("BlobPut", BlobPut(sha256, len(data)), Empty, data)
    return sha256


async def missing(client: FakeClient, *sha256s: str) -> tuple[str, ...]:
    found: BlobMissing = await client.ask("BlobStat", BlobStat(sha256s), BlobMissing)
    return found.sha256s


async def commit(client: FakeClient, volume_id: str, sha256: str) -> None:
    change = VolumeChange(sha256[:8], PUT, FILE, size=MIB, blocks=(sha256,))
    await client.ask("VolumeCommit", VolumeCommit(volume_id, new_id("rq"), (change,)), VolumeCommitted)


async def test_what_is_in_a_volume_counts_for_the_app_no_more_and_stays() -> None:
    async with staged(CONFIG) as stage:
        mine, _ = await inside(stage)
        volume_id = await make_volume(stage.client)
        blocks = []
        with contextlib.suppress(PlatformError):
            for number in range(12):
                blocks.append(await put(mine, number))
                await commit(mine, volume_id, blocks[-1])
        assert len(blocks) == 12, "the app may put no more"

        await stage.pass_time(AGE_MIN_S + 60, 60.0)

        assert await missing(stage.client, *blocks) == ()


@pytest.mark.parametrize("is_told", [True, False])
async def test_what_somebody_was_told_of_is_not_deleted_to_make_room(
    is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged(CONFIG) as stage:
        mine, _ = await inside(stage)
        first = await put(mine, 0)
        for number in range(1, 4):
            await put(mine, number)
        stage.clock.advance(AGE_MIN_S + 1)
        live_blobs = stage.store.live_blobs

        async def look() -> frozenset[str]:
            # After it was found to be old, and before it is deleted.
            if is_told:
                assert await missing(stage.client, first) == ()
            return await live_blobs()

        monkeypatch.setattr(stage.store, "live_blobs", look)
        await put(mine, 5)

        assert await missing(stage.client, first) == (() if is_told else (first,))


async def test_containers_of_an_app_may_put_their_budget_and_no_more() -> None:
    async with staged(CONFIG) as stage:
        mine, _ = await inside(stage)
        other, _ = await inside(stage)
        for number in range(4):
            await put(mine, number)
        await put(mine, 2)

        with pytest.raises(PlatformError, match="at most 4 MiB may; read results") as caught:
            await put(mine, 5)

        assert caught.value.code == "exhausted"
        for number in range(10, 14):
            await put(other, number)
        for number in range(20, 40):
            await put(stage.client, number)


async def test_blob_counts_with_the_largest_size_that_was_named() -> None:
    async with staged(CONFIG) as stage:
        mine, _ = await inside(stage)
        data = b"x" * (3 * MIB)
        sha256 = hashlib.sha256(data).hexdigest()
        await mine.ask("BlobPut", BlobPut(sha256, 1), Empty, b"")
        await mine.ask("BlobPut", BlobPut(sha256, len(data)), Empty, data)

        with pytest.raises(PlatformError, match="at most 4 MiB may"):
            await mine.ask("BlobPut", BlobPut(sha256, 5 * MIB), Empty, b"")
        with pytest.raises(PlatformError, match="at most 4 MiB may"):
            await put(mine, 1, 2 * MIB)


async def test_apps_that_containers_start_share_the_budget_of_the_app_above() -> None:
    async with staged(CONFIG) as stage:
        mine, _ = await inside(stage)
        child = await mine.function(timeout_s=86_400)
        await stage.done(mine.call(child.function_id, 1), 1)
        below = await FakeClient(stage.plane, stage.codec).connect_inside(stage.node.started[-1].container_id)
        await settle()
        for number in range(4):
            await put(mine, number)

        with pytest.raises(PlatformError, match="at most 4 MiB may"):
            await put(below, 5)


async def test_many_small_blobs_use_up_a_budget_too() -> None:
    async with staged(ServerConfig(app_blob_bytes_max=100 * 4_096)) as stage:
        mine, _ = await inside(stage)
        for number in range(100):
            await put(mine, number, 8)

        with pytest.raises(PlatformError, match="at most"):
            await put(mine, 100, 8)


async def test_what_nobody_names_any_more_gives_way_and_what_waits_stays() -> None:
    async with staged(CONFIG) as stage:
        mine, function_id = await inside(stage)
        kept, *gone = [await put(mine, number) for number in range(4)]
        stage.node.run = forever
        call = mine.open(function_id)
        mine.tell("PutInputs", InputBatch(call.call_id, (0,), (-1,), (), {"0": kept}))
        await settle()

        with pytest.raises(PlatformError, match="at most 4 MiB"):
            await put(mine, 5)
        stage.clock.advance(AGE_MIN_S + 1.0)
        await put(mine, 5)

        assert await missing(stage.client, kept, *gone) == tuple(gone[:1])


async def test_what_was_asked_for_a_moment_ago_stays() -> None:
    async with staged(CONFIG) as stage:
        mine, _ = await inside(stage)
        first, second, *_ = [await put(mine, number) for number in range(4)]
        stage.clock.advance(AGE_MIN_S + 1.0)
        assert not await missing(stage.client, first)

        await put(mine, 5)

        assert await missing(stage.client, first, second) == (second,)


async def test_an_app_that_is_gone_gives_back_what_it_had() -> None:
    async with staged(CONFIG) as stage:
        mine, _ = await inside(stage)
        put_there = [await put(mine, number) for number in range(4)]
        stage.clock.advance(AGE_MIN_S + 1.0)

        await stage.plane.blob_budgets.tick([])

        assert await missing(stage.client, *put_there) == tuple(put_there)


async def forever(guest: object, value: bytes) -> bytes:
    await asyncio.Event().wait()
    return value
