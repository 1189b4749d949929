"""What goes wrong with an attempt, and what becomes of its input."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from squall.protocol import call as wire
from squall.protocol.call import CallCancel, Failure
from squall.protocol.empty import Empty
from squall.protocol.errors import PlatformError
from squall.protocol.function import FunctionBind, FunctionBound, FunctionCreate, FunctionCreated, FunctionOptions
from squall.protocol.log import SYSTEM
from squall.server.model.config import ServerConfig
from tests.server.doubles import Failed, FakeGuest, FakeNode, Stage, heartbeat, make_spec, settle, staged


async def forever(guest: FakeGuest, value: bytes) -> bytes:
    await asyncio.Event().wait()
    return value


async def running(stage: Stage) -> FakeGuest:
    """The first guest, once it runs something."""
    await stage.until(lambda: stage.node.started and stage.node.started[0].running)
    return stage.node.started[0]


async def test_user_exception_is_passed_on_as_it_is() -> None:
    async def fail(guest: FakeGuest, value: bytes) -> bytes:
        raise Failed("user", "boom")

    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = fail

        outputs = await stage.done(stage.client.call(spec.function_id, 1), 1)

        assert outputs[0].status == wire.FAILED
        assert outputs[0].failure.message == "boom"


async def test_retries_wait_longer_each_time() -> None:
    attempts: list[float] = []

    async with staged() as stage:

        async def fail_twice(guest: FakeGuest, value: bytes) -> bytes:
            attempts.append(stage.clock.monotonic())
            if len(attempts) < 3:
                raise Failed
            return b"at last"

        spec = await stage.client.function(retries=2)
        stage.node.run = fail_twice
        call = stage.client.call(spec.function_id, 1)
        await stage.pass_time(4.0)

        assert call.outputs[0].value == b"at last"
        assert call.outputs[0].attempt == 2
        assert 0.9 < attempts[1] - attempts[0] < 1.3
        assert 1.9 < attempts[2] - attempts[1] < 2.3


async def test_last_retry_gives_its_own_failure() -> None:
    async def fail(guest: FakeGuest, value: bytes) -> bytes:
        raise Failed("user", f"attempt {guest.begun[-1][1]}")

    async with staged() as stage:
        spec = await stage.client.function(retries=1)
        stage.node.run = fail
        call = stage.client.call(spec.function_id, 1)
        await stage.pass_time(2.0)

        assert call.outputs[0].failure.message == "attempt 1"


async def test_unserializable_result_is_not_retried() -> None:
    async def fail(guest: FakeGuest, value: bytes) -> bytes:
        raise Failed("unserializable")

    async with staged() as stage:
        spec = await stage.client.function(retries=5)
        stage.node.run = fail

        outputs = await stage.done(stage.client.call(spec.function_id, 1), 1)

        assert outputs[0].attempt == 0


async def end_every_container(stage: Stage, times: int, **how: Any) -> None:
    """End so many containers, each while it runs an input."""
    for _ in range(times):
        await stage.until(lambda: any(guest.running for guest in stage.node.guests.values()))
        next(guest for guest in stage.node.guests.values() if guest.running).exit(**how)
        await stage.pass_time(1.0)


async def test_input_that_ends_every_container_fails_with_the_third_and_says_how() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)

        await end_every_container(stage, 3, code=1)
        outputs = await stage.done(call, 1)

        assert outputs[0].failure.kind == "crashed"
        assert "exit code 1" in outputs[0].failure.message
        assert "so did 2 others before it" in outputs[0].failure.message
        assert outputs[0].failure.message.startswith(f"function {spec.name}: the container ended")
        assert len(stage.node.starts) == 3


async def test_containers_that_ended_under_several_inputs_are_counted_too() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_inputs=2, max_containers=1)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1, 2)
        await stage.until(lambda: any(len(guest.running) == 2 for guest in stage.node.guests.values()))

        await end_every_container(stage, 7, code=1)
        outputs = await stage.done(call, 2)

        for output in outputs.values():
            assert "so did 3 others before it, 1 of which held more inputs" in output.failure.message
        assert len(stage.node.starts) == 7


async def test_poison_input_of_a_map_is_named_and_the_others_go_on() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=2)

        async def exit_at_7(guest: FakeGuest, value: bytes) -> bytes:
            if value == b"7":
                guest.exit(None, 11)
            return value

        stage.node.run = exit_at_7
        call = stage.client.call(spec.function_id, *range(30))
        await stage.pass_time(3.0)

        assert len(call.outputs) == 30
        assert [index for index, got in call.outputs.items() if got.status != wire.SUCCEEDED] == [7]
        assert "(SIGSEGV (segmentation fault), input 7 of its call)" in call.outputs[7].failure.message
        assert not stage.plane.apps.dispatchers[spec.function_id].attempts.suspects


async def test_container_that_was_asked_to_end_from_outside_blames_nobody() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        guest = await running(stage)
        stage.node.run = lambda guest, value: asyncio.sleep(0, b"elsewhere")

        guest.exit(None, 15)
        outputs = await stage.done(call, 1)

        assert outputs[0].value == b"elsewhere"


async def test_memory_over_the_limit_is_called_so() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)

        await end_every_container(stage, 3, code=None, signal=9, is_oom=True, memory_limit_mib=256)
        outputs = await stage.done(call, 1)

        assert outputs[0].failure.kind == "oom"
        assert "(it went over its memory limit of 256 MiB)" in outputs[0].failure.message
        assert "memory=" in outputs[0].failure.message
        assert outputs[0].failure.message.startswith(f"function {spec.name}: ")


async def test_disk_over_the_limit_is_called_so() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        guest = await running(stage)

        guest.exit(None, 9, over_disk="it had 20 MiB, its limit is 10 MiB; ephemeral_disk= gives it more")
        outputs = await stage.done(call, 1)

        assert outputs[0].failure.kind == "disk"
        assert f"function {spec.name}: the container was ended" in outputs[0].failure.message
        assert "ephemeral_disk=" in outputs[0].failure.message
        assert "its limit is 10 MiB" in stage.plane.fleet.stopped[guest.container_id].info().exit_reason


async def test_crash_uses_up_none_of_the_users_retries() -> None:
    async with staged() as stage:
        spec = await stage.client.function(retries=1)

        async def exit_once(guest: FakeGuest, value: bytes) -> bytes:
            if len(stage.node.started) == 1:
                guest.exit(1)
            elif guest.begun[-1][1] == 1:
                raise Failed("user", "the second attempt")
            return b"ok"

        stage.node.run = exit_once
        call = stage.client.call(spec.function_id, 1)
        await stage.pass_time(3.0)

        assert call.outputs[0].value == b"ok"
        assert call.outputs[0].attempt == 2


async def test_only_the_input_that_ends_its_container_fails() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        await stage.done(stage.client.call(spec.function_id, *range(100)), 100)

        async def exit_at_13(guest: FakeGuest, value: bytes) -> bytes:
            if value == b"13":
                guest.exit(None, 11)
            return value

        stage.node.run = exit_at_13
        call = stage.client.call(spec.function_id, *range(40))
        await stage.pass_time(3.0)

        assert sorted(call.outputs) == list(range(40))
        failed = [index for index, got in call.outputs.items() if got.status != wire.SUCCEEDED]
        assert failed == [13]
        assert "SIGSEGV" in call.outputs[13].failure.message
        assert not stage.plane.apps.dispatchers[spec.function_id].attempts.suspects


async def test_input_of_a_lost_node_runs_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    async with staged(ServerConfig(node_grace_s=5.0)) as stage:
        spec = await stage.client.function()
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        guest = await running(stage)
        assert stage.node.peer is not None

        stage.node.peer.channel.close()
        guest.disconnect()
        await stage.pass_time(6.0)
        said = [one.getMessage() for one in caplog.records if "is lost" in one.getMessage()]
        stage.node.guests.clear()
        stage.node.run = lambda guest, value: asyncio.sleep(0, b"again")
        await stage.node.connect()
        outputs = await stage.done(call, 1)

        assert outputs[0].value == b"again"
        assert outputs[0].attempt == 1
        assert said == [f"node {stage.node.node_id} is lost: not back after 5 s, its containers (1) count as gone"]


async def test_input_that_is_lost_too_often_fails_as_lost() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        for _ in range(9):
            await stage.until(lambda: any(guest.running for guest in stage.node.guests.values()))
            for container in list(stage.plane.fleet.containers.values()):
                stage.plane.fleet.kill(container, "the machine burned down")
            await settle()

        outputs = await stage.done(call, 1)

        assert outputs[0].status == wire.LOST
        assert "9 containers" in outputs[0].failure.message


async def test_input_over_its_time_is_stopped_and_named() -> None:
    async with staged() as stage:
        spec = await stage.client.function(timeout_s=2.0)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        await running(stage)

        await stage.pass_time(1.8)
        assert not call.outputs
        await stage.pass_time(0.5)

        assert call.outputs[0].status == wire.TIMED_OUT
        said = f"function {spec.name}: the input ran longer than its timeout of 2 s"
        assert call.outputs[0].failure.message.startswith(said)
        assert len(stage.node.guests) == 1


async def test_failure_of_a_deployed_app_names_it_for_callers_elsewhere() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]

        assert dispatcher.in_words() == f"function {spec.name}"
        dispatcher.is_deployed = True
        assert dispatcher.in_words() == f"function {spec.name} of app {dispatcher.app_name}"
        assert dispatcher.in_words("run") == f"method run of class {spec.name} of app {dispatcher.app_name}"


async def test_input_that_does_not_stop_costs_its_container() -> None:
    async with staged() as stage:
        spec = await stage.client.function(timeout_s=2.0, max_containers=1)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1, 2)
        guest = await running(stage)
        guest.is_deaf = True

        await stage.pass_time(3.5)
        assert not call.outputs
        stage.node.run = lambda guest, value: asyncio.sleep(0, value)
        await stage.pass_time(1.0)

        assert stage.node.ended == [guest.container_id]
        assert call.outputs[0].status == wire.TIMED_OUT
        assert call.outputs[1].value == b"2"


async def test_timeout_is_retried() -> None:
    async with staged() as stage:
        spec = await stage.client.function(timeout_s=1.0, retries=1)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        await running(stage)

        await stage.pass_time(1.2)
        stage.node.run = lambda guest, value: asyncio.sleep(0, b"faster")
        await stage.pass_time(2.0)

        assert call.outputs[0].value == b"faster"


async def test_queueing_does_not_count_as_running() -> None:
    async with staged() as stage:
        spec = await stage.client.function(timeout_s=1.0, startup_timeout_s=100.0)
        stage.node.is_slow_to_load = True
        call = stage.client.call(spec.function_id, 1)
        await stage.pass_time(5.0)
        stage.node.started[0].ready()

        outputs = await stage.done(call, 1)

        assert outputs[0].value == b"2"


async def test_cancel_ends_what_waits_and_what_runs() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1, 2, 3)
        guest = await running(stage)

        await stage.client.ask("CallCancel", CallCancel(call.call_id), Empty)
        outputs = await stage.done(call, 3)

        assert {got.status for got in outputs.values()} == {wire.CANCELLED}
        assert guest.container_id in stage.node.guests


async def test_cancel_may_end_containers_too() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1, max_inputs=2)
        stage.node.run = forever
        call, other = stage.client.call(spec.function_id, 1), stage.client.call(spec.function_id, 2)
        await stage.until(lambda: stage.node.started and len(stage.node.started[0].running) == 2)
        stage.node.run = lambda guest, value: asyncio.sleep(0, value)

        await stage.client.ask("CallCancel", CallCancel(call.call_id, terminate_containers=True), Empty)
        await stage.done(call, 1)
        await stage.done(other, 1)

        assert call.outputs[0].status == wire.CANCELLED
        assert other.outputs[0].value == b"2"


async def test_thread_that_goes_on_takes_its_container_along_and_the_others_run_elsewhere() -> None:
    async with staged(ServerConfig(cancel_grace_s=2.0)) as stage:
        spec = await stage.client.function(max_containers=1, max_inputs=3, min_containers=1)
        stage.node.run = forever
        call, other = stage.client.call(spec.function_id, 1), stage.client.call(spec.function_id, 2)
        await stage.until(lambda: stage.node.started and len(stage.node.started[0].running) == 2)
        first = stage.node.started[0]
        first.is_deaf = True

        await stage.client.ask("CallCancel", CallCancel(call.call_id), Empty)
        late = stage.client.call(spec.function_id, 3)
        await stage.pass_time(1.9)
        assert first.container_id in stage.node.guests
        assert len(first.received) == 2

        stage.node.run = lambda guest, value: asyncio.sleep(0, value)
        assert (await stage.done(other, 1))[0].value == b"2"
        assert (await stage.done(late, 1))[0].value == b"3"
        assert (await stage.done(call, 1))[0].status == wire.CANCELLED
        assert len(first.received) == 2
        assert stage.node.grace_s[first.container_id] == 2.0


async def test_container_whose_thread_ends_in_time_goes_on() -> None:
    async with staged(ServerConfig(cancel_grace_s=2.0)) as stage:
        spec = await stage.client.function(max_containers=1, max_inputs=2, min_containers=1)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        first = await running(stage)

        await stage.client.ask("CallCancel", CallCancel(call.call_id), Empty)
        await stage.done(call, 1)
        stage.node.run = lambda guest, value: asyncio.sleep(0, value)
        await stage.done(stage.client.call(spec.function_id, 2), 1)
        await stage.pass_time(3.0)

        assert [guest.container_id for guest in stage.node.started] == [first.container_id]


async def test_input_that_others_took_containers_from_is_not_lost_for_it() -> None:
    async with staged(ServerConfig(cancel_grace_s=0.5)) as stage:
        spec = await stage.client.function(max_containers=1, max_inputs=2)
        stage.node.run = forever
        patient = stage.client.call(spec.function_id, 1)
        for number in range(2, 14):
            call = stage.client.call(spec.function_id, number)
            await stage.until(lambda: stage.node.started and len(stage.node.started[-1].running) == 2)
            await stage.client.ask("CallCancel", CallCancel(call.call_id, terminate_containers=True), Empty)
            await stage.done(call, 1)
            assert not patient.outputs

        stage.node.run = lambda guest, value: asyncio.sleep(0, value)
        await stage.until(lambda: stage.node.started[-1].container_id in stage.node.guests)
        stage.node.started[-1].exit(0, signal=None)
        outputs = await stage.done(patient, 1)

        assert outputs[0].value == b"1"


async def test_async_container_goes_on_being_used_while_an_input_is_being_stopped() -> None:
    async with staged(ServerConfig(cancel_grace_s=2.0)) as stage:
        spec = await stage.client.function(max_containers=1, max_inputs=2, min_containers=1, is_async=True)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        first = await running(stage)
        first.is_deaf = True

        await stage.client.ask("CallCancel", CallCancel(call.call_id), Empty)
        stage.client.call(spec.function_id, 2)
        await settle()

        assert len(first.received) == 2


async def test_cancelled_input_is_not_retried() -> None:
    async with staged() as stage:
        spec = await stage.client.function(retries=3)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        await running(stage)

        await stage.client.ask("CallCancel", CallCancel(call.call_id), Empty)
        outputs = await stage.done(call, 1)

        assert outputs[0].status == wire.CANCELLED
        assert outputs[0].attempt == 0


async def test_cancelled_input_that_is_over_its_time_is_not_retried() -> None:
    async with staged(ServerConfig(cancel_grace_s=5.0)) as stage:
        spec = await stage.client.function(retries=3, timeout_s=1.0)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        await running(stage)
        stage.node.started[0].is_deaf = True
        await stage.pass_time(2.0)

        await stage.client.ask("CallCancel", CallCancel(call.call_id), Empty)
        await stage.pass_time(10.0)
        outputs = await stage.done(call, 1)

        assert outputs[0].status == wire.CANCELLED
        assert sum(len(guest.received) for guest in stage.node.started) == 1


async def test_import_error_fails_all_that_waits_at_once() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.startup_failure = Failure("import", "No module named 'numpy'")

        call = stage.client.call(spec.function_id, 1, 2, 3)
        outputs = await stage.done(call, 3)

        assert {got.failure.kind for got in outputs.values()} == {"import"}
        assert stage.clock.monotonic() < 1.0


async def test_long_text_that_many_wait_for_reaches_all_of_them_and_keeps_nobody_from_the_rest() -> None:
    text = "x" * 100_000
    async with staged() as stage:
        spec, other = await stage.client.function(), await stage.client.function()
        stage.node.startup_failure = Failure("import", text, traceback=text)

        call = stage.client.call(spec.function_id, *range(100))
        many = stage.client.call(spec.function_id, *range(1_000))
        told, outputs = await stage.done(call, 100), await stage.done(many, 1_000)
        stage.node.startup_failure = None
        after = await stage.done(stage.client.call(other.function_id, 7), 1)

    assert {got.failure.kind for got in (*told.values(), *outputs.values())} == {"import"}
    assert all(got.failure.message.startswith("x" * 1_000) for got in outputs.values())
    assert after[0].value == b"14"


async def test_container_that_ends_while_loading_is_tried_three_times() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.crash_at_start = 3

        call = stage.client.call(spec.function_id, 1)
        await stage.pass_time(5.0)

        assert call.outputs[0].failure.kind == "crashed"
        assert "exit code 3" in call.outputs[0].failure.message
        assert 3 <= len(stage.node.starts) <= 4


@pytest.mark.parametrize("kind", ["import", "crashed"])
async def test_deployed_function_waits_until_it_can_be_loaded_and_its_log_says_why(kind: str) -> None:
    async with staged() as stage:
        spec = make_spec(await stage.client.app(state="deployed"))
        await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)
        stage.node.startup_failure = Failure(kind, "its database is away")

        call = stage.client.call(spec.function_id, 1, 2)
        await stage.pass_time(20.0)
        starts = len(stage.node.starts)
        assert not call.outputs
        stage.node.startup_failure = None
        await stage.pass_time(40.0)

        assert {got.value for got in call.outputs.values()} == {b"2", b"4"}
        assert 4 <= starts <= 8, "started again, less and less often"
        said = [entry.text for entry in stage.logs.entries if entry.source == SYSTEM]
        assert "its database is away; 2 inputs wait, and another container is started in 0.5 s" in said
        what = f"function {spec.name} of app {stage.plane.apps.dispatchers[spec.function_id].app_name}"
        assert stage.client.notices == [f"{what}: its containers do not start: its database is away; the call waits"]


async def test_who_measures_starts_of_a_deployed_function_is_told_why_there_are_none() -> None:
    async with staged() as stage:
        spec = make_spec(await stage.client.app(state="deployed"))
        await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)
        asked = FunctionBind(spec.function_id, options=FunctionOptions(is_measured=True))
        measured = (await stage.client.ask("FunctionBind", asked, FunctionBound)).function_id
        stage.node.startup_failure = Failure("crashed", "its database is away")

        call = stage.client.call(measured, 1)
        await stage.pass_time(5.0)

        assert len(call.outputs) == 1
        assert call.outputs[0].failure.message.endswith("its database is away")
        assert 3 <= len(stage.node.starts) <= 4
        (notice,) = stage.client.notices
        assert "its containers do not start: its database is away" in notice, "at the first one"


async def test_start_over_its_time_fails_all_that_waits() -> None:
    async with staged() as stage:
        spec = await stage.client.function(startup_timeout_s=3.0)
        stage.node.is_slow_to_load = True

        call = stage.client.call(spec.function_id, 1)
        await stage.pass_time(4.0)

        assert call.outputs[0].failure.kind == "startup_timed_out"
        assert call.outputs[0].failure.message.startswith(f"function {spec.name}: the container was not ready")
        assert not stage.node.guests


async def test_refused_container_is_pending_again() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.refusal = PlatformError("exhausted", "no slot")
        call = stage.client.call(spec.function_id, 1)
        await stage.pass_time(1.0)

        refusals = len(stage.node.starts)
        stage.node.refusal = None
        await stage.pass_time(2.0)

        assert refusals in (2, 3)
        assert call.outputs[0].value == b"2"


async def test_missing_image_is_told() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.refusal = PlatformError("not_found", "image im-test is not here")

        outputs = await stage.done(stage.client.call(spec.function_id, 1), 1)

        assert outputs[0].failure.kind == "image"


async def test_image_missing_on_one_node_is_found_on_another() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.refusal = PlatformError("not_found", "image im-test is not here")
        other = FakeNode(stage.plane, stage.codec)
        await other.connect()

        outputs = await stage.done(stage.client.call(spec.function_id, *range(10)), 10)

        assert outputs[9].value == b"18"
        assert other.started


async def test_guest_that_reconnects_goes_on_and_delivers() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        gate = asyncio.Event()

        async def slow(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value

        stage.node.run = slow
        call = stage.client.call(spec.function_id, 1, 2)
        guest = await running(stage)

        guest.disconnect()
        gate.set()
        await stage.pass_time(0.5)
        assert not call.outputs
        await guest.connect(is_reconnect=True)
        await stage.done(call, 2)

        assert [got.value for got in call.outputs.values()] == [b"1", b"2"]
        assert guest.begun == [(0, 0), (1, 0)]


async def test_what_a_guest_forgot_when_it_came_back_is_handed_out_again() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        await stage.done(stage.client.call(spec.function_id, *range(20)), 20)
        guest = stage.node.started[0]
        guest.is_forgetful = True
        gate = asyncio.Event()

        async def slow(guest: FakeGuest, value: bytes) -> bytes:
            await gate.wait()
            return value

        stage.node.run = slow
        call = stage.client.call(spec.function_id, 1, 2, 3)
        await stage.until(lambda: len(guest.waiting) == 2)

        guest.disconnect()
        await settle()
        await guest.connect(is_reconnect=True)
        await stage.pass_time(1.5)
        gate.set()
        outputs = await stage.done(call, 3)

        assert [outputs[index].value for index in range(3)] == [b"1", b"2", b"3"]
        assert guest.begun[-3:] == [(0, 0), (1, 0), (2, 0)]


async def test_input_lost_on_the_way_to_its_guest_is_handed_out_again() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        guest = await running(stage)
        for task in guest.running.values():
            task.cancel()
        guest.running.clear()
        stage.node.run = lambda guest, value: asyncio.sleep(0, b"found")

        await stage.pass_time(6.0)
        heartbeat(guest, held=0)
        outputs = await stage.done(call, 1)

        assert outputs[0].value == b"found"
        assert outputs[0].attempt == 0


async def test_silent_guest_is_dead() -> None:
    async with staged() as stage:
        spec = await stage.client.function()
        stage.node.run = forever
        call = stage.client.call(spec.function_id, 1)
        guest = await running(stage)
        stage.node.run = lambda guest, value: asyncio.sleep(0, value)

        await stage.pass_time(50.0, 1.0)
        heartbeat(guest, held=1)
        await stage.pass_time(55.0, 1.0)
        assert not stage.node.ended
        await stage.pass_time(10.0, 1.0)

        assert stage.node.ended == [guest.container_id]
        assert call.outputs[0].value == b"1"


async def test_generator_that_yielded_is_not_begun_again() -> None:
    async with staged() as stage:
        spec = await stage.client.function(is_generator=True)
        stage.node.run = forever
        call = stage.client.open(spec.function_id, wire.GENERATOR)
        stage.client.put(call, {0: b"3"})
        guest = await running(stage)
        guest.items(call.call_id, 0, 0, [b"a"])
        await settle()

        stage.plane.fleet.kill(next(iter(stage.plane.fleet.containers.values())), "test")
        outputs = await stage.done(call, 1)

        assert outputs[0].failure.kind == "lost"
        assert call.items == [b"a"]


@pytest.mark.parametrize("count", [b"2", b"none"])
async def test_generator_whose_last_items_were_lost_does_not_end_as_if_that_were_all(count: bytes) -> None:
    async with staged() as stage:
        spec = await stage.client.function(is_generator=True)
        stage.node.run = forever
        call = stage.client.open(spec.function_id, wire.GENERATOR)
        stage.client.put(call, {0: b"3"})
        guest = await running(stage)
        guest.items(call.call_id, 0, 0, [b"a"])

        guest.output(call.call_id, 0, 0, count)
        outputs = await stage.done(call, 1)

        assert call.items == [b"a"]
        assert outputs[0].failure.kind == "lost"
        assert "call it again" in outputs[0].failure.message


async def test_generator_whose_items_were_all_lost_begins_again_a_few_times() -> None:
    async with staged() as stage:
        spec = await stage.client.function(is_generator=True)
        runs: list[int] = []

        async def lose_items(guest: FakeGuest, value: bytes) -> bytes:
            runs.append(guest.begun[-1][1])
            return b"2"

        stage.node.run = lose_items
        call = stage.client.open(spec.function_id, wire.GENERATOR)
        stage.client.put(call, {0: b"3"})
        outputs = await stage.done(call, 1)

        assert runs == list(range(9))
        assert outputs[0].failure.kind == "lost"


async def test_inputs_told_to_stop_are_counted_where_they_run_until_they_have_stopped() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_inputs=4, max_containers=1)
        stage.node.run = forever
        call = stage.client.call(spec.function_id, *range(4))
        guest = await running(stage)
        await stage.until(lambda: len(guest.running) == 4)
        attempts = stage.plane.apps.dispatchers[spec.function_id].attempts
        container = stage.plane.fleet.containers[guest.container_id]

        attempts.cancel(list(container.held)[:3])
        attempts.cancel(list(container.held)[:3])

        assert container.cut_short == len(attempts.cut_short) == 3
        assert attempts.is_ending(container)
        await stage.until(lambda: len(call.outputs) == 3)
        assert container.cut_short == len(attempts.cut_short) == 0
        assert not attempts.is_ending(container)
