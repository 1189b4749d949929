"""One suite for every store: what is in queues."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from squall.protocol import queue as wire
from squall.protocol.asset import QUEUE
from squall.protocol.errors import CONFLICT, PlatformError
from squall.server.model.asset import StoredAsset
from squall.server.model.queue import PartitionKey, QueueCounts, QueueTaking, QueueWrite
from squall.server.model.store import Store
from squall.server.store import memory_queues, sql_queues

HERE = PartitionKey("qu-1", b"")
_numbers = itertools.count()


@pytest.fixture
async def store(store: Store) -> Store:
    """A store with two empty queues."""
    for number in (1, 2):
        await store.assets.put(StoredAsset(f"qu-{number}", QUEUE, f"jobs-{number}", "", float(number)))
    return store


async def put(
    store: Store,
    *values: bytes,
    place: PartitionKey = HERE,
    request_id: str = "",
    now: float = 1.0,
    ttl_s: float = 10.0,
) -> bool:
    request_id = request_id or f"rq-put-{next(_numbers)}"
    return await store.queues.put(QueueWrite(place, request_id, values, now, now + ttl_s))


def taking(count: int = 1, request_id: str = "", *, place: PartitionKey = HERE, now: float = 2.0) -> QueueTaking:
    return QueueTaking(place, request_id or f"rq-get-{next(_numbers)}", count, now)


async def take(store: Store, count: int = 1, request_id: str = "", **given: object) -> list[bytes]:
    return list(await store.queues.take(taking(count, request_id, **given)))  # type: ignore[arg-type]


async def count(store: Store, partition: bytes | None = b"", now: float = 2.0) -> int:
    return (await store.queues.count("qu-1", partition, now)).item_count


async def test_items_come_out_in_the_order_they_went_in(store: Store) -> None:
    assert await put(store, b"a", b"", b"c")
    assert await put(store, b"d")

    assert await take(store) == [b"a"]
    assert await take(store, 2) == [b"", b"c"]
    assert await take(store, 9) == [b"d"]
    assert await take(store) == []


async def test_partitions_and_queues_are_apart(store: Store) -> None:
    other, elsewhere = PartitionKey("qu-1", b"\xc3\xa4\0"), PartitionKey("qu-2", b"")
    await put(store, b"a", b"b")
    await put(store, b"c", place=other)
    await put(store, b"d", place=elsewhere)

    assert await store.queues.count("qu-1", None, 2.0) == QueueCounts(3, 3, 2)
    assert await store.queues.count("qu-1", other.partition, 2.0) == QueueCounts(1, 1, 1)
    of_both = {"qu-1": QueueCounts(3, 3, 2), "qu-2": QueueCounts(1, 1, 1)}
    assert await store.queues.totals(("qu-1", "qu-2", "qu-none"), 2.0) == of_both
    assert await store.queues.totals(("qu-2",), 2.0) == {"qu-2": QueueCounts(1, 1, 1)}
    assert await take(store, 9, place=other) == [b"c"]
    assert await take(store, 9) == [b"a", b"b"]
    assert await take(store, 9, place=elsewhere) == [b"d"]
    assert await store.queues.count("qu-1", None, 2.0) == QueueCounts(0, 0, 2)


async def test_of_many_who_take_at_once_each_gets_another_item(store: Store) -> None:
    values = [b"%03d" % number for number in range(100)]
    await asyncio.gather(*(put(store, value) for value in values))

    taken = await asyncio.gather(*(take(store, 3) for _ in range(40)))

    assert [value for some in taken for value in some] == values


async def test_a_request_that_comes_again_puts_nothing_more_and_takes_the_same(store: Store) -> None:
    assert await put(store, b"a", b"b", request_id="rq-1")
    assert await take(store, 1, "rq-2") == [b"a"]

    assert await put(store, b"a", b"b", request_id="rq-1")
    assert await take(store, 1, "rq-2") == [b"a"]

    assert await take(store, 9) == [b"b"]
    assert await put(store, b"a", b"b", request_id="rq-1")
    assert await count(store) == 0


async def test_a_request_that_was_for_something_else_takes_nothing(store: Store) -> None:
    assert await put(store, b"a", request_id="rq-1")

    with pytest.raises(PlatformError, match="was for something else") as refused:
        await take(store, 1, "rq-1")

    assert refused.value.code == CONFLICT
    assert await take(store, 1, "rq-2") == [b"a"]


async def test_what_is_done_is_forgotten(store: Store) -> None:
    await put(store, b"a", b"b", b"c", request_id="rq-1")
    assert await take(store, 1, "rq-2") == [b"a"]
    done = QueueTaking(HERE, "rq-3", 1, 2.0, done=("rq-1", "rq-2", "rq-missing"))

    assert await store.queues.take(done) == (b"b",)

    assert await take(store, 1, "rq-2") == [b"c"]
    assert await store.queues.give_back("qu-1", "rq-3") == b""


async def test_what_is_given_back_is_where_it_was(store: Store) -> None:
    await put(store, b"a", b"b", b"c")
    assert await take(store, 2, "rq-1") == [b"a", b"b"]
    assert await take(store, 1, "rq-2") == [b"c"]

    assert await store.queues.give_back("qu-1", "rq-1") == b""
    assert await store.queues.give_back("qu-1", "rq-1") is None
    assert await store.queues.give_back("qu-2", "rq-2") is None

    assert await count(store) == 2
    assert await take(store, 9, "rq-1") == [b"a", b"b"]


async def test_a_full_partition_takes_nothing_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory_queues, sql_queues):
        monkeypatch.setattr(module, "PARTITION_ITEMS_MAX", 4)
        monkeypatch.setattr(module, "PARTITION_BYTES_MAX", 10)

    assert await put(store, b"a", b"b", b"c")
    assert not await put(store, b"d", b"e")
    assert await put(store, b"d")
    assert not await put(store, b"e", request_id="rq-1")
    assert await put(store, b"e", place=PartitionKey("qu-1", b"other"))
    assert await take(store, 2) == [b"a", b"b"]
    assert not await put(store, b"x" * 9)
    assert await put(store, b"x" * 8, request_id="rq-1")
    assert await count(store) == 3


async def test_a_queue_has_no_more_partitions_than_it_may(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (memory_queues, sql_queues):
        monkeypatch.setattr(module, "PARTITIONS_MAX", 2)
    for key in (b"1", b"2"):
        await put(store, b"a", place=PartitionKey("qu-1", key), ttl_s=5.0)

    with pytest.raises(PlatformError) as refused:
        await put(store, b"a", place=PartitionKey("qu-1", b"3"))
    assert refused.value.code == "exhausted"
    assert await put(store, b"b", place=PartitionKey("qu-1", b"1"), ttl_s=100.0)
    assert await put(store, b"b", place=PartitionKey("qu-2", b"3"))
    assert await store.queues.expire(7.0, 10) == 1
    assert await put(store, b"a", place=PartitionKey("qu-1", b"3"))


async def test_a_partition_is_gone_its_time_after_the_last_put(store: Store) -> None:
    await put(store, b"a", now=1.0, ttl_s=10.0)
    await put(store, b"b", now=5.0, ttl_s=10.0)

    assert await count(store, now=14.9) == 2
    for now in (15.0, 1e9):
        assert await count(store, now=now) == await count(store, None, now=now) == 0
        assert await take(store, now=now) == []
        assert await store.queues.read(HERE, -1, 10, 100, now) == ()
    await put(store, b"c", now=20.0, ttl_s=10.0)
    assert await take(store, 9, now=21.0) == [b"c"]


async def test_old_partitions_are_forgotten_some_at_a_time(store: Store) -> None:
    for number in range(5):
        await put(store, b"a", place=PartitionKey("qu-1", b"%d" % number), ttl_s=1.0 + number)
    await take(store, 1, "rq-1", place=PartitionKey("qu-1", b"0"), now=1.5)

    assert [await store.queues.expire(5.5, 3), await store.queues.expire(5.5, 3)] == [3, 1]

    assert await store.queues.count("qu-1", None, 5.5) == QueueCounts(1, 1, 1)
    assert await store.queues.give_back("qu-1", "rq-1") is None


async def test_items_are_read_where_they_are_and_further_ones_after_them(store: Store) -> None:
    await put(store, *(b"%d" % number * 10 for number in range(6)))

    first = await store.queues.read(HERE, -1, 2, 1_000, 2.0)
    second = await store.queues.read(HERE, first[-1][0], 100, 25, 2.0)
    assert [value[:1] for _, value in (*first, *second)] == [b"0", b"1", b"2", b"3"]
    await take(store, 5)
    await put(store, b"6")
    rest = await store.queues.read(HERE, second[-1][0], 100, 1, 2.0)
    rest += await store.queues.read(HERE, rest[-1][0], 100, 1, 2.0)

    assert [value[:1] for _, value in rest] == [b"5", b"6"]
    assert await store.queues.read(HERE, rest[-1][0], 100, 1_000, 2.0) == ()


async def test_who_reads_finds_what_comes_after_a_partition_was_forgotten(store: Store) -> None:
    await put(store, b"a", now=1.0)
    ((number, _),) = await store.queues.read(HERE, -1, 10, 100, 2.0)
    await store.queues.expire(20.0, 10)

    await put(store, b"b", now=21.0)

    assert [value for _, value in await store.queues.read(HERE, number, 10, 100, 22.0)] == [b"b"]


async def test_clearing_takes_out_a_partition_or_all_once(store: Store) -> None:
    other = PartitionKey("qu-1", b"other")
    for place in (HERE, other):
        await put(store, b"a", place=place)

    await store.queues.clear("qu-1", b"", "rq-1", 1.0)
    assert [await count(store), await count(store, b"other")] == [0, 1]
    await put(store, b"b")
    await store.queues.clear("qu-1", b"", "rq-1", 1.0)
    assert await count(store) == 1
    await store.queues.clear("qu-1", None, "rq-2", 1.0)

    assert await count(store, None) == 0
    await put(store, b"c")
    assert await take(store, 9) == [b"c"]


async def test_what_was_cleared_out_goes_some_at_a_time_and_nothing_that_came_since(store: Store) -> None:
    other = PartitionKey("qu-1", b"other")
    for place in (HERE, other):
        await put(store, b"a", b"b", b"c", place=place)
    assert await take(store, 1, "rq-taken") == [b"a"]
    await store.queues.clear("qu-1", None, "rq-clear", 1.0)
    await put(store, b"next")

    async def check() -> None:
        assert await store.queues.count("qu-1", None, 2.0) == QueueCounts(1, 4, 1)
        assert await store.queues.totals(["qu-1", "qu-2"], 2.0) == {"qu-1": QueueCounts(1, 4, 1)}
        assert [value for _, value in await store.queues.read(HERE, -1, 9, 100, 2.0)] == [b"next"]
        assert await store.queues.read(other, -1, 9, 100, 2.0) == ()
        assert await take(store, 1, "rq-taken") == [b"a"]

    await check()
    while await store.assets.purge(2):
        await check()
    await store.queues.clear("qu-1", None, "rq-clear", 1.0)
    await check()
    await store.queues.clear("qu-1", b"", "rq-one", 1.0)
    assert await take(store, 9) == []


async def test_items_are_taken_within_a_size_but_one_at_least(store: Store) -> None:
    for _ in range(3):
        await put(store, b"x" * 100)

    assert len(await store.queues.take(QueueTaking(HERE, "rq-1", 10, 2.0, bytes_max=250))) == 2
    assert len(await store.queues.take(QueueTaking(HERE, "rq-2", 10, 2.0, bytes_max=50))) == 1


async def test_nothing_is_put_into_a_queue_that_is_deleted_and_nothing_is_left(store: Store) -> None:
    await put(store, b"a", b"b", b"c")
    await take(store, 1, "rq-1")
    await put(store, b"a", place=PartitionKey("qu-2", b""))
    _, *refused = await asyncio.gather(
        store.assets.delete(frozenset(["qu-1"])),
        put(store, b"d"),
        take(store),
        store.queues.clear("qu-1", None, "rq-2", 1.0),
        return_exceptions=True,
    )

    while await store.assets.purge(2):
        pass

    assert [one.code for one in refused if isinstance(one, PlatformError)] == ["not_found"] * 3
    assert await store.queues.count("qu-1", None, 2.0) == QueueCounts()
    assert await store.queues.count("qu-2", None, 2.0) == QueueCounts(1, 1, 1)


def test_sizes_that_are_not_those_of_a_body_are_refused() -> None:
    assert wire.unpack(*wire.pack([b"a", b"", b"bc"])) == [b"a", b"", b"bc"]
    for sizes in ((1,), (4, -1), (1, 1, 1, 1)):
        with pytest.raises(ValueError, match="do not add up"):
            wire.unpack(sizes, b"abc")
