"""Assets: made, found, listed, renamed, deleted; who may use them; how long ephemeral ones live."""

from __future__ import annotations

from typing import Any

import pytest

from squall.protocol.asset import (
    DICT,
    QUEUE,
    SECRET,
    VOLUME,
    AssetCreate,
    AssetDelete,
    AssetGet,
    AssetInfo,
    AssetList,
    AssetListing,
    AssetRename,
)
from squall.protocol.empty import Empty
from squall.protocol.environment import EnvironmentCreate, EnvironmentDelete, EnvironmentDeleted, EnvironmentInfo
from squall.protocol.errors import PlatformError
from squall.protocol.ids import new_id
from tests.server.dispatch.client.test_callers import container_of
from tests.server.doubles import FakeClient, Stage, staged


def creation(name: str = "cache", **fields: Any) -> AssetCreate:
    return AssetCreate(new_id("di"), DICT, name, created_by="ann", **fields)


async def create(client: FakeClient, record: AssetCreate) -> AssetInfo:
    info: AssetInfo = await client.ask("AssetCreate", record, AssetInfo)
    return info


async def get(client: FakeClient, asset: str, kind: str = DICT, environment: str = "") -> AssetInfo:
    info: AssetInfo = await client.ask("AssetGet", AssetGet(kind, asset, environment), AssetInfo)
    return info


async def is_there(client: FakeClient, asset_id: str) -> bool:
    try:
        await get(client, asset_id)
    except PlatformError as error:
        if error.code != "not_found":
            raise
        return False
    return True


async def failure_of(awaitable: Any) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await awaitable
    return caught.value


async def inside(stage: Stage) -> FakeClient:
    """The SDK in a container."""
    return await container_of(stage, await stage.client.function(min_containers=1))


async def test_an_asset_is_found_by_name_and_by_id() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation())

        assert (made.name, made.environment, made.created_by) == ("cache", "main", "ann")
        assert await get(stage.client, "cache") == await get(stage.client, made.asset_id) == made


async def test_making_one_again_is_harmless_with_the_same_id_and_an_error_with_another() -> None:
    async with staged() as stage:
        record = creation()
        made = await create(stage.client, record)

        assert await create(stage.client, record) == made
        refused = await failure_of(create(stage.client, creation()))
        assert refused.code == "exists"
        assert "there is a dict 'cache' in environment main already" in refused.message
        assert await create(stage.client, creation(may_exist=True)) == made


async def test_an_id_is_of_one_asset_for_good() -> None:
    async with staged() as stage:
        record = creation()
        await create(stage.client, record)

        again = AssetCreate(record.asset_id, DICT, "other")
        assert (await failure_of(create(stage.client, again))).code == "conflict"


@pytest.mark.parametrize(
    "record",
    [
        AssetCreate("di-1", DICT, "cache"),
        AssetCreate(new_id("qu"), DICT, "cache"),
        AssetCreate(new_id("di"), "table", "cache"),
        AssetCreate(new_id("di"), DICT, "a b"),
        AssetCreate(new_id("di"), DICT, "x" * 65),
        AssetCreate(new_id("di"), DICT, new_id("di")),
        AssetCreate(new_id("di"), DICT, "cache", created_by="x" * 201),
        AssetCreate(new_id("st"), SECRET, "cache"),
    ],
)
async def test_what_is_wrong_is_refused(record: AssetCreate) -> None:
    async with staged() as stage:
        assert (await failure_of(create(stage.client, record))).code == "invalid"


async def test_a_missing_one_is_told_with_names_that_are_like_it() -> None:
    async with staged() as stage:
        await create(stage.client, creation("predictions"))

        near = await failure_of(get(stage.client, "prediction"))
        far = await failure_of(get(stage.client, "xyz"))
        by_id = await failure_of(get(stage.client, new_id("di")))
        other_kind = await failure_of(get(stage.client, "predictions", QUEUE))

        assert {one.code for one in (near, far, by_id, other_kind)} == {"not_found"}
        assert near.message == (
            "AssetGet: there is no dict 'prediction' in environment main; did you mean 'predictions'?"
        )
        assert "`squall dict list` shows those there are" in far.message


async def test_one_name_is_another_asset_in_another_environment() -> None:
    async with staged() as stage:
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)
        here = await create(stage.client, creation())
        there = await create(stage.client, creation(environment="dev"))

        assert (await get(stage.client, "cache")).asset_id == here.asset_id
        assert (await get(stage.client, "cache", environment="dev")).asset_id == there.asset_id
        gone = await stage.client.ask("EnvironmentDelete", EnvironmentDelete("dev"), EnvironmentDeleted)
        assert gone.asset_count == 1
        assert await is_there(stage.client, here.asset_id)
        assert not await is_there(stage.client, there.asset_id)


async def test_named_ones_are_listed_newest_first_page_by_page() -> None:
    async with staged() as stage:
        for number in range(5):
            await create(stage.client, creation(f"cache-{number}"))
            stage.clock.advance(1.0)
        await create(stage.client, creation(""))
        await create(stage.client, AssetCreate(new_id("qu"), QUEUE, "queue"))

        listing = await stage.client.ask("AssetList", AssetList(DICT, limit=3), AssetListing)
        assert [one.name for one in listing.assets] == ["cache-4", "cache-3", "cache-2"]
        before = listing.assets[-1]
        asked = AssetList(DICT, before_at=before.created_at, before_id=before.asset_id)
        rest = await stage.client.ask("AssetList", asked, AssetListing)
        assert [one.name for one in rest.assets] == ["cache-1", "cache-0"]


async def test_a_renamed_one_keeps_its_id_and_loses_its_old_name() -> None:
    async with staged() as stage:
        made = await create(stage.client, AssetCreate(new_id("vo"), VOLUME, "weights"))
        await create(stage.client, AssetCreate(new_id("vo"), VOLUME, "taken"))

        renamed = await stage.client.ask("AssetRename", AssetRename(VOLUME, "weights", "models"), AssetInfo)
        assert (renamed.asset_id, renamed.name) == (made.asset_id, "models")
        assert (await failure_of(get(stage.client, "weights", VOLUME))).code == "not_found"
        assert (await get(stage.client, made.asset_id, VOLUME)).name == "models"
        taken = stage.client.ask("AssetRename", AssetRename(VOLUME, "models", "taken"), AssetInfo)
        assert (await failure_of(taken)).code == "exists"
        wrong = stage.client.ask("AssetRename", AssetRename(VOLUME, "models", "a/b"), AssetInfo)
        assert (await failure_of(wrong)).code == "invalid"


async def test_a_deleted_one_is_gone_by_name_and_by_id() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation())

        await stage.client.ask("AssetDelete", AssetDelete(DICT, "cache"), Empty)

        assert not await is_there(stage.client, made.asset_id)
        assert not await is_there(stage.client, "cache")
        again = stage.client.ask("AssetDelete", AssetDelete(DICT, "cache"), Empty)
        assert (await failure_of(again)).code == "not_found"


# In containers


async def test_a_container_uses_what_is_in_the_environment_of_its_app_and_no_other() -> None:
    async with staged() as stage:
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)
        here = await create(stage.client, creation())
        there = await create(stage.client, creation("secret-plans", environment="dev"))
        client = await inside(stage)

        assert (await get(client, "cache")).asset_id == here.asset_id
        assert (await get(client, here.asset_id)).asset_id == here.asset_id
        assert (await create(client, creation("own"))).environment == "main"
        listing = AssetList(DICT, environment="dev")
        for attempt in (
            get(client, there.asset_id),
            get(client, "secret-plans", environment="dev"),
            get(client, "secret-plan", environment="dev"),
            create(client, creation("own", environment="dev")),
            client.ask("AssetList", listing, AssetListing),
            client.ask("AssetDelete", AssetDelete(DICT, there.asset_id), Empty),
            client.ask("AssetRename", AssetRename(DICT, there.asset_id, "x"), AssetInfo),
        ):
            refused = await failure_of(attempt)
            assert refused.code == "forbidden"
            assert "secret-plans" not in refused.message
        assert await is_there(stage.client, there.asset_id)


# Ephemeral ones


async def test_an_ephemeral_one_goes_when_its_client_does_not_come_back() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation(""))
        other = await FakeClient(stage.plane, stage.codec).connect()
        assert await is_there(other, made.asset_id)

        stage.client.disconnect()
        await stage.pass_time(stage.config.app_grace_s - 1)
        assert await is_there(other, made.asset_id)
        await stage.pass_time(2)

        assert not await is_there(other, made.asset_id)


async def test_an_ephemeral_one_stays_while_its_client_comes_back_in_time() -> None:
    async with staged() as stage:
        made = await create(stage.client, creation(""))

        for _ in range(3):
            stage.client.disconnect()
            await stage.pass_time(stage.config.app_grace_s - 1)
            await stage.client.connect()

        await stage.pass_time(stage.config.app_grace_s * 2)
        assert await is_there(stage.client, made.asset_id)


@pytest.mark.parametrize("is_coming_back", [True, False])
async def test_after_a_restart_an_ephemeral_one_waits_for_its_client(is_coming_back: bool) -> None:
    async with staged() as stage:
        made = await create(stage.client, creation(""))
        await stage.restart()
        other = await FakeClient(stage.plane, stage.codec).connect()
        if is_coming_back:
            await stage.client.connect()

        await stage.pass_time(stage.config.restart_grace_s + 1, 0.5)

        assert await is_there(other, made.asset_id) == is_coming_back


async def test_an_ephemeral_one_of_a_container_goes_with_the_container() -> None:
    async with staged() as stage:
        client = await inside(stage)
        made = await create(client, creation(""))
        assert await is_there(stage.client, made.asset_id)

        for guest in list(stage.node.guests.values()):
            guest.exit()
        await stage.pass_time(1)

        assert not await is_there(stage.client, made.asset_id)


async def test_what_is_somebody_else_s_does_not_go_with_who_asked_for_its_id() -> None:
    async with staged() as stage:
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("prod"), EnvironmentInfo)
        named, held = await create(stage.client, creation(environment="prod")), await create(stage.client, creation(""))
        client = await inside(stage)
        own = await create(client, creation(""))

        for one in (named, held):
            asked = AssetCreate(one.asset_id, DICT, "", created_by="eve")
            assert (await failure_of(create(client, asked))).code == "conflict"
        assert (
            await failure_of(client.ask("AssetDelete", AssetDelete(DICT, named.asset_id), Empty))
        ).code == "forbidden"
        for guest in list(stage.node.guests.values()):
            guest.exit()
        await stage.pass_time(1)

        assert not await is_there(stage.client, own.asset_id)
        assert await is_there(stage.client, named.asset_id)
        assert await is_there(stage.client, held.asset_id)


async def test_one_client_has_a_thousand_ephemeral_ones_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squall.server.dispatch.asset.assets.EPHEMERAL_MAX", 2)
    async with staged() as stage:
        first = await create(stage.client, creation(""))
        await create(stage.client, creation(""))

        assert (await failure_of(create(stage.client, creation("")))).code == "exhausted"
        await stage.client.ask("AssetDelete", AssetDelete(DICT, first.asset_id), Empty)
        await create(stage.client, creation(""))


async def test_over_plain_http_an_asset_has_a_name() -> None:
    async with staged() as stage:
        refused = await failure_of(stage.plane.answer("AssetCreate", creation("")))

        assert refused.code == "invalid"
        assert "give it a name" in refused.message
