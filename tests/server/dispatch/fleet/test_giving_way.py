"""Busy containers give way: what cannot be done keeps nobody waiting for whom something can be."""

from __future__ import annotations

import asyncio

import pytest

from squall.protocol.function import FunctionSpec
from squall.server.dispatch.fleet import starts
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.model.config import ServerConfig
from squall.server.scheduler.giving_way import Try
from tests.server.dispatch.fleet.test_fair_places import short
from tests.server.doubles import FakeGuest, Stage, staged


def places(count: int) -> ServerConfig:
    return ServerConfig(containers_per_node_max=count)


class Work:
    """What guests do, by function: what is not named runs for ever."""

    def __init__(self, stage: Stage) -> None:
        self.short: set[str] = set()
        stage.node.run = self.run

    async def run(self, guest: FakeGuest, value: bytes) -> bytes:
        if guest.function_id in self.short:
            return await short(guest, value)
        await asyncio.Event().wait()
        return value


def dispatcher_of(stage: Stage, spec: FunctionSpec) -> Dispatcher:
    return stage.plane.apps.dispatchers[spec.function_id]


def open_of(stage: Stage, spec: FunctionSpec) -> int:
    return sum(one.is_open for one in dispatcher_of(stage, spec).containers.values())


async def take(
    stage: Stage, work: Work, count: int, *, is_short: bool = False, max_containers: int = 0, **fields: int
) -> FunctionSpec:
    """A function with work without end that gets so many places, and wants no more unless its maximum is given."""
    spec = await stage.client.function(max_containers=max_containers or count, **fields)
    if is_short:
        work.short.add(spec.function_id)
    stage.client.call(spec.function_id, *range(20_000 if is_short else 2 * count))
    await stage.until(lambda: open_of(stage, spec) == count)
    await stage.pass_time(1.0)
    return spec


async def test_those_that_nobody_can_make_room_for_keep_nobody_waiting() -> None:
    async with staged(places(4)) as stage:
        work = Work(stage)
        await take(stage, work, 4, is_short=True)
        # Each fits on an empty node only, and there are more of them than may be given way to at a time.
        for _ in range(starts.GIVE_WAY_MAX + 8):
            large = await stage.client.function(memory_mib=8_192)
            stage.client.call(large.function_id, 1)
        await stage.pass_time(3.0)
        single = await stage.client.function()
        work.short.add(single.function_id)

        call = stage.client.call(single.function_id, 7)
        await stage.pass_time(15.0)

        assert [one.value for one in call.outputs.values()] == [b"7"]


async def test_nobody_gives_way_on_a_node_that_lacks_the_image() -> None:
    async with staged(places(4)) as stage:
        work = Work(stage)
        rich = await take(stage, work, 4, is_short=True)
        node = stage.plane.fleet.nodes[stage.node.node_id]
        lacking, other = [await stage.client.function(image_id=f"im-{number}") for number in range(2)]
        work.short.update((lacking.function_id, other.function_id))
        node.lacks_image(lacking.image_id)
        # So it waits: a node that is not there yet may have it.
        stage.plane.fleet.starts.expect_nodes()

        waiting = stage.client.call(lacking.function_id, 7)
        await stage.pass_time(4.0)
        assert open_of(stage, rich) == 4

        call = stage.client.call(other.function_id, 8)
        await stage.pass_time(7.0)
        assert [one.value for one in call.outputs.values()] == [b"8"]
        assert not waiting.outputs

        node.has_image(lacking.image_id)
        await stage.pass_time(6.0)
        assert [one.value for one in waiting.outputs.values()] == [b"7"]


@pytest.mark.parametrize("why", ["kept", "waiting"])
async def test_who_has_most_and_may_give_nothing_keeps_nobody_waiting(why: str) -> None:
    async with staged(places(8)) as stage:
        work = Work(stage)
        rich = await take(stage, work, 5, min_containers=5 if why == "kept" else 0)
        await take(stage, work, 3, is_short=True)
        if why == "waiting":
            for container in dispatcher_of(stage, rich).containers.values():
                for one in container.held:
                    one.with_trouble().children += 1
        single = await stage.client.function()
        work.short.add(single.function_id)

        call = stage.client.call(single.function_id, 7)
        await stage.pass_time(6.0)

        assert [one.value for one in call.outputs.values()] == [b"7"]
        assert open_of(stage, rich) == 5


async def test_long_inputs_of_those_that_give_way_hold_up_nobody_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "GIVE_WAY_MAX", 2)
    async with staged(places(12)) as stage:
        work = Work(stage)
        await take(stage, work, 7)
        await take(stage, work, 5, is_short=True, max_containers=20)
        singles = [await stage.client.function() for _ in range(3)]
        work.short.update(one.function_id for one in singles)

        calls = [stage.client.call(one.function_id, 7) for one in singles]
        await stage.pass_time(40.0)

        assert [one.value for call in calls for one in call.outputs.values()] == [b"7"] * 3


async def test_nobody_gives_more_than_half_while_those_that_give_way_take_long() -> None:
    async with staged(places(8)) as stage:
        work = Work(stage)
        rich = await take(stage, work, 8)
        poor = await stage.client.function()

        stage.client.call(poor.function_id, *range(20))
        for _ in range(6):
            await stage.pass_time(1.0)
            assert open_of(stage, rich) >= 4

        assert open_of(stage, rich) == 4


async def test_idle_containers_make_room_while_others_finish_what_is_long() -> None:
    async with staged(places(4)) as stage:
        work = Work(stage)
        draining = await take(stage, work, 3)
        for container in list(dispatcher_of(stage, draining).containers.values()):
            stage.plane.fleet.drain(container, "its version is old")
        idle = await stage.client.function(scaledown_window_s=3_600.0)
        single = await stage.client.function()
        work.short.update((idle.function_id, single.function_id))
        await stage.done(stage.client.call(idle.function_id, 1), 1)

        call = stage.client.call(single.function_id, 7)
        await stage.pass_time(4.0)

        assert [one.value for one in call.outputs.values()] == [b"7"]


async def test_a_choice_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    async with staged(places(4)) as stage:
        work = Work(stage)
        await take(stage, work, 4, is_short=True)
        single = await stage.client.function()
        work.short.add(single.function_id)
        scheduler, turns = stage.plane.fleet.starts.scheduler, iter(("more", "fails"))
        give_way = scheduler.give_way

        def once_without_end(now: float, count: int, make: Try) -> bool:
            match next(turns, ""):
                case "more":
                    return True
                case "fails":
                    raise ValueError("in the second turn of a choice")
            return give_way(now, count, make)

        monkeypatch.setattr(scheduler, "give_way", once_without_end)
        call = stage.client.call(single.function_id, 7)
        with pytest.raises(ValueError, match="in the second turn"):
            await stage.pass_time(3.0)
        await stage.pass_time(15.0)

        assert [one.value for one in call.outputs.values()] == [b"7"]
