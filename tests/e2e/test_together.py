"""Inputs that share a container, and those that must not."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from squall import exception
from tests.e2e import flows
from tests.e2e.installation import Installation, wait_until


@pytest.fixture(scope="module")
def together(session_installation: Installation) -> Iterator[Any]:
    """The module `programs/flows/together.py`, its app running."""
    with flows.running(session_installation, "together") as module:
        yield module


# In threads


def test_inputs_of_one_container_run_in_threads_of_their_own(together: Any) -> None:
    found = list(together.meet.map([8] * 8))

    assert len({container for container, _, _ in found}) == 1
    assert len({input_id for _, input_id, _ in found}) == 8
    assert len({thread for _, _, thread in found}) == 8


def test_threads_call_other_functions(together: Any) -> None:
    assert list(together.through.map(range(12))) == [6 * x for x in range(12)]


def test_cancelled_thread_ends_with_its_container_and_the_other_input_runs_again(together: Any) -> None:
    first = together.nap.remote(0)
    cancelled, other = together.nap.spawn(60), together.nap.spawn(8)
    wait_until(lambda: together.nap.get_current_stats().num_running_inputs == 2, "both run", 20)

    cancelled.cancel()
    began = time.monotonic()
    with pytest.raises(exception.RemoteError, match="cancelled"):
        cancelled.get(timeout=20)
    took_s = time.monotonic() - began

    assert took_s < 10
    assert other.get(timeout=60) != first


def test_timeout_of_one_thread_is_its_own_and_the_other_input_runs_again(together: Any) -> None:
    late, fine = together.short.spawn(30), together.short.spawn(0.5)

    assert fine.get(timeout=60) == 0.5
    with pytest.raises(exception.FunctionTimeoutError, match="timeout of 1 s"):
        late.get(timeout=60)
    assert together.short.remote(0.1) == 0.1


def test_input_that_takes_too_much_memory_is_found_among_those_beside_it(together: Any) -> None:
    found = list(together.take.map([1, 2, 300, 3], return_exceptions=True))

    assert found[:2] + found[3:] == [1, 2, 3]
    assert isinstance(found[2], exception.RemoteError)
    assert "ran out of memory" in str(found[2])


def test_consumer_that_leaves_ends_a_generator_and_not_its_container(together: Any) -> None:
    items = together.count_up.remote_gen(100_000)
    container_id = next(items)[0]
    items.close()

    # Longer than a thread has that is told to stop.
    time.sleep(3)
    assert {container for container, _ in together.count_up.remote_gen(2)} == {container_id}


# On an event loop


def test_many_inputs_run_on_one_event_loop(together: Any) -> None:
    began = time.monotonic()
    found = set(together.nap_async.map([1.0] * 100))

    assert len(found) == 1
    assert time.monotonic() - began < 30


def test_cancelled_task_ends_alone(together: Any) -> None:
    container_id = together.nap_async.remote(0)
    cancelled, other = together.nap_async.spawn(60), together.nap_async.spawn(2)
    wait_until(lambda: together.nap_async.get_current_stats().num_running_inputs == 2, "both run", 20)

    cancelled.cancel()

    with pytest.raises(exception.RemoteError, match="cancelled"):
        cancelled.get(timeout=20)
    assert other.get(timeout=20) == container_id


# In batches


def test_single_values_travel_and_lists_are_run(together: Any) -> None:
    found = list(together.add.map(range(10), range(10)))

    assert [total for total, _ in found] == [2 * x for x in range(10)]
    assert max(size for _, size in found) == 5
    assert together.add.remote(3, ys=4) == (7, 1)
    assert together.add.local([1, 2], [3, 4]) == [(4, 2), (6, 2)]


def test_calls_of_several_callers_are_one_batch(together: Any) -> None:
    gate = threading.Barrier(5)

    def call(x: int) -> tuple[int, int]:
        gate.wait(10)
        found: tuple[int, int] = together.add.remote(x, x)
        return found

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(call, range(5))) == [(2 * x, 5) for x in range(5)]


def test_exception_is_raised_by_every_call_of_the_batch(together: Any) -> None:
    found = list(together.add.map([1, -1, 2, 3, 4], [0] * 5, return_exceptions=True))

    assert [(type(one), str(one)) for one in found] == [(LookupError, "a batch of 5")] * 5


def test_list_of_another_length_fails_every_call_of_the_batch(together: Any) -> None:
    for found in together.add.map([1, -2, 2, 3, 4], [0] * 5, return_exceptions=True):
        assert isinstance(found, exception.InvalidError)
        assert "function add was given a batch of 5 and returned 6 results" in str(found)


def test_call_without_a_parameter_fails_and_the_others_of_its_batch_do_not(together: Any) -> None:
    with ThreadPoolExecutor(2) as pool:
        wrong, right = pool.submit(together.add.remote, 1), pool.submit(together.add.remote, 1, 2)

        with pytest.raises(exception.InvalidError, match="must give each of its parameters"):
            wrong.result(30)
        assert right.result(30)[0] == 3


def test_cancelled_call_leaves_its_batch(together: Any) -> None:
    calls = [together.slow_batches.spawn(3.0) for _ in range(3)]
    wait_until(lambda: together.slow_batches.get_current_stats().num_running_inputs == 3, "the batch runs", 20)

    calls[0].cancel()

    with pytest.raises(exception.RemoteError, match="cancelled"):
        calls[0].get(timeout=2)
    found = [call.get(timeout=30) for call in calls[1:]]
    assert {size for size, _ in found} == {3}
    assert together.slow_batches.remote(0)[1] == found[0][1]


def test_async_batches_run_at_once(together: Any) -> None:
    together.slow_batches.remote(0)
    began = time.monotonic()
    found = list(together.slow_batches.map([2.0] * 6))

    assert {size for size, _ in found} == {3}
    assert time.monotonic() - began < 3.9


def test_method_of_a_class_is_run_in_batches(together: Any) -> None:
    found = list(together.Model().predict.map(range(8)))

    assert [value for value, _ in found] == [100 + x for x in range(8)]
    assert max(size for _, size in found) == 4


def test_batches_are_turned_on_where_a_function_is_called(together: Any) -> None:
    many = together.count_each.with_batching(max_batch_size=4, wait_ms=2_000)

    assert list(many.map(range(4))) == [(x, 4) for x in range(4)]
    with pytest.raises(exception.InvalidError, match="generator"):
        together.count_up.with_batching(max_batch_size=2, wait_ms=1)


def test_batches_survive_their_server(fresh_squall: Installation) -> None:
    running = fresh_squall.start_run("batching.py")
    wait_until(lambda: running.said().count("result:") >= 4, "the first results are there", 60)

    os.kill(fresh_squall.server_pid(), signal.SIGKILL)
    ended = running.wait(90)

    assert ended.code == 0, ended
    found = re.findall(r"^result: (\d+) (\d+) (\S+)$", ended.out, re.MULTILINE)
    assert [(int(x), int(squared)) for x, squared, _ in found] == [(x, x * x) for x in range(24)], ended
    assert len({container_id for _, _, container_id in found}) == 1, found


# One input for each container


def test_container_for_one_input_is_never_used_again(together: Any) -> None:
    used = list(together.once.map(range(12)))

    assert len(set(used)) == 12


def test_each_retry_of_a_single_use_container_is_another_container(together: Any) -> None:
    with pytest.raises(LookupError, match="always"):
        together.fails.remote()

    used = together.note.remote()
    assert len(used) == 4
    assert len(set(used)) == 4
