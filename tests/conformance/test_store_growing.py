"""Durable calls that grow, in every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from squall.protocol.call import SUCCEEDED
from squall.protocol.errors import PlatformError
from squall.server.model.store import Portion, Store, StoredInput, StoredOutput
from squall.server.store import sql_calls, sql_portions
from tests.conformance.test_store import make_call, make_inputs


async def grown(store: Store, call_id: str = "fc-1", counts: tuple[int, ...] = (2, 3, 1)) -> None:
    """A call of several portions that still grows."""
    growing = replace(make_call(call_id, input_count=counts[0]), is_growing=True)
    await store.put_call(growing, make_inputs(call_id, counts[0]))
    first = counts[0]
    for number, count in enumerate(counts[1:], 1):
        inputs = make_inputs(call_id, count, first)
        await store.extend_call(call_id, first, inputs, 100.0 + number, is_last=False)
        first += count


async def test_call_grows_until_it_is_said_to_be_whole(store: Store) -> None:
    await grown(store)

    last = await store.extend_call("fc-1", 6, make_inputs("fc-1", 1, 6), 107.0, is_last=True)

    assert last == Portion(make_call("fc-1", input_count=7), 6, 107.0, make_inputs("fc-1", 1, 6))
    assert await store.get_call("fc-1") == make_call("fc-1", input_count=7)
    found = await store.unfinished_inputs("fu-1")
    assert [(one.first, one.made_at, one.inputs) for one in found] == [
        (0, 100.0, make_inputs("fc-1", 2)),
        (2, 101.0, make_inputs("fc-1", 3, 2)),
        (5, 102.0, make_inputs("fc-1", 1, 5)),
        (6, 107.0, make_inputs("fc-1", 1, 6)),
    ]
    assert await store.unfinished_counts() == {"fu-1": 7}


async def test_growing_call_may_end_without_more_inputs_and_be_told_so_again(store: Store) -> None:
    await grown(store)

    for _ in range(2):
        await store.extend_call("fc-1", 6, (), 107.0, is_last=True)

    assert await store.get_call("fc-1") == make_call("fc-1", input_count=6)


async def test_repeated_inputs_of_a_growing_call_are_there_once(store: Store) -> None:
    await grown(store)
    inputs = make_inputs("fc-1", 3, 2)

    again = await store.extend_call("fc-1", 2, inputs, 200.0, is_last=False)
    together = await asyncio.gather(
        *(store.extend_call("fc-1", 6, make_inputs("fc-1", 1, 6), 300.0 + n, is_last=True) for n in range(3))
    )

    assert again.made_at == 101.0
    assert [one.made_at for one in together] == [300.0] * 3
    assert (await store.get_call("fc-1")).input_count == 7
    assert await store.unfinished_counts() == {"fu-1": 7}


@pytest.mark.parametrize(("first", "count"), [(7, 1), (5, 2), (3, 1)])
async def test_inputs_that_do_not_follow_are_refused(store: Store, first: int, count: int) -> None:
    await grown(store)

    with pytest.raises(PlatformError, match="do not follow") as caught:
        await store.extend_call("fc-1", first, make_inputs("fc-1", count, first), 107.0, is_last=False)

    assert caught.value.code == "conflict"
    assert await store.unfinished_counts() == {"fu-1": 6}


async def test_call_that_is_whole_cancelled_or_unknown_takes_no_more_inputs(store: Store) -> None:
    await store.put_call(make_call("fc-1"), make_inputs("fc-1"))
    await grown(store, "fc-2", (1,))
    await store.put_outputs((StoredOutput("fc-2", 0, SUCCEEDED),))
    cancelled = await store.cancel_call("fc-2")

    codes = []
    for call_id in ("fc-1", "fc-2", "fc-3"):
        with pytest.raises(PlatformError) as caught:
            await store.extend_call(call_id, 1, make_inputs(call_id, 1, 1), 107.0, is_last=False)
        codes.append(caught.value.code)

    assert cancelled.is_cancelled
    assert codes == ["conflict", "conflict", "not_found"]
    assert await store.unfinished_counts() == {"fu-1": 1}


async def test_one_refused_extension_takes_none_beside_it_with_it(store: Store) -> None:
    await grown(store)
    writes = [
        store.extend_call("fc-1", 6, make_inputs("fc-1", 2, 6), 107.0, is_last=False),
        store.extend_call("fc-9", 0, make_inputs("fc-9"), 107.0, is_last=False),
        store.extend_call("fc-1", 8, make_inputs("fc-1", 1, 8), 108.0, is_last=True),
    ]

    done = await asyncio.gather(*writes, return_exceptions=True)

    assert [isinstance(one, PlatformError) for one in done] == [False, True, False]
    assert (await store.get_call("fc-1")).input_count == 9


async def test_outputs_count_for_their_portion(store: Store) -> None:
    await grown(store)
    await store.put_outputs(tuple(StoredOutput("fc-1", index, SUCCEEDED) for index in (0, 3, 1, 4)))

    waiting = await store.unfinished_inputs("fu-1")
    indexes = [await store.unfinished_indexes("fc-1"), await store.unfinished_indexes("fc-1", 3, 1)]
    await store.put_outputs((StoredOutput("fc-1", 2, SUCCEEDED), StoredOutput("fc-1", 5, SUCCEEDED)))

    assert [(one.first, [item.index for item in one.inputs]) for one in waiting] == [(2, [2]), (5, [5])]
    assert indexes == [(2, 5), (5,)]
    assert await store.unfinished_inputs("fu-1") == ()
    assert await store.unfinished_indexes("fc-1") == ()


async def test_inputs_in_blobs_are_read_back_in_their_portion(store: Store) -> None:
    inputs = (StoredInput("fc-1", 0, b"x"), StoredInput("fc-1", 1, b"", "ab" * 32), StoredInput("fc-1", 2, b"yz"))
    await store.put_call(make_call("fc-1", input_count=3), inputs)

    (portion,) = await store.unfinished_inputs("fu-1")

    assert portion.inputs == inputs
    assert await store.live_blobs() == {"ab" * 32}


async def test_outputs_are_read_in_order_up_to_the_first_gap(store: Store) -> None:
    await store.put_call(make_call("fc-1", input_count=6), make_inputs("fc-1", 6))
    await store.put_outputs(tuple(StoredOutput("fc-1", index, SUCCEEDED, b"%d" % index * 10) for index in (0, 1, 2, 4)))

    found = [
        [one.value[:1] for one in await store.read_outputs("fc-1", *asked)]
        for asked in ((0, 10), (1, 1), (3, 10), (4, 10), (0, 10, 11), (0, 10, 1))
    ]

    assert found == [[b"0", b"1", b"2"], [b"1"], [], [b"4"], [b"0", b"1"], [b"0"]]
    with pytest.raises(PlatformError) as caught:
        await store.read_outputs("fc-9", 0, 10)
    assert caught.value.code == "not_found"


async def test_call_that_was_never_said_to_be_whole_expires_after_its_last_input(store: Store) -> None:
    await grown(store, counts=(1, 1))
    await store.put_outputs((StoredOutput("fc-1", 0, SUCCEEDED), StoredOutput("fc-1", 1, SUCCEEDED)))

    early = await store.expire(101.0)
    late = await store.expire(101.5)

    assert (early, late) == (0, 1)


@pytest.mark.parametrize("is_last", [False, True])
async def test_growing_call_takes_no_more_inputs_once_part_of_it_has_expired(
    store: Store, monkeypatch: pytest.MonkeyPatch, is_last: bool
) -> None:
    monkeypatch.setattr(sql_calls, "EXPIRE_ROWS_MAX", 2)
    await grown(store, counts=(2, 3, 1))
    await store.put_outputs(tuple(StoredOutput("fc-1", index, SUCCEEDED, finished_at=103.0) for index in range(6)))
    refused: list[PlatformError] = []
    expire_some = sql_calls.expire_some

    def expire_and_extend(connection: Any, befores: Any) -> list[tuple[int, bool]]:
        """A request that comes between two parts."""
        gone = expire_some(connection, befores)
        more = sql_portions.More("fc-1", 6, make_inputs("fc-1", 1, 6), 300.0, is_last)
        refused.extend(one for one in sql_portions.extend_calls(connection, [more]) if isinstance(one, PlatformError))
        assert gone[0][0] or refused, "it took an input, and its first outputs are gone"
        return gone

    monkeypatch.setattr(sql_calls, "expire_some", expire_and_extend)

    count = await store.expire(200.0)
    with pytest.raises(PlatformError) as caught:
        await store.extend_call("fc-1", 6, make_inputs("fc-1", 1, 6), 300.0, is_last=is_last)

    assert count == 1
    assert {error.code for error in refused[:2]} <= {"conflict"}
    assert caught.value.code == "not_found"
    assert await store.unfinished_counts() == {}


async def test_calls_that_are_put_together_are_new_one_by_one(store: Store) -> None:
    await store.put_call(make_call("fc-2"), make_inputs("fc-2"))
    calls = tuple((make_call(f"fc-{number}"), make_inputs(f"fc-{number}")) for number in range(4))

    assert await store.put_calls(calls) == (True, True, False, True)
    assert await store.unfinished_counts() == {"fu-1": 4}
