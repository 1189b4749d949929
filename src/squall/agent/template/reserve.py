"""What a template has ready for the starts of one kind: cells, and clones that wait in them.

A cell is made for a function with its files and resources, so what is ready for one function is of no use to another
that is forked from the same template, nor to the same one once its files have changed.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from squall.agent.launch import Provision
from squall.agent.outfit import Outfit
from squall.agent.template.demand import Demand, Targets
from squall.protocol.image import ImageConfig
from squall.protocol.node import ContainerStart

if TYPE_CHECKING:
    from squall.agent.template.template import Template

CELL_BYTES = 1 * 2**20
PARKED_BYTES = 8 * 2**20
"""What one counts until it is measured."""


@dataclass(slots=True, eq=False)
class Cell:
    """What a clone is to live in, made ahead; with the clone in it when it is parked."""

    outfit: Outfit
    image: ImageConfig
    provision: Provision
    since: float
    """By the monotonic clock."""
    is_parked: bool = False
    memory_bytes: int = CELL_BYTES

    @property
    def cell_id(self) -> str:
        """Its id."""
        return self.outfit.record.cell_id


@dataclass(slots=True, eq=False)
class Reserve:
    """Of one template, for the starts of one function."""

    template: Template
    request: ContainerStart
    """A start that it is for: cells are made as this says."""
    demand: Demand
    cells: collections.deque[Cell] = field(default_factory=collections.deque)
    """Ready to be forked into, the oldest first."""
    parked: collections.deque[Cell] = field(default_factory=collections.deque)
    """Ready to be told who they are, the oldest first. Its template counts both: they change here alone."""

    def fits(self, request: ContainerStart) -> bool:
        """A container of this start may begin in what is ready."""
        return _shape(self.request) == _shape(request)

    @property
    def is_current(self) -> bool:
        """Starts still take from it."""
        return self.template.is_ready and self.template.reserves.get(self.request.function_id) is self

    def targets(self, now: float) -> Targets:
        """How many are to be ready."""
        if self.template.is_saved:
            return Targets(cell_count=0, parked_count=0)
        return self.demand.targets(self.template.kind, now)

    def put(self, cell: Cell) -> None:
        """One more is ready."""
        self.template.ahead[cell.cell_id] = self
        self.template.ahead_bytes += cell.memory_bytes
        (self.parked if cell.is_parked else self.cells).append(cell)

    def take_parked(self) -> Cell | None:
        """The clone that has waited longest, if one does."""
        return self._take(self.parked)

    def take_cell(self) -> Cell | None:
        """The cell that has waited longest, if one does."""
        return self._take(self.cells)

    def _take(self, waiting: collections.deque[Cell]) -> Cell | None:
        return self._left(waiting.popleft()) if waiting else None

    def measured(self, cell: Cell, memory_bytes: int) -> None:
        """One that waits occupies so much; it may be gone by now."""
        if self.template.ahead.get(cell.cell_id) is self:
            self.template.ahead_bytes += memory_bytes - cell.memory_bytes
            cell.memory_bytes = memory_bytes

    def remove(self, cell_id: str) -> Cell | None:
        """Take one out that has ended, if it is one of these."""
        for waiting in (self.parked, self.cells):
            for cell in waiting:
                if cell.cell_id == cell_id:
                    waiting.remove(cell)
                    return self._left(cell)
        return None

    def empty(self) -> list[Cell]:
        """Take all out."""
        ahead = [self._left(cell) for cell in (*self.parked, *self.cells)]
        self.parked.clear()
        self.cells.clear()
        return ahead

    def _left(self, cell: Cell) -> Cell:
        del self.template.ahead[cell.cell_id]
        self.template.ahead_bytes -= cell.memory_bytes
        return cell


def _shape(request: ContainerStart) -> tuple[object, ...]:
    """All that a cell is made by."""
    return (
        request.app_id,
        request.function_id,
        request.image_id,
        request.mounts,
        [start.mount for start in request.volumes],
        request.resources,
        request.is_network_blocked,
        request.isolation,
    )
