"""Batches on their way: formed of many calls, handed out whole, and what becomes of them when things go wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from squall.protocol import call as wire
from squall.protocol.function import Batching, FunctionSpec
from squall.server.dispatch.fleet.container import FROM_BEFORE
from squall.server.dispatch.fleet.scaling import load_of
from squall.server.dispatch.function.batches import GONE_MAX
from squall.server.dispatch.function.dispatcher import FRAME_BYTES_MAX, Dispatcher
from tests.server.doubles import Failed, FakeGuest, Stage, settle, staged


async def function(stage: Stage, size: int, wait_ms: int, **fields: Any) -> FunctionSpec:
    return await stage.client.function(batching=Batching(size, wait_ms), **fields)


async def started(stage: Stage, count: int = 1) -> list[FakeGuest]:
    """Containers that are ready and hold what they are given."""
    await stage.until(lambda: len(stage.node.started) == count)
    await stage.until(lambda: all(one.is_ready for one in stage.plane.fleet.containers.values()))
    for guest in stage.node.started:
        guest.is_holding = True
    return stage.node.started


def dispatcher_of(stage: Stage, spec: FunctionSpec) -> Dispatcher:
    return stage.plane.apps.dispatchers[spec.function_id]


def sizes(guest: FakeGuest) -> list[int]:
    """How many inputs each batch had, in the order in which they came."""
    found: dict[int, int] = {}
    for frame in guest.frames:
        found[frame.batch] = found.get(frame.batch, 0) + len(frame.indexes)
        assert found[frame.batch] <= frame.batch_size
    return list(found.values())


async def test_full_batch_goes_out_at_once_and_the_rest_when_it_has_waited() -> None:
    async with staged() as stage:
        spec = await function(stage, 4, 200, min_containers=1, max_inputs=3)
        (guest,) = await started(stage)

        stage.client.call(spec.function_id, *range(6))
        await settle()
        at_once = sizes(guest)
        await stage.pass_time(0.19)
        before = sizes(guest)
        await stage.pass_time(0.02)

        assert (at_once, before, sizes(guest)) == ([4], [4], [4, 2])
        assert guest.boot is not None
        assert guest.boot.is_batched
        assert guest.boot.max_inputs == 3


async def test_batch_is_made_of_many_calls() -> None:
    async with staged() as stage:
        spec = await function(stage, 3, 10_000, min_containers=1)
        (guest,) = await started(stage)

        for number in range(3):
            stage.client.call(spec.function_id, number)
        await settle()

        assert sizes(guest) == [3]
        assert len({frame.call_id for frame in guest.frames}) == 3
        assert {(frame.batch, frame.batch_size) for frame in guest.frames} == {(1, 3)}


async def test_waiting_begins_with_the_first_input_and_not_with_the_last() -> None:
    async with staged() as stage:
        spec = await function(stage, 10, 250, min_containers=1)
        (guest,) = await started(stage)

        for number in range(4):
            stage.client.call(spec.function_id, number)
            await stage.pass_time(0.1)

        assert sizes(guest) == [3]


async def test_input_cancelled_before_the_others_does_not_make_them_due() -> None:
    async with staged() as stage:
        spec = await function(stage, 10, 300, min_containers=1)
        (guest,) = await started(stage)

        first = stage.client.call(spec.function_id, 1)
        await stage.pass_time(0.2)
        stage.client.call(spec.function_id, 2)
        await settle()
        stage.client.close_call(first)
        await stage.pass_time(0.2)
        early = sizes(guest)
        await stage.pass_time(0.15)

        assert (early, sizes(guest)) == ([], [1])


async def test_container_holds_as_many_batches_as_it_may_run_at_once() -> None:
    async with staged() as stage:
        spec = await function(stage, 2, 0, min_containers=1, max_containers=1, max_inputs=2)
        (guest,) = await started(stage)

        call = stage.client.call(spec.function_id, *range(7))
        await settle()
        assert sizes(guest) == [2, 2]

        guest.output(call.call_id, 0, 0, b"0")
        await settle()
        assert sizes(guest) == [2, 2]
        guest.output(call.call_id, 1, 0, b"1")
        await settle()
        assert sizes(guest) == [2, 2, 2]


async def test_all_inputs_get_their_output() -> None:
    async with staged() as stage:
        spec = await function(stage, 7, 20, max_inputs=2)

        calls = [stage.client.call(spec.function_id, *range(count)) for count in (1, 100, 3, 50)]
        for call, count in zip(calls, (1, 100, 3, 50), strict=True):
            outputs = await stage.done(call, count)
            assert [outputs[index].value for index in range(count)] == [str(2 * n).encode() for n in range(count)]
            assert call.copies == 0
        assert all(not one.batches for one in dispatcher_of(stage, spec).containers.values())


async def test_large_arguments_are_sent_in_several_frames_of_one_batch() -> None:
    async with staged() as stage:
        spec = await function(stage, 40, 10_000, min_containers=1)
        (guest,) = await started(stage)
        call = stage.client.open(spec.function_id)

        for index in range(40):
            stage.client.put(call, {index: b"7" * 2**20})
            await settle(3)
        await settle()

        assert sizes(guest) == [40]
        assert len(guest.frames) > 1
        assert all(sum(frame.sizes) <= FRAME_BYTES_MAX for frame in guest.frames)
        assert {frame.batch_size for frame in guest.frames} == {40}


async def test_inputs_of_a_batch_that_failed_are_retried_together() -> None:
    async with staged() as stage:
        spec = await function(stage, 4, 500, retries=1)
        tries: list[bytes] = []

        async def fail_once(guest: FakeGuest, value: bytes) -> bytes:
            tries.append(value)
            if tries.count(value) == 1:
                raise Failed
            return value

        stage.node.run = fail_once
        call = stage.client.call(spec.function_id, 1, 2, 3, 4)
        outputs = await stage.done(call, 4)

        assert all(one.status == wire.SUCCEEDED for one in outputs.values())
        assert sizes(stage.node.started[0]) == [4, 4]


async def test_single_input_is_retried_alone_and_waits_for_company() -> None:
    async with staged() as stage:
        spec = await function(stage, 2, 300, retries=1)
        tries: list[bytes] = []

        async def fail_one(guest: FakeGuest, value: bytes) -> bytes:
            tries.append(value)
            if value == b"1" and tries.count(value) == 1:
                raise Failed
            return value

        stage.node.run = fail_one
        call = stage.client.call(spec.function_id, 1, 2)
        await stage.done(call, 2)

        assert sizes(stage.node.started[0]) == [2, 1]


async def test_container_that_crashed_leaves_batches_of_one() -> None:
    async with staged() as stage:
        spec = await function(stage, 3, 0, max_containers=1)
        stage.node.run = _never
        call = stage.client.call(spec.function_id, 1, 2, 3)
        await stage.until(lambda: stage.node.started and len(stage.node.started[0].running) == 3)

        stage.node.run = _back
        stage.node.started[0].exit(139, signal=11)
        outputs = await stage.done(call, 3)

        assert all(one.status == wire.SUCCEEDED for one in outputs.values())
        assert [size for guest in stage.node.started[1:] for size in sizes(guest)] == [1, 1, 1]


async def test_batch_of_a_lost_container_does_not_wait_again() -> None:
    async with staged() as stage:
        spec = await function(stage, 10, 60_000, max_containers=1)
        stage.node.run = _never
        call = stage.client.call(spec.function_id, 1, 2)
        await stage.pass_time(61.0, 1.0)
        await stage.until(lambda: stage.node.started and len(stage.node.started[0].running) == 2)

        stage.node.run = _back
        container = stage.plane.fleet.containers[stage.node.started[0].container_id]
        stage.plane.fleet.kill(container, "stopped by request")
        outputs = await stage.done(call, 2)

        assert [one.status for one in outputs.values()] == [wire.SUCCEEDED] * 2


async def test_cancelled_input_leaves_its_batch_and_the_others_are_answered() -> None:
    async with staged() as stage:
        spec = await function(stage, 2, 10_000, min_containers=1, max_containers=1)
        gate = asyncio.Event()

        async def held(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value

        stage.node.run = held
        first, second = stage.client.call(spec.function_id, 1), stage.client.call(spec.function_id, 2)
        await stage.until(lambda: stage.node.started and len(stage.node.started[0].running) == 2)
        stage.client.close_call(first)
        await settle()
        container = next(iter(dispatcher_of(stage, spec).containers.values()))
        assert list(container.batches.values()) == [1]

        gate.set()
        assert (await stage.done(second, 1))[0].value == b"2"
        assert container.batches == {}
        assert container in dispatcher_of(stage, spec).free


async def test_inputs_over_their_time_are_stopped_all_together() -> None:
    async with staged() as stage:
        spec = await function(stage, 2, 0, max_containers=1, timeout_s=1.0)
        stage.node.run = _never
        call = stage.client.call(spec.function_id, 1, 2)
        await stage.until(lambda: stage.node.started and len(stage.node.started[0].running) == 2)

        await stage.pass_time(1.5)

        assert [one.failure.kind for one in call.outputs.values()] == ["timed_out"] * 2


async def test_autoscaler_counts_batches() -> None:
    async with staged() as stage:
        spec = await function(stage, 10, 60_000, min_containers=1, max_containers=1, max_inputs=2)
        await started(stage)
        stage.client.call(spec.function_id, *range(35))
        await settle()

        load = load_of(dispatcher_of(stage, spec), stage.clock.monotonic(), 2)

        assert (load.running, load.queued, load.busy) == (2, 2, 1)


async def test_a_container_is_started_while_a_batch_fills() -> None:
    async with staged() as stage:
        spec = await function(stage, 10, 60_000)

        stage.client.call(spec.function_id, *range(3))
        await stage.until(lambda: stage.node.started)
        await stage.pass_time(1.0)

        assert len(stage.node.started) == 1
        assert not stage.node.started[0].frames


async def test_containers_are_filled_to_their_target_before_another_one_is_used() -> None:
    async with staged() as stage:
        spec = await function(stage, 2, 0, min_containers=2, max_containers=3, max_inputs=4, target_inputs=2)
        await started(stage, 2)
        dispatcher = dispatcher_of(stage, spec)
        stage.plane.fleet.request(dispatcher, 1)
        guests = await started(stage, 3)

        stage.client.call(spec.function_id, *range(6))
        await settle()

        assert sorted(len(sizes(guest)) for guest in guests) == [0, 1, 2]


async def test_what_ran_before_a_restart_fills_its_container_until_it_is_answered() -> None:
    async with staged() as stage:
        spec = await function(stage, 3, 0, min_containers=1, max_containers=1, max_inputs=2)
        gate = asyncio.Event()

        async def held(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value

        stage.node.run = held
        call = stage.client.call(spec.function_id, 1, 2, 3)
        await stage.until(lambda: stage.node.started and len(stage.node.started[0].running) == 3)
        guest = stage.node.started[0]

        await stage.restart()
        await stage.client.connect()
        await stage.take_up(spec)
        stage.client.resume(call, {0: b"1", 1: b"2", 2: b"3"})
        late = stage.client.call(spec.function_id, 4)
        await stage.until(lambda: FROM_BEFORE in stage.plane.fleet.containers[guest.container_id].batches)
        await stage.pass_time(0.2)
        container = stage.plane.fleet.containers[guest.container_id]
        assert (len(container.held), container.batches) == (3, {FROM_BEFORE: 3})
        assert len(guest.running) == 3

        gate.set()
        outputs = await stage.done(call, 3)
        assert [outputs[index].value for index in range(3)] == [b"1", b"2", b"3"]
        assert (await stage.done(late, 1))[0].value == b"4"
        assert len(guest.begun) == 4


async def test_what_was_lost_with_a_connection_is_run_in_another_batch() -> None:
    async with staged() as stage:
        spec = await function(stage, 3, 600_000, min_containers=1, max_containers=1)
        (guest,) = await started(stage)
        call = stage.client.call(spec.function_id, 1, 2, 3)
        await settle()
        assert sizes(guest) == [3]

        await guest.connect(is_reconnect=True)
        guest.is_holding = False
        outputs = await stage.done(call, 3)

        assert {one.status for one in outputs.values()} == {wire.SUCCEEDED}
        assert sizes(guest) == [3, 3]


async def test_deploy_changes_what_a_batch_is_for_what_waits_already() -> None:
    async with staged() as stage:
        spec = await function(stage, 10, 600_000, min_containers=1, max_containers=1)
        (guest,) = await started(stage)
        stage.client.call(spec.function_id, *range(5))
        await stage.pass_time(1.0)
        assert sizes(guest) == []
        dispatcher = dispatcher_of(stage, spec)

        dispatcher.revise(replace(spec, batching=Batching(2, 200)))
        await stage.pass_time(0.1)
        assert sizes(guest) == [2]
        assert (dispatcher.max_inputs, dispatcher.queued) == (2, 3)


async def test_function_that_takes_batches_from_now_on_runs_what_waits() -> None:
    async with staged() as stage:
        spec = await stage.client.function(min_containers=1, max_containers=1)
        (guest,) = await started(stage)
        stage.client.call(spec.function_id, *range(4))
        await settle()
        dispatcher = dispatcher_of(stage, spec)

        dispatcher.revise(replace(spec, batching=Batching(3, 600_000)))
        guest.output(guest.frames[0].call_id, 0, 0, b"0")
        await stage.pass_time(0.1)

        assert [frame.batch_size for frame in guest.frames] == [0, 3]


async def test_what_has_come_and_gone_is_forgotten_although_an_older_one_waits() -> None:
    async with staged() as stage:
        spec = await function(stage, 1_000, 600_000, min_containers=1, max_containers=1)
        await started(stage)
        stage.client.call(spec.function_id, 1)

        for _ in range(10):
            call = stage.client.call(spec.function_id, *range(900))
            await settle()
            stage.client.close_call(call)
            await settle()

        batches = dispatcher_of(stage, spec).batches
        assert batches is not None
        assert len(batches._came) <= GONE_MAX + 1_000


async def _never(guest: FakeGuest, value: bytes) -> bytes:
    await asyncio.Event().wait()
    return value


async def _back(guest: FakeGuest, value: bytes) -> bytes:
    return value
