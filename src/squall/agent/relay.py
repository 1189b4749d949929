"""The sockets of containers: who connects is checked, then frames pass between container and server unread.

Each container has a directory of its own with one socket in it, bound into the container, and one token. A connection
begins with `GuestHello`; from there on the agent only moves frames, and reads no more from one side than the other
takes. It looks at what they are until the first output: by that it knows of a fork that it works. When the server is
gone the container's connection is closed: the guest comes back and goes on.

    a fork              agent                                 server
      GuestWaiting ───────▶  waits until it is known who that is
                             ContainerHello, Ready ──────────▶   of one that is parked: at once, beside the message
                             Boot, Inputs wait here ◀─────────    of the spawner that tells it who it is
      GuestHello ─────────▶  is checked; only now frames pass
                             GuestCame ──────────────────────▶
      ◀───────────────────── Boot, Inputs
      Outputs ────────────▶  wait until its pipes are read ───▶
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from squall.protocol import codec as wire
from squall.protocol.channel.contract import Channel
from squall.protocol.channel.stream import StreamChannel
from squall.protocol.codec import Codec
from squall.protocol.errors import PlatformError
from squall.protocol.frames import Frame
from squall.protocol.guest import (
    ROLE_CLIENT,
    ROLE_GUEST,
    ROLE_TEMPLATE,
    SOCKET_PATH,
    GuestHello,
    GuestWaiting,
    Ready,
)
from squall.protocol.node import ContainerHello
from squall.protocol.records import replace
from squall.protocol.task_set import TaskSet

HELLO_S = 10.0
HELLO_BYTES_MAX = 64 * 1024
CONNECTIONS_MAX = 64
"""Of one container at a time; more are closed at once."""
HELD_BYTES_MAX = 160 * 2**20
"""Of frames that are not whole yet, over all connections of one container: two of the largest there may be."""
CHECK_BYTES = 2**20
"""After so many bytes the relay waits for the slower side before it reads on."""

_OUTPUTS = frozenset({"Outputs", "Items"})

ConnectContainer = Callable[[], Awaitable[Channel]]

_R = TypeVar("_R", GuestHello, GuestWaiting)

_log = logging.getLogger("squall.agent.relay")


def token_hash(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class TemplateOf:
    """Whose template speaks: the server does not know it by its id."""

    app_id: str
    function_id: str
    version: int


class Relay:
    """Opens a socket for each container."""

    def __init__(self, codec: Codec, connect: ConnectContainer, hello_s: float = HELLO_S) -> None:
        self.codec = codec
        self.connect = connect
        self.hello_s = hello_s

    def open(
        self, container_id: str, token_sha256: str, directory: Path, template_of: TemplateOf | None = None
    ) -> ContainerSocket:
        """Listen in a container's socket directory; what listened there before is replaced.

        Without a token nobody gets in, until `ContainerSocket.become` says who it is; one connection may wait for that.

        Raises:
            OSError: the directory is gone or full.
        """
        return ContainerSocket(self, container_id, token_sha256, listen_in(directory), template_of)


def listen_in(directory: Path) -> socket.socket:
    """A listening socket under the guest's name for it, usable by every process of the container."""
    name = os.path.basename(SOCKET_PATH)
    # By descriptor: the path of a data directory may be longer than the 107 bytes of a socket's address.
    directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            os.unlink(name, dir_fd=directory_fd)
        except FileNotFoundError:
            pass
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.bind(f"/proc/self/fd/{directory_fd}/{name}")
            # The directory above is closed to the machine's users; inside, the token decides and not the owner.
            os.chmod(name, 0o666, dir_fd=directory_fd)
            listening.listen(CONNECTIONS_MAX)
        except BaseException:
            listening.close()
            raise
    finally:
        os.close(directory_fd)
    return listening


class ContainerSocket:
    """One container's socket and the connections through it."""

    def __init__(
        self,
        relay: Relay,
        container_id: str,
        token_sha256: str,
        listening: socket.socket,
        template_of: TemplateOf | None = None,
    ) -> None:
        self.relay = relay
        self.container_id = container_id
        self.template_of = template_of
        self._token_sha256 = token_sha256
        self._listening = listening
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[Connection] = set()
        self._guest: Connection | None = None
        self._waiting: Connection | None = None
        self._identity = asyncio.Event()
        self._is_verified = False
        self._is_up = asyncio.Event()
        if token_sha256:
            self._identity.set()
            self._is_up.set()
        self._is_closed = False
        self.tasks = TaskSet()
        self.held_bytes = 0
        """Of frames that are not whole yet."""
        self.on_guest: Callable[[], None] = _nothing
        """Called when the guest has introduced itself."""
        self.ahead: Callable[[], Frame | None] = _nothing
        self.on_output: Callable[[], None] | None = _nothing
        """Called once, when the guest has sent the first that came of an input."""

    async def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: _GuestChannel(self, self._accept), sock=self._listening)

    def become(self, container_id: str, token_sha256: str, *, is_verified: bool) -> None:
        """It is known now whose it is. Who came before did not get in, but for the one that has said that it waits.

        What comes from it waits until `is_up`.

        Args:
            is_verified: a fork is in there that has been verified: the server may tell it at once what it is for.
        """
        self.container_id, self._token_sha256 = container_id, token_sha256
        self._is_verified = is_verified
        self._identity.set()

    def is_up(self, ahead: Callable[[], Frame | None]) -> None:
        """Its container has started, and what it prints is read.

        Args:
            ahead: called before frames from the container pass; what it returns goes ahead of them.
        """
        self.ahead = ahead
        self._is_up.set()

    async def close(self) -> None:
        """Close the socket and every connection."""
        self._is_closed = True
        if self._server is not None:
            self._server.close()
        self._listening.close()
        for connection in list(self._connections):
            connection.end()
        await self.tasks.close()

    async def identity(self, waiting: Connection) -> bool:
        """Wait until it is known whose it is; whether the server may be told so at once: of the one connection that
        was there before, and not of whoever says later that it waits.

        Raises:
            ValueError: another one waits.
        """
        if self._waiting is not None or self._guest is not None:
            raise ValueError("another connection waits to be told who it is")
        if self._identity.is_set():
            return False
        self._waiting = waiting
        await self._identity.wait()
        return self._is_verified

    async def up(self) -> None:
        """Wait until what the container prints is read."""
        await self._is_up.wait()

    def check(self, hello: GuestHello) -> str:
        """Why a connection is refused; empty when it is welcome."""
        # What is in the place of a token that there is not yet is no hash of any.
        if not hmac.compare_digest(token_hash(hello.token), self._token_sha256):
            return "the token is wrong"
        if hello.container_id != self.container_id:
            return f"it says it is {hello.container_id[:80]!r}"
        if hello.role not in (ROLE_GUEST if self.template_of is None else ROLE_TEMPLATE, ROLE_CLIENT):
            return f"its role {hello.role[:80]!r} is unknown"
        if hello.role == ROLE_GUEST and self._guest is not None:
            return "the container has a guest already"
        return ""

    def introduction(self, hello: GuestHello | None) -> ContainerHello:
        """What the server is told of a connection; of one that waits without its hello."""
        if hello is None:
            return ContainerHello(self.container_id, ROLE_GUEST, is_ahead=True)
        known = ContainerHello(self.container_id, hello.role, hello.client_id, hello.is_reconnect)
        of = self.template_of
        if of is None:
            return known
        return replace(known, app_id=of.app_id, function_id=of.function_id, version=of.version)

    def admit(self, connection: Connection, hello: GuestHello) -> None:
        """The connection was checked and is counted as what it is."""
        if hello.role == ROLE_GUEST:
            self._guest = connection
            self.on_guest()

    def is_guest(self, connection: Connection) -> bool:
        """Whether that is the guest's."""
        return self._guest is connection

    def look_for_output(self, frames: list[Frame]) -> None:
        """Frames of the guest pass, and none of those before had anything in it that came of an input."""
        if self.on_output is not None and any(self._is_output(frame) for frame in frames):
            on_output, self.on_output = self.on_output, None
            on_output()

    def _is_output(self, frame: Frame) -> bool:
        try:
            envelope = self.relay.codec.decode(frame.header)
        except (PlatformError, ValueError):
            return False  # it is the server's to refuse
        return envelope.kind == wire.EVENT and envelope.method in _OUTPUTS

    def forget(self, connection: Connection) -> None:
        """The connection has ended."""
        self._connections.discard(connection)
        if self._guest is connection:
            self._guest = None
        if self._waiting is connection:
            self._waiting = None

    def _accept(self, channel: _GuestChannel) -> None:
        if self._is_closed:
            # The kernel had it before, and the loop has it only now.
            channel.close()
            return
        if len(self._connections) >= CONNECTIONS_MAX:
            _log.warning("%s: connection refused: it has %d already", self.container_id, CONNECTIONS_MAX)
            channel.close()
            return
        connection = Connection(self, channel)
        self._connections.add(connection)
        channel.start(connection)
        connection.start()


class Connection:
    """One connection from a container: waits for its hello, then passes frames on."""

    def __init__(self, owner: ContainerSocket, channel: _GuestChannel) -> None:
        self._owner = owner
        self._channel = channel
        self._held: list[Frame] = []
        self._has_come = asyncio.Event()
        """There is a frame to be looked at, or there will be none."""
        self._ready: Ready | None = None
        """What is to be said in its place."""
        self._to_server: _Flow | None = None
        self._server: Channel | None = None

    def start(self) -> None:
        """Begin to wait for the hello."""
        self._owner.tasks.start(self._introduce())

    def end(self) -> None:
        """Close both sides."""
        self._owner.forget(self)
        self._channel.close()
        if self._server is not None:
            self._server.close()

    # Receiver of the container's side

    def frames_received(self, frames: list[Frame]) -> None:
        """Called by the channel."""
        if self._to_server is not None:
            self._to_server.forward(frames)
            return
        self._held.extend(frames)
        if not self._has_come.is_set():
            # What follows can wait in the socket until the server's side is there.
            self._channel.is_greeted = True
            self._channel.pause()
            self._has_come.set()

    def closed(self, reason: str) -> None:
        """Called by the channel."""
        self._has_come.set()
        self.end()

    async def _introduce(self) -> None:
        owner = self._owner
        try:
            frame = await self._next()
            waiting = self._read(frame, GuestWaiting)
            if waiting is not None:
                frame = await self._wait(waiting)
            if frame is None or self._channel.is_closed:
                return
            hello = self._read(frame, GuestHello)
            problem = owner.check(hello) if hello is not None else "its first frame is no GuestHello"
            if hello is not None and waiting is not None and hello.role != ROLE_GUEST:
                problem = "it has waited as a guest, and is none"
            if hello is None or problem:
                _log.warning("%s: connection refused: %s", owner.container_id, problem)
                self.end()
                return
            owner.admit(self, hello)
            if self._server is None:
                await self._join(hello)
            else:
                self._say("GuestCame", None)
            self._listen_to_server()
            await owner.up()
            self._let_pass()
        except TimeoutError:
            _log.warning("%s: connection closed: no hello within %g s", owner.container_id, owner.relay.hello_s)
            self.end()
        except (PlatformError, ValueError, OSError) as error:
            _log.info("%s: connection closed: %s", owner.container_id, error)
            self.end()

    async def _next(self) -> Frame | None:
        """The next frame of a connection that has not been let in; None at its end.

        Raises:
            TimeoutError: none came in time.
        """
        await asyncio.wait_for(self._has_come.wait(), self._owner.relay.hello_s)
        return self._held.pop(0) if self._held else None

    async def _wait(self, waiting: GuestWaiting) -> Frame | None:
        """Until it is known who a fork is; its hello then, which may be long in coming."""
        self._ready = waiting.ready
        self._listen_again()
        known = asyncio.ensure_future(self._owner.identity(self))
        spoke = asyncio.ensure_future(self._has_come.wait())
        try:
            await asyncio.wait((known, spoke), return_when=asyncio.FIRST_COMPLETED)
            if known.done() and known.result() and not self._channel.is_closed:
                await self._join(None)
        finally:
            known.cancel()
            spoke.cancel()
        return await self._next()

    def _listen_again(self) -> None:
        if not self._held and not self._channel.is_closed:
            self._has_come.clear()
            self._channel.is_greeted = False
            self._channel.resume()

    def _read(self, frame: Frame | None, kind: type[_R]) -> _R | None:
        """A frame as what it says it is; None when it is something else."""
        if frame is None:
            return None
        codec = self._owner.relay.codec
        envelope = codec.decode(frame.header)
        if envelope.kind != wire.EVENT or envelope.method != kind.__name__:
            return None
        return codec.record(kind, envelope.params)

    async def _join(self, hello: GuestHello | None) -> None:
        """Open the server's side, and say what is known of ours. What it says waits."""
        server = await self._owner.relay.connect()
        if self._channel.is_closed:
            server.close()
            return
        self._server = server
        self._say("ContainerHello", self._owner.introduction(hello))
        ready = self._ready if hello is None or hello.ready is None else hello.ready
        if ready is not None:
            self._say("Ready", ready)

    def _say(self, method: str, record: object) -> None:
        if self._server is not None:
            self._server.send(Frame(self._owner.relay.codec.encode(wire.EVENT, 0, method, record), b""))

    def _listen_to_server(self) -> None:
        """Let pass what the server says."""
        if self._server is not None and not self._channel.is_closed:
            self._server.start(_ServerSide(self, _Flow(self._server, self._channel, self._owner.tasks)))

    def _let_pass(self) -> None:
        """Let pass what the container says."""
        if self._server is None or self._channel.is_closed:
            return
        self._to_server = _FlowToServer(self._channel, self._server, self._owner, self._owner.is_guest(self))
        self._to_server.forward(self._held)
        self._held = []
        self._channel.resume()


class _ServerSide:
    """Receiver of the server's side."""

    def __init__(self, connection: Connection, flow: _Flow) -> None:
        self._connection = connection
        self.frames_received = flow.forward

    def closed(self, reason: str) -> None:
        """Called by the channel."""
        self._connection.end()


class _Flow:
    """Moves frames one way; stops reading while the other side is slow."""

    def __init__(self, source: Channel, target: Channel, tasks: TaskSet) -> None:
        self._source = source
        self._target = target
        self._tasks = tasks
        self._unchecked_bytes = 0
        self._is_waiting = False

    def forward(self, frames: list[Frame]) -> None:
        """Pass frames on."""
        self._target.send_now(frames)
        self._unchecked_bytes += sum([len(frame.header) + len(frame.body) for frame in frames])
        if self._unchecked_bytes > CHECK_BYTES and not self._is_waiting and not self._source.is_closed:
            self._is_waiting = True
            self._source.pause()
            self._tasks.start(self._wait())

    async def _wait(self) -> None:
        try:
            await self._target.drain()
        except PlatformError:
            return
        self._unchecked_bytes = 0
        self._is_waiting = False
        if not self._source.is_closed:
            self._source.resume()


class _FlowToServer(_Flow):
    """Moves frames of a container, and ahead of them what is to be known before them."""

    def __init__(self, source: Channel, target: Channel, owner: ContainerSocket, is_guest: bool) -> None:
        super().__init__(source, target, owner.tasks)
        self._owner = owner
        self._is_guest = is_guest

    def forward(self, frames: list[Frame]) -> None:
        """Pass frames on."""
        first = self._owner.ahead()
        if self._is_guest and self._owner.on_output is not None:
            self._owner.look_for_output(frames)
        super().forward(frames if first is None else [first, *frames])


class _GuestChannel(StreamChannel):
    """A channel whose other end is not trusted: before its hello it may send little, and never hold us to much.

    What it has announced and not yet sent waits in our memory and not in the container's.
    """

    def __init__(self, owner: ContainerSocket, on_connect: Callable[[_GuestChannel], None]) -> None:
        super().__init__(lambda channel: on_connect(self))
        self.is_greeted = False
        self._early_bytes = 0
        self._owner = owner
        self._counted_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        super().data_received(data)
        if not self.is_greeted:
            self._early_bytes += len(data)
            if self._early_bytes > HELLO_BYTES_MAX:
                self.abort()
        self._count_held(self.held_bytes)
        if self._owner.held_bytes > HELD_BYTES_MAX:
            _log.warning("%s: connection closed: its frames are not whole", self._owner.container_id)
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._count_held(0)
        super().connection_lost(exc)

    def _count_held(self, held_bytes: int) -> None:
        self._owner.held_bytes += held_bytes - self._counted_bytes
        self._counted_bytes = held_bytes


def _nothing() -> None:
    """What nobody asked to be told."""
