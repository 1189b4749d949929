"""A world in which everything dies: several clients, two nodes, a server and its store, on a clock and by a seed.

The dispatcher, the durable calls, the policies and the records on the wire are the real ones. What is not: time, the
connections (frames in memory, lost with them as a kill loses them), the guests and nodes, and the disk, which is a
store whose writes take a while and are lost when the server is killed before they are done.

What must hold, whatever happened:
  * every input of a call that a client waits for has one output, which is its own
  * a durable call that was answered has one output, and says the same each time it is asked
  * nothing is left: no input in a queue, no suspects, no bytes that are counted as waiting
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from squall.protocol import call as wire
from squall.protocol.app import DEPLOYED, EPHEMERAL, AppCreate, AppCreated
from squall.protocol.call import (
    CallCancel,
    CallExtend,
    CallGet,
    CallOpen,
    CallSpawn,
    CallSpawned,
    Failure,
    InputBatch,
    OutputBatch,
    SpawnBatch,
    decode_failure,
)
from squall.protocol.empty import Empty
from squall.protocol.errors import PlatformError
from squall.protocol.function import FunctionCreate, FunctionCreated, FunctionSpec
from squall.protocol.ids import new_id
from squall.protocol.node import PATH_FORK
from squall.protocol.peer import Peer
from squall.protocol.task_set import TaskSet
from squall.server.dispatch import ControlPlane
from squall.server.model.store import Portion, StoredApp, StoredCall, StoredInput, StoredOutput
from squall.server.store.memory import MemoryStore
from tests.server.doubles import Failed, FakeCall, FakeClient, FakeGuest, FakeNode, Stage, heartbeat, make_spec, settle

CALLS_MAX = 12
PORTION_INPUTS = 4
"""Of a call that grows."""
TROUBLE_KINDS = frozenset({"crashed", "lost", "cancelled", "oom"})
"""How an input may end that could not be run, or was cancelled."""


class SlowDisk(MemoryStore):
    """A store whose writes take some turns of the loop; one that has not been done when the server dies never is."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._life = 0

    def lose_unwritten(self) -> None:
        """The server is killed."""
        self._life += 1

    async def _write(self) -> None:
        life = self._life
        for _ in range(self._rng.choice((0, 0, 1, 3, 15))):
            await asyncio.sleep(0)
        if life != self._life:
            await asyncio.Event().wait()

    async def put_app(self, app: StoredApp) -> None:
        await self._write()
        await super().put_app(app)

    async def put_functions(self, functions: tuple[FunctionSpec, ...]) -> None:
        await self._write()
        await super().put_functions(functions)

    async def put_calls(self, calls: tuple[tuple[StoredCall, tuple[StoredInput, ...]], ...]) -> tuple[bool, ...]:
        await self._write()
        are_new = await super().put_calls(calls)
        await self._write()
        return are_new

    async def extend_call(
        self, call_id: str, first: int, inputs: tuple[StoredInput, ...], made_at: float, *, is_last: bool
    ) -> Portion:
        await self._write()
        portion = await super().extend_call(call_id, first, inputs, made_at, is_last=is_last)
        await self._write()
        return portion

    async def cancel_call(self, call_id: str) -> StoredCall:
        await self._write()
        found = await super().cancel_call(call_id)
        await self._write()
        return found

    async def put_outputs(self, outputs: tuple[StoredOutput, ...]) -> tuple[bool, ...]:
        await self._write()
        are_new = await super().put_outputs(outputs)
        await self._write()
        return are_new


@dataclass
class Spawned:
    """A durable call as its client sees it."""

    call_id: str
    function_id: str
    values: tuple[bytes, ...]
    is_acknowledged: bool = False
    is_cancelled: bool = False
    answers: dict[int, set[tuple[int, bytes]]] = field(default_factory=dict)
    """Of each input all that was ever said of it: one answer, if things are right."""

    @property
    def is_done(self) -> bool:
        """Whether every input was answered."""
        return self.is_acknowledged and len(self.answers) == len(self.values)

    def portion(self, first: int, count: int) -> tuple[InputBatch, bytes]:
        """So many of its inputs, as a request brings them."""
        values = self.values[first : first + count]
        indexes = tuple(range(first, first + len(values)))
        return InputBatch(self.call_id, indexes, tuple(len(value) for value in values)), b"".join(values)


class Program:
    """A client process: it asks again what was not answered, as the SDK does, over all its connections."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.client = FakeClient(world.stage.plane, world.stage.codec)
        self.calls: list[tuple[FakeCall, dict[int, bytes]]] = []
        self.spawned: list[Spawned] = []
        self.apps: list[FunctionSpec] = []
        self.state = EPHEMERAL
        self.is_here = False
        self._arrived = asyncio.Event()
        self.tasks = TaskSet()

    async def connect(self) -> None:
        """Come, or come back: greet, take the apps up, open the calls again and send what has no output."""
        self.client.plane = self.world.stage.plane
        try:
            await self.client.connect()
            for spec in self.apps:
                await self.client.ask("AppCreate", AppCreate(spec.app_id, self.name, self.state), AppCreated)
                await self.client.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)
        except PlatformError:
            return  # the server was killed meanwhile; somebody brings us back
        for call, values in self.calls:
            if len(call.outputs) < len(values):
                self.client.resume(call, values)
        self.is_here = True
        self._arrived.set()

    def leave(self) -> None:
        """The connection breaks; what is on its way may be lost."""
        if self.client.peer is not None:
            self.world.lose(self.client.peer)
        self.is_here = False
        self._arrived.clear()

    async def ask(self, method: str, record: Any, reply: type[Any], body: bytes = b"") -> Any:
        """Ask until there is an answer."""
        while True:
            await self._arrived.wait()
            try:
                return await self.client.ask(method, record, reply, body)
            except PlatformError as error:
                if error.code != "unavailable":
                    raise
            # Whoever broke the connection lets us know of the next one.
            await asyncio.sleep(0)

    def map(self, spec: FunctionSpec, count: int) -> None:
        """A call that waits for its outputs."""
        if self.is_here and len(self.calls) < CALLS_MAX:
            values = {index: self.world.value(index) for index in range(count)}
            call = self.client.open(spec.function_id)
            self.client.put(call, values)
            self.calls.append((call, values))

    def spawn(self, spec: FunctionSpec, count: int) -> None:
        """A durable call."""
        for spawned in self._made(spec, 1, count):
            self.tasks.start(self._spawn(spawned))

    def spawn_many(self, spec: FunctionSpec, count: int) -> None:
        """Durable calls of one input each, in one request."""
        if many := self._made(spec, count, 1):
            self.tasks.start(self._spawn_many(spec.function_id, many))

    def grow(self, spec: FunctionSpec, portions: int) -> None:
        """A durable call whose inputs come little by little."""
        for spawned in self._made(spec, 1, portions * PORTION_INPUTS):
            self.tasks.start(self._grow(spawned))

    def _made(self, spec: FunctionSpec, calls: int, inputs: int) -> list[Spawned]:
        """Durable calls to be, so many as there may be more."""
        made = []
        for _ in range(min(calls, CALLS_MAX - len(self.spawned))):
            values = tuple(self.world.value(index) for index in range(inputs))
            made.append(Spawned(new_id("fc"), spec.function_id, values))
        self.spawned += made
        return made

    async def _spawn(self, spawned: Spawned) -> None:
        opened = CallOpen(spawned.call_id, spawned.function_id, wire.SPAWN)
        batch, body = spawned.portion(0, len(spawned.values))
        await self.ask("CallSpawn", CallSpawn(opened, batch), CallSpawned, body)
        await self._follow(spawned)

    async def _spawn_many(self, function_id: str, many: list[Spawned]) -> None:
        values = [one.values[0] for one in many]
        record = SpawnBatch(function_id, tuple(one.call_id for one in many), tuple(len(value) for value in values))
        await self.ask("CallSpawnMany", record, Empty, b"".join(values))
        for one in many:
            self.tasks.start(self._follow(one))

    async def _grow(self, spawned: Spawned) -> None:
        opened = CallOpen(spawned.call_id, spawned.function_id, wire.SPAWN_MAP)
        batch, body = spawned.portion(0, PORTION_INPUTS)
        await self.ask("CallSpawn", CallSpawn(opened, batch, is_growing=True), CallSpawned, body)
        for first in range(PORTION_INPUTS, len(spawned.values), PORTION_INPUTS):
            batch, body = spawned.portion(first, PORTION_INPUTS)
            await self.ask("CallExtend", CallExtend(batch), CallSpawned, body)
        batch, body = spawned.portion(len(spawned.values), 0)
        await self.ask("CallExtend", CallExtend(batch, is_last=True), CallSpawned, body)
        await self._follow(spawned)

    async def _follow(self, spawned: Spawned) -> None:
        """It was answered: its outputs are to come."""
        spawned.is_acknowledged = True
        for index in range(len(spawned.values)):
            await self.get(spawned, index)

    async def get(self, spawned: Spawned, index: int) -> None:
        """Ask for one output until it is there."""
        while True:
            await self._arrived.wait()
            assert self.client.peer is not None
            try:
                record, body = await self.client.peer.request_with_body(
                    "CallGet", CallGet(spawned.call_id, index, 5.0), OutputBatch, timeout_s=20.0
                )
            except PlatformError as error:
                if error.code != "unavailable":
                    raise
                await asyncio.sleep(0)
                continue
            if record.indexes:
                spawned.answers.setdefault(index, set()).add((record.statuses[0], bytes(body)))
                return

    async def cancel(self, spawned: Spawned) -> None:
        """Cancel it, for good."""
        if spawned.is_acknowledged:
            await self.ask("CallCancel", CallCancel(spawned.call_id), Empty)
            spawned.is_cancelled = True


class World:
    """What happens, in an order that the seed decides."""

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        self.stage = stage
        self.rng = rng
        self.runs = 0
        self.happened: Counter[str] = Counter()
        self.specs: list[FunctionSpec] = []
        self.programs: list[Program] = []
        self.nodes: list[FakeNode] = []

    async def begin(self) -> None:
        """Two nodes, two programs with an ephemeral and a deployed app, each with one function."""
        self.nodes = [self.stage.node, FakeNode(self.stage.plane, self.stage.codec)]
        # What starts there is a fork: inputs whose container crashes are not all handed to the next one.
        self.nodes[1].start_path = (PATH_FORK, "")
        await self.nodes[1].connect()
        for node in self.nodes:
            node.run = self.run
        for name, state in (("mine", EPHEMERAL), ("ours", DEPLOYED)):
            program = Program(self, name)
            program.state = state
            spec = make_spec(
                new_id("ap"),
                max_inputs=self.rng.choice((1, 3)),
                max_containers=self.rng.choice((1, 4)),
                retries=self.rng.choice((0, 2)),
            )
            program.apps.append(spec)
            self.specs.append(spec)
            self.programs.append(program)
            await program.connect()

    def value(self, index: int) -> bytes:
        """A value that no other input has."""
        return f"{self.rng.getrandbits(48):x}.{index}".encode()

    async def run(self, guest: FakeGuest, value: bytes) -> bytes:
        """Mostly short, sometimes long, now and then failing; what comes out tells two runs of an input apart."""
        for _ in range(self.rng.choice((0, 0, 0, 0, 1, 5, 40))):
            await asyncio.sleep(0)
        self.runs += 1
        if self.rng.random() < 0.02:
            raise Failed("user", "bad luck")
        return value + f"!{self.runs}".encode()

    def lose(self, peer: Peer) -> None:
        """A connection breaks: what either side has sent and the other has not read may be lost, or not."""
        channel: Any = peer.channel
        other = channel._peer
        for end in (channel, other):
            if end is not None and self.rng.random() < 0.5:
                keep = self.rng.randrange(len(end._inbox) + 1)
                del end._inbox[keep:]
        channel.close()

    # What happens

    async def step(self) -> None:
        """One thing happens, and a little time passes."""
        name = self.rng.choices(list(HAPPENINGS), list(HAPPENINGS.values()))[0]
        self.happened[name] += 1
        await getattr(self, name)()
        self.stage.clock.advance(self.rng.choice((0.0, 0.01, 0.05, 0.3)))
        await settle(self.rng.choice((0, 1, 5, 20)))

    async def nothing(self) -> None:
        """Time passes."""

    async def map(self) -> None:
        program = self.rng.choice(self.programs)
        program.map(self.rng.choice(self.specs), self.rng.choice((1, 2, 30, 150)))

    async def spawn(self) -> None:
        program = self.rng.choice(self.programs)
        program.spawn(self.rng.choice(self.specs), self.rng.choice((1, 1, 2, 20)))

    async def spawn_many(self) -> None:
        program = self.rng.choice(self.programs)
        program.spawn_many(self.rng.choice(self.specs), self.rng.choice((1, 2, 5)))

    async def grow(self) -> None:
        program = self.rng.choice(self.programs)
        program.grow(self.rng.choice(self.specs), self.rng.choice((1, 3, 6)))

    async def cancel(self) -> None:
        program = self.rng.choice(self.programs)
        if program.spawned:
            program.tasks.start(program.cancel(self.rng.choice(program.spawned)))

    def guest(self) -> FakeGuest | None:
        """One that serves."""
        guests = [one for node in self.nodes for one in node.guests.values() if one.boot is not None]
        return self.rng.choice(guests) if guests else None

    async def crash(self) -> None:
        if (guest := self.guest()) is not None:
            if guest.peer is not None and self.rng.random() < 0.5:
                self.lose(guest.peer)
            guest.exit(self.rng.choice((1, 0, None)), 9)

    async def break_guest(self) -> None:
        if (guest := self.guest()) is not None and guest.peer is not None:
            if not guest.peer.is_closed:
                self.lose(guest.peer)
            await settle(self.rng.choice((0, 3, 30)))
            if guest.container_id in guest.node.guests:
                await guest.connect(is_reconnect=True)

    async def break_node(self) -> None:
        """An agent is killed and started again; its containers go on, their connections with it."""
        node = self.rng.choice(self.nodes)
        for guest in node.guests.values():
            if guest.peer is not None and not guest.peer.is_closed:
                self.lose(guest.peer)
        if node.peer is not None and not node.peer.is_closed:
            self.lose(node.peer)
        await settle(self.rng.choice((0, 3, 30)))
        if self.rng.random() < 0.3:
            # Its spawner, too: the containers are gone, and nobody says how.
            for guest in list(node.guests.values()):
                guest.exit(None, 9)
        await self.join(node)

    async def join(self, node: FakeNode) -> None:
        """A node comes (back), and its guests' connections with it."""
        try:
            await node.connect()
        except PlatformError:
            return
        for guest in list(node.guests.values()):
            if guest.peer is None or guest.peer.is_closed:
                await guest.connect(is_reconnect=True)

    async def leave(self) -> None:
        self.rng.choice(self.programs).leave()

    async def come_back(self) -> None:
        for program in self.programs:
            if not program.is_here:
                await program.connect()

    async def take_back(self) -> None:
        for container in self.stage.plane.fleet.containers.values():
            if container.held and container.is_ready:
                held = self.rng.sample(list(container.held), self.rng.randrange(len(container.held)))
                container.dispatcher.returns.take_back(container, held)

    async def kill_server(self) -> None:
        """The server is killed: nothing that it has not written or sent is ever known."""
        plane = self.stage.plane
        store = self.stage.store
        assert isinstance(store, SlowDisk)
        store.lose_unwritten()
        plane.clock.stop()
        for program in self.programs:
            program.leave()
        for node in self.nodes:
            for guest in node.guests.values():
                if guest.peer is not None:
                    self.lose(guest.peer)
            if node.peer is not None:
                self.lose(node.peer)
        for peer in list(plane._peers):
            peer.channel.close()
        await plane.tasks.close()
        await settle()
        self.stage.plane = ControlPlane(
            store, self.stage.blobs, self.stage.logs, self.stage.secret_keys, self.stage.codec, self.stage.config,
            self.stage.clock,
        )  # fmt: skip
        await self.stage.plane.__aenter__()
        for node in self.nodes:
            node.plane = self.stage.plane
        everybody: list[Any] = [*self.programs, *self.nodes]
        self.rng.shuffle(everybody)
        for one in everybody:
            await (one.connect() if isinstance(one, Program) else self.join(one))
            await settle(self.rng.choice((0, 1, 10)))

    async def beat(self) -> None:
        for node in self.nodes:
            for guest in node.guests.values():
                heartbeat(guest, len(guest.running) + len(guest.waiting))

    # The end

    async def finish(self) -> None:
        """No more faults: everything comes to its end."""
        await self.come_back()
        for node in self.nodes:
            if node.peer is None or node.peer.is_closed:
                await self.join(node)
            for guest in list(node.guests.values()):
                if guest.peer is None or guest.peer.is_closed:
                    await guest.connect(is_reconnect=True)
        for _ in range(3_000):
            if not self.unanswered():
                break
            self.stage.clock.advance(0.1)
            await settle(12)
            await self.beat()
        for program in self.programs:
            for spawned in program.spawned:
                for index in spawned.answers:
                    await program.get(spawned, index)

    async def end(self) -> None:
        """Nobody asks anything any more."""
        for program in self.programs:
            await program.tasks.close()
        for guest in self.nodes[1].started:
            guest.waiting.clear()
            guest.tasks.cancel()
            await guest.tasks.close()

    def unanswered(self) -> list[str]:
        """What somebody still waits for."""
        return [
            f"{program.name} {call.call_id}: {len(values) - len(call.outputs)} outputs"
            for program in self.programs
            for call, values in program.calls
            if len(call.outputs) < len(values)
        ] + [
            f"{program.name} {one.call_id}: spawned, acknowledged: {one.is_acknowledged}, answers: {len(one.answers)}"
            for program in self.programs
            for one in program.spawned
            if not one.is_done
        ]

    def check(self) -> None:
        """What must hold; see the module."""
        assert not self.unanswered(), (self.unanswered(), self.happened)
        for program in self.programs:
            for call, values in program.calls:
                assert sorted(call.outputs) == list(values)
                for index, got in call.outputs.items():
                    self.check_output(got.status, got.value, values[index], is_cancelled=False)
            for spawned in program.spawned:
                for index, answers in spawned.answers.items():
                    assert len(answers) == 1, f"{spawned.call_id} says different things of input {index}: {answers}"
                    (status, value), *_ = answers
                    self.check_output(status, value, spawned.values[index], is_cancelled=True)
        for spec in self.specs:
            dispatcher = self.stage.plane.apps.dispatchers[spec.function_id]
            assert (dispatcher.queued, dispatcher.delayed) == (0, 0)
            assert not dispatcher.queue.queued()
            assert not dispatcher.attempts.suspects
            assert not dispatcher.attempts.cut_short
            assert not [one for container in dispatcher.containers.values() for one in container.held]
        assert self.stage.plane.calls.waiting_bytes == 0

    def check_output(self, status: int, value: bytes, given: bytes, *, is_cancelled: bool) -> None:
        """An output is of its input, or says what kept it."""
        if status == wire.SUCCEEDED:
            assert value.startswith(given + b"!"), f"the output of another input: {value!r} for {given!r}"
            return
        failure: Failure = decode_failure(value)[0]
        crashes = self.happened["crash"] + self.happened["break_node"]
        kinds = {"user"} | (TROUBLE_KINDS if crashes >= 3 else set()) | ({"cancelled"} if is_cancelled else set())
        assert failure.kind in kinds, failure


HAPPENINGS = {
    "nothing": 40, "map": 10, "spawn": 4, "spawn_many": 4, "grow": 3, "cancel": 1, "crash": 3,
    "break_guest": 4, "break_node": 1, "leave": 2,
    "come_back": 8, "take_back": 2, "kill_server": 2, "beat": 6,
}  # fmt: skip
"""What happens, and how often."""
