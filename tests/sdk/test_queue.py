"""Queues as programs use them, with a real server."""

from __future__ import annotations

import asyncio
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import squall
from squall.exception import (
    AlreadyExistsError,
    DeserializationError,
    InvalidError,
    NotFoundError,
    RequestSizeError,
    SerializationError,
)
from squall.server.store import sql_queues
from squall.server.store.writes import GroupCommit
from squall.types import QueueInfo
from tests.sdk.real_server import RealServer


@pytest.fixture
def jobs(real_server: RealServer) -> squall.Queue:
    return squall.Queue.from_name("jobs", create_if_missing=True)


def waiting_count(server: RealServer) -> int:
    """How many wait at queues of the server."""
    spots = [spot for spots in server.plane.queues._spots.values() for spot in spots.values()]
    return sum(spot.user_count for spot in spots)


def wait_for_waiting(server: RealServer, count: int) -> None:
    until = time.monotonic() + 10
    while waiting_count(server) != count:
        assert time.monotonic() < until, f"{waiting_count(server)} wait"
        time.sleep(0.001)  # tidy: nothing says that another program has asked


def test_items_come_out_in_the_order_they_went_in(jobs: squall.Queue) -> None:
    jobs.put({"a": 1})
    jobs.put_many([1, None, "x"])

    assert jobs.len() == 4
    assert [jobs.get(), jobs.get()] == [{"a": 1}, 1]
    assert jobs.get_many(10) == [None, "x"]
    assert jobs.get(block=False) is None
    assert jobs.get_many(3, block=False) == []


def test_nothing_in_time_is_empty_and_no_room_in_time_is_full(jobs: squall.Queue) -> None:
    with pytest.raises(queue.Empty, match=r"no item came into queue jobs within 0.01 s"):
        jobs.get(timeout=0.01)
    with pytest.raises(queue.Empty, match=r"partition 'p' of queue jobs within 0 s"):
        jobs.get_many(2, timeout=0, partition="p")
    jobs.put_many(list(range(5_000)))
    with pytest.raises(queue.Full, match=r"queue jobs is full$"):
        jobs.put(1, block=False)
    with pytest.raises(queue.Full, match=r"queue jobs is full; 0 of 2 items were put"):
        jobs.put_many([1, 2], timeout=0.01)
    jobs.get()
    jobs.put(5_000, block=False)
    assert jobs.get_many(5_000) == list(range(1, 5_001))


def test_a_long_list_goes_in_pieces_as_room_comes(jobs: squall.Queue) -> None:
    with ThreadPoolExecutor(1) as threads:
        putting = threads.submit(jobs.put_many, list(range(12_000)))
        taken: list[int] = []
        while len(taken) < 12_000:
            taken += jobs.get_many(700)
        putting.result()

    assert taken == list(range(12_000))


def test_partitions_are_apart_and_cleared_apart(jobs: squall.Queue) -> None:
    jobs.put("none")
    jobs.put_many(["a", "b"], partition="ä")

    assert [jobs.len(), jobs.len(partition="ä"), jobs.len(total=True)] == [1, 2, 3]
    assert jobs.get(partition="ä") == "a"
    jobs.clear(partition="ä")
    assert [jobs.len(), jobs.len(partition="ä")] == [1, 0]
    jobs.put("c", partition="ä")
    jobs.clear(all=True)
    assert jobs.len(total=True) == 0


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda jobs: jobs.get(partition=""), "partition='' must be a string of 1 to 64 bytes"),
        (lambda jobs: jobs.put(1, partition="x" * 65), "must be a string of 1 to 64 bytes"),
        (lambda jobs: jobs.put(1, partition="\ud800"), "must be a string of 1 to 64 bytes"),
        (lambda jobs: jobs.put(1, partition=5), "must be a string of 1 to 64 bytes"),
        (
            lambda jobs: jobs.put(1, partition_ttl=0),
            "partition_ttl=0 must be a whole number of seconds from 1 to 86400",
        ),
        (lambda jobs: jobs.put(1, partition_ttl=86_401), "must be a whole number of seconds"),
        (lambda jobs: jobs.get(timeout=-1), "timeout=-1 must be a number of seconds from 0 up"),
        (lambda jobs: jobs.get(timeout=float("nan")), "must be a number of seconds"),
        (lambda jobs: jobs.get_many(0), "n_values=0 must be a number from 1 up"),
        (lambda jobs: jobs.len(partition="p", total=True), "leave partition= out"),
        (lambda jobs: jobs.clear(partition="p", all=True), "leave partition= out"),
        (lambda jobs: squall.Queue(), "use Queue.from_name"),
        (lambda jobs: list(jobs.iterate(item_poll_timeout=-1)), "must be a number of seconds"),
    ],
)
def test_what_cannot_be_meant_is_refused(jobs: squall.Queue, use: Any, words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        use(jobs)


def test_items_are_read_and_stay(jobs: squall.Queue) -> None:
    jobs.put_many(list(range(250)))

    assert list(jobs.iterate()) == list(range(250))
    assert jobs.len() == 250
    with pytest.raises(TypeError, match="iterate"):
        iter(jobs)


def test_who_iterates_waits_for_more(real_server: RealServer, jobs: squall.Queue) -> None:
    jobs.put(0)
    with ThreadPoolExecutor(1) as threads:
        iterated = iter(jobs.iterate(item_poll_timeout=30))
        assert next(iterated) == 0
        following = threads.submit(next, iterated)
        wait_for_waiting(real_server, 1)
        jobs.put(1)
        assert following.result(10) == 1
        iterated.close()  # type: ignore[attr-defined]


def test_a_waiting_get_is_woken_by_a_put_of_another_thread(real_server: RealServer, jobs: squall.Queue) -> None:
    with ThreadPoolExecutor(4) as threads:
        gets = []
        for number in range(4):
            gets.append(threads.submit(jobs.get))
            wait_for_waiting(real_server, number + 1)
        for number in range(4):
            jobs.put(number)
            assert gets[number].result(10) == number


def test_a_waiting_put_is_woken_by_a_get(real_server: RealServer, jobs: squall.Queue) -> None:
    jobs.put_many(list(range(5_000)))
    with ThreadPoolExecutor(1) as threads:
        putting = threads.submit(jobs.put, "last")
        wait_for_waiting(real_server, 1)
        assert jobs.get() == 0
        putting.result(10)

    assert jobs.get_many(5_000)[-1] == "last"


def test_an_item_and_who_waited_for_it_share_a_commit(
    real_server: RealServer, jobs: squall.Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[int] = []
    commit = GroupCommit._commit_together

    def counted(self: GroupCommit, writes: list[Any]) -> list[Any]:
        # What others have cleared or deleted is purged meanwhile.
        count = sum(write.apply.__module__ == sql_queues.__name__ for write in writes)
        if count:
            commits.append(count)
        return commit(self, writes)

    with ThreadPoolExecutor(1) as threads:
        get = threads.submit(jobs.get)
        wait_for_waiting(real_server, 1)
        jobs.len()
        monkeypatch.setattr(GroupCommit, "_commit_together", counted)
        jobs.put(1)
        assert get.result(10) == 1

    assert commits == [2]


def test_all_of_it_can_be_awaited(real_server: RealServer) -> None:
    async def use() -> None:
        async with squall.Queue.ephemeral() as jobs:
            got = asyncio.ensure_future(jobs.get.aio())
            await asyncio.sleep(0)
            await jobs.put.aio(1)
            assert await got == 1
            await jobs.put_many.aio([2, 3])
            assert [item async for item in jobs.iterate.aio()] == [2, 3]
            assert await jobs.len.aio() == 2
            assert await jobs.get_many.aio(5) == [2, 3]
            await jobs.clear.aio(all=True)
            assert (await jobs.info.aio()).name is None

    asyncio.run(use())


def test_a_get_that_is_given_up_takes_nothing(real_server: RealServer, jobs: squall.Queue) -> None:
    async def use() -> None:
        for number in range(20):
            get = asyncio.ensure_future(jobs.get.aio())
            await asyncio.sleep(0.001 * (number % 3))
            putting = asyncio.ensure_future(jobs.put.aio(number))
            await asyncio.sleep(0.0005 * (number % 5))
            get.cancel()
            await putting
            try:
                taken = await get
            except asyncio.CancelledError:
                taken = await asyncio.wait_for(jobs.get.aio(), 10)
            assert taken == number

    asyncio.run(use())
    assert jobs.len() == 0


def test_ctrl_c_ends_a_waiting_get_and_takes_nothing(real_server: RealServer, jobs: squall.Queue) -> None:
    jobs.len()
    program = "import squall; squall.Queue.from_name('jobs').get()"
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) as process:
        wait_for_waiting(real_server, 1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)

    assert "KeyboardInterrupt" in said
    wait_for_waiting(real_server, 0)
    jobs.put(1)
    assert jobs.len() == 1


@pytest.mark.long
def test_what_is_too_large_or_cannot_be_pickled_is_refused_and_nothing_is_put(jobs: squall.Queue) -> None:
    with pytest.raises(RequestSizeError, match=r"cannot put it into queue jobs: the item has 1.00 MiB, and 1 is the"):
        jobs.put_many([1, b"x" * 2**20])
    with pytest.raises(SerializationError, match="cannot put it into queue jobs: cannot pickle lock"):
        jobs.put_many([1, threading.Lock()])
    assert jobs.len() == 0
    jobs.put_many([b"x" * (2**20 - 100)] * 20)
    assert len(jobs.get_many(20)) + len(jobs.get_many(20)) == 20


class Vanishing:
    """A class that whoever reads does not have."""


def test_an_item_that_cannot_be_read_here_stays(jobs: squall.Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.put_many([1, Vanishing(), 2])
    kind = Vanishing
    monkeypatch.delattr(sys.modules[__name__], "Vanishing")

    for _ in range(2):
        with pytest.raises(DeserializationError, match="queue jobs, an item: cannot read a value"):
            jobs.get_many(3, block=False)
    monkeypatch.setattr(sys.modules[__name__], "Vanishing", kind, raising=False)

    first, second, third = jobs.get_many(3)
    assert (first, type(second), third) == (1, kind, 2)


def test_queues_are_made_listed_deleted_and_told_about(jobs: squall.Queue) -> None:
    squall.Queue.objects.create("one")
    squall.Queue.objects.create("one", allow_existing=True)
    jobs.put(1)

    with pytest.raises(AlreadyExistsError):
        squall.Queue.objects.create("one")
    assert [one.name for one in squall.Queue.objects.list()] == ["jobs", "one"]
    info = jobs.info()
    assert (type(info), info.name) == (QueueInfo, "jobs")
    assert squall.Queue.from_id(jobs.object_id).len() == 1
    assert pickle.loads(pickle.dumps(jobs)).get() == 1
    squall.Queue.objects.delete("jobs")
    with pytest.raises(NotFoundError, match="it was deleted"):
        jobs.get()
    squall.Queue.objects.delete("jobs", allow_missing=True)
    with pytest.raises(NotFoundError, match="there is no queue 'jobs'"):
        squall.Queue.from_name("jobs").len()


@pytest.mark.long
def test_nothing_is_lost_or_doubled_over_breaks_and_restarts(real_server: RealServer, jobs: squall.Queue) -> None:
    taken: list[int] = []
    puts_are_over = threading.Event()

    def put(first: int) -> int:
        for number in range(10_000):
            jobs.put(first + number)
            if puts_are_over.is_set():
                return number + 1
        return 10_000

    def take() -> None:
        while True:
            try:
                taken.extend(jobs.get_many(3, timeout=1.0))
            except queue.Empty:
                return

    with ThreadPoolExecutor(4) as threads:
        puts = [threads.submit(put, first) for first in (0, 100_000)]
        takers = [threads.submit(take) for _ in range(2)]
        for turn in range(6):
            for _ in range(30):
                jobs.len()
            (real_server.restart if turn % 2 else real_server.break_connections)()
        puts_are_over.set()
        counts = [one.result() for one in puts]
        for one in takers:
            one.result()

    expected = [first + number for first, count in zip((0, 100_000), counts, strict=True) for number in range(count)]
    assert sorted(taken) == expected
