"""The flight recorder: what is noted of each call, within bounds, and what of it outlives the server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from squall.protocol import call as wire
from squall.protocol.call import CallCancel, CallOpen, CallSpawn, CallSpawned, Failure, InputBatch, TraceFrame
from squall.protocol.call_id import owner_mark
from squall.protocol.container import ContainerStop
from squall.protocol.empty import Empty
from squall.protocol.errors import EXHAUSTED, UNAVAILABLE, PlatformError
from squall.protocol.flight import (
    CallFlight,
    CallGraph,
    CallGraphed,
    CallInput,
    CallInputGet,
    CallList,
    CallListing,
    CallReplay,
    CallShow,
    ContainerFlight,
    ContainerShow,
)
from squall.protocol.function import BY_FILE, Definition, FunctionSpec, MethodSpec
from squall.protocol.function_window import AppWindow, AppWindowGet, FunctionWindow, FunctionWindowGet
from squall.protocol.ids import input_id, new_id
from squall.protocol.server import ServerStatus, ServerStatusRequest
from squall.server.dispatch.app import variants
from squall.server.dispatch.clock import ManualClock
from squall.server.dispatch.flight.earlier import look_up
from squall.server.dispatch.flight.flights import COUNTED_MAX
from squall.server.dispatch.flight.keeper import DETAIL_CHARS_MAX, FlightKeeper
from squall.server.dispatch.flight.recorder import (
    CALL_SHARE,
    DETAILED_MAX,
    FAILED_MAX,
    KEPT_INPUTS_MAX,
    FlightRecorder,
    cut_short,
)
from squall.server.dispatch.function.input import Input
from squall.server.model.config import ServerConfig
from squall.server.model.flight import StoredFlight, StoredMinute
from squall.server.model.store import StoredCall, StoredInput, StoredOutput
from squall.server.store.memory import MemoryStore
from tests.server.dispatch.app.test_variants import MODEL, bind
from tests.server.doubles import Failed, FakeGuest, Stage, made_at, settle, staged


async def show(stage: Stage, call_id: str, **fields: Any) -> CallFlight:
    found: CallFlight = await stage.client.ask("CallShow", CallShow(call_id, **fields), CallFlight)
    return found


async def listed(stage: Stage, **fields: Any) -> list[str]:
    listing: CallListing = await stage.client.ask("CallList", CallList(**fields), CallListing)
    return [one.call_id for one in listing.calls]


async def spawned(stage: Stage, spec: FunctionSpec, value: bytes = b"7") -> str:
    call_id = new_id("fc")
    record = CallSpawn(CallOpen(call_id, spec.function_id, wire.SPAWN), InputBatch(call_id, (0,), (len(value),)))
    await stage.client.ask("CallSpawn", record, CallSpawned, value)
    return call_id


async def fail(guest: FakeGuest, value: bytes) -> bytes:
    raise Failed("user", f"no {value.decode()}")


async def code_of(stage: Stage, method: str, record: Any) -> tuple[str, str]:
    with pytest.raises(PlatformError) as raised:
        await stage.client.ask(method, record, Empty)
    return raised.value.code, raised.value.message


async def test_call_shows_where_its_time_went() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.is_slow_to_load = True
        call = stage.client.call(spec.function_id, 7)
        await stage.until(lambda: stage.node.started and stage.node.started[0].boot)
        await stage.pass_time(3.0)
        stage.node.started[0].ready()
        await stage.done(call, 1)

        flight = await show(stage, call.call_id)

        assert (flight.summary.status, flight.summary.function_name, flight.counts) == (
            "succeeded",
            "square",
            {"succeeded": 1},
        )
        (attempt,) = flight.inputs[0].attempts
        assert attempt.began_ms is not None
        assert 3_000 <= attempt.began_ms - attempt.queued_ms < 4_000
        assert attempt.finished_ms is not None
        assert attempt.finished_ms >= attempt.began_ms
        assert flight.containers[0].container.container_id == attempt.container_id
        assert "for a container to start" in flight.why[0]
        assert "import 1.0 ms" in flight.why[0]


async def test_running_and_queued_inputs_are_shown_as_they_are() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = lambda guest, value: stage.node.build_gate.wait()  # type: ignore[assignment, return-value]
        stage.node.build_gate.clear()
        call = stage.client.call(spec.function_id, 1, 2)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        await stage.pass_time(0.5)

        flight = await show(stage, call.call_id)

        assert flight.summary.status == "running"
        assert [one.status for one in flight.inputs] == ["running", "queued"]
        assert flight.inputs[0].attempts[0].finished_ms is None
        assert flight.summary.duration_ms is None


async def test_retries_are_told_with_their_failures_and_delays() -> None:
    async with staged() as stage:
        spec = await stage.client.function(retries=2)
        left = [1, 2]

        async def fail_twice(guest: FakeGuest, value: bytes) -> bytes:
            if left:
                raise Failed("user", f"{left.pop()} left")
            return value

        stage.node.run = fail_twice
        call = stage.client.call(spec.function_id, 7)
        await stage.pass_time(4.0)
        await stage.done(call, 1)

        flight = await show(stage, call.call_id)

        attempts = flight.inputs[0].attempts
        assert [one.status for one in attempts] == ["failed", "failed", "succeeded"]
        assert [one.retry_delay_ms for one in attempts] == [1_000.0, 2_000.0, 0.0]
        assert attempts[0].failure is not None
        assert attempts[0].failure.message == "2 left"
        assert flight.summary.status == "succeeded"
        assert any("put off by 2.0 s" in one for one in flight.why)


async def test_input_that_was_handed_ahead_and_failed_ran_as_long_as_its_container_says() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = fail
        call = stage.client.call(spec.function_id, *range(20))
        await stage.done(call, 20)

        flight = await show(stage, call.call_id)

        ran_ms = [
            (one.finished_ms or 0.0) - (one.began_ms or 0.0) for (one,) in (each.attempts for each in flight.inputs)
        ]
        assert len(ran_ms) == 20
        assert all(took == pytest.approx(0.05, abs=1e-3) for took in ran_ms), ran_ms


async def test_crash_of_a_container_is_an_attempt_with_how_it_ended() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = lambda guest, value: stage.node.build_gate.wait()  # type: ignore[assignment, return-value]
        stage.node.build_gate.clear()
        call = stage.client.call(spec.function_id, 7)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        stage.node.started[0].exit(None, 11)
        await stage.until(lambda: len(stage.node.started) > 1 and stage.node.started[1].running)

        flight = await show(stage, call.call_id)

        first = flight.inputs[0].attempts[0]
        assert (first.status, first.container_id) == ("lost", stage.node.started[0].container_id)
        assert first.failure is not None
        assert "SIGSEGV (segmentation fault)" in first.failure.message
        assert {one.container.exit_reason for one in flight.containers} == {"SIGSEGV (segmentation fault)", ""}


async def test_first_thousand_inputs_are_known_one_by_one_and_all_are_counted() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call = stage.client.open(spec.function_id)
        for start in range(0, 5_000, 500):
            stage.client.put(call, dict.fromkeys(range(start, start + 500), b"1"))
            await stage.done(call, start + 500)

        flight = await show(stage, call.call_id, limit=10)

        assert flight.counts == {"succeeded": 5_000}
        assert DETAILED_MAX <= flight.known_inputs < DETAILED_MAX + 500
        assert len(flight.inputs) == 10
        assert (await show(stage, call.call_id, first=990, limit=1)).inputs[0].index >= 990


async def test_failures_are_listed_and_their_arguments_kept_up_to_a_bound() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = fail
        call = stage.client.open(spec.function_id)
        count = FAILED_MAX + 200
        for start in range(0, count, 100):
            stage.client.put(call, {index: str(index).encode() for index in range(start, start + 100)})
            await stage.done(call, start + 100)
        await stage.pass_time(1.2)

        flight = await show(stage, call.call_id, is_failed=True, limit=1_000)

        assert flight.counts == {"failed": count}
        assert flight.summary.failed_count == count
        assert flight.known_inputs == FAILED_MAX
        assert [one.is_kept for one in flight.inputs].count(True) == KEPT_INPUTS_MAX
        got, body = await input_of(stage, call.call_id, 3)
        assert (got.function_id, body) == (spec.function_id, b"3")


async def input_of(stage: Stage, call_id: str, index: int) -> tuple[CallInput, bytes]:
    assert stage.client.peer is not None
    return await stage.client.peer.request_with_body("CallInputGet", CallInputGet(call_id, index), CallInput)


async def test_no_arguments_are_kept_where_that_is_turned_off() -> None:
    async with staged(ServerConfig(failed_input_bytes_max=0)) as stage:
        spec = await stage.client.function()
        stage.node.run = fail
        call = stage.client.call(spec.function_id, 7)
        await stage.done(call, 1)
        await stage.pass_time(1.2)

        assert not (await show(stage, call.call_id)).inputs[0].is_kept
        code, message = await code_of(stage, "CallInputGet", CallInputGet(call.call_id))
        assert code == "not_found"
        assert "SQUALL_FAILED_INPUT_BYTES_MAX=0" in message


async def test_arguments_of_cancelled_and_succeeded_inputs_are_not_kept() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        done = stage.client.call(spec.function_id, 7)
        await stage.done(done, 1)

        code, message = await code_of(stage, "CallInputGet", CallInputGet(done.call_id))
        assert (code, "did not fail" in message or "of inputs that failed" in message) == ("not_found", True)
        code, message = await code_of(stage, "CallInputGet", CallInputGet(done.call_id, 5))
        assert code == "invalid"
        assert "has no input 5" in message


async def test_failed_call_is_known_to_the_next_server() -> None:
    async with staged() as stage:
        spec = await stage.client.function(retries=1)
        stage.node.run = fail
        call = stage.client.call(spec.function_id, 7)
        await stage.pass_time(2.0)
        await stage.done(call, 1)
        stage.client.close_call(call)
        await stage.pass_time(1.2)
        before = await show(stage, call.call_id)

        await stage.restart()
        await stage.client.connect()
        flight = await show(stage, call.call_id)

        assert flight.inputs == before.inputs
        assert flight.summary == before.summary
        assert flight.containers == before.containers or flight.containers[0].container.function_name == "square"
        assert "started again" in flight.gaps
        assert await listed(stage, is_failed=True) == [call.call_id]
        assert (await input_of(stage, call.call_id, 0))[1] == b"7"


async def test_durable_call_is_known_to_the_next_server() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call_id = await spawned(stage, spec)
        await stage.until(lambda: stage.plane.calls.get(call_id) is None)
        await stage.pass_time(0.1)
        before = await show(stage, call_id)

        await stage.restart()
        await stage.client.connect()
        flight = await show(stage, call_id)

        (old,), (new,) = before.inputs[0].attempts, flight.inputs[0].attempts
        assert (new.status, new.container_id) == (old.status, old.container_id)
        assert new.finished_ms == pytest.approx(old.finished_ms, abs=2.0)
        assert new.began_ms == pytest.approx(old.began_ms, abs=2.0)
        assert flight.summary.status == "succeeded"
        assert flight.summary.function_name == "square"
        assert flight.summary.duration_ms == pytest.approx(new.finished_ms, abs=2.0)
        assert await listed(stage) == [call_id]
        assert await listed(stage, is_failed=True) == []


async def test_large_calls_in_the_store_are_not_counted_output_by_output() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        count = COUNTED_MAX + 1
        call = StoredCall("fc-00000000large", spec.function_id, spec.app_id, "spawn", stage.clock.now(), count)
        await stage.store.put_call(call, tuple(StoredInput(call.call_id, index) for index in range(count)))
        listing: CallListing = await stage.client.ask("CallList", CallList(), CallListing)
        assert [one.status for one in listing.calls] == ["queued"]

        await stage.store.put_outputs(tuple(StoredOutput(call.call_id, index, 0) for index in range(count)))
        listing = await stage.client.ask("CallList", CallList(), CallListing)

        assert [(one.status, one.input_count) for one in listing.calls] == [("succeeded", count)]
        assert (await show(stage, call.call_id, limit=5)).counts == {"succeeded": count}


async def test_call_that_was_not_durable_and_succeeded_is_forgotten_with_its_server() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call = stage.client.call(spec.function_id, 7)
        await stage.done(call, 1)
        stage.client.close_call(call)
        await stage.pass_time(1.2)

        await stage.restart()
        await stage.client.connect()

        code, message = await code_of(stage, "CallShow", CallShow(call.call_id))
        assert code == "not_found"
        assert "not kept" in message


@pytest.mark.parametrize(
    "call_id", ["", "fc-", "fc-\0", "x" * 5_000, "fc-00000000'; DROP TABLE calls", "ct-00000000nothing", "fc-../../etc"]
)
async def test_hostile_ids_are_not_found(call_id: str) -> None:
    async with staged() as stage:
        for method, record in (
            ("CallShow", CallShow(call_id)),
            ("CallGraph", CallGraph(call_id)),
            ("CallInputGet", CallInputGet(call_id)),
            ("CallReplay", CallReplay(call_id, new_id("fc"))),
            ("ContainerShow", ContainerShow(call_id)),
        ):
            code, message = await code_of(stage, method, record)
            assert code == "not_found"
            assert len(message) < 6_000


async def test_expired_call_says_so() -> None:
    async with staged() as stage:
        old = made_at(stage.clock.now() - 8 * 24 * 3600)

        assert (await code_of(stage, "CallShow", CallShow(old)))[0] == "expired"


async def test_replay_runs_the_kept_input_again() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = fail
        call = stage.client.call(spec.function_id, 4, 5)
        await stage.done(call, 2)

        async def give_back(guest: FakeGuest, value: bytes) -> bytes:
            return b"again " + value

        stage.node.run = give_back
        new = new_id("fc")
        await stage.client.ask("CallReplay", CallReplay(call.call_id, new, 1), CallSpawned)
        await stage.client.ask("CallReplay", CallReplay(call.call_id, new, 1), CallSpawned)
        await stage.until(lambda: stage.plane.calls.get(new) is None)
        await stage.pass_time(0.1)

        output = await stage.store.get_output(new, 0)
        assert output is not None
        assert output.value == b"again 5"
        assert (await show(stage, new)).summary.kind == "spawn"


async def test_generator_method_is_not_spawned_by_a_replay() -> None:
    async with staged() as stage:
        methods = (MethodSpec("items", is_generator=True),)
        spec = await stage.client.function(
            definition=Definition(BY_FILE, "hello", "Meter", is_class=True, methods=methods)
        )
        stage.node.run = fail
        call = stage.client.open(spec.function_id, wire.GENERATOR, method="items")
        stage.client.put(call, {0: b"4"})
        await stage.done(call, 1)

        with pytest.raises(PlatformError, match=rf"method items of class {spec.name} is a generator"):
            await stage.client.ask("CallReplay", CallReplay(call.call_id, new_id("fc"), 0), CallSpawned)


async def test_replay_wakes_an_object_that_sleeps() -> None:
    async with staged() as stage:
        spec = await stage.client.function(name="Model", definition=MODEL, scaledown_window_s=2.0)
        function_id = await bind(stage.client, spec)
        stage.node.run = fail
        call = stage.client.open(function_id, wire.REMOTE, method="run")
        stage.client.put(call, {0: b"4"})
        await stage.done(call, 1)
        stage.client.close_call(call)
        await stage.pass_time(2 * variants.IDLE_S, 1.0)
        assert function_id not in stage.plane.apps.dispatchers

        new = new_id("fc")
        await stage.client.ask("CallReplay", CallReplay(call.call_id, new), CallSpawned)

        assert (await show(stage, new)).summary.function_id == function_id


async def test_server_says_how_many_arguments_it_did_not_keep() -> None:
    async with staged(ServerConfig(failed_input_bytes_max=10)) as stage:
        spec = await stage.client.function()
        stage.node.run = fail
        call = stage.client.open(spec.function_id)
        stage.client.put(call, {0: b"1" * 11, 1: b"2" * 12, 2: b"3"})
        await stage.done(call, 3)

        status = await stage.client.ask("ServerStatus", ServerStatusRequest(), ServerStatus)

        assert status.dropped_inputs == 2


async def test_replay_needs_a_function_that_runs() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = fail
        call = stage.client.call(spec.function_id, 4)
        await stage.done(call, 1)
        await stage.plane.apps.stop(stage.plane.apps.live[spec.app_id], "done")

        code, message = await code_of(stage, "CallReplay", CallReplay(call.call_id, new_id("fc")))
        assert code == "not_found"
        assert "run or deploy it again" in message


async def test_calls_are_listed_by_app_function_and_failure() -> None:
    async with staged() as stage:
        good, bad = await stage.client.function(name="good"), await stage.client.function(name="bad")
        first = stage.client.call(good.function_id, 1)
        await stage.done(first, 1)
        stage.node.run = fail
        second = stage.client.call(bad.function_id, 2)
        await stage.done(second, 1)

        assert await listed(stage) == [second.call_id, first.call_id]
        assert await listed(stage, app=good.app_id) == [first.call_id]
        assert await listed(stage, function=bad.function_id) == [second.call_id]
        assert await listed(stage, app=bad.app_id, function="bad", is_failed=True) == [second.call_id]
        assert await listed(stage, is_failed=True) == [second.call_id]
        assert await listed(stage, limit=1) == [second.call_id]
        assert (await code_of(stage, "CallList", CallList(app=bad.app_id, function="none")))[0] == "not_found"
        assert (await code_of(stage, "CallList", CallList(function="bad")))[0] == "invalid"


async def test_graph_follows_calls_to_what_they_called() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=2)
        stage.node.run = lambda guest, value: stage.node.build_gate.wait()  # type: ignore[assignment, return-value]
        stage.node.build_gate.clear()
        outer = stage.client.call(spec.function_id, 1)
        await stage.until(lambda: stage.node.started and stage.node.started[0].running)
        inner = await spawned_by(stage, spec, input_id(outer.call_id, 0))
        foreign = await stage.client.function(name="other")
        await spawned_by(stage, foreign, input_id(outer.call_id, 0))

        graph: CallGraphed = await stage.client.ask("CallGraph", CallGraph(outer.call_id), CallGraphed)

        assert [(one.call_id, one.parent_input_id) for one in graph.inputs] == [
            (outer.call_id, ""),
            (inner, input_id(outer.call_id, 0)),
        ], "a call of another app that names this one as its parent is not believed"
        assert [one.call_id for one in (await show(stage, outer.call_id)).children] == [inner]
        assert (await show(stage, inner)).parent_function == "square"


async def spawned_by(stage: Stage, spec: FunctionSpec, parent: str) -> str:
    call_id = new_id("fc")
    opened = CallOpen(call_id, spec.function_id, wire.SPAWN, parent)
    await stage.client.ask("CallSpawn", CallSpawn(opened, InputBatch(call_id, (0,), (1,))), CallSpawned, b"1")
    return call_id


async def test_calls_that_name_each_other_as_parents_make_no_circle() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        first, second = new_id("fc"), new_id("fc")
        for call_id, parent in ((first, second), (second, first)):
            opened = CallOpen(call_id, spec.function_id, wire.SPAWN, input_id(parent, 0))
            record = CallSpawn(opened, InputBatch(call_id, (0,), (1,)))
            await stage.client.ask("CallSpawn", record, CallSpawned, b"1")

        graph: CallGraphed = await stage.client.ask("CallGraph", CallGraph(first), CallGraphed)

        assert [one.call_id for one in graph.inputs] == [first, second]


async def test_container_shows_its_phases_and_what_it_served() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        call = stage.client.call(spec.function_id, 1, 2, 3)
        await stage.done(call, 3)
        container_id = stage.node.started[0].container_id

        found: ContainerFlight = await stage.client.ask("ContainerShow", ContainerShow(container_id), ContainerFlight)
        assert {"placed", "process", "connected", "import", "ready", "first_input"} <= found.container.phase_ms.keys()
        assert (found.succeeded_inputs, found.failed_inputs) == (3, 0)

        await stage.client.ask("ContainerStop", ContainerStop(container_id), Empty)
        await stage.until(lambda: container_id in stage.plane.fleet.stopped)
        ended: ContainerFlight = await stage.client.ask("ContainerShow", ContainerShow(container_id), ContainerFlight)
        assert ended.container.exit_reason == "stopped by request"


async def test_cancelled_call_is_not_a_failed_one() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.start_gate.clear()
        call_id = await spawned(stage, spec)
        await stage.client.ask("CallCancel", CallCancel(call_id), Empty)
        await settle()

        assert (await show(stage, call_id)).summary.status == "cancelled"
        assert await listed(stage, is_failed=True) == []


async def test_window_counts_what_happened_in_it() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        call = stage.client.call(spec.function_id, *range(50))
        await stage.done(call, 50)
        stage.node.run = fail
        failing = stage.client.call(spec.function_id, 1)
        await stage.done(failing, 1)
        await stage.pass_time(70.0, 1.0)
        await stage.restart()
        await stage.client.connect()

        window: FunctionWindow = await stage.client.ask(
            "FunctionWindow", FunctionWindowGet(spec.function_id), FunctionWindow
        )
        app: AppWindow = await stage.client.ask("AppWindow", AppWindowGet(spec.app_id), AppWindow)

        assert (window.succeeded_inputs, window.failed_inputs) == (50, 1)
        assert window.started_containers >= 1
        assert window.run.values_s[0] == pytest.approx(50e-6, rel=0.07)
        assert app.functions["square"].succeeded_inputs == 50
        assert app.function_ids == {"square": spec.function_id}
        later = FunctionWindowGet(spec.function_id, stage.clock.now() - 1.0)
        nothing: FunctionWindow = await stage.client.ask("FunctionWindow", later, FunctionWindow)
        assert nothing.succeeded_inputs == 0


@pytest.mark.parametrize(("since", "until"), [(5.0, 5.0), (6.0, 5.0), (0.0, 8 * 24 * 3600.0)])
async def test_impossible_windows_are_refused(since: float, until: float) -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        code, message = await code_of(stage, "FunctionWindow", FunctionWindowGet(spec.function_id, since, until))
        assert code == "invalid"
        assert "window" in message


# Bounds


class _Spec:
    function_id, app_id, name, variant_of = "fu-1", "ap-1", "f", ""


class _StoreAway(MemoryStore):
    """Nothing can be written."""

    async def put_minutes(self, minutes: tuple[StoredMinute, ...]) -> None:
        raise PlatformError(UNAVAILABLE, "the database is away")


class _Dispatcher:
    spec, app_name = _Spec(), "app"


def make_call(number: int, *, is_durable: bool = False) -> Any:
    from squall.server.dispatch.function.input import Call

    dispatcher: Any = _Dispatcher()
    call = Call(f"fc-{number:022d}", wire.MAP, dispatcher, None, 0.0, None)  # type: ignore[arg-type]
    call.is_durable = is_durable
    return call


@pytest.mark.long
def test_hundred_thousand_calls_stay_within_the_bounds() -> None:
    recorder = FlightRecorder(ManualClock(), calls_max=1_000, bytes_max=2**20)
    alive = make_call(999_999)
    recorder.opened(alive)

    for number in range(100_000):
        call = make_call(number)
        recorder.opened(call)
        recorder.outputs(call, None, (0,), (), (5,), 0.0, 1.0)
        call.input_count = 1
        recorder.ended_call(call)

    assert len(recorder.living) + len(recorder.ended) <= 1_000
    assert sum(one.bytes for one in recorder.ended.values()) <= 2**20
    assert recorder.get(alive.call_id) is not None, "what ended goes before what lives"
    assert recorder.get(f"fc-{99_999:022d}") is not None
    recorder.fold()
    assert recorder.minutes["fu-1"].succeeded == 100_000, "what is forgotten was counted"
    assert sum(recorder.minutes["fu-1"].run_us.values()) == 100_000


def test_calls_that_live_are_forgotten_when_they_alone_are_too_many() -> None:
    recorder = FlightRecorder(ManualClock(), calls_max=10)
    calls = [make_call(number) for number in range(30)]
    for call in calls:
        recorder.opened(call)

    assert len(recorder.living) == 10
    recorder.outputs(calls[0], None, (0,), (), (5,), 0.0, 1.0)
    recorder.ended_call(calls[0])
    assert recorder.get(calls[0].call_id) is None


def test_one_call_does_not_fill_the_memory_of_all() -> None:
    recorder = FlightRecorder(ManualClock(), bytes_max=2**20)
    call = make_call(1)
    recorder.opened(call)
    failure = Failure("user", "no", traceback="t" * 8_000)

    for index in range(500):
        for _ in range(5):
            recorder.retried(Input(call, index, b"", "", 0.0), "ct-1", wire.FAILED, failure, 1.0)
        recorder.failed(call, (Input(call, index, b"", "", 0.0),), "ct-1", wire.FAILED, failure)

    track = recorder.get(call.call_id)
    assert track is not None
    assert track.bytes < 2**20 // CALL_SHARE + 10_000
    assert track.counts[wire.FAILED] == 500, "what is not known one by one is counted"
    assert 0 in track.attempts


async def test_numbers_that_cannot_be_written_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("squall.server.dispatch.flight.keeper.UNWRITTEN_MINUTES_MAX", 50)
    clock = ManualClock()
    recorder = FlightRecorder(clock)
    keeper = FlightKeeper(recorder, _StoreAway(), clock, ServerConfig(), find=lambda _: None, look=lambda _: None)

    for number in range(200):
        call = make_call(number)
        recorder.opened(call)
        recorder.outputs(call, None, (0,), (), (5,), clock.monotonic(), clock.monotonic())
        await keeper.tick()
        clock.advance(61.0)

    left = keeper.unwritten_minutes()
    assert len(left) <= 51
    assert max(one.began_at for one in left) > clock.now() - 200, "the latest stay"


def test_durable_call_that_leaves_memory_and_comes_back_is_one() -> None:
    recorder = FlightRecorder(ManualClock())
    for first in (0, 1):
        call = make_call(1, is_durable=True)
        recorder.opened(call)
        recorder.outputs(call, None, (first,), (), (5,), 0.0, 1.0)
        call.input_count = 1
        recorder.ended_call(call)

    track = recorder.get(call.call_id)
    assert track is not None
    assert (track.counts[0], track.input_count, len(recorder.ended)) == (2, 2, 1)


def test_texts_of_failures_are_bounded_and_clean() -> None:
    frames = tuple(TraceFrame("f" * 9_999, 1, "n\ud800", "t" * 9_999) for _ in range(99))
    failure = cut_short(Failure("user", "m\ud800" * 9_999, "T" * 9_999, "b" * 99_999, frames))

    assert len(json.dumps([failure.message, failure.traceback, failure.type_name])) < 12_000
    assert len(failure.frames) == 20
    failure.message.encode()


async def test_what_is_kept_of_one_call_is_bounded() -> None:
    async with staged() as stage:
        spec = await stage.client.function()

        async def fail_long(guest: FakeGuest, value: bytes) -> bytes:
            raise Failed("user", "long " * 9_999)

        stage.node.run = fail_long
        call = stage.client.call(spec.function_id, *range(200))
        await stage.done(call, 200)
        await stage.pass_time(1.2)

        kept = await stage.store.get_flight(call.call_id)
        assert kept is not None
        assert len(kept.detail) <= DETAIL_CHARS_MAX
        assert kept.call_id.endswith(owner_mark(stage.client.client_id))


@pytest.mark.parametrize("detail", ["{}", "no JSON"])
async def test_flight_that_cannot_be_read_does_not_keep_others_from_being_written(detail: str) -> None:
    class Unreadable(MemoryStore):
        async def get_flight(self, call_id: str) -> StoredFlight | None:
            return StoredFlight(call_id, "fu-1", "ap-1", 1.0, 2.0, True, "{}", detail)

    async with staged() as stage:
        spec = await stage.client.function()
        call = stage.client.call(spec.function_id, 1)
        await stage.until(lambda: call.call_id in stage.plane.calls.recorder.living)
        track = stage.plane.calls.recorder.living[call.call_id]

        await look_up(Unreadable(), stage.plane.calls.recorder, track)

        assert track.is_looked_up
        assert track.earlier is None


async def test_call_that_is_forgotten_while_the_store_is_asked_is_not_written_over_what_there_is() -> None:
    clock = ManualClock()
    recorder = FlightRecorder(clock, calls_max=1)
    kept = StoredFlight("fc-" + "0" * 21 + "1", "fu-1", "ap-1", 1.0, 2.0, True, "{}", "what an earlier server wrote")

    class Busy(MemoryStore):
        async def get_flight(self, call_id: str) -> StoredFlight | None:
            recorder.opened(make_call(2))  # there is room for one
            return None

    store = Busy()
    await store.put_flights((kept,), (), 2.0)
    keeper = FlightKeeper(recorder, store, clock, ServerConfig(), find=lambda _: None, look=lambda _: None)
    call = make_call(1)
    recorder.opened(call)
    recorder.failed(call, (Input(call, 0, b"", "", 0.0),), "ct-1", wire.FAILED, Failure("user", "no"))
    recorder.ended_call(call)
    assert call.call_id == kept.call_id

    await keeper.tick()

    assert recorder.get(call.call_id) is None
    assert await MemoryStore.get_flight(store, kept.call_id) == kept


async def test_calls_forgotten_before_they_could_be_written_are_counted_and_the_cause_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Full(MemoryStore):
        is_full = True

        async def put_flights(self, *args: Any) -> None:
            if self.is_full:
                raise PlatformError(EXHAUSTED, "the disk is full")
            await super().put_flights(*args)

    clock = ManualClock()
    recorder, store = FlightRecorder(clock, calls_max=10), Full()
    keeper = FlightKeeper(recorder, store, clock, ServerConfig(), find=lambda _: None, look=lambda _: None)
    for number in range(30):
        call = make_call(number)
        recorder.opened(call)
        recorder.failed(call, (Input(call, 0, b"", "", 0.0),), "ct-1", wire.FAILED, Failure("user", "no"))
        recorder.ended_call(call)
        await keeper.tick()
    store.is_full = False
    await keeper.tick()

    assert recorder.dropped_calls == 20
    assert not recorder.changed
    said = [record.getMessage() for record in caplog.records if "what became of calls" in record.getMessage()]
    assert said == ["what became of calls cannot be kept now: the disk is full", "what became of calls is kept again"]
