"""One suite for every channel: in memory, over a unix socket, over WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from squall.protocol.channel.contract import HIGH_WATER_BYTES, Channel
from squall.protocol.errors import ChannelClosed
from squall.protocol.frames import Frame
from tests.protocol.channel_pairs import KINDS, Kept, channel_pair


@pytest.fixture(params=KINDS)
async def pair(
    request: pytest.FixtureRequest, make_data_dir: Callable[[], Path]
) -> AsyncIterator[tuple[Channel, Channel]]:
    """Two connected ends that nobody has started."""
    async with channel_pair(request.param, make_data_dir()) as made:
        yield made


def make_frames(count: int, body: bytes = b"\x00body") -> list[Frame]:
    return [Frame(b'{"k":"ev","i":%d}' % number, body) for number in range(count)]


async def test_frames_arrive_in_order_both_ways(pair: tuple[Channel, Channel]) -> None:
    receivers = Kept(), Kept()
    for channel, receiver in zip(pair, receivers, strict=True):
        channel.start(receiver)

    for channel in pair:
        for frame in make_frames(1_000):
            channel.send(frame)

    for receiver in receivers:
        await receiver.wait(lambda kept: len(kept.frames) >= 1_000)
        assert receiver.frames == make_frames(1_000)


async def test_frames_of_one_turn_arrive_in_few_batches(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    receiver = Kept()
    theirs.start(receiver)
    ours.start(Kept())

    for frame in make_frames(500):
        ours.send(frame)
    await receiver.wait(lambda kept: len(kept.frames) == 500)

    assert receiver.batches < 20


async def test_frames_sent_before_the_other_side_started_are_delivered(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    ours.start(Kept())
    ours.send(Frame(b"{}", b"early"))
    await asyncio.sleep(0.05)
    receiver = Kept()

    theirs.start(receiver)
    ours.send(Frame(b"{}", b"late"))

    await receiver.wait(lambda kept: len(kept.frames) == 2)
    assert [frame.body for frame in receiver.frames] == [b"early", b"late"]


async def test_large_bodies_arrive_whole(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    receiver = Kept()
    theirs.start(receiver)
    ours.start(Kept())
    body = bytes(range(256)) * 4_096 * 4

    for _ in range(3):
        ours.send(Frame(b"{}", body))
        await ours.drain()

    await receiver.wait(lambda kept: len(kept.frames) == 3)
    assert all(frame.body == body for frame in receiver.frames)


async def test_close_delivers_what_was_sent_then_tells_both_once(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    mine, other = Kept(), Kept()
    ours.start(mine)
    theirs.start(other)

    for frame in make_frames(50):
        ours.send(frame)
    ours.close()
    ours.close()

    await other.wait(lambda kept: kept.reasons)
    await mine.wait(lambda kept: kept.reasons)
    assert other.frames == make_frames(50)
    assert ours.is_closed
    assert theirs.is_closed
    await asyncio.sleep(0.05)
    assert len(mine.reasons) == len(other.reasons) == 1
    assert mine.reasons[0]
    assert other.reasons[0]


async def test_end_that_starts_after_the_close_hears_of_it(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    ours.start(Kept())
    ours.send(Frame(b"{}", b"last words"))
    ours.close()
    await asyncio.sleep(0.05)
    receiver = Kept()

    theirs.start(receiver)

    await receiver.wait(lambda kept: kept.reasons)
    assert [frame.body for frame in receiver.frames] == [b"last words"]


async def test_sending_on_a_closed_channel_does_nothing(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    receiver = Kept()
    theirs.start(receiver)
    ours.start(Kept())
    ours.close()

    ours.send(Frame(b"{}", b"too late"))

    await receiver.wait(lambda kept: kept.reasons)
    assert receiver.frames == []
    with pytest.raises(ChannelClosed):
        await ours.drain()


@pytest.mark.long
async def test_drain_waits_for_a_slow_reader(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    receiver = Kept()
    theirs.start(receiver)
    ours.start(Kept())
    theirs.pause()
    block = Frame(b"{}", bytes(2**20))

    sent = 0

    async def send_all() -> None:
        nonlocal sent
        while sent < 200:
            ours.send(block)
            sent += 1
            await ours.drain()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(send_all(), 0.5)
    theirs.resume()

    await receiver.wait(lambda kept: len(kept.frames) == sent)
    await asyncio.wait_for(ours.drain(), 10)
    # What the kernel's buffers and one message in flight hold comes on top.
    assert sent * 2**20 < 6 * HIGH_WATER_BYTES


async def test_draining_ends_when_the_other_side_goes(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    theirs.start(Kept())
    ours.start(Kept())
    theirs.pause()
    for _ in range(64):
        ours.send(Frame(b"{}", bytes(2**20)))
    draining = asyncio.ensure_future(ours.drain())
    await asyncio.sleep(0.05)

    theirs.close()

    # Either everything had left for the connection by then, or it never will.
    done, _ = await asyncio.wait([draining], timeout=15)
    assert done
    assert draining.exception() is None or isinstance(draining.exception(), ChannelClosed)


async def test_frames_sent_now_keep_their_place_behind_those_that_wait(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    receiver = Kept()
    theirs.start(receiver)
    ours.start(Kept())
    frames = make_frames(6)

    for frame in frames[:3]:
        ours.send(frame)
    ours.send_now(frames[3:5])
    ours.send(frames[5])

    await receiver.wait(lambda kept: len(kept.frames) == 6)
    assert receiver.frames == frames


async def test_a_channel_is_full_while_the_other_side_does_not_read(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    receiver = Kept()
    theirs.start(receiver)
    ours.start(Kept())
    theirs.pause()
    was_full = ours.is_full

    sent = 0
    async with asyncio.timeout(20):
        while not ours.is_full:
            ours.send(Frame(b"{}", bytes(2**20)))
            sent += 1
            await asyncio.sleep(0.01)
    assert not was_full
    theirs.resume()
    await receiver.wait(lambda kept: len(kept.frames) == sent)
    await asyncio.wait_for(ours.drain(), 10)

    assert sent * 2**20 < 8 * HIGH_WATER_BYTES
    assert not ours.is_full


async def test_abort_ends_a_channel_whose_other_side_does_not_read(pair: tuple[Channel, Channel]) -> None:
    ours, theirs = pair
    mine, other = Kept(), Kept()
    ours.start(mine)
    theirs.start(other)
    theirs.pause()
    async with asyncio.timeout(20):
        while not ours.is_full:
            ours.send(Frame(b"{}", bytes(2**20)))
            await asyncio.sleep(0.01)

    ours.abort()
    ours.abort()

    assert ours.is_closed
    await mine.wait(lambda kept: kept.reasons)
    theirs.resume()
    await other.wait(lambda kept: kept.reasons)
    assert len(mine.reasons) == len(other.reasons) == 1
