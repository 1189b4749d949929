"""Connections to a port inside a container: a stream between server and agent carries the bytes of each.

    server                                   agent
      NodePort (container, port) ──────────▶  connects inside the container
      ◀────────────────── PortOutput (the first: it is connected)
      PortInput (bytes, or their end) ─────▶
      ◀────────────────── PortOutput (bytes, or their end)
      ◀──▶ how many bytes of the other's were passed on, with either

The stream ends when both sides have ended; given up, the connection is reset. Neither side sends more than
`WINDOW_BYTES` that the other has not passed on.
"""

from __future__ import annotations

from squall.protocol.records import record

WINDOW_BYTES = 2**20
CONNECT_S = 5.0
CONNECTIONS_MAX = 4_096
"""Of one container at a time."""


@record
class NodePort:
    """Connect to a port of a container. Errors: `not_found` when it does not run here, `unavailable` when nothing
    listens there, `exhausted` when it has too many connections."""

    container_id: str
    port: int


@record
class PortInput:
    """Bytes for the program, in the body."""

    is_end: bool = False
    """Nothing more follows."""
    passed_bytes: int = 0
    """So many more bytes of the program have gone on."""


@record
class PortOutput:
    """Bytes of the program, in the body."""

    is_end: bool = False
    """Nothing more follows."""
    passed_bytes: int = 0
    """So many more bytes have gone to the program."""
