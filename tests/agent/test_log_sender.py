"""What a container printed reaches the server before what it said after."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from squall.agent.log_sender import LogSender
from squall.agent.logs import PIPE_BYTES, Logs
from squall.protocol.channel.memory import MemoryChannel
from squall.protocol.frames import Frame
from squall.protocol.node import PrintedBefore
from squall.protocol.peer import Peer
from tests.agent.parts import CODEC, ServerEnd, until


class Sending:
    """A container's pipe, and a server's end."""

    def __init__(self) -> None:
        self.logs = Logs(now=lambda: 12.5)
        self.sender = LogSender(self.logs, CODEC)
        self.server = ServerEnd()
        self.stdout_fd, self.stdout = os.pipe()
        self.stderr_fd, self.stderr = os.pipe()
        for descriptor in (self.stdout_fd, self.stderr_fd, self.stdout):
            os.set_blocking(descriptor, False)
        self.catch_up = self.logs.add("ct-1", "ap-1", "fu-1", self.stdout_fd, self.stderr_fd)

    async def begin(self) -> None:
        self.peer = Peer(await self.server.connect(), CODEC)
        self.peer.start()
        self.sender.begin(self.peer)
        await asyncio.sleep(0)  # both ends have begun to receive

    def ahead(self) -> Frame | None:
        return self.sender.ahead(self.catch_up)

    @property
    def texts(self) -> list[str]:
        return [entry.text for entry in self.server.lines]


@pytest.fixture
async def sending() -> AsyncIterator[Sending]:
    made = Sending()
    yield made
    made.logs.close()
    os.close(made.stdout)
    os.close(made.stderr)


def line_count(frame: Frame | None) -> int:
    assert frame is not None
    envelope = CODEC.decode(frame.header)
    assert envelope.method == "PrintedBefore"
    return CODEC.record(PrintedBefore, envelope.params).line_count


async def test_lines_are_at_the_server_before_a_frame_passes(sending: Sending) -> None:
    await sending.begin()
    os.write(sending.stdout, b"one\ntwo\n")
    os.write(sending.stderr, b"three\n")

    count = line_count(sending.ahead())

    # No turn of the loop has passed.
    assert sending.texts == ["one", "two", "three"]
    assert count == 3


async def test_a_container_that_printed_nothing_sends_nothing_ahead(sending: Sending) -> None:
    await sending.begin()
    os.write(sending.stdout, b"one\n")

    first, second = sending.ahead(), sending.ahead()

    assert line_count(first) == 1
    assert second is None


async def test_lines_that_the_loop_has_read_already_go_ahead_too(sending: Sending) -> None:
    await sending.begin()
    os.write(sending.stdout, b"one\n")
    await asyncio.wait_for(sending.logs._has_pending.wait(), 5)

    assert line_count(sending.ahead()) == 1
    assert sending.texts == ["one"]


async def test_lines_sent_by_themselves_are_counted(sending: Sending) -> None:
    await sending.begin()
    running = asyncio.ensure_future(sending.sender.run())
    os.write(sending.stdout, b"one\n")
    await until(lambda: sending.texts)
    os.write(sending.stdout, b"two\n")

    assert line_count(sending.ahead()) == 2
    running.cancel()


async def test_the_count_begins_anew_with_each_server(sending: Sending) -> None:
    await sending.begin()
    os.write(sending.stdout, b"one\n")
    sending.ahead()
    sending.sender.pause()
    os.write(sending.stdout, b"two\n")
    without = sending.ahead()

    await sending.begin()
    os.write(sending.stdout, b"three\n")

    assert without is None
    assert line_count(sending.ahead()) == 2
    await until(lambda: len(sending.texts) == 3)


async def test_what_is_read_ahead_of_a_frame_is_bounded(sending: Sending) -> None:
    await sending.begin()
    line = b"x" * 999 + b"\n"
    written = 0

    def print_on() -> None:
        nonlocal written
        try:
            while written < 10 * PIPE_BYTES:
                written += os.write(sending.stdout, line)
        except BlockingIOError:
            return

    print_on()
    sending.ahead()

    assert sum(len(text) + 1 for text in sending.texts) <= PIPE_BYTES


async def test_a_full_channel_holds_lines_back_and_not_frames(
    sending: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sending.begin()
    monkeypatch.setattr(MemoryChannel, "is_full", property(lambda channel: True))
    os.write(sending.stdout, b"one\n")

    count = line_count(sending.ahead())
    sending.sender.flush()
    await until(lambda: sending.texts)

    assert count == 0
    assert sending.texts == ["one"]
