"""What only a channel over WebSocket messages has to care for."""

from __future__ import annotations

import asyncio

from squall.protocol.channel.websocket import MESSAGE_BYTES_MAX, WebSocketChannel
from squall.protocol.frames import Frame, FrameDecoder
from tests.protocol.channel_pairs import Kept


class _MessageLog:
    """A message socket that keeps what is sent and never receives."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_enough = asyncio.Event()

    async def send_bytes(self, data: bytes) -> None:
        self.sent.append(data)
        if sum(len(message) for message in self.sent) > 40 * 2**20:
            self.is_enough.set()

    async def receive_bytes(self) -> bytes | None:
        await asyncio.Event().wait()
        return None

    async def close(self) -> None:
        return

    def abort(self) -> None:
        return


async def test_a_sender_that_never_drains_sends_messages_of_bounded_size() -> None:
    socket = _MessageLog()
    channel = WebSocketChannel(socket)
    for _ in range(41):
        channel.send(Frame(b"{}", bytes(2**20)))

    running = asyncio.ensure_future(channel.run())
    await asyncio.wait_for(socket.is_enough.wait(), 10)
    channel.close()
    await asyncio.wait_for(running, 10)

    assert max(len(message) for message in socket.sent) <= MESSAGE_BYTES_MAX
    assert len(FrameDecoder().feed(b"".join(socket.sent))) == 41


class _Broken(_MessageLog):
    """A message socket that fails, each way once it is told to."""

    async def send_bytes(self, data: bytes) -> None:
        raise ConnectionError("the cable was cut")


class _Nonsense(_MessageLog):
    """A message socket whose other end speaks something else."""

    async def receive_bytes(self) -> bytes | None:
        return b"\xff" * 8


async def test_the_reason_of_a_failed_write_reaches_the_receiver() -> None:
    channel, receiver = WebSocketChannel(_Broken()), Kept()
    channel.start(receiver)

    channel.send(Frame(b"{}", b""))
    await asyncio.wait_for(channel.run(), 10)

    assert receiver.reasons == ["the cable was cut"]


async def test_bytes_that_are_no_frames_end_the_channel_with_the_reason() -> None:
    channel, receiver = WebSocketChannel(_Nonsense()), Kept()

    await asyncio.wait_for(channel.run(), 10)
    channel.start(receiver)

    assert len(receiver.reasons) == 1
    assert "over the limit" in receiver.reasons[0]
