"""Every way to call a function, through the SDK in this process."""

from __future__ import annotations

import asyncio
import json
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from squall import FunctionCall, exception
from tests.e2e import flows
from tests.e2e.installation import Installation, wait_until


@pytest.fixture(scope="module")
def calls(session_installation: Installation) -> Iterator[Any]:
    """The module `programs/flows/calls.py`, its app running."""
    with flows.running(session_installation, "calls") as module:
        yield module


# One input


def test_remote_runs_in_a_container_and_local_here(calls: Any) -> None:
    assert calls.square.remote(7) == 49
    assert calls.square.local(7) == 49
    assert calls.where.remote()["cwd"] == "/root"
    assert calls.where.remote()["name"] == "calls"


def test_keywords_and_defaults_travel(calls: Any) -> None:
    assert calls.describe.remote(1, unit="km") == "1/0 km"
    assert calls.describe.remote(x=1, y=2) == "1/2 m"
    assert calls.nothing.remote() is None


def test_classes_of_the_users_script_are_the_same_on_both_sides(calls: Any) -> None:
    mirrored = calls.mirror.remote(calls.Point(1, 2))

    assert isinstance(mirrored, calls.Point)
    assert mirrored == calls.Point(2, 1)


def test_exception_of_the_users_script_is_raised_as_itself(calls: Any) -> None:
    with pytest.raises(calls.Refused, match="odd: 3"):
        calls.refuse.remote(3)


def test_container_knows_what_it_is_and_runs(calls: Any) -> None:
    found = calls.ids.remote()

    assert found["is_local"] is False
    assert found["input"].startswith("in-")
    assert found["call"].startswith("fc-")
    assert found["thread"] == found["input"]


def test_children_of_a_container_run_no_input_and_their_lines_and_calls_are_of_it(calls: Any) -> None:
    call = calls.in_pool.spawn()

    assert call.get() == [(True, None, 4), (True, None, 9)]
    assert sorted(line.message for line in call.logs.fetch()) == ["child 2", "child 3"]
    (root,) = call.get_call_graph()
    assert [one.function_name for one in root.children] == ["square", "square"]


def test_inputs_that_share_an_event_loop_know_their_own_ids(calls: Any) -> None:
    found = list(calls.ids_async.map([0.05] * 4))

    assert all(before == after == in_thread for before, after, in_thread in found)
    assert len({before for before, _, _ in found}) == 4


# Many


def test_map_keeps_the_order_and_zips_the_shortest(calls: Any) -> None:
    assert list(calls.square.map(range(300))) == [x * x for x in range(300)]
    assert list(calls.describe.map([1, 2, 3], [4, 5], kwargs={"unit": "cm"})) == ["1/4 cm", "2/5 cm"]
    assert list(calls.square.map([])) == []


def test_map_without_order_gives_every_output_once(calls: Any) -> None:
    assert sorted(calls.square.map(range(100), order_outputs=False)) == [x * x for x in range(100)]


def test_map_raises_the_first_failure_or_yields_it(calls: Any) -> None:
    with pytest.raises(calls.Refused, match="odd: 1"):
        list(calls.refuse.map(range(4)))

    values = list(calls.refuse.map(range(4), return_exceptions=True))

    assert [type(value) for value in values] == [int, calls.Refused, int, calls.Refused]


def test_exception_of_the_input_iterator_comes_out(calls: Any) -> None:
    def inputs() -> Iterator[int]:
        yield 1
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        list(calls.square.map(inputs()))

    assert calls.square.remote(2) == 4


def test_map_pulls_its_inputs_as_it_gets_on(calls: Any) -> None:
    pulled = 0

    def inputs() -> Iterator[int]:
        nonlocal pulled
        for number in range(100_000):
            pulled = number
            yield number

    for value in calls.square.map(inputs()):
        assert value == 0
        break

    assert pulled <= 2_000


def test_starmap_and_for_each(calls: Any) -> None:
    assert list(calls.describe.starmap([(1, 2), (3, 4)], kwargs={"unit": "s"})) == ["1/2 s", "3/4 s"]
    assert calls.square.for_each(range(20)) is None
    with pytest.raises(calls.Refused):
        calls.refuse.for_each(range(3))
    calls.refuse.for_each(range(3), ignore_exceptions=True)


def test_map_that_is_not_iterated_warns(calls: Any) -> None:
    with pytest.warns(UserWarning, match="never iterated"):
        calls.square.map(range(3))


# Generators


def test_items_stream_while_the_generator_runs(calls: Any) -> None:
    delays = [time.time() - made_at for made_at in calls.tick.remote_gen(4, 0.2)]

    assert len(delays) == 4
    assert max(delays) < 0.15


def test_generator_gives_all_items_in_order(calls: Any) -> None:
    assert list(calls.count.remote_gen(5_000)) == list(range(5_000))
    assert list(calls.count.remote_gen(0)) == []
    assert list(calls.count_slowly.remote_gen(20)) == list(range(20))
    assert list(calls.as_generator.remote_gen(3)) == [0, 1, 2]


def test_exception_half_way_comes_after_the_items_before_it(calls: Any) -> None:
    items = iter(calls.fail_after.remote_gen(3))

    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(calls.Refused, match="after 3"):
        next(items)


def test_slow_consumer_holds_the_generator_back(calls: Any) -> None:
    items = iter(calls.produce.remote_gen(1_000_000))
    next(items)
    time.sleep(0.5)
    items.close()

    progress = next(iter(calls.produce.remote_gen(0)))

    assert 1 <= progress["made"] <= 2_100


def test_leaving_early_stops_the_generator(calls: Any) -> None:
    for item in calls.produce.remote_gen(1_000_000):
        if item == 5:
            break

    progress = next(iter(calls.produce.remote_gen(0)))

    assert progress["is_closed"]
    assert progress["made"] < 1_000_000


def test_generator_without_the_flag_is_told_of_it(calls: Any) -> None:
    with pytest.raises(exception.InvalidError, match="is_generator=True"):
        calls.generator_without_flag.remote(3)


def test_wrong_way_to_call_names_the_right_one(calls: Any) -> None:
    with pytest.raises(exception.InvalidError, match="remote_gen"):
        calls.count.remote(3)
    with pytest.raises(exception.InvalidError, match="remote_gen"):
        list(calls.count.map([3]))
    with pytest.raises(exception.InvalidError, match="remote_gen"):
        calls.count.spawn(3)
    with pytest.raises(exception.InvalidError, match=r"\.remote\(\)"):
        list(calls.square.remote_gen(3))
    with pytest.raises(TypeError, match=r"square\.remote"):
        calls.square(3)


# Durable calls


def test_spawned_call_can_be_asked_more_than_once(calls: Any) -> None:
    call = calls.sleep.spawn(0.6)

    with pytest.raises(exception.TimeoutError):
        call.get(timeout=0)
    with pytest.raises(exception.TimeoutError):
        call.get(timeout=0.1)
    assert call.get(timeout=30) == "slept"
    assert call.get(timeout=0) == "slept"


@pytest.mark.parametrize("timeout", [None, 1.0])
def test_result_of_an_input_that_the_call_does_not_have_is_refused(calls: Any, timeout: float | None) -> None:
    spawned = calls.square.spawn(5)

    with pytest.raises(exception.InvalidError, match="it has 1 input, of index 0"):
        spawned.get(timeout, index=7)


def test_spawned_failure_is_raised_by_get(calls: Any) -> None:
    call = calls.refuse.spawn(1)

    with pytest.raises(calls.Refused):
        call.get(timeout=30)


def test_result_is_found_by_its_id_from_another_process(calls: Any, session_installation: Installation) -> None:
    call = calls.mirror.spawn(calls.Point(1, 2))

    printed = flows.program(
        session_installation,
        f"import calls, squall; print(squall.FunctionCall.from_id({call.object_id!r}).get(timeout=30))",
    )

    assert printed == "Point(x=2, y=1)\n"


def test_cancelled_call_ends_and_its_container_goes_on(calls: Any) -> None:
    call = calls.sleep.spawn(60)
    time.sleep(0.5)
    started_at = time.monotonic()

    call.cancel()

    with pytest.raises(exception.RemoteError, match="cancelled"):
        call.get(timeout=10)
    assert time.monotonic() - started_at < 5
    assert calls.sleep.remote(0) == "slept"


def test_gather_and_spawn_map(calls: Any) -> None:
    assert FunctionCall.gather(*[calls.square.spawn(x) for x in range(5)]) == [0, 1, 4, 9, 16]
    assert calls.square.spawn_map(range(300)) is None


# In event loops


async def _numbers() -> AsyncIterator[int]:
    for number in range(3):
        await asyncio.sleep(0.01)
        yield number


def test_every_form_has_its_async_twin(calls: Any) -> None:
    async def main() -> dict[str, Any]:
        call = await calls.square.spawn.aio(4)
        return {
            "remote": await calls.square.remote.aio(3),
            "map": [value async for value in calls.square.map.aio(range(3))],
            "map of async": [value async for value in calls.square.map.aio(_numbers())],
            "zip of both": [value async for value in calls.describe.map.aio(_numbers(), range(9))],
            "starmap": [value async for value in calls.describe.starmap.aio([(1, 2)])],
            "for_each": await calls.square.for_each.aio(_numbers()),
            "generator": [value async for value in calls.count_slowly.remote_gen.aio(3)],
            "get": await call.get.aio(),
            "spawn_map": await calls.square.spawn_map.aio(range(3)),
            "at once": await asyncio.gather(*[calls.slow_square.remote.aio(x) for x in range(20)]),
        }

    assert asyncio.run(main()) == {
        "remote": 9,
        "map": [0, 1, 4],
        "map of async": [0, 1, 4],
        "zip of both": ["0/0 m", "1/1 m", "2/2 m"],
        "starmap": ["1/2 m"],
        "for_each": None,
        "generator": [0, 1, 2],
        "get": 16,
        "spawn_map": None,
        "at once": [x * x for x in range(20)],
    }


def test_blocking_form_in_a_loop_works_and_warns_but_for_maps(calls: Any) -> None:
    async def main() -> list[Any]:
        with pytest.raises(exception.InvalidError, match=r"async for … in ….map.aio"):
            list(calls.square.map(range(3)))
        return [calls.square.remote(3), calls.square.spawn(2).get()]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = asyncio.run(main())

    assert results == [9, 4]
    assert len([one for one in caught if one.category is exception.AsyncUsageWarning]) >= 2
    assert "await ….remote.aio(…)" in str(caught[0].message)


def test_cancelled_coroutine_cancels_its_input(calls: Any) -> None:
    async def main() -> str:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(calls.sleep.remote.aio(60), 0.5)
        # Only one container of `sleep` runs now: were it still asleep, this would wait for a second one.
        result: str = await calls.sleep.remote.aio(0)
        return result

    assert asyncio.run(main()) == "slept"
    wait_until(lambda: calls.sleep.get_current_stats()[::2] == (0, 0), "no input is left", 10)


def test_app_runs_in_an_event_loop(session_installation: Installation) -> None:
    printed = flows.program(
        session_installation,
        "import asyncio, json, calls\n"
        "async def main():\n"
        "    async with calls.app.run():\n"
        "        return [await calls.square.remote.aio(3), [x async for x in calls.square.map.aio(range(3))]]\n"
        "print(json.dumps(asyncio.run(main())))\n",
    )

    assert json.loads(printed) == [9, [0, 1, 4]]
