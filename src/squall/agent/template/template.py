"""One template, with what is ready to be begun from it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from squall.agent.outfit import Outfit
from squall.agent.template.reserve import Cell, Reserve
from squall.agent.template.user import TemplateUser
from squall.protocol.function import GVISOR
from squall.protocol.node import ContainerStart
from squall.protocol.records import replace
from squall.protocol.template import FUNCTION, MAKING, READY, NodeTemplate
from squall.protocol.volume import VolumeStart, VolumeVersion

TOLD_S = 1.0
"""How long after its end it is told how it was."""
_MIB = 2**20


@dataclass(slots=True, eq=False)
class Template:
    """From the first start that wants it to the last of its clones."""

    outfit: Outfit
    key: str
    kind: str
    request: ContainerStart
    """A start that it was made for. Its environment is not known after a restart, nor needed."""
    made_at: float
    """Seconds since 1970."""
    used_at: float
    """The same, when a container was last started from it."""
    state: str = MAKING
    cause: str = ""
    """Why it is unfit or dropped."""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is not being made any more."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nothing of it is left."""
    making: asyncio.Future[None] | None = None
    """What makes it, or asks it what it is after a restart."""
    is_up: bool = False
    """The runtime has it."""
    has_exited: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it has ended while it was made."""
    ended_how: str = ""
    """Then, in words."""
    pid: int = 0
    memory_bytes: int = 0
    reserves: dict[str, Reserve] = field(default_factory=dict)
    """What is ready, by function."""
    ahead: dict[str, Reserve] = field(default_factory=dict)
    """The same, by the ids of cells."""
    ahead_bytes: int = 0
    """What all that is ready occupies: a running total, since each start asks for it."""
    users: dict[str, TemplateUser] = field(default_factory=dict)
    """Functions whose containers are started from it, those used last come last; none once it is on its way out."""
    clones: set[str] = field(default_factory=set)
    """Containers that run and are forks of it, by the runtime's ids."""
    unfit_fork_count: int = 0
    """Forks that came to nothing by its fault, one after the other."""
    failed_at: float = float("-inf")
    """By the monotonic clock: when the last of them did."""
    crash_counts: dict[str, int] = field(default_factory=dict)
    """Clones that crashed soon after they had begun, none of which has lived for long in between, by function."""
    holds_secrets: bool = True
    """Its environment may: what is the function's own may be one, and nobody says which. It is never put on disk."""
    is_check: bool = False
    """It came from what was saved of another one of its key, to see whether it does, and is of no other use."""
    is_brought_back: bool = False
    """From the disk: it has loaded nothing."""
    versions: dict[str, VolumeVersion] = field(default_factory=dict)
    """By volume, what it had seen of it, and written, when it was ready."""
    family: str = ""
    """What it has in common with those of other variants (`TemplateKeys.family`); not known after a restart."""
    detour: str = ""
    """Why it was made anew, though it was on the disk."""
    pools_rest_until: float = 0.0
    """By the monotonic clock: making cells has failed, or what was made has ended."""
    rest_count: int = 0
    """How often what was made had ended, since a container of it got going."""

    @property
    def template_id(self) -> str:
        """Its id."""
        return self.outfit.record.container_id

    async def why_not_ready(self) -> str:
        """In words, of one that has ended before it was. Of its end may be told later than that there is no report."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TOLD_S):
                await self.ended.wait()
        return "it ended before it was ready" + (f" ({self.ended_how})" if self.ended_how else "")

    def at_least(self, starts: Sequence[VolumeStart]) -> tuple[VolumeStart, ...]:
        """The volumes of a container that is to be forked from it: no older than what it has seen, and written. A start
        that has waited for it was asked for before."""
        return tuple(self._at_least(start) for start in starts)

    def _at_least(self, start: VolumeStart) -> VolumeStart:
        seen = self.versions.get(start.mount.volume_id)
        if seen is None or start.mount.version is not None or seen.number <= start.version:
            return start
        return replace(start, version=seen.number, root=seen.root)

    @property
    def parked_count(self) -> int:
        """How many wait to be told who they are."""
        return sum(len(reserve.parked) for reserve in self.reserves.values())

    @property
    def cell_count(self) -> int:
        """How many are ready to be forked into."""
        return sum(len(reserve.cells) for reserve in self.reserves.values())

    @property
    def cells(self) -> list[Cell]:
        """All that are ready to be forked into."""
        return [cell for reserve in self.reserves.values() for cell in reserve.cells]

    @property
    def parked(self) -> list[Cell]:
        """All that wait to be told who they are."""
        return [cell for reserve in self.reserves.values() for cell in reserve.parked]

    def empty(self) -> list[Cell]:
        """Take out all that is ready."""
        return [cell for reserve in self.reserves.values() for cell in reserve.empty()]

    @property
    def holds_some_of_its_function(self) -> bool:
        """There is code or there are variables in its memory that are its users' own."""
        return self.kind == FUNCTION or self.holds_secrets or bool(self.request.mounts)

    @property
    def is_saved(self) -> bool:
        """Containers are not forked from it: they are restored from what was saved of it, and nothing is made ahead."""
        return self.request.isolation == GVISOR

    @property
    def is_ready(self) -> bool:
        """It can be forked."""
        return self.state == READY

    @property
    def is_held(self) -> bool:
        """Containers that run share its memory: it is not free before they end, whatever becomes of the template."""
        return bool(self.clones) and not self.is_saved

    @property
    def total_bytes(self) -> int:
        """What it occupies, with what is ready for it. Of one that is dropped: what its clones hold."""
        is_there = self.state in (MAKING, READY) or self.is_held
        return self.ahead_bytes + (self.memory_bytes if is_there else 0)

    def told(self, function_id: str = "") -> NodeTemplate:
        """As its server is told of it; with a function, only what is ready for that is."""
        record = self.outfit.record
        reserves = [reserve for name, reserve in self.reserves.items() if function_id in ("", name)]
        return NodeTemplate(
            self.template_id,
            record.app_id,
            record.function_id,
            self.kind,
            self.state,
            self.cause,
            self.total_bytes // _MIB,
            shared_mib=self.memory_bytes // _MIB if self.is_held else 0,
            clone_count=len(self.clones),
            parked_count=sum(len(reserve.parked) for reserve in reserves),
            cell_count=sum(len(reserve.cells) for reserve in reserves),
            made_at=self.made_at,
            used_at=self.used_at,
            is_brought_back=self.is_brought_back,
        )
