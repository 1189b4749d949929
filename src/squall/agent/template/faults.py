"""What speaks against a template: clones that crash before they have served, forks that fail, and its own end.

A clone may wait for an hour until it is called, and crash then: what counts is not how long it has lived, but whether
anything has come of an input. Whoever crashes later has done so by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass

from squall.agent.template.cells import Cells
from squall.agent.template.roster import Roster
from squall.agent.template.template import Template
from squall.agent.template.verdicts import Verdicts, printable
from squall.protocol.task_set import TaskSet
from squall.protocol.template import FUNCTION
from squall.runtime.contract import Runtime
from squall.runtime.errors import ContainerMissing, RuntimeFailure, TemplateUnfit
from squall.runtime.spec import ExitStatus

EARLY_ENDS_MAX = 2
"""So many clones that end before they have served, one after the other: it is the template. Fewer than make the server
give up a function whose containers do not start, or an input under which they end: its next start is plain."""
SILENT_S = 10.0
"""One that was ended without having spoken for so long never would have: its first steps take milliseconds."""
LOOK_S = 1.0
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)

_CRASHED = "a container forked from it crashed before it had served a call, and one that was started plainly did not"

_log = logging.getLogger("squall.agent.template")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a clone has ended, as far as its template may be to blame."""

    function_id: str
    has_guest: bool
    """It has spoken."""
    was_asked_for: bool
    lived_s: float
    signal: int | None
    has_served: bool = False
    """Something has come of an input."""

    @property
    def is_silent(self) -> bool:
        """It had not got as far as to its first word, and was not going to."""
        return not self.has_guest and (not self.was_asked_for or self.lived_s >= SILENT_S)

    @property
    def is_crash(self) -> bool:
        """It got going, and crashed by itself: what was loaded before the fork may not have come through it."""
        is_new = self.has_guest and not self.has_served
        return is_new and not self.was_asked_for and self.signal in _CRASHES


class Faults:
    """Hears of what becomes of templates and of what was made from them.

    Args:
        rest: makes nothing ahead for a template for a while.
    """

    def __init__(
        self,
        runtime: Runtime,
        roster: Roster,
        cells: Cells,
        verdicts: Verdicts,
        tasks: TaskSet,
        rest: Callable[[Template], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._runtime = runtime
        self._roster = roster
        self._cells = cells
        self._verdicts = verdicts
        self._tasks = tasks
        self._rest = rest
        self._monotonic = monotonic

    def clone_came(self, template: Template) -> None:
        """A clone has got going as far as to its first word: it could be forked."""
        template.unfit_fork_count = template.rest_count = 0

    def clone_served(self, template: Template, function_id: str) -> None:
        """Something has come of a first input of a clone: it is as it should be."""
        template.crash_counts.pop(function_id, None)
        self._verdicts.clear(template.key, function_id)

    def plain_served(self, function_id: str) -> None:
        """The same of a container that was started plainly because a clone had crashed: it is the template."""
        for template in list(self._roster.live.values()):
            # Of an image template that it does not begin from any more, what was counted is old.
            if function_id in template.users and function_id in template.crash_counts:
                self._give_up(template, function_id, _CRASHED)

    def clone_ended(self, template: Template, ending: Ending) -> None:
        """A clone has ended. One that nobody waited for, and that has not spoken yet, says nothing of its template."""
        if ending.is_silent:
            self._count_unfit(template, "it ended without a word", self._monotonic() - ending.lived_s)
        elif ending.is_crash:
            self._count_crash(template, ending.function_id, f"signal {ending.signal}")

    def _count_crash(self, template: Template, function_id: str, how: str) -> None:
        count = template.crash_counts[function_id] = template.crash_counts.get(function_id, 0) + 1
        if count < EARLY_ENDS_MAX or not template.is_ready:
            return
        self._give_up(template, function_id, _ended(how))

    def _give_up(self, template: Template, function_id: str, cause: str) -> None:
        at_fault = {name for name, crashes in template.crash_counts.items() if crashes >= EARLY_ENDS_MAX}
        if template.kind == FUNCTION or at_fault - {function_id}:
            self._roster.unfit(template, cause)
        else:
            # It may be what the function does when it is loaded, and all other functions are well.
            self._roster.unfit_for(template, function_id, cause)
            template.crash_counts[function_id] = max(EARLY_ENDS_MAX, template.crash_counts.get(function_id, 0))

    def failed(self, template: Template, error: BaseException, began_at: float) -> None:
        """A cell or clone of it could not be made, or has not begun.

        Args:
            began_at: by the monotonic clock, when that was attempted.
        """
        _log.warning("%s: %s", template.template_id, printable(str(error) or type(error).__name__))
        if isinstance(error, TemplateUnfit):
            # All else, a full disk or a machine that is too slow, would be so with any template.
            self._count_unfit(template, str(error), began_at)
        if template.is_ready:
            self._tasks.start(self._look(template))

    def _count_unfit(self, template: Template, how: str, began_at: float) -> None:
        if began_at < template.failed_at:
            # Beside the one before, not after it: whatever ended that, as who frees memory does, may have ended both.
            return
        template.failed_at = self._monotonic()
        template.unfit_fork_count += 1
        if template.unfit_fork_count >= EARLY_ENDS_MAX and template.is_ready:
            self._roster.unfit(template, _ended(how))

    async def _look(self, template: Template) -> None:
        """See whether it still is what it was."""
        with contextlib.suppress(RuntimeFailure, TimeoutError):
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._runtime.template_report(template.template_id)
            except ContainerMissing:
                self._roster.unfit(template, "it has ended")

    def ended(self, runtime_id: str, status: ExitStatus | None) -> None:
        """Something has that is no container: a template, or what was made ahead. None: its spawner has died."""
        template = self._roster.there.get(runtime_id)
        if template is None:
            self._waiting_ended(runtime_id)
            return
        template.has_exited = True
        if status is None:
            self._roster.drop(template, "the process that makes containers has ended, and all templates with it")
        elif not template.settled.is_set() and template.making is not None:
            # What waits for its report says why.
            template.ended_how = _in_words(status)
            template.ended.set()
            return
        else:
            self._roster.unfit(template, f"it has ended by itself ({_in_words(status)})")
        self._tasks.start(self._roster.bury(template))

    def _waiting_ended(self, cell_id: str) -> None:
        """What nobody had begun in: killed, as a rule, for its memory. That says nothing of its template, but the next
        one would be killed as well."""
        for template in self._roster.there.values():
            if cell_id in template.ahead:
                self._rest(template)
                self._take_away(template, cell_id)
                return

    def _take_away(self, template: Template, cell_id: str) -> None:
        cell = template.ahead[cell_id].remove(cell_id)
        if cell is not None:
            self._tasks.start(self._cells.discard(cell))

    def find_lost(self, there: Collection[str]) -> None:
        """Take those for ended that the runtime does not know any more."""
        for template in list(self._roster.there.values()):
            if template.is_up and not template.has_exited and template.template_id not in there:
                self.ended(template.template_id, None)
            for cell_id in [cell_id for cell_id in template.ahead if cell_id not in there]:
                self._take_away(template, cell_id)


def _ended(last: str) -> str:
    count = EARLY_ENDS_MAX
    return (
        f"{count} containers forked from it, one after the other, ended before they had served a call; the last: {last}"
    )


def _in_words(status: ExitStatus) -> str:
    ending = f"exit code {status.code}" if status.signal is None else f"signal {status.signal}"
    return ending + (", out of memory" if status.is_oom else "")
