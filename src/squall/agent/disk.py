"""Ends containers, of functions and of build steps, that write more than their limit or fill the machine's disk.

Nothing in the kernel limits what a container writes into its own layer unless the file system has project quotas, which
those of machines as they come have not (docs/decisions/0022). So what it has written is measured: often while it grows,
seldom while it does not, and at once when the file system's free space falls by as much as would take somebody over. A
limit can be passed by what is written between two looks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from squall.agent.disk_use import DiskUse, deleted_use, tree_use
from squall.protocol.function import NAMESPACES
from squall.protocol.task_set import going_on

DEFAULT_DISK_MIB = 512 * 1_024
"""What a container may write that says nothing of it (`ephemeral_disk=`)."""
INODES_MIN, INODES_MAX = 2**17, 2**22
BYTES_PER_INODE = 16_384
"""A limit of bytes brings one of files and directories, one for each so many, as ext4 does; within these bounds."""

PERIOD_S = 0.5
IDLE_S_MIN, IDLE_S_MAX = 2.0, 30.0
"""How long one that does not grow is not looked at: longer the more it has left, since what one writes while another
deletes is not seen in the file system's free space."""
IDLE_BYTES_PER_S = 20 * 2**20
IDLE_REST = 100
"""As `REST`, of those that do not grow, times all of them: at most a hundredth of a processor."""
REST = 20
"""The pause after a look is that many times as long as it took, times the containers that grow: at most a twentieth
of a processor for all."""
UNREAD_S_MAX, UNREAD_MAX = 60.0, 5
"""How long, and how many times in a row, a tree may be changed so that it cannot be read to its end."""

WHOLE_S_MAX = 5.0
"""For reading all of one that was ended: what it had and was not found is taken for written since, within its limit."""

SPARE_SHARE = 20
SPARE_BYTES_MAX = 2 * 2**30
SPARE_INODES_MAX = 20_000
"""What is kept free for everybody else: a twentieth of the file system, at most so much."""
GUARD_BYTES_MIN = 64 * 2**20
GUARD_INODES_MIN = 1_000
"""Ending a container that has less would not help."""
GUARD_PAUSE_S = 10.0
"""After the guard has ended one: deleting takes a while."""
GROWING_S = 60.0

_MIB = 2**20
_log = logging.getLogger("squall.agent.disk")


@dataclass(frozen=True, slots=True)
class DiskLimit:
    """What a container may have on the disk."""

    space_bytes: int
    inodes: int


@dataclass(frozen=True, slots=True)
class Writer:
    """A container that runs, and where it writes."""

    container_id: str
    folders: tuple[str, ...]
    pid: int
    limit: DiskLimit
    more: str = "give the function more with ephemeral_disk= (in MiB)"
    """How the limit is raised."""
    isolation: str = NAMESPACES
    is_ended: bool = False
    """Nobody should write there any more, and what was written stays: the limit is for what comes yet."""
    place: str = ""
    """Which of several that it has, each with a limit of its own."""

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others."""
        return self.container_id, self.place


@dataclass(frozen=True, slots=True)
class Space:
    """A file system; one that does not count inodes has plenty."""

    free_bytes: int
    free_inodes: int
    spare_bytes: int = 0
    spare_inodes: int = 0

    @property
    def is_short_of_bytes(self) -> bool:
        """What is to be spare is being used up."""
        return self.free_bytes < self.spare_bytes

    @property
    def is_short_of_inodes(self) -> bool:
        """The same, of inodes."""
        return self.free_inodes < self.spare_inodes


NO_LIMIT = DiskLimit(2**62, 2**62)
"""It is ended only where the machine's disk gets full."""


def disk_limit(disk_mib: int | None) -> DiskLimit:
    """The limit of a container that asked for so much."""
    return limit_of((DEFAULT_DISK_MIB if disk_mib is None else disk_mib) * _MIB)


def limit_of(space_bytes: int) -> DiskLimit:
    """So many bytes, and the inodes that go with them."""
    return DiskLimit(space_bytes, max(INODES_MIN, min(INODES_MAX, space_bytes // BYTES_PER_INODE)))


def space_of(path: Path) -> Space:
    """The file system that holds a path."""
    state = os.statvfs(path)
    spare_bytes = min(SPARE_BYTES_MAX, state.f_blocks * state.f_frsize // SPARE_SHARE)
    if not state.f_files:
        return Space(state.f_bavail * state.f_frsize, 1, spare_bytes)
    spare_inodes = min(SPARE_INODES_MAX, state.f_files // SPARE_SHARE)
    return Space(state.f_bavail * state.f_frsize, state.f_favail, spare_bytes, spare_inodes)


class _Watched:
    """What is known of one container."""

    def __init__(self, writer: Writer, now: float) -> None:
        self.writer = writer
        self.use = DiskUse()
        self.due_at = now
        self.measured_at = now
        self.took_s = 0.0
        self.interval_s = 0.0
        self.grown_at = float("-inf")
        self.read_at = now
        """When its tree was last read to its end."""
        self.unread = 0
        """How often it was not, since."""
        self.left: DiskUse | None = None
        """What one had when it was ended, at least."""

    @property
    def limit(self) -> DiskLimit:
        limit, left = self.writer.limit, self.left
        return limit if left is None else DiskLimit(limit.space_bytes + left.space_bytes, limit.inodes + left.inodes)

    @property
    def is_to_be_read_whole(self) -> bool:
        return self.writer.is_ended and self.left is None

    @property
    def slack_bytes(self) -> int:
        return max(0, self.limit.space_bytes - self.use.space_bytes)

    def is_now(self, writer: Writer, now: float) -> None:
        if writer.is_ended and not self.writer.is_ended:
            self.due_at = now
        self.writer = writer


class DiskWatch:
    """Watches the containers of a node. `run` must be awaited by its owner.

    Args:
        writers: the containers that run now.
        end: ends one; told why, in words for whoever waits for it.
        space: free space of the file system they write to.
    """

    def __init__(
        self,
        writers: Callable[[], Sequence[Writer]],
        end: Callable[[str, str], None],
        space: Callable[[], Space],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writers = writers
        self._end = end
        self._space = space
        self._monotonic = monotonic
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._mark: Space | None = None
        """When all were last told to be looked at."""
        self._was_short = False
        self._guarded_at = float("-inf")
        self._is_stopping = False

    async def run(self) -> None:
        """Watch for ever."""
        loop = asyncio.get_running_loop()
        self._is_stopping = False
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="disk") as threads:
            try:
                while True:
                    await asyncio.sleep(PERIOD_S)
                    with going_on("cannot measure what containers have written"):
                        await self._look_around(loop, threads)
            finally:
                self._is_stopping = True

    async def _look_around(self, loop: asyncio.AbstractEventLoop, threads: ThreadPoolExecutor) -> None:
        writers = self._writers()
        if not writers:
            self._watched.clear()
            return
        for container_id, why in (await loop.run_in_executor(threads, self.look, writers)).items():
            _log.warning("%s is ended: %s", container_id, why)
            self._end(container_id, why)

    def look(self, writers: Sequence[Writer]) -> dict[str, str]:
        """Measure those whose time it is; returns which are to be ended, and why. Blocks."""
        now = self._monotonic()
        known = self._watched
        self._watched = {one.key: known.get(one.key) or _Watched(one, now) for one in writers}
        for one in writers:
            self._watched[one.key].is_now(one, now)
        space = self._space()
        self._hurry(space, now)
        over: dict[str, str] = {}
        for watched in sorted(self._watched.values(), key=lambda one: one.slack_bytes):
            if watched.due_at <= now and not self._is_stopping:
                self._measure(watched)
                if why := _over_limit(watched, self._monotonic()):
                    over[watched.writer.container_id] = why
        if not over and (space.is_short_of_bytes or space.is_short_of_inodes):
            over = self._guard(space)
        return over

    def _hurry(self, space: Space, now: float) -> None:
        """Look at all of them soon if what was written lately is enough to take one over, or the disk gets full."""
        mark = self._mark or space
        fell_bytes, fell_inodes = mark.free_bytes - space.free_bytes, mark.free_inodes - space.free_inodes
        slack_bytes = min([one.slack_bytes for one in self._watched.values()])
        slack_inodes = min([one.limit.inodes - one.use.inodes for one in self._watched.values()])
        is_short = space.is_short_of_bytes or space.is_short_of_inodes
        is_shorter = fell_bytes > space.spare_bytes // 16 or fell_inodes > space.spare_inodes // 16
        has_begun = is_short and (is_shorter or not self._was_short)
        if is_short and not self._was_short:
            _log.warning(
                "the disk gets full: %d MiB and %d inodes are free", space.free_bytes // _MIB, space.free_inodes
            )
        self._was_short = is_short
        if not (fell_bytes * 2 >= slack_bytes or fell_inodes * 2 >= slack_inodes or has_begun):
            if self._mark is None or fell_bytes < 0 or fell_inodes < 0:
                self._mark = space
            return
        self._mark = space
        for watched in self._watched.values():
            soonest_at = now if has_begun else watched.measured_at + self._rest_s(watched)
            watched.due_at = min(watched.due_at, max(now, soonest_at))

    def _rest_s(self, watched: _Watched) -> float:
        growing = sum(1 for one in self._watched.values() if one.interval_s <= PERIOD_S)
        return watched.took_s * REST * max(1, growing)

    def _idle_s(self, watched: _Watched) -> float:
        affordable_s = watched.took_s * IDLE_REST * len(self._watched)
        return min(IDLE_S_MAX, max(IDLE_S_MIN, watched.slack_bytes / IDLE_BYTES_PER_S, affordable_s))

    def _measure(self, watched: _Watched) -> None:
        began_at = self._monotonic()
        limit, is_to_be_whole = watched.limit, watched.is_to_be_read_whole
        until = began_at + WHOLE_S_MAX
        use = deleted_use(watched.writer.pid, watched.writer.folders, watched.writer.isolation)
        for folder in watched.writer.folders:
            counted = use

            def may_go_on(tree: DiskUse, counted: DiskUse = counted) -> bool:
                found = counted.plus(tree)
                is_over = found.space_bytes > limit.space_bytes or found.inodes > limit.inodes
                may_go_on = self._monotonic() < until if is_to_be_whole else not is_over
                return may_go_on and not self._is_stopping

            use = counted.plus(tree_use(folder, may_go_on))
        if is_to_be_whole:
            watched.left, watched.grown_at = use, float("-inf")
        now = self._monotonic()
        # The first look at all of one that was ended finds what it had, of which less was read before, or nothing.
        is_more = use.space_bytes > watched.use.space_bytes or use.inodes > watched.use.inodes
        has_grown = is_more and not is_to_be_whole
        if use.is_whole:
            watched.read_at, watched.unread = now, 0
        else:
            watched.unread += 1
        if has_grown:
            watched.grown_at = now
        watched.use, watched.measured_at, watched.took_s = use, now, now - began_at
        longer_s = min(self._idle_s(watched), max(PERIOD_S, watched.interval_s * 2))
        watched.interval_s = PERIOD_S if has_grown else longer_s
        watched.due_at = now + max(watched.interval_s, self._rest_s(watched))

    def _guard(self, space: Space) -> dict[str, str]:
        """Who is to be ended so that the machine's disk does not get full: who has most, of those who write."""
        now = self._monotonic()
        if now - self._guarded_at < GUARD_PAUSE_S:
            return {}
        is_bytes = space.is_short_of_bytes

        def size_of(watched: _Watched) -> tuple[bool, int]:
            is_growing = now - watched.grown_at < GROWING_S
            return is_growing, watched.use.space_bytes if is_bytes else watched.use.inodes

        # One that was ended has what others read: to end those helps only if somebody goes on writing in it.
        candidates = [one for one in self._watched.values() if not one.writer.is_ended or size_of(one)[0]]
        most = max(candidates, key=size_of, default=None)
        enough = min(GUARD_BYTES_MIN, space.spare_bytes) if is_bytes else GUARD_INODES_MIN
        if most is None or size_of(most)[1] < enough:
            return {}
        self._guarded_at = now
        if is_bytes:
            free = f"{space.free_bytes // _MIB} MiB free, {space.spare_bytes // _MIB} MiB are kept"
            has = f"{most.use.space_bytes // _MIB} MiB"
        else:
            free = f"{space.free_inodes} inodes free, {space.spare_inodes} are kept"
            has = f"{most.use.inodes} files and directories"
        return {
            most.writer.container_id: f"the disk of its machine was almost full ({free}), and of those writing it had "
            f"written most: {has}; free some space there, or let it write less"
        }


def _over_limit(watched: _Watched, now: float) -> str:
    """Why a container is to be ended for its own limit; empty if it is not."""
    use, limit = watched.use, watched.limit
    if use.space_bytes > limit.space_bytes:
        return (
            f"it had {use.space_bytes // _MIB} MiB or more on its disk, its limit is {limit.space_bytes // _MIB} MiB; "
            f"{watched.writer.more}, or let it write less"
        )
    if use.inodes > limit.inodes:
        return (
            f"it had more than {limit.inodes} files and directories on its disk, its limit; "
            f"{watched.writer.more}, which raises that too (one for each 16 KiB, at most {INODES_MAX}), "
            "or let it make fewer"
        )
    if watched.unread >= UNREAD_MAX and now - watched.read_at > UNREAD_S_MAX:
        return (
            f"what it has on its disk could not be measured for {UNREAD_S_MAX:g} s: directories deep inside each other "
            "are moved all the time, or are too many; let it keep its files less deep"
        )
    return ""
