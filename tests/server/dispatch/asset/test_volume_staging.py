"""Commits in pages: what waits for a last page is bounded in bytes, and nobody's pages keep others out."""

from __future__ import annotations

import pytest

from squall.protocol import volume as wire
from squall.protocol.errors import PlatformError
from squall.protocol.ids import new_id
from squall.protocol.volume import VolumeChange
from squall.server.dispatch.asset import volume_staging as module
from tests.server.dispatch.asset.test_volumes import commit, failure_of, make_volume, send
from tests.server.dispatch.client.test_callers import container_of
from tests.server.doubles import FakeClient, staged


def directories(count: int, path: str = "") -> list[VolumeChange]:
    return [VolumeChange(f"{path}{number}", kind=wire.DIRECTORY) for number in range(count)]


COST_BYTES = module._cost_of(directories(1)[0])


async def test_a_commit_has_so_many_changes_and_takes_so_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMIT_CHANGES_MAX", 5)
    monkeypatch.setattr(module, "SHARE_BYTES_MAX", 5 * COST_BYTES)
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        many, long = directories(6), directories(4, "x" * 200)

        assert (await failure_of(send(client, volume_id, *many))).code == "exhausted"
        commit_id = new_id("rq")
        await send(client, volume_id, *many[:3], commit_id=commit_id, is_last=False)
        assert (await failure_of(send(client, volume_id, *many[:3], commit_id=commit_id, page=1))).code == "exhausted"
        refused = await failure_of(send(client, volume_id, *long))
        assert (refused.code, "MiB of memory" in refused.message) == ("exhausted", True)
        assert (await commit(client, volume_id, *many[3:5], commit_id=commit_id, page=1)).entry_count == 5


async def begun(client: FakeClient, volume_id: str, count: int) -> str:
    """The id of a commit whose last page does not come."""
    commit_id = new_id("rq")
    await send(client, volume_id, *directories(count), commit_id=commit_id, is_last=False)
    return commit_id


async def is_kept(client: FakeClient, volume_id: str, commit_id: str) -> bool:
    """Whether the first page is; it ends the commit."""
    try:
        await send(client, volume_id, commit_id=commit_id, page=1)
    except PlatformError as error:
        return "begin again with page 0" not in error.message
    return True


async def test_of_one_caller_the_oldest_commit_that_got_no_further_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARE_BYTES_MAX", 5 * COST_BYTES)
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        first, second = await begun(client, volume_id, 2), await begun(client, volume_id, 2)
        # A page that comes again is one that goes on.
        await send(client, volume_id, *directories(2), commit_id=first, is_last=False)

        third = await begun(client, volume_id, 2)

        assert [await is_kept(client, volume_id, one) for one in (first, second, third)] == [True, False, True]


async def test_whoever_has_most_under_way_makes_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STAGED_BYTES_MAX", 8 * COST_BYTES)
    monkeypatch.setattr(module, "SHARE_BYTES_MAX", 6 * COST_BYTES)
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        inside = await container_of(stage, await client.function(min_containers=1))
        theirs = [await begun(inside, volume_id, 3), await begun(inside, volume_id, 3)]

        ours = [await begun(client, volume_id, 2), await begun(client, volume_id, 2)]

        assert [await is_kept(client, volume_id, one) for one in ours] == [True, True]
        assert [await is_kept(inside, volume_id, one) for one in theirs] == [False, True]


async def test_a_commit_that_alone_has_most_is_refused_a_page_and_keeps_what_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STAGED_BYTES_MAX", 6 * COST_BYTES)
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        inside = await container_of(stage, await client.function(min_containers=1))
        theirs, ours = await begun(inside, volume_id, 2), await begun(client, volume_id, 4)

        refused = await failure_of(send(client, volume_id, *directories(2), commit_id=ours, page=1, is_last=False))

        assert refused.code == "exhausted"
        assert await is_kept(inside, volume_id, theirs)
        assert await is_kept(client, volume_id, ours)


async def test_a_commit_that_got_no_further_is_forgotten_whatever_others_do() -> None:
    async with staged() as stage:
        client, volume_id = stage.client, await make_volume(stage.client)
        left, going_on = await begun(client, volume_id, 2), await begun(client, volume_id, 2)
        stage.clock.advance(module.STAGED_S - 1)
        await send(client, volume_id, *directories(2), commit_id=going_on, is_last=False)
        stage.clock.advance(2)

        assert await is_kept(client, volume_id, going_on)
        assert not await is_kept(client, volume_id, left)
