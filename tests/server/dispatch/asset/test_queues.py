"""Queues: what their users see, who waits and is woken, and what becomes of those who are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from squall.protocol.asset import QUEUE, AssetCreate, AssetDelete, AssetInfo
from squall.protocol.empty import Empty
from squall.protocol.environment import EnvironmentCreate, EnvironmentInfo
from squall.protocol.errors import PlatformError
from squall.protocol.ids import new_id
from squall.protocol.queue import (
    PARTITION_ITEMS_MAX,
    QueueClear,
    QueueCount,
    QueueCountGet,
    QueueGet,
    QueueGiveBack,
    QueueItems,
    QueuePage,
    QueuePut,
    QueuePutDone,
    QueueRead,
    QueueTotals,
    QueueTotalsGet,
    pack,
    unpack,
)
from squall.server.dispatch.asset.queues import UNHEARD_S
from squall.server.model.queue import QueueTaking
from tests.server.dispatch.client.test_callers import container_of
from tests.server.doubles import FakeClient, Stage, settle, staged


class Jobs:
    """A queue, used by one client."""

    def __init__(self, client: FakeClient, queue_id: str) -> None:
        self.client = client
        self.queue_id = queue_id

    async def ask(self, method: str, record: Any, reply: type[Any], body: bytes = b"") -> tuple[Any, bytes]:
        assert self.client.peer is not None
        return await self.client.peer.request_with_body(method, record, reply, body, timeout_s=None)

    async def put(self, *values: bytes, request_id: str = "", **given: Any) -> bool:
        sizes, body = pack(values)
        record = QueuePut(self.queue_id, request_id or new_id("rq"), sizes, **given)
        return bool((await self.ask("QueuePut", record, QueuePutDone, body))[0].is_put)

    async def get(self, count: int = 1, request_id: str = "", **given: Any) -> list[bytes]:
        record = QueueGet(self.queue_id, request_id or new_id("rq"), count=count, **given)
        items, body = await self.ask("QueueGet", record, QueueItems)
        return unpack(items.sizes, body)

    async def give_back(self, request_id: str) -> None:
        await self.ask("QueueGiveBack", QueueGiveBack(self.queue_id, request_id), Empty)

    async def read(self, after: int = -1, **given: Any) -> tuple[list[bytes], int]:
        page, body = await self.ask("QueueRead", QueueRead(self.queue_id, after=after, **given), QueuePage)
        return unpack(page.sizes, body), page.after

    async def count(self, **given: Any) -> int:
        return int((await self.ask("QueueCountGet", QueueCountGet(self.queue_id, **given), QueueCount))[0].item_count)

    async def clear(self, **given: Any) -> None:
        await self.ask("QueueClear", QueueClear(self.queue_id, new_id("rq"), **given), Empty)


async def jobs_of(client: FakeClient, name: str = "jobs", environment: str = "") -> Jobs:
    info: AssetInfo = await client.ask("AssetCreate", AssetCreate(new_id("qu"), QUEUE, name, environment), AssetInfo)
    return Jobs(client, info.asset_id)


@asynccontextmanager
async def queued() -> AsyncIterator[tuple[Stage, Jobs]]:
    async with staged() as stage:
        yield stage, await jobs_of(stage.client)
        assert not stage.plane.queues._spots


async def other(stage: Stage, jobs: Jobs) -> Jobs:
    return Jobs(await FakeClient(stage.plane, stage.codec).connect(), jobs.queue_id)


async def waiting(*asked: Any) -> list[asyncio.Future[Any]]:
    """Questions that wait in this order."""
    futures = []
    for one in asked:
        futures.append(asyncio.ensure_future(one))
        await settle()
    return futures


async def failure_of(awaitable: Any) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        await awaitable
    return caught.value


async def test_items_come_out_in_the_order_they_went_in() -> None:
    async with queued() as (stage, jobs):
        there = await other(stage, jobs)

        assert await jobs.put(b"a", b"b")
        assert await there.put(b"c", partition="p")
        assert [await jobs.count(), await jobs.count(partition="p"), await jobs.count(is_total=True)] == [2, 1, 3]
        assert await there.get(5) == [b"a", b"b"]
        assert await jobs.get() == []
        assert await jobs.get(partition="p") == [b"c"]


async def test_who_waits_is_woken_by_a_put_first_come_first_served() -> None:
    async with queued() as (stage, jobs):
        there = await other(stage, jobs)
        first, second, third = await waiting(*(jobs.get(timeout_s=30.0) for _ in range(3)))
        assert await there.get() == []

        await there.put(b"a")
        await settle()
        assert (first.done(), second.done()) == (True, False)
        await there.put(b"b", b"c", b"d")

        assert [await first, await second, await third] == [[b"a"], [b"b"], [b"c"]]
        assert await there.get() == [b"d"]


async def test_who_waits_in_vain_gets_nothing_when_his_time_is_over() -> None:
    async with queued() as (stage, jobs):
        (get,) = await waiting(jobs.get(timeout_s=5.0))
        (long,) = await waiting(jobs.get(timeout_s=1e9))

        await stage.pass_time(5.1)
        assert await get == []
        assert not long.done()
        await stage.pass_time(60.0, 1.0)
        assert await long == []
        assert await jobs.put(b"a")
        assert await jobs.count() == 1


async def test_who_is_gone_takes_nothing() -> None:
    async with queued() as (stage, jobs):
        going, there = await other(stage, jobs), await other(stage, jobs)
        lost, get = await waiting(going.get(timeout_s=30.0), there.get(timeout_s=30.0))

        going.client.disconnect()
        await settle()
        await jobs.put(b"a")

        assert await get == [b"a"]
        with pytest.raises(PlatformError):
            await lost


def slow_takes(stage: Stage) -> Callable[[], None]:
    """From now on the store answers takings when this is called."""
    take, go_on = stage.store.queues.take, asyncio.Event()

    async def slow(taking: QueueTaking) -> tuple[bytes, ...]:
        taken = await take(taking)
        await go_on.wait()
        return taken

    stage.store.queues.take = slow  # type: ignore[method-assign]
    return go_on.set


async def test_what_was_taken_for_one_who_is_gone_is_his_when_he_comes_back() -> None:
    async with queued() as (stage, jobs):
        going = await other(stage, jobs)
        await jobs.put(b"a", b"b")
        go_on, request_id = slow_takes(stage), new_id("rq")
        (lost,) = await waiting(going.get(request_id=request_id))
        going.client.disconnect()
        await settle()
        go_on()
        await asyncio.gather(lost, return_exceptions=True)

        await stage.pass_time(UNHEARD_S / 2, 10.0)
        assert await jobs.get() == [b"b"]
        await going.client.connect()
        assert await going.get(request_id=request_id) == [b"a"]
        await stage.pass_time(UNHEARD_S + 1, 10.0)
        assert await jobs.get(9) == []


async def test_what_was_taken_for_one_who_stays_away_is_put_back() -> None:
    async with queued() as (stage, jobs):
        going = await other(stage, jobs)
        await jobs.put(b"a", b"b")
        go_on = slow_takes(stage)
        (lost,) = await waiting(going.get(timeout_s=10.0))
        going.client.disconnect()
        await settle()
        go_on()
        await asyncio.gather(lost, return_exceptions=True)
        assert await jobs.count() == 1

        await stage.pass_time(UNHEARD_S + 1, 10.0)

        assert await jobs.get(9) == [b"a", b"b"]


async def test_what_is_given_back_goes_to_who_waits() -> None:
    async with queued() as (stage, jobs):
        request_id, there = new_id("rq"), await other(stage, jobs)
        await jobs.put(b"a")
        assert await jobs.get(request_id=request_id) == [b"a"]
        (get,) = await waiting(there.get(timeout_s=30.0))

        await jobs.give_back(request_id)
        await jobs.give_back(request_id)

        assert await get == [b"a"]


async def test_who_asks_again_gets_the_same_also_of_the_next_server() -> None:
    async with queued() as (stage, jobs):
        put_id, get_id = new_id("rq"), new_id("rq")
        await jobs.put(b"a", b"b", request_id=put_id)
        assert await jobs.get(request_id=get_id) == [b"a"]

        await stage.restart()
        await stage.client.connect()

        assert await jobs.put(b"a", b"b", request_id=put_id)
        assert await jobs.get(request_id=get_id) == [b"a"]
        assert await jobs.get(9, done=(put_id, get_id)) == [b"b"]


async def test_a_full_partition_lets_those_wait_who_put_and_wakes_them_in_order() -> None:
    async with queued() as (stage, jobs):
        there = await other(stage, jobs)
        for _ in range(PARTITION_ITEMS_MAX // 1_000):
            assert await jobs.put(*[b"x"] * 1_000)
        assert not await jobs.put(b"y")
        first, second = await waiting(jobs.put(b"1", b"2", timeout_s=30.0), jobs.put(b"3", timeout_s=30.0))

        await there.get(1)
        await settle()
        assert (first.done(), second.done()) == (False, False)
        assert not await there.put(b"z")
        await there.get(1)
        assert await first
        assert not second.done()
        await there.clear()

        assert await second
        assert await there.get(9) == [b"3"]


async def test_who_reads_leaves_items_there_and_is_woken_by_more() -> None:
    async with queued() as (stage, jobs):
        there = await other(stage, jobs)
        await jobs.put(b"a", b"b")

        found, after = await there.read()
        assert found == [b"a", b"b"]
        reads = await waiting(*(there.read(after, timeout_s=30.0) for _ in range(3)))
        await jobs.put(b"c")
        assert [(await read)[0] for read in reads] == [[b"c"]] * 3
        assert await jobs.count() == 3
        (late,) = await waiting(there.read(2**62, timeout_s=5.0))
        await stage.pass_time(5.1)
        assert await late == ([], 2**62)


async def test_a_deleted_queue_wakes_all_who_wait() -> None:
    async with queued() as (stage, jobs):
        asked = await waiting(jobs.get(timeout_s=30.0), jobs.get(timeout_s=30.0), jobs.read(timeout_s=30.0))

        await stage.client.ask("AssetDelete", AssetDelete(QUEUE, "jobs"), Empty)

        assert [(await failure_of(one)).code for one in asked] == ["not_found"] * 3
        for attempt in (jobs.get(), jobs.put(b"a"), jobs.read(), jobs.count(), jobs.clear()):
            assert (await failure_of(attempt)).code == "not_found"


async def test_a_partition_is_cleared_its_time_after_the_last_put() -> None:
    async with queued() as (stage, jobs):
        await jobs.put(b"a", partition_ttl_s=100)
        await jobs.put(b"b", partition="long")
        await stage.pass_time(90, 10)
        await jobs.put(b"c", partition_ttl_s=100)
        await stage.pass_time(90, 10)
        assert await jobs.count() == 2

        await stage.pass_time(100, 10)

        assert [await jobs.count(), await jobs.get(), await jobs.count(is_total=True)] == [0, [], 1]
        assert len(stage.store.queues._partitions) == 1  # type: ignore[attr-defined]


async def test_a_clock_that_jumps_clears_nothing() -> None:
    async with queued() as (stage, jobs):
        await jobs.put(b"a", partition_ttl_s=3_600)

        stage.clock.set(30 * 24 * 3_600.0)
        await stage.pass_time(600, 10)

        assert await jobs.get() == [b"a"]


async def test_a_container_uses_queues_of_its_environment_only() -> None:
    async with queued() as (stage, jobs):
        await stage.client.ask("EnvironmentCreate", EnvironmentCreate("dev"), EnvironmentInfo)
        there = await jobs_of(stage.client, environment="dev")
        inside = await container_of(stage, await stage.client.function(min_containers=1))

        assert await Jobs(inside, jobs.queue_id).put(b"a")
        assert await jobs.get() == [b"a"]
        refused = Jobs(inside, there.queue_id)
        asked = (refused.get(), refused.put(b"a"), refused.read(), refused.count(), refused.clear())
        for attempt in (*asked, refused.give_back(new_id("rq"))):
            assert (await failure_of(attempt)).code == "forbidden"


async def test_what_cannot_be_asked_is_refused() -> None:
    async with queued() as (_, jobs):
        sized = QueuePut(jobs.queue_id, new_id("rq"), (1, 1))
        for attempt in (
            jobs.put(),
            jobs.put(*[b""] * 1_001),
            jobs.put(b"x" * (2**20 + 1)),
            jobs.put(*[b"x" * 2**20] * 9),
            jobs.ask("QueuePut", sized, QueuePutDone, b"abc"),
            jobs.put(b"a", partition_ttl_s=0),
            jobs.put(b"a", partition_ttl_s=86_401),
            jobs.put(b"a", partition="ä" * 33),
            jobs.put(b"a", timeout_s=-1.0),
            jobs.put(b"a", request_id="rq"),
            jobs.get(0),
            jobs.get(-1),
            jobs.get(request_id="x" * 1_000),
            jobs.get(done=("rq-1",) * 1_001),
            jobs.read(limit=0),
            jobs.give_back(""),
        ):
            assert (await failure_of(attempt)).code == "invalid"
        assert await jobs.put(b"a", partition="ä" * 32)
        missing = Jobs(jobs.client, new_id("qu"))
        assert (await failure_of(missing.get())).code == "not_found"


async def test_totals_of_queues_are_for_who_lists_them() -> None:
    async with queued() as (stage, jobs):
        await jobs.put(b"a", b"bc")
        asked = QueueTotalsGet((new_id("qu"), jobs.queue_id))
        totals, _ = await jobs.ask("QueueTotalsGet", asked, QueueTotals)
        assert totals.counts == (QueueCount(0), QueueCount(2, 3, 1))
        too_many = QueueTotalsGet((jobs.queue_id,) * 1_001)
        assert (await failure_of(jobs.ask("QueueTotalsGet", too_many, QueueTotals))).code == "invalid"
        inside = await container_of(stage, await stage.client.function(min_containers=1))
        assert (await failure_of(Jobs(inside, jobs.queue_id).ask("QueueTotalsGet", asked, QueueTotals))).code == (
            "forbidden"
        )


async def test_a_thousand_who_wait_get_one_each() -> None:
    async with queued() as (stage, jobs):
        gets = [asyncio.ensure_future(jobs.get(timeout_s=50.0)) for _ in range(1_000)]
        await settle()
        there = await other(stage, jobs)

        for first in range(0, 1_000, 250):
            await there.put(*(b"%d" % number for number in range(first, first + 250)))

        assert [await get for get in gets] == [[b"%d" % number] for number in range(1_000)]
