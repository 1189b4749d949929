"""What a node is told of the container that it starts."""

from __future__ import annotations

import pytest

from squall.protocol.flight import ContainerFlight, ContainerShow
from squall.protocol.function import GVISOR, NAMESPACES
from squall.protocol.node import PATH_PARKED, PATH_PLAIN
from squall.server.dispatch.fleet.starts import CAUSE_CHARS_MAX
from tests.server.doubles import FakeGuest, Stage, settle, staged


async def test_a_container_starts_as_its_function_says() -> None:
    async with staged() as stage:
        spec = await stage.client.function(is_snapshot_enabled=True, isolation=GVISOR)

        await stage.done(stage.client.call(spec.function_id, 1), 1)

        started = stage.node.starts[0]
        assert (started.is_snapshot_enabled, started.isolation) == (True, GVISOR)


async def test_a_function_that_says_nothing_has_neither_snapshots_nor_another_kernel() -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        await stage.done(stage.client.call(spec.function_id, 1), 1)

        started = stage.node.starts[0]
        assert (started.is_snapshot_enabled, started.isolation) == (False, NAMESPACES)


async def test_flights_say_which_path_a_start_took_and_why_no_quicker_one() -> None:
    async with staged() as stage:
        stage.node.start_path = (PATH_PLAIN, "module watch started a thread" + "!" * 10_000)
        spec = await stage.client.function()

        await stage.done(stage.client.call(spec.function_id, 1), 1)

        shown = ContainerShow(stage.node.started[0].container_id)
        found = (await stage.client.ask("ContainerShow", shown, ContainerFlight)).container
        assert found.path == PATH_PLAIN
        assert found.path_cause.startswith("module watch started a thread!!!")
        assert len(found.path_cause) == CAUSE_CHARS_MAX


async def test_a_parked_copy_serves_before_its_node_has_answered() -> None:
    async with staged() as stage:
        stage.node.start_gate.clear()
        spec = await stage.client.function()
        call = stage.client.call(spec.function_id, 1)

        copy = await parked(stage)
        copy.tell("GuestCame", None)
        await stage.done(call, 1)

        container = next(iter(stage.plane.fleet.containers.values()))
        assert "process" not in container.phase_ms
        stage.node.start_gate.set()
        await settle()
        assert container.is_ready


async def test_what_a_copy_was_given_that_did_not_begin_runs_in_the_one_that_is_started_in_its_place() -> None:
    async with staged() as stage:
        stage.node.start_gate.clear()
        spec = await stage.client.function(max_containers=1)
        call = stage.client.call(spec.function_id, 1)
        copy = await parked(stage, is_holding=True)
        assert copy.received == [0]
        container = stage.plane.fleet.containers[copy.container_id]

        copy.disconnect()
        await settle()
        assert (container.is_ready, container.is_busy, container.dispatcher.queued) == (False, False, 1)
        stage.node.is_slow_to_load = True
        stage.node.start_gate.set()
        await settle()
        assert not container.is_ready, "the one in its place is still loading"
        (started,) = stage.node.started
        started.ready()
        await stage.done(call, 1)

        assert started.begun == [(0, 0)], "that was no attempt"


async def test_one_in_the_place_of_a_copy_has_its_own_time_to_start() -> None:
    async with staged() as stage:
        stage.node.start_gate.clear()
        spec = await stage.client.function(startup_timeout_s=20.0)
        call = stage.client.call(spec.function_id, 1)
        copy = await parked(stage, is_holding=True)
        copy.disconnect()
        stage.node.is_slow_to_load = True
        stage.node.start_gate.set()
        await settle()

        await stage.pass_time(21.0)

        assert call.outputs[0].failure.kind == "startup_timed_out"


async def test_one_in_the_place_of_a_copy_that_went_after_its_node_had_answered_has_its_time_too() -> None:
    async with staged() as stage:
        stage.node.start_gate.clear()
        spec = await stage.client.function(max_containers=1, startup_timeout_s=20.0)
        call = stage.client.call(spec.function_id, 1)
        copy = await parked(stage, is_holding=True)
        stage.node.has_announced_all = True
        stage.node.start_gate.set()
        await settle()
        container = stage.plane.fleet.containers[copy.container_id]
        assert "process" in container.phase_ms
        await stage.pass_time(15.0)

        copy.disconnect()
        await stage.pass_time(19.0)
        assert not call.outputs
        await stage.pass_time(2.0)

        assert call.outputs[0].failure.kind == "startup_timed_out"


@pytest.mark.parametrize("is_answered_first", [True, False])
async def test_a_parked_start_counts_once_whether_its_node_or_its_guest_is_the_first_to_say_so(
    is_answered_first: bool,
) -> None:
    async with staged() as stage:
        stage.node.start_gate.clear()
        stage.node.start_path = (PATH_PARKED, "")
        stage.node.has_announced_all = True
        spec = await stage.client.function()
        call = stage.client.call(spec.function_id, 1)
        copy = await parked(stage)

        if is_answered_first:
            stage.node.start_gate.set()
            await settle()
        copy.tell("GuestCame", None)
        await settle()
        stage.node.start_gate.set()
        await stage.done(call, 1)
        await settle()

        minute = stage.plane.calls.recorder.minutes[spec.function_id]
        assert (minute.started, minute.paths) == (1, {PATH_PARKED: 1})


async def test_what_a_copy_was_given_that_came_and_went_is_a_loss_like_any_other() -> None:
    async with staged() as stage:
        stage.node.start_gate.clear()
        spec = await stage.client.function(max_containers=1)
        stage.client.call(spec.function_id, 1)
        copy = await parked(stage, is_holding=True)
        copy.tell("GuestCame", None)
        await settle()
        container = stage.plane.fleet.containers[copy.container_id]

        copy.disconnect()
        await settle()

        # It may have begun: who holds it comes back, or its end is told.
        assert (container.is_ready, container.is_busy, container.dispatcher.queued) == (True, True, 0)
        stage.node.start_gate.set()
        await settle()


async def test_what_a_copy_was_given_runs_in_the_next_one_that_comes_before_its_own_end_is_known() -> None:
    async with staged() as stage:
        stage.node.start_gate.clear()
        spec = await stage.client.function(max_containers=1)
        call = stage.client.call(spec.function_id, 1)
        copy = await parked(stage, is_holding=True)
        assert copy.received == [0]
        container = stage.plane.fleet.containers[copy.container_id]
        stage.node.is_slow_to_load = True
        in_its_place = FakeGuest(stage.node, copy.container_id, copy.function_id)

        await in_its_place.connect()
        await settle()
        assert (container.is_ready, container.is_busy, container.dispatcher.queued) == (False, False, 1)
        in_its_place.ready()
        await stage.done(call, 1)

        assert in_its_place.begun == [(0, 0)], "that was no attempt"
        stage.node.start_gate.set()
        await settle()


async def parked(stage: Stage, *, is_holding: bool = False) -> FakeGuest:
    """A copy of a template that is announced while it is told who it is."""
    await stage.until(lambda: stage.node.starts)
    asked = stage.node.starts[-1]
    guest = FakeGuest(stage.node, asked.container_id, asked.function_id)
    guest.is_holding = is_holding
    await guest.connect(is_ahead=True)
    await settle()
    return guest
