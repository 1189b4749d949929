"""Keeps cells and parked clones ready, out of the way of starts that are under way.

Each template wants so many of both as its demand says (`demand.py`); all of a node have at most `CELLS_NODE_MAX` and
`PARKED_NODE_MAX`. What is wanted is made a few at a time while no container starts. What is not wanted any more goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from squall.agent.template.cells import FAILURES, Cells
from squall.agent.template.demand import Targets
from squall.agent.template.reserve import Reserve
from squall.agent.template.template import Template
from squall.runtime.contract import Runtime
from squall.runtime.errors import RuntimeFailure, TemplateUnfit

CELLS_NODE_MAX = 400
PARKED_NODE_MAX = 64
AT_ONCE = 2
"""Made at a time."""
CALM_S = 0.1
"""After a start, until something is made ahead: what was started is on its way to its first input, and needs the
processors more."""
QUIET_S = 1.0
"""How long they wait for a moment without starts: where there is none, they are made all the same."""
REST_S = 5.0
"""After making one for a template has failed, or one that was made has ended before a container began in it; then twice
as long each time, until one has."""
REST_S_MAX = 320.0
UPKEEP_S = 5.0
SURPLUS_S = 10.0
"""One that is not wanted any more stays for so long: demand comes in waves."""
MEASURED_AT_ONCE = 16

_NOTHING = Targets(cell_count=0, parked_count=0)

_log = logging.getLogger("squall.agent.template")


class Pools:
    """Fills and empties what templates have ready. `run` must be awaited by its owner.

    Args:
        failed: told of a template whose cell could not be made.
        is_parking: False: no clones are made ahead, only cells; no start would take one.
    """

    def __init__(
        self,
        cells: Cells,
        runtime: Runtime,
        monotonic: Callable[[], float],
        failed: Callable[[Template, BaseException, float], None],
        *,
        is_parking: bool = True,
    ) -> None:
        self._cells = cells
        self._is_parking = is_parking
        self._runtime = runtime
        self._monotonic = monotonic
        self._failed = failed
        self._start_count = 0
        self._calm_at = float("-inf")
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()
        self._has_work = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._measured = 0

    @property
    def is_busy(self) -> bool:
        """Containers are starting now."""
        return self._start_count > 0

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """While a container starts."""
        self._start_count += 1
        self._is_quiet.clear()
        try:
            yield
        finally:
            self._start_count -= 1
            if not self._start_count:
                self._calm_at = self._monotonic() + CALM_S
                self._is_quiet.set()
            self.wake()

    def rest(self, template: Template) -> None:
        """What was made ahead of a template does not stay: make nothing more for a while, in which others have theirs.

        It would be made again at once else, for as long as the template is the one used last.
        """
        now = self._monotonic()
        if template.pools_rest_until <= now:
            template.pools_rest_until = now + min(REST_S * 2**template.rest_count, REST_S_MAX)
            template.rest_count = min(template.rest_count + 1, 10)

    def wake(self) -> None:
        """Something may be wanted."""
        self._has_work.set()

    async def run(self, templates: Callable[[], Sequence[Template]], keep_within: Callable[[], None]) -> None:
        """Fill for ever, and look after what there is every `UPKEEP_S`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fill_for_ever(templates))
            group.create_task(self._look_after(templates, keep_within))

    async def _fill_for_ever(self, templates: Callable[[], Sequence[Template]]) -> None:
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            while wanted := self.wanted(templates()):
                with contextlib.suppress(TimeoutError):
                    # Not wait_for: that of Python 3.11 takes no notice of a cancellation that comes with its result.
                    async with asyncio.timeout(QUIET_S):
                        await self.calm()
                self._is_idle.clear()
                try:
                    async with asyncio.TaskGroup() as group:
                        for one, is_parked in wanted:
                            if one.is_current:
                                group.create_task(self._fill(one, is_parked=is_parked))
                finally:
                    self._is_idle.set()

    async def idle(self) -> None:
        """Return when nothing is being made."""
        await self._is_idle.wait()

    async def calm(self) -> None:
        """Return when no container starts, and none has done so a moment ago."""
        await self._is_quiet.wait()
        while (left_s := self._calm_at - self._monotonic()) > 0:
            await asyncio.sleep(left_s)
            await self._is_quiet.wait()

    def wanted(self, templates: Sequence[Template]) -> list[tuple[Reserve, bool]]:
        """What to make next, `AT_ONCE` at most: for what, and whether it is to be parked.

        Clones come before cells, and those of templates that were used last before those of others. No template has
        more than half of what the others leave of a node: one burst would keep all others without for minutes.
        """
        now = self._monotonic()
        ready = [
            (reserve, self._targets(reserve, now))
            for one in templates
            if one.is_ready and one.pools_rest_until <= now
            for reserve in one.reserves.values()
        ]
        # Most of them have all: this is asked after each start.
        wanted = [(one, targets) for one, targets in ready if _lacks(one, targets)]
        wanted.sort(key=lambda one: (-one[0].template.used_at, -one[0].demand.last_at))
        parked = Counter({one.template_id: one.parked_count for one in templates} if wanted else {})
        cells = Counter({one.template_id: one.cell_count for one in templates} if wanted else {})
        found: list[tuple[Reserve, bool]] = []
        for one, targets in wanted:
            missing = min(targets.parked_count - len(one.parked), _share(one, parked, PARKED_NODE_MAX))
            found += [(one, True)] * max(0, missing)
            parked[one.template.template_id] += max(0, missing)
        for one, targets in wanted:
            if len(found) >= AT_ONCE:
                break
            missing = min(targets.cell_count - len(one.cells), _share(one, cells, CELLS_NODE_MAX))
            found += [(one, False)] * max(0, missing)
            cells[one.template.template_id] += max(0, missing)
        return found[:AT_ONCE]

    def _targets(self, reserve: Reserve, now: float) -> Targets:
        targets = reserve.targets(now)
        return targets if self._is_parking else replace(targets, parked_count=0)

    async def _fill(self, reserve: Reserve, *, is_parked: bool) -> None:
        template, began_at = reserve.template, self._monotonic()
        cell = reserve.take_cell() if is_parked else None
        try:
            if cell is None:
                cell = await self._cells.make(reserve, is_parked=is_parked)
            else:
                await self._cells.park(cell, reserve)
        except FAILURES as error:
            # It may rest for longer already.
            template.pools_rest_until = max(template.pools_rest_until, self._monotonic() + REST_S)
            if cell is not None:
                await self._cells.discard(cell, error)
            if isinstance(error, TemplateUnfit):
                self._failed(template, error, began_at)
            else:
                _log.warning("%s: nothing can be made ahead: %s", template.template_id, error)
            return
        except BaseException as error:
            # Cancelled, for what another one has met: nobody else knows of it any more.
            if cell is not None:
                await self._cells.discard(cell, error)
            raise
        if reserve.is_current:
            reserve.put(cell)
        else:
            # Its template was dropped meanwhile, or its function is another one.
            await self._cells.discard(cell)

    # Upkeep

    async def _look_after(self, templates: Callable[[], Sequence[Template]], keep_within: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(UPKEEP_S)
            await self.upkeep(templates())
            keep_within()
            self.wake()

    async def upkeep(self, templates: Sequence[Template]) -> None:
        """Throw away what is not wanted any more, and measure some of what there is."""
        now = self._monotonic()
        for reserve in [reserve for template in templates for reserve in template.reserves.values()]:
            targets = self._targets(reserve, now)
            for waiting, take, count in (
                (reserve.cells, reserve.take_cell, targets.cell_count),
                (reserve.parked, reserve.take_parked, targets.parked_count),
            ):
                while len(waiting) > count and now - waiting[0].since > SURPLUS_S and (cell := take()) is not None:
                    await self._cells.discard(cell)
            if reserve.is_current and targets == _NOTHING and not (reserve.cells or reserve.parked):
                # Nobody has started the function for long: it is not gone through after each start of others.
                del reserve.template.reserves[reserve.request.function_id]
        ready = [template for template in templates if template.is_ready or template.is_held]
        first = self._measured % len(ready) if ready else 0
        self._measured = first + MEASURED_AT_ONCE
        await asyncio.gather(*(self._measure(one) for one in (ready[first:] + ready[:first])[:MEASURED_AT_ONCE]))

    async def _measure(self, template: Template) -> None:
        try:
            template.memory_bytes = (await self._runtime.usage(template.template_id)).memory_bytes
            for reserve in list(template.reserves.values()):
                for cell in list(reserve.parked):
                    reserve.measured(cell, (await self._runtime.usage(cell.cell_id)).memory_bytes)
        except RuntimeFailure as error:
            _log.debug("%s: cannot be measured: %s", template.template_id, error)


def _lacks(reserve: Reserve, targets: Targets) -> bool:
    """Fewer are ready than are to be."""
    return len(reserve.parked) < targets.parked_count or len(reserve.cells) < targets.cell_count


def _share(reserve: Reserve, held: Counter[str], node_max: int) -> int:
    """How many more its template may have."""
    own = held[reserve.template.template_id]
    return (node_max - held.total() - own + 1) // 2
