"""Dicts: what their users see, what they may do, and how long entries are kept."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from squall.protocol.asset import DICT, AssetCreate, AssetDelete, AssetInfo
from squall.protocol.dict import (
    DictClear,
    DictContained,
    DictContains,
    DictCount,
    DictCountGet,
    DictEntries,
    DictGet,
    DictPage,
    DictPop,
    DictPut,
    DictPutDone,
    DictRead,
    DictValue,
    Entry,
    pack,
    unpack,
)
from squall.protocol.empty import Empty
from squall.protocol.environment import EnvironmentCreate, EnvironmentDelete, EnvironmentDeleted, EnvironmentInfo
from squall.protocol.errors import PlatformError
from squall.protocol.ids import new_id
from squall.server.dispatch.asset.dicts import KEPT_S, WAITED_S
from squall.server.model.dict import DictWrite, EntryKey, StoredEntry, hash_of
from tests.server.dispatch.client.test_callers import container_of
from tests.server.doubles import FakeClient, Stage, settle, staged

DAY_S = 24 * 3_600.0


class Cache:
    """A dict, used by one client."""

    def __init__(self, client: FakeClient, dict_id: str) -> None:
        self.client = client
        self.dict_id = dict_id

    async def ask(self, method: str, record: Any, reply: type[Any], body: bytes = b"") -> tuple[Any, bytes]:
        assert self.client.peer is not None
        return await self.client.peer.request_with_body(method, record, reply, body)

    async def put(self, *entries: Entry, request_id: str = "", skip: bool = False) -> bool:
        packed, body = pack(entries)
        record = DictPut(self.dict_id, request_id or new_id("rq"), packed, skip)
        done: DictPutDone = (await self.ask("DictPut", record, DictPutDone, body))[0]
        return done.is_put

    async def set(self, key: bytes, value: bytes, **given: Any) -> bool:
        return await self.put((key, value, ""), **given)

    async def get(self, key: bytes) -> bytes | None:
        record, body = await self.ask("DictGet", DictGet(self.dict_id), DictValue, key)
        return body if record.is_there else None

    async def pop(self, key: bytes, request_id: str = "", done: tuple[str, ...] = ()) -> bytes | None:
        asked = DictPop(self.dict_id, request_id or new_id("rq"), done)
        record, body = await self.ask("DictPop", asked, DictValue, key)
        return body if record.is_there else None

    async def contains(self, key: bytes) -> bool:
        record, _ = await self.ask("DictContains", DictContains(self.dict_id), DictContained, key)
        return bool(record.is_there)

    async def clear(self, request_id: str = "") -> None:
        await self.ask("DictClear", DictClear(self.dict_id, request_id or new_id("rq")), Empty)

    async def count(self) -> int:
        record, _ = await self.ask("DictCountGet", DictCountGet(self.dict_id), DictCount)
        return int(record.count)

    async def read(self, after: str = "", limit: int = 1_000, **given: Any) -> tuple[list[Entry], str]:
        record, body = await self.ask("DictRead", DictRead(self.dict_id, after, limit, **given), DictPage)
        return unpack(record.entries, body), record.after


async def cache_of(client: FakeClient, name: str = "cache", environment: str = "") -> Cache:
    record = AssetCreate(new_id("di"), DICT, name, environment, may_exist=True)
    info: AssetInfo = await client.ask("AssetCreate", record, AssetInfo)
    return Cache(client, info.asset_id)


@asynccontextmanager
async def cached() -> AsyncIterator[tuple[Stage, Cache]]:
    async with staged() as stage:
        yield stage, await cache_of(stage.client)


async def failure_of(awaitable: Any) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await awaitable
    return caught.value


async def test_what_is_put_is_found_by_everybody_at_once() -> None:
    async with cached() as (stage, cache):
        other = Cache(await FakeClient(stage.plane, stage.codec).connect(), cache.dict_id)

        assert await cache.set(b"k", b"v")
        assert (await other.get(b"k"), await other.contains(b"k"), await other.count()) == (b"v", True, 1)
        await other.put((b"k", b"new", ""), (b"l", b"", ""))
        assert (await cache.get(b"k"), await cache.get(b"l"), await cache.count()) == (b"new", b"", 2)
        assert (await cache.get(b"m"), await cache.contains(b"m")) == (None, False)


async def test_a_lock_is_got_once_and_free_when_it_is_taken_out() -> None:
    async with cached() as (_, cache):
        assert await cache.set(b"lock", b"a", skip=True)
        assert not await cache.set(b"lock", b"b", skip=True)
        assert await cache.get(b"lock") == b"a"
        assert await cache.pop(b"lock") == b"a"
        assert await cache.get(b"lock") is None
        assert await cache.set(b"lock", b"b", skip=True)
        assert await cache.get(b"lock") == b"b"


async def test_who_asks_again_hears_the_same_also_of_the_next_server() -> None:
    async with cached() as (stage, cache):
        ids = [new_id("rq") for _ in range(4)]
        assert await cache.set(b"lock", b"a", skip=True, request_id=ids[0])
        await cache.set(b"k", b"v")
        assert await cache.pop(b"k", ids[1]) == b"v"
        await cache.clear(ids[2])
        assert await cache.set(b"lock", b"a", skip=True, request_id=ids[3])

        await stage.restart()
        await stage.client.connect()

        assert await cache.set(b"lock", b"a", skip=True, request_id=ids[3])
        assert not await cache.set(b"lock", b"a", skip=True, request_id=ids[0])
        assert await cache.pop(b"k", ids[1]) == b"v"
        await cache.clear(ids[2])
        assert await cache.get(b"lock") == b"a"


async def test_a_client_that_is_cut_off_leaves_nothing_wrong_in_memory() -> None:
    async with cached() as (stage, cache):
        await cache.set(b"k", b"old")
        assert await cache.get(b"k") == b"old"
        going = FakeClient(stage.plane, stage.codec)
        await going.connect()
        put = asyncio.ensure_future(Cache(going, cache.dict_id).set(b"k", b"new"))
        await asyncio.sleep(0)
        going.disconnect()
        await asyncio.gather(put, return_exceptions=True)
        await settle()

        stored = await stage.store.dicts.get(EntryKey(cache.dict_id, hash_of(b"k")))
        assert stored is not None
        assert await cache.get(b"k") == stored.value


async def test_a_read_that_was_under_way_when_another_wrote_is_not_remembered() -> None:
    async with cached() as (stage, cache):
        await cache.set(b"k", b"old")
        stage.plane.dicts.cache.unknown(EntryKey(cache.dict_id, hash_of(b"k")))
        read, go_on = stage.store.dicts.get, asyncio.Event()

        async def slow(key: EntryKey) -> StoredEntry | None:
            found = await read(key)
            await go_on.wait()
            return found

        stage.store.dicts.get = slow  # type: ignore[method-assign]
        reading = asyncio.ensure_future(cache.get(b"k"))
        await settle()
        await cache.set(b"k", b"new")
        go_on.set()

        assert await reading == b"old"
        assert await cache.get(b"k") == b"new"


async def test_entries_are_read_page_by_page() -> None:
    async with cached() as (_, cache):
        await cache.put(*((b"%d" % number, b"x" * number, "") for number in range(7)))

        first, after = await cache.read(limit=4)
        rest, end = await cache.read(after)
        keys, _ = await cache.read(has_values=False)

        assert sorted([*first, *rest]) == [(b"%d" % number, b"x" * number, "") for number in range(7)]
        assert await cache.read(end) == ([], "")
        assert sorted(keys) == [(b"%d" % number, b"", "") for number in range(7)]


async def test_a_cleared_dict_is_empty_in_memory_too() -> None:
    async with cached() as (_, cache):
        await cache.set(b"k", b"v")
        assert await cache.get(b"k") == b"v"

        await cache.clear()

        assert (await cache.get(b"k"), await cache.count()) == (None, 0)
        await cache.set(b"k", b"next")
        assert await cache.get(b"k") == b"next"


async def test_what_was_cleared_out_is_purged_at_once_and_not_after_the_next_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with cached() as (stage, cache):
        purged = asyncio.Event()

        async def purge(limit: int) -> bool:
            purged.set()
            return False

        await stage.pass_time(0.2)
        monkeypatch.setattr(stage.store.assets, "purge", purge)
        await cache.clear()

        await asyncio.wait_for(purged.wait(), 10)


async def test_nothing_is_found_in_a_deleted_dict_or_environment() -> None:
    async with cached() as (stage, cache):
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)
        there = await cache_of(stage.client, environment="dev")
        for one in (cache, there):
            await one.set(b"k", b"v")
            await one.get(b"k")

        await stage.client.ask("AssetDelete", AssetDelete(DICT, "cache"), Empty)
        await stage.client.ask("EnvironmentDelete", EnvironmentDelete("dev"), EnvironmentDeleted)

        for one in (cache, there):
            for attempt in (one.get(b"k"), one.set(b"k", b"v"), one.pop(b"k"), one.count(), one.read(), one.clear()):
                assert (await failure_of(attempt)).code == "not_found"
        await settle()
        assert await stage.store.dicts.count(cache.dict_id, 10) == 0


async def test_a_container_uses_dicts_of_its_environment_only() -> None:
    async with cached() as (stage, cache):
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)
        there = await cache_of(stage.client, environment="dev")
        inside = await container_of(stage, await stage.client.function(min_containers=1))

        assert await Cache(inside, cache.dict_id).set(b"k", b"v")
        assert await cache.get(b"k") == b"v"
        refused = Cache(inside, there.dict_id)
        for attempt in (refused.get(b"k"), refused.set(b"k", b"v"), refused.pop(b"k"), refused.read(), refused.clear()):
            assert (await failure_of(attempt)).code == "forbidden"


async def test_large_values_are_named_and_must_be_there() -> None:
    async with cached() as (stage, cache):
        value = b"large"
        sha256 = hashlib.sha256(value).hexdigest()

        assert (await failure_of(cache.put((b"k", b"", sha256)))).code == "conflict"
        await stage.blobs.put_chunk(sha256, len(value), 0, value)
        await cache.put((b"k", b"", sha256))

        record, body = await cache.ask("DictGet", DictGet(cache.dict_id), DictValue, b"k")
        assert (record, body) == (DictValue(True, sha256), b"")
        assert sha256 in await stage.store.live_blobs()


@pytest.mark.parametrize(
    ("entries", "body"),
    [
        (DictEntries((), ()), b""),
        (DictEntries((1,), ()), b"k"),
        (DictEntries((2, -1), (0, 0)), b"k"),
        (DictEntries((1,), (2,)), b"kv"),
        (DictEntries((2**16 + 1,), (0,)), b"k" * (2**16 + 1)),
        (DictEntries((1,), (2**20 + 1,)), b"k" * (2**20 + 2)),
        (DictEntries((1,), (1,), {"0": "ab"}), b"kv"),
        (DictEntries((0,) * 10_001, (0,) * 10_001), b""),
    ],
)
async def test_what_is_no_set_of_entries_is_refused(entries: DictEntries, body: bytes) -> None:
    async with cached() as (_, cache):
        record = DictPut(cache.dict_id, new_id("rq"), entries)

        assert (await failure_of(cache.ask("DictPut", record, DictPutDone, body))).code == "invalid"


async def test_what_cannot_be_asked_is_refused() -> None:
    async with cached() as (_, cache):
        two = ((b"k", b"", ""), (b"l", b"", ""))
        for attempt in (
            cache.put(*two, skip=True),
            cache.set(b"k", b"v", request_id="rq-'"),
            cache.pop(b"k", "fc-00000000"),
            cache.pop(b"k", done=("rq-1",) * 1_001),
            cache.clear("x" * 10_000),
            cache.get(b"k" * (2**16 + 1)),
            cache.read("xyz"),
            cache.read("ab" * 32 + "\n"),
            cache.read(limit=0),
            cache.read(limit=-5),
        ):
            assert (await failure_of(attempt)).code == "invalid"
        missing = Cache(cache.client, new_id("di"))
        assert (await failure_of(missing.get(b"k"))).code == "not_found"


# How long entries are kept


HOUR_S = 3_600.0


async def live(stage: Stage, hours: float) -> None:
    """Let hours pass for what looks at the clock now and then."""
    for _ in range(int(hours * 6)):
        stage.clock.advance(600.0)
        await settle()


async def put_then(stage: Stage, cache: Cache, key: bytes, used_at: float) -> None:
    """An entry that was used last at that time."""
    entry = StoredEntry(key, b"v", used_at=used_at)
    await stage.store.dicts.put(DictWrite(cache.dict_id, new_id("rq"), (entry,)))


@pytest.mark.long
async def test_entries_expire_a_week_after_they_were_used_last() -> None:
    async with cached() as (stage, cache):
        keys = (b"old", b"read", b"asked", b"written")
        for key in keys:
            await put_then(stage, cache, key, stage.clock.now() - KEPT_S + 2 * HOUR_S)
        await live(stage, 1.5)
        assert await cache.get(b"read") == b"v"
        assert await cache.contains(b"asked")
        await cache.set(b"written", b"w")

        await live(stage, 1)

        assert [await cache.get(key) for key in keys] == [None, b"v", b"v", b"w"]
        assert await cache.count() == 3


@pytest.mark.long
async def test_that_an_entry_is_read_often_is_noted_once_an_hour() -> None:
    async with cached() as (stage, cache):
        noted: list[int] = []
        use = stage.store.dicts.use

        async def counting(used: Any) -> None:
            noted.append(len(used))
            await use(used)

        stage.store.dicts.use = counting  # type: ignore[method-assign]
        await cache.set(b"k", b"v")
        for _ in range(6 * 4):
            stage.clock.advance(600.0)
            await cache.get(b"k")
            await settle()

        assert 2 <= len(noted) <= 4
        assert set(noted) == {1}


@pytest.mark.long
@pytest.mark.parametrize("jump_s", [400 * DAY_S, -400 * DAY_S])
async def test_a_clock_that_jumps_makes_nothing_expire(jump_s: float) -> None:
    async with cached() as (stage, cache):
        await cache.set(b"k", b"v")
        await live(stage, 1.5)

        stage.clock.set(jump_s)
        await live(stage, 1)

        assert await stage.store.dicts.count(cache.dict_id, 10) == 1
        stage.clock.set(-jump_s)
        await live(stage, 1)
        assert await cache.get(b"k") == b"v"


async def test_a_server_lets_nothing_expire_in_its_first_hour() -> None:
    async with cached() as (stage, cache):
        await put_then(stage, cache, b"k", stage.clock.now() - KEPT_S - 1)

        stage.clock.advance(WAITED_S - 61)
        await settle()
        assert await cache.count() == 1
        stage.clock.advance(120.0)
        await settle()

        assert await cache.count() == 0


async def test_answers_are_remembered_for_some_minutes() -> None:
    async with cached() as (stage, cache):
        request_id = new_id("rq")
        await cache.set(b"k", b"v")
        assert await cache.pop(b"k", request_id) == b"v"

        stage.clock.advance(300.0)
        await settle()
        assert await cache.pop(b"k", request_id) == b"v"
        stage.clock.advance(400.0)
        await settle()

        assert await cache.pop(b"k", request_id) is None
