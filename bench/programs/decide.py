"""A control plane without wires: 1,000 nodes, 10,000 functions in 100 apps, events by a seed.

An event is a burst of one function that comes, or ends: the load is taken, the autoscaler asked, containers are wanted,
placed or stopped. `idle_ms`: what a second costs in which nothing happens. `full_ms`: an event while every core is
taken and thousands of containers with a thousand images wait. `tick_ms`: what the server does about those each second:
place again, and choose who gives way. `stall_ms` is the longest that anything of all this held the event loop, without
what Python's garbage collector took meanwhile: `collect_ms` is its longest pass.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import sys
import time
from collections.abc import Callable

from squall.protocol.function import BY_FILE, Definition, FunctionSpec, Scaling
from squall.server.autoscaler import IdleContainer, Load, decide
from squall.server.scheduler import Answer, Claim, NodeView, Pending, Scheduler

NODES = 1_000
FUNCTIONS = 10_000
APPS = 100
PLACES = 40
"""Of each node."""
IMAGES = 1_000
IMAGES_OF_NODE = 25
CLAIM = Claim(cpu_milli=800)
"""Twenty of them fill the cores of a node, and half of its places."""
WAITING = 4_000
"""Containers that wait for a place in a full cluster."""
GIVE_WAY_MAX = 32


class Function:
    """As much of a dispatcher as the two look at."""

    def __init__(self, number: int) -> None:
        self.spec = FunctionSpec(
            f"fu-{number}", f"ap-{number % APPS}", f"f{number}", Definition(BY_FILE, "m", "f"), f"im-{number % IMAGES}",
            scaling=Scaling(buffer_containers=number % 3),
        )  # fmt: skip
        self.queued = 0
        self.busy: list[str] = []
        self.idle: dict[str, float] = {}
        self.pending: dict[str, None] = {}

    def load(self, now: float) -> Load:
        """What the autoscaler is shown."""
        return Load(
            now, self.spec.scaling, self.queued, len(self.busy), len(self.busy), len(self.pending), 0,
            tuple(IdleContainer(key, since) for key, since in self.idle.items()), service_s=1.0,
        )  # fmt: skip


class World:
    """All of it, on a clock that events move."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now = 0.0
        self.scheduler = Scheduler()
        self.functions = [Function(number) for number in range(FUNCTIONS)]
        self.owner: dict[str, Function] = {}
        self.has_more = False
        self._number = 0
        images = [f"im-{number}" for number in range(IMAGES)]
        for number in range(NODES):
            known = frozenset(rng.sample(images, IMAGES_OF_NODE))
            self.scheduler.node_came(NodeView(f"nd-{number:04}", 16_000, 65_536, PLACES, image_ids=known))

    def come(self, function: Function, count: int) -> None:
        """Inputs come."""
        function.queued += count
        self.decide(function)

    def end(self, function: Function) -> None:
        """Everything that runs has ended."""
        function.idle |= dict.fromkeys(function.busy, self.now)
        function.busy.clear()
        self.decide(function)

    def decide(self, function: Function) -> None:
        """Ask both, and carry out what they say."""
        decision = decide(function.load(self.now))
        spec = function.spec
        for _ in range(decision.start):
            self._number += 1
            one = Pending(f"ct-{self._number}", spec.function_id, spec.image_id, CLAIM, spec.app_id, self.now)
            self.owner[one.container_id] = function
            function.pending[one.container_id] = None
            self.scheduler.want(one)
        for container_id in decision.stop:
            self.gone(function, container_id)
        for container_id in list(function.pending)[: decision.cancel_pending]:
            del function.pending[container_id]
            self.scheduler.unwant(container_id)
        for placement in self.scheduler.place().placements:
            owner = self.owner[placement.container_id]
            del owner.pending[placement.container_id]
            owner.idle[placement.container_id] = self.now
            self.begin(owner)

    def begin(self, function: Function) -> None:
        """Idle containers take what is queued."""
        while function.queued and function.idle:
            function.busy.append(function.idle.popitem()[0])
            function.queued -= 1

    def gone(self, function: Function, container_id: str) -> None:
        """A container has ended."""
        function.idle.pop(container_id, None)
        self.owner.pop(container_id, None)
        self.scheduler.ended(container_id)

    def event(self) -> None:
        """Something happens to a function."""
        self.now += self.rng.expovariate(200.0)
        function = self.rng.choice(self.functions)
        if function.busy and self.rng.random() < 0.6:
            self.end(function)
        else:
            self.come(function, self.rng.choice((1, 1, 1, 2, 5, 50)))
            self.begin(function)

    def tick(self) -> None:
        """What `starts.tick` asks each second."""
        self.now += 1.0
        self.scheduler.place()
        self.has_more = self.scheduler.give_way(self.now, GIVE_WAY_MAX, _possible)

    def tick_on(self) -> None:
        """What it does in the next turn when it has not looked at all."""
        if self.has_more:
            self.has_more = self.scheduler.give_way(self.now, GIVE_WAY_MAX, _possible)

    def replace_one(self) -> None:
        """A container ends in a full cluster; its place goes to who is next."""
        function = self.rng.choice(self.functions)
        while not function.busy and not function.idle:
            function = self.rng.choice(self.functions)
        container_id = function.busy.pop() if function.busy else next(iter(function.idle))
        self.gone(function, container_id)
        self.decide(function)


def _possible(_: str, __: Pending) -> Answer:
    """Any container could go."""
    return Answer.MADE


class Collections:
    """What the garbage collector takes."""

    def __init__(self) -> None:
        self.total_ns = self.longest_ns = self._began_ns = 0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, _: object) -> None:
        now_ns = time.thread_time_ns()
        if phase == "start":
            self._began_ns = now_ns
            return
        took_ns = now_ns - self._began_ns
        self.total_ns += took_ns
        self.longest_ns = max(self.longest_ns, took_ns)


def timed_ms(events: int, event: Callable[[], object], collections: Collections) -> list[float]:
    """Processor time of each."""
    times = []
    for _ in range(events):
        before = time.thread_time_ns() - collections.total_ns
        event()
        times.append((time.thread_time_ns() - collections.total_ns - before) / 1e6)
    return times


def timed_turns_ms(world: World, collections: Collections) -> list[float]:
    """Processor time of each turn of the event loop in which a second is seen to."""
    times = timed_ms(1, world.tick, collections)
    while world.has_more:
        times += timed_ms(1, world.tick_on, collections)
    return times


def main(events: int) -> dict[str, float]:
    """The numbers."""
    collections = Collections()
    world = World(random.Random(4))
    for _ in range(events):
        world.event()
    times = sorted(timed_ms(events, world.event, collections))
    containers = len(world.owner) - world.scheduler.waiting_count
    idle = timed_ms(20, world.scheduler.place, collections)

    for function in world.functions:
        if world.scheduler.waiting_count >= WAITING:
            break
        world.now += 2.0
        world.come(function, 200)
    full = sorted(timed_ms(500, world.replace_one, collections))
    ticks = [one for _ in range(20) for one in timed_turns_ms(world, collections)]
    return {
        "p50_ms": statistics.median(times),
        "p99_ms": times[len(times) * 99 // 100],
        "full_ms": statistics.median(full),
        "full_p99_ms": full[len(full) * 99 // 100],
        "tick_ms": statistics.median(ticks),
        "stall_ms": max(*times, *full, *ticks),
        "collect_ms": collections.longest_ns / 1e6,
        "idle_ms": statistics.median(idle),
        "containers": containers,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(int(sys.argv[1]))) + "\n")
