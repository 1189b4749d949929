"""Inputs of which one has ended a container run alone, and others go on beside them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from squall.protocol import call as wire
from squall.protocol.call import Failure
from squall.protocol.function import Batching, FunctionSpec
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.dispatch.function.input import Input
from squall.server.dispatch.function.quarantine import APART_MAX, Quarantine
from tests.server.doubles import FakeGuest, Stage, staged


def dispatcher_of(stage: Stage, spec: FunctionSpec) -> Dispatcher:
    return stage.plane.apps.dispatchers[spec.function_id]


async def forever(guest: FakeGuest, value: bytes) -> bytes:
    await asyncio.Event().wait()
    return value


async def crash_with(stage: Stage, spec: FunctionSpec, count: int) -> None:
    """End a container while it runs so many inputs."""
    stage.node.run = forever
    stage.client.call(spec.function_id, *range(count))
    await stage.until(lambda: any(len(guest.running) == count for guest in stage.node.guests.values()))
    next(guest for guest in stage.node.guests.values() if len(guest.running) == count).exit(1)
    await stage.pass_time(0.5)


def held(stage: Stage, spec: FunctionSpec) -> list[int]:
    return sorted(len(one.held) for one in dispatcher_of(stage, spec).containers.values())


async def test_after_a_crash_new_calls_run_side_by_side_and_each_suspect_alone() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_inputs=10, max_containers=2)
        await crash_with(stage, spec, 10)

        stage.client.call(spec.function_id, *range(100, 108))
        await stage.until(lambda: held(stage, spec) == [1, 8])

        dispatcher = dispatcher_of(stage, spec)
        assert len(dispatcher.attempts.suspects) == 10
        assert (dispatcher.quarantine.queued, dispatcher.ordinary) == (9, 0)


async def test_suspects_are_given_a_few_containers_and_not_one_each() -> None:
    async with staged(cpu_milli=16_000) as stage:
        spec = await stage.client.function(max_inputs=50, max_containers=40)
        await crash_with(stage, spec, 50)
        await stage.pass_time(10.0)

        assert held(stage, spec).count(1) == APART_MAX
        assert max(held(stage, spec)) == 1

        stage.client.call(spec.function_id, *range(100, 130))
        await stage.pass_time(5.0)
        assert sum(held(stage, spec)) == APART_MAX + 30
        assert max(held(stage, spec)) > 1


@pytest.mark.parametrize("fields", [{}, {"batching": Batching(5, 10)}], ids=["one", "batches"])
@pytest.mark.parametrize("containers", [1, 2, 5])
async def test_the_next_crash_names_its_input_and_all_others_are_done(
    containers: int, fields: dict[str, Batching]
) -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_inputs=4, max_containers=containers, **fields)
        alone = True

        async def exit_at_7(guest: FakeGuest, value: bytes) -> bytes:
            nonlocal alone
            await asyncio.sleep(0)
            if value == b"7":
                alone = len(guest.running) == 1
                guest.exit(None, 11)
            return value

        stage.node.run = exit_at_7
        call = stage.client.call(spec.function_id, *range(40))
        await stage.pass_time(6.0)

        assert len(call.outputs) == 40
        assert [index for index, got in call.outputs.items() if got.status != wire.SUCCEEDED] == [7]
        assert "SIGSEGV" in call.outputs[7].failure.message
        assert alone
        dispatcher = dispatcher_of(stage, spec)
        assert not dispatcher.attempts.suspects
        assert (dispatcher.queued, dispatcher.quarantine.queued) == (0, 0)


async def test_a_suspect_gets_a_container_even_if_others_would_fill_it_for_ever() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_inputs=4, max_containers=1)
        gates: list[asyncio.Event] = []

        async def run(guest: FakeGuest, value: bytes) -> bytes:
            if value == b"7":
                assert len(guest.running) == 1
                guest.exit(1)
            gates.append(gate := asyncio.Event())
            await gate.wait()
            return value

        stage.node.run = run
        bad = stage.client.call(spec.function_id, 7)
        await stage.until(lambda: len(stage.node.started) == 2 and not stage.node.guests)
        good = stage.client.call(spec.function_id, *range(100, 140))
        for _ in range(100):
            await stage.pass_time(0.1)
            if gates:
                gates.pop(0).set()

        assert bad.outputs[0].failure.kind == "crashed"
        assert len(good.outputs) == 40


async def test_suspects_that_are_cancelled_hold_nobody_up() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_inputs=4, max_containers=1)
        await crash_with(stage, spec, 4)
        dispatcher = dispatcher_of(stage, spec)
        dispatcher.attempts.cancel(list(dispatcher.attempts.suspects))
        stage.client.call(spec.function_id, *range(100, 104))

        await stage.until(lambda: held(stage, spec) == [4])
        assert (dispatcher.queued, dispatcher.quarantine.queued) == (0, 0)


@pytest.mark.parametrize("is_suspect_first", [True, False])
async def test_place_that_an_input_left_in_one_queue_is_none_in_the_other(is_suspect_first: bool) -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = forever
        stage.client.call(spec.function_id, 1, 2)
        await stage.until(lambda: held(stage, spec) == [1])
        dispatcher = dispatcher_of(stage, spec)
        (one,) = dispatcher.queue.queued()
        trouble = one.with_trouble()

        for is_suspect in (is_suspect_first, not is_suspect_first):
            # A guest that comes back says that it runs the input: its place stays.
            dispatcher.unqueue(one)
            trouble.is_suspect = is_suspect
            dispatcher.put_back(one)

        first, second = dispatcher.quarantine.queue, dispatcher.queue
        taken_first, taken_second = (first, second) if is_suspect_first else (second, first)
        assert taken_first.take(2) == []
        assert taken_second.take(2) == [one]


async def test_container_of_a_suspect_that_was_failed_may_be_handed_others() -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_inputs=4, max_containers=1)
        await crash_with(stage, spec, 1)
        await stage.until(lambda: held(stage, spec) == [1])
        dispatcher = dispatcher_of(stage, spec)
        (suspect,) = dispatcher.attempts.suspects
        stage.client.call(spec.function_id, 100, 101)
        await stage.pass_time(1.0)
        assert held(stage, spec) == [1]

        dispatcher.fail([suspect], Failure("exhausted", "it waits for ever"))
        await stage.pass_time(1.0)

        assert held(stage, spec) == [2]


# However many containers there are

MANY = 25_000


class Looks:
    """How often a container is looked at from now on: whether it may be handed anything, and what it holds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        look = vars(Container)["is_open"].fget

        def looked(container: Container) -> bool:
            self.count += 1
            return bool(look(container))

        monkeypatch.setattr(Container, "is_open", property(looked))
        runs_one = Quarantine._runs_one

        def looked_into(container: Container) -> bool:
            self.count += 1
            return runs_one(container)

        monkeypatch.setattr(Quarantine, "_runs_one", staticmethod(looked_into))


class CountedContainers(dict[str, Container]):
    """All containers of a function; to go through them is to look at each."""

    def __init__(self, looks: Looks, containers: dict[str, Container]) -> None:
        super().__init__(containers)
        self.looks = looks

    def values(self) -> Any:
        self.looks.count += len(self)
        return super().values()


@pytest.mark.long
@pytest.mark.parametrize("are_busy", [True, False], ids=["busy", "idle"])
async def test_turns_with_suspects_look_at_few_of_many_containers(
    are_busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged() as stage:
        spec = await stage.client.function(max_inputs=20, max_containers=1)
        await crash_with(stage, spec, 20)
        await stage.until(lambda: held(stage, spec) == [1])
        dispatcher = dispatcher_of(stage, spec)
        (first,) = dispatcher.containers.values()
        (running,) = first.held
        for number in range(MANY):
            container = Container(f"ct-{number}", dispatcher, 0.0, 0.0)
            container.is_ready, container.peer, container.credit = True, first.peer, int(not are_busy)
            if are_busy:
                container.held[Input(running.call, number, b"", "")] = None
            dispatcher.add(container)
            dispatcher.refresh(container)
        looks = Looks(monkeypatch)
        dispatcher.containers = CountedContainers(looks, dispatcher.containers)

        first.credit = 0
        dispatcher.fail([running], Failure("crashed", "it ends"))
        for _ in range(20):
            dispatcher.schedule()
            await asyncio.sleep(0)

        assert looks.count < 1_000
        apart = [one for one in dispatcher.open if dispatcher.quarantine.is_apart(one)]
        assert len(apart) == (1 if are_busy else APART_MAX), "one is reserved, or all that suspects may take"
        dispatcher.containers = {first.container_id: first}
