"""A queue with as many partitions as it may have."""

from __future__ import annotations

import asyncio

import pytest

from squall.protocol.asset import QUEUE
from squall.protocol.errors import PlatformError
from squall.protocol.queue import PARTITIONS_MAX
from squall.server.model.asset import StoredAsset
from squall.server.model.queue import PartitionKey, QueueCounts
from squall.server.model.store import Store
from squall.server.store.memory import MemoryStore
from tests.conformance.test_store_queues import put, take

AT_ONCE = 500


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_queue_has_100_000_partitions_and_no_more(store: Store) -> None:
    if isinstance(store, MemoryStore):
        pytest.skip("in memory, for tests, it looks at all of them each time")
    await store.assets.put(StoredAsset("qu-1", QUEUE, "jobs", "", 1.0))

    async def put_one(number: int) -> None:
        assert await put(store, b"a", place=PartitionKey("qu-1", b"%d" % number))

    for first in range(0, PARTITIONS_MAX, AT_ONCE):
        await asyncio.gather(*map(put_one, range(first, first + AT_ONCE)))

    assert await store.queues.count("qu-1", None, 2.0) == QueueCounts(PARTITIONS_MAX, PARTITIONS_MAX, PARTITIONS_MAX)
    with pytest.raises(PlatformError) as refused:
        await put(store, b"a", place=PartitionKey("qu-1", b"one too many"))
    assert refused.value.code == "exhausted"
    assert await take(store, 9, place=PartitionKey("qu-1", b"%d" % (PARTITIONS_MAX - 1))) == [b"a"]
