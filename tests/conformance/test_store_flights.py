"""What is kept of calls that ran, and of functions' minutes, in every store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from squall.server.model.flight import FlightLimits, StoredFlight, StoredMinute
from squall.server.model.store import OutputCounts, Store, StoredCall, StoredInput, StoredOutput
from squall.server.model.variant import StoredVariant
from squall.server.store import sql_flights


def flight(call_id: str, finished_at: float = 2.0, detail: str = "{}", function_id: str = "fu-1") -> StoredFlight:
    return StoredFlight(call_id, function_id, "ap-1", finished_at - 1, finished_at, call_id != "fc-0", "", detail)


async def test_flight_is_kept_and_replaced(store: Store) -> None:
    await store.put_flights((flight("fc-1"),), (StoredInput("fc-1", 3, b"value"),), 2.0)
    await store.put_flights((flight("fc-1", 5.0, '{"newer": 1}'),), (), 5.0)

    assert await store.get_flight("fc-1") == flight("fc-1", 5.0, '{"newer": 1}')
    assert await store.get_flight("fc-2") is None
    assert await store.get_input("fc-1", 3) == StoredInput("fc-1", 3, b"value")
    assert await store.get_input("fc-1", 4) is None
    assert await store.kept_inputs("fc-1") == {3}


async def test_flights_and_calls_are_listed_newest_first(store: Store) -> None:
    for number in range(4):
        await store.put_flights((flight(f"fc-{number}", number + 1.0, function_id=f"fu-{number % 2}"),), (), 1.0)
        call = StoredCall(f"fc-d{number}", f"fu-{number % 2}", "ap-1", "spawn", float(number))
        await store.put_call(call, (StoredInput(call.call_id, 0, b"x"),))

    assert [one.call_id for one in await store.list_flights((), 3)] == ["fc-3", "fc-2", "fc-1"]
    assert [one.call_id for one in await store.list_flights(("fu-0",), 9, until=1.0)] == ["fc-0"]
    assert [one.call_id for one in await store.list_flights((), 9, failed=True)] == ["fc-3", "fc-2", "fc-1"]
    assert [one.call_id for one in await store.list_calls(("fu-1",), 9)] == ["fc-d3", "fc-d1"]
    assert [one.call_id for one in await store.list_calls((), 9, since=2.0)] == ["fc-d3", "fc-d2"]


async def test_flights_and_calls_of_an_app_are_found_by_it(store: Store) -> None:
    for number in (1, 2):
        app_id = f"ap-{number}"
        await store.put_flights((replace(flight(f"fc-{number}"), app_id=app_id),), (), 1.0)
        call = StoredCall(f"fc-d{number}", "fu-1", app_id, "spawn", 1.0)
        await store.put_call(call, (StoredInput(call.call_id, 0, b"x"),))

    assert [one.call_id for one in await store.list_flights((), 9, app_ids=("ap-2",))] == ["fc-2"]
    assert [one.call_id for one in await store.list_calls((), 9, app_ids=("ap-2",))] == ["fc-d2"]
    assert await store.list_calls(("fu-2",), 9, app_ids=("ap-2",)) == ()
    assert [one.call_id for one in await store.list_calls((), 9, app_ids=("ap-1", "ap-2"))] == ["fc-d2", "fc-d1"]


async def test_variants_of_a_function_are_listed_last_used_first_and_counted(store: Store) -> None:
    made = [StoredVariant(f"fu-{n}", f"fu-base{n % 2}", "ap-1", f'{{"n":{n}}}', used_at=float(n)) for n in range(5)]
    for variant in made:
        await store.put_variant(variant)

    assert await store.list_variants("fu-base0", 2) == (made[4], made[2])
    assert [await store.count_variants(f"fu-base{n}") for n in range(3)] == [3, 2, 0]


async def test_input_of_a_durable_call_is_found_until_it_expires(store: Store) -> None:
    call = StoredCall("fc-1", "fu-1", "ap-1", "spawn", 1.0)
    await store.put_call(call, (StoredInput("fc-1", 0, b"mine"),))
    await store.put_outputs((StoredOutput("fc-1", 0, 1, b"failure", finished_at=2.0),))

    assert await store.get_input("fc-1", 0) == StoredInput("fc-1", 0, b"mine")
    await store.expire(3.0)
    assert await store.get_input("fc-1", 0) is None


async def test_outputs_are_listed_with_who_brought_them_and_values_of_failures_only(store: Store) -> None:
    call = StoredCall("fc-1", "fu-1", "ap-1", "spawn", 1.0, 3)
    await store.put_call(call, tuple(StoredInput("fc-1", index, b"x") for index in range(3)))
    await store.put_outputs((
        StoredOutput("fc-1", 0, 0, b"result", finished_at=2.0, queued_at=1.5, container_id="ct-1"),
        StoredOutput("fc-1", 2, 1, b"failure", attempt=1, run_us=9, finished_at=3.25),
    ))  # fmt: skip

    outputs = await store.list_outputs("fc-1", 0, 10)

    assert outputs == (
        StoredOutput("fc-1", 0, 0, b"", finished_at=2.0, queued_at=1.5, container_id="ct-1"),
        StoredOutput("fc-1", 2, 1, b"failure", attempt=1, run_us=9, finished_at=3.25),
    )
    assert await store.list_outputs("fc-1", 0, 10, failed=True) == outputs[1:]
    assert await store.list_outputs("fc-1", 1, 1) == outputs[1:]
    assert await store.count_outputs(("fc-1", "fc-none")) == {"fc-1": OutputCounts({0: 1, 1: 1}, 3.25)}


@pytest.mark.parametrize("bytes_at_once", [10**6, 150])
async def test_flights_beyond_the_limits_are_forgotten_oldest_first(
    store: Store, bytes_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_flights, "PRUNED_BYTES_MAX", bytes_at_once)
    for number in range(6):
        inputs = (StoredInput(f"fc-{number}", 0, bytes(100), "ab" * 32 if number == 0 else ""),)
        await store.put_flights((flight(f"fc-{number}", float(number), " " * 10),), inputs, float(number))
    assert "ab" * 32 in await store.live_blobs()

    gone = await store.prune_flights(FlightLimits(1.0, 4, 1_000, 100, 250))

    assert gone == 2 + 4
    assert [one.call_id for one in await store.list_flights((), 9)] == ["fc-5", "fc-4", "fc-3", "fc-2"]
    assert [number for number in range(6) if await store.get_input(f"fc-{number}", 0)] == [4, 5]
    assert not await store.live_blobs()
    assert await store.prune_flights(FlightLimits(0.0, 4, 25, 0, 0)) == 2 + 2


async def test_minutes_of_functions_are_kept_within_bounds(store: Store) -> None:
    await store.put_minutes(tuple(StoredMinute(f"fu-{n % 2}", float(n), str(n)) for n in range(6)))
    await store.put_minutes((StoredMinute("fu-1", 3.0, "again"),))

    assert await store.list_minutes(("fu-1",), 2.0, 5.0, 9) == (
        StoredMinute("fu-1", 3.0, "again"),
        StoredMinute("fu-1", 5.0, "5"),
    )
    assert await store.prune_minutes(1.0, 100) == 1
    assert await store.prune_minutes(0.0, 2) == 3
    assert [one.began_at for one in await store.list_minutes(("fu-0", "fu-1"), 0.0, 9.0, 9)] == [4.0, 5.0]


async def test_minutes_of_variants_are_found_by_their_function(store: Store) -> None:
    minutes = [StoredMinute(f"fu-{n % 3}", float(n), "", "fu-base" if n % 3 else "") for n in range(9)]
    await store.put_minutes(tuple(minutes))

    found = await store.list_minutes(("fu-0",), 2.0, 8.0, 9, base_ids=("fu-base",))
    last = await store.list_minutes(("fu-1",), 2.0, 8.0, 3, base_ids=("fu-base", "fu-none"))

    assert list(found) == minutes[2:]
    assert [one.began_at for one in last] == [5.0, 7.0, 8.0]
