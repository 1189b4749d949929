"""What arrived reaches the receiver in order, and its end once, whoever comes first."""

from __future__ import annotations

from squall.protocol.channel.inbox import Inbox
from squall.protocol.frames import Frame
from tests.protocol.channel_pairs import Kept

FRAME = Frame(b"{}", b"body")


def test_what_came_before_the_receiver_is_delivered_before_the_end() -> None:
    inbox, receiver = Inbox(), Kept()

    inbox.deliver([FRAME])
    inbox.deliver([FRAME])
    inbox.end("gone")
    inbox.start(receiver)

    assert receiver.frames == [FRAME, FRAME]
    assert receiver.reasons == ["gone"]


def test_the_end_is_told_once_with_its_first_reason() -> None:
    inbox, receiver = Inbox(), Kept()
    inbox.start(receiver)

    inbox.end("first")
    inbox.end("second")

    assert receiver.reasons == ["first"]


def test_an_end_caused_by_the_first_delivery_is_told_once() -> None:
    inbox = Inbox()

    class Closing(Kept):
        def frames_received(self, frames: list[Frame]) -> None:
            super().frames_received(frames)
            inbox.end("by the receiver")

    receiver = Closing()
    inbox.deliver([FRAME])

    inbox.start(receiver)

    assert receiver.reasons == ["by the receiver"]
