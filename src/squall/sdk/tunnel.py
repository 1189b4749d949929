"""Tunnels: addresses of the server that lead to a port of the container that asks for them."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from squall import exception
from squall.exception import Error, InvalidError
from squall.protocol.empty import Empty
from squall.protocol.ids import new_id
from squall.protocol.records import replace
from squall.protocol.tunnel import TunnelClose, TunnelOpen, TunnelOpened
from squall.sdk import _container
from squall.sdk._asset import client_of
from squall.sdk._facade import ContextCall
from squall.sdk._pending import Pending
from squall.sdk._value_text import value_text

if TYPE_CHECKING:
    from typing import Any

    from squall.sdk._client import Client


@dataclass(frozen=True)
class Tunnel:
    """Where a port of a container is found."""

    host: str
    port: int
    unencrypted_host: str
    """Empty where `unencrypted=True` was not said."""
    unencrypted_port: int
    _is_tls: bool = field(default=True, repr=False, compare=False, kw_only=True)

    @property
    def url(self) -> str:
        """For clients that speak HTTP: `https://…`, or `http://…` on a server that has no certificate."""
        scheme, usual = ("https", 443) if self._is_tls else ("http", 80)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}" + ("" if self.port == usual else f":{self.port}")

    @property
    def tls_socket(self) -> tuple[str, int]:
        """Host and port, for clients that speak TLS.

        Raises:
            InvalidError: the server has no certificate; `url`, or `host` and `port`, lead there without TLS.
        """
        if not self._is_tls:
            raise InvalidError(
                "this tunnel is without TLS: the server has no certificate (SQUALL_TLS_CERT); use .url, or .host and"
                " .port, as they are"
            )
        return self.host, self.port

    @property
    def tcp_socket(self) -> tuple[str, int]:
        """Host and port, for clients that speak no TLS.

        Raises:
            InvalidError: it was made without `unencrypted=True`.
        """
        if not self.unencrypted_host:
            raise InvalidError("this tunnel has no unencrypted address; say forward(port, unencrypted=True)")
        return self.unencrypted_host, self.unencrypted_port


class _Held:
    """A tunnel that is asked for again over each new connection: its server may be another one, which knows it not."""

    def __init__(self, client: Client, record: TunnelOpen) -> None:
        self._client = client
        self.record = record

    def opened(self, opened: TunnelOpened) -> None:
        """These ports are wanted again."""
        self.record = replace(
            self.record, wanted_port=opened.port, wanted_unencrypted_port=opened.unencrypted_port
        )  # fmt: skip

    def again(self) -> None:
        """Ask, and wait for nothing: in the thread that keeps the connection."""
        pending = self._client.ask("TunnelOpen", self.record)
        before = self.record
        pending.add_callback(lambda: self._came(pending, before))

    def _came(self, pending: Pending[Any], before: TunnelOpen) -> None:
        port = before.port
        try:
            opened = self._client.codec.record(TunnelOpened, pending.result()[0])
        except Error as error:
            _tell(f"the tunnel to port {port} is gone, and could not be opened again: {error}")
            return
        self.opened(opened)
        if before.wanted_port not in (0, opened.port):
            _tell(f"the tunnel to port {port} was opened again, and is now at {opened.host}:{opened.port}")


def _tell(text: str) -> None:
    # Nobody waits for it, and nothing may be raised where it is noticed.
    with suppress(Exception):
        sys.stderr.write(f"squall: {text}\n")


async def _forward(
    port: int, *, unencrypted: bool = False, h2_enabled: bool = False, client: Client | None = None
) -> AsyncGenerator[Tunnel, None]:
    """While the block runs, an address of the server leads to a port of this container.

    Args:
        port: where something listens in this container, now or later.
        unencrypted: also give it an address without TLS.
        h2_enabled: offer HTTP/2 to clients; what listens at the port must speak it, without TLS.

    Raises:
        InvalidError: this is no container, there is no such port, or this server has no tunnels.
        ResourceExhaustedError: this container has too many tunnels.
    """
    state = _container.current()
    if state is None or state.is_build_step:
        raise InvalidError("forward() outside a container: it leads to ports of containers, from inside them")
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65_535:
        raise InvalidError(f"forward({value_text(port)}): a port is a number from 1 to 65535")
    known = client_of(client)
    await known.connect()
    held = _Held(known, TunnelOpen(new_id("tu"), port, bool(unencrypted), bool(h2_enabled)))
    tunnel_id = held.record.tunnel_id
    known.hold(tunnel_id, held.again)
    try:
        opened = await known.request("TunnelOpen", held.record, TunnelOpened)
        held.opened(opened)
        yield Tunnel(
            opened.host, opened.port, opened.unencrypted_host, opened.unencrypted_port, _is_tls=opened.is_tls
        )  # fmt: skip
    finally:
        known.let_go(tunnel_id)
        # Without a server there is none any more; that must not hide what the block has raised.
        with suppress(exception.ConnectionError):
            await known.request("TunnelClose", TunnelClose(tunnel_id), Empty)


forward = ContextCall(_forward, "forward")
