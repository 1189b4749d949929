"""Places on a full node: who gets the next one, and who gives one up."""

from __future__ import annotations

import asyncio

import pytest

from squall.protocol.function import FunctionSpec
from squall.server.model.config import ServerConfig
from squall.server.scheduler import giving_way
from tests.server.doubles import FakeGuest, Stage, staged

FOUR_PLACES = ServerConfig(containers_per_node_max=4)


async def short(guest: FakeGuest, value: bytes) -> bytes:
    """A hundred turns of the loop: long enough to be one at a time, over before the next step of the clock."""
    for _ in range(100):
        await asyncio.sleep(0)
    return value


async def taken_by_one(stage: Stage) -> FunctionSpec:
    """A function with work without end that has every place."""
    greedy = await stage.client.function()
    stage.node.run = short
    stage.client.call(greedy.function_id, *range(20_000))
    await stage.until(lambda: len(stage.node.guests) == 4)
    await stage.pass_time(1.0)
    return greedy


async def test_a_single_call_of_another_app_gets_a_place() -> None:
    async with staged(FOUR_PLACES) as stage:
        greedy = await taken_by_one(stage)
        single = await stage.client.function()

        call = stage.client.call(single.function_id, 7)
        await stage.pass_time(5.0)

        assert [one.value for one in call.outputs.values()] == [b"7"]
        dispatcher = stage.plane.apps.dispatchers[greedy.function_id]
        assert dispatcher.queued > 0
        assert len(dispatcher.containers) >= 3


async def test_so_it_does_where_one_is_looked_at_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(giving_way, "LOOKS_MAX", 1)
    async with staged(FOUR_PLACES) as stage:
        await taken_by_one(stage)
        singles = [await stage.client.function() for _ in range(3)]

        calls = [stage.client.call(single.function_id, 7) for single in singles]
        await stage.pass_time(6.0)

        assert [one.value for call in calls for one in call.outputs.values()] == [b"7"] * 3


async def test_its_idle_container_is_left_alone_between_its_calls() -> None:
    async with staged(FOUR_PLACES) as stage:
        await taken_by_one(stage)
        single = await stage.client.function()
        await stage.done(stage.client.call(single.function_id, 1), 1)
        starts = len(stage.node.starts)

        for number in range(6):
            await stage.pass_time(1.0)
            await stage.done(stage.client.call(single.function_id, number), 1)

        assert [one.function_id for one in stage.node.starts[starts:]].count(single.function_id) == 0


async def test_containers_that_are_kept_in_any_case_make_no_room() -> None:
    async with staged(FOUR_PLACES) as stage:
        kept = await stage.client.function(min_containers=1, scaledown_window_s=600.0)
        stage.node.run = short
        await stage.done(stage.client.call(kept.function_id, *range(3)), 3)
        dispatcher = stage.plane.apps.dispatchers[kept.function_id]
        await stage.until(lambda: len(dispatcher.containers) >= 2)
        # One is on its way out already, and stays for a while.
        leaving = next(iter(dispatcher.containers.values()))
        leaving.is_draining = True
        for container in list(dispatcher.containers.values())[2:]:
            stage.plane.fleet.drain(container, "enough")
        await stage.pass_time(3.0)
        (staying,) = (one for one in dispatcher.containers.values() if one.is_open)
        greedy = await stage.client.function()

        stage.client.call(greedy.function_id, *range(5_000))
        await stage.pass_time(5.0)

        assert staying.state == "idle"
