"""By which path a container comes to be: the shortest one first, and the plain one when all others fail.

    parked   a clone of its template waits already, and is told who it is
    fork     its template is forked, into a cell that was made ahead or one that is made now
    restore  what was saved of its template is read into a new sandbox, where nothing can be forked
    plain    its program is executed

What fails on the way is cleared away beside the next attempt, under an id of its own, so that no end of one is taken
for an end of the other.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from squall.agent.config import FORK, PARKED, AgentConfig
from squall.agent.container import Container
from squall.agent.launch import Identity, container_spec, isolation_of
from squall.agent.outfit import Outfit, Outfits
from squall.agent.phases import Phases
from squall.agent.template.cells import FAILURES
from squall.agent.template.reserve import Cell
from squall.agent.template.template import Template
from squall.agent.template.templates import SHORT_S, Templates
from squall.agent.template.verdicts import printable
from squall.agent.template.way import Way
from squall.protocol.function import GVISOR
from squall.protocol.node import PATH_FORK, PATH_PARKED, PATH_PLAIN, PATH_RESTORE, ContainerStart
from squall.protocol.records import replace
from squall.protocol.task_set import TaskSet
from squall.protocol.template import FUNCTION
from squall.runtime.contract import Runtime, Started

_LATE = "it was not done in time"


@dataclass(frozen=True, slots=True)
class _Start:
    """One that is under way, and what it might be a fork of."""

    container: Container
    template: Template
    request: ContainerStart
    token: str
    clock: Phases
    until: float
    """By the monotonic clock: only the plain path takes longer."""


class Starts:
    """Starts containers.

    Args:
        wear: told before a container gets another outfit than the one that it has.
        tasks: what a failed attempt has is given back there.
    """

    def __init__(
        self,
        config: AgentConfig,
        runtime: Runtime,
        outfits: Outfits,
        templates: Templates,
        wear: Callable[[Container, Outfit], None],
        tasks: TaskSet,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._runtime = runtime
        self._outfits = outfits
        self._templates = templates
        self._cells = templates.cells
        self._wear = wear
        self._tasks = tasks
        self._monotonic = monotonic

    async def make(self, container: Container, request: ContainerStart, token: str, claimed_mib: int) -> Started:
        """Start a container; what it has when this fails is to be given back.

        Args:
            claimed_mib: what all other containers of the node have reserved.

        Raises:
            PlatformError, RuntimeFailure, OSError: it cannot be started plainly either.
        """
        clock = Phases()
        container.phase_ms = clock.ms
        request = replace(request, isolation=isolation_of(self._config, request))
        with self._outfits.volumes.holding() as volumes, self._templates.starting():
            if request.volumes:
                # On any path, and however long it takes.
                await volumes.fetch(request.volumes)
                clock.mark("volumes")
            until = self._monotonic() + SHORT_S
            way = await self._templates.way(request, until)
            if way.is_asked_for:
                clock.mark(way.waited or "template")
            if way.template is not None and request.volumes:
                request = replace(request, volumes=way.template.at_least(request.volumes))
                await volumes.fetch(request.volumes)
                clock.mark("volumes")
            self._templates.make_room(request.resources.memory_mib or 0, claimed_mib, way.template)
            started = None
            if way.template is not None:
                started = await self._shortly(_Start(container, way.template, request, token, clock, until), way)
            if started is None:
                started = await self._plainly(container, way, request, token, clock)
        clock.mark("runtime")
        clock.ms.update({f"runtime_{name}": took for name, took in started.phase_ms.items()})
        return started

    async def _shortly(self, start: _Start, way: Way) -> Started | None:
        """Start it from its template; None when no way to do that has worked."""
        container, template, plain = start.container, start.template, start.container.outfit
        causes = [way.cause] if way.cause else []
        for path, attempt in self._attempts(template):
            # What is left of the time, and not more for each attempt.
            began_at = self._monotonic()
            left_s = start.until - began_at
            if left_s <= 0:
                container.cause = container.cause or _failed(template, _LATE)
            if left_s <= 0 or not template.is_ready:
                break
            try:
                async with asyncio.timeout(left_s):
                    started = await attempt(start)
            except FAILURES as error:
                start.clock.mark(f"failed_{path}")
                why = str(error) or _LATE
                causes.append(f"the path {path!r} was attempted before: {why}")
                container.cause = _failed(template, why)
                self._take_off(container, template, plain, error)
                self._templates.failed(template, error, began_at)
                continue
            if started is not None:
                container.path, container.cause = path, printable("; ".join(causes))
                container.has_snapshot = template.kind == FUNCTION
                return started
        return None

    def _attempts(self, template: Template) -> tuple[tuple[str, Callable[[_Start], Awaitable[Started | None]]], ...]:
        """The shortest path first."""
        if template.is_saved:
            return ((PATH_RESTORE, self._fork),)
        cell, fork = (PATH_FORK, self._in_cell), (PATH_FORK, self._fork)
        if self._config.start_path == FORK:
            return cell, fork
        if self._config.start_path == PARKED:
            return ((PATH_PARKED, self._park_and_begin),)
        return (PATH_PARKED, self._parked), cell, fork

    async def _parked(self, start: _Start) -> Started | None:
        cell = self._templates.take_parked(start.template, start.request)
        return None if cell is None else await self._begin(start, cell)

    async def _in_cell(self, start: _Start) -> Started | None:
        cell = self._templates.take_cell(start.template, start.request)
        return None if cell is None else await self._begin(start, cell)

    async def _park_and_begin(self, start: _Start) -> Started | None:
        cell = self._templates.take_parked(start.template, start.request)
        if cell is None:
            reserve = self._templates.reserve_of(start.template, start.request)
            cell = await self._cells.make(reserve, is_parked=True)
        return await self._begin(start, cell)

    async def _begin(self, start: _Start, cell: Cell) -> Started:
        record = start.container.record
        self._put_on(start, cell.outfit)
        return await self._cells.begin(cell, record, start.request, start.token)

    async def _fork(self, start: _Start) -> Started | None:
        outfit = self._cells.outfit(start.template, start.container.record)
        self._put_on(start, outfit)
        return await self._cells.fork(start.template, outfit, start.request, start.token, start.clock)

    async def _plainly(
        self, container: Container, way: Way, request: ContainerStart, token: str, clock: Phases
    ) -> Started:
        outfit = container.outfit
        container.path, container.cause = PATH_PLAIN, container.cause or way.cause
        if way.wanted is not None:
            outfit.on_guest = functools.partial(self._templates.has_got_going, way.wanted)
        if request.is_plain:
            outfit.on_output = functools.partial(self._templates.plain_served, request.function_id)
        image, provision = await self._outfits.take(outfit, request, clock)
        spec = container_spec(self._config, request, image, provision, Identity(container.container_id, token))
        if request.isolation == GVISOR:
            # The kernel knows those of runsc.
            outfit.env, outfit.cwd = spec.env, spec.cwd
        return await self._runtime.start(spec)

    def _put_on(self, start: _Start, outfit: Outfit) -> None:
        """From here on the container has this, and its template a clone."""
        self._wear(start.container, outfit)
        template_id, function_id = start.template.template_id, start.request.function_id
        self._templates.clone_began(template_id, outfit.runtime_id)
        outfit.on_guest = functools.partial(self._templates.clone_came, template_id)
        outfit.on_output = functools.partial(self._templates.clone_served, template_id, function_id)

    def _take_off(self, container: Container, template: Template, plain: Outfit, error: BaseException) -> None:
        """The attempt has failed: what it has goes, and the container has nothing again."""
        failed = container.outfit
        if failed is plain:
            return
        self._wear(container, plain)
        self._templates.clone_gone(template.template_id, failed.runtime_id)
        self._tasks.start(self._outfits.give_back(failed, error))


def _failed(template: Template, why: str) -> str:
    return printable(f"it could not be {'restored' if template.is_saved else 'forked'}: {why}")
