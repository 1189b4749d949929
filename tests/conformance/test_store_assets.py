"""One suite for every store: which assets there are."""

from __future__ import annotations

import asyncio

import pytest

from squall.protocol.asset import DICT, QUEUE
from squall.protocol.errors import PlatformError
from squall.server.model.asset import StoredAsset
from squall.server.model.store import Store


def make_asset(number: int = 1, name: str = "cache", kind: str = DICT, environment: str = "") -> StoredAsset:
    return StoredAsset(f"di-{number}", kind, name, environment, float(number), "ann")


async def test_an_asset_is_found_by_id_and_by_kind_environment_and_name(store: Store) -> None:
    asset = make_asset()
    assert await store.assets.put(asset) == asset

    assert await store.assets.get("di-1") == asset
    assert await store.assets.find(DICT, "", "cache") == asset
    assert await store.assets.get("di-2") is None
    for kind, environment, name in ((QUEUE, "", "cache"), (DICT, "dev", "cache"), (DICT, "", "other")):
        assert await store.assets.find(kind, environment, name) is None


async def test_what_is_there_stays_as_it_is(store: Store) -> None:
    first = await store.assets.put(make_asset())

    assert await store.assets.put(make_asset(2)) == first
    assert await store.assets.put(make_asset(1, "other")) == first
    assert await store.assets.find(DICT, "", "other") is None
    for one in (make_asset(3, kind=QUEUE), make_asset(4, environment="dev")):
        assert await store.assets.put(one) == one


async def test_of_many_who_make_one_name_at_once_one_makes_it(store: Store) -> None:
    made = await asyncio.gather(*(store.assets.put(make_asset(number)) for number in range(50)))

    assert len({one.asset_id for one in made}) == 1
    assert await store.assets.names(DICT, "", 10) == ("cache",)


async def test_those_with_a_name_are_listed_newest_first_and_page_by_page(store: Store) -> None:
    for number in range(5):
        await store.assets.put(make_asset(number, f"cache-{number}"))
    await store.assets.put(StoredAsset("di-9", DICT, created_at=9.0, owner="/cl-1"))
    await store.assets.put(make_asset(7, "elsewhere", environment="dev"))

    first = await store.assets.list(DICT, "", 2)
    rest = await store.assets.list(DICT, "", 100, (first[-1].created_at, first[-1].asset_id))

    assert [one.name for one in (*first, *rest)] == [f"cache-{number}" for number in (4, 3, 2, 1, 0)]
    assert len(first) == 2


async def test_ephemeral_ones_have_an_owner_and_no_name(store: Store) -> None:
    owned = [StoredAsset(f"di-{number}", DICT, created_at=1.0, owner="/cl-1") for number in range(3)]
    for one in owned:
        assert await store.assets.put(one) == one
    await store.assets.put(make_asset(9))

    assert sorted(await store.assets.owned(), key=lambda one: one.asset_id) == owned
    assert await store.assets.delete_of("") == frozenset()
    assert await store.assets.delete_of("/cl-2") == frozenset()
    assert await store.assets.delete_of("/cl-1") == {one.asset_id for one in owned}
    assert await store.assets.owned() == ()
    assert await store.assets.get("di-9") is not None
    assert len(await store.assets.names(DICT, "", 10)) == 1


async def test_a_name_can_be_changed_for_one_that_nobody_has(store: Store) -> None:
    await store.assets.put(make_asset(1))
    await store.assets.put(make_asset(2, "taken"))

    assert (await store.assets.rename("di-1", "new")).name == "new"
    assert (await store.assets.rename("di-1", "new")).name == "new"
    with pytest.raises(PlatformError) as taken:
        await store.assets.rename("di-1", "taken")
    with pytest.raises(PlatformError) as missing:
        await store.assets.rename("di-3", "other")

    assert (taken.value.code, missing.value.code) == ("exists", "not_found")
    assert await store.assets.find(DICT, "", "cache") is None
    assert (await store.assets.get("di-1")) == make_asset(1, "new")


async def test_what_is_deleted_is_found_no_more_and_its_name_is_free(store: Store) -> None:
    await store.assets.put(make_asset(1))
    await store.assets.put(make_asset(2, "other"))

    await store.assets.delete(frozenset(["di-1", "di-8"]))
    await store.assets.delete(frozenset())

    assert await store.assets.get("di-1") is None
    assert await store.assets.names(DICT, "", 10) == ("other",)
    assert (await store.assets.put(make_asset(3))).asset_id == "di-3"


async def test_a_deleted_environment_takes_all_of_its_assets_along(store: Store) -> None:
    await store.assets.put(make_asset(1))
    await store.assets.put(make_asset(2, environment="dev"))
    await store.assets.put(make_asset(3, kind=QUEUE, environment="dev"))
    await store.assets.put(StoredAsset("di-4", DICT, environment="dev", owner="/cl-1"))

    assert await store.assets.delete_in("dev") == 2

    assert [await store.assets.get(f"di-{number}") is not None for number in (1, 2, 3, 4)] == [
        True,
        False,
        False,
        False,
    ]


async def test_garbage_is_purged_some_at_a_time_until_there_is_none(store: Store) -> None:
    for number in range(5):
        await store.assets.put(make_asset(number, f"cache-{number}"))
    await store.assets.delete(frozenset(f"di-{number}" for number in range(5)))

    rounds = 1
    while await store.assets.purge(2):
        rounds += 1

    assert rounds <= 4
    assert await store.assets.purge(2) is False
