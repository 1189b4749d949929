"""What each kind of connection can do: clients, agents, and containers (their guest, or the SDK in them)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from squall.protocol import methods
from squall.protocol.call import (
    CallClose,
    CallOpen,
    Failure,
    InputBatch,
    InputRefs,
    ItemBatch,
    ItemCredit,
    OutputBatch,
)
from squall.protocol.container import TerminalInput
from squall.protocol.errors import CONFLICT, EXHAUSTED, INVALID, NOT_FOUND, UNAUTHENTICATED, UNAVAILABLE, PlatformError
from squall.protocol.function import NAMESPACES
from squall.protocol.guest import (
    ROLE_CLIENT,
    ROLE_GUEST,
    ROLE_TEMPLATE,
    Heartbeat,
    Holding,
    Ready,
    StartupFailed,
    TerminalData,
)
from squall.protocol.ids import is_id
from squall.protocol.log import LogBatch
from squall.protocol.mount import MountGet
from squall.protocol.node import (
    ContainerExited,
    ContainerHello,
    NodeHello,
    NodeImagePut,
    NodeImages,
    NodeReport,
    NodeWelcome,
    PrintedBefore,
)
from squall.protocol.peer import Peer
from squall.protocol.request import Request
from squall.protocol.server import Hello
from squall.protocol.version import PROTOCOL_VERSION, VERSION
from squall.protocol.volume import NodeVolumesHeld
from squall.protocol.web import WebCredit, WebOut
from squall.server.dispatch.app.held_version import HeldVersion
from squall.server.dispatch.client.callers import CONTAINER_METHODS, Caller
from squall.server.dispatch.client.client import Client
from squall.server.dispatch.client.open_gate import OpenGate
from squall.server.dispatch.fleet.boot import boot_of
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.fleet.node import Node
from squall.server.dispatch.fleet.printed_before import Gate
from squall.server.dispatch.fleet.templates import Template, TemplateService
from squall.server.model.definition import check_method
from squall.server.model.logs import printed_by

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane

_log = logging.getLogger("squall.server.dispatch.services")

BLOB_READS_MAX = 8
"""Of one client at a time."""
KIND_CHARS_MAX = 32
"""Of the kind of a call, a word: `protocol/call.py`."""
FAILURE_KINDS = frozenset({INVALID, NOT_FOUND, EXHAUSTED, UNAVAILABLE})
"""Codes of errors that are kinds of failures, too."""

NODE_METHODS = frozenset({
    "BlobGet", "BlobPut", "BlobStat", "VolumeBlocksGet", "VolumeCommit", "VolumeTreeGet", "VolumeVersionGet",
})  # fmt: skip
"""What nodes ask as clients do: for what is to be in containers, and with what has been written there."""

Answer = tuple[Any, bytes]


def check_version(who: str, version: str, protocol_version: int) -> None:
    """Versions of the wire may differ by one.

    Raises:
        PlatformError: `conflict`, saying who is older.
    """
    if abs(protocol_version - PROTOCOL_VERSION) > 1:
        older = who if protocol_version < PROTOCOL_VERSION else "server"
        message = f"this server is {VERSION} (wire {PROTOCOL_VERSION}), the {who} {version} (wire {protocol_version})"
        raise PlatformError(CONFLICT, f"Hello: {message}; update the {older}")


class ClientService:
    """A client's connection; with a scope, that of the SDK in a container."""

    def __init__(self, plane: ControlPlane, peer: Peer, container: Container | Template | None = None) -> None:
        """`container` is the one that the client is in, or what will be one."""
        self._plane = plane
        self._peer = peer
        scope = container.spec if container is not None else None
        self._container = container
        self._scope_app_id = scope.app_id if scope is not None else ""
        self._is_network_blocked = scope is not None and scope.is_network_blocked
        self._isolation = scope.isolation if scope is not None else NAMESPACES
        self.client: Client | None = None
        self._blob_reads = asyncio.Semaphore(BLOB_READS_MAX)
        self._gate = OpenGate(peer.channel, self._pass, plane.tasks)
        self._held = HeldVersion(plane, container)
        self._events: dict[str, tuple[type[Any], Callable[[Client, Any, bytes], None]]] = {
            "PutInputs": (InputBatch, lambda client, record, body: client.put_inputs(record, body)),
            "CallOpen": (CallOpen, self._call_open),
            "CallClose": (CallClose, lambda client, record, body: client.close(record.call_id)),
            "ItemCredit": (ItemCredit, self._item_credit),
        }

    async def answer(self, request: Request) -> Answer | None:
        """See `Service`."""
        if request.method == "Hello":
            return self._hello(request.record(Hello)), b""
        if self.client is None:
            raise PlatformError(UNAUTHENTICATED, f"{request.method}: say Hello first")
        method = methods.METHODS.get(request.method)
        if method is None or method.asked != methods.SERVER or method.asked_by != methods.CLIENT:
            raise PlatformError(INVALID, f"{request.method}: this server has no such method")
        caller = Caller(self.client, self._scope_app_id, self._is_network_blocked, self._isolation, self._held)
        record = request.record(method.request)
        if request.method == "BlobGet":
            return await self._read_blob(caller, record)
        if method.shape == methods.UNARY:
            return await self._plane.methods.answer(caller, request.method, record, request.body)
        uploads = request.uploads(TerminalInput)
        items = self._plane.streams.open(caller, request.method, record, uploads)
        try:
            async for item, body in items:
                await request.send_item(item, body)
        finally:
            await items.aclose()  # type: ignore[attr-defined]
        return None

    async def _read_blob(self, caller: Caller, record: Any) -> Answer:
        """A few at a time, and none while earlier ones wait to be read: each is megabytes of our memory."""
        async with self._blob_reads:
            await self._peer.channel.drain()
            return await self._plane.methods.answer(caller, "BlobGet", record, b"")

    def _hello(self, record: Hello) -> Any:
        check_version("client", record.version, record.protocol_version)
        # Before it counts as connected: an idle server may be replaced by the client's own version.
        welcome = self._plane.welcome()
        self.greet(record.client_id)
        return welcome

    def greet(self, client_id: str) -> None:
        """The client says who it is, or its agent does.

        Raises:
            PlatformError: as `Clients.greet`; `conflict` when the connection is another client's.
        """
        if self.client is not None and self.client.client_id != client_id:
            raise PlatformError(CONFLICT, f"Hello: this connection is that of {self.client.client_id}; open another")
        self.client = self._plane.clients.greet(client_id, self._scope_app_id, self._peer, self._container)

    def event(self, method: str, params: Any, body: bytes) -> None:
        """See `Service`."""
        client, found = self.client, self._events.get(method)
        if client is None or found is None or (self._scope_app_id and method not in CONTAINER_METHODS):
            _log.warning("event %.80r of a client was ignored", method)
        elif self._gate.is_closed:
            self._gate.hold(method, params, body)
        else:
            self._pass(method, params, body)

    def _pass(self, method: str, params: Any, body: bytes) -> None:
        cls, handle = self._events[method]
        if self.client is not None:
            handle(self.client, self._peer.codec.record(cls, params), body)

    def _call_open(self, client: Client, record: CallOpen, body: bytes) -> None:
        if not is_id(record.call_id, "fc") or len(record.kind) > KIND_CHARS_MAX:
            raise ValueError(f"{record.call_id[:80]!r} is no id of a call, or {record.kind[:80]!r} no kind of one")
        target = self._held.known(record.function_id)
        if target is not None and target in self._plane.apps.dispatchers:
            self._open(client, replace(record, function_id=target))
        else:
            # A variant that nobody has used for a while is in the store only.
            looking = self._held.find(record.function_id)
            self._gate.wait(looking, lambda found: self._open_found(client, record, found))

    def _open_found(self, client: Client, record: CallOpen, found: str | PlatformError) -> None:
        if isinstance(found, PlatformError):
            # Nothing stands in for what a caller is held to: the current version is other code.
            client.open(record, None, Failure(found.code if found.code in FAILURE_KINDS else INVALID, found.message))
        else:
            self._open(client, replace(record, function_id=found))

    def _open(self, client: Client, record: CallOpen) -> None:
        dispatcher = self._plane.apps.dispatchers.get(record.function_id)
        failure = None
        if dispatcher is None:
            message = f"function {record.function_id[:80]} does not exist, or its app was stopped"
            failure = Failure("not_found", f"{message}; if it runs again, look it up by its name once more")
        elif dispatcher.stopped is not None:
            # Not its kind, which is also that of inputs that have begun: of this call none will.
            failure = Failure("not_found", dispatcher.stopped.message)
        else:
            try:
                if self._scope_app_id and dispatcher.spec.app_id != self._scope_app_id:
                    Caller(client, self._scope_app_id).check_use("CallOpen", self._plane.apps.row_of(dispatcher))
                check_method("CallOpen", dispatcher.spec, record.method, record.kind)
                self._plane.variants.used(record.function_id)
            except PlatformError as error:
                failure = Failure("invalid", error.message)
                dispatcher = None
        client.open(record, dispatcher, failure)

    def _item_credit(self, client: Client, record: ItemCredit, body: bytes) -> None:
        call = client.calls.get(record.call_id)
        if call is not None:
            call.dispatcher.credit_items(call, record.index, record.count)

    def closed(self, reason: str) -> None:
        """See `Service`."""
        self._gate.end()
        if self.client is not None:
            self._plane.clients.gone(self.client, self._peer)


class AgentService:
    """An agent's connection."""

    def __init__(self, plane: ControlPlane, peer: Peer) -> None:
        self._plane = plane
        self._peer = peer
        self.node: Node | None = None

    async def answer(self, request: Request) -> Answer | None:
        """See `Service`."""
        if request.method == "NodeHello":
            return await self._hello(request.record(NodeHello)), b""
        if self.node is None:
            raise PlatformError(UNAUTHENTICATED, f"{request.method}: say NodeHello first")
        if request.method == "MountGet":
            return await self._plane.methods.answer(Caller(), "MountGet", request.record(MountGet), b"")
        if request.method in NODE_METHODS:
            record = request.record(methods.METHODS[request.method].request)
            return await self._plane.methods.answer(Caller(), request.method, record, request.body)
        raise PlatformError(INVALID, f"{request.method}: an agent cannot ask for that")

    async def _hello(self, hello: NodeHello) -> NodeWelcome:
        check_version("agent", hello.version, hello.protocol_version)
        await self._plane.variants.restore(one.function_id for one in hello.containers)
        self.node, unwanted = self._plane.nodes.greet(hello, self._peer)
        self._plane.tasks.start(self._plane.node_templates.greet(self.node))
        return NodeWelcome(self._plane.server_id, unwanted)

    def event(self, method: str, params: Any, body: bytes) -> None:
        """See `Service`."""
        if self.node is None:
            return
        record = self._peer.codec.record
        if method == "Logs":
            self._logs(self.node, record(LogBatch, params))
        elif method == "ContainerExited":
            self._plane.fleet.exited(record(ContainerExited, params))
        elif method == "NodeImages":
            self._plane.nodes.told_images(self.node, record(NodeImages, params))
        elif method == "NodeImagePut":
            self._plane.nodes.image_put(self.node, record(NodeImagePut, params))
        elif method == "NodeVolumesHeld":
            held = record(NodeVolumesHeld, params).versions
            self.node.held_volumes = frozenset((one.volume_id, one.version) for one in held)
        elif method == "NodeReport":
            self._plane.fleet.reported(self.node, record(NodeReport, params))

    def _logs(self, node: Node, batch: LogBatch) -> None:
        """The agent knows containers only; whose they are is filled in here."""
        fleet = self._plane.fleet
        entries = []
        for entry in batch.entries:
            container = fleet.containers.get(entry.container_id) or fleet.stopped.get(entry.container_id)
            if container is None and not entry.app_id:
                continue
            if container is not None:
                entry = printed_by(container.spec, entry)
            elif is_id(entry.container_id, "tp"):
                entry = self._plane.templates.printed(entry)
            entries.append(entry)
        self._plane.logs.append(tuple(entries))
        node.lines_came(len(batch.entries))

    def closed(self, reason: str) -> None:
        """See `Service`."""
        if self.node is not None:
            self._plane.nodes.gone(self.node, self._peer)


class ContainerService:
    """A container's connection, relayed by its agent: what it is, its first frame says."""

    def __init__(self, plane: ControlPlane, peer: Peer) -> None:
        self._plane = plane
        self._peer = peer
        self._known: GatedService | TemplateService | None = None
        self._template: Template | None = None

    async def answer(self, request: Request) -> Answer | None:
        """See `Service`."""
        if self._known is None:
            raise PlatformError(INVALID, f"{request.method}: say ContainerHello first")
        return await self._known.answer(request)

    def event(self, method: str, params: Any, body: bytes) -> None:
        """See `Service`."""
        if self._known is None:
            self._introduce(method, params)
        else:
            self._known.event(method, params, body)

    def _introduce(self, method: str, params: Any) -> None:
        if method != "ContainerHello":
            self._peer.channel.close()
            return
        hello: ContainerHello = self._peer.codec.record(ContainerHello, params)
        if hello.role == ROLE_TEMPLATE:
            self._known = TemplateService(self._plane, self._peer, hello)
            return
        container: Container | Template | None = self._plane.fleet.containers.get(hello.container_id)
        if container is None and hello.role == ROLE_CLIENT:
            container = self._template = self._plane.templates.enter(hello)
        if container is None or hello.role not in (ROLE_GUEST, ROLE_CLIENT):
            _log.warning("a connection of container %s was refused: it is not known here", hello.container_id)
            self._peer.channel.close()
            return
        if hello.role == ROLE_CLIENT or isinstance(container, Template):
            client = ClientService(self._plane, self._peer, container)
            self._known = GatedService(self._plane, self._peer, container, client)
            if hello.client_id:
                client.greet(hello.client_id)
        else:
            guest = GuestService(self._plane, self._peer, container)
            self._known = GatedService(self._plane, self._peer, container, guest)
            guest.greet(hello)

    def closed(self, reason: str) -> None:
        """See `Service`."""
        if self._known is not None:
            self._known.closed(reason)
        if self._template is not None:
            self._plane.templates.leave(self._template)


class GatedService:
    """What comes from a container, behind the lines that it printed before."""

    def __init__(
        self, plane: ControlPlane, peer: Peer, container: Container | Template, service: ClientService | GuestService
    ) -> None:
        self._peer = peer
        self._container = container
        self._service = service
        self._gate = Gate(plane.clock, self._pass)

    async def answer(self, request: Request) -> Answer | None:
        """See `Service`."""
        return await self._service.answer(request)

    def event(self, method: str, params: Any, body: bytes) -> None:
        """See `Service`."""
        if self._gate.is_closed:
            self._gate.hold(method, params, body)
        else:
            self._pass(method, params, body)

    def _pass(self, method: str, params: Any, body: bytes) -> None:
        if method != "PrintedBefore":
            self._service.event(method, params, body)
        elif self._container.node is not None:
            line_count = self._peer.codec.record(PrintedBefore, params).line_count
            self._gate.close_until(self._container.node, line_count)

    def closed(self, reason: str) -> None:
        """See `Service`."""
        self._gate.end()
        self._service.closed(reason)


class GuestService:
    """The connection of a container's guest."""

    def __init__(self, plane: ControlPlane, peer: Peer, container: Container) -> None:
        self._plane = plane
        self._peer = peer
        self._container = container
        self._record = peer.codec.record
        self._events: dict[str, Callable[[Container, Any, bytes], None]] = {
            "Outputs": self._outputs,
            "Items": self._items,
            "GivenBack": self._given_back,
            "Holding": self._holding,
            "Heartbeat": self._heartbeat,
            "Ready": self._ready,
            "GuestCame": lambda container, params, body: self._plane.fleet.came(container),
            "StartupFailed": self._startup_failed,
            "WebOut": lambda container, params, body: self._plane.web.requests.out(
                container, self._record(WebOut, params), body
            ),
            "WebCredit": lambda container, params, body: self._plane.web.requests.credit(
                container, self._record(WebCredit, params)
            ),
            "TerminalOpen": lambda container, params, body: self._plane.terminals.open(container),
            "TerminalData": self._terminal_data,
        }

    async def answer(self, request: Request) -> Answer | None:
        """See `Service`."""
        raise PlatformError(INVALID, f"{request.method}: a guest asks for nothing")

    def event(self, method: str, params: Any, body: bytes) -> None:
        """See `Service`."""
        handle = self._events.get(method)
        if handle is not None:
            self._container.last_heard_at = self._plane.clock.monotonic()
            handle(self._container, params, body)

    def greet(self, hello: ContainerHello) -> None:
        """The guest is there: it may be told what it is for."""
        container = self._container
        self._plane.fleet.connected(container, self._peer, is_ahead=hello.is_ahead)
        if not hello.is_reconnect or not (container.is_booted or container.is_adopted):
            container.is_booted = True
            app_name = container.dispatcher.app_name
            container.tell("Boot", boot_of(self._plane, container.container_id, container.spec, app_name))

    def _outputs(self, container: Container, params: Any, body: bytes) -> None:
        container.dispatcher.put_outputs(container, self._record(OutputBatch, params), body)
        self._hold_up()

    def _items(self, container: Container, params: Any, body: bytes) -> None:
        container.dispatcher.put_items(container, self._record(ItemBatch, params), body)
        self._hold_up()

    def _hold_up(self) -> None:
        self._plane.calls.shelf.hold_up(self._peer.channel)

    def _given_back(self, container: Container, params: Any, body: bytes) -> None:
        container.dispatcher.returns.given_back(container, self._record(InputRefs, params))

    def _holding(self, container: Container, params: Any, body: bytes) -> None:
        container.dispatcher.holdings.named(container, self._record(Holding, params))

    def _heartbeat(self, container: Container, params: Any, body: bytes) -> None:
        beat: Heartbeat = self._record(Heartbeat, params)
        container.dispatcher.returns.heartbeat(container, beat.running_inputs + beat.held_inputs)

    def _ready(self, container: Container, params: Any, body: bytes) -> None:
        self._plane.fleet.ready(container, self._record(Ready, params))

    def _startup_failed(self, container: Container, params: Any, body: bytes) -> None:
        self._plane.fleet.starts.failed(container, self._record(StartupFailed, params).failure, body)

    def _terminal_data(self, container: Container, params: Any, body: bytes) -> None:
        self._plane.terminals.data(container, self._record(TerminalData, params), body)

    def closed(self, reason: str) -> None:
        """See `Service`."""
        self._plane.terminals.container_gone(self._container)
        self._plane.web.requests.cut(self._container)
        self._plane.fleet.disconnected(self._container, self._peer)
