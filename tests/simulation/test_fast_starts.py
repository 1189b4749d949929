"""Containers that start in the time of a fork: a burst is over before anybody would have looked twice. By a seed, on a
clock of its own; each message takes one turn of the event loop and no time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from squall.protocol.node import PATH_FORK, ContainerStart, ContainerStarted
from squall.server.autoscaler import STEP_MIN
from squall.server.dispatch.function.dispatcher import Dispatcher
from tests.server.doubles import FakeGuest, FakeNode, Stage, settle, staged

SEEDS = range(3)
START_S = (0.005, 0.015)
BURST = 200
STEP_S = 0.001


class QuickNode(FakeNode):
    """A node whose containers are forked."""

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        super().__init__(stage.plane, stage.codec, memory_mib=65_536)
        self.node_id = stage.node.node_id
        self.stage = stage
        self.rng = rng
        self.run_s, self.run_us = 60.0, 60_000_000
        self.run = self.work
        self.in_flight = 0
        self.in_flight_max: dict[int, int] = {}
        """By how many were ready, the most that were on their way."""
        self.start_path = (PATH_FORK, "")

    async def wait(self, seconds: float) -> None:
        """Time passes on the clock of the stage."""
        due = asyncio.get_running_loop().create_future()
        self.stage.clock.call_later(seconds, lambda: None if due.done() else due.set_result(None))
        await due

    async def work(self, guest: FakeGuest, value: bytes) -> bytes:
        """What the function does."""
        await self.wait(self.run_s)
        return value

    async def start(self, record: ContainerStart) -> ContainerStarted:
        self.in_flight += 1
        ready = len(self.guests)
        self.in_flight_max[ready] = max(self.in_flight_max.get(ready, 0), self.in_flight)
        await self.wait(self.rng.uniform(*START_S))
        self.in_flight -= 1
        return await super().start(record)


@asynccontextmanager
async def quick(seed: int) -> AsyncIterator[tuple[Stage, QuickNode]]:
    """A stage whose node is one of these."""
    async with staged() as stage:
        node = QuickNode(stage, random.Random(seed))
        stage.node = node
        await node.connect()
        yield stage, node


async def pass_time(stage: Stage, seconds: float) -> None:
    for _ in range(round(seconds / STEP_S)):
        stage.clock.advance(STEP_S)
        await settle(20)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_burst_has_all_its_containers_within_a_few_starts(seed: int) -> None:
    async with quick(seed) as (stage, node):
        spec = await stage.client.function()

        stage.client.call(spec.function_id, *range(BURST))
        await pass_time(stage, 0.2)

        assert len(node.guests) == BURST, "by doubling, with no pause longer than a start"
        assert all(most <= max(STEP_MIN, ready) for ready, most in node.in_flight_max.items()), node.in_flight_max


@pytest.mark.parametrize("seed", SEEDS)
async def test_each_call_in_turn_has_a_container_of_its_own_in_the_time_of_a_start(seed: int) -> None:
    async with quick(seed) as (stage, node):
        node.run_s, node.run_us = 0.002, 2_000
        spec = await stage.client.function(is_single_use=True)

        for number in range(20):
            call = stage.client.call(spec.function_id, number)
            took = 0
            while not call.outputs:
                await pass_time(stage, STEP_S)
                took += 1

            assert took <= (START_S[1] + node.run_s + 0.008) / STEP_S, f"call {number} took {took} ms"
        assert len(node.started) == 20


def looks_of(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the autoscaler is asked, from now on."""
    looks: list[float] = []
    scaling = stage.plane.fleet._scaling
    look = scaling._look

    def noted(dispatcher: Dispatcher) -> None:
        looks.append(stage.clock.monotonic())
        look(dispatcher)

    monkeypatch.setattr(scaling, "_look", noted)
    return looks


@pytest.mark.parametrize("run_s", [0.003, 0.02])
async def test_a_function_that_has_what_it_needs_is_not_looked_at_all_the_time(
    run_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with quick(0) as (stage, node):
        node.run_s, node.run_us, node.credit_max = run_s, int(run_s * 1e6), 1
        spec = await stage.client.function(max_containers=2)
        stage.client.call(spec.function_id, *range(500))
        await pass_time(stage, 0.2)

        looks = looks_of(stage, monkeypatch)
        await pass_time(stage, 0.3)

        assert stage.plane.apps.dispatchers[spec.function_id].queued
        assert 4 <= len(looks) <= 7, "each 50 ms, however many outputs come"


async def test_short_inputs_that_wait_for_each_other_are_not_looked_at_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with quick(0) as (stage, node):
        node.run_s, node.run_us, node.credit_max = 0.001, 1_000, 1
        spec = await stage.client.function(max_containers=1)
        call = stage.client.call(spec.function_id, 0)
        await pass_time(stage, 0.2)

        looks = looks_of(stage, monkeypatch)
        for index in range(1, 150, 2):
            stage.client.put(call, {index: b"1", index + 1: b"1"})
            await pass_time(stage, 0.004)

        assert len(call.outputs) >= 145
        assert 4 <= len(looks) <= 7, "each 50 ms, however often one waits"
