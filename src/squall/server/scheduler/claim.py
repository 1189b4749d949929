"""What is asked for: containers that need a node, and how much of one."""

from __future__ import annotations

from dataclasses import dataclass

MEMORY_FLOOR_MIB = 32


@dataclass(frozen=True, slots=True)
class Claim:
    """What a container reserves."""

    cpu_milli: int = 0
    memory_mib: int = MEMORY_FLOOR_MIB

    @property
    def weight(self) -> int:
        """What it adds to a share: a container counts as one, and as one more for each core and each GiB."""
        return 1_000 + self.cpu_milli + self.memory_mib


@dataclass(frozen=True, slots=True)
class Pending:
    """A container that needs a node."""

    container_id: str
    function_id: str
    image_id: str
    claim: Claim
    app_id: str = ""
    """Whose share it counts for: the app that was made outside containers."""
    asked_at: float = 0.0
    """Monotonic."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One container on one node."""

    container_id: str
    node_id: str
