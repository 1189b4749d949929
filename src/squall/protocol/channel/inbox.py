"""What has arrived, and the end of it, for a receiver that may come later."""

from __future__ import annotations

from squall.protocol.channel.contract import Receiver
from squall.protocol.frames import Frame


class Inbox:
    """Hands frames on in order; keeps them, and the end, until `start` names who takes them."""

    def __init__(self) -> None:
        self._receiver: Receiver | None = None
        self._early: list[Frame] = []
        self._end_reason: str | None = None
        self._is_told = False

    def start(self, receiver: Receiver) -> None:
        """Deliver what came early, then whatever comes."""
        self._receiver = receiver
        if self._early:
            early, self._early = self._early, []
            receiver.frames_received(early)
        self._tell_end()

    def deliver(self, frames: list[Frame]) -> None:
        """Hand one batch on."""
        if self._receiver is None:
            self._early.extend(frames)
        else:
            self._receiver.frames_received(frames)

    def end(self, reason: str) -> None:
        """Nothing more will come. The first reason counts, and is told once."""
        if self._end_reason is None:
            self._end_reason = reason
        self._tell_end()

    def _tell_end(self) -> None:
        if self._receiver is not None and self._end_reason is not None and not self._is_told:
            self._is_told = True
            self._receiver.closed(self._end_reason)
