"""The volumes of this node's containers: mounted, committed, and given other versions.

    <data>/volumes/trees/       trees of versions, for the kernel (`trees.py`)
    <data>/volumes/contents/    what is in the files (`contents.py`)
    <data>/volumes/written/     what containers have written (`holder.py`)
    <data>/volumes/gone/        on its way out
    <data>/volumes/lost/        what was written, and a crash of the machine may have torn (`lost.py`)

What a container has written stays until it is in a commit: it outlives the container, the agent and the spawner, and is
committed by the next agent if need be. After a crash of the machine it is not: what is there by then may be torn, or
missing, and nobody can tell from what the container did.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

from squall.agent.disk import Space, space_of
from squall.agent.volume.aside import aside
from squall.agent.volume.commit import CHANGED, OPEN, Committer, Written
from squall.agent.volume.contents import VolumeContents
from squall.agent.volume.hold import VolumeHold
from squall.agent.volume.holder import Holder, HolderRecords, Mounted, WrittenRecord
from squall.agent.volume.lost import LostWrites
from squall.agent.volume.source import PeerVolumes
from squall.agent.volume.trees import VolumeTrees
from squall.agent.volume.upper import TooManyWritten
from squall.protocol.errors import CONFLICT, NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.records import replace
from squall.protocol.task_set import TaskSet
from squall.protocol.volume import VolumeHeld, VolumeMount, VolumeStart, VolumeVersion
from squall.runtime.contract import Runtime
from squall.runtime.errors import ContainerMissing, RuntimeFailure, SpawnerGone, SubPathMissing, VolumeBusy
from squall.runtime.removal import remove_tree
from squall.runtime.spec import IdRange, Volume

R = TypeVar("R")

BACKGROUND_S = 5.0
"""Between two looks at what a container has written."""
SERVED_AT_ONCE = 4
"""Containers that are looked at in the background: one that has written much does not keep the others waiting."""
WALK_SHARE = 20
"""A look that takes long is taken less often: this many times as long lies between two."""
LAST_TRIES_S = (0.0, 0.5, 2.0, 5.0)
"""Of the commit when a container ends; after these it is left to the background, and to the next agent."""
RELOAD_TRIES = 5
"""Of a reload of what the container writes to meanwhile."""
BUSY_TRIES = 5
BUSY_PAUSE_S = 0.02
"""Between attempts to swap a version while walks through the old one are under way."""
UNSTEADY_MAX = 3
"""Commits in the background that said nothing of what is gone; the next one freezes the container for that."""
EVICT_S = 600.0
END_AGAIN_S = 30.0
"""Between attempts to commit what could not be committed, and what a container has left."""
REFUSED_AGAIN_S_MAX = 3_600.0
"""The same, each time twice as long, where a server refuses it."""
FREEZE_S = 10.0
"""A container that cannot be frozen in that time, as it waits for a disk, goes on, and whoever asked is told."""

_log = logging.getLogger("squall.agent.volume.volumes")


def again_s(refused_count: int) -> float:
    """How long to wait after a commit that failed, of which so many were refused."""
    longest_s = max(END_AGAIN_S, REFUSED_AGAIN_S_MAX)
    return float(min(longest_s, END_AGAIN_S * 2 ** min(20, max(0, refused_count - 1))))


def places_of(starts: Sequence[VolumeStart]) -> tuple[Volume, ...]:
    """Volumes of a container that nobody knows yet: where they will be."""
    return tuple(
        Volume(str(index), start.mount.target, "", "", "", start.mount.sub_path) for index, start in enumerate(starts)
    )


class NodeVolumes:
    """All of them. Used by one agent at a time; `run` is to be awaited, and `stop` when nobody asks any more.

    Args:
        on_held: told when it changes which versions this node needs (`held`).
        say: takes a line for the log of whoever a container belongs to.
    """

    def __init__(
        self,
        directory: Path,
        source: PeerVolumes,
        runtime: Runtime,
        executor: Executor,
        on_held: Callable[[tuple[VolumeHeld, ...]], None] = lambda held: None,
        say: Callable[[str, str], None] = lambda container_id, line: None,
        monotonic: Callable[[], float] = time.monotonic,
        space: Callable[[Path], Space] = space_of,
    ) -> None:
        self._directory = directory
        self._source = source
        self._runtime = runtime
        self._executor = executor
        self._monotonic = monotonic
        self._lost = LostWrites(directory / "lost", space)
        self._records = HolderRecords(directory / "written", directory / "gone", self._lost)
        self._contents = VolumeContents(directory / "contents", source, executor, space)
        self._trees = VolumeTrees(directory / "trees", source, self._contents, executor, self._roots)
        self._committer = Committer(source, executor, directory)
        self._holders: dict[str, Holder] = {}
        self._serving: dict[str, asyncio.Future[Any]] = {}
        """Looks in the background that are under way."""
        self._turn = asyncio.Semaphore(SERVED_AT_ONCE)
        self._tasks = TaskSet()
        self._held: tuple[VolumeHeld, ...] = ()
        self._holds: set[VolumeHold] = set()
        self._is_stopped = False
        self._on_held = on_held
        self._say = say

    def prepare(self) -> None:
        """Take stock, and find what earlier containers have written. Blocks."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._trees.prepare(is_new_boot=self._contents.prepare())
        for holder in self._records.prepare():
            # Until somebody takes it over.
            holder.is_gone = holder.is_inherited = True
            self._holders[holder.runtime_id] = holder
        self._trees.take_up()
        self._held = self.held()

    async def stop(self) -> None:
        """Break off what is under way; the next agent finds all of it."""
        self._is_stopped = True
        await self._tasks.close()

    def held(self) -> tuple[VolumeHeld, ...]:
        """Versions that containers have mounted or are about to, or have written to what is in no commit yet."""
        found = {(one.record.volume_id, one.record.version) for one in self._all()}
        found |= {(one.mount.volume_id, one.version) for hold in self._holds for one in hold.starts}
        return tuple(VolumeHeld(*one) for one in sorted(found))

    @contextlib.contextmanager
    def holding(self) -> Iterator[VolumeHold]:
        """Meanwhile what a start has fetched stays, by whichever path it comes about."""
        hold = VolumeHold(self._trees, self._tell_held)
        self._holds.add(hold)
        try:
            yield hold
        finally:
            self._holds.discard(hold)
            if hold.starts:
                self._tell_held()

    def _all(self) -> list[Mounted]:
        return [one for holder in self._holders.values() for one in holder.volumes]

    def _roots(self) -> set[str]:
        return {one.record.root for one in self._all()} | {one.root for hold in self._holds for one in hold.starts}

    def _tell_held(self) -> None:
        self._trees.used_are_others()
        held = self.held()
        if held != self._held:
            self._held = held
            self._on_held(held)

    # Containers that come and go

    async def open(
        self, runtime_id: str, starts: Sequence[VolumeStart], id_range: IdRange, container_id: str
    ) -> tuple[Volume, ...]:
        """What the runtime is to mount for a container that is to start.

        Raises:
            PlatformError: a version cannot be had.
            OSError: the disk takes no more.
        """
        # Known from now on: what it is to have is not taken away meanwhile.
        holder = self._holders[runtime_id] = Holder(runtime_id, id_range, container_id)
        try:
            return await self._open(holder, starts)
        except BaseException:
            self._holders.pop(runtime_id, None)
            raise
        finally:
            self._tell_held()

    async def make_ready(self, runtime_id: str) -> None:
        """Somebody may open volumes by this name later; else it is closed.

        Raises:
            OSError: the disk takes no more.
        """
        await self._aside(lambda: self._records.make(runtime_id))

    async def _open(self, holder: Holder, starts: Sequence[VolumeStart]) -> tuple[Volume, ...]:
        made = []
        for index, start in enumerate(starts):
            mount = start.mount
            is_read_only = mount.is_read_only or mount.version is not None
            one = WrittenRecord(
                mount.volume_id, str(index), mount.target, start.version, 0, is_read_only, mount.sub_path, start.root
            )
            mounted = await self._mounted(holder, one)
            holder.volumes.append(mounted)
            image = await self._trees.image(mount.volume_id, start.version, start.root)
            made.append(self._volume(holder, one, image))
        try:
            await self._aside(lambda: self._records.write(holder))
        except BaseException:
            # It will not be: the next agent is to find nothing of it.
            await self._aside(lambda: self._records.discard(holder))
            raise
        return tuple(made)

    async def open_now(
        self, runtime_id: str, mounts: Sequence[VolumeMount], id_range: IdRange, writer: str
    ) -> tuple[Volume, ...]:
        """See `agent.image.step_container.StepVolumes`."""
        starts = []
        for mount in mounts:
            version = await self._source.version(mount.volume_id, mount.version)
            starts.append(VolumeStart(mount, version.number, version.root))
        return await self.open(runtime_id, starts, id_range, writer)

    async def close_now(self, runtime_id: str) -> bool:
        """See `agent.image.step_container.StepVolumes`."""
        holder = self._holders.get(runtime_id)
        if holder is None:
            return True
        holder.is_gone = True
        if not self._source.is_connected or self._is_stopped:
            return False
        # Whoever waits may go: what was begun is brought to its end, or found by the next agent.
        await asyncio.shield(self._tasks.start(self.close(runtime_id)))
        return self._holders.get(runtime_id) is not holder

    def adopt(self, runtime_id: str, id_range: IdRange) -> None:
        """A container of an earlier agent lives on."""
        holder = self._holders.get(runtime_id)
        if holder is not None:
            holder.is_gone, holder.id_range = False, id_range

    async def close(self, runtime_id: str) -> None:
        """A container is gone: commit what it has written, and let go of it. What cannot be committed now is kept, and
        tried again."""
        holder = self._holders.get(runtime_id)
        if holder is None:
            self._records.unmake(runtime_id)
            return
        holder.is_gone = True
        for pause_s in LAST_TRIES_S:
            await asyncio.sleep(pause_s)
            if await self._is_finished(holder):
                return
        _log.warning("%s: what it wrote to volumes is kept until it can be committed", runtime_id)

    async def _is_finished(self, holder: Holder) -> bool:
        """Commit the last of it, or put it aside after a crash of the machine; whether nothing is left."""
        async with holder.lock:
            if self._holders.get(holder.runtime_id) is not holder:
                return True
            written = holder.written()
            why = "the machine ended before it was committed" if holder.is_of_earlier_boot else ""
            done = [True if why else await self._is_committed(holder, one) for one in written]
            if all(done) and any(one.is_too_much for one in written):
                why = "no version can have it"
            if why:
                done.append(await self._is_set_aside(holder, why))
            if not all(done):
                holder.next_try = self._monotonic() + again_s(max((one.refused_count for one in written), default=0))
                return False
            del self._holders[holder.runtime_id]
            self._tell_held()
            # Nobody reads what is being removed, and takes it for what the container did.
            for one in written:
                await one.close()
            await self._aside(lambda: self._records.discard(holder))
        return True

    async def _is_set_aside(self, holder: Holder, why: str) -> bool:
        """What a crash of the machine has left of it would take from versions what others see in them, and some of it
        nobody can commit: it is for a person to look at."""
        try:
            said = await self._aside(lambda: self._records.set_aside(holder, why))
        except OSError as error:
            _log.error("%s: what it wrote to volumes cannot be put aside: %s", holder.runtime_id, error)
            return False
        if said:
            self._say(holder.container_id, said)
        return True

    async def _is_committed(self, holder: Holder, written: Written) -> bool:
        """Commit the last of one volume; True also when the volume is there no more."""
        what = f"{holder.runtime_id}: what it wrote to volume {written.volume_id}"
        try:
            await self._committer.commit(written, "at the end")
        except TooManyWritten:
            written.is_too_much = True
            return True
        except PlatformError as error:
            if error.code == NOT_FOUND and await self._is_deleted(written.volume_id):
                _log.warning("%s goes with it: it was deleted", what)
                return True
            _log.warning("%s cannot be committed now: %s", what, error)
            self._refused(written, error)
            return False
        except OSError as error:
            _log.error("%s cannot be read: %s", what, error)
            return False
        written.refused_count = 0
        return True

    def _refused(self, written: Written, error: Exception) -> None:
        """Whoever wrote it hears of it, once until it is taken: else all they know is that their function returned."""
        if not isinstance(error, PlatformError) or error.code == UNAVAILABLE:
            return
        if not written.refused_count:
            what = f"what was written to {written.target} (volume {written.volume_id}) is not committed"
            self._say(written.container_id, f"{what}: {error}. It is kept on the node, and tried again")
        written.refused_count += 1

    async def _is_deleted(self, volume_id: str) -> bool:
        try:
            await self._source.newest(volume_id)
        except PlatformError as error:
            return error.code == NOT_FOUND
        return False

    # While they run

    def written_dir(self, runtime_id: str) -> str:
        """Where a container writes on volumes; empty when it does not."""
        holder = self._holders.get(runtime_id)
        return str(self._records.directory_of(holder)) if holder is not None and holder.written() else ""

    async def commit(self, runtime_id: str, volume_id: str) -> VolumeVersion | None:
        """Commit what a container has written to a volume, frozen while it is captured; None when nothing has changed.

        Raises:
            PlatformError: `not_found` when it has not mounted it; as of a commit.
        """
        holder = self._find(runtime_id, volume_id)
        version = None
        async with holder.lock:
            for mounted in holder.of(volume_id):
                if mounted.written is None:
                    raise PlatformError(CONFLICT, f"cannot commit volume {volume_id}: it is mounted read-only")
                made = await self._committer.commit(
                    mounted.written, "commit", freeze=lambda: self._frozen(holder.runtime_id)
                )
                version = made or version
        return version

    async def settle(self, runtime_id: str) -> dict[str, VolumeVersion]:
        """Commit what a container has written to its volumes; the number and root of each as it sees it then.

        Raises:
            PlatformError, OSError: as of a commit.
        """
        holder = self._holders.get(runtime_id)
        seen = {}
        for mounted in list(holder.volumes) if holder is not None else ():
            volume_id, made = mounted.record.volume_id, None
            if mounted.written is not None:
                made = await self.commit(runtime_id, volume_id)
            seen[volume_id] = made or VolumeVersion(mounted.record.version, root=mounted.record.root)
        return seen

    async def reload(self, runtime_id: str, volume_id: str) -> VolumeVersion:
        """Let a container see the newest version of a volume. What it has written is committed before.

        Whoever asked may go meanwhile: what was begun is brought to its end.

        Raises:
            PlatformError: `conflict` while it has files of it open.
        """
        return await asyncio.shield(self._tasks.start(self._reload(runtime_id, volume_id)))

    async def _reload(self, runtime_id: str, volume_id: str) -> VolumeVersion:
        holder = self._find(runtime_id, volume_id)
        async with holder.lock:
            for _ in range(RELOAD_TRIES):
                old = self._find(runtime_id, volume_id).of(volume_id)
                for mounted in old:
                    if mounted.written is not None:
                        await self._committer.commit(mounted.written, "before a reload", is_patient=True)
                newest = await self._source.newest(volume_id)
                if await self._is_swapped(holder, old, newest):
                    return newest
        message = f"cannot reload volume {volume_id}: the container writes to it all the time; try again when it rests"
        raise PlatformError(CONFLICT, message)

    async def _is_swapped(self, holder: Holder, old: list[Mounted], newest: VolumeVersion) -> bool:
        """False where the container has written something that this version does not have."""
        # Also where it has that version: whether open files are in the way is not to depend on what others do.
        last = old[-1].record
        new = replace(last, version=newest.number, number=last.number + 1, root=newest.root)
        fresh = await self._mounted(holder, new)
        image = await self._trees.image(last.volume_id, newest.number, newest.root)
        volume = self._volume(holder, new, image)
        # Before it is mounted: what is written there is found whatever happens next.
        holder.volumes.append(fresh)
        self._tell_held()
        # Until it is known which of them is mounted, all stay.
        gone: list[Mounted] = []
        try:
            await self._aside(lambda: self._records.write(holder))
            is_swapped = await self._swap_frozen(holder, old, volume)
            gone = old if is_swapped else [fresh]
        except SpawnerGone as error:
            raise PlatformError(UNAVAILABLE, str(error)) from error
        except (PlatformError, OSError):
            gone = [fresh]
            raise
        finally:
            await self._let_go(holder, gone)
        return is_swapped

    async def _swap_frozen(self, holder: Holder, old: Sequence[Mounted], volume: Volume) -> bool:
        """
        Raises:
            PlatformError, OSError: the one that was there is still mounted.
            SpawnerGone: nobody knows which.
        """
        for attempt in range(BUSY_TRIES):
            try:
                async with self._frozen(holder.runtime_id):
                    # Whatever it has written since the commit before would be gone. It is not put while it is frozen.
                    for written in [one.written for one in old if one.written is not None]:
                        left = await self._committer.look(written)
                        if left == OPEN:
                            raise VolumeBusy("files of it are open for writing")
                        if left == CHANGED:
                            return False
                    await self._runtime.swap_volume(holder.runtime_id, volume)
                return True
            except VolumeBusy as error:
                if attempt == BUSY_TRIES - 1:
                    what = "files on it are open, or mapped, or a process is in it; close them and try again"
                    raise PlatformError(CONFLICT, f"cannot reload volume {volume.target}: {what}") from error
            except SpawnerGone:
                raise
            except ContainerMissing as error:
                raise PlatformError(NOT_FOUND, str(error)) from error
            except SubPathMissing as error:
                raise PlatformError(CONFLICT, f"cannot reload: {error}") from error
            except RuntimeFailure as error:
                raise PlatformError(UNAVAILABLE, str(error)) from error
            if volume.writable:
                await self._aside(lambda: remove_tree(volume.writable))
            await asyncio.sleep(BUSY_PAUSE_S)
        return False

    async def _let_go(self, holder: Holder, gone: Sequence[Mounted]) -> None:
        """Of versions that a container does not have any more; all that it wrote there is in commits."""
        if not gone:
            return
        holder.volumes = [one for one in holder.volumes if one not in gone]
        self._tell_held()
        for one in gone:
            if one.written is not None:
                await one.written.close()
        try:
            await self._aside(lambda: self._records.write(holder))
        except OSError as error:
            # It says more than there is, then: nothing is found there.
            _log.warning("%s: which versions of volumes it has cannot be written down: %s", holder.runtime_id, error)
        for one in gone:
            await self._aside(functools.partial(self._records.discard_upper, holder, one.record))

    @contextlib.asynccontextmanager
    async def _frozen(self, runtime_id: str) -> AsyncIterator[None]:
        """Meanwhile nothing in the container runs."""
        try:
            await self._freeze(runtime_id)
            yield
        finally:
            # Also when freezing was given up in the middle.
            with contextlib.suppress(ContainerMissing):
                await self._runtime.thaw(runtime_id)

    async def _freeze(self, runtime_id: str) -> None:
        try:
            async with asyncio.timeout(FREEZE_S):
                await self._runtime.freeze(runtime_id)
        except TimeoutError:
            message = f"{runtime_id} could not be frozen in {FREEZE_S:.0f} s: a process of it waits for a disk"
            raise PlatformError(UNAVAILABLE, f"{message}; try again") from None
        except ContainerMissing as error:
            raise PlatformError(NOT_FOUND, str(error)) from error

    def _find(self, runtime_id: str, volume_id: str) -> Holder:
        holder = self._holders.get(runtime_id)
        if holder is None or not holder.of(volume_id):
            raise PlatformError(NOT_FOUND, f"volume {volume_id} is not mounted in this container")
        return holder

    async def _mounted(self, holder: Holder, one: WrittenRecord) -> Mounted:
        mounted = await self._aside(lambda: self._records.mounted(holder, one))
        mounted.next_look = self._monotonic() + BACKGROUND_S
        return mounted

    def _volume(self, holder: Holder, one: WrittenRecord, image: Path) -> Volume:
        writable = "" if one.is_read_only else str(self._records.upper(holder.runtime_id, one))
        return Volume(one.name, one.target, str(image), self._contents.directory, writable, one.sub_path)

    # In the background

    async def evict(self) -> None:
        """Remove trees that nobody has mounted, and, when the disk is short, contents and at last what is lost."""
        try:
            await self._trees.evict()
            count = await self._contents.evict()
            await self._aside(self._lost.make_room)
        except OSError as error:
            _log.warning("what nobody uses of volumes cannot be removed: %s", error)
        else:
            if count:
                _log.info("%d contents of volumes that nobody used are gone: the disk is short", count)

    async def run(self) -> None:
        """Commit in the background, for ever; also what earlier containers have left."""
        evict_at = self._monotonic() + EVICT_S
        self._tasks.start(self._aside(self._lost.say))
        while True:
            if self._monotonic() > evict_at:
                evict_at = self._monotonic() + EVICT_S
                await self.evict()
            await asyncio.sleep(BACKGROUND_S / 5)
            now = self._monotonic()
            due = [one for one in self._holders.values() if one.is_due(now) and one.runtime_id not in self._serving]
            living = await self._living() if any(holder.is_gone for holder in due) else None
            for holder in due:
                served = self._serving[holder.runtime_id] = self._tasks.start(self._serve_one(holder, living))
                served.add_done_callback(functools.partial(self._served, holder.runtime_id))

    def _served(self, runtime_id: str, served: asyncio.Future[Any]) -> None:
        self._serving.pop(runtime_id, None)

    async def _living(self) -> frozenset[str] | None:
        """Containers that the runtime has; None when it does not say."""
        try:
            return frozenset(status.container_id for status in await self._runtime.list())
        except (RuntimeFailure, OSError):
            return None

    async def _serve_one(self, holder: Holder, living: frozenset[str] | None) -> None:
        async with self._turn:
            try:
                await self._serve(holder, living)
            except Exception:  # noqa: BLE001 - it is tried again, and nobody else hears of it
                _log.exception("%s: what it wrote to volumes is not committed", holder.runtime_id)
                holder.next_try = self._monotonic() + END_AGAIN_S

    async def _serve(self, holder: Holder, living: frozenset[str] | None) -> None:
        if holder.is_gone:
            # One that cannot be taken over just now still writes.
            if self._source.is_connected and living is not None and holder.runtime_id not in living:
                await self._is_finished(holder)
            return
        if holder.is_inherited:
            with contextlib.suppress(ContainerMissing):
                await self._runtime.thaw(holder.runtime_id)
            holder.is_inherited = False
        for mounted in list(holder.volumes):
            await self._look(holder, mounted)

    async def _commit_behind(self, holder: Holder, written: Written) -> None:
        if written.unsteady_count < UNSTEADY_MAX:
            await self._committer.commit(written, "background", is_patient=True)
            return
        # It makes and renames files all the time: what is gone is seen only while it does not.
        async with holder.lock:
            await self._committer.commit(
                written, "background", freeze=lambda: self._frozen(holder.runtime_id), is_patient=True
            )

    async def _look(self, holder: Holder, mounted: Mounted) -> None:
        now = self._monotonic()
        if mounted.written is None or now < mounted.next_look or mounted.written.lock.locked():
            return
        pause_s = BACKGROUND_S
        try:
            await self._commit_behind(holder, mounted.written)
        except (PlatformError, OSError) as error:
            # Some of it never goes: that is not said all the time.
            self._refused(mounted.written, error)
            pause_s = again_s(mounted.written.refused_count)
            _log.warning("%s: what it wrote to a volume is not committed yet: %s", holder.runtime_id, error)
        else:
            mounted.written.refused_count = 0
        mounted.next_look = self._monotonic() + max(pause_s, WALK_SHARE * mounted.written.walk_s)

    async def _aside(self, work: Callable[[], R]) -> R:
        return await aside(self._executor, work)
