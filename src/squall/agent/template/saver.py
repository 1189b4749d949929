"""Puts templates on disk in idle time, and brings them back where they would be made anew.

    ready ──▶ saved ──▶ brought back once, as a check ──▶ kept
                           and next time its function wants one: brought back ──▶ ready

A template is a shortcut, and this is one to a template: whatever fails here, it is made as ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace as replaced
from pathlib import Path

from squall.agent.config import AgentConfig
from squall.agent.disk import space_of
from squall.agent.disk_use import tree_use
from squall.agent.outfit import Outfits, Services
from squall.agent.template.making import Making
from squall.agent.template.memory import budget_bytes
from squall.agent.template.saved import SavedTemplate, SavedTemplates
from squall.agent.template.template import Template
from squall.agent.template.verdicts import printable
from squall.protocol.errors import PlatformError
from squall.protocol.task_set import TaskSet
from squall.protocol.template import FUNCTION
from squall.runtime.contract import TemplateReport
from squall.runtime.errors import ContainerMissing, DescriptorsLost, RuntimeFailure, SpawnerGone, TemplateUnfit

SAVE_AFTER_S = 10.0
"""After it is ready: what is wanted for a moment only is gone by then."""
AGAIN_S = (60.0, 600.0)
STILL_S = 3_600.0
"""After an attempt that has come to nothing; then for as long as there is no room for it."""
CALM_S_MAX = 60.0
"""How long a moment without starts is waited for."""
WORTH_MS = 300.0
"""What is loaded in less is not brought back any sooner."""
SAVE_S = 90.0
BRING_BACK_S = 40.0
RESERVED_BYTES = 16 * 2**20
_MIB = 2**20

_log = logging.getLogger("squall.agent.template")


_LACKS = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class _NoRoom(Exception):
    """Nothing that the template could do about: it is tried again, and not counted."""


class Saver:
    """Saves templates of one node, one at a time.

    Args:
        occupied: how much memory all templates have alone.
        calm: returns when no container starts.
    """

    def __init__(
        self,
        config: AgentConfig,
        services: Services,
        outfits: Outfits,
        making: Making,
        saved: SavedTemplates,
        occupied: Callable[[], int],
        calm: Callable[[], Awaitable[None]],
    ) -> None:
        self._config = config
        self._services = services
        self._outfits = outfits
        self._making = making
        self._saved = saved
        self._occupied = occupied
        self._calm = calm
        self._turn = asyncio.Semaphore(1)
        self._tasks = TaskSet()
        self.checking_bytes = 0
        """What a template occupies that has come back for its check."""

    async def bring_back(self, template: Template) -> TemplateReport | None:
        """Start a template from what was saved of its key; None where there is nothing, or it does not come back: what
        it has then is to be given back.

        Raises:
            SpawnerGone, PlatformError, OSError: it could not be made either.
        """
        if not self._is_for(template) or not await self._saved.open():
            return None
        place = self._saved.place(template.key)
        if place is None:
            return None
        found = self._saved.find(template.key)
        try:
            async with asyncio.timeout(BRING_BACK_S):
                report = await self._come_back(template, place)
        except SpawnerGone:
            raise
        except (RuntimeFailure, TimeoutError) as error:
            why = await template.why_not_ready() if isinstance(error, ContainerMissing) else str(error)
            if self._saved.find(template.key) is not found:
                # Its files were taken away under it: that is no fault of theirs, and nothing is to be known of it.
                template.detour = "its template was made anew: what was saved of it was dropped meanwhile"
                return None
            cause = f"it could not be brought back: {why or f'it was not back within {BRING_BACK_S:g} s'}"
            template.detour = printable(f"its template was made anew: {cause}")
            await self._saved.failed(_about(template), printable(cause))
            return None
        template.is_brought_back = True
        await self._saved.came_back(template.key)
        return report

    def unfit(self, template: Template, cause: str) -> None:
        """One is; where it was brought back, the next one is made anew."""
        if template.is_brought_back:
            self._tasks.start(self._saved.failed(_about(template), printable(f"brought back, it was unfit: {cause}")))

    def begin(self, template: Template, report: TemplateReport) -> None:
        """Put a template that is ready on the disk, in a while, if it is worth it and may be."""
        if report.import_ms + report.enter_ms >= WORTH_MS and self._is_for(template):
            self._tasks.start(self._save_later(template))

    async def close(self) -> None:
        """Stop; what is being saved comes to nothing."""
        await self._tasks.close()

    async def _save_later(self, template: Template) -> None:
        for pause_s in itertools.chain((SAVE_AFTER_S, *AGAIN_S), itertools.repeat(STILL_S)):
            await asyncio.sleep(pause_s)
            if not await self._saved.open():
                if self._saved.is_open or not template.is_ready:
                    return
                continue
            async with self._turn:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(CALM_S_MAX):
                        await self._calm()
                if not template.is_ready or not self._saved.may_be_saved(template.key):
                    return
                await self._save(template)

    def _is_for(self, template: Template) -> bool:
        # Under gVisor a template is a file already, and what it is restored by does not outlive its spawner.
        # What it has open on volumes is of their versions of now.
        is_whole = not (template.is_saved or template.holds_secrets or template.request.volumes)
        return template.kind == FUNCTION and is_whole

    async def _save(self, template: Template) -> None:
        try:
            async with self._room():
                await self._put_on_disk(template)
        except SpawnerGone as error:
            _log.info("%s is not put on the disk now: %s", template.template_id, error)
        except _NoRoom as error:
            _log.info("%s is not put on the disk now: %s", template.template_id, error)
            if template.is_ready:
                self._saved.waits(_about(template), printable(f"not yet: {error}"))
        except (RuntimeFailure, PlatformError, OSError, TimeoutError) as error:
            # Where it was dropped meanwhile there is nothing to be said of it.
            if template.is_ready:
                cause = f"it could not be saved: {error or f'it took longer than {SAVE_S:g} s'}"
                await self._saved.failed(_about(template), printable(cause))

    async def _put_on_disk(self, template: Template) -> None:
        await asyncio.to_thread(self._check_room, template)
        async with self._new_place() as place:
            async with asyncio.timeout(SAVE_S):
                await self._services.runtime.save(
                    template.template_id, str(self._saved.template_in(place)), _reserved_bytes(template)
                )
            size_bytes = (await asyncio.to_thread(tree_use, str(place), lambda _: True)).space_bytes
            if size_bytes > self._saved.bytes_max:
                await self._saved.failed(_about(template), self._too_large(size_bytes), is_for_good=True)
                return
            await self._check(template, place)
            if template.is_ready:
                await self._saved.keep(place, replaced(_about(template), size_bytes=size_bytes))
                self._has_kept(template, size_bytes)

    def _has_kept(self, template: Template, size_bytes: int) -> None:
        if template.is_ready:
            _log.info("%s is on the disk: %d MiB", template.template_id, size_bytes // _MIB)
        else:
            # Who dropped it meanwhile did not know of what is there now.
            self._saved.forget([template.key])

    @contextlib.asynccontextmanager
    async def _new_place(self) -> AsyncIterator[Path]:
        place = await asyncio.to_thread(self._saved.begin)
        try:
            yield place
        finally:
            self._saved.give_up(place)

    @contextlib.asynccontextmanager
    async def _room(self) -> AsyncIterator[None]:
        """What fails in here for want of room, of whoever else has filled the disk meanwhile, is nobody's failure.

        Raises:
            _NoRoom: it did.
        """
        try:
            yield
        except SpawnerGone:
            raise
        except (RuntimeFailure, OSError) as error:
            is_lacking = isinstance(error, DescriptorsLost) or (isinstance(error, OSError) and error.errno in _LACKS)
            space = space_of(self._config.data_dir)
            if is_lacking or space.is_short_of_bytes or space.is_short_of_inodes:
                raise _NoRoom(f"there was no room left: {error or 'it took too long'}") from error
            raise

    def _check_room(self, template: Template) -> None:
        """Blocks.

        Raises:
            _NoRoom: it would be in the way of others.
            TemplateUnfit: it is more than all may be.
        """
        # It is there twice then; of one whose clones run, nothing is in what all occupy alone.
        both_bytes = template.memory_bytes * (2 if template.is_held else 1)
        if self._occupied() + both_bytes > budget_bytes(self._config):
            raise _NoRoom("to check it, templates would have to occupy more memory than they may")
        bytes_max = self._saved.bytes_max
        files = tree_use(f"{template.outfit.directory}/rw", lambda use: use.space_bytes <= bytes_max)
        needed_bytes = template.memory_bytes + files.space_bytes
        if needed_bytes > bytes_max:
            raise TemplateUnfit(self._too_large(needed_bytes))
        space = space_of(self._config.data_dir)
        needed_bytes = _reserved_bytes(template) + files.space_bytes
        if space.free_bytes - needed_bytes < space.spare_bytes or space.is_short_of_inodes:
            raise _NoRoom(f"it needs {needed_bytes // _MIB} MiB of a disk that is nearly full")

    def _too_large(self, size_bytes: int) -> str:
        return (
            f"it takes {size_bytes // _MIB} MiB, and all saved templates of its node together may take "
            f"{self._saved.bytes_max // _MIB} (SQUALL_TEMPLATE_DISK_MIB)"
        )

    async def _check(self, template: Template, place: Path) -> None:
        """Bring it back, and let it go again.

        Raises:
            RuntimeFailure, PlatformError, OSError, TimeoutError: it does not come back.
        """
        check = self._making.new(template.key, template.kind, template.request)
        check.is_check = True
        self.checking_bytes = template.memory_bytes
        try:
            async with asyncio.timeout(BRING_BACK_S):
                await self._come_back(check, self._saved.template_in(place))
        finally:
            await asyncio.shield(asyncio.ensure_future(self._let_go(check)))

    async def _come_back(self, template: Template, place: Path) -> TemplateReport:
        report = await self._making.start(template, restore_from=str(place))
        if not report.is_ready:
            raise TemplateUnfit(report.cause or "it did not say why")
        return report

    async def _let_go(self, check: Template) -> None:
        self._services.logs.finish(check.template_id)
        await self._outfits.give_back(check.outfit)
        self.checking_bytes = 0


def _reserved_bytes(template: Template) -> int:
    """What its memory may take on the disk: more than it was measured last, and no more than is kept for it. What is
    saved is a copy that runs code of its user, and takes what its container may."""
    return template.memory_bytes + template.memory_bytes // 4 + RESERVED_BYTES


def _about(template: Template) -> SavedTemplate:
    record, request = template.outfit.record, template.request
    return SavedTemplate(
        template.key, template.template_id, record.app_id, record.function_id, record.image_id, template.made_at, {},
        follows_id=request.follows_id, version=request.version,
    )  # fmt: skip
