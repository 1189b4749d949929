"""Greeting, and the server itself."""

from __future__ import annotations

from squall.protocol.records import field, record


@record
class Hello:
    """The first request on a client's channel."""

    version: str
    protocol_version: int
    client_id: str
    """Made by the client once per process; the same after a reconnect, so that its calls find it again."""
    python_version: str = ""
    token: str = ""


@record
class Welcome:
    """The server's answer to `Hello`."""

    version: str
    protocol_version: int
    server_id: str
    """New each time the server starts: a client that sees another one resends what it still waits for."""
    url: str = ""
    is_idle: bool = False
    """Nothing runs, is deployed or connected: a client of another version may replace this server."""


@record
class ServerStatusRequest:
    """Ask how the server is."""


@record
class ServerStatus:
    """How the server is."""

    server_id: str
    version: str
    pid: int
    url: str
    data_dir: str
    uptime_s: float
    app_count: int
    container_count: int
    client_count: int
    node_count: int
    memory_bytes: int
    dropped_inputs: int = 0
    """Arguments of inputs that failed which were not kept since it started: too large, or too many at once."""
    dropped_calls: int = 0
    """Calls with failures that were forgotten before the store took what became of them, since it started."""
    template_memory_mib: int = 0
    """What templates hold on all nodes, as these said last; containers get what none of them shares when they
    need it."""
    settings: dict[str, str] = field(default_factory=dict)
    """What its environment sets, by variable, as it is written there but for passwords."""


@record
class ServerStop:
    """Stop the server. Without `is_forced` it is refused while apps run."""

    is_forced: bool = False
