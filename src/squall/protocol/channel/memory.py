"""A channel inside one process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from squall.protocol.channel.contract import HIGH_WATER_BYTES, Receiver
from squall.protocol.channel.outbox import Outbox
from squall.protocol.frames import Frame


class MemoryChannel:
    """One end of a pair inside one process; speaks the same frames as the wire, without copying them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._peer: MemoryChannel | None = None
        self._receiver: Receiver | None = None
        self._inbox: list[Frame] = []
        self._inbox_bytes = 0
        self._is_scheduled = False
        self._is_delivering = False
        self._is_paused = False
        self._is_ending = False
        self._is_told = False
        self._outbox = Outbox()

    @classmethod
    def pair(cls) -> tuple[MemoryChannel, MemoryChannel]:
        """Two connected ends."""
        one, other = cls(), cls()
        one._peer, other._peer = other, one
        return one, other

    @property
    def is_closed(self) -> bool:
        """See `Channel`."""
        return self._outbox.is_closed

    @property
    def is_full(self) -> bool:
        """See `Channel`."""
        return self._outbox.is_blocked

    def start(self, receiver: Receiver) -> None:
        """See `Channel`."""
        self._receiver = receiver
        self._schedule()

    def send(self, frame: Frame) -> None:
        """See `Channel`."""
        peer = self._peer
        if self._outbox.is_closed or peer is None:
            return
        self._queue(peer, frame)
        peer._schedule()

    def send_now(self, frames: Sequence[Frame]) -> None:
        """See `Channel`."""
        peer = self._peer
        if self._outbox.is_closed or peer is None:
            return
        for frame in frames:
            self._queue(peer, frame)
        # A receiver that is being called is not called again before it returns.
        if peer._is_scheduled or peer._is_delivering:
            peer._schedule()
        else:
            peer._deliver()

    def _queue(self, peer: MemoryChannel, frame: Frame) -> None:
        peer._inbox.append(frame)
        peer._inbox_bytes += len(frame.header) + len(frame.body)
        if peer._inbox_bytes > HIGH_WATER_BYTES:
            self._outbox.block()

    async def drain(self) -> None:
        """See `Channel`."""
        await self._outbox.wait()

    def pause(self) -> None:
        """See `Channel`."""
        self._is_paused = True

    def resume(self) -> None:
        """See `Channel`."""
        self._is_paused = False
        self._schedule()

    def close(self) -> None:
        """See `Channel`."""
        for end in (self, self._peer):
            if end is not None and not end._is_ending:
                end._is_ending = True
                end._outbox.close()
                end._schedule()

    def abort(self) -> None:
        """See `Channel`."""
        if self._peer is not None:
            self._peer._inbox, self._peer._inbox_bytes = [], 0
        self.close()

    def _schedule(self) -> None:
        if self._receiver is not None and not self._is_scheduled and not self._loop.is_closed():
            self._is_scheduled = True
            self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        self._is_scheduled = False
        receiver = self._receiver
        if receiver is None or (self._is_paused and not self._is_ending):
            return
        frames, self._inbox, self._inbox_bytes = self._inbox, [], 0
        if self._peer is not None and not self._peer._outbox.is_closed:
            self._peer._outbox.unblock()
        if frames:
            self._is_delivering = True
            receiver.frames_received(frames)
            self._is_delivering = False
        if self._is_ending and not self._inbox and not self._is_told:
            self._is_told = True
            receiver.closed("the other end was closed")
