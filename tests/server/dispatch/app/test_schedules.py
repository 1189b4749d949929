"""Schedules of deployed apps are followed: on time, once, one run at a time, and across the server's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from squall.protocol import call as wire
from squall.protocol.app import DEPLOYED, AppStop, AppStopped
from squall.protocol.call import CallGet, CallInfo, CallInfoGet, OutputBatch
from squall.protocol.environment import EnvironmentCreate, EnvironmentInfo
from squall.protocol.errors import EXHAUSTED, PlatformError
from squall.protocol.function import CRON, PERIOD, FunctionCreate, FunctionCreated, FunctionSpec, Schedule
from squall.protocol.schedule import (
    RUNNING,
    UNKNOWN,
    ScheduleInfo,
    ScheduleList,
    ScheduleListing,
    ScheduleRun,
    ScheduleStarted,
)
from squall.server.dispatch.app import schedules
from squall.server.model.schedule import StoredSchedule
from squall.server.schedule import plan
from tests.server.dispatch.deploying import deploy as deploy_app
from tests.server.dispatch.deploying import deployable, prepare, publish
from tests.server.doubles import Failed, FakeGuest, Stage, make_spec, settle, staged

EVERY_10_S = Schedule(PERIOD, seconds=10.0)
EVERY_MINUTE = Schedule(CRON, cron="* * * * *")
DAY_S = 86_400.0


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A stage whose functions take a second."""
    async with staged() as stage:
        stage.node.run = Runs(stage)
        yield stage


class Runs:
    """What the functions of a stage do, and what they were given."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.inputs: list[bytes] = []
        self.failures = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, guest: FakeGuest, value: bytes) -> bytes:
        self.inputs.append(value)
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise Failed
        return b"done"


def runs_of(stage: Stage) -> Runs:
    run = stage.node.run
    assert isinstance(run, Runs)
    return run


async def deploy(stage: Stage, schedule: Schedule | None, state: str = DEPLOYED, **fields: Any) -> FunctionSpec:
    spec = make_spec(await stage.client.app("nightly", state), schedule=schedule, **fields)
    await stage.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)
    await settle()
    return spec


async def listed(stage: Stage, app: str = "") -> tuple[ScheduleInfo, ...]:
    listing: ScheduleListing = await stage.client.ask("ScheduleList", ScheduleList(app), ScheduleListing)
    return listing.schedules


async def only(stage: Stage) -> ScheduleInfo:
    (info,) = await listed(stage)
    return info


async def run_now(stage: Stage, spec: FunctionSpec) -> str:
    started: ScheduleStarted = await stage.client.ask(
        "ScheduleRun", ScheduleRun(spec.app_id, spec.name), ScheduleStarted
    )
    return started.call_id


async def stored(stage: Stage) -> StoredSchedule:
    (row,) = await stage.store.list_schedules()
    return row


async def end_server(stage: Stage) -> None:
    """As by kill -9."""
    await stage.plane.__aexit__()
    await settle()


async def begin_server(stage: Stage) -> None:
    stage.plane = stage.make_plane()
    await stage.plane.__aenter__()
    stage.node.plane = stage.client.plane = stage.plane
    await stage.node.connect()
    for guest in list(stage.node.guests.values()):
        await guest.connect(is_reconnect=True)
    await stage.client.connect()
    await settle()


async def test_function_is_run_when_it_is_due_and_again(stage: Stage) -> None:
    await deploy(stage, EVERY_10_S)
    began = stage.clock.now()

    await stage.pass_time(9.5, 0.5)
    assert runs_of(stage).inputs == []
    await stage.pass_time(1.0)
    await stage.pass_time(10.0, 0.5)

    assert runs_of(stage).inputs == [wire.NO_ARGUMENTS] * 2
    info = await only(stage)
    assert (info.last_at, info.next_at, info.last_outcome) == (began + 20.0, began + 30.0, "succeeded")
    call: CallInfo = await stage.client.ask("CallInfo", CallInfoGet(info.last_call_id), CallInfo)
    assert (call.kind, call.statuses) == (wire.SCHEDULE, ("succeeded",))
    assert stage.client.peer is not None
    asked = CallGet(info.last_call_id, 0, 0.0)
    _, body = await stage.client.peer.request_with_body("CallGet", asked, OutputBatch)
    assert body == b"done"


async def test_function_is_run_to_the_moment(stage: Stage) -> None:
    began = stage.clock.now()
    await deploy(stage, Schedule(PERIOD, seconds=3.25))
    began_at: list[float] = []

    async def note(guest: FakeGuest, value: bytes) -> bytes:
        began_at.append(stage.clock.now() - began)
        return b""

    stage.node.run = note
    await stage.pass_time(7.0, 0.01)

    assert began_at == [pytest.approx(3.25, abs=0.05), pytest.approx(6.5, abs=0.05)]


@pytest.mark.parametrize("state", ["ephemeral", "detached"])
async def test_apps_that_are_not_deployed_have_no_schedules(stage: Stage, state: str) -> None:
    spec = await deploy(stage, EVERY_10_S, state)
    await stage.pass_time(15.0, 0.5)

    assert runs_of(stage).inputs == []
    assert await listed(stage) == ()
    with pytest.raises(PlatformError, match="no deployed function with a schedule") as refused:
        await run_now(stage, spec)
    assert refused.value.code == "not_found"


async def test_run_that_goes_on_is_not_joined_by_another(stage: Stage) -> None:
    await deploy(stage, EVERY_10_S)
    runs_of(stage).gate.clear()

    await stage.pass_time(35.0, 0.5)
    info = await only(stage)
    assert (info.last_outcome, info.skipped_count) == (RUNNING, 2)
    assert len(runs_of(stage).inputs) == 1
    (note,) = [entry for entry in stage.logs.entries if "passed over" in entry.text]
    assert info.last_call_id in note.text
    assert (note.source, note.function_id) == ("system", info.function_id)

    runs_of(stage).gate.set()
    await stage.pass_time(10.0, 0.5)
    info = await only(stage)
    assert (info.last_outcome, info.skipped_count) == ("succeeded", 0)
    assert len(runs_of(stage).inputs) == 2


async def test_retries_of_a_run_are_one_run(stage: Stage) -> None:
    await deploy(stage, EVERY_10_S, retries=2)
    runs_of(stage).failures = 2

    await stage.pass_time(11.5, 0.1)
    assert (await only(stage)).last_outcome == RUNNING
    await stage.pass_time(3.0, 0.1)

    assert (await only(stage)).last_outcome == "succeeded"
    assert len(runs_of(stage).inputs) == 3


async def test_failure_of_a_run_is_its_result_and_ends_no_schedule(stage: Stage) -> None:
    await deploy(stage, EVERY_10_S)
    runs_of(stage).failures = 1

    await stage.pass_time(11.0, 0.5)
    assert (await only(stage)).last_outcome == "failed"
    await stage.pass_time(10.0, 0.5)
    assert (await only(stage)).last_outcome == "succeeded"


# Across the server's end


async def test_schedule_and_last_run_survive_the_server(stage: Stage) -> None:
    await deploy(stage, EVERY_10_S)
    await stage.pass_time(11.0, 0.5)
    before = await only(stage)

    await stage.restart()
    await stage.client.connect()

    assert await only(stage) == before
    await stage.pass_time(10.0, 0.5)
    assert len(runs_of(stage).inputs) == 2


@pytest.mark.parametrize("schedule", [EVERY_10_S, EVERY_MINUTE])
async def test_what_was_missed_is_caught_up_with_once(stage: Stage, schedule: Schedule) -> None:
    await deploy(stage, schedule)
    due_at = (await stored(stage)).next_at
    await end_server(stage)
    stage.clock.set(10 * DAY_S)

    await begin_server(stage)
    await stage.pass_time(3.0)

    assert len(runs_of(stage).inputs) == 1
    info = await only(stage)
    assert info.last_at == due_at
    assert info.next_at is not None
    assert info.next_at > stage.clock.now()


async def test_server_that_ends_between_call_and_row_runs_it_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deploy(stage, EVERY_10_S)

    async def refuse(rows: tuple[StoredSchedule, ...]) -> None:
        raise PlatformError(EXHAUSTED, "the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(stage.store, "put_schedules", refuse)
        await stage.pass_time(11.0, 0.5)
        assert len(runs_of(stage).inputs) == 1
        await end_server(stage)
    assert (await stored(stage)).last_call_id == ""

    await begin_server(stage)
    await stage.pass_time(2.0)

    assert len(runs_of(stage).inputs) == 1
    assert (await only(stage)).last_outcome == "succeeded"


async def test_run_that_outlives_the_server_is_not_joined_and_its_end_is_heard(stage: Stage) -> None:
    await deploy(stage, EVERY_10_S)
    runs_of(stage).gate.clear()
    await stage.pass_time(11.0, 0.5)

    await stage.restart()
    await stage.client.connect()
    await stage.pass_time(15.0, 0.5)
    assert (await only(stage)).last_outcome == RUNNING
    assert len(runs_of(stage).inputs) == 1

    runs_of(stage).gate.set()
    await stage.pass_time(0.5)
    assert (await only(stage)).last_outcome == "succeeded"
    assert (await stored(stage)).last_outcome == "succeeded"


async def test_end_of_a_run_that_only_the_server_before_knew_is_found(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await deploy(stage, EVERY_10_S)

    async def refuse(rows: tuple[StoredSchedule, ...]) -> None:
        raise PlatformError(EXHAUSTED, "the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(stage.store, "put_schedules", refuse)
        await stage.pass_time(11.0, 0.5)
        await end_server(stage)
    # So late that another is due soon: it must not find the first still running.
    stage.clock.set(5.0)
    await begin_server(stage)
    await stage.pass_time(1.5)
    assert (await only(stage)).last_outcome == "succeeded"
    await stage.pass_time(3.0, 0.5)

    assert len(runs_of(stage).inputs) == 2
    assert (await only(stage)).skipped_count == 0


async def test_end_of_a_run_that_was_not_noted_is_found(stage: Stage) -> None:
    await deploy(stage, EVERY_10_S)
    await stage.pass_time(11.0, 0.5)
    await end_server(stage)
    row = await stored(stage)
    await stage.store.put_schedules((replace(row, last_outcome=""),))

    await begin_server(stage)

    assert (await only(stage)).last_outcome == "succeeded"


async def test_run_whose_output_is_not_kept_any_more_holds_up_nothing(stage: Stage) -> None:
    await deploy(stage, EVERY_10_S)
    await end_server(stage)
    row = await stored(stage)
    await stage.store.put_schedules((replace(row, last_at=row.began_at, last_call_id="fc-" + "0" * 22),))

    await begin_server(stage)
    assert (await only(stage)).last_outcome == UNKNOWN
    await stage.pass_time(11.0, 0.5)

    assert (await only(stage)).last_outcome == "succeeded"


async def test_schedule_of_a_function_that_is_not_there_is_forgotten_at_the_start(stage: Stage) -> None:
    await deploy(stage, EVERY_10_S)
    await end_server(stage)
    await stage.store.put_schedules((StoredSchedule("fu-gone", EVERY_10_S, next_at=1.0),))

    await begin_server(stage)
    await stage.pass_time(1.0)

    assert (await stored(stage)).function_id != "fu-gone"


# Across versions


async def publish_two(stage: Stage, code: str, first: Schedule | None, second: Schedule | None) -> None:
    """A deploy whose second function has other code each time, its first always the same."""
    prepared = await prepare(stage)
    specs = (
        deployable(prepared.app_id, "first", schedule=first),
        deployable(prepared.app_id, "second", schedule=second, env={"CODE": code}),
    )
    await publish(stage, prepared.app_id, *specs)
    await settle()


async def test_deploy_begins_periods_anew_and_moves_no_cron(stage: Stage) -> None:
    await publish_two(stage, "1", EVERY_10_S, EVERY_MINUTE)
    cron_due_at = (await listed(stage))[1].next_at
    await stage.pass_time(6.0, 0.5)

    await publish_two(stage, "2", EVERY_10_S, EVERY_MINUTE)
    deployed_at = stage.clock.now()

    period, cron = await listed(stage)
    assert period.next_at == pytest.approx(deployed_at + 10.0, abs=0.1)
    assert cron.next_at == cron_due_at
    await stage.pass_time(8.0, 0.5)
    assert runs_of(stage).inputs == []
    await stage.pass_time(3.0, 0.5)
    assert len(runs_of(stage).inputs) == 1


async def test_a_deploy_that_changes_nothing_leaves_a_period_as_it_was(stage: Stage) -> None:
    await publish_two(stage, "1", EVERY_10_S, None)
    due_at = (await only(stage)).next_at
    await stage.pass_time(6.0, 0.5)

    await publish_two(stage, "1", EVERY_10_S, None)

    assert (await only(stage)).next_at == due_at


async def test_last_run_is_known_in_the_next_version(stage: Stage) -> None:
    await publish_two(stage, "1", None, EVERY_10_S)
    await stage.pass_time(11.0, 0.5)
    before = await only(stage)

    await publish_two(stage, "2", None, EVERY_MINUTE)

    after = await only(stage)
    assert after.schedule == EVERY_MINUTE
    assert (after.last_at, after.last_call_id) == (before.last_at, before.last_call_id)
    assert after.last_outcome == "succeeded"


async def test_schedule_that_a_deploy_leaves_out_is_gone(stage: Stage) -> None:
    await publish_two(stage, "1", EVERY_10_S, EVERY_10_S)
    await publish_two(stage, "2", None, EVERY_10_S)
    assert [info.function_name for info in await listed(stage)] == ["second"]

    await deploy_app(stage, function="third")
    await stage.pass_time(15.0, 0.5)

    assert await listed(stage) == ()
    assert await stage.store.list_schedules() == ()
    assert runs_of(stage).inputs == []


async def test_run_of_an_earlier_version_is_not_joined(stage: Stage) -> None:
    await publish_two(stage, "1", None, EVERY_10_S)
    runs_of(stage).gate.clear()
    await stage.pass_time(11.0, 0.5)

    await publish_two(stage, "2", None, EVERY_10_S)
    await stage.pass_time(11.0, 0.5)
    assert len(runs_of(stage).inputs) == 1
    assert (await only(stage)).skipped_count == 1

    runs_of(stage).gate.set()
    await stage.pass_time(10.0, 0.5)
    assert len(runs_of(stage).inputs) == 2


# Faults


async def test_call_that_cannot_be_kept_is_made_later_and_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await deploy(stage, EVERY_10_S)
    due_at = (await stored(stage)).next_at
    asked: list[str] = []

    async def refuse(call: Any, inputs: Any) -> bool:
        asked.append(call.call_id)
        raise PlatformError(EXHAUSTED, "the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(stage.store, "put_call", refuse)
        await stage.pass_time(17.0, 0.5)
    assert len(asked) == 2
    await stage.pass_time(schedules.RETRY_S, 0.5)

    info = await only(stage)
    assert set(asked) == {info.last_call_id}
    assert info.last_at == due_at
    assert len(runs_of(stage).inputs) == 1


async def test_clock_set_forward_by_days_makes_one_run(stage: Stage) -> None:
    await deploy(stage, EVERY_MINUTE)

    stage.clock.set(5 * DAY_S)
    await stage.pass_time(3.0)

    assert len(runs_of(stage).inputs) == 1
    info = await only(stage)
    assert info.next_at is not None
    assert 0 < info.next_at - stage.clock.now() <= 60.0


async def test_clock_set_back_makes_no_cron_due_twice(stage: Stage) -> None:
    await deploy(stage, EVERY_MINUTE)
    await stage.pass_time(61.0, 0.5)
    assert len(runs_of(stage).inputs) == 1

    stage.clock.set(-120.0)
    await stage.pass_time(110.0, 0.5)
    assert len(runs_of(stage).inputs) == 1
    await stage.pass_time(75.0, 0.5)
    assert len(runs_of(stage).inputs) == 2


async def test_clock_set_back_does_not_hold_up_a_period(stage: Stage) -> None:
    await deploy(stage, EVERY_10_S)
    await stage.pass_time(11.0, 0.5)
    assert len(runs_of(stage).inputs) == 1

    stage.clock.set(-5 * DAY_S)
    await stage.pass_time(9.0, 0.5)
    assert len(runs_of(stage).inputs) == 1
    await stage.pass_time(3.0, 0.5)

    assert len(runs_of(stage).inputs) == 2
    row = await stored(stage)
    assert row.next_at is not None
    assert 0 < row.next_at - stage.clock.now() <= 10.0


# Run now


async def test_run_now_leaves_the_schedule_as_it_is(stage: Stage) -> None:
    spec = await deploy(stage, EVERY_10_S)
    due_at = (await only(stage)).next_at
    await stage.pass_time(3.0, 0.5)

    call_id = await run_now(stage, spec)
    await stage.pass_time(0.5)

    info = await only(stage)
    assert (info.last_call_id, info.last_outcome, info.next_at) == (call_id, "succeeded", due_at)
    assert info.last_at == pytest.approx(stage.clock.now(), abs=1.0)
    await stage.pass_time(7.5, 0.5)
    assert len(runs_of(stage).inputs) == 2


async def test_run_now_does_not_join_a_run(stage: Stage) -> None:
    spec = await deploy(stage, EVERY_10_S)
    runs_of(stage).gate.clear()
    call_id = await run_now(stage, spec)

    with pytest.raises(PlatformError, match=f"its last run, {call_id}, goes on") as refused:
        await run_now(stage, spec)
    assert refused.value.code == "conflict"
    await stage.pass_time(11.0, 0.5)
    assert (await only(stage)).skipped_count == 1

    runs_of(stage).gate.set()
    await stage.pass_time(0.5)
    assert await run_now(stage, spec) != call_id


async def test_containers_neither_list_nor_run_schedules(stage: Stage) -> None:
    spec = await deploy(stage, EVERY_10_S)
    runs_of(stage).gate.clear()
    await run_now(stage, spec)
    await stage.until(lambda: stage.node.started and stage.node.started[0].running)
    inside = await type(stage.client)(stage.plane, stage.codec).connect_inside(stage.node.started[0].container_id)

    for method, record, reply in (
        ("ScheduleList", ScheduleList(), ScheduleListing),
        ("ScheduleRun", ScheduleRun(spec.app_id, spec.name), ScheduleStarted),
    ):
        with pytest.raises(PlatformError) as refused:
            await inside.ask(method, record, reply)
        assert refused.value.code == "forbidden"
    runs_of(stage).gate.set()
    await settle()


# Which there are


async def test_schedules_are_listed_by_app_and_function(stage: Stage) -> None:
    app_id = await stage.client.app("b", DEPLOYED)
    specs = [make_spec(app_id, name, schedule=EVERY_10_S) for name in ("second", "first")]
    other = make_spec(await stage.client.app("a", DEPLOYED), "third", schedule=EVERY_MINUTE)
    plain = make_spec(app_id, "plain")
    await stage.client.ask("FunctionCreate", FunctionCreate((*specs, plain)), FunctionCreated)
    await stage.client.ask("FunctionCreate", FunctionCreate((other,)), FunctionCreated)
    await settle()

    assert [info.function_name for info in await listed(stage)] == ["third", "first", "second"]
    assert [info.function_name for info in await listed(stage, "b")] == ["first", "second"]
    with pytest.raises(PlatformError, match="no app is called 'c'"):
        await listed(stage, "c")


async def test_schedules_of_a_stopped_app_are_gone(stage: Stage) -> None:
    spec = await deploy(stage, EVERY_10_S)

    await stage.client.ask("AppStop", AppStop(spec.app_id), AppStopped)
    await stage.pass_time(15.0, 0.5)

    assert await listed(stage) == ()
    assert await stage.store.list_schedules() == ()
    assert runs_of(stage).inputs == []


async def test_environments_keep_their_schedules_apart(stage: Stage) -> None:
    await stage.client.ask("EnvironmentCreate", EnvironmentCreate("staging"), EnvironmentInfo)
    for environment in ("", "staging"):
        prepared = await prepare(stage, environment=environment)
        await publish(stage, prepared.app_id, deployable(prepared.app_id, schedule=EVERY_10_S), environment=environment)
    await settle()

    for environment, name in (("", "main"), ("main", "main"), ("staging", "staging")):
        asked = ScheduleList(environment=environment)
        listing: ScheduleListing = await stage.client.ask("ScheduleList", asked, ScheduleListing)
        assert [info.environment for info in listing.schedules] == [name]
    started = await stage.client.ask("ScheduleRun", ScheduleRun("greeter", "square", "staging"), ScheduleStarted)
    await stage.pass_time(0.5)
    listing = await stage.client.ask("ScheduleList", ScheduleList(environment="staging"), ScheduleListing)
    assert [info.last_call_id for info in listing.schedules] == [started.call_id]
    assert (await only(stage)).last_call_id == ""


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Schedule("weekly"), "kind 'weekly' must be 'cron' or 'period'"),
        (Schedule(CRON, cron="0 9 * *"), "takes 5 fields"),
        (Schedule(CRON, cron="0 9 * * *", timezone="Mars/Olympus"), "no time zone"),
        (Schedule(PERIOD), "at least 1 second"),
        (Schedule(PERIOD, seconds=-5.0, months=1), "negative"),
        (Schedule(PERIOD, months=10**9), "at most 100 years"),
        (Schedule(PERIOD, seconds=1e300), "at most 100 years"),
    ],
)
async def test_impossible_schedules_are_refused(stage: Stage, schedule: Schedule, text: str) -> None:
    with pytest.raises(PlatformError, match=text) as refused:
        await deploy(stage, schedule)

    assert refused.value.code == "invalid"


async def test_generator_with_a_schedule_is_refused(stage: Stage) -> None:
    with pytest.raises(PlatformError, match="nobody takes what a generator yields"):
        await deploy(stage, EVERY_10_S, is_generator=True)


@pytest.mark.long
async def test_only_what_is_due_is_looked_at_of_thousands(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[str] = []
    next_run = plan.next_run

    def counted(schedule: Schedule, began_at: float, after: float) -> float | None:
        looked_at.append(schedule.cron)
        return next_run(schedule, began_at, after)

    async with staged() as stage:
        run = stage.node.run = Runs(stage)
        app_id = await stage.client.app("many", DEPLOYED)
        rare = [make_spec(app_id, f"f{number}", schedule=Schedule(CRON, cron="0 0 1 1 *")) for number in range(1_998)]
        often = [make_spec(app_id, name, schedule=EVERY_MINUTE) for name in ("a", "b")]
        await stage.client.ask("FunctionCreate", FunctionCreate((*rare, *often)), FunctionCreated)
        await stage.pass_time(0.5)
        assert len(await stage.store.list_schedules()) == 2_000
        monkeypatch.setattr(plan, "next_run", counted)

        await stage.pass_time(61.0, 1.0)

        assert len(run.inputs) == 2
        assert looked_at == [EVERY_MINUTE.cron] * 2
