"""What an agent is told when it starts; `main` reads it from the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from squall.protocol.guest import LIBRARY_DIR

AUTO, PLAIN, FORK, PARKED, RESTORE = "auto", "plain", "fork", "parked", "restore"
START_PATHS = (AUTO, PLAIN, FORK, PARKED, RESTORE)
WAITING_PATHS = (FORK, PARKED, RESTORE)
"""With these each start waits for a template."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything that differs between agents."""

    data_dir: Path
    node_id: str
    cpu_milli: int
    memory_mib: int
    hostname: str = ""
    pythons: tuple[str, ...] = ()
    """Versions that a base image can be had for on this node."""
    default_memory_limit_mib: int | None = None
    """Of containers that ask for no limit; None means three quarters of the node's memory."""
    guest_entry: str = f"{LIBRARY_DIR}/squall/guest/__main__.py"
    """What a container's Python is started with, as seen inside."""
    report_period_s: float = 5.0
    reconnect_s_max: float = 5.0
    """Pause between two attempts to reach the server, at most."""
    mounts_bytes_max: int = 8 * 2**30
    """Laid out user files that no container uses are dropped, oldest first, to stay below."""

    start_path: str = AUTO
    """How containers are started: `auto` is the shortest path there is. `plain` makes no templates. With `fork` and
    `parked` each start waits for a template, of the image where the function wants none, and forks it, or waits for a
    parked clone; with `restore` all containers are under gVisor, and what was saved of such a template is restored. For
    tests."""
    template_memory_mib: int | None = None
    """What templates and all that is made ahead may occupy; None means a quarter of the node's memory."""
    template_disk_mib: int = 0
    """What saved templates may occupy on the disk; 0: none is saved."""
    blob_dir: Path | None = None
    """Of a server on this machine, whose blobs are files: what the node needs of them is read there."""

    @property
    def containers_dir(self) -> Path:
        """One directory for each container."""
        return self.data_dir / "containers"
