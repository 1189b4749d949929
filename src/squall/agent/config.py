"""What an agent is told when it starts; `main` reads it from the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from squall.protocol.guest import LIBRARY_DIR


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

    @property
    def containers_dir(self) -> Path:
        """One directory for each container."""
        return self.data_dir / "containers"
