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
import collections
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from squall.agent.config import FORK, PARKED, PLAIN, AgentConfig
from squall.agent.image.progress import BuiltImage
from squall.agent.known_images import DAMAGED
from squall.agent.labels import KIND_LABEL, TEMPLATE_KIND
from squall.agent.outfit import Outfit, Outfits, Services
from squall.agent.record import ContainerRecord, read_record
from squall.agent.template.cells import FAILURES, Cells
from squall.agent.template.key import TemplateKeys
from squall.agent.template.making import Making
from squall.agent.template.memory import budget_bytes, surplus, total_bytes
from squall.agent.template.pools import Pools
from squall.agent.template.record import read_template_record
from squall.agent.template.template import Cell, Template
from squall.agent.template.verdicts import Verdict, Verdicts, printable
from squall.protocol.errors import PlatformError
from squall.protocol.function import GVISOR, NAMESPACES
from squall.protocol.node import ContainerStart
from squall.protocol.task_set import TaskSet
from squall.protocol.template import (
    DROPPED,
    FUNCTION,
    IMAGE,
    NODE_TEMPLATES_MAX,
    READY,
    UNFIT,
    NodeTemplate,
)
from squall.runtime.contract import TemplateReport
from squall.runtime.errors import ContainerMissing, RuntimeFailure, SpawnerGone
from squall.runtime.spec import ContainerStatus, ExitStatus

WAIT_S = 60.0
"""How long a start waits for a function template; it is plain then, and the template goes on being made."""
MAKE_S = 600.0
"""How long one may take."""
SETTLE_S = 1.0
"""After a first container has got going, until its image template is made: the function is loaded there meanwhile."""
MAKING_AT_ONCE = 1
"""Image templates, in the background."""
EARLY_ENDS_MAX = 2
"""So many clones that end at once, one after the other: it is the template. Fewer than make the server give up a
function whose containers do not start, or an input under which they end: its next start is plain."""
ADOPT_S = 0.1
"""How long an agent that begins waits for what templates say of themselves."""
LOOK_S = 1.0
END_AGAIN_S = 10.0
_WANTED_MAX = 4_096
_MIB = 2**20

_log = logging.getLogger("squall.agent.template")


@dataclass(frozen=True, slots=True)
class Way:
    """How a container is to be started."""

    template: Template | None
    """As a fork of this one; None: plainly."""
    cause: str = ""
    """Why plainly, where it was to be a fork."""
    is_asked_for: bool = False
    """It was to be a fork."""
    wanted_key: str = ""
    """Of a template that is to be made once the container has got going."""

    def because(self, cause: str) -> Way:
        """The same with its cause, if somebody is to hear it."""
        return replace(self, cause=printable(cause)) if self.is_asked_for else self


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
        self._now = now
        self._monotonic = monotonic
        self._keys = TemplateKeys(config.data_dir, config.guest_entry)
        self._making = Making(config, services, outfits, now, monotonic)
        self.cells = Cells(config, services.runtime, outfits, monotonic)
        self._live: dict[str, Template] = {}
        """Those that are made or ready, by key."""
        self._key_of: dict[tuple[str, str], str] = {}
        """Of these, by function and kind."""
        self._there: dict[str, Template] = {}
        """All of which anything is left, by id."""
        self._to_begin: dict[str, ContainerStart] = {}
        """Image templates that are about to be made, by key."""
        self._unknown: dict[str, set[str]] = {}
        """Clones of templates that could not be taken over: what is left of these goes with the last of those."""
        self._verdicts = Verdicts()
        self._wanted: collections.OrderedDict[str, int] = collections.OrderedDict()
        """Plain starts that an image template would have been for, by key."""
        self._turn = asyncio.Semaphore(MAKING_AT_ONCE)
        self._tasks = TaskSet()
        self._is_ended = False
        self._pools = Pools(self.cells, services.runtime, monotonic, self.failed)

    def prepare(self) -> None:
        """Make keys what they were. Blocks."""
        self._keys.prepare()

    async def run(self) -> None:
        """Keep cells and clones ready, and memory within bounds, for ever."""
        await self._pools.run(lambda: tuple(self._live.values()), self._keep_within)

    async def close(self) -> None:
        """Let go of them; they live on."""
        await self._tasks.close()

    # What starts ask

    async def way(self, request: ContainerStart) -> Way:
        """How to start a container: waits for a template that is being made for its kind."""
        if self._config.start_path == PLAIN or self._is_ended:
            return Way(None)
        is_asked_for = request.is_snapshot_enabled or self._config.start_path in (FORK, PARKED)
        kind = FUNCTION if request.is_snapshot_enabled else IMAGE
        plain = Way(None, is_asked_for=is_asked_for)
        image = await self._find_image(request)
        if image is None or not image.config.python_path:
            return plain  # which says what is wrong
        if obstacle := _obstacle(request, image):
            return plain.because(obstacle)
        try:
            library_dir = await self._services.library.get(image.layers, image.config, image.image_id)
        except OSError as error:
            return plain.because(str(error))
        key = self._keys.key(kind, request, image, library_dir)
        self._supersede(request.function_id, kind, key)
        if kind == IMAGE:
            self._supersede(request.function_id, FUNCTION, "")
        template, verdict = self._live.get(key), self._verdicts.find(key, self._monotonic())
        if template is None and verdict is not None:
            plain = plain.because(verdict.cause)
            return plain if kind == IMAGE else self._before_the_function(plain, request, image, library_dir)
        if template is None and not is_asked_for:
            return self._by_image(plain, key, request)
        if template is None:
            template = self._begin(key, kind, request)
        template.request = request
        template.demand.add(self._monotonic())
        if is_asked_for:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    await template.settled.wait()
        if template.is_ready:
            if kind == FUNCTION:
                self._supersede(request.function_id, IMAGE, "")
            template.used_at = self._now()
            return replace(plain, template=template)
        late = f"its template was not ready within {WAIT_S:g} s, and goes on being made"
        plain = plain.because(template.cause or late)
        if kind == IMAGE or template.state != UNFIT:
            return plain
        return self._before_the_function(plain, request, image, library_dir)

    def _before_the_function(self, plain: Way, request: ContainerStart, image: BuiltImage, library_dir: str) -> Way:
        """What cannot be forked once its function is loaded, can be before."""
        if request.isolation != NAMESPACES:
            return plain
        key = self._keys.key(IMAGE, request, image, library_dir)
        self._supersede(request.function_id, IMAGE, key)
        return self._by_image(plain, key, request)

    def _by_image(self, plain: Way, key: str, request: ContainerStart) -> Way:
        """From the template of the image if there is one, else so that one is made; nobody waits for it."""
        template = self._live.get(key)
        if template is None:
            if self._verdicts.find(key, self._monotonic()) is not None:
                return plain
            self._note_wanted(key)
            return replace(plain, wanted_key=key)
        template.request = request
        template.demand.add(self._monotonic())
        if not template.is_ready:
            return plain
        template.used_at = self._now()
        return replace(plain, template=template)

    def has_got_going(self, request: ContainerStart, key: str) -> None:
        """A container that was started plainly has: the next ones of its kind may be forks."""
        if key in self._live or self._is_ended or self._verdicts.find(key, self._monotonic()) is not None:
            return
        is_crowded = self.memory_bytes() > budget_bytes(self._config) * 9 // 10
        if is_crowded and self._wanted.get(key, 0) < 3:
            # In its place another one would go, of a function that is used as much.
            return
        if key not in self._to_begin:
            self._to_begin[key] = request
            self._tasks.start(self._begin_later(request, key))

    @contextlib.contextmanager
    def starting(self) -> Iterator[None]:
        """While a container starts, nothing is made ahead."""
        with self._pools.starting():
            yield

    def make_room(self, wanted_mib: int, claimed_mib: int, kept: Template | None) -> None:
        """Drop templates so that a container that reserves `wanted_mib` has them, beside what others have reserved."""
        free_bytes = max(0, self._config.memory_mib - claimed_mib - wanted_mib) * _MIB
        if wanted_mib and self.memory_bytes() > free_bytes:
            self._drop_surplus(free_bytes, kept, "the node's memory was needed for a container")

    def take_parked(self, template: Template) -> Cell | None:
        """The clone that has waited longest, if one does."""
        return template.parked.popleft() if template.parked else None

    def take_cell(self, template: Template) -> Cell | None:
        """The cell that has waited longest, if one does.

        Oldest first, of both: none waits for ever, and the network of a cell has rested since its last container.
        """
        return template.cells.popleft() if template.cells else None

    def clone_began(self, template_id: str, runtime_id: str) -> None:
        """A container is a fork of this template, or about to be."""
        template = self._there.get(template_id)
        if template is not None:
            template.clones.add(runtime_id)

    def clone_ended(self, template_id: str, *, is_early: bool) -> None:
        """One has ended; `is_early` when by itself, before it had got going."""
        template = self._there.get(template_id)
        if template is None:
            return
        if is_early:
            self._count_failure(template)
        else:
            template.early_end_count = 0

    def clone_gone(self, template_id: str, runtime_id: str) -> None:
        """Nothing of it is left, or it never was."""
        template = self._there.get(template_id)
        clones = template.clones if template is not None else self._unknown.get(template_id, set())
        clones.discard(runtime_id)
        if template_id in self._unknown and not clones:
            del self._unknown[template_id]
            self._tasks.start(self._remove_left([template_id]))

    def failed(self, template: Template, error: BaseException) -> None:
        """A cell or clone of it could not be made, or has not begun."""
        _log.warning("%s: %s", template.template_id, printable(str(error) or type(error).__name__))
        self._count_failure(template)
        if template.is_ready:
            self._tasks.start(self._look(template))

    def _count_failure(self, template: Template) -> None:
        template.early_end_count += 1
        if template.early_end_count >= EARLY_ENDS_MAX and template.is_ready:
            self._unfit(template, f"{EARLY_ENDS_MAX} containers forked from it, one after the other, ended at once")

    async def _look(self, template: Template) -> None:
        """See whether it still is what it was."""
        with contextlib.suppress(RuntimeFailure, TimeoutError):
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._services.runtime.template_report(template.template_id)
            except ContainerMissing:
                self._unfit(template, "it has ended")

    # What the server asks

    def told(self) -> tuple[NodeTemplate, ...]:
        """All there are and those that cannot be, the ones used last where there are too many."""
        there = [template.told() for template in self._there.values()]
        known = {one.template_id for one in there}
        unfit = [
            NodeTemplate(
                one.template_id,
                one.app_id,
                one.function_id,
                one.kind,
                UNFIT,
                one.cause,
                made_at=one.made_at,
                used_at=one.made_at,
            )
            for one in self._verdicts
            if one.template_id not in known
        ]
        return tuple(sorted((*there, *unfit), key=lambda one: -one.used_at)[:NODE_TEMPLATES_MAX])

    def drop_ids(self, template_ids: Collection[str]) -> tuple[str, ...]:
        """Drop these, and forget the verdicts on them; returns which there were."""
        dropped = dict.fromkeys(self._verdicts.forget(template_ids))
        for template_id in template_ids:
            template = self._there.get(template_id)
            if template is not None and self._live.get(template.key) is template:
                self._drop(template, "it was asked for")
                dropped[template_id] = None
        return tuple(dropped)

    def drop_of(self, app_id: str, function_id: str = "") -> None:
        """Drop those of an app, or of one function of it, which nobody will ask for again; verdicts, too."""

        def is_of(one: ContainerRecord | ContainerStart | Verdict) -> bool:
            return one.app_id == app_id and function_id in ("", one.function_id)

        for template in list(self._live.values()):
            if is_of(template.outfit.record):
                self._drop(template, "its function is gone" if function_id else "its app has ended")
        for key in [key for key, one in self._to_begin.items() if is_of(one)]:
            del self._to_begin[key]
        self._verdicts.forget({one.template_id for one in self._verdicts if is_of(one)})

    async def drop_images(self, needed: Mapping[str, object], timeout_s: float) -> None:
        """Drop those of images that nobody needs: a template is no reason to keep one."""
        for key in [key for key, one in self._to_begin.items() if one.image_id not in needed]:
            del self._to_begin[key]
        # Those that are on their way out are waited for, too.
        doomed = [one for one in self._there.values() if one.outfit.record.image_id not in needed]
        for template in doomed:
            self._drop(template, "nobody needs its image any more")
        if doomed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await asyncio.gather(*(template.gone.wait() for template in doomed))

    @property
    def ready_count(self) -> int:
        """How many can be forked now."""
        return sum(template.is_ready for template in self._live.values())

    def memory_bytes(self) -> int:
        """What all occupy; what clones share with them is counted here, once."""
        return total_bytes(self._there.values())

    async def end_all(self) -> None:
        """Drop all, and make none any more: for a node that is taken down, when its containers are gone."""
        self._is_ended = True
        for template in list(self._live.values()):
            self._drop(template, "its node is taken down")
        await asyncio.gather(*(template.gone.wait() for template in list(self._there.values())))

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

    def _note_wanted(self, key: str) -> None:
        self._wanted[key] = self._wanted.pop(key, 0) + 1
        while len(self._wanted) > _WANTED_MAX:
            self._wanted.popitem(last=False)

    async def _begin_later(self, request: ContainerStart, key: str) -> None:
        if not self._pools.is_busy:
            await asyncio.sleep(SETTLE_S)
        async with self._turn:
            is_wanted = self._to_begin.pop(key, None) is not None
            if not is_wanted or key in self._live or self._is_ended:
                return
            if self._verdicts.find(key, self._monotonic()) is not None:
                return
            template = self._begin(key, IMAGE, request)
            template.demand.add(self._monotonic())
            await template.settled.wait()

    def _begin(self, key: str, kind: str, request: ContainerStart) -> Template:
        self._supersede(request.function_id, kind, key)
        template = self._making.new(key, kind, request)
        self._add(template)
        template.making = self._tasks.start(self._make(template))
        return template

    def _add(self, template: Template) -> None:
        self._live[template.key] = self._there[template.template_id] = template
        self._key_of[template.outfit.record.function_id, template.kind] = template.key

    async def _make(self, template: Template) -> None:
        try:
            async with asyncio.timeout(MAKE_S):
                report = await self._making.start(template)
        except SpawnerGone as error:
            # Neither its fault nor the machine's: all templates are gone, and come again.
            self._drop(template, str(error))
        except ContainerMissing:
            self._unfit(template, "it ended before it was ready")
        except TimeoutError:
            self._unfit(template, f"it was not ready within {MAKE_S:g} s")
        except FAILURES as error:
            self._unfit(template, str(error))
        else:
            self._has_reported(template, report)

    def _has_reported(self, template: Template, report: TemplateReport) -> None:
        if template.settled.is_set():
            return
        template.memory_bytes = report.memory_bytes
        if not report.is_ready:
            self._unfit(template, report.cause or "it did not say why", is_for_good=True)
            return
        budget = budget_bytes(self._config)
        if report.memory_bytes > budget:
            cause = (
                f"it takes {report.memory_bytes // _MIB} MiB, and all templates of its node together may take "
                f"{budget // _MIB} (SQUALL_TEMPLATE_MEMORY_MIB)"
            )
            self._unfit(template, cause, is_for_good=True)
            return
        self._verdicts.clear(template.key)
        self._wanted.pop(template.key, None)
        template.state = READY
        template.settled.set()
        self._keep_within()
        self._pools.wake()

    # The end

    def _keep_within(self) -> None:
        """Drop those over the budget, and those that nobody has used for long."""
        self._drop_surplus(budget_bytes(self._config), None, "the memory for templates was needed for others")
        for template in list(self._live.values()):
            if template.is_ready and self._now() - template.used_at > self._config.template_idle_s:
                self._drop(template, "nobody has used it for long")

    def _drop_surplus(self, bytes_max: int, kept: Template | None, cause: str) -> None:
        for template in surplus(self._live.values(), bytes_max, kept):
            self._drop(template, cause)

    def _supersede(self, function_id: str, kind: str, key: str) -> None:
        before = self._key_of.get((function_id, kind), key)
        if before != key:
            self._drop(self._live[before], "its function is another one now: code, image, secrets or options are new")

    def _drop(self, template: Template, cause: str) -> None:
        self._leave(template, DROPPED, cause)

    def _unfit(self, template: Template, cause: str, *, is_for_good: bool = False) -> None:
        if self._live.get(template.key) is template:
            self._verdicts.add(template, printable(cause), self._monotonic(), is_for_good=is_for_good)
            self._leave(template, UNFIT, cause)

    def _leave(self, template: Template, state: str, cause: str) -> None:
        """It is forked no more."""
        if self._live.get(template.key) is not template:
            return
        del self._live[template.key]
        self._key_of.pop((template.outfit.record.function_id, template.kind), None)
        template.state, template.cause = state, printable(cause)
        template.settled.set()
        _log.info("%s is %s: %s", template.template_id, state, template.cause)
        self._tasks.start(self._end(template))

    async def _end(self, template: Template) -> None:
        """Remove what was made ahead, then the template, and return when nothing of it is left."""
        making = template.making
        if making is not None and not making.done():
            making.cancel()
            await asyncio.wait([making])
        ahead = [*template.parked, *template.cells]
        template.parked.clear()
        template.cells.clear()
        await asyncio.gather(*(self.cells.discard(cell) for cell in ahead))
        while not template.gone.is_set():
            if not template.is_up or template.has_exited:
                await self._bury(template)
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

    async def _bury(self, template: Template) -> None:
        if self._there.pop(template.template_id, None) is not None:
            self._services.logs.finish(template.template_id)
            await self._outfits.give_back(template.outfit)
            template.gone.set()

    def ended(self, runtime_id: str, status: ExitStatus | None) -> None:
        """Something has that is no container: a template, or a clone that was parked. None: its spawner has died."""
        template = self._there.get(runtime_id)
        if template is None:
            self._waiting_ended(runtime_id, is_lost=status is None)
            return
        template.has_exited = True
        if status is None:
            self._drop(template, "the process that makes containers has ended, and all templates with it")
        elif not template.settled.is_set() and template.making is not None:
            return  # what waits for its report says why
        else:
            self._unfit(template, f"it has ended by itself ({_in_words(status)})")
        self._tasks.start(self._bury(template))

    def _waiting_ended(self, cell_id: str, *, is_lost: bool) -> None:
        for template in self._there.values():
            for waiting in (template.parked, template.cells):
                for cell in waiting:
                    if cell.cell_id == cell_id:
                        waiting.remove(cell)
                        self._tasks.start(self.cells.discard(cell))
                        if not is_lost:
                            self._count_failure(template)
                        return

    def find_lost(self, there: Collection[str]) -> None:
        """Take those for ended that the runtime does not know any more."""
        for template in list(self._there.values()):
            if template.is_up and not template.has_exited and template.template_id not in there:
                self.ended(template.template_id, None)
            for cell in (*template.parked, *template.cells):
                if cell.cell_id not in there:
                    self.ended(cell.cell_id, None)

    # Adoption

    async def adopt(self, statuses: Sequence[ContainerStatus]) -> set[str]:
        """Take over an earlier agent's templates, all at once; what it had made ahead is removed, and made anew.

        Returns:
            What is seen to here, by the runtime's ids.
        """
        found = [status.container_id for status in statuses if status.labels.get(KIND_LABEL) == TEMPLATE_KIND]
        clones = self._clones_of([status for status in statuses if not status.is_prepared])
        taken = await asyncio.gather(*(self._adopt_one(one, clones.get(one, set())) for one in found))
        self._tasks.start(self._remove_left([status.container_id for status in statuses if status.is_prepared]))
        templates = [template for template in taken if template is not None]
        waits = [template.making for template in templates if template.making is not None]
        if waits:
            await asyncio.wait(waits, timeout=ADOPT_S)
        if self._config.start_path == PLAIN:
            for template in templates:
                self._drop(template, "this node starts all containers plainly")
        kept = {template.template_id for template in templates}
        for template_id in set(found) & clones.keys() - kept:
            # Nobody knows what it is; but to remove it would be the end of containers that run.
            with contextlib.suppress(RuntimeFailure):
                await self._services.runtime.kill(template_id, signal.SIGTERM)
            self._unknown[template_id] = clones[template_id]
            kept.add(template_id)
        return kept | {status.container_id for status in statuses if status.is_prepared}

    def _clones_of(self, statuses: Sequence[ContainerStatus]) -> dict[str, set[str]]:
        """Ids of the containers that are forks of each template: known before any template may be ended, because one
        with clones is ended so that they live on."""
        found: dict[str, set[str]] = {}
        for status in statuses:
            record = read_record(self._config.containers_dir / status.container_id)
            if record is not None and record.template_id:
                found.setdefault(record.template_id, set()).add(status.container_id)
        return found

    async def _adopt_one(self, template_id: str, clones: set[str]) -> Template | None:
        directory = self._config.containers_dir / template_id
        record, known = read_record(directory), read_template_record(directory)
        if record is None or known is None:
            return None
        try:
            template = await self._making.adopt(record, known)
        except (RuntimeFailure, OSError) as error:
            _log.warning("%s: cannot be adopted: %s", template_id, error)
            return None
        template.clones |= clones
        earlier = self._live.get(known.key) or self._live.get(self._key_of.get((record.function_id, known.kind), ""))
        if earlier is not None and earlier.made_at > template.made_at:
            # It was being dropped.
            self._there[template_id] = template
            template.state, template.cause = DROPPED, "a newer one took its place"
            template.settled.set()
            self._tasks.start(self._end(template))
            return template
        if earlier is not None:
            self._drop(earlier, "a newer one took its place")
        self._add(template)
        template.making = self._tasks.start(self._ask(template))
        return template

    async def _ask(self, template: Template) -> None:
        """What it says of itself, now or when it is made."""
        try:
            async with asyncio.timeout(MAKE_S):
                report = await self._services.runtime.template_report(template.template_id)
        except (RuntimeFailure, TimeoutError):
            # It has ended, perhaps because it was dropped: its clones may go on.
            self._drop(template, "it has ended")
        else:
            self._has_reported(template, report)

    async def _remove_left(self, cell_ids: Sequence[str]) -> None:
        """Remove what an earlier agent had made ahead, or a template of its that is of no use."""
        for cell_id in cell_ids:
            directory = self._config.containers_dir / cell_id
            record = read_record(directory)
            if record is not None:
                # Of another name only where a container was about to begin in it.
                await self._outfits.give_back(Outfit(record, directory))
            else:
                await self._services.runtime.remove(cell_id)


def _obstacle(request: ContainerStart, image: BuiltImage) -> str:
    """Why containers of this kind are no forks; empty if they may be."""
    if request.isolation == GVISOR and not request.is_snapshot_enabled:
        return "a container under gVisor is restored from a memory snapshot, and its function has none"
    if image.config.entrypoint:
        return "its image has an entrypoint, which is to start what runs in it; clear it with .entrypoint([])"
    return ""


def _in_words(status: ExitStatus) -> str:
    ending = f"exit code {status.code}" if status.signal is None else f"signal {status.signal}"
    return ending + (", out of memory" if status.is_oom else "")
