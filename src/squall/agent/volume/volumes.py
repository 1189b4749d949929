"""The volumes of this node's containers: mounted, committed, and given other versions.

    <data>/volumes/trees/<root>.erofs, .names     the tree of a version, for the kernel; which contents it has
    <data>/volumes/contents/…                     what is in the files (`contents.py`)
    <data>/volumes/written/<id>/record.json       of a container: which volumes, and on which versions it writes
    <data>/volumes/written/<id>/<name>-<number>/  an upper; with .json, what of it has been in a commit
    <data>/volumes/gone/                          on its way out

What a container has written stays until it is in a commit: it outlives the container, the agent and the spawner, and is
committed by the next agent if need be.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

from squall.agent.disk import Space, space_of
from squall.agent.volume.commit import Committer, Written
from squall.agent.volume.contents import VolumeContents
from squall.agent.volume.source import PeerVolumes
from squall.agent.volume.tree_image import content_of, write_tree_image
from squall.agent.volume.upper import Fingerprint
from squall.protocol.errors import CONFLICT, NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.records import from_wire, record, to_wire
from squall.protocol.volume import VolumeChange, VolumeMount, VolumeStart, VolumeVersion
from squall.runtime.contract import Runtime
from squall.runtime.errors import ContainerMissing, RuntimeFailure, VolumeBusy
from squall.runtime.removal import remove_tree
from squall.runtime.spec import IdRange, Volume

BACKGROUND_S = 5.0
"""Between two looks at what a container has written."""
WALK_SHARE = 20
"""A look that takes long is taken less often: this many times as long lies between two."""
LAST_TRIES_S = (0.0, 0.5, 2.0, 5.0)
"""Of the commit when a container ends; after these it is left to the background, and to the next agent."""
RELOAD_TRIES = 5
"""Of a reload of what the container writes to meanwhile."""
BUSY_TRIES = 5
BUSY_PAUSE_S = 0.02
"""Between attempts to swap a version while walks through the old one are under way."""
_IMAGE, _NAMES, _EMPTY = ".erofs", ".names", "empty"
EVICT_S = 600.0
END_AGAIN_S = 30.0
"""Between attempts to commit what could not be committed, and what a container has left."""
FREEZE_S = 10.0
"""A container that cannot be frozen in that time, as it waits for a disk, goes on, and whoever asked is told."""

_log = logging.getLogger("squall.agent.volume.volumes")


@record
class WrittenRecord:
    """One volume of a container, as it is written down."""

    volume_id: str
    name: str
    target: str
    version: int
    number: int
    """How many versions it has had before."""
    is_read_only: bool = False
    sub_path: str = ""
    root: str = ""
    """What the tree of the version is called."""


@dataclass(slots=True)
class _Mounted:
    """One volume of a container."""

    record: WrittenRecord
    written: Written | None
    """None of a read-only one."""
    next_look: float = 0.0


@dataclass(slots=True)
class _Holder:
    """A container with volumes."""

    runtime_id: str
    id_range: IdRange
    container_id: str
    volumes: list[_Mounted] = field(default_factory=list)
    is_gone: bool = False
    is_inherited: bool = False
    """From an earlier agent, which may have left it frozen; not served yet."""
    next_try: float = 0.0
    """After a failure."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One freezes it at a time."""


class NodeVolumes:
    """All of them. Used by one agent at a time."""

    def __init__(
        self,
        directory: Path,
        source: PeerVolumes,
        runtime: Runtime,
        executor: Executor,
        monotonic: Callable[[], float] = time.monotonic,
        space: Callable[[Path], Space] = space_of,
    ) -> None:
        self._trees = directory / "trees"
        self._written = directory / "written"
        self._gone = directory / "gone"
        self._source = source
        self._runtime = runtime
        self._executor = executor
        self._monotonic = monotonic
        self._contents = VolumeContents(directory / "contents", source, executor, space)
        self._committer = Committer(source, executor)
        self._holders: dict[str, _Holder] = {}
        self._making: dict[str, asyncio.Lock] = {}
        self._names: dict[str, frozenset[str]] = {}
        """Of each tree that is used, or being made, the names of its contents."""
        self._contents.in_use = self._in_use

    def prepare(self) -> None:
        """Take stock, and find what earlier containers have written. Blocks."""
        for path in (self._trees.parent, self._trees, self._written, self._gone):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._gone.iterdir():
            _remove(path)
        for path in self._trees.glob("*.new"):
            path.unlink()
        self._contents.prepare()
        for path in self._written.iterdir():
            holder = self._read(path)
            if holder is not None:
                # Until somebody takes it over.
                holder.is_gone = holder.is_inherited = True
                self._holders[path.name] = holder
            elif any(one.is_dir() for one in path.iterdir()):
                lost = self._trees.parent / "lost"
                lost.mkdir(mode=0o700, exist_ok=True)
                os.rename(path, lost / f"{path.name}-{secrets.token_hex(4)}")
                _log.error("what %s wrote to volumes is kept in %s, and is not committed", path.name, lost)
            else:
                remove_tree(str(path))

    # Containers that come

    async def open(
        self, runtime_id: str, starts: Sequence[VolumeStart], id_range: IdRange, container_id: str
    ) -> tuple[Volume, ...]:
        """What the runtime is to mount for a container that is to start.

        Raises:
            PlatformError: a version cannot be had.
            OSError: the disk takes no more.
        """
        # Known from now on: what it is to have is not taken away meanwhile.
        holder = self._holders[runtime_id] = _Holder(runtime_id, id_range, container_id)
        try:
            return await self._open(holder, starts)
        except BaseException:
            self._holders.pop(runtime_id, None)
            raise

    async def _open(self, holder: _Holder, starts: Sequence[VolumeStart]) -> tuple[Volume, ...]:
        made = []
        for index, start in enumerate(starts):
            mount = start.mount
            is_read_only = mount.is_read_only or mount.version is not None
            one = WrittenRecord(
                mount.volume_id, str(index), mount.target, start.version, 0, is_read_only, mount.sub_path, start.root
            )
            holder.volumes.append(self._mounted(holder, one))
            image = await self._tree(mount, start.version, start.root)
            made.append(self._volume(holder.runtime_id, one, image))
        self._write(holder)
        return tuple(made)

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
            return
        holder.is_gone = True
        for pause_s in LAST_TRIES_S:
            await asyncio.sleep(pause_s)
            if await self._is_finished(holder):
                return
        _log.warning("%s: what it wrote to volumes is kept until it can be committed", runtime_id)

    async def _is_finished(self, holder: _Holder) -> bool:
        """Commit the last of it; whether nothing is left."""
        async with holder.lock:
            if self._holders.get(holder.runtime_id) is not holder:
                return True
            written = [mounted.written for mounted in holder.volumes if mounted.written is not None]
            done = [await self._is_committed(holder, one) for one in written]
            if not all(done):
                holder.next_try = self._monotonic() + END_AGAIN_S
                return False
            del self._holders[holder.runtime_id]
            # Nobody reads what is being removed, and takes it for what the container did.
            for one in written:
                await one.close()
            await self._aside(lambda: self._discard(self._written / holder.runtime_id))
        return True

    async def _is_committed(self, holder: _Holder, written: Written) -> bool:
        """Commit the last of one volume; True also when the volume is there no more."""
        what = f"{holder.runtime_id}: what it wrote to volume {written.volume_id}"
        try:
            await self._committer.commit(written, "at the end")
        except PlatformError as error:
            if error.code == NOT_FOUND and await self._is_deleted(written.volume_id):
                _log.warning("%s goes with it: it was deleted", what)
                return True
            _log.warning("%s cannot be committed now: %s", what, error)
            return False
        except OSError as error:
            _log.error("%s cannot be read: %s", what, error)
            return False
        return True

    async def _is_deleted(self, volume_id: str) -> bool:
        try:
            await self._source.newest(volume_id)
        except PlatformError as error:
            return error.code == NOT_FOUND
        return False

    # While they run

    async def commit(self, runtime_id: str, volume_id: str) -> VolumeVersion | None:
        """Commit what a container has written to a volume, frozen while it is captured; None when nothing has changed.

        Raises:
            PlatformError: `not_found` when it has not mounted it; as of a commit.
        """
        holder, mounted = self._find(runtime_id, volume_id)
        if mounted.written is None:
            raise PlatformError(CONFLICT, f"cannot commit volume {volume_id}: it is mounted read-only")
        async with holder.lock:
            return await self._committer.commit(
                mounted.written, "commit", freeze=lambda: self._frozen(holder.runtime_id)
            )

    async def reload(self, runtime_id: str, volume_id: str) -> VolumeVersion:
        """Let a container see the newest version of a volume. What it has written is committed before.

        Raises:
            PlatformError: `conflict` while it has files of it open.
        """
        holder, _ = self._find(runtime_id, volume_id)
        async with holder.lock:
            for _ in range(RELOAD_TRIES):
                _, mounted = self._find(runtime_id, volume_id)
                if mounted.written is not None:
                    await self._committer.commit(mounted.written, "before a reload", is_patient=True)
                newest = await self._source.newest(volume_id)
                if await self._is_swapped(holder, mounted, newest):
                    return newest
        message = f"cannot reload volume {volume_id}: the container writes to it all the time; try again when it rests"
        raise PlatformError(CONFLICT, message)

    async def _is_swapped(self, holder: _Holder, mounted: _Mounted, newest: VolumeVersion) -> bool:
        """False where the container has written something that this version does not have."""
        # Also where it has that version: whether open files are in the way is not to depend on what others do.
        old, version, root = mounted.record, newest.number, newest.root
        mount = VolumeMount(old.volume_id, old.target, old.is_read_only, old.sub_path)
        image = await self._tree(mount, version, root)
        new = WrittenRecord(
            old.volume_id, old.name, old.target, version, old.number + 1, old.is_read_only, old.sub_path, root
        )
        fresh = self._mounted(holder, new)
        volume = self._volume(holder.runtime_id, new, image)
        place = holder.volumes.index(mounted)
        # Before it is mounted: what is written there is found whatever happens next.
        holder.volumes.append(fresh)
        self._write(holder)
        try:
            is_swapped = await self._swap_frozen(holder, mounted, volume)
        except BaseException:
            holder.volumes.remove(fresh)
            self._write(holder)
            raise
        holder.volumes.remove(fresh)
        if is_swapped:
            holder.volumes[place] = fresh
        self._write(holder)
        gone = mounted if is_swapped else fresh
        if gone.written is not None:
            await gone.written.close()
        upper = self._upper(holder.runtime_id, gone.record)
        await self._aside(lambda: self._discard(upper))
        _committed_path(upper).unlink(missing_ok=True)
        return is_swapped

    async def _swap_frozen(self, holder: _Holder, mounted: _Mounted, volume: Volume) -> bool:
        for attempt in range(BUSY_TRIES):
            try:
                async with self._frozen(holder.runtime_id):
                    # Whatever it has written since the commit before would be gone.
                    if mounted.written is not None and await self._committer.commit(mounted.written, "before a reload"):
                        return False
                    await self._runtime.swap_volume(holder.runtime_id, volume)
                return True
            except VolumeBusy as error:
                if attempt == BUSY_TRIES - 1:
                    what = "files on it are open, or mapped, or a process is in it; close them and try again"
                    raise PlatformError(CONFLICT, f"cannot reload volume {volume.target}: {what}") from error
            except ContainerMissing as error:
                raise PlatformError(NOT_FOUND, str(error)) from error
            except RuntimeFailure as error:
                raise PlatformError(UNAVAILABLE, str(error)) from error
            if volume.writable:
                await self._aside(lambda: remove_tree(volume.writable))
            await asyncio.sleep(BUSY_PAUSE_S)
        return False

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

    def _in_use(self) -> frozenset[str]:
        """Names of contents that somebody has mounted, or is about to."""
        roots = {one.record.root for holder in self._holders.values() for one in holder.volumes}
        making = {name.removesuffix(_IMAGE) for name in self._making}
        for root in [root for root in list(self._names) if root not in roots | making]:
            del self._names[root]
        for root in roots - self._names.keys():
            path = self._trees / f"{root or _EMPTY}{_NAMES}"
            self._names[root] = frozenset(path.read_text().split()) if path.exists() else frozenset()
        return frozenset().union(*self._names.values())

    async def evict(self) -> None:
        """Remove trees that nobody has mounted, and contents when the disk is short."""
        used = {one.record.root or _EMPTY for holder in self._holders.values() for one in holder.volumes}
        for path in self._trees.glob(f"*{_IMAGE}"):
            if path.stem not in used and path.name not in self._making:
                path.unlink()
                path.with_suffix(_NAMES).unlink(missing_ok=True)
        try:
            count = await self._contents.evict()
        except OSError as error:
            _log.warning("contents of volumes that nobody uses cannot be removed: %s", error)
        else:
            if count:
                _log.info("%d contents of volumes that nobody used are gone: the disk is short", count)

    async def run(self) -> None:
        """Commit in the background, for ever; also what earlier containers have left."""
        evict_at = self._monotonic() + EVICT_S
        while True:
            if self._monotonic() > evict_at:
                evict_at = self._monotonic() + EVICT_S
                await self.evict()
            await asyncio.sleep(BACKGROUND_S / 5)
            holders = list(self._holders.values())
            living = await self._living() if any(holder.is_gone for holder in holders) else None
            for holder in holders:
                try:
                    await self._serve(holder, living)
                except Exception:  # noqa: BLE001 - one container does not keep the others from being committed
                    _log.exception("%s: what it wrote to volumes is not committed", holder.runtime_id)
                    holder.next_try = self._monotonic() + END_AGAIN_S

    async def _living(self) -> frozenset[str] | None:
        """Containers that the runtime has; None when it does not say."""
        try:
            return frozenset(status.container_id for status in await self._runtime.list())
        except (RuntimeFailure, OSError):
            return None

    async def _serve(self, holder: _Holder, living: frozenset[str] | None) -> None:
        if self._monotonic() < holder.next_try:
            return
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

    async def _look(self, holder: _Holder, mounted: _Mounted) -> None:
        now = self._monotonic()
        if mounted.written is None or now < mounted.next_look or mounted.written.lock.locked():
            return
        pause_s = BACKGROUND_S
        try:
            await self._committer.commit(mounted.written, "background", is_patient=True)
        except (PlatformError, OSError) as error:
            # Some of it never goes, as a name that no version can have: that is not said all the time.
            pause_s = END_AGAIN_S
            _log.warning("%s: what it wrote to a volume is not committed yet: %s", holder.runtime_id, error)
        took_s = self._monotonic() - now
        mounted.next_look = self._monotonic() + max(pause_s, WALK_SHARE * took_s)

    # Trees

    async def _tree(self, mount: VolumeMount, version: int, root: str) -> Path:
        """The image of a version's tree, with all contents of its files here."""
        path = self._trees / f"{root or _EMPTY}{_IMAGE}"
        try:
            async with self._making.setdefault(path.name, asyncio.Lock()):
                # The contents may have gone since.
                entries = await self._source.tree(mount.volume_id, version) if root else []
                names = frozenset(one.name for entry in entries if (one := content_of(entry)) is not None)
                self._names[root] = names
                await self._fetch(mount.volume_id, version, entries)
                if not path.exists():
                    await self._aside(lambda: _write_image(entries, path, names))
        finally:
            self._making.pop(path.name, None)
        return path

    async def _fetch(self, volume_id: str, version: int, entries: Sequence[VolumeChange]) -> None:
        wanted = {entry.path: content for entry in entries if (content := content_of(entry)) is not None}
        lists = {
            content.block_list: await self._source.blocks(volume_id, version, path)
            for path, content in wanted.items()
            if content.block_list
        }
        await self._contents.ensure(set(wanted.values()), lists)

    # What is written down

    def _find(self, runtime_id: str, volume_id: str) -> tuple[_Holder, _Mounted]:
        holder = self._holders.get(runtime_id)
        for mounted in holder.volumes if holder is not None else ():
            if holder is not None and mounted.record.volume_id == volume_id:
                return holder, mounted
        raise PlatformError(NOT_FOUND, f"volume {volume_id} is not mounted in this container")

    def _mounted(self, holder: _Holder, one: WrittenRecord) -> _Mounted:
        written = None
        if not one.is_read_only:
            path = self._upper(holder.runtime_id, one)
            written = Written(
                one.volume_id,
                f"{path}/upper",
                holder.id_range.start,
                one.version,
                holder.container_id,
                _read_committed(path),
                keep=functools.partial(_keep_committed, path),
            )
        return _Mounted(one, written, self._monotonic() + BACKGROUND_S)

    def _upper(self, runtime_id: str, one: WrittenRecord) -> Path:
        return self._written / runtime_id / f"{one.name}-{one.number}"

    def _volume(self, runtime_id: str, one: WrittenRecord, image: Path) -> Volume:
        writable = "" if one.is_read_only else str(self._upper(runtime_id, one))
        return Volume(one.name, one.target, str(image), self._contents.directory, writable, one.sub_path)

    def _discard(self, path: Path) -> None:
        """Remove what is in commits. Away at once: nobody finds a half of it, and takes the rest for removed."""
        place = self._gone / f"{path.name}-{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, place)
            _remove(place)

    def _write(self, holder: _Holder) -> None:
        directory = self._written / holder.runtime_id
        directory.mkdir(mode=0o700, exist_ok=True)
        told = {
            "first_id": holder.id_range.start,
            "container_id": holder.container_id,
            "volumes": [to_wire(one.record) for one in holder.volumes],
        }
        new = directory / "record.new"
        new.write_text(json.dumps(told))
        os.replace(new, directory / "record.json")

    def _read(self, directory: Path) -> _Holder | None:
        try:
            told = json.loads((directory / "record.json").read_text())
            holder = _Holder(directory.name, IdRange(told["first_id"]), told["container_id"])
            for one in told["volumes"]:
                found = from_wire(WrittenRecord, one)
                holder.volumes.append(self._mounted(holder, found))
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.error("what %s wrote to volumes cannot be told: %s", directory.name, error)
            return None
        return holder

    async def _aside(self, work: Callable[[], object]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, work)


def _remove(path: Path) -> None:
    try:
        remove_tree(str(path))
    except RuntimeFailure as error:
        # The next agent tries again.
        _log.warning("%s", error)


def _committed_path(upper: Path) -> Path:
    return upper.with_name(f"{upper.name}.json")


def _keep_committed(upper: Path, committed: dict[str, Fingerprint]) -> None:
    path = _committed_path(upper)
    try:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(committed))
        os.replace(new, path)
    except FileNotFoundError:
        pass  # it is gone when the container is
    except OSError as error:
        # The version is there; at worst the next agent makes it once more.
        _log.warning("%s: what was committed of it cannot be written down: %s", upper, error)


def _read_committed(upper: Path) -> dict[str, Fingerprint]:
    """What an earlier agent has committed; without it, everything is committed once more."""
    try:
        told = json.loads(_committed_path(upper).read_text())
        return {path: tuple(int(number) for number in one) for path, one in told.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        _log.warning("%s: what was committed of it cannot be told: %s", upper, error)
        return {}


def _write_image(entries: Sequence[VolumeChange], path: Path, names: frozenset[str]) -> None:
    path.with_suffix(_NAMES).write_text("\n".join(sorted(names)))
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    write_tree_image(entries, new)
    os.replace(new, path)
