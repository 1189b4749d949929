"""The sockets of containers: who gets through, what passes, and what one side cannot do to the other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from squall.agent import relay as relay_module
from squall.agent.relay import ContainerSocket, Relay, token_hash
from squall.protocol import codec as wire
from squall.protocol.channel.contract import Channel
from squall.protocol.channel.stream import StreamChannel, connect_unix
from squall.protocol.frames import Frame, encode
from squall.protocol.guest import GuestHello, GuestWaiting, Ready
from squall.protocol.node import ContainerHello
from tests.agent.parts import CODEC, Inbox, ServerEnd, until

pytestmark = pytest.mark.long

CONTAINER = "ct-0000000000000000000001"
TOKEN = "right"


def hello(role: str = "guest", token: str = TOKEN, container_id: str = CONTAINER, **more: object) -> Frame:
    record = GuestHello(token, role, container_id, "0.1.0", 1, **more)  # type: ignore[arg-type]
    return Frame(CODEC.encode(wire.EVENT, 0, "GuestHello", record), b"")


def event(name: str, body: bytes = b"") -> Frame:
    return Frame(CODEC.encode(wire.EVENT, 0, name, None), body)


class Opened:
    """A container's socket, its server, and ways in."""

    def __init__(self, socket: ContainerSocket, server: ServerEnd, path: Path) -> None:
        self.socket = socket
        self.server = server
        self.path = path
        self.channels: list[StreamChannel] = []

    async def connect(self, *frames: Frame) -> tuple[StreamChannel, Inbox]:
        channel, inbox = await connect_unix(str(self.path)), Inbox()
        self.channels.append(channel)
        channel.start(inbox)
        for frame in frames:
            channel.send(frame)
        return channel, inbox

    async def served(self, index: int) -> tuple[Channel, Inbox]:
        await until(lambda: len(self.server.container_channels) > index)
        inbox = Inbox()
        channel = self.server.container_channels[index]
        channel.start(inbox)
        await until(lambda: inbox.frames)
        return channel, inbox


@contextlib.asynccontextmanager
async def open_socket(data_dir: Path, container_id: str, token_sha256: str) -> AsyncIterator[Opened]:
    server = ServerEnd()
    its_socket = Relay(CODEC, server.connect_container, hello_s=0.3).open(container_id, token_sha256, data_dir)
    await its_socket.start()
    made = Opened(its_socket, server, data_dir / "agent.sock")
    yield made
    for channel in made.channels:
        channel.close()
    await its_socket.close()
    await asyncio.sleep(0.01)


@pytest.fixture
async def opened(data_dir: Path) -> AsyncIterator[Opened]:
    async with open_socket(data_dir, CONTAINER, token_hash(TOKEN)) as made:
        yield made


@pytest.fixture
async def cell(data_dir: Path) -> AsyncIterator[Opened]:
    """The socket of one of whom nobody knows yet who it will be."""
    async with open_socket(data_dir, "", "") as made:
        yield made


def introduced(frame: Frame) -> ContainerHello:
    envelope = CODEC.decode(frame.header)
    assert envelope.method == "ContainerHello"
    return CODEC.record(ContainerHello, envelope.params)


async def test_frames_pass_both_ways_untouched_after_the_hello(opened: Opened) -> None:
    odd = Frame(b"\xffnot even json", b"body")
    _, inbox = await opened.connect(hello(is_reconnect=True), odd, event("Ready"))

    server, received = await opened.served(0)
    server.send(event("Boot", b"x" * 100_000))
    await until(lambda: len(received.frames) == 3 and inbox.frames)

    assert introduced(received.frames[0]) == ContainerHello(CONTAINER, "guest", "", True)
    assert received.frames[1:] == [odd, event("Ready")]
    assert inbox.frames == [event("Boot", b"x" * 100_000)]


@pytest.mark.parametrize(
    "frame",
    [
        hello(token="wrong"),
        hello(token=""),
        hello(container_id="ct-0000000000000000000002"),
        hello(role="admin"),
        event("Ready"),
        Frame(b"no json", b""),
    ],
    ids=["wrong token", "no token", "another container", "unknown role", "no hello", "no frame of ours"],
)
async def test_whoever_does_not_introduce_itself_rightly_is_refused(opened: Opened, frame: Frame) -> None:
    _, inbox = await opened.connect(frame, event("Outputs"))

    await until(lambda: inbox.reason is not None)

    assert not opened.server.container_channels
    assert not inbox.frames


async def test_a_connection_without_a_hello_is_closed_after_a_while(opened: Opened) -> None:
    _, inbox = await opened.connect()

    await until(lambda: inbox.reason is not None, 2)

    assert not opened.server.container_channels


async def test_a_stranger_cannot_make_the_agent_hold_a_large_frame(opened: Opened) -> None:
    stranger = socket.socket(socket.AF_UNIX)
    stranger.connect(str(opened.path))
    large = encode(Frame(b"{}", b"x" * 2**20))

    def send() -> None:
        stranger.settimeout(5)
        stranger.sendall(large[: relay_module.HELLO_BYTES_MAX * 8])
        stranger.recv(1)

    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await asyncio.to_thread(send)
    stranger.close()


async def test_a_second_guest_is_refused_while_the_first_lives_and_welcome_after(opened: Opened) -> None:
    first, _ = await opened.connect(hello())
    await opened.served(0)

    _, second_inbox = await opened.connect(hello())
    await until(lambda: second_inbox.reason is not None)
    first.close()
    server, received = await _reconnected(opened)

    assert introduced(received.frames[0]).role == "guest"
    assert not server.is_closed


async def _reconnected(opened: Opened) -> tuple[Channel, Inbox]:
    for _ in range(100):
        await opened.connect(hello(is_reconnect=True))
        await asyncio.sleep(0.01)
        if len(opened.server.container_channels) > 1:
            return await opened.served(1)
    raise AssertionError("the second guest was never let in")


async def test_clients_connect_beside_the_guest(opened: Opened) -> None:
    await opened.connect(hello())
    await opened.served(0)

    await opened.connect(hello(role="client", client_id="cl-1"))
    await opened.connect(hello(role="client", client_id="cl-2"))

    roles = {introduced((await opened.served(index))[1].frames[0]).client_id for index in (1, 2)}
    assert roles == {"cl-1", "cl-2"}


async def test_connections_of_one_container_are_bounded(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "CONNECTIONS_MAX", 3)

    inboxes = [(await opened.connect(hello(role="client")))[1] for _ in range(5)]
    await until(lambda: sum(inbox.reason is not None for inbox in inboxes) == 2)

    assert len(opened.server.container_channels) == 3


async def test_frames_that_are_never_whole_are_held_up_to_a_limit_over_all_connections(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "HELD_BYTES_MAX", 500_000)
    half = encode(event("Outputs", b"x" * 300_000))[:-1]
    with contextlib.ExitStack() as stack:
        for index in range(3):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.connect(str(opened.path))
            one.sendall(encode(hello(role="client")))
            await opened.served(index)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                await asyncio.to_thread(one.sendall, half)

        await until(lambda: sum(one.is_closed for one in opened.server.container_channels) == 2)
        assert 0 < opened.socket.held_bytes < 500_000
    await until(lambda: opened.socket.held_bytes == 0)


async def test_a_server_that_goes_closes_the_connection_and_the_guest_can_come_back(opened: Opened) -> None:
    _, inbox = await opened.connect(hello())
    server, _ = await opened.served(0)

    server.close()
    await until(lambda: inbox.reason is not None)

    await _reconnected(opened)


async def test_a_guest_that_goes_closes_the_server_side_after_its_last_frame(opened: Opened) -> None:
    guest, _ = await opened.connect(hello())
    _, received = await opened.served(0)

    guest.send(event("Outputs", b"last"))
    guest.close()
    await until(lambda: received.reason is not None)

    assert received.frames[-1].body == b"last"


async def test_a_server_that_cannot_be_reached_closes_the_connection(data_dir: Path) -> None:
    async def refuse() -> Channel:
        raise ConnectionRefusedError("down")

    its_socket = Relay(CODEC, refuse).open(CONTAINER, token_hash(TOKEN), data_dir)
    await its_socket.start()
    opened = Opened(its_socket, ServerEnd(), data_dir / "agent.sock")

    _, inbox = await opened.connect(hello())
    await until(lambda: inbox.reason is not None)

    await its_socket.close()


async def test_a_slow_server_makes_the_guest_wait_and_nothing_piles_up(opened: Opened) -> None:
    connected = socket.socket(socket.AF_UNIX)
    connected.connect(str(opened.path))
    connected.sendall(encode(hello()))
    server, received = await opened.served(0)
    server.pause()
    connected.setblocking(False)
    chunk = encode(event("Outputs", b"x" * 60_000))
    sent = 0

    for _ in range(600):
        try:
            sent += connected.send(chunk[sent % len(chunk) :])
        except BlockingIOError:
            await asyncio.sleep(0.001)
    stuck_at = sent
    assert stuck_at < 20 * 2**20
    server.resume()
    while sent < 24 * 2**20 or sent % len(chunk):
        try:
            sent += connected.send(chunk[sent % len(chunk) :])
        except BlockingIOError:
            await asyncio.sleep(0.001)
    await until(lambda: sum(len(frame.body) for frame in received.frames) == sent // len(chunk) * 60_000)

    connected.close()
    await until(lambda: received.reason is not None)


async def test_a_slow_guest_makes_the_server_wait(opened: Opened) -> None:
    guest, inbox = await opened.connect(hello())
    server, _ = await opened.served(0)
    guest.pause()
    sent = 0

    async def send_all() -> None:
        nonlocal sent
        for _ in range(600):
            server.send(event("Inputs", b"y" * 60_000))
            sent += 1
            await server.drain()

    sending = asyncio.ensure_future(send_all())
    await asyncio.sleep(0.3)
    assert sent * 60_000 < 25 * 2**20
    guest.resume()
    await asyncio.wait_for(sending, 20)
    await until(lambda: len(inbox.frames) == 600)


async def test_a_new_agent_listens_where_the_old_one_did(opened: Opened) -> None:
    successor = ServerEnd()
    await opened.socket.close()
    its_socket = Relay(CODEC, successor.connect_container).open(CONTAINER, token_hash(TOKEN), opened.path.parent)
    await its_socket.start()

    await opened.connect(hello(is_reconnect=True))
    await until(lambda: successor.container_channels)

    await its_socket.close()


async def test_a_guest_that_is_gone_before_its_hello_is_read_leaves_its_place_to_the_next(opened: Opened) -> None:
    await opened.connect()
    await until(lambda: opened.socket._connections)
    (gone,) = opened.socket._connections

    gone.frames_received([hello()])
    gone._channel.abort()
    await asyncio.sleep(0.05)

    assert not opened.server.container_channels
    await opened.connect(hello())
    await opened.served(0)


async def test_every_user_of_the_container_may_connect_and_the_path_may_be_long(data_dir: Path) -> None:
    long = data_dir / ("d" * 150)
    long.mkdir()

    listening = relay_module.listen_in(long)

    assert stat.S_IMODE((long / "agent.sock").stat().st_mode) == 0o666
    listening.close()


async def test_what_is_to_be_known_before_frames_goes_ahead_of_them(opened: Opened) -> None:
    ahead = [None, event("PrintedBefore")]
    opened.socket.ahead = lambda: ahead.pop() if ahead else None
    channel, _ = await opened.connect(hello(), event("Ready"))
    _, inbox = await opened.served(0)
    await until(lambda: len(inbox.frames) == 3)
    channel.send(event("Outputs"))
    await until(lambda: len(inbox.frames) == 4)

    names = [CODEC.decode(frame.header).method for frame in inbox.frames]

    assert names == ["ContainerHello", "PrintedBefore", "Ready", "Outputs"]


READY = Ready(500, 0.0, "3.11.2", 0.0)


def waiting(ready: Ready | None = None) -> Frame:
    return Frame(CODEC.encode(wire.EVENT, 0, "GuestWaiting", GuestWaiting(ready)), b"")


def names(inbox: Inbox) -> list[str]:
    return [CODEC.decode(frame.header).method for frame in inbox.frames]


async def test_a_parked_guest_is_introduced_when_it_is_known_and_hears_when_it_says_hello(
    cell: Opened,
) -> None:
    guest, heard = await cell.connect(waiting(READY))
    await asyncio.sleep(0.4)  # longer than a hello may take
    assert not cell.server.container_channels

    cell.socket.become(CONTAINER, token_hash(TOKEN), is_verified=True)
    server, received = await cell.served(0)
    await until(lambda: len(received.frames) == 2)
    server.send(event("Boot"))
    await asyncio.sleep(0.05)

    assert introduced(received.frames[0]) == ContainerHello(CONTAINER, "guest", is_ahead=True)
    assert CODEC.record(Ready, CODEC.decode(received.frames[1].header).params) == READY
    assert not heard.frames, "before its hello"
    guest.send(hello())
    guest.send(event("Outputs"))
    await until(lambda: heard.frames)
    assert names(received) == ["ContainerHello", "Ready", "GuestCame"], "before what it prints is read"
    cell.socket.is_up(lambda: event("PrintedBefore"))
    await until(lambda: len(received.frames) == 5)
    assert names(received)[3:] == ["PrintedBefore", "Outputs"]


async def test_who_says_later_that_it_waits_is_not_introduced_without_a_hello(cell: Opened) -> None:
    cell.socket.become(CONTAINER, token_hash(TOKEN), is_verified=True)
    cell.socket.is_up(lambda: None)

    _, heard = await cell.connect(waiting(READY))
    await until(lambda: heard.reason is not None, 2)

    assert not cell.server.container_channels


async def test_a_guest_that_is_ready_already_says_so_with_its_hello(opened: Opened) -> None:
    await opened.connect(hello(ready=READY))

    _, received = await opened.served(0)
    await until(lambda: len(received.frames) == 2)

    assert CODEC.record(Ready, CODEC.decode(received.frames[1].header).params) == READY


async def test_a_parked_guest_that_is_not_ready_is_introduced_and_no_more(cell: Opened) -> None:
    await cell.connect(waiting())
    await asyncio.sleep(0.02)

    cell.socket.become(CONTAINER, token_hash(TOKEN), is_verified=True)
    _, received = await cell.served(0)
    await asyncio.sleep(0.05)

    assert names(received) == ["ContainerHello"]


async def test_what_nobody_has_verified_is_introduced_by_its_hello_only(cell: Opened) -> None:
    guest, _ = await cell.connect(waiting(READY))
    cell.socket.become(CONTAINER, token_hash(TOKEN), is_verified=False)
    cell.socket.is_up(lambda: None)
    await asyncio.sleep(0.05)
    assert not cell.server.container_channels

    guest.send(hello())
    _, received = await cell.served(0)
    await until(lambda: len(received.frames) == 2)

    assert names(received) == ["ContainerHello", "Ready"]


@pytest.mark.parametrize(
    "frame",
    [hello(token="wrong"), hello(container_id=""), hello(role="client"), event("Outputs")],
    ids=["token", "container", "role", "no hello"],
)
async def test_one_that_waited_is_heard_only_with_the_right_hello(cell: Opened, frame: Frame) -> None:
    guest, heard = await cell.connect(waiting(READY))
    await asyncio.sleep(0.02)
    cell.socket.become(CONTAINER, token_hash(TOKEN), is_verified=True)
    cell.socket.is_up(lambda: None)
    _, received = await cell.served(0)

    guest.send(frame)
    guest.send(event("Outputs"))
    await until(lambda: heard.reason is not None and received.reason is not None)

    assert names(received) == ["ContainerHello", "Ready"]


async def test_one_that_waited_and_never_says_hello_is_closed(cell: Opened) -> None:
    _, heard = await cell.connect(waiting(READY))
    await asyncio.sleep(0.02)
    cell.socket.become(CONTAINER, token_hash(TOKEN), is_verified=True)

    await until(lambda: heard.reason is not None, 2)


async def test_one_that_waited_and_has_ended_is_not_introduced(cell: Opened) -> None:
    guest, _ = await cell.connect(waiting(READY))
    await asyncio.sleep(0.02)
    guest.close()
    await asyncio.sleep(0.05)

    cell.socket.become(CONTAINER, token_hash(TOKEN), is_verified=True)
    await asyncio.sleep(0.05)

    assert not cell.server.container_channels


@pytest.mark.parametrize("frame", [hello(), hello(token="", container_id=""), event("Outputs")])
async def test_who_speaks_while_nobody_knows_who_it_is_is_closed(cell: Opened, frame: Frame) -> None:
    _, heard = await cell.connect(waiting(READY), frame)

    await until(lambda: heard.reason is not None)

    cell.socket.become(CONTAINER, token_hash(TOKEN), is_verified=True)
    await asyncio.sleep(0.05)
    assert not cell.server.container_channels


async def test_one_connection_may_wait(cell: Opened) -> None:
    await cell.connect(waiting(READY))
    await asyncio.sleep(0.02)

    _, second = await cell.connect(waiting(READY))
    await until(lambda: second.reason is not None)
    cell.socket.become(CONTAINER, token_hash(TOKEN), is_verified=True)
    await cell.served(0)

    assert len(cell.server.container_channels) == 1


async def test_a_guest_whose_waiting_connection_broke_is_let_in_over_another_one(cell: Opened) -> None:
    guest, _ = await cell.connect(waiting(READY))
    await asyncio.sleep(0.02)
    guest.close()
    await asyncio.sleep(0.02)
    cell.socket.become(CONTAINER, token_hash(TOKEN), is_verified=True)
    cell.socket.is_up(lambda: None)

    await cell.connect(hello(), event("Ready"))
    _, received = await cell.served(0)
    await until(lambda: len(received.frames) == 2)

    assert names(received) == ["ContainerHello", "Ready"]


@pytest.mark.parametrize("name", ["Outputs", "Items"])
async def test_the_first_output_of_a_guest_is_noticed_once_and_passes_like_all_else(opened: Opened, name: str) -> None:
    noticed: list[str] = []
    opened.socket.on_output = lambda: noticed.append(name)
    odd = Frame(b"\xffnot even json", b"body")
    await opened.connect(hello("client", client_id="cl-1"), event(name))
    _, of_client = await opened.served(0)
    await until(lambda: len(of_client.frames) == 2)
    guest, _ = await opened.connect(hello(), odd, event("Ready"), event("Heartbeat"))
    _, received = await opened.served(1)
    await until(lambda: len(received.frames) == 4)
    assert not noticed, "it is no guest, or no output"

    guest.send(event(name))
    guest.send(event(name))
    await until(lambda: len(received.frames) == 6)

    assert noticed == [name]
    assert received.frames[1:] == [odd, event("Ready"), event("Heartbeat"), event(name), event(name)]
