"""The templates of a node: made when a function wants one, found again after a restart, dropped when nobody does.

    making ──▶ ready ──▶ dropped      it is forked no more, and is gone with the last of its clones
       └─────────┴─────▶ unfit        the same, and remembered with its cause: starts are plain meanwhile

There is one template for each key, and one key of each kind for each function: a function that is started with another
one (new code, image, secrets or options) has no use for the template of before.

An image template is made in the background once a first container, which was started plainly, has got going. A function
template is made by the first start, which waits for it, as do those that come meanwhile; where it is unfit, an image
template does.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from squall.agent.config import FORK, PLAIN, RESTORE, WAITING_PATHS, AgentConfig
from squall.agent.disk import NO_LIMIT, Writer, disk_limit, space_of
from squall.agent.image.progress import BuiltImage
from squall.agent.known_images import DAMAGED
from squall.agent.outfit import Outfit, Outfits, Services
from squall.agent.record import ContainerRecord
from squall.agent.template import wanted
from squall.agent.template.adoption import Adoption
from squall.agent.template.cells import FAILURES, Cells
from squall.agent.template.demand import Demand
from squall.agent.template.early_files import EarlyFiles, volume_on_path
from squall.agent.template.faults import Ending, Faults
from squall.agent.template.key import TemplateKeys, of_image
from squall.agent.template.loads import Loads
from squall.agent.template.making import Making
from squall.agent.template.memory import budget_bytes
from squall.agent.template.order import OrderedTimes
from squall.agent.template.pools import Pools
from squall.agent.template.record import write_template_record
from squall.agent.template.reserve import Cell, Reserve
from squall.agent.template.roster import Roster
from squall.agent.template.saved import SavedTemplate, SavedTemplates
from squall.agent.template.saver import Saver
from squall.agent.template.template import Template
from squall.agent.template.user import TemplateUser, is_old
from squall.agent.template.verdicts import Verdict, Verdicts, of_function
from squall.agent.template.wanted import Wanted
from squall.agent.template.way import Way, Wish, obstacle, without_templates
from squall.protocol.errors import PlatformError
from squall.protocol.function import NAMESPACES
from squall.protocol.node import TEMPLATE_FUNCTIONS_MAX, ContainerStart
from squall.protocol.records import replace as replace_in
from squall.protocol.task_set import TaskSet, going_on
from squall.protocol.template import (
    FUNCTION,
    IMAGE,
    NODE_TEMPLATES_MAX,
    READY,
    UNFIT,
    NodeTemplate,
    NodeTemplateListing,
)
from squall.runtime.contract import TemplateReport
from squall.runtime.errors import ContainerMissing, SpawnerGone
from squall.runtime.spec import ContainerStatus, ExitStatus
from squall.runtime.templates import FILES

SHORT_S = 60.0
"""How long a start goes after anything shorter than the plain path, from waiting for a template to the last fork that
fails. Half of what its server waits for the whole of it."""
MAKE_S = 600.0
"""How long one may take, unless its function's containers may take longer to start."""
RESERVES_MAX = 64
"""Functions of one template that something is ready for."""
_AS_OTHERS = "not tried, as other objects of its class, or variants of its function, are unfit: "
_DOUBTED = "a container forked from its template ended while it ran its first call"
_MIB = 2**20


class Templates:
    """All templates of one node. `run` must be awaited by its owner.

    Args:
        now: seconds since 1970.
    """

    def __init__(
        self,
        config: AgentConfig,
        services: Services,
        outfits: Outfits,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._services = services
        self._outfits = outfits
        self._now = now = OrderedTimes(now)
        self._monotonic = monotonic
        self._keys = TemplateKeys(config.data_dir, config.guest_entry)
        self._making = Making(config, services, outfits, now)
        self.cells = Cells(config, services.runtime, outfits, monotonic)
        self._early_files = EarlyFiles(services.mounts)
        self._verdicts = Verdicts()
        self._loads = Loads()
        self._tasks = TaskSet()
        self._roster = Roster(config, services, outfits, self.cells, self._verdicts, self._tasks, monotonic)
        is_parking = config.start_path != FORK
        self._pools = Pools(self.cells, services.runtime, monotonic, self.failed, is_parking=is_parking)
        known = (self._roster, self.cells, self._verdicts, self._tasks)
        self._faults = Faults(services.runtime, *known, self._pools.rest, monotonic)
        self._wanted = Wanted(self._make_wanted, self._tasks)
        self._adoption = Adoption(config, services.runtime, outfits, self._making, self._roster, self._tasks, self._ask)
        self._is_ended = False
        self._saved = SavedTemplates(config.data_dir, config.template_disk_mib * _MIB, services.grave.bury, now)
        self._saver = Saver(
            config, services, outfits, self._making, self._saved, self._unshared_bytes, self._pools.calm
        )
        self._roster.on_unfit = self._saver.unfit

    def prepare(self) -> None:
        """Make keys what they were. Blocks."""
        self._keys.prepare()

    async def run(self) -> None:
        """Keep cells and clones ready, and memory and disk within bounds, for ever."""
        await self._saved.open()
        await self._pools.run(lambda: tuple(self._roster.there.values()), self._keep_within)

    def _keep_within(self) -> None:
        self._roster.keep_within()
        with going_on("cannot keep saved templates within bounds"):
            self._saved.keep_within(space_of(self._config.data_dir))

    async def close(self) -> None:
        """Let go of them; they live on."""
        await self._saver.close()
        await self._tasks.close()

    # What starts ask

    async def way(self, request: ContainerStart, until: float) -> Way:
        """How to start a container: waits for a template that is being made for its kind.

        Args:
            until: by the monotonic clock, not longer than that.
        """
        if self._config.start_path == PLAIN or self._is_ended:
            return without_templates(request, self._config)
        is_asked_for = request.is_snapshot_enabled or self._config.start_path in WAITING_PATHS
        kind = FUNCTION if request.is_snapshot_enabled else IMAGE
        plain = Way(None, is_asked_for=is_asked_for)
        image = await self._find_image(request)
        if image is None or not image.config.python_path:
            return plain  # which says what is wrong
        if cause := obstacle(request, image, is_restored=self._config.start_path == RESTORE):
            return plain.because(cause)
        try:
            library_dir = await self._services.library.get(image.layers, image.config, image.image_id)
        except OSError as error:
            return plain.because(str(error))
        found = _Found(request, image, library_dir, until)
        if kind == IMAGE and request.is_plain:
            return plain.because(_DOUBTED)
        if kind == IMAGE:
            self._roster.supersede(request.function_id, FUNCTION, "")
            self._saved.supersede(request.function_id, "")
            return await self._by_image(plain, found, is_awaited=is_asked_for)
        key = self._keys.key(FUNCTION, request, image, library_dir)
        self._roster.supersede(request.function_id, FUNCTION, key)
        self._saved.supersede(request.function_id, key)
        template, verdict = self._roster.live.get(key), self._verdicts.find(key, self._monotonic())
        if request.is_plain:
            return plain.because(_DOUBTED if verdict is None else verdict.cause)
        if template is None:
            family = self._keys.family(request, image, library_dir)
            why = verdict.cause if verdict is not None else self._cause_of_others(family, key)
            if why is not None:
                return await self._before_the_function(plain.because(why), found)
            template = self._begin(key, FUNCTION, request)
            template.family = family
        self._note_start(template, request)
        has_waited = not template.settled.is_set()
        expected_s = self._loads.expected_s(request.function_id, request.follows_id)
        if has_waited and expected_s >= SHORT_S:
            cause = f"its template is being made, and it took {expected_s:.0f} s or more to load the last time"
            return await self._before_the_function(plain.because(cause), found)
        await self._settled(template, until)
        if template.is_ready:
            self._roster.supersede(request.function_id, IMAGE, "")
            self._wanted.started_with(request.function_id, "")
            template.used_at = self._now()
            if has_waited:
                plain = replace(plain, waited="from_disk" if template.is_brought_back else "", cause=template.detour)
            return replace(plain, template=template)
        if not template.settled.is_set():
            self._loads.not_within(request.function_id, SHORT_S, request.follows_id)
        plain = plain.because(template.cause or _late())
        return plain if template.state != UNFIT else await self._before_the_function(plain, found)

    def _cause_of_others(self, family: str, key: str) -> str | None:
        """Why a variant that was not tried is not, as others of its function are unfit; what was saved is fit."""
        saved = self._saved.find(key)
        if saved is not None and saved.size_bytes:
            return None
        verdict = self._verdicts.find_alike(family, self._monotonic())
        return None if verdict is None else _AS_OTHERS + verdict.cause

    async def _settled(self, template: Template, until: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, until - self._monotonic())):
                await template.settled.wait()

    async def _before_the_function(self, plain: Way, found: _Found) -> Way:
        """What cannot be forked once its function is loaded, can be before."""
        return plain if found.request.isolation != NAMESPACES else await self._by_image(plain, found, is_awaited=False)

    async def _by_image(self, plain: Way, found: _Found, *, is_awaited: bool) -> Way:
        """From the template of the image if there is one, else so that one is made.

        Args:
            is_awaited: the start waits for it.
        """
        request = found.request
        if target := volume_on_path(request, found.image):
            cause = f"Python may load files of its volume at {target} before the function is loaded"
            return plain.because(plain.cause or cause)
        try:
            # What is restored has the root file system that it was saved with.
            is_restored = request.isolation != NAMESPACES
            has_files = is_restored or await self._early_files.are_loaded(request, found.image)
        except (PlatformError, OSError):
            return plain  # which says what is wrong
        made_by = of_image(request, has_files=has_files)
        key = self._keys.key(IMAGE, made_by, found.image, found.library_dir)
        self._roster.supersede(request.function_id, IMAGE, key)
        self._wanted.started_with(request.function_id, key)
        template, now = self._roster.live.get(key), self._monotonic()
        verdict = self._verdicts.find(of_function(key, request.function_id), now)
        if verdict is None and template is None:
            verdict = self._verdicts.find(key, now)
        if verdict is not None:
            return plain.because(plain.cause or verdict.cause)
        if template is None and not is_awaited:
            self._wanted.note(key)
            return replace(plain, wanted=Wish(key, made_by, request))
        if template is None:
            template = self._begin(key, IMAGE, made_by)
        self._note_start(template, request)
        if is_awaited:
            await self._settled(template, found.until)
        if template.is_ready:
            template.used_at = self._now()
            return replace(plain, template=template)
        return plain.because(plain.cause or template.cause or _late()) if is_awaited else plain

    def has_got_going(self, wish: Wish) -> None:
        """A container that was started plainly has: the next ones of its kind may be forks."""
        key = wish.key
        if key in self._roster.live or self._is_ended or self._verdicts.find(key, self._monotonic()) is not None:
            return
        is_crowded = self._unshared_bytes() > budget_bytes(self._config) * 9 // 10
        if is_crowded and not self._wanted.is_insistent(key):
            # In its place another one would go, of a function that is used as much.
            return
        self._wanted.begin_later(wish, 0.0 if self._pools.is_busy else wanted.SETTLE_S)

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """While a container starts, nothing is made ahead."""
        with self._pools.starting():
            yield

    def make_room(self, wanted_mib: int, claimed_mib: int, kept: Template | None) -> None:
        """Drop templates so that a container that reserves `wanted_mib` has them, beside what others have reserved."""
        free_bytes = max(0, self._config.memory_mib - claimed_mib - wanted_mib) * _MIB
        surplus_bytes = self.memory_bytes() - free_bytes
        if wanted_mib and surplus_bytes > 0:
            self._roster.free(surplus_bytes, kept, "the node's memory was needed for a container")

    def free(self, wanted_mib: int) -> tuple[str, ...]:
        """Drop templates, as the server wants to have so much memory of the node free; returns which."""
        return self._roster.free(max(1, wanted_mib) * _MIB, None, "its node was short of memory")

    def _note_start(self, template: Template, request: ContainerStart) -> Reserve:
        """A container of the function is started: there will be more. What was ready for the function as it was before
        goes."""
        user = TemplateUser(request.follows_id, request.version)
        if self._roster.is_for(template, request.function_id, user):
            # One that is being started may have no directory yet: it is written then.
            with contextlib.suppress(OSError):
                write_template_record(template.outfit.directory, template)
        reserves, now = template.reserves, self._monotonic()
        before = reserves.pop(request.function_id, None)
        if before is not None and before.fits(request):
            reserve, before.request = before, request
        else:
            reserve = Reserve(template, request, before.demand if before is not None else Demand(now))
            self._discard([] if before is None else before.empty())
        reserves[request.function_id] = reserve  # those used last come last
        while len(reserves) > RESERVES_MAX:
            self._discard(reserves.pop(next(iter(reserves))).empty())
        reserve.demand.add(now)
        return reserve

    def _discard(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            self._tasks.start(self.cells.discard(cell))

    def reserve_of(self, template: Template, request: ContainerStart) -> Reserve:
        """What may be ready for this start; its template makes more of it."""
        reserve = template.reserves.get(request.function_id)
        # Meanwhile the function may have been started as it was before, or is to be.
        return reserve if reserve is not None and reserve.fits(request) else Reserve(template, request, Demand(0.0))

    def take_parked(self, template: Template, request: ContainerStart) -> Cell | None:
        """The clone that has waited longest, if one does."""
        return self.reserve_of(template, request).take_parked()

    def take_cell(self, template: Template, request: ContainerStart) -> Cell | None:
        """The cell that has waited longest, if one does.

        Oldest first, of both: none waits for ever, and the network of a cell has rested since its last container.
        """
        return self.reserve_of(template, request).take_cell()

    def clone_began(self, template_id: str, runtime_id: str) -> None:
        """A container is a fork of this template, or about to be."""
        template = self._roster.there.get(template_id)
        if template is not None:
            template.clones.add(runtime_id)

    def clone_came(self, template_id: str) -> None:
        """One has spoken for the first time."""
        template = self._roster.there.get(template_id)
        if template is not None:
            self._faults.clone_came(template)

    def clone_served(self, template_id: str, function_id: str) -> None:
        """Something has come of a first input of one."""
        template = self._roster.there.get(template_id)
        if template is not None:
            self._faults.clone_served(template, function_id)

    def plain_served(self, function_id: str) -> None:
        """The same of a container of the function that was to be no fork (`ContainerStart.is_plain`)."""
        self._faults.plain_served(function_id)

    def clone_ended(self, template_id: str, ending: Ending) -> None:
        """One has ended."""
        template = self._roster.there.get(template_id)
        if template is not None:
            self._faults.clone_ended(template, ending)

    def clone_gone(self, template_id: str, runtime_id: str) -> None:
        """Nothing of it is left, or it never was."""
        template = self._roster.there.get(template_id)
        if template is not None:
            template.clones.discard(runtime_id)
        else:
            self._adoption.clone_gone(template_id, runtime_id)

    def failed(self, template: Template, error: BaseException, began_at: float) -> None:
        """A cell or clone of it could not be made, or has not begun. See `Faults.failed`."""
        self._faults.failed(template, error, began_at)

    def ended(self, runtime_id: str, status: ExitStatus | None) -> None:
        """Something has that is no container: a template, or what was made ahead."""
        self._faults.ended(runtime_id, status)
        self._pools.wake()

    def find_lost(self, there: Collection[str]) -> None:
        """Take those for ended that the runtime does not know any more."""
        self._faults.find_lost(there)

    async def adopt(self, statuses: Sequence[ContainerStatus]) -> set[str]:
        """Take over an earlier agent's templates; returns what is seen to here, by the runtime's ids."""
        # Before the server asks what there is.
        await self._saved.open()
        return await self._adoption.adopt(statuses)

    # What they write

    def writers(self) -> list[Writer]:
        """Those whose writing is to be watched: user code runs in templates, and may in clones that wait."""
        found = []
        for template in self._roster.there.values():
            if template.is_up and not template.has_exited:
                is_ended = not self._roster.is_live(template)
                found.append(_writer(template.template_id, template.outfit, template.pid, is_ended=is_ended))
                if written := self._services.volumes.written_dir(template.template_id):
                    found.append(replace(found[-1], folders=(written,), limit=NO_LIMIT, place="volumes"))
            found += [_writer(cell.cell_id, cell.outfit, 0) for cell in template.parked]
        return found

    def over_disk(self, runtime_id: str, why: str) -> Collection[str]:
        """End a template or a clone that waits for what it has written, if it is one of these.

        Returns:
            Clones, by the runtime's ids, of a template that was ended before: it is gone with the last of them only.
        """
        template = self._roster.there.get(runtime_id)
        if template is None:
            self._faults.ended(runtime_id, None)
            return ()
        if not self._roster.is_live(template):
            return tuple(template.clones)
        self._roster.unfit(template, why)
        return ()

    # What the server asks

    def listing(self, function_id: str = "") -> NodeTemplateListing:
        """The answer to `NodeTemplateList`."""
        is_one_coming = self._wanted.is_coming(self._wanted.key_of(function_id))
        return NodeTemplateListing(self.told(function_id), is_one_coming)

    def told(self, function_id: str = "") -> tuple[NodeTemplate, ...]:
        """All there are, and those that cannot be; of these the ones used last, where there are too many.

        Args:
            function_id: of this function alone.
        """
        there = [self._told(one, function_id) for one in self._roster.there.values() if self._is_for(one, function_id)]
        known = {(one.template_id, one.function_id) for one in there}
        saved = [one.told() for one in self._saved.known() if self._is_on_disk_only(one)]
        unfit = [
            one.told()
            for one in self._verdicts
            # What was tried again and is ready, remembers it until a container has served.
            if one.key not in self._roster.live and (one.template_id, one.function_id) not in known
        ]
        kept = [*there, *(one for one in saved if function_id in ("", one.function_id))]
        # What there is can be dropped, and is never left out for want of room.
        room = max(0, NODE_TEMPLATES_MAX - len(kept))
        others = _used_last(one for one in unfit if function_id in ("", one.function_id))[:room]
        return tuple(_used_last((*kept, *others)))

    def _is_for(self, template: Template, function_id: str) -> bool:
        """Containers of the function are started from it, or will be."""
        if not function_id or function_id in template.users:
            return True
        return self._roster.is_live(template) and template.key == self._wanted.key_of(function_id)

    def _told(self, template: Template, function_id: str) -> NodeTemplate:
        saved = self._saved.find(template.key) if self._roster.is_live(template) else None
        found = template.told(function_id)
        return found if saved is None else replace_in(found, disk_mib=saved.disk_mib, disk_cause=saved.cause)

    def _is_on_disk_only(self, saved: SavedTemplate) -> bool:
        return bool(saved.size_bytes) and saved.key not in self._roster.live

    def drop_ids(self, template_ids: Collection[str]) -> tuple[str, ...]:
        """Drop these, and forget the verdicts on them; returns which there were."""
        forgotten = self._verdicts.forget_if(lambda one: one.template_id in template_ids)
        dropped = dict.fromkeys(one.template_id for one in forgotten)
        gone = self._saved.forget_if(lambda one: self._is_on_disk_only(one) and one.template_id in template_ids)
        dropped |= dict.fromkeys(one.template_id for one in gone)
        for template_id in template_ids:
            template = self._roster.there.get(template_id)
            if template is not None and self._roster.is_live(template):
                self._saved.forget([template.key])
                self._roster.drop(template, "it was asked for")
                dropped[template_id] = None
        return tuple(dropped)

    def drop_of(self, app_id: str, function_id: str = "", functions: Mapping[str, int] | None = None) -> None:
        """Drop those of an app, or of one function of it, which nobody will ask for again; verdicts, too.

        Args:
            functions: what the app goes on with, as in `NodeTemplatesUnneeded`; those of these as they are now stay.
        """
        if functions:
            self._drop_old(app_id, functions)
            return

        def is_of(one: ContainerRecord | ContainerStart | Verdict | SavedTemplate) -> bool:
            return one.app_id == app_id and function_id in ("", one.function_id)

        self._saved.forget_if(is_of)

        for template in list(self._roster.live.values()):
            if is_of(template.outfit.record):
                self._roster.drop(template, "its function is gone" if function_id else "its app has ended")
            elif function_id:
                self._roster.forget(template, function_id, "its function is gone")
        self._wanted.forget(is_of)
        if function_id:
            self._roster.drop_unused(app_id, "a function of its app is gone, and nobody uses it")
            self._wanted.started_with(function_id, "")
        self._verdicts.forget_if(is_of)

    def _drop_old(self, app_id: str, functions: Mapping[str, int]) -> None:
        """What holds nothing of the functions, of an image without variables, may be of use to the next version."""
        cause = "its function was deployed anew"
        for template in list(self._roster.live.values()):
            if template.outfit.record.app_id == app_id and template.holds_some_of_its_function:
                for function_id in [name for name, user in template.users.items() if is_old(user, functions)]:
                    self._roster.forget(template, function_id, cause)
        self._roster.drop_unused(app_id, cause)
        self._saved.forget_if(lambda one: one.app_id == app_id and is_old(one, functions))
        self._wanted.forget(
            lambda one: one.app_id == app_id and is_old(one, functions) and bool(one.env or one.secrets)
        )

    async def drop_images(self, needed: Mapping[str, object], timeout_s: float) -> None:
        """Drop those of images that nobody needs: a template is no reason to keep one."""
        self._wanted.forget(lambda one: one.image_id not in needed)
        self._saved.forget_if(lambda one: one.image_id not in needed)
        # Those that are on their way out are waited for, too.
        doomed = [one for one in self._roster.there.values() if one.outfit.record.image_id not in needed]
        for template in doomed:
            self._roster.drop(template, "nobody needs its image any more")
        if doomed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await asyncio.gather(*(template.gone.wait() for template in doomed))

    @property
    def ready_count(self) -> int:
        """How many can be forked now."""
        return sum(template.is_ready for template in self._roster.live.values())

    def memory_bytes(self) -> int:
        """What all occupy; what clones share with them is counted here, once."""
        return self._roster.memory_bytes() + self._saver.checking_bytes

    def _unshared_bytes(self) -> int:
        return self._roster.unshared_bytes() + self._saver.checking_bytes

    def function_ids(self) -> tuple[str, ...]:
        """Whose containers are started from what is ready, those used last first."""
        return self._roster.function_ids(TEMPLATE_FUNCTIONS_MAX)

    async def end_all(self) -> None:
        """Drop all, and make none any more: for a node that is taken down, when its containers are gone."""
        self._is_ended = True
        await self._saver.close()
        for template in list(self._roster.live.values()):
            self._roster.drop(template, "its node is taken down")
        await self._pools.idle()
        await asyncio.gather(*(template.gone.wait() for template in list(self._roster.there.values())))

    # From making to ready

    async def _find_image(self, request: ContainerStart) -> BuiltImage | None:
        images = self._services.images
        hold = self._services.holds.begin(f"start of {request.container_id}")
        try:
            return images.find(request.image_id) or await images.get(request.image_id, hold)
        except (PlatformError, *DAMAGED):
            return None
        finally:
            hold.release()

    async def _make_wanted(self, wish: Wish) -> None:
        """Make the image template of an earlier start, if it still is of use, and wait for it."""
        key = wish.key
        if key in self._roster.live or self._is_ended or self._verdicts.find(key, self._monotonic()) is not None:
            return
        template = self._begin(key, IMAGE, wish.made_by)
        self._note_start(template, wish.request)
        await template.settled.wait()

    def _begin(self, key: str, kind: str, request: ContainerStart) -> Template:
        template = self._making.new(key, kind, request)
        self._roster.add(template)
        template.making = self._tasks.start(self._make(template))
        return template

    async def _make(self, template: Template) -> None:
        began, make_s = self._monotonic(), _make_s(template.request)
        try:
            async with asyncio.timeout(make_s):
                report = await self._bring_back(template) or await self._making.start(template)
        except SpawnerGone as error:
            # Neither its fault nor the machine's: all templates are gone, and come again.
            self._roster.drop(template, str(error))
        except ContainerMissing:
            self._roster.unfit(template, await template.why_not_ready())
        except TimeoutError:
            self._roster.unfit(
                template, f"it was not ready within {make_s:g} s; startup_timeout= of its function may be longer"
            )
        except FAILURES as error:
            self._roster.unfit(template, str(error))
        else:
            self._has_reported(template, report)
        if not template.is_brought_back:
            note = self._loads.note if template.is_ready else self._loads.not_within
            request = template.request
            note(request.function_id, self._monotonic() - began, request.follows_id)

    async def _bring_back(self, template: Template) -> TemplateReport | None:
        """What one says that was saved and has come back; None where it is to be made."""
        report = await self._saver.bring_back(template)
        if report is None and template.outfit.hold is not None:
            self._roster.rename(template, self._making.new(template.key, template.kind, template.request).outfit)
        return report

    def _has_reported(self, template: Template, report: TemplateReport) -> None:
        if template.settled.is_set():
            return
        template.memory_bytes = report.memory_bytes
        if not report.is_ready:
            cause = report.cause or "it did not say why"
            self._roster.unfit(template, cause, is_for_good=not report.has_failed)
            return
        budget = budget_bytes(self._config)
        if report.memory_bytes > budget:
            cause = (
                f"it takes {report.memory_bytes // _MIB} MiB, and all templates of its node together may take "
                f"{budget // _MIB}; start the server with a larger SQUALL_TEMPLATE_MEMORY_MIB"
            )
            template.family = ""  # an object of another size may do
            self._roster.unfit(template, cause, is_for_good=True)
            return
        self._verdicts.found_fit(template.family)
        self._wanted.is_there(template.key)
        template.state = READY
        template.settled.set()
        self._saver.begin(template, report)
        self._roster.keep_within()
        self._pools.wake()

    async def _ask(self, template: Template) -> None:
        """What it says of itself, now or when it is made."""
        try:
            async with asyncio.timeout(_make_s(template.request)):
                report = await self._making.report(template)
        except FAILURES:
            # It has ended, perhaps because it was dropped: its clones may go on.
            self._roster.drop(template, "it has ended")
        else:
            self._has_reported(template, report)


@dataclass(frozen=True, slots=True)
class _Found:
    """A start, and what is here for it."""

    request: ContainerStart
    image: BuiltImage
    library_dir: str
    until: float


def _late() -> str:
    return f"its template was not ready within {SHORT_S:g} s, and goes on being made"


def _make_s(request: ContainerStart) -> float:
    return max(MAKE_S, request.startup_timeout_s)


def _writer(runtime_id: str, outfit: Outfit, pid: int, *, is_ended: bool = False) -> Writer:
    # What is kept for clones is linked to what was written, and counted once.
    folders = (str(outfit.directory / "rw"), str(outfit.directory / FILES))
    limit = disk_limit(outfit.record.disk_mib)
    return Writer(runtime_id, folders, pid, limit, isolation=outfit.record.isolation, is_ended=is_ended)


def _used_last(templates: Iterable[NodeTemplate]) -> list[NodeTemplate]:
    return sorted(templates, key=lambda one: -one.used_at)
