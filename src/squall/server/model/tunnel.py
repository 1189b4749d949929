"""Where a tunnel begins: a TCP port of the server that leads elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from squall.server.model.port import PortStream

OpenStream = Callable[[], Awaitable[PortStream]]


class TunnelEntry(Protocol):
    """A port that is listened at."""

    host: str
    """The name it is reached by."""
    port: int

    def close(self) -> None:
        """Listen no more; every connection is reset."""


class TunnelEntries(Protocol):
    """Ports of this server for tunnels."""

    has_tls: bool
    """There is a certificate."""
    why_no_plain: str
    """Why there are no ports without TLS, in words; empty where there are."""

    async def listen(self, open_stream: OpenStream, *, is_tls: bool, is_h2: bool, wanted_port: int) -> TunnelEntry:
        """Listen at a port, the wanted one if it can be had. Each connection is joined to a stream of its own; where
        there is none to be had, or it comes to no end, the connection is reset.

        Raises:
            PlatformError: `exhausted`, no port is free.
        """
