"""The other ends of the wire: a node's agent, guests and clients that speak real frames to a control plane."""

from __future__ import annotations

import asyncio
import logging
import string
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from squall.main.codec import MsgspecCodec
from squall.protocol import call as wire
from squall.protocol.app import AppCreate, AppCreated
from squall.protocol.call import (
    CallClose,
    CallOpen,
    CallWaits,
    Failure,
    InputBatch,
    InputRefs,
    ItemBatch,
    OutputBatch,
    cut,
    decode_failure,
    encode_failure,
)  # fmt: skip
from squall.protocol.call_id import owner_mark
from squall.protocol.channel.memory import MemoryChannel
from squall.protocol.codec import Codec
from squall.protocol.container import TerminalOutput
from squall.protocol.empty import Empty
from squall.protocol.errors import PlatformError
from squall.protocol.function import (
    BY_FILE,
    Definition,
    FunctionCreate,
    FunctionCreated,
    FunctionSpec,
    Resources,
    RetryPolicy,
    Scaling,
)  # fmt: skip
from squall.protocol.guest import Boot, GuestStop, Heartbeat, Holding, Ready, StartupFailed, TerminalData
from squall.protocol.ids import function_id, new_id
from squall.protocol.image import BuildEvent, ImageBuild
from squall.protocol.log import LogEntry, LogRead
from squall.protocol.node import (
    PATH_PLAIN,
    ContainerEnd,
    ContainerExited,
    ContainerHello,
    ContainerStart,
    ContainerStarted,
    NodeContainer,
    NodeHello,
    NodeWelcome,
)  # fmt: skip
from squall.protocol.peer import Peer
from squall.protocol.records import replace
from squall.protocol.request import Request
from squall.protocol.server import Hello, Welcome
from squall.protocol.task_set import TaskSet
from squall.protocol.version import PROTOCOL_VERSION, VERSION
from squall.protocol.volume import NodeVolumesFetch, VolumesFetched
from squall.server.dispatch import ControlPlane, ManualClock
from squall.server.model.config import ServerConfig
from squall.server.model.logs import Progress
from squall.server.model.secret import SecretKeys
from squall.server.store.log import matches
from squall.server.store.memory import MemoryStore
from squall.server.store.memory_secret_keys import MemorySecretKeys


class MemoryBlobs:
    """As much of a blob store as the control plane uses."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.told: set[str] = set()

    async def missing(self, sha256s: tuple[str, ...], *, is_told: bool = True) -> tuple[str, ...]:
        if is_told:
            self.told.update(one for one in sha256s if one in self.blobs)
        return tuple(one for one in dict.fromkeys(sha256s) if one not in self.blobs)

    async def put_chunk(self, sha256: str, size_bytes: int, offset: int, data: bytes) -> bool:
        self.blobs[sha256] = self.blobs.get(sha256, b"")[:offset] + data
        return len(self.blobs[sha256]) == size_bytes

    async def get_chunk(self, sha256: str, offset: int = 0, length: int = 2**22) -> tuple[int, bytes]:
        if sha256 not in self.blobs:
            raise PlatformError("not_found", f"no blob {sha256}")
        return len(self.blobs[sha256]), self.blobs[sha256][offset : offset + length]

    def path(self, sha256: str) -> str | None:
        return None

    async def check(self, sha256: str) -> None:
        return None

    async def delete(self, sha256: str) -> None:
        self.blobs.pop(sha256, None)

    async def delete_untold(self, sha256: str) -> bool:
        if sha256 in self.told:
            return False
        await self.delete(sha256)
        return True

    async def evict(self, bytes_max: int, keep: frozenset[str]) -> int:
        return 0

    async def sweep(self, older_than_s: float = 0.0) -> int:
        return 0


class MemoryLogs:
    """As much of a log store as the control plane uses; `follow` ends where `read` does."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []
        self.finished: list[tuple[str, str]] = []

    def append(self, entries: tuple[LogEntry, ...]) -> None:
        self.entries += entries

    async def flush(self) -> None:
        return None

    async def read(self, query: LogRead) -> AsyncIterator[tuple[LogEntry, ...]]:
        found = [one for one in self.entries if matches(query, one)]
        if found:
            yield tuple(found)

    def follow(self, query: LogRead, progress: Progress | None = None) -> AsyncIterator[tuple[LogEntry, ...]]:
        return self.read(query)

    def finish(self, app_id: str, container_id: str = "") -> None:
        self.finished.append((app_id, container_id))

    async def delete(self, app_id: str) -> None:
        self.entries = [one for one in self.entries if one.app_id != app_id]


async def settle(turns: int = 60) -> None:
    """Let everything that can happen now happen."""
    for _ in range(turns):
        await asyncio.sleep(0)


def made_at(seconds: float) -> str:
    """The id of a call that was made at that time since 1970."""
    millis, digits = int(seconds * 1000), ""
    for _ in range(8):
        millis, digit = divmod(millis, 62)
        digits = (string.digits + string.ascii_uppercase + string.ascii_lowercase)[digit] + digits
    return f"fc-{digits}{new_id('fc')[11:]}"


def make_spec(app_id: str, name: str = "square", **fields: Any) -> FunctionSpec:
    """A function's spec; scaling and resources may be given as fields of their own."""
    scaling_names = set(Scaling.__dataclass_fields__)
    scaling = Scaling(**{key: fields.pop(key) for key in list(fields) if key in scaling_names})
    resources = Resources(**{key: fields.pop(key) for key in list(fields) if key in Resources.__dataclass_fields__})
    retries = RetryPolicy(fields.pop("retries", 0), initial_delay_s=1.0, backoff_coefficient=2.0)
    kinds = {kind: fields.pop(kind, False) for kind in ("is_generator", "is_async")}
    definition = fields.pop("definition", None) or Definition(BY_FILE, "hello", name, **kinds)
    return FunctionSpec(
        function_id(app_id, name),
        app_id,
        name,
        definition,
        fields.pop("image_id", "im-test"),
        scaling=scaling,
        resources=resources,
        retries=retries,
        **fields,
    )


Run = Callable[["FakeGuest", bytes], Awaitable[bytes]]


async def double(guest: FakeGuest, value: bytes) -> bytes:
    """The default function: the number in the value, times two."""
    return str(int(value) * 2).encode()


class Failed(Exception):
    """Raised by a run function: the user's exception, or another failure."""

    def __init__(self, kind: str = "user", message: str = "it failed", status: int = wire.FAILED) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message)
        self.status = status


class FakeGuest:
    """Serves inputs as a guest does: in order, `max_inputs` at a time."""

    def __init__(self, node: FakeNode, container_id: str, function_id: str) -> None:
        self.node = node
        self.container_id = container_id
        self.function_id = function_id
        self.boot: Boot | None = None
        self.peer: Peer | None = None
        self.waiting: list[tuple[str, int, int, bytes]] = []
        self.running: dict[tuple[str, int], asyncio.Future[Any]] = {}
        self.version = 0
        """Of its function, as its agent was told."""
        self.path: tuple[str, str] = (PATH_PLAIN, "")
        """As it was started, and why so."""
        self.begun: list[tuple[int, int]] = []
        """(index, attempt) of every input begun."""
        self.began: list[tuple[str, int, int]] = []
        """The same, with the call."""
        self.received: list[int] = []
        self.frames: list[InputBatch] = []
        self.undelivered: list[tuple[OutputBatch, bytes]] = []
        self.is_stopping = False
        self.is_holding = False
        """Takes inputs and begins none."""
        self.is_forgetful = False
        """Forgets on a reconnect what it has not begun, and does not say so."""
        self.is_old = False
        """Of a version that does not say what it runs when it comes back."""
        self.is_deaf = False
        """Does not react to CancelInputs."""
        self.max_inputs = 1
        self.terminal: list[tuple[TerminalData, bytes]] = []
        self.tasks = TaskSet()

    async def connect(self, *, is_reconnect: bool = False, is_ready: bool = True, is_ahead: bool = False) -> None:
        """Open the connection that the agent relays; after a reconnect say at once that inputs may come, or later. One
        that is ahead is announced by its agent, which says `GuestCame` when it is there."""
        here, there = MemoryChannel.pair()
        self.node.plane.accept_container(there)
        self.peer = Peer(here, self.node.codec, self)
        self.peer.start()
        self.peer.event(
            "ContainerHello", ContainerHello(self.container_id, "guest", is_reconnect=is_reconnect, is_ahead=is_ahead)
        )
        if is_reconnect:
            if self.is_forgetful:
                self.waiting.clear()
            if not self.is_old:
                self.name_running()
            undelivered, self.undelivered = self.undelivered, []
            for record, body in undelivered:
                self.tell("Outputs", record, body)
            if is_ready:
                self.ready()

    def name_running(self) -> None:
        """Say what runs, and forget what does not."""
        self.waiting.clear()
        attempts = {(call_id, index): attempt for call_id, index, attempt in self.began}
        for call_id, index in self.running:
            self.tell("Holding", Holding(call_id, (index,), (attempts[call_id, index],), (1.0,)))

    def ready(self) -> None:
        """Say that inputs may come."""
        self.tell("Ready", Ready(self.node.credit_max, import_ms=1.0))

    def tell(self, method: str, record: Any, body: bytes = b"") -> None:
        """An event for the server; outputs are kept while there is no connection."""
        if self.peer is None or self.peer.is_closed:
            if method == "Outputs":
                self.undelivered.append((record, body))
            return
        self.peer.event(method, record, body)

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        """See `Service`."""
        raise PlatformError("invalid", "a guest answers nothing")

    def event(self, method: str, params: Any, body: bytes) -> None:
        """See `Service`."""
        record = self.node.codec.record
        if method == "Boot":
            self.boot = record(Boot, params)
            self.max_inputs = self.boot.max_inputs if not self.boot.is_batched else 10**6
            if self.node.startup_failure is not None:
                self.tell("StartupFailed", StartupFailed(self.node.startup_failure))
                self.exit(1)
            elif not self.node.is_slow_to_load:
                self.ready()
        elif method == "Inputs":
            batch = record(InputBatch, params)
            self.frames.append(batch)
            for index, attempt, value in zip(batch.indexes, batch.attempts, cut(body, batch.sizes), strict=True):
                self.waiting.append((batch.call_id, index, attempt, value))
                self.received.append(index)
            self.begin()
        elif method == "TakeBack":
            self.take_back(record(InputRefs, params))
        elif method == "CancelInputs":
            self.cancel(record(InputRefs, params))
        elif method == "GuestStop":
            record(GuestStop, params)
            self.is_stopping = True
            self.exit(0)
        elif method in ("WebIn", "WebCredit"):
            self.node.on_web(self, method, params, body)
        elif method == "TerminalData":
            self.terminal.append((record(TerminalData, params), body))

    def begin(self) -> None:
        """Begin as many as may run at once."""
        while self.waiting and len(self.running) < self.max_inputs and not self.is_holding:
            call_id, index, attempt, value = self.waiting.pop(0)
            self.begun.append((index, attempt))
            self.began.append((call_id, index, attempt))
            self.running[call_id, index] = self.tasks.start(self.run(call_id, index, attempt, value))

    async def run(self, call_id: str, index: int, attempt: int, value: bytes) -> None:
        status = wire.SUCCEEDED
        try:
            if self.node.run_request is not None:
                result = await self.node.run_request(self, call_id, index, value)
            else:
                result = await self.node.run(self, value)
        except Failed as failed:
            result, status = encode_failure(failed.failure), failed.status
        except asyncio.CancelledError:
            if (call_id, index) not in self.running:
                raise
            result, status = encode_failure(Failure("cancelled", "cancelled")), wire.CANCELLED
        self.running.pop((call_id, index), None)
        self.output(call_id, index, attempt, result, status)
        self.begin()

    def output(
        self, call_id: str, index: int, attempt: int, value: bytes, status: int = 0, run_us: int | None = None
    ) -> None:
        """Bring one output."""
        run_us = self.node.run_us if run_us is None else run_us
        self.tell("Outputs", OutputBatch(call_id, (index,), (status,), (len(value),), (attempt,), (run_us,)), value)

    def items(self, call_id: str, attempt: int, first: int, values: list[bytes]) -> None:
        """Bring items of the generator that runs as input 0."""
        sizes = tuple(len(value) for value in values)
        self.tell("Items", ItemBatch(call_id, 0, attempt, first, sizes), b"".join(values))

    def take_back(self, refs: InputRefs) -> None:
        """Give back what has not begun, and what is not known."""
        mine = {(call_id, index) for call_id, index, _, _ in self.waiting}
        if self.is_forgetful:
            return
        back = [i for i in refs.indexes if (refs.call_id, i) in mine or (refs.call_id, i) not in self.running]
        self.waiting = [one for one in self.waiting if not (one[0] == refs.call_id and one[1] in back)]
        self.tell("GivenBack", InputRefs(refs.call_id, tuple(back)))

    def cancel(self, refs: InputRefs) -> None:
        """Stop inputs."""
        if self.is_deaf:
            return
        value = encode_failure(Failure("cancelled", "cancelled"))
        for call_id, index, attempt, _ in [one for one in self.waiting if one[1] in refs.indexes]:
            self.output(call_id, index, attempt, value, wire.CANCELLED)
        self.waiting = [one for one in self.waiting if one[1] not in refs.indexes]
        for index in refs.indexes:
            task = self.running.get((refs.call_id, index))
            if task is not None:
                task.cancel()

    def exit(
        self,
        code: int | None = 0,
        signal: int | None = None,
        *,
        is_oom: bool = False,
        over_disk: str = "",
        memory_limit_mib: int = 0,
    ) -> None:
        """The process ends."""
        self.running.clear()
        self.tasks.cancel()
        if self.peer is not None:
            self.peer.channel.close()
        if self.node.guests.pop(self.container_id, None) is not None:
            exited = ContainerExited(
                self.container_id, code, signal, is_oom, over_disk=over_disk, memory_limit_mib=memory_limit_mib
            )
            self.node.tell("ContainerExited", exited)

    def disconnect(self) -> None:
        """The connection breaks; the process goes on."""
        assert self.peer is not None
        self.peer.channel.close()

    def closed(self, reason: str) -> None:
        """See `Service`."""


class FakeNode:
    """An agent whose containers are `FakeGuest`s."""

    def __init__(self, plane: ControlPlane, codec: Codec, *, cpu_milli: int = 2_000, memory_mib: int = 8_192) -> None:
        self.plane = plane
        self.codec = codec
        self.node_id = new_id("nd")
        self.cpu_milli = cpu_milli
        self.memory_mib = memory_mib
        self.run: Run = double
        self.run_request: Callable[[FakeGuest, str, int, bytes], Awaitable[bytes]] | None = None
        """What requests are run by, in place of that."""
        self.on_web: Callable[[FakeGuest, str, Any, bytes], None] = lambda guest, method, params, body: None
        """Told what comes of requests that run."""
        self.credit_max = 500
        self.run_us = 50
        """How long inputs have run, as guests say."""
        self.guests: dict[str, FakeGuest] = {}
        self.started: list[FakeGuest] = []
        self.starts: list[ContainerStart] = []
        self.ended: list[str] = []
        self.grace_s: dict[str, float] = {}
        self.refusal: PlatformError | None = None
        self.startup_failure: Failure | None = None
        self.is_slow_to_load = False
        self.crash_at_start: int | None = None
        self.welcome: NodeWelcome | None = None
        self.builds = 0
        self.build_records: list[ImageBuild] = []
        self.told: list[tuple[str, Any]] = []
        """Events of the server, as they came."""
        self.built = BuildEvent("built", 1, 1, image_id="im-test")
        self.start_gate = asyncio.Event()
        self.start_gate.set()
        self.start_path: tuple[str, str] = (PATH_PLAIN, "")
        """The path that containers take, and why no other one."""
        self.has_snapshot = False
        self.has_announced_all = False
        """The guests of its containers come before their starts are answered, and none with that."""
        self.fetched: list[str] = []
        """Volumes that it was to have versions of, in order."""
        self.fetching: list[VolumesFetched] = []
        """What it says before it has them."""
        self.on_fetching: Callable[[], object] = lambda: None
        """Called before each word of it."""
        self.fetch_failure: PlatformError | None = None
        self.build_gate = asyncio.Event()
        self.build_gate.set()
        self.peer: Peer | None = None

    async def connect(self) -> None:
        """Introduce the node."""
        here, there = MemoryChannel.pair()
        self.plane.accept_agent(there)
        self.peer = Peer(here, self.codec, self)
        self.peer.start()
        found = tuple(
            NodeContainer(guest.container_id, guest.function_id, guest.boot.app_id if guest.boot else "", guest.version)
            for guest in self.guests.values()
        )
        hello = NodeHello(self.node_id, VERSION, PROTOCOL_VERSION, self.cpu_milli, self.memory_mib, containers=found)
        self.welcome = await self.peer.request("NodeHello", hello, NodeWelcome)

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        """See `Service`."""
        if request.method == "ContainerStart":
            return await self.start(request.record(ContainerStart)), b""
        if request.method == "ContainerEnd":
            end = request.record(ContainerEnd)
            guest = self.guests.get(end.container_id)
            if guest is not None:
                self.ended.append(guest.container_id)
                self.grace_s[guest.container_id] = end.grace_s
                guest.exit(None, 9)
            return Empty(), b""
        if request.method == "NodeVolumesFetch":
            self.fetched += [one.mount.volume_id for one in request.record(NodeVolumesFetch).volumes]
            for progress in self.fetching:
                self.on_fetching()
                await request.send_item(progress)
                await settle(2)
            if self.fetch_failure is not None:
                raise self.fetch_failure
            await request.send_item(VolumesFetched(is_done=True))
            return None
        if request.method == "NodeImageBuild":
            self.builds += 1
            self.build_records.append(request.record(ImageBuild))
            await request.send_item(BuildEvent("step", 1, 1, "debian_slim"))
            await self.build_gate.wait()
            await request.send_item(self.built)
            return None
        if request.method == "NodeExec":
            await request.send_item(TerminalOutput(), b"hello from inside\n")
            await request.send_item(TerminalOutput(exit_code=0))
            return None
        raise PlatformError("invalid", request.method)

    async def start(self, record: ContainerStart) -> ContainerStarted:
        self.starts.append(record)
        await self.start_gate.wait()
        if self.refusal is not None:
            raise self.refusal
        guest = FakeGuest(self, record.container_id, record.function_id)
        guest.version = record.version
        guest.path = (PATH_PLAIN, "it was asked for") if record.is_plain else self.start_path
        self.guests[record.container_id] = guest
        self.started.append(guest)
        if self.crash_at_start is not None:
            guest.exit(self.crash_at_start)
        elif not self.has_announced_all:
            await guest.connect()
        return ContainerStarted({"sandbox": 1.0}, *guest.path, has_snapshot=self.has_snapshot)

    def event(self, method: str, params: Any, body: bytes) -> None:
        """See `Service`."""
        self.told.append((method, params))

    def closed(self, reason: str) -> None:
        """See `Service`."""

    def tell(self, method: str, record: Any) -> None:
        """An event for the server."""
        if self.peer is not None and not self.peer.is_closed:
            self.peer.event(method, record)


@dataclass
class Got:
    """An output a client got."""

    status: int
    value: bytes
    attempt: int

    @property
    def failure(self) -> Failure:
        """Why there is no result."""
        return decode_failure(self.value)[0]


@dataclass
class FakeCall:
    """A call and what came of it."""

    call_id: str
    function_id: str
    kind: str
    outputs: dict[int, Got] = field(default_factory=dict)
    copies: int = 0
    """Outputs that came again."""
    items: list[bytes] = field(default_factory=list)


class FakeClient:
    """A client of the wire."""

    def __init__(self, plane: ControlPlane, codec: Codec, client_id: str = "") -> None:
        self.plane = plane
        self.codec = codec
        self.client_id = client_id or new_id("cl")
        self.peer: Peer | None = None
        self.calls: dict[str, FakeCall] = {}
        self.notices: list[str] = []
        """Why calls of it wait."""

    async def connect(self) -> Self:
        """Open a connection and say hello."""
        self.connect_without_hello()
        await self.ask("Hello", Hello(VERSION, PROTOCOL_VERSION, self.client_id), Welcome)
        return self

    def connect_without_hello(self) -> Self:
        """Open a connection and say nothing."""
        here, there = MemoryChannel.pair()
        self.plane.accept_client(there)
        self.peer = Peer(here, self.codec, self)
        self.peer.start()
        return self

    async def connect_inside(self, container_id: str) -> Self:
        """As the SDK in a container."""
        here, there = MemoryChannel.pair()
        self.plane.accept_container(there)
        self.peer = Peer(here, self.codec, self)
        self.peer.start()
        self.peer.event("ContainerHello", ContainerHello(container_id, "client", self.client_id))
        return self

    async def connect_in_template(self, hello: ContainerHello) -> Self:
        """As the SDK in what will be a container; its agent says what of."""
        here, there = MemoryChannel.pair()
        self.plane.accept_container(there)
        self.peer = Peer(here, self.codec, self)
        self.peer.start()
        self.peer.event("ContainerHello", replace(hello, role="client", client_id=self.client_id))
        return self

    async def ask(self, method: str, record: Any, reply: type[Any], body: bytes = b"") -> Any:
        """A request."""
        assert self.peer is not None
        return await self.peer.request(method, record, reply, body, timeout_s=20.0)

    async def app(self, name: str = "hello", state: str = "ephemeral") -> str:
        """A new app."""
        app_id = new_id("ap")
        await self.ask("AppCreate", AppCreate(app_id, name, state), AppCreated)
        return app_id

    async def function(self, **fields: Any) -> FunctionSpec:
        """A new app with one function."""
        spec = make_spec(await self.app(), **fields)
        await self.ask("FunctionCreate", FunctionCreate((spec,)), FunctionCreated)
        return spec

    def open(
        self, function_id: str, kind: str = wire.MAP, parent: str = "", call_id: str = "", method: str = ""
    ) -> FakeCall:
        """Begin a call."""
        call = FakeCall(call_id or new_id("fc") + owner_mark(self.client_id), function_id, kind)
        self.calls[call.call_id] = call
        self.tell("CallOpen", CallOpen(call.call_id, function_id, kind, parent, method))
        return call

    def put(self, call: FakeCall, values: dict[int, bytes]) -> None:
        """Send inputs."""
        sizes = tuple(len(value) for value in values.values())
        self.tell("PutInputs", InputBatch(call.call_id, tuple(values), sizes), b"".join(values.values()))

    def call(self, function_id: str, *numbers: int, parent: str = "") -> FakeCall:
        """A whole map over numbers."""
        call = self.open(function_id, parent=parent)
        self.put(call, {index: str(number).encode() for index, number in enumerate(numbers)})
        return call

    def resume(self, call: FakeCall, values: dict[int, bytes]) -> None:
        """After a reconnect: open the call again and send what has no output."""
        self.tell("CallOpen", CallOpen(call.call_id, call.function_id, call.kind))
        self.put(call, {index: value for index, value in values.items() if index not in call.outputs})

    def close_call(self, call: FakeCall) -> None:
        """Forget a call."""
        self.tell("CallClose", CallClose(call.call_id))

    def tell(self, method: str, record: Any, body: bytes = b"") -> None:
        """An event."""
        assert self.peer is not None
        self.peer.event(method, record, body)

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        """See `Service`."""
        raise PlatformError("invalid", "a client answers nothing")

    def event(self, method: str, params: Any, body: bytes) -> None:
        """See `Service`."""
        if method == "PutOutputs":
            record = self.codec.record(OutputBatch, params)
            call = self.calls.get(record.call_id)
            assert call is not None
            columns = zip(record.indexes, record.statuses, record.attempts, cut(body, record.sizes), strict=True)
            for index, status, attempt, value in columns:
                call.copies += index in call.outputs
                call.outputs.setdefault(index, Got(status, value, attempt))
        elif method == "CallWaits":
            self.notices.append(self.codec.record(CallWaits, params).text)
        elif method == "PutItems":
            items = self.codec.record(ItemBatch, params)
            call = self.calls[items.call_id]
            for number, value in enumerate(cut(body, items.sizes), items.first):
                if number == len(call.items):
                    call.items.append(value)

    def disconnect(self) -> None:
        """The connection breaks."""
        assert self.peer is not None
        self.peer.channel.close()

    def closed(self, reason: str) -> None:
        """See `Service`."""


class Stage:
    """A control plane with one node and one client, on a clock that the test moves."""

    def __init__(self, config: ServerConfig | None = None, store: MemoryStore | None = None) -> None:
        self.clock = ManualClock()
        self.config = config or ServerConfig()
        self.store = store or MemoryStore()
        self.blobs = MemoryBlobs()
        self.logs = MemoryLogs()
        self.secret_keys: SecretKeys = MemorySecretKeys()
        self.codec = MsgspecCodec()
        self.plane: ControlPlane
        self.node: FakeNode
        self.client: FakeClient

    async def begin(self, **node: Any) -> None:
        """Start everything."""
        self.plane = self.make_plane()
        await self.plane.__aenter__()
        self.node = FakeNode(self.plane, self.codec, **node)
        await self.node.connect()
        self.client = await FakeClient(self.plane, self.codec).connect()

    def make_plane(self) -> ControlPlane:
        """A control plane over the stage's store."""
        return ControlPlane(self.store, self.blobs, self.logs, self.secret_keys, self.codec, self.config, self.clock)

    async def restart(self, *, is_reconnecting: bool = True) -> None:
        """The server ends as by kill -9 and another begins over the same store; containers go on."""
        await self.plane.__aexit__()
        await settle()
        self.plane = self.make_plane()
        await self.plane.__aenter__()
        self.node.plane = self.client.plane = self.plane
        await self.node.connect()
        for guest in list(self.node.guests.values()) if is_reconnecting else []:
            await guest.connect(is_reconnect=True)
        await settle()

    async def take_up(self, spec: FunctionSpec) -> None:
        """The client takes its app up again."""
        await self.client.ask("AppCreate", AppCreate(spec.app_id, "hello"), AppCreated)

    async def pass_time(self, seconds: float, step_s: float = 0.05) -> None:
        """Let time pass in small steps, so that what happens in between can."""
        while seconds > 1e-9:
            self.clock.advance(min(step_s, seconds))
            seconds -= step_s
            await settle(12)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let things happen, and a little time pass, until the condition holds."""
        for _ in range(400):
            if condition():
                return
            self.clock.advance(0.01)
            await settle(12)
        raise AssertionError("it did not happen")

    async def done(self, call: FakeCall, count: int) -> dict[int, Got]:
        """Wait for so many outputs, letting a little time pass."""
        for _ in range(400):
            if len(call.outputs) >= count:
                return call.outputs
            self.clock.advance(0.01)
            await settle(20)
        raise AssertionError(f"{len(call.outputs)} of {count} outputs came")

    async def end(self) -> None:
        """Stop everything."""
        self.clock.advance(0)
        await self.plane.__aexit__()
        for guest in self.node.started:
            guest.waiting.clear()
            guest.tasks.cancel()
            await guest.tasks.close()
        await settle()


class _Errors(logging.Handler):
    """Collects what is logged as an error: a frame that raised does not fail a test by itself."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


@asynccontextmanager
async def staged(
    config: ServerConfig | None = None, store: MemoryStore | None = None, **node: Any
) -> AsyncIterator[Stage]:
    """A stage for one test, in which nothing may be logged as an error."""
    errors = _Errors()
    logging.getLogger("squall").addHandler(errors)
    stage = Stage(config, store)
    await stage.begin(**node)
    try:
        yield stage
    finally:
        await stage.end()
        logging.getLogger("squall").removeHandler(errors)
    assert not errors.texts, "\n".join(errors.texts)


def heartbeat(guest: FakeGuest, held: int = 0) -> None:
    """The guest lives."""
    guest.tell("Heartbeat", Heartbeat(0, held))
