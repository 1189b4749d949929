"""What an agent that begins does with the templates of the one before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from squall.agent.config import PLAIN, AgentConfig
from squall.agent.labels import KIND_LABEL, TEMPLATE_KIND
from squall.agent.outfit import Outfit, Outfits
from squall.agent.record import await_record, read_record
from squall.agent.template.making import Making
from squall.agent.template.record import read_template_record
from squall.agent.template.roster import Roster
from squall.agent.template.template import Template
from squall.protocol.task_set import TaskSet
from squall.protocol.template import FUNCTION
from squall.runtime.contract import Runtime
from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import ContainerStatus

ADOPT_S = 0.1
"""How long an agent that begins waits for what templates say of themselves."""

_log = logging.getLogger("squall.agent.template")


class Adoption:
    """Takes templates over, and knows the clones of those that could not be.

    Args:
        ask: asks one what it is, now or when it is made.
    """

    def __init__(
        self,
        config: AgentConfig,
        runtime: Runtime,
        outfits: Outfits,
        making: Making,
        roster: Roster,
        tasks: TaskSet,
        ask: Callable[[Template], Coroutine[Any, Any, None]],
    ) -> None:
        self._config = config
        self._runtime = runtime
        self._outfits = outfits
        self._making = making
        self._roster = roster
        self._tasks = tasks
        self._ask = ask
        self._unknown: dict[str, set[str]] = {}
        """Clones of templates that could not be taken over: what is left of these goes with the last of those."""

    async def adopt(self, statuses: Sequence[ContainerStatus]) -> set[str]:
        """Take over an earlier agent's templates, all at once; what it had made ahead is removed, and made anew.

        Returns:
            What is seen to here, by the runtime's ids.
        """
        found = [status.container_id for status in statuses if status.labels.get(KIND_LABEL) == TEMPLATE_KIND]
        clones = await self._clones_of([status for status in statuses if not status.is_prepared])
        taken = await asyncio.gather(*(self._adopt_one(one, clones.get(one, set())) for one in found))
        self._tasks.start(self._remove_left([status.container_id for status in statuses if status.is_prepared]))
        templates = [template for template in taken if template is not None]
        waits = [template.making for template in templates if template.making is not None]
        if waits:
            await asyncio.wait(waits, timeout=ADOPT_S)
        if self._config.start_path == PLAIN:
            for template in templates:
                self._roster.drop(template, "this node starts all containers plainly")
        kept = {template.template_id for template in templates}
        for template_id in set(found) & clones.keys() - kept:
            # Nobody knows what it is; but to remove it would be the end of containers that run.
            with contextlib.suppress(RuntimeFailure):
                await self._runtime.kill(template_id, signal.SIGTERM)
            self._unknown[template_id] = clones[template_id]
            kept.add(template_id)
        return kept | {status.container_id for status in statuses if status.is_prepared}

    def clone_gone(self, template_id: str, runtime_id: str) -> None:
        """Nothing is left of a clone of one that could not be taken over."""
        clones = self._unknown.get(template_id)
        if clones is None:
            return
        clones.discard(runtime_id)
        if not clones:
            del self._unknown[template_id]
            self._tasks.start(self._remove_left([template_id]))

    async def _clones_of(self, statuses: Sequence[ContainerStatus]) -> dict[str, set[str]]:
        """Ids of the containers that are forks of each template: known before any template may be ended, because one
        with clones is ended so that they live on."""
        found: dict[str, set[str]] = {}
        for status in statuses:
            record = await await_record(self._config.containers_dir / status.container_id)
            if record is not None and record.template_id:
                found.setdefault(record.template_id, set()).add(status.container_id)
        return found

    async def _adopt_one(self, template_id: str, clones: set[str]) -> Template | None:
        directory = self._config.containers_dir / template_id
        try:
            record, known = read_record(directory), read_template_record(directory)
            if record is None or known is None or known.is_check:
                return None
            template = await self._making.adopt(record, known)
        except (RuntimeFailure, OSError) as error:
            _log.warning("%s: cannot be adopted: %s", template_id, error)
            return None
        template.clones |= clones
        earlier = self._roster.live.get(known.key)
        if earlier is None and known.kind == FUNCTION:
            earlier = self._roster.find_of(record.function_id, FUNCTION)
        if earlier is not None and earlier.made_at > template.made_at:
            # It was being dropped.
            self._roster.add_dropped(template, "a newer one took its place")
            return template
        if earlier is not None:
            self._roster.drop(earlier, "a newer one took its place")
        self._roster.add(template)
        template.making = self._tasks.start(self._ask(template))
        return template

    async def _remove_left(self, runtime_ids: Sequence[str]) -> None:
        """Remove what an earlier agent had made ahead, or a template of its that is of no use."""
        for runtime_id in runtime_ids:
            directory = self._config.containers_dir / runtime_id
            try:
                record = read_record(directory)
                if record is not None:
                    # Of another name only where a container was about to begin in it.
                    await self._outfits.give_back(Outfit(record, directory))
                else:
                    await self._runtime.remove(runtime_id)
            except (RuntimeFailure, OSError) as error:
                _log.error("%s: cannot be removed: %s; the next agent tries again", runtime_id, error)
