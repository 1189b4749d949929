"""One id range per function: 65,536 user and group ids of this machine that belong to nobody else.

A function keeps its range while it has containers, and gets the same one again afterwards unless thousands of others
came in between: a block is given to another owner only when none of the old one's containers is left, the longest idle
first. Who owns what is a journal on disk, one line for each change, so a killed agent's successor never gives a living
container's ids to somebody else.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import IdRange

BLOCK = 65_536
# Above what Debian hands out in /etc/subuid (to 600,100,000), what systemd takes for its containers (to 0x6FFFFFFF) and
# what sssd gives to users of a domain (to 2,000,200,000), whom no file here lists.
FIRST_START = 0x7800_0000
# systemd's owner of files from elsewhere, see https://systemd.io/UIDS-GIDS/ (2025-11).
_FOREIGN_IDS = range(0x7FFE_0000, 0x7FFF_0000)
# The last block holds -1 and -2, which mean "nobody" and "no change" to the kernel.
LAST_START = 0xFFFE_0000
BUILD_RANGES_MAX = 16
IDLE_OWNERS_MAX = 1_024
# Instances on one machine begin at different places among these, so that their containers share no ids as a rule.
_SPREAD = (_FOREIGN_IDS.start - FIRST_START) // BLOCK - BUILD_RANGES_MAX
_JOURNAL_LINES_MAX = 20_000

_log = logging.getLogger("squall.agent.ranges")


@dataclass(slots=True)
class _Owned:
    """A block somebody has."""

    start: int
    users: int = 0


def build_ranges(data_dir: Path, count: int) -> tuple[IdRange, ...]:
    """Ranges for image builds: the same every time, and never given to a function."""
    if not 0 <= count <= BUILD_RANGES_MAX:
        raise RuntimeFailure(f"cannot run {count} image builds at a time: at most {BUILD_RANGES_MAX}")
    first = _first_start(data_dir)
    return tuple(IdRange(first + index * BLOCK, BLOCK) for index in range(count))


def read_taken_ids(etc: Path = Path("/etc")) -> tuple[range, ...]:
    """Ids this machine uses already: its users and groups, and what it lends for other containers."""
    taken: list[range] = [_FOREIGN_IDS]
    for name, column in (("passwd", 2), ("group", 2)):
        taken.extend(range(number, number + 1) for number in _numbers(etc / name, column))
    for name in ("subuid", "subgid"):
        starts, counts = _numbers(etc / name, 1), _numbers(etc / name, 2)
        taken.extend(range(start, start + count) for start, count in zip(starts, counts, strict=False))
    return tuple(taken)


class IdRanges:
    """Lends blocks to owners. Used by one agent at a time.

    Args:
        taken: ids that are not ours to lend.
        on_freed: told of a block that its owner is about to lose, before anybody else gets it; one that cannot be
            written down stays its owner's after all.
    """

    def __init__(
        self, data_dir: Path, taken: Sequence[range] = (), on_freed: Callable[[IdRange], None] | None = None
    ) -> None:
        self._path = data_dir / "id-ranges"
        self._taken = taken
        self._on_freed = on_freed
        self._first = _first_start(data_dir) + BUILD_RANGES_MAX * BLOCK
        self._owned: dict[str, _Owned] = {}
        self._owner_of: dict[int, str] = {}
        self._idle: dict[str, None] = {}
        """Owners without containers, the longest idle first."""
        self._cursor = self._first
        self._journal_lines = 0
        self._is_cut = False
        """The journal ends in the middle of a line."""
        self._load()

    def acquire(self, owner: str) -> IdRange:
        """The block of this owner, for one more container of it.

        Raises:
            RuntimeFailure: every block is in use.
            OSError: the disk does not take who has it.
        """
        owned = self._owned.get(owner)
        if owned is None:
            owned = self._give(owner, self._free_start())
        owned.users += 1
        self._idle.pop(owner, None)
        return IdRange(owned.start, BLOCK)

    def release(self, owner: str) -> None:
        """One container of the owner is gone, with everything of it. Raises nothing for a full disk."""
        owned = self._owned.get(owner)
        if owned is None or not owned.users:
            return
        owned.users -= 1
        if not owned.users:
            self._idle[owner] = None
            try:
                while len(self._idle) > IDLE_OWNERS_MAX:
                    self._forget_oldest()
            except OSError as error:
                _log.warning(
                    "cannot write down that an id range is free: %s; its owner has it until the next time", error
                )

    def _free_start(self) -> int:
        while self._cursor <= LAST_START:
            start = self._cursor
            self._cursor += BLOCK
            if self._is_free(start):
                return start
        # Round again: blocks forgotten meanwhile, then blocks that only rest with their owner.
        for start in range(self._first, LAST_START + 1, BLOCK):
            if self._is_free(start):
                self._cursor = start + BLOCK
                return start
        if not self._idle:
            raise RuntimeFailure("cannot give a function its id range: all are in use; stop some apps")
        return self._forget_oldest()

    def _is_free(self, start: int) -> bool:
        if start in self._owner_of:
            return False
        return not any(ids.start < start + BLOCK and start < ids.stop for ids in self._taken)

    def _give(self, owner: str, start: int) -> _Owned:
        self._record("+", start, owner)
        owned = self._owned[owner] = _Owned(start)
        self._owner_of[start] = owner
        return owned

    def _forget_oldest(self) -> int:
        # Each step leaves what is safe if the next one fails: what is on the disk is what the next agent goes by.
        owner = next(iter(self._idle))
        start = self._owned[owner].start
        if self._on_freed is not None:
            self._on_freed(IdRange(start, BLOCK))
        self._record("-", start, owner)
        del self._idle[owner], self._owned[owner], self._owner_of[start]
        return start

    def _record(self, sign: str, start: int, owner: str) -> None:
        # Written before the range is used. Not forced to the disk: after a power loss no container is left to protect.
        if self._journal_lines > _JOURNAL_LINES_MAX:
            self._compact()
        line = f"{sign} {start} {owner}\n".encode()
        if self._is_cut:
            line = b"\n" + line
        with open(self._path, "ab", buffering=0) as journal:
            end = journal.seek(0, os.SEEK_END)
            try:
                while line:
                    line = line[journal.write(line) :]
            except OSError:
                self._is_cut = True
                journal.truncate(end)
                self._is_cut = False
                raise
        self._is_cut = False
        self._journal_lines += 1

    def _compact(self) -> None:
        """Make the journal shorter, if the disk has room for that."""
        new = self._path.with_name(".id-ranges.new")
        self._journal_lines = len(self._owned)
        try:
            new.write_text("".join(f"+ {owned.start} {owner}\n" for owner, owned in self._owned.items()))
            os.rename(new, self._path)
            self._is_cut = False
        except OSError as error:
            _log.warning("the journal of id ranges stays long: %s", error)
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)

    def _load(self) -> None:
        text = self._path.read_text(encoding="utf-8", errors="replace") if self._path.exists() else ""
        # A line cut short by a crash was not used yet; the next one is not to continue it.
        self._is_cut = bool(text) and not text.endswith("\n")
        for sign, start, owner in _lines_of(text):
            self._journal_lines += 1
            self._lost(owner)
            if sign == "+":
                # Whoever was given it last has it, if it was not written down that another had lost it.
                self._lost(self._owner_of.get(start, ""))
                self._owned[owner] = _Owned(start)
                self._owner_of[start] = owner
                self._cursor = max(self._first, start + BLOCK)
        # Nobody has containers yet: adoption acquires for those that do before anything new starts.
        self._idle = dict.fromkeys(self._owned)
        if self._journal_lines > len(self._owned):
            self._compact()

    def _lost(self, owner: str) -> None:
        owned = self._owned.pop(owner, None)
        if owned is not None:
            del self._owner_of[owned.start]


def _first_start(data_dir: Path) -> int:
    digest = hashlib.sha256(str(data_dir.absolute()).encode()).digest()
    return FIRST_START + int.from_bytes(digest[:4], "big") % _SPREAD * BLOCK


def _lines_of(journal: str) -> Iterator[tuple[str, int, str]]:
    for line in journal.splitlines():
        sign, _, rest = line.partition(" ")
        start, _, owner = rest.partition(" ")
        if sign in {"+", "-"} and start.isdigit() and owner:
            yield sign, int(start), owner


def _numbers(path: Path, column: int) -> list[int]:
    try:
        lines: Iterable[str] = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    rows = (line.split(":") for line in lines)
    return [int(row[column]) for row in rows if len(row) > column and row[column].strip().isdigit()]
