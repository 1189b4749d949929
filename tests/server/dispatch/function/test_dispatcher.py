"""Inputs to containers and outputs back, in the order things happen."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from squall.protocol import call as wire
from squall.protocol.call import Failure, InputRefs, ItemBatch, encode_failure
from squall.protocol.function import Batching, FunctionSpec, Scaling
from squall.server.autoscaler import desired
from squall.server.dispatch.fleet.scaling import load_of
from squall.server.dispatch.function.dispatcher import GONE_MAX, ITEMS_WAITING_MAX, TURN_INPUTS_MAX
from squall.server.model.config import ServerConfig
from tests.server.doubles import FakeClient, FakeGuest, Stage, settle, staged


async def test_remote_call_starts_a_container_and_returns_its_output() -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        call = stage.client.call(spec.function_id, 7)
        outputs = await stage.done(call, 1)

        assert outputs[0].status == wire.SUCCEEDED
        assert outputs[0].value == b"14"
        assert len(stage.node.starts) == 1


async def test_map_returns_every_output_exactly_once() -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        call = stage.client.call(spec.function_id, *range(1_000))
        outputs = await stage.done(call, 1_000)

        assert [outputs[index].value for index in range(1_000)] == [str(2 * n).encode() for n in range(1_000)]
        assert call.copies == 0


async def test_call_of_an_unknown_function_fails_and_is_not_silent() -> None:
    async with staged() as stage:
        call = stage.client.call("fu-00000000nobody", 1, 2)
        outputs = await stage.done(call, 2)

        assert outputs[0].failure.kind == "not_found"
        assert "does not exist" in outputs[1].failure.message


async def test_duplicate_input_is_ignored() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.is_slow_to_load = True
        call = stage.client.open(spec.function_id)

        stage.client.put(call, {0: b"1"})
        stage.client.put(call, {0: b"1", 1: b"2"})
        await stage.until(lambda: stage.node.started and stage.node.started[0].boot)
        stage.node.started[0].ready()
        await stage.done(call, 2)

        assert stage.node.started[0].received == [0, 1]


async def test_cancelled_inputs_do_not_stay_in_the_queue() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.is_slow_to_load = True

        for _ in range(5):
            call = stage.client.call(spec.function_id, *range(1_000))
            await settle()
            stage.client.close_call(call)
            await settle()

        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        assert dispatcher.queued == 0
        assert len(dispatcher.queue) <= GONE_MAX


async def test_draining_container_ends_when_it_gives_back_the_last_it_holds() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        gate = asyncio.Event()

        async def held(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value

        stage.node.run = held
        call = stage.client.call(spec.function_id, 5)
        await stage.until(lambda: stage.node.started and stage.node.started[0].received)
        first = stage.node.started[0]
        container = stage.plane.fleet.containers[first.container_id]
        stage.plane.fleet.drain(container, "stopped by request")

        first.tell("GivenBack", InputRefs(call.call_id, (0,)))
        await stage.until(lambda: container.exit_reason)

        gate.set()
        outputs = await stage.done(call, 1)
        assert outputs[0].status == wire.SUCCEEDED


async def test_late_attempt_is_ignored() -> None:
    async with staged() as stage:
        spec = await stage.client.function(retries=2)
        call = stage.client.call(spec.function_id, 5)
        gate = asyncio.Event()

        async def slow(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value

        stage.node.run = slow
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        guest = stage.node.started[0]

        guest.output(call.call_id, 0, 7, b"of another attempt")
        await settle()
        assert not call.outputs

        gate.set()
        outputs = await stage.done(call, 1)
        assert outputs[0].value == b"5"


async def test_output_of_a_container_that_does_not_hold_the_input_is_ignored() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=2)
        await stage.until(lambda: len(stage.node.started) == 2)
        for guest in stage.node.started:
            guest.is_holding = True
        call = stage.client.call(spec.function_id, 5)
        await stage.until(lambda: any(guest.waiting for guest in stage.node.started))
        thief = next(guest for guest in stage.node.started if not guest.waiting)

        thief.output(call.call_id, 0, 0, b"stolen")
        await settle()

        assert not call.outputs


async def test_credit_grows_for_short_inputs_only() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        call = stage.client.call(spec.function_id, 1)
        await stage.done(call, 1)
        container = next(iter(stage.plane.fleet.containers.values()))

        await stage.done(stage.client.call(spec.function_id, *range(300)), 300)
        grown = container.credit
        stage.node.started[0].is_holding = True
        long = stage.client.call(spec.function_id, 1)
        await stage.until(lambda: stage.node.started[0].waiting)
        stage.node.started[0].waiting.clear()
        stage.node.started[0].output(long.call_id, 0, 0, b"2", run_us=30_000)
        await stage.done(long, 1)

        assert grown > 50
        assert container.credit == 1


async def test_inputs_behind_a_long_one_are_taken_back_for_an_idle_container() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=2, buffer_containers=1)
        await stage.done(stage.client.call(spec.function_id, *range(50)), 50)
        await stage.pass_time(1.0)
        gate = asyncio.Event()

        async def first_is_long(guest: FakeGuest, value: bytes) -> bytes:
            if value == b"0":
                await gate.wait()
            return value

        stage.node.run = first_is_long
        assert len(stage.node.guests) == 2
        one, two = stage.node.guests.values()
        two.is_holding = True
        call = stage.client.call(spec.function_id, *range(20))
        await stage.pass_time(0.2)
        two.is_holding = False
        two.begin()
        await stage.pass_time(2.0)

        assert sorted(call.outputs) == list(range(1, 20))
        assert call.outputs[19].attempt == 0
        gate.set()
        await stage.done(call, 20)
        assert call.copies == 0
        assert one is not two


async def test_inputs_that_turn_out_long_spread_over_idle_containers_soon() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=5, max_containers=5)
        await stage.until(lambda: len(stage.node.started) == 5)
        await stage.done(stage.client.call(spec.function_id, *range(500)), 500)
        stage.node.run = forever

        stage.client.call(spec.function_id, *range(5))
        await stage.pass_time(0.3)

        assert [len(guest.running) for guest in stage.node.started] == [1] * 5


async def test_take_back_and_output_may_cross() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        await stage.done(stage.client.call(spec.function_id, *range(50)), 50)
        guest = stage.node.started[0]
        guest.is_holding = True
        call = stage.client.call(spec.function_id, *range(4))
        await stage.until(lambda: len(guest.waiting) == 4)
        container = next(iter(stage.plane.fleet.containers.values()))

        # The guest answered 1 in the moment the server asked for it back: only 2 and 3 come back.
        stage.plane.apps.dispatchers[spec.function_id].returns.take_back(container, list(container.held)[1:])
        guest.output(call.call_id, 1, 0, b"2")
        guest.waiting = [one for one in guest.waiting if one[1] != 1]
        guest.running[call.call_id, 1] = asyncio.get_running_loop().create_future()
        await settle()
        guest.running.clear()
        guest.is_holding = False
        guest.begin()
        outputs = await stage.done(call, 4)

        assert [outputs[index].value for index in range(4)] == [b"0", b"2", b"4", b"6"]
        assert call.copies == 0


async def test_least_loaded_container_is_served_first() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=2, max_containers=2, max_inputs=10)
        await stage.until(lambda: len(stage.node.started) == 2)
        for guest in stage.node.started:
            guest.is_holding = True

        call = stage.client.open(spec.function_id)
        for index in range(6):
            stage.client.put(call, {index: b"1"})
            await settle(10)

        assert [len(guest.waiting) for guest in stage.node.started] == [3, 3]


async def test_container_runs_more_than_its_target_until_others_have_started() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_inputs=8, target_inputs=2)
        stage.node.run = _hold
        stage.client.call(spec.function_id, 1)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        dispatcher.service_us = dispatcher.expected_us = 100_000.0  # so that one input more is not worth a container

        for number in range(2, 7):
            stage.client.call(spec.function_id, number)
        await settle()
        assert len(stage.node.started[0].running) == 6
        await stage.pass_time(1.0)

        assert len(dispatcher.containers) == 3
        for number in range(7, 11):
            stage.client.call(spec.function_id, number)
            await settle()
        assert sorted(len(guest.running) for guest in stage.node.started) == [2, 2, 6]


@pytest.mark.parametrize(
    ("fields", "count", "headroom"),
    [
        ({}, 1, 1),
        ({"max_inputs": 4}, 3, 5),
        ({"max_inputs": 4}, 9, 0),
        ({"batching": Batching(5, 0)}, 3, 5),
        ({"batching": Batching(5, 0), "max_inputs": 2}, 3, 15),
        ({"is_single_use": True}, 1, 1),
    ],
)
async def test_headroom_is_what_containers_could_begin_now(fields: dict[str, Any], count: int, headroom: int) -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=2, max_containers=2, **fields)
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        await stage.until(lambda: len(dispatcher.free) == 2)
        stage.node.run = _hold
        stage.client.call(spec.function_id, *range(count))
        await settle()

        assert dispatcher.stats().input_headroom == headroom


async def test_container_is_filled_to_its_target_before_a_spare_one_is_used() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1, max_inputs=4, target_inputs=3)
        await stage.until(lambda: len(stage.node.started) == 1)
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        stage.plane.fleet.request(dispatcher, 2)
        await stage.until(lambda: len(dispatcher.free) == 3)
        stage.node.run = _hold

        for number in range(4):
            stage.client.call(spec.function_id, number)
            await settle()

        assert sorted(len(guest.running) for guest in stage.node.started) == [0, 1, 3]


async def test_container_that_ran_last_is_used_again() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=5, max_containers=5)
        await stage.until(lambda: len(stage.node.started) == 5)

        for number in range(20):
            await stage.done(stage.client.call(spec.function_id, number), 1)

        assert [len(guest.received) for guest in stage.node.started if guest.received] == [20]


async def test_short_inputs_go_out_in_few_frames_and_long_ones_to_everybody() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=5, max_containers=5)
        await stage.until(lambda: len(stage.node.started) == 5)
        await stage.done(stage.client.call(spec.function_id, *range(100)), 100)
        before = [len(guest.received) for guest in stage.node.started]
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]

        dispatcher.expected_us = 20.0
        await stage.done(stage.client.call(spec.function_id, 1, 2, 3, 4), 4)
        short = [len(guest.received) - count for guest, count in zip(stage.node.started, before, strict=True)]
        dispatcher.expected_us = 20_000.0
        await stage.done(stage.client.call(spec.function_id, 1, 2, 3, 4, 5), 5)
        both = [len(guest.received) - count for guest, count in zip(stage.node.started, before, strict=True)]

        assert sorted(short) == [0, 0, 0, 0, 4]
        assert [after - count for after, count in zip(both, short, strict=True)] == [1] * 5


@pytest.mark.parametrize(
    ("count", "later_s", "goes_on"),
    [(4, 0.0, True), (1, 0.0, False), (4, 0.015, False)],
    ids=["several", "one alone", "behind what seems to be long"],
)
async def test_short_inputs_go_on_where_others_run(count: int, later_s: float, goes_on: bool) -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=3, max_containers=3)
        await stage.until(lambda: len(stage.node.started) == 3)
        await stage.done(stage.client.call(spec.function_id, *range(300)), 300)
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        for guest in stage.node.started:
            guest.is_holding = True
        dispatcher.expected_us = 20.0
        stage.client.call(spec.function_id, 1, 2, 3, 4)
        await settle()
        busy = next(one for one in dispatcher.containers.values() if one.held)

        await stage.pass_time(later_s)
        dispatcher.expected_us = 20.0
        stage.client.call(spec.function_id, *range(count))
        await settle()

        held = sorted((len(one.held) for one in dispatcher.containers.values() if one is not busy), reverse=True)
        assert (len(busy.held), held) == ((4 + count, [0, 0]) if goes_on else (4, [count, 0]))


async def test_short_inputs_do_not_go_on_where_much_waits() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=2, max_containers=2)
        await stage.until(lambda: len(stage.node.started) == 2)
        await stage.done(stage.client.call(spec.function_id, *range(2_000)), 2_000)
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        for guest in stage.node.started:
            guest.is_holding = True
        dispatcher.expected_us = 50.0

        for _ in range(7):
            stage.client.call(spec.function_id, *range(19))
            await settle()

        # Before the sixth call less than 5 ms of work waited there, before the seventh more.
        assert sorted(len(one.held) for one in dispatcher.containers.values()) == [19, 6 * 19]


@pytest.mark.parametrize(("status", "run_us"), [(wire.SUCCEEDED, 200_000), (wire.FAILED, 1_000_000_000)])
async def test_one_long_input_among_many_short_ones_is_not_worth_containers(status: int, run_us: int) -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        await stage.done(stage.client.call(spec.function_id, *range(500)), 500)
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        guest = stage.node.started[0]
        guest.is_holding = True
        call = stage.client.call(spec.function_id, 1)
        await stage.until(lambda: guest.waiting)
        guest.waiting.clear()

        guest.output(call.call_id, 0, 0, encode_failure(Failure("user", "no")), status, run_us)
        await stage.done(call, 1)

        # The container itself is believed: what waited behind such a one would wait long.
        assert next(iter(dispatcher.containers.values())).credit == 1
        now = stage.clock.monotonic()
        assert desired(replace(load_of(dispatcher, now, 2), queued=1_000, scaling=Scaling())) <= 8


async def test_inputs_that_all_fail_are_measured() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1)
        await stage.until(lambda: stage.node.started)
        guest = stage.node.started[0]
        guest.is_holding = True
        call = stage.client.call(spec.function_id, 1)
        await stage.until(lambda: guest.waiting)
        guest.waiting.clear()

        guest.output(call.call_id, 0, 0, encode_failure(Failure("user", "no")), wire.FAILED, 5_000)
        await stage.done(call, 1)

        assert stage.plane.apps.dispatchers[spec.function_id].service_us == 5_000


async def test_too_many_queued_inputs_fail_with_exhausted() -> None:
    async with staged(ServerConfig(queued_inputs_max=25_000)) as stage:
        spec = await stage.client.function()
        stage.node.is_slow_to_load = True
        call = stage.client.open(spec.function_id)

        for first in range(0, 100_000, 1_000):
            stage.client.put(call, dict.fromkeys(range(first, first + 1000), b"1"))
            await settle(3)
        await settle()

        assert stage.plane.apps.dispatchers[spec.function_id].queued == 25_000
        assert len(call.outputs) == 75_000
        assert call.outputs[99_999].failure.kind == "exhausted"
        assert stage.plane.calls.waiting_bytes == 25_000


async def test_outputs_are_kept_for_a_client_that_comes_back() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        gate = asyncio.Event()

        async def slow(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value

        stage.node.run = slow
        values = {index: str(index).encode() for index in range(5)}
        call = stage.client.open(spec.function_id)
        stage.client.put(call, values)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        stage.client.disconnect()
        gate.set()
        await stage.pass_time(1.0)
        await stage.client.connect()
        stage.client.resume(call, values)
        outputs = await stage.done(call, 5)

        assert [outputs[index].value for index in range(5)] == list(values.values())
        assert stage.node.started[0].received == [0, 1, 2, 3, 4]


async def test_what_a_client_forgot_is_cancelled() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1, 2)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)

        stage.client.close_call(call)
        await settle()

        assert not stage.node.started[0].running
        assert len(stage.plane.calls) == 0
        assert stage.plane.calls.waiting_bytes == 0


async def test_generator_items_pass_through_and_credit_comes_back() -> None:
    async with staged() as stage:
        spec = await stage.client.function(is_generator=True)
        stage.node.run = forever
        call = stage.client.open(spec.function_id, wire.GENERATOR)
        stage.client.put(call, {0: b"3"})
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        guest = stage.node.started[0]

        guest.items(call.call_id, 0, 0, [b"a", b"b"])
        guest.items(call.call_id, 0, 2, [b"c"])
        await settle()
        stage.client.disconnect()
        guest.items(call.call_id, 0, 3, [b"d"])
        await stage.pass_time(0.5)
        await stage.client.connect()
        stage.client.tell("CallOpen", wire.CallOpen(call.call_id, spec.function_id, wire.GENERATOR))
        stage.client.tell("ItemCredit", wire.ItemCredit(call.call_id, 0, 2))
        await settle()

        assert call.items == [b"a", b"b", b"c", b"d"]
        kept = stage.plane.calls.get(call.call_id)
        assert kept is not None
        assert [one.record.first for one in kept.items if isinstance(one.record, ItemBatch)] == [2, 3]


async def test_container_that_sends_items_nobody_asked_for_is_ended() -> None:
    async with staged() as stage:
        spec = await stage.client.function(is_generator=True)
        stage.node.run = forever
        call = stage.client.open(spec.function_id, wire.GENERATOR)
        stage.client.put(call, {0: b"3"})
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        guest = stage.node.started[0]

        for batch in range(8):
            guest.items(call.call_id, 0, batch * 1_000, [b"x"] * 1_000)
        await stage.done(call, 1)

        kept = 1_000 * (ITEMS_WAITING_MAX // 1_000 + 1)
        assert len(call.items) == kept
        assert call.outputs[0].status != wire.SUCCEEDED


@pytest.mark.parametrize(
    ("indexes", "sizes", "body"),
    [((), (), b"junk"), ((0,), (1,), b"junk"), ((0,), (-5,), b""), ((0,), (4, 0), b"junk"), ((0,), (), b"")],
    ids=["no output", "a part", "a negative size", "too many sizes", "too few sizes"],
)
async def test_outputs_that_are_not_of_their_body_are_refused(
    indexes: tuple[int, ...], sizes: tuple[int, ...], body: bytes
) -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 7)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        guest = stage.node.started[0]

        record = wire.OutputBatch(call.call_id, indexes, (wire.SUCCEEDED,) * len(indexes), sizes, (0,) * len(indexes))
        container = stage.plane.fleet.containers[guest.container_id]
        with pytest.raises(ValueError, match="sizes"):
            container.dispatcher.put_outputs(container, record, body)
        await settle()
        assert call.outputs == {}
        guest.tell("Outputs", wire.OutputBatch(call.call_id, (0,), (wire.SUCCEEDED,), (2,), (0,)), b"ok")
        outputs = await stage.done(call, 1)

        assert outputs[0].value == b"ok"


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"statuses": ()}, b"ok"),
        ({"statuses": (0, 0)}, b"ok"),
        ({"statuses": (9,)}, b"ok"),
        ({"attempts": (0, 0)}, b"ok"),
        ({"attempts": (2**31,)}, b"ok"),
        ({"run_us": (1, 1)}, b"ok"),
        ({"run_us": (2**63,)}, b"ok"),
        ({"run_us": (-1,)}, b"ok"),
        ({"sizes": (-1,), "blobs": {"0": "x" * 1_000}}, b""),
        ({"sizes": (-1,), "blobs": {"1": "ab" * 32}}, b""),
    ],
)
async def test_outputs_that_nobody_could_take_are_refused(fields: dict[str, Any], body: bytes) -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 7)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        container = stage.plane.fleet.containers[stage.node.started[0].container_id]
        columns: dict[str, Any] = {"indexes": (0,), "statuses": (0,), "sizes": (2,), "attempts": (0,), "run_us": (1,)}

        with pytest.raises(ValueError, match=r"output|blobs"):
            container.dispatcher.put_outputs(container, wire.OutputBatch(call.call_id, **{**columns, **fields}), body)

        assert len(container.held) == 1


async def test_inputs_in_blobs_without_a_name_are_refused() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call = stage.client.open(spec.function_id)
        await settle()
        known = stage.plane.calls.get(call.call_id)
        assert known is not None

        with pytest.raises(ValueError, match="blobs"):
            known.dispatcher.put(known, wire.InputBatch(call.call_id, (0,), (-1,), (), {"0": "x" * 1_000}), b"")

        assert not known.inputs


async def test_single_use_container_serves_one_input() -> None:
    async with staged() as stage:
        spec = await stage.client.function(is_single_use=True)

        call = stage.client.call(spec.function_id, 1, 2, 3)
        await stage.done(call, 3)
        await settle()

        assert all(len(guest.received) == 1 for guest in stage.node.started if guest.received)
        assert len([guest for guest in stage.node.started if guest.received]) == 3


async def forever(guest: FakeGuest, value: bytes) -> bytes:
    """A function that never ends by itself."""
    await asyncio.Event().wait()
    return value


async def test_a_single_call_overtakes_the_map_of_another_client() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        other = await FakeClient(stage.plane, stage.codec).connect()
        stage.node.is_slow_to_load = True
        stage.client.call(spec.function_id, *range(1_000))
        single = other.call(spec.function_id, 7)
        await stage.until(lambda: stage.node.started and stage.node.started[0].boot)

        stage.node.started[0].ready()
        await stage.until(lambda: single.outputs)

        assert len(stage.node.started[0].begun) < 20


async def test_only_so_many_inputs_are_handed_out_in_a_turn() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.is_slow_to_load = True
        await _put_many(stage, spec, 2 * TURN_INPUTS_MAX)
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        container = next(iter(dispatcher.containers.values()))

        container.credit = 4 * TURN_INPUTS_MAX
        dispatcher.ready(container, 4 * TURN_INPUTS_MAX)
        await asyncio.sleep(0)
        first_turn = len(container.held)
        await asyncio.sleep(0)

        assert first_turn == TURN_INPUTS_MAX
        assert len(container.held) == 2 * TURN_INPUTS_MAX


async def _hold(guest: FakeGuest, value: bytes) -> bytes:
    await asyncio.Event().wait()
    return value


async def _put_many(stage: Stage, spec: FunctionSpec, count: int) -> None:
    """Inputs for a container that is started and not ready."""
    stage.client.call(spec.function_id, *range(count))
    await stage.until(lambda: stage.node.started and stage.node.started[0].boot)
