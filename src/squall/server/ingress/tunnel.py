"""TCP ports that lead to containers: bytes go both ways, each only as fast as the other side takes them.

A connection is set to be reset when its socket is closed, from its first byte until both ways have ended: so a server
that is killed, as a container that is, leaves its clients an abort and no end that looks whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import random
import socket
import ssl
import struct
from collections.abc import Sequence
from typing import Any

from squall.protocol.errors import EXHAUSTED, PlatformError
from squall.protocol.task_set import TaskSet
from squall.server.model.port import PortStream
from squall.server.model.tunnel import OpenStream

CONNECTIONS_MAX = 1_000
"""Of one tunnel; and ten times that of all."""
ALL_CONNECTIONS_MAX = 10_000
HANDSHAKE_S = 10.0
END_S = 30.0
"""For how long a program may go on that was told the end of what a client sent by TLS, which then reads no more; and
for how long a client may take the last bytes."""
UNREAD_BYTES = 64 * 1024
KEEPALIVE_S = 60
"""After so long a silence it is looked whether the client's machine is still there."""
BACKLOG = 128
_RESET, _END = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)

_log = logging.getLogger("squall.server.ingress.tunnel")


class Entries:
    """Implements `model.tunnel.TunnelEntries` over the ports of a range."""

    def __init__(
        self, address: str, host: str, ports: Sequence[int], tls: tuple[str, str] | None = None, why_no_plain: str = ""
    ) -> None:
        """
        Args:
            address: to listen at.
            host: the name that it is told by.
            tls: paths of a certificate and its key.
        """
        self._address = address
        self._host = host
        self._ports = ports
        self._tls = tls
        self.has_tls = tls is not None
        self.why_no_plain = why_no_plain
        self.tasks = TaskSet()
        self.connection_count = 0

    async def listen(self, open_stream: OpenStream, *, is_tls: bool, is_h2: bool, wanted_port: int) -> Entry:
        """See `TunnelEntries`."""
        listener = self._bind(wanted_port)
        entry = Entry(self, open_stream, self._host, listener.getsockname()[1])
        options: dict[str, Any] = {}
        try:
            if is_tls and self._tls is not None:
                context = await asyncio.to_thread(_context, self._tls, is_h2)
                options = {"ssl": context, "ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": END_S}
            entry.server = await asyncio.start_server(
                entry.connected, sock=listener, limit=UNREAD_BYTES, backlog=BACKLOG, **options
            )
        except BaseException:
            listener.close()
            raise
        return entry

    def _bind(self, wanted_port: int) -> socket.socket:
        """A port that is wanted and refused is most likely somebody else's by now."""
        tried = [wanted_port] if wanted_port in self._ports else []
        tried += random.sample(self._ports, len(self._ports))
        for port in tried:
            family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self._address, port))
                # Two sockets may be bound to one port, as long as neither listens.
                listener.listen(BACKLOG)
            except OSError as error:
                listener.close()
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise PlatformError(EXHAUSTED, f"cannot listen at {self._address}:{port}: {error}") from error
            else:
                return listener
        where = f"{self._ports[0]} to {self._ports[-1]}" if self._ports else "none"
        raise PlatformError(
            EXHAUSTED, f"no port of this server is free for a tunnel ({where}); set SQUALL_TUNNEL_PORTS to more"
        )

    async def close(self) -> None:
        """Reset what is still connected."""
        await self.tasks.close()


def _context(tls: tuple[str, str], is_h2: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*tls)
    context.set_alpn_protocols(["h2", "http/1.1"] if is_h2 else ["http/1.1"])
    return context


class Entry:
    """Implements `model.tunnel.TunnelEntry`."""

    def __init__(self, entries: Entries, open_stream: OpenStream, host: str, port: int) -> None:
        self._entries = entries
        self._open_stream = open_stream
        self.host = host
        self.port = port
        self.server: asyncio.Server | None = None
        self._carried: set[asyncio.Future[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Called by asyncio for each connection, after its handshake."""
        entries = self._entries
        is_full = len(self._carried) >= CONNECTIONS_MAX or entries.connection_count >= ALL_CONNECTIONS_MAX
        is_closed = self.server is not None and not self.server.is_serving()
        _set_up(writer)
        if is_full or is_closed:
            writer.transport.abort()
            return
        entries.connection_count += 1
        carried = entries.tasks.start(self._carry(reader, writer))
        self._carried.add(carried)
        carried.add_done_callback(lambda carried: self._ended(carried, writer))

    def _ended(self, carried: asyncio.Future[None], writer: asyncio.StreamWriter) -> None:
        # After an end that both sides have come to, nothing is left to be reset. Not in `_carry`: what is cancelled
        # before it has begun never runs.
        writer.transport.abort()
        self._carried.discard(carried)
        self._entries.connection_count -= 1

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream: PortStream | None = None
        try:
            stream = await self._open_stream()
            await _Joined(reader, writer, stream).run()
        except (PlatformError, OSError) as error:
            _log.debug("a connection to the tunnel at %d was reset: %s", self.port, error)
        finally:
            if stream is not None:
                stream.close()

    def close(self) -> None:
        """See `TunnelEntry`."""
        if self.server is not None:
            self.server.close()
        for carried in list(self._carried):
            carried.cancel()


class _Joined:
    """A client's connection and a stream to a program."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: PortStream) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = stream
        self._has_client_ended = False

    async def run(self) -> None:
        """Return when both sides have said that they have ended, and the client has taken all.

        Raises:
            PlatformError, OSError: one of them is gone.
        """
        up, down = asyncio.ensure_future(self._to_program()), asyncio.ensure_future(self._to_client())
        try:
            done, _ = await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
            if not self._writer.can_write_eof():
                # A client that has ended TLS reads no more, and one that was told its end is not heard any more.
                _, late = await asyncio.wait([up, down], timeout=END_S)
                if late:
                    raise PlatformError(EXHAUSTED, f"it did not end within {END_S:.0f} s of its client")
            for one in (up, down):
                await one
            self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _END)
            self._writer.close()
            async with asyncio.timeout(END_S):
                await self._writer.wait_closed()
            await self._stream.wait_ended()
        except TimeoutError as error:
            raise PlatformError(EXHAUSTED, f"the client took nothing for {END_S:.0f} s") from error
        finally:
            up.cancel()
            down.cancel()
            await asyncio.gather(up, down, return_exceptions=True)

    async def _to_program(self) -> None:
        while data := await self._reader.read(UNREAD_BYTES):
            await self._stream.write(data)
        self._has_client_ended = True
        self._stream.write_eof()

    async def _to_client(self) -> None:
        can_end_one_way = self._writer.can_write_eof()
        while data := await self._stream.read():
            try:
                self._writer.write(data)
                await self._writer.drain()
            except ConnectionError:
                if can_end_one_way or not self._has_client_ended:
                    raise
        if can_end_one_way:
            self._writer.write_eof()
        else:
            self._writer.close()


def _set_up(writer: asyncio.StreamWriter) -> None:
    one = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S // 4)
