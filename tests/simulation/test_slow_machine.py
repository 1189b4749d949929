"""A map of many short inputs on a machine that is far too busy needs few containers: they take up to a minute to start,
some crash; inputs seem to take a hundred times as long as they do; some fail, and are tried again.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial

import pytest

from squall.protocol.node import ContainerStart, ContainerStarted
from squall.server.model.config import ServerConfig
from tests.server.doubles import Failed, FakeGuest, FakeNode, Stage, settle, staged

SEEDS = (1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 2)))
INPUTS = 20_000
FAILING = 0.001
RUN_US = 40
SLOWED = 100
CONTAINERS_MAX = 100


class BusyNode(FakeNode):
    """A node where everything takes long."""

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        super().__init__(stage.plane, stage.codec, memory_mib=2**20)
        self.stage = stage
        self.rng = rng
        self.run = self.run_one

    async def wait(self, seconds: float) -> None:
        due = asyncio.get_running_loop().create_future()
        self.stage.clock.call_later(seconds, lambda: None if due.done() else due.set_result(None))
        await due

    async def start(self, record: ContainerStart) -> ContainerStarted:
        await self.wait(self.rng.uniform(10.0, 60.0))
        self.crash_at_start = 1 if self.rng.random() < 0.1 else None
        started = await super().start(record)
        guest = self.guests.get(record.container_id)
        if guest is not None:
            guest.output = partial(guest.output, run_us=self.rng.choice((1, SLOWED)) * RUN_US)  # type: ignore[method-assign]
        return started

    async def run_one(self, guest: FakeGuest, value: bytes) -> bytes:
        """Most are short, and now and then one waits for the processor."""
        if self.rng.random() < 0.001:
            await self.wait(self.rng.uniform(0.1, 2.0))
        if self.rng.random() < FAILING:
            raise Failed
        return value


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_map_of_short_inputs_needs_few_containers_on_a_busy_machine(seed: int) -> None:
    rng = random.Random(seed)
    config = ServerConfig(app_grace_s=1e6, call_grace_s=1e6, containers_per_node_max=2_000, heartbeat_timeout_s=1e6)
    async with staged(config) as stage:
        assert stage.node.peer is not None
        stage.node.peer.channel.close()
        node = BusyNode(stage, rng)
        await node.connect()
        spec = await stage.client.function(retries=2, startup_timeout_s=300.0)
        dispatcher = stage.plane.apps.dispatchers[spec.function_id]
        call, most = stage.client.call(spec.function_id, *range(INPUTS)), 0
        while len(call.outputs) < INPUTS:
            stage.clock.advance(0.1)
            await settle(32)
            most = max(most, len(dispatcher.containers))

        assert most <= CONTAINERS_MAX, f"seed {seed}: {most} containers"
