"""What can be set about the control plane. Read by `main` from its own configuration; nothing here reads anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Limits and times of a control plane; every default is what a single machine wants."""

    server_id: str = ""
    """Empty: a new one is made."""
    url: str = ""
    web_domain: str = "localhost"
    """What comes behind the labels of web functions; with a scheme, and maybe a port, where something stands before
    this server."""
    data_dir: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What was set in its environment, by variable, to be told to whoever asks."""
    app_grace_s: float = 10.0
    """How long an ephemeral app outlives its client's connection."""
    restart_grace_s: float = 30.0
    """The same after a restart of the server: its clients first have to notice, and one of them starts the next one."""
    call_grace_s: float = 120.0
    """How long the calls of a client that is gone are kept for its return."""
    queued_inputs_max: int = 25_000
    """Of one function; inputs over it fail with `exhausted`."""
    spawned_inputs_max: int = 1_000_000
    """The same for durable calls, which have no client to hold their inputs back."""
    queued_bytes_max: int = 2 * 2**30
    """Of all values that wait in memory, over all functions."""
    kept_bytes_max: int = 512 * 2**20
    """Of outputs and items that clients have not read yet or may have to hear again; more goes to the blob store."""
    app_blob_bytes_max: int = 64 * 2**30
    """Of blobs that the containers of one app have put and that are still there."""
    heartbeat_timeout_s: float = 60.0
    """A guest silent for longer is dead."""
    node_grace_s: float = 20.0
    """How long the containers of a node that is gone are kept for its return."""
    stop_timeout_s: float = 15.0
    """How long stopping an app waits for its containers to be gone, beside the time that their exit hooks have."""
    cancel_grace_s: float = 2.0
    """How long an input that was cancelled or ran out of time may take to end before its container is killed."""
    drain_grace_s: float = 30.0
    """How long a container that is no longer needed may take to exit by itself."""
    containers_per_node_max: int = 400
    failed_input_bytes_max: int = 256 * 2**20
    """Of arguments kept of inputs that failed, for a replay; 0 keeps none."""
    results_kept_s: float = 7 * 24 * 3600.0
    stopped_containers_max: int = 1_000
    """Containers remembered after they have ended."""
