"""A server, a node and a client on a clock of their own, and faults by a seed: every input gets its one output.

A failure prints the seed; `SEEDS` takes more of them to look for trouble.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from squall.protocol import call as wire
from squall.protocol.function import FunctionSpec
from squall.server.model.config import ServerConfig
from tests.server.doubles import FakeCall, FakeGuest, Stage, heartbeat, settle, staged

SEEDS = range(12)
STEPS = 150
CALLS = 8


class World:
    """What happens, in an order that the seed decides."""

    def __init__(self, stage: Stage, spec: FunctionSpec, rng: random.Random) -> None:
        self.stage = stage
        self.spec = spec
        self.rng = rng
        self.calls: list[tuple[FakeCall, dict[int, bytes]]] = []
        self.is_client_here = True

    async def run(self, guest: FakeGuest, value: bytes) -> bytes:
        """Mostly short, sometimes long, in units of the world's clock."""
        for _ in range(self.rng.choice((0, 0, 0, 0, 1, 5, 40))):
            await asyncio.sleep(0)
        return value + b"!"

    async def step(self) -> None:
        """One thing happens, and a little time passes."""
        happenings = (
            self.call, self.call, self.nothing, self.nothing, self.crash, self.break_guest, self.leave, self.come_back,
            self.take_back, self.restart, self.beat,
        )  # fmt: skip
        weights = (6, 6, 20, 20, 2, 3, 1, 6, 2, 1, 6)
        await self.rng.choices(happenings, weights)[0]()
        self.stage.clock.advance(self.rng.choice((0.0, 0.01, 0.05, 0.3)))
        await settle(self.rng.choice((0, 1, 5, 20)))

    async def nothing(self) -> None:
        """Time passes."""

    async def call(self) -> None:
        if self.is_client_here and len(self.calls) < CALLS:
            count = self.rng.choice((1, 2, 30, 200))
            values = {index: f"{len(self.calls)}.{index}".encode() for index in range(count)}
            call = self.stage.client.open(self.spec.function_id)
            self.stage.client.put(call, values)
            self.calls.append((call, values))

    def guest(self) -> FakeGuest | None:
        guests = [one for one in self.stage.node.guests.values() if one.boot is not None]
        return self.rng.choice(guests) if guests else None

    async def crash(self) -> None:
        if (guest := self.guest()) is not None:
            guest.exit(self.rng.choice((1, 0, None)), 9)

    async def break_guest(self) -> None:
        if (guest := self.guest()) is not None and guest.peer is not None:
            if not guest.peer.is_closed:
                guest.disconnect()
            await settle(self.rng.choice((0, 3, 30)))
            if guest.container_id in self.stage.node.guests:
                await guest.connect(is_reconnect=True)

    async def leave(self) -> None:
        if self.is_client_here:
            self.stage.client.disconnect()
            self.is_client_here = False

    async def come_back(self) -> None:
        if not self.is_client_here:
            await self.stage.client.connect()
            await self.stage.take_up(self.spec)
            for call, values in self.calls:
                if len(call.outputs) < len(values):
                    self.stage.client.resume(call, values)
            self.is_client_here = True

    async def take_back(self) -> None:
        for container in self.stage.plane.fleet.containers.values():
            if container.held and container.is_ready:
                held = self.rng.sample(list(container.held), self.rng.randrange(len(container.held)))
                container.dispatcher.returns.take_back(container, held)

    async def restart(self) -> None:
        await self.stage.restart()
        self.is_client_here = False
        await self.come_back()

    async def beat(self) -> None:
        for guest in self.stage.node.guests.values():
            heartbeat(guest, len(guest.running) + len(guest.waiting))

    async def finish(self) -> None:
        """No more faults: everything comes to its end."""
        await self.come_back()
        for guest in list(self.stage.node.guests.values()):
            if guest.peer is not None and guest.peer.is_closed:
                await guest.connect(is_reconnect=True)
        for _ in range(3_000):
            if all(len(call.outputs) == len(values) for call, values in self.calls):
                return
            self.stage.clock.advance(0.1)
            await settle(12)
            await self.beat()

    def check_kept(self) -> None:
        """What is kept of containers as they change is what a look at all of them shows."""
        dispatcher = self.stage.plane.apps.dispatchers[self.spec.function_id]
        containers, quarantine = dispatcher.containers.values(), dispatcher.quarantine
        apart = {one for one in containers if quarantine.is_apart(one)}
        assert apart <= {quarantine._reserved, *quarantine._held.values()}
        assert dispatcher.open.keys() <= {one for one in containers if one.is_open}
        assert not dispatcher.free.keys() & apart
        if self.is_node_here():
            assert dispatcher.open.keys() == {one for one in containers if one.is_open}
            assert dispatcher.free.keys() >= {one for one in dispatcher.open if len(one.held) < dispatcher.window(one)}

    def is_node_here(self) -> bool:
        """Whether no guest is on its way back."""
        return all(one.peer is not None and not one.peer.is_closed for one in self.stage.node.guests.values())

    def check(self) -> None:
        """Every input has its output and nothing is left anywhere."""
        for call, values in self.calls:
            assert sorted(call.outputs) == list(values)
            for index, got in call.outputs.items():
                if got.status == wire.SUCCEEDED:
                    assert got.value == values[index] + b"!"
                else:
                    assert got.failure.kind in ("crashed", "lost")
        dispatcher = self.stage.plane.apps.dispatchers[self.spec.function_id]
        assert (dispatcher.queued, dispatcher.delayed) == (0, 0)
        assert not dispatcher.queue.queued()
        assert not dispatcher.attempts.suspects
        assert not dispatcher.attempts.cut_short
        assert not [one for container in dispatcher.containers.values() for one in container.held]
        assert self.stage.plane.calls.waiting_bytes == 0


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_input_gets_one_output_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    async with staged(ServerConfig(app_grace_s=1e6, call_grace_s=1e6)) as stage:
        spec = await stage.client.function(
            max_inputs=rng.choice((1, 3)), max_containers=rng.choice((1, 4)), retries=rng.choice((0, 2))
        )
        world = World(stage, spec, rng)
        stage.node.run = world.run

        for _ in range(STEPS):
            await world.step()
            world.check_kept()
        await world.finish()

        world.check()
