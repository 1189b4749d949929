"""A server with autoscaler, scheduler and dispatchers, nodes with few places and many functions, on a clock of their
own: bursts, slow starts, crashes and lost nodes by a seed. What must always hold is looked at after each step.

A failure prints the seed; `SEEDS` takes more of them to look for trouble.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from squall.protocol.function import FunctionCreate, FunctionCreated, FunctionSpec
from squall.protocol.node import ContainerStart, ContainerStarted
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.model.config import ServerConfig
from squall.server.scheduler.giving_way import GIVE_WAY_S
from tests.server.doubles import FakeCall, FakeGuest, FakeNode, Stage, heartbeat, make_spec, settle, staged

SEEDS = range(3)
RUN_S_MAX = 3.0
START_S_MAX = 2.0
NODE_GRACE_S = 5.0
WINDOW_S = 5.0
UNFAIR_S = 4 * (GIVE_WAY_S + RUN_S_MAX + START_S_MAX) + NODE_GRACE_S
"""A node may be lost, and a start crash, between a place that is given up and the container that gets it."""


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    functions: int
    apps: int
    nodes: int
    places: int
    steps: int


SMALL = Size(functions=120, apps=6, nodes=4, places=6, steps=120)
LARGE = Size(functions=3_000, apps=40, nodes=20, places=15, steps=400)


class SimulatedNode(FakeNode):
    """A node whose containers take time to start, and sometimes do not."""

    def __init__(self, world: World) -> None:
        super().__init__(world.stage.plane, world.stage.codec)
        self.world = world
        self.run = world.run

    async def start(self, record: ContainerStart) -> ContainerStarted:
        world = self.world
        world.starts[record.function_id] += 1
        await world.wait(world.rng.uniform(0.02, START_S_MAX))
        self.crash_at_start = 1 if world.rng.random() < world.crash_rate else None
        world.failures[record.function_id] += self.crash_at_start is not None
        return await super().start(record)


@dataclass
class World:
    """Everything, and what happens to it."""

    stage: Stage
    size: Size
    rng: random.Random
    nodes: list[SimulatedNode] = field(default_factory=list)
    specs: dict[str, FunctionSpec] = field(default_factory=dict)
    run_s: dict[str, float] = field(default_factory=dict)
    calls: list[tuple[FakeCall, int]] = field(default_factory=list)
    inputs: Counter[str] = field(default_factory=Counter)
    starts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    made_room: Counter[str] = field(default_factory=Counter)
    stopped_idle: Counter[str] = field(default_factory=Counter)
    crash_rate: float = 0.05

    async def begin(self) -> None:
        """Nodes come, apps are made."""
        self.stage.node.peer.channel.close()  # type: ignore[union-attr]
        self.watch_drains()
        for _ in range(self.size.nodes):
            await self.add_node()
        for number in range(self.size.apps):
            app_id = await self.stage.client.app(f"app-{number}")
            specs = tuple(self.make_function(app_id, name) for name in range(self.size.functions // self.size.apps))
            await self.stage.client.ask("FunctionCreate", FunctionCreate(specs), FunctionCreated)

    def make_function(self, app_id: str, name: int) -> FunctionSpec:
        rng = self.rng
        spec = make_spec(
            app_id, f"f{name}", scaledown_window_s=WINDOW_S, max_inputs=rng.choice((1, 1, 1, 4)),
            min_containers=1 if rng.random() < 2 / self.size.functions else 0,
            max_containers=rng.choice((None, None, 1, 3, 8)), buffer_containers=rng.choice((0, 0, 0, 1)),
        )  # fmt: skip
        self.specs[spec.function_id] = spec
        self.run_s[spec.function_id] = rng.choice((0.0, 0.0, 0.05, 0.5, RUN_S_MAX))
        return spec

    def watch_drains(self) -> None:
        """No decision takes a function below its minimum."""
        fleet = self.stage.plane.fleet
        drain = fleet.drain

        def watched(container: Container, reason: str) -> None:
            function_id = container.spec.function_id
            if not (container.is_draining or container.ending):
                self.made_room[function_id] += "another function" in reason
                self.stopped_idle[function_id] += reason == "nothing to do"
                if reason == "nothing to do":
                    idle_s = self.stage.clock.monotonic() - container.idle_since
                    assert idle_s >= WINDOW_S - 1e-6, f"{container.container_id} was idle for {idle_s} s"
            drain(container, reason)
            if reason == "nothing to do" or "another function" in reason:
                assert len(alive(container.dispatcher)) >= container.dispatcher.scaling.min_containers, reason

        fleet.drain = watched  # type: ignore[method-assign]

    # What happens

    async def wait(self, seconds: float) -> None:
        """Time passes on the clock of the world."""
        due = asyncio.get_running_loop().create_future()
        self.stage.clock.call_later(seconds, lambda: None if due.done() else due.set_result(None))
        await due

    async def run(self, guest: FakeGuest, value: bytes) -> bytes:
        """Each function takes its time."""
        if run_s := self.run_s[guest.function_id]:
            await self.wait(run_s)
        return value

    async def step(self) -> None:
        """One thing happens, and time passes."""
        happenings = (self.burst, self.single, self.nothing, self.lose_node, self.add_node, self.crash)
        await self.rng.choices(happenings, (6, 10, 6, 0.5, 0.6, 1))[0]()
        await self.pass_time(self.rng.choice((0.05, 0.1, 0.5, 2.0)))

    async def pass_time(self, seconds: float) -> None:
        """In small steps, so that what happens in between can."""
        while seconds > 1e-9:
            self.stage.clock.advance(min(0.1, seconds))
            seconds -= 0.1
            await settle(16)
        for node in self.nodes:
            for guest in node.guests.values():
                heartbeat(guest, len(guest.running) + len(guest.waiting))

    async def nothing(self) -> None:
        """Time passes."""

    def call(self, function_id: str, count: int) -> None:
        self.calls.append((self.stage.client.call(function_id, *range(count)), count))
        self.inputs[function_id] += count

    async def burst(self) -> None:
        """Many inputs for one function."""
        self.call(self.rng.choice(list(self.specs)), self.rng.choice((5, 30, 100)))

    async def single(self) -> None:
        """One input each for a few."""
        for function_id in self.rng.sample(list(self.specs), 3):
            self.call(function_id, 1)

    async def lose_node(self) -> None:
        """A machine is gone, with all that ran on it."""
        if len(self.nodes) > 1:
            node = self.nodes.pop(self.rng.randrange(len(self.nodes)))
            for guest in list(node.guests.values()):
                self.lost[guest.function_id] += 1
                guest.running.clear()
                guest.tasks.cancel()
                guest.disconnect()
            self.lost.update(one.function_id for one in node.starts)
            assert node.peer is not None
            node.peer.channel.close()

    async def add_node(self) -> None:
        """Another machine comes."""
        if len(self.nodes) < self.size.nodes:
            node = SimulatedNode(self)
            self.nodes.append(node)
            await node.connect()

    async def crash(self) -> None:
        """A container ends by itself."""
        guests = [guest for node in self.nodes for guest in node.guests.values()]
        if guests:
            guest = self.rng.choice(guests)
            self.lost[guest.function_id] += 1
            guest.exit(1)

    async def finish(self) -> None:
        """No more faults: everything comes to its end."""
        self.crash_rate = 0.0
        while len(self.nodes) < self.size.nodes:
            await self.add_node()
        for _ in range(600):
            if all(len(call.outputs) == count for call, count in self.calls):
                break
            await self.pass_time(1.0)
        await self.pass_time(START_S_MAX + WINDOW_S + 1.0)  # what still starts becomes idle first

    # What must hold

    def check(self) -> None:
        """After each step."""
        plane = self.stage.plane
        for dispatcher in plane.apps.dispatchers.values():
            most = dispatcher.scaling.max_containers
            there = len(alive(dispatcher))
            assert most is None or there <= most, f"{there} containers, at most {most}"
        for node in plane.fleet.nodes.values():
            assert len(node.containers) <= self.size.places
        assert plane.fleet.idle.keys() == {
            one for dispatcher in plane.apps.dispatchers.values() for one in dispatcher.idle
        }
        self.check_shares()

    def check_shares(self) -> None:
        """Nobody with nothing waits for long while others have much."""
        fleet, now = self.stage.plane.fleet, self.stage.clock.monotonic()
        places = Counter(
            one.dispatcher.root_app_id for node in fleet.nodes.values() for one in node.containers.values()
        )
        for container in fleet.starts.pending.values():
            waited_s = now - container.asked_at
            if not places[container.dispatcher.root_app_id] and waited_s > UNFAIR_S and not container.refusals:
                richest = max(places.values(), default=0)
                assert richest <= 1, f"an app with nothing waited {waited_s:.1f} s, another has {richest} places"

    def check_end(self) -> None:
        """When all is over."""
        for call, count in self.calls:
            assert sorted(call.outputs) == list(range(count))
        for dispatcher in self.stage.plane.apps.dispatchers.values():
            function_id, scaling = dispatcher.spec.function_id, dispatcher.scaling
            left = [(one.state, one.ending_in_words()) for one in dispatcher.containers.values()]
            assert len(left) == scaling.min_containers, left
            # Each start has a reason: an input, one that was lost or made room, or what is kept in any case.
            reasons = self.inputs[function_id] * (1 + scaling.buffer_containers) + self.stopped_idle[function_id]
            reasons += self.lost[function_id] + self.failures[function_id] + self.made_room[function_id]
            assert self.starts[function_id] <= reasons + scaling.min_containers + scaling.buffer_containers


def alive(dispatcher: Dispatcher) -> list[Container]:
    return [one for one in dispatcher.containers.values() if not one.is_draining and not one.ending]


async def simulate(seed: int, size: Size) -> None:
    rng = random.Random(seed)
    config = ServerConfig(
        app_grace_s=1e6, call_grace_s=1e6, containers_per_node_max=size.places, node_grace_s=NODE_GRACE_S
    )
    async with staged(config) as stage:
        world = World(stage, size, rng)
        try:
            await world.begin()
            for _ in range(size.steps):
                await world.step()
                world.check()
            await world.finish()
            world.check()
            world.check_end()
        except Exception as error:
            error.add_note(f"seed {seed}, {size}")
            raise
        finally:
            for node in world.nodes:
                await _end(node)


async def _end(node: Any) -> None:
    for guest in node.started:
        guest.waiting.clear()
        guest.tasks.cancel()
        await guest.tasks.close()


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
async def test_limits_hold_and_everything_ends_whatever_happens(seed: int) -> None:
    await simulate(seed, SMALL)


@pytest.mark.long
@pytest.mark.parametrize("seed", [100, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (101, 102))])
async def test_the_same_with_thousands_of_functions(seed: int) -> None:
    await simulate(seed, LARGE)
