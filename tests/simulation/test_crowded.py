"""Nodes that are full, of what may not go, what takes long to end and what has work without end, and before everybody
else wait those that nobody can make room for: whoever comes then with one call has its result within a bounded time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from squall.protocol.function import FunctionSpec
from squall.server.dispatch.fleet.starts import GIVE_WAY_MAX
from squall.server.model.config import ServerConfig
from squall.server.scheduler.giving_way import GIVE_WAY_S
from squall.server.scheduler.promises import SLOW_S
from tests.server.doubles import FakeCall, FakeGuest, FakeNode, Stage, settle, staged

SEEDS = range(3)
NODES = 3
PLACES = 8
RUN_S = 0.5
LONG_S = 600.0
WAIT_S_MAX = GIVE_WAY_S + 2 * SLOW_S + 4 * RUN_S
"""A single call may be promised the place of what turns out long, and another one after that."""


class Crowd:
    """The stage, and what each function's inputs do."""

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        self.stage = stage
        self.rng = rng
        self.nodes = [stage.node]
        self.run_s: dict[str, float] = {}
        stage.node.run = self.run

    async def begin(self) -> None:
        """The other nodes come."""
        for _ in range(NODES - 1):
            node = FakeNode(self.stage.plane, self.stage.codec)
            node.run = self.run
            await node.connect()
            self.nodes.append(node)

    async def run(self, guest: FakeGuest, value: bytes) -> bytes:
        """Its time passes on the clock of the stage."""
        due = asyncio.get_running_loop().create_future()
        seconds = self.run_s[guest.function_id]
        self.stage.clock.call_later(seconds, lambda: None if due.done() else due.set_result(None))
        await due
        return value

    async def pass_time(self, seconds: float) -> None:
        """In steps that are shorter than an input."""
        for _ in range(round(seconds / 0.1)):
            self.stage.clock.advance(0.1)
            await settle(16)

    async def function(self, run_s: float, count: int, **fields: int) -> FunctionSpec:
        """A function of an app of its own, called with so many inputs."""
        spec = await self.stage.client.function(**fields)
        self.run_s[spec.function_id] = run_s
        self.stage.client.call(spec.function_id, *range(count))
        return spec

    async def fill(self) -> None:
        """Take all places, and ask for more."""
        kept, long = self.rng.randint(8, 12), self.rng.randint(4, 8)
        await self.function(LONG_S, kept, min_containers=kept)
        await self.pass_time(3.0)
        await self.function(LONG_S, long, max_containers=long)
        await self.pass_time(3.0)
        await self.function(RUN_S, 3_000)
        for _ in range(GIVE_WAY_MAX + 8):
            await self.function(RUN_S, 1, memory_mib=8_192)
        await self.pass_time(5.0)

    def places(self) -> Counter[str]:
        """How many places each function has."""
        return Counter(one.spec.function_id for one in self.stage.plane.fleet.containers.values() if one.node)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_single_call_has_its_result_in_time_whatever_waits_before_it(seed: int) -> None:
    rng = random.Random(seed)
    config = ServerConfig(app_grace_s=1e6, call_grace_s=1e6, containers_per_node_max=PLACES, heartbeat_timeout_s=1e6)
    async with staged(config) as stage:
        crowd = Crowd(stage, rng)
        await crowd.begin()
        await crowd.fill()
        assert sum(crowd.places().values()) == NODES * PLACES
        due: list[tuple[float, FakeCall]] = []

        for _ in range(12):
            spec = await stage.client.function()
            crowd.run_s[spec.function_id] = RUN_S
            due.append((stage.clock.monotonic() + WAIT_S_MAX, stage.client.call(spec.function_id, 7)))
            await crowd.pass_time(rng.choice((0.1, 1.0, 5.0)))
            late = [by for by, call in due if by < stage.clock.monotonic() and not call.outputs]
            assert not late, f"seed {seed}: {len(late)} wait, places {crowd.places()}"
        await crowd.pass_time(WAIT_S_MAX)

        assert [len(call.outputs) for _, call in due] == [1] * len(due), f"seed {seed}"
        for node in crowd.nodes:
            for guest in node.started:
                guest.waiting.clear()
                guest.tasks.cancel()
