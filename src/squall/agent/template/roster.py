"""The templates that a node has, from the moment one is begun to the moment nothing of it is left.

live     made or ready: at most one for each key, and one key of each kind for each function; that of an image is
         of as many functions of its app as have the same key
there    these, and those that are on their way out while clones of theirs live
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
from collections.abc import Callable
from types import MappingProxyType

from squall.agent.config import AgentConfig
from squall.agent.outfit import Outfit, Outfits, Services
from squall.agent.template.cells import Cells
from squall.agent.template.memory import budget_bytes, freeing, surplus, total_bytes, unshared_bytes
from squall.agent.template.template import Template
from squall.agent.template.user import USERS_MAX, TemplateUser
from squall.agent.template.verdicts import Verdicts, printable
from squall.protocol.task_set import TaskSet
from squall.protocol.template import DROPPED, FUNCTION, UNFIT
from squall.runtime.errors import ContainerMissing, RuntimeFailure

END_AGAIN_S = 10.0

_log = logging.getLogger("squall.agent.template")


class Roster:
    """All templates of one node, and their ends.

    Args:
        verdicts: where it is remembered that one is unfit.
        tasks: what ends templates runs there.
        monotonic: seconds.
    """

    def __init__(
        self,
        config: AgentConfig,
        services: Services,
        outfits: Outfits,
        cells: Cells,
        verdicts: Verdicts,
        tasks: TaskSet,
        monotonic: Callable[[], float],
    ) -> None:
        self._config = config
        self._services = services
        self._outfits = outfits
        self._cells = cells
        self._verdicts = verdicts
        self._tasks = tasks
        self._monotonic = monotonic
        self._live: dict[str, Template] = {}
        self._key_of: dict[tuple[str, str], str] = {}
        """Of those that live, by function and kind."""
        self._there: dict[str, Template] = {}
        self.live = MappingProxyType(self._live)
        """Those that are made or ready, by key."""
        self.on_unfit: Callable[[Template, str], None] = lambda template, cause: None
        self.there = MappingProxyType(self._there)
        """All of which anything is left, by id."""

    def find_of(self, function_id: str, kind: str) -> Template | None:
        """The one of a function that lives."""
        key = self._key_of.get((function_id, kind))
        return None if key is None else self._live[key]

    def is_live(self, template: Template) -> bool:
        """It is made or ready."""
        return self._live.get(template.key) is template

    def add(self, template: Template) -> None:
        """One more, the only one of its key; an earlier agent's with those who used it and have no newer one."""
        self._live[template.key] = self._there[template.template_id] = template
        known, template.users = template.users, {}
        if template.kind == FUNCTION:
            request = template.request
            known = {template.outfit.record.function_id: TemplateUser(request.follows_id, request.version)}
        for function_id, user in known.items():
            other = self.find_of(function_id, template.kind)
            if other is None or (other.users[function_id].version, other.made_at) <= (user.version, template.made_at):
                self.is_for(template, function_id, user)
        if known and not template.users:
            self.drop(template, "a newer one took its place")

    def is_for(self, template: Template, function_id: str, user: TemplateUser) -> bool:
        """Containers of the function are forked from it; True where that is new."""
        if not self.is_live(template):
            return False
        self.supersede(function_id, template.kind, template.key)
        self._key_of[function_id, template.kind] = template.key
        before = template.users.pop(function_id, None)
        template.users[function_id] = user
        if len(template.users) > USERS_MAX:
            self._leave_out(template, next(iter(template.users)))
        return before != user

    def add_dropped(self, template: Template, cause: str) -> None:
        """One of an earlier agent that nobody has a use for."""
        self._there[template.template_id] = template
        template.state, template.cause = DROPPED, cause
        template.settled.set()
        self._tasks.start(self._end(template))

    def rename(self, template: Template, outfit: Outfit) -> None:
        """It is begun again, with nothing of what it has had: the end of that is not taken for an end of the next."""
        before, template.outfit = template.outfit, outfit
        del self._there[before.record.container_id]
        self._there[template.template_id] = template
        template.is_up = template.has_exited = False
        template.ended.clear()
        template.ended_how = ""
        self._services.logs.finish(before.record.container_id)
        self._tasks.start(self._outfits.give_back(before))

    def function_ids(self, count_max: int) -> tuple[str, ...]:
        """Functions of those that are ready, those of the templates used last first."""
        ready = sorted((one for one in self._live.values() if one.is_ready), key=lambda one: -one.used_at)
        found = (function_id for one in ready for function_id in sorted(one.users))
        return tuple(itertools.islice(dict.fromkeys(found), count_max))

    def memory_bytes(self) -> int:
        """What all occupy; what clones share with them is counted here, once, also after their template has gone."""
        return total_bytes(self._there.values())

    def unshared_bytes(self) -> int:
        """What those that live occupy alone, as they are held to `budget_bytes`."""
        return unshared_bytes(self._live.values())

    # Who is to go

    def keep_within(self) -> None:
        """Drop those over the budget. Nothing else is a reason while the app lives: who calls a function once an hour
        has waited for what it loads once, and is not to wait each time."""
        for template in surplus(self._live.values(), budget_bytes(self._config)):
            self.drop(template, "the memory for templates was needed for others")

    def free(self, wanted_bytes: int, kept: Template | None, cause: str) -> tuple[str, ...]:
        """Drop those used longest ago, so that about so much memory is free; returns which."""
        doomed = freeing(self._live.values(), wanted_bytes, kept)
        for template in doomed:
            self.drop(template, cause)
        return tuple(template.template_id for template in doomed)

    def supersede(self, function_id: str, kind: str, key: str) -> None:
        """The function's containers are started with this key now: one of another key is no more of use to it, and
        goes unless it is to another one."""
        before = self._key_of.get((function_id, kind), key)
        if before != key:
            cause = "its function is another one now: code, image, secrets or options are new"
            self.forget(self._live[before], function_id, cause)

    def forget(self, template: Template, function_id: str, cause: str) -> None:
        """The function has no use for it any more: drop it if nobody has."""
        if self._leave_out(template, function_id) and not template.users:
            self.drop(template, cause)

    def drop_unused(self, app_id: str, cause: str) -> None:
        """Drop those of an app that hold something of its functions, none of which is known to use them: it may be gone
        whose it is."""
        for template in list(self._live.values()):
            is_of = template.outfit.record.app_id == app_id
            if is_of and not template.users and template.holds_some_of_its_function:
                self.drop(template, cause)

    def _leave_out(self, template: Template, function_id: str) -> bool:
        """Nothing is ready for the function any more; False if it was not forked from it."""
        if template.users.pop(function_id, None) is None:
            return False
        del self._key_of[function_id, template.kind]
        reserve = template.reserves.pop(function_id, None)
        for cell in reserve.empty() if reserve is not None else ():
            self._tasks.start(self._cells.discard(cell))
        return True

    def drop(self, template: Template, cause: str) -> None:
        """Nobody needs it any more."""
        self._leave(template, DROPPED, cause)

    def unfit(self, template: Template, cause: str, *, is_for_good: bool = False) -> None:
        """Nothing can be forked from it, and it is remembered why.

        Args:
            is_for_good: another one of its key would be as unfit.
        """
        if self.is_live(template):
            self._verdicts.add(template, printable(cause), self._monotonic(), is_for_good=is_for_good)
            self.on_unfit(template, cause)
            self._leave(template, UNFIT, cause)

    def unfit_for(self, template: Template, function_id: str, cause: str) -> None:
        """One function's containers are not forked from it, and it is remembered why; those of others are."""
        self._leave_out(template, function_id)
        self._verdicts.add(template, printable(cause), self._monotonic(), is_for_good=False, function_id=function_id)

    def _leave(self, template: Template, state: str, cause: str) -> None:
        """It is forked no more."""
        if not self.is_live(template):
            return
        del self._live[template.key]
        for function_id in template.users:
            del self._key_of[function_id, template.kind]
        template.users.clear()
        template.state, template.cause = state, printable(cause)
        template.settled.set()
        _log.info("%s is %s: %s", template.template_id, state, template.cause)
        self._tasks.start(self._end(template))

    # The end

    async def _end(self, template: Template) -> None:
        """Remove what was made ahead, then the template, and return when nothing of it is left."""
        making = template.making
        if making is not None and not making.done():
            making.cancel()
            await asyncio.wait([making])
        await asyncio.gather(*(self._cells.discard(cell) for cell in template.empty()))
        while not template.gone.is_set():
            if not template.is_up or template.has_exited:
                await self.bury(template)
                return
            # Its process alone while clones live: they go on, and are what is still told of it.
            number = signal.SIGTERM if template.clones else signal.SIGKILL
            try:
                await self._services.runtime.kill(template.template_id, number)
            except ContainerMissing:
                template.has_exited = True
                continue
            except RuntimeFailure as error:
                _log.warning("%s: cannot be ended: %s; trying again", template.template_id, error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_AGAIN_S):
                    await template.gone.wait()

    async def bury(self, template: Template) -> None:
        """What has ended: take everything back that it has."""
        if self._there.pop(template.template_id, None) is not None:
            try:
                self._services.logs.finish(template.template_id)
                await self._outfits.give_back(template.outfit)
            finally:
                template.gone.set()
