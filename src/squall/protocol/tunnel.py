"""Tunnels: addresses of the server that lead to a port of one container, asked for from inside it.

    container                                server
      TunnelOpen (id, port) ───────────────▶  listens at a TCP port of its own
      ◀────────────────────── TunnelOpened (addresses)
      TunnelClose (id) ────────────────────▶  listens no more, and ends what is connected

A tunnel is its client's, in the container where it was asked for, and ends with either. Both questions may be asked
again: after a break, or by the same client of another server, which then has no tunnels. It is given the ports it had,
if they are free.
"""

from __future__ import annotations

from squall.protocol.records import record

TUNNELS_MAX = 32
"""Of one container."""


@record
class TunnelOpen:
    """Lead connections to a port of the container that asks. Errors: `invalid` outside of a container, and where this
    server has none to give; `exhausted` when the container has too many, or no port is free."""

    tunnel_id: str
    """Made by who asks: `tu-…`."""
    port: int
    is_unencrypted: bool = False
    """Also by an address without TLS."""
    is_h2: bool = False
    """HTTP/2 is offered to who connects with TLS, and what listens at the port speaks it without."""
    wanted_port: int = 0
    """The one it had before. 0: any."""
    wanted_unencrypted_port: int = 0


@record
class TunnelOpened:
    """Where it is."""

    host: str
    port: int
    is_tls: bool
    """Who connects there speaks TLS first. Not so where the server has no certificate."""
    unencrypted_host: str = ""
    """Empty: it was not asked for."""
    unencrypted_port: int = 0


@record
class TunnelClose:
    """Close a tunnel, whether there is one or not."""

    tunnel_id: str
