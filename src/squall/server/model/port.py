"""What the server has of a connection to a port inside a container."""

from __future__ import annotations

from typing import Protocol


class PortStream(Protocol):
    """Bytes both ways. Everything but `close` raises PlatformError `unavailable` when the container, its node or the
    way there is gone: that never looks like an end."""

    async def read(self) -> bytes:
        """The next bytes of the program; none at their end."""

    async def write(self, data: bytes) -> None:
        """Send bytes to the program; waits while what was sent before is not taken."""

    def write_eof(self) -> None:
        """Nothing more is sent."""

    async def wait_ended(self) -> None:
        """Return when both sides have ended and the program's side has all that was written. To let go of it before
        loses the last of that."""

    def close(self) -> None:
        """Let go of it; the program sees a reset, if it has not closed its side."""
