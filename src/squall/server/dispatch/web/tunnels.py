"""Tunnels that containers have asked for.

A tunnel ends when it is closed, when its client is given up (as after a process has ended in a container that goes on),
with its container, and with the server; after a break or a new server its client asks for it again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from squall.protocol.empty import Empty
from squall.protocol.errors import CONFLICT, EXHAUSTED, INVALID, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.records import replace
from squall.protocol.task_set import TaskSet
from squall.protocol.tunnel import TUNNELS_MAX, TunnelClose, TunnelOpen, TunnelOpened
from squall.server.model.port import PortStream
from squall.server.model.tunnel import TunnelEntries, TunnelEntry

if TYPE_CHECKING:
    from squall.server.dispatch.client.callers import Caller
    from squall.server.dispatch.client.client import Client
    from squall.server.dispatch.fleet.container import Container
    from squall.server.dispatch.fleet.fleet import ContainerFleet
    from squall.server.dispatch.web.proxied import OpenPort


@dataclass(eq=False, slots=True)
class _Tunnel:
    asked: TunnelOpen
    client: Client
    container: Container
    opened: asyncio.Future[TunnelOpened] | None = None
    entries: list[TunnelEntry] = field(default_factory=list)
    is_closed: bool = False


class Tunnels:
    """All there are."""

    def __init__(self, fleet: ContainerFleet, open_port: OpenPort, tasks: TaskSet) -> None:
        self._fleet = fleet
        self._tasks = tasks
        self._open_port = open_port
        self.entries: TunnelEntries | None = None
        """Where they may begin; None: this server has none."""
        self._tunnels: dict[str, _Tunnel] = {}
        self._counts: Counter[Container] = Counter()

    async def open(self, caller: Caller, record: TunnelOpen) -> TunnelOpened:
        """See `TunnelOpen`. Asked again it is the same tunnel.

        Raises:
            PlatformError: see there; `conflict` when the tunnel is another client's, or leads elsewhere.
        """
        client, container = self._asking(caller, record)
        tunnel = self._tunnels.get(record.tunnel_id)
        if tunnel is not None:
            if tunnel.client is not client or _kind(tunnel.asked) != _kind(record) or tunnel.opened is None:
                raise PlatformError(CONFLICT, f"TunnelOpen: {record.tunnel_id} is another tunnel; make a new id")
            return await asyncio.shield(tunnel.opened)
        if self._counts[container] >= TUNNELS_MAX:
            raise PlatformError(EXHAUSTED, f"TunnelOpen: this container has {TUNNELS_MAX} tunnels already; close some")
        tunnel = _Tunnel(record, client, container)
        self._tunnels[record.tunnel_id] = tunnel
        self._counts[container] += 1
        client.on_forgotten[record.tunnel_id] = lambda: self._end(tunnel)
        # Not cancelled with the question: its client asks it again over its next connection.
        tunnel.opened = self._tasks.start(self._listen(tunnel))
        return await asyncio.shield(tunnel.opened)

    def _asking(self, caller: Caller, record: TunnelOpen) -> tuple[Client, Container]:
        """Who asks, and from where."""
        client = caller.client
        if client is None or not client.container_id:
            raise PlatformError(INVALID, "TunnelOpen: only a container has ports to lead to")
        container = self._fleet.containers.get(client.container_id)
        if container is None or container.is_stopped:
            message = "a template of containers has no ports, and neither has a container that has ended"
            raise PlatformError(INVALID, f"TunnelOpen: {message}; ask in what runs for an input")
        if container.spec.is_network_blocked:
            what = f"{container.spec.name} has block_network=True, and a tunnel would be a network"
            raise PlatformError(INVALID, f"TunnelOpen: {what}; leave one of the two out")
        if not is_id(record.tunnel_id, "tu"):
            raise PlatformError(INVALID, f"TunnelOpen: {record.tunnel_id[:80]!r} is no id of a tunnel")
        if not 1 <= record.port <= 65_535:
            raise PlatformError(INVALID, f"TunnelOpen: port {record.port}: a port is from 1 to 65535")
        if self.entries is None:
            raise PlatformError(INVALID, "TunnelOpen: this server has no tunnels; see SQUALL_TUNNEL_PORTS")
        if record.is_unencrypted and self.entries.why_no_plain:
            raise PlatformError(INVALID, f"TunnelOpen: unencrypted: {self.entries.why_no_plain}")
        return client, container

    async def _listen(self, tunnel: _Tunnel) -> TunnelOpened:
        try:
            opened = await self._listening(tunnel, tunnel.asked)
            if tunnel.is_closed:
                raise PlatformError(CONFLICT, "TunnelOpen: it was closed while it was opened")
        except BaseException:
            self._end(tunnel)
            raise
        return opened

    async def _listening(self, tunnel: _Tunnel, asked: TunnelOpen) -> TunnelOpened:
        entries = self.entries
        assert entries is not None, "looked at before"

        async def connect() -> PortStream:
            return await self._open_port(tunnel.container, asked.port)

        async def listen(*, is_tls: bool, wanted_port: int) -> TunnelEntry:
            entry = await entries.listen(connect, is_tls=is_tls, is_h2=asked.is_h2, wanted_port=wanted_port)
            tunnel.entries.append(entry)
            return entry

        entry = await listen(is_tls=entries.has_tls, wanted_port=asked.wanted_port)
        opened = TunnelOpened(entry.host, entry.port, entries.has_tls)
        if asked.is_unencrypted:
            if entries.has_tls:
                entry = await listen(is_tls=False, wanted_port=asked.wanted_unencrypted_port)
            opened = replace(opened, unencrypted_host=entry.host, unencrypted_port=entry.port)
        return opened

    async def close(self, caller: Caller, record: TunnelClose) -> Empty:
        """See `TunnelClose`."""
        tunnel = self._tunnels.get(record.tunnel_id)
        if tunnel is not None and tunnel.client is caller.client:
            self._end(tunnel)
        return Empty()

    def _end(self, tunnel: _Tunnel) -> None:
        tunnel_id = tunnel.asked.tunnel_id
        # Also one whose ports come only now.
        for entry in tunnel.entries:
            entry.close()
        if tunnel.is_closed:
            return
        tunnel.is_closed = True
        tunnel.client.on_forgotten.pop(tunnel_id, None)
        del self._tunnels[tunnel_id]
        self._counts[tunnel.container] -= 1
        if not self._counts[tunnel.container]:
            del self._counts[tunnel.container]

    def close_all(self) -> None:
        """Listen nowhere any more."""
        for tunnel in list(self._tunnels.values()):
            self._end(tunnel)


def _kind(asked: TunnelOpen) -> TunnelOpen:
    return replace(asked, wanted_port=0, wanted_unencrypted_port=0)
