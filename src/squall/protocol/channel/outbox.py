"""Who waits because too much is queued to be sent."""

from __future__ import annotations

import asyncio

from squall.protocol.errors import ChannelClosed


class Outbox:
    """The way out of one end: open, blocked while the queue is full, or closed for good."""

    def __init__(self) -> None:
        self._can_send = asyncio.Event()
        self._can_send.set()
        self.is_closed = False

    def block(self) -> None:
        """Let those who drain wait."""
        self._can_send.clear()

    def unblock(self) -> None:
        """Let them go on."""
        self._can_send.set()

    def close(self) -> None:
        """Let them fail: nothing more will be sent."""
        self.is_closed = True
        self._can_send.set()

    @property
    def is_blocked(self) -> bool:
        """Whether they wait now."""
        return not self._can_send.is_set()

    async def wait(self) -> None:
        """See `Channel.drain`."""
        await self._can_send.wait()
        if self.is_closed:
            raise ChannelClosed()
