"""A channel as its users see it: the interface is the specification.

Every kind behaves the same (tests/protocol/channel/test_contract.py runs one suite over them):
  * `send` never blocks and keeps order; what one turn of the loop sends leaves in one write, `send_now` at once
  * frames arrive in batches, by a call to the receiver: no queue and no switch between them
  * `drain` waits while the other side is slower than we are: a sender of much must call it
  * an end that closes, or dies, makes the other's `closed` be called exactly once, after the last frame
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from squall.protocol.frames import Frame

HIGH_WATER_BYTES = 4 * 2**20
"""Queued bytes above which `drain` waits."""
LOW_WATER_BYTES = 1 * 2**20
"""Queued bytes below which it goes on, where the transport tells."""


class Receiver(Protocol):
    """What a channel calls. Neither method may raise or block."""

    def frames_received(self, frames: list[Frame]) -> None:
        """One batch, in order."""

    def closed(self, reason: str) -> None:
        """No more frames will come; called once."""


class Channel(Protocol):
    """One end. Used from its event loop's thread only."""

    def start(self, receiver: Receiver) -> None:
        """Begin to deliver; frames that came earlier are delivered first."""

    def send(self, frame: Frame) -> None:
        """Queue a frame. On a closed channel it does nothing: the receiver has been, or will be, told."""

    def send_now(self, frames: Sequence[Frame]) -> None:
        """As `send` of each, but without waiting for the end of the turn: for who knows that this is all of it."""

    async def drain(self) -> None:
        """Wait until little is queued.

        Raises:
            ChannelClosed: it never will be sent.
        """

    def pause(self) -> None:
        """Stop delivering until `resume`: the other side's `drain` will wait."""

    def resume(self) -> None:
        """Undo `pause`."""

    def close(self) -> None:
        """Send what is queued, then end. Repeating it is harmless."""

    def abort(self) -> None:
        """End at once, also when the other side does not read; what is queued is lost."""

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent any more."""

    @property
    def is_full(self) -> bool:
        """Whether so much is queued that `drain` waits."""
