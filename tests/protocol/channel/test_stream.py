"""What only a channel over a stream socket has to care for."""

from __future__ import annotations

import asyncio

from squall.protocol.channel.stream import StreamChannel
from squall.protocol.frames import Frame, encode


class _ClosingTransport(asyncio.Transport):
    """As a transport of uvloop between its last error and `connection_lost`."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return

    def is_closing(self) -> bool:
        return True

    def write(self, data: object) -> None:
        raise RuntimeError("the handler is closed")


async def test_bytes_for_a_connection_that_just_broke_are_dropped() -> None:
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    channel = StreamChannel()
    channel.connection_made(_ClosingTransport())

    channel.send(Frame(b"{}", b""))
    await asyncio.sleep(0.01)

    assert failures == []


async def test_a_channel_says_what_it_holds_of_a_frame_that_is_not_whole() -> None:
    channel = StreamChannel()
    whole = encode(Frame(b"{}", b"body"))

    channel.data_received(whole[:7])
    held_bytes = channel.held_bytes
    channel.data_received(whole[7:])

    assert held_bytes == 7
    assert channel.held_bytes == 0
