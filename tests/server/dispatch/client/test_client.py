"""Outputs on their way to a client: joined, kept, and forgotten in time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from squall.protocol.call import OutputBatch
from squall.server.dispatch.client.client import MERGED_BYTES_MAX, TURN_OUTPUTS_MAX, merged
from squall.server.dispatch.client.shelf import Kept
from squall.server.dispatch.function.call_table import ORPHANS_MAX, CallTable
from squall.server.dispatch.function.input import SENT_MAX
from squall.server.model.config import ServerConfig
from squall.server.model.logs import Progress
from tests.server.doubles import FakeClient, FakeGuest, settle, staged


def make_batch(first: int, count: int, size: int = 1) -> tuple[OutputBatch, bytes]:
    indexes = tuple(range(first, first + count))
    return OutputBatch("fc-1", indexes, (0,) * count, (size,) * count, (0,) * count, (5,) * count), b"x" * size * count


def test_batches_of_one_turn_become_one() -> None:
    with_blob = OutputBatch("fc-1", (9,), (0,), (-1,), (1,), (7,), {"9": "a" * 64})

    joined = merged([make_batch(0, 2), (with_blob, b""), make_batch(3, 1)])

    assert len(joined) == 1
    record, body = joined[0]
    assert record == OutputBatch(
        "fc-1", (0, 1, 9, 3), (0,) * 4, (1, 1, -1, 1), (0, 0, 1, 0), (5, 5, 7, 5), {"9": "a" * 64}
    )
    assert body == b"xxx"


def test_large_batches_are_not_joined_without_end() -> None:
    batches = [make_batch(number, 1, MERGED_BYTES_MAX // 2) for number in range(5)]

    assert [len(record.indexes) for record, _ in merged(batches)] == [2, 2, 1]


def test_orphans_are_bounded_and_only_their_function_gets_them() -> None:
    table = CallTable()
    for number in range(ORPHANS_MAX + 500):
        table.keep_orphan("fu-1", OutputBatch(f"fc-{number}", (0,), (0,), (1,)), b"x")

    assert table.take_orphans("fc-0", "fu-1") == []
    assert table.take_orphans(f"fc-{ORPHANS_MAX}", "fu-other") == []
    assert len(table.take_orphans(f"fc-{ORPHANS_MAX + 1}", "fu-1")) == 1


@pytest.mark.long
async def test_what_is_kept_of_a_long_map_is_bounded() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        call = stage.client.open(spec.function_id)
        for first in range(0, 5_000, 500):
            stage.client.put(call, dict.fromkeys(range(first, first + 500), b"1"))
            await stage.done(call, first + 500)

        kept = stage.plane.calls.get(call.call_id)

        assert kept is not None
        assert SENT_MAX <= kept.sent_count < SENT_MAX + 600
        assert kept.input_count == 5_000


async def test_calls_of_a_client_that_stays_away_end() -> None:
    async def forever(guest: FakeGuest, value: bytes) -> bytes:
        await asyncio.Event().wait()
        return value

    async with staged(ServerConfig(call_grace_s=30.0, app_grace_s=1e6)) as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = forever
        stage.client.call(spec.function_id, 1)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        stage.client.disconnect()
        await stage.pass_time(29.0, 1.0)
        assert stage.node.started[0].running
        await stage.pass_time(2.0, 1.0)

        assert not stage.node.started[0].running
        assert len(stage.plane.calls) == 0


async def test_event_that_only_another_version_knows_is_ignored() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call = stage.client.call(spec.function_id, 4)

        # Clients said so before 0.1; a later one may say what we do not know yet.
        stage.client.tell("CallSeal", {"call_id": call.call_id, "input_count": 1})

        assert (await stage.done(call, 1))[0].value == b"8"


async def test_second_connection_of_a_client_replaces_the_first() -> None:
    async with staged() as stage:
        first = stage.client.peer
        again = await FakeClient(stage.plane, stage.codec, stage.client.client_id).connect()
        await settle()

        assert first is not None
        assert first.is_closed
        spec = await again.function()
        assert (await stage.done(again.call(spec.function_id, 4), 1))[0].value == b"8"


async def test_results_that_follow_large_ones_do_not_pass_a_line_either() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        call = stage.client.call(spec.function_id, *range(4))
        await settle()
        (client,) = stage.plane.clients._clients.values()
        known = stage.plane.calls.get(call.call_id)
        assert known is not None

        def put(index: int, size: int) -> None:
            assert known is not None
            client.put_outputs(known, OutputBatch(call.call_id, (index,), (0,), (size,), (0,), (1,)), b"x" * size)

        for index in range(3):
            put(index, 3 * 2**20)
        await settle(2)
        assert client._sending is not None
        line = Progress()
        line.came = 1
        client.lines.reads.add(line)
        put(3, 1)
        await settle()
        came_before_the_line = set(call.outputs)
        line.taken = 1
        await stage.pass_time(0.1)
        client.lines.reads.discard(line)

        assert 3 not in came_before_the_line
        assert set(call.outputs) == {0, 1, 2, 3}


async def test_only_so_many_outputs_are_sent_before_others_have_a_turn() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        calls = [stage.client.open(spec.function_id) for _ in range(3 * TURN_OUTPUTS_MAX // 500)]
        await settle()
        record, body = make_batch(0, 500)
        kept: list[Kept] = []
        for call in calls:
            its = stage.plane.calls.get(call.call_id)
            assert its is not None
            its.sink.put_outputs(its, replace(record, call_id=call.call_id), body)
            kept += its.sent

        await asyncio.sleep(0)
        sent = sum(not one.is_unsent or not one.is_queued for one in kept) * 500
        await settle()

        assert TURN_OUTPUTS_MAX <= sent <= TURN_OUTPUTS_MAX + 500
        assert all(len(call.outputs) == 500 for call in calls)
