"""Dicts and queues, shared by programs and containers, with a real server: locks, waiting, and what dies."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

import squall
from squall.exception import NotFoundError
from tests.e2e import flows
from tests.e2e.installation import Installation, wait_until
from tests.tree import ROOT

COUNT = 40


@pytest.fixture(scope="module")
def shared(session_installation: Installation) -> Iterator[Any]:
    """The module `programs/flows/shared.py`, its app running."""
    with flows.running(session_installation, "shared") as module:
        yield module


@pytest.mark.timeout(120)
def test_of_many_containers_that_want_a_lock_one_gets_it(shared: Any) -> None:
    locks = squall.Dict.from_name("e2e-locks", create_if_missing=True)
    locks.clear()

    got = list(shared.lock.map(range(COUNT)))

    assert sum(got) == 1
    assert locks["lock"][0] == got.index(True)


@pytest.mark.timeout(120)
def test_a_queue_of_one_item_is_a_lock_for_many_containers(shared: Any) -> None:
    counts = squall.Dict.from_name("e2e-counts", create_if_missing=True)
    counts["total"] = 0
    turns = squall.Queue.from_name("e2e-turns", create_if_missing=True)
    turns.clear()
    turns.put(None)

    list(shared.count.map(range(COUNT)))

    assert counts["total"] == COUNT


@pytest.mark.timeout(120)
def test_a_handle_is_the_same_dict_in_functions_of_several_apps(shared: Any) -> None:
    with squall.Dict.ephemeral() as cache, shared.other_app.run():
        returned = shared.note.remote(cache, "k", {"a": (1, b"x" * 2**21)})

        assert returned["k"] == {"a": (1, b"x" * 2**21)}
        assert shared.look.remote(returned, "k") == cache["k"]


@pytest.mark.timeout(120)
def test_a_get_in_a_container_is_woken_by_a_put_in_another(shared: Any) -> None:
    with squall.Queue.ephemeral() as jobs:
        taking = [shared.take.spawn(jobs) for _ in range(2)]
        in_loop = shared.take_many.spawn(jobs, 3)

        shared.put.remote(jobs, "first")
        jobs.put_many(["second", "third", "fourth", "fifth"])

        got = [*(call.get(timeout=60) for call in taking), *in_loop.get(timeout=60)]
        assert sorted(got) == ["fifth", "first", "fourth", "second", "third"]


@pytest.mark.timeout(120)
def test_an_input_that_waits_at_a_queue_can_be_cancelled_and_takes_nothing(shared: Any) -> None:
    with squall.Queue.ephemeral() as jobs:
        call = shared.take.spawn(jobs)
        jobs.put("taken")
        assert call.get(timeout=60) == "taken"
        waiting = shared.take.spawn(jobs)
        wait_until(lambda: shared.take.get_current_stats().num_running_inputs == 1, "the input runs", 30)

        waiting.cancel()

        wait_until(lambda: shared.take.get_current_stats().num_running_inputs == 0, "the input has ended", 30)
        jobs.put("left")
        assert jobs.get() == "left"


@pytest.mark.timeout(120)
def test_an_ephemeral_dict_of_a_container_is_gone_after_its_block(shared: Any) -> None:
    dict_id, value = shared.own.remote()

    assert value == 1
    with pytest.raises(NotFoundError):
        squall.Dict.from_id(dict_id).len()


OWNER = """
import squall, sys, time
with squall.Queue.ephemeral() as jobs:
    jobs.put("here")
    print(jobs.object_id, flush=True)
    time.sleep(600)
"""


@pytest.mark.timeout(120)
def test_an_ephemeral_queue_is_gone_some_time_after_its_owner_was_killed(squall_client: Installation) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        jobs = squall.Queue.from_id(owner.stdout.readline().strip())
        assert list(jobs.iterate()) == ["here"]
        owner.kill()
        owner.wait()

    def is_gone() -> bool:
        try:
            jobs.len()
        except NotFoundError:
            return True
        return False

    assert not is_gone()
    wait_until(is_gone, "the queue is gone", 30)


@pytest.mark.timeout(120)
def test_the_example_does_each_piece_of_work_once(squall: Installation) -> None:
    ended = flows.command_ok(squall, "run", str(ROOT / "examples/storage/work_queue.py"))

    assert "20 pieces of work, done in 4 containers" in ended.out
    assert "the answers: [0, 1, 4, 9, 16] and so on, 20 in all" in ended.out
    assert flows.command_ok(squall, "queue", "len", "example-work").out.strip() == "0"
    items = json.loads(flows.command_ok(squall, "dict", "items", "example-answers", "--all", "--json").out)
    assert {item["key"]: item["value"] for item in items} == {number: number * number for number in range(20)}


@pytest.fixture
def squall_client(squall: Installation) -> Iterator[Installation]:
    """The session's server, which this process talks to."""
    with flows.client_of(squall):
        yield squall


@pytest.mark.timeout(180)
def test_what_was_acknowledged_survives_servers_that_are_killed_and_nothing_is_doubled(
    fresh_squall: Installation,
) -> None:
    with flows.client_of(fresh_squall):
        jobs = squall.Queue.from_name("jobs", create_if_missing=True)
        cache = squall.Dict.from_name("cache", create_if_missing=True)
        jobs.len()
        stop = threading.Event()
        taken: list[int] = []

        def put() -> int:
            number = 0
            while not stop.is_set():
                assert cache.put(number, number, skip_if_exists=True)
                jobs.put(number)
                number += 1
            return number

        def take() -> None:
            while True:
                try:
                    got = jobs.get_many(5, timeout=10)
                except queue.Empty:
                    return
                taken.extend(got)

        def has_taken(count: int) -> bool:
            return len(taken) >= count

        with ThreadPoolExecutor(3) as threads:
            putting, *taking = threads.submit(put), threads.submit(take), threads.submit(take)
            for enough in (50, 100, 150):
                wait_until(partial(has_taken, enough), f"{enough} items came through", 60)
                if enough < 150:
                    os.kill(fresh_squall.server_pid(), signal.SIGKILL)
            stop.set()
            count = putting.result()
            for one in taking:
                one.result()

        assert sorted(taken) == list(range(count))
        assert cache.len() == count
        assert [cache.pop(number) for number in range(20)] == list(range(20))
