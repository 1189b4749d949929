"""One container of a function, as its agent knows it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from squall.agent.outfit import Outfit
from squall.agent.record import ContainerRecord
from squall.protocol.node import PATH_PLAIN, ContainerStarted
from squall.runtime.spec import ExitStatus


@dataclass(slots=True)
class Container:
    """From the request for it to the last trace of it."""

    outfit: Outfit
    started: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its start has ended, well or not."""
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when somebody has asked for its end."""
    removed: asyncio.Event = field(default_factory=asyncio.Event)
    is_running: bool = False
    has_exited: bool = False
    pid: int = 0
    bucket_pids: Sequence[int] = ()
    """Of the programs that serve its buckets."""
    over_disk: str = ""
    """Why it was ended for what it wrote."""
    phase_ms: dict[str, float] = field(default_factory=dict)
    path: str = PATH_PLAIN
    cause: str = ""
    """Why it took a longer path than it might have."""
    has_snapshot: bool = False
    """It began with what its function had loaded."""
    started_at: float = 0.0
    """By the monotonic clock."""
    early_exit: tuple[str, ExitStatus] | None = None
    """The end of something that was to become it, told before its start was over: by the runtime's id."""

    @property
    def record(self) -> ContainerRecord:
        """What is written down about it."""
        return self.outfit.record

    @property
    def container_id(self) -> str:
        """Its id."""
        return self.record.container_id

    def how_it_started(self) -> ContainerStarted:
        """As its server is told."""
        return ContainerStarted(dict(self.phase_ms), self.path, self.cause, self.has_snapshot)

    @property
    def runtime_id(self) -> str:
        """What the runtime calls it."""
        return self.outfit.runtime_id
