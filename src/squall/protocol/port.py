"""Connections to a port inside a container: a stream between server and agent carries the bytes of each.

    server                                   agent
      NodePort (container, port) ──────────▶  connects inside the container
      ◀────────────────── PortOutput (the first: it is connected)
      PortInput (bytes, or their end) ─────▶
      ◀────────────────── PortOutput (bytes; how many of ours were written)

The stream ends when the program inside has closed its side. Given up, the connection is reset. The server sends no more
than `WINDOW_BYTES` that were not written; the agent no more than a stream's credit (`codec.STREAM_WINDOW` items).
"""

from __future__ import annotations

from squall.protocol.records import record

WINDOW_BYTES = 2**20
CHUNK_BYTES_MAX = 64 * 1024
"""Of one `PortOutput`, so that what is under way of one connection is a few megabytes at most."""
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
    """Bytes for the program, in the body; or their end."""

    is_end: bool = False


@record
class PortOutput:
    """Bytes of the program, in the body; and how many more bytes it was given."""

    written_bytes: int = 0
