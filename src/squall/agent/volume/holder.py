"""Containers with volumes, as they are written down: which versions they have, and where they write on them.

<written>/<id>/record.json         of a container: its volumes, and the versions that it writes on
<written>/<id>/<name>-<number>/    an upper; with .json beside it, what of it has been in a commit
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from squall.agent.spread import make_apart, spread_apart
from squall.agent.volume.boot import boot_id
from squall.agent.volume.commit import Written
from squall.agent.volume.lost import LostWrites
from squall.agent.volume.note import Note
from squall.agent.volume.upper import read_upper
from squall.protocol.errors import PlatformError
from squall.protocol.records import from_wire, record, to_wire
from squall.protocol.volume import from_wire as from_wire_path
from squall.runtime.errors import RuntimeFailure
from squall.runtime.removal import remove_tree
from squall.runtime.spec import IdRange

_log = logging.getLogger("squall.agent.volume.holder")


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
class Mounted:
    """A version of a volume that a container has, or had until it was reloaded."""

    record: WrittenRecord
    written: Written | None
    """None of a read-only one."""
    next_look: float = 0.0


@dataclass(slots=True)
class Holder:
    """A container with volumes."""

    runtime_id: str
    id_range: IdRange
    container_id: str
    volumes: list[Mounted] = field(default_factory=list)
    is_gone: bool = False
    is_inherited: bool = False
    """From an earlier agent, which may have left it frozen; not served yet."""
    is_of_earlier_boot: bool = False
    """The machine has begun anew since: what is there may be half of what was written, or less."""
    next_try: float = 0.0
    """After a failure."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One freezes it at a time."""

    def of(self, volume_id: str) -> list[Mounted]:
        """What it has of a volume, the oldest first: more than one where nobody knows which of them is mounted."""
        found = [one for one in self.volumes if one.record.volume_id == volume_id]
        return sorted(found, key=lambda one: one.record.number)

    def is_due(self, now: float) -> bool:
        """Something of it is to be looked at."""
        if now < self.next_try:
            return False
        looks = (one.next_look for one in self.volumes if one.written is not None)
        return self.is_gone or self.is_inherited or any(now >= look for look in looks)

    def written(self) -> list[Written]:
        """All that it writes to."""
        volumes = sorted(self.volumes, key=lambda one: one.record.number)
        return [one.written for one in volumes if one.written is not None]


class HolderRecords:
    """The directory of them. All but `upper` and `directory_of` block.

    Args:
        gone: on the same file system, for what is on its way out.
        lost: takes what cannot be told.
    """

    def __init__(self, directory: Path, gone: Path, lost: LostWrites) -> None:
        self._directory = directory
        self._gone = gone
        self._lost = lost
        self._boot = boot_id()

    def prepare(self) -> Iterator[Holder]:
        """Take up what earlier agents have written down, and finish what they were removing."""
        for path in (self._directory, self._gone):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        spread_apart(self._directory)
        for path in self._gone.iterdir():
            _remove(path)
        for path in self._directory.iterdir():
            holder = self._read(path) if any(path.iterdir()) else None
            if holder is not None:
                yield holder
            elif any(one.is_dir() for one in path.iterdir()):
                self._lost.keep(path, "nobody can tell to which")
            else:
                remove_tree(str(path))

    def mounted(self, holder: Holder, one: WrittenRecord) -> Mounted:
        """One volume of a container; what of it has been committed is as it was written down."""
        if one.is_read_only:
            return Mounted(one, None)
        path = self.upper(holder.runtime_id, one)
        note = Note(_note_path(path))
        written = Written(
            one.volume_id,
            f"{path}/upper",
            holder.id_range.start,
            one.version,
            holder.container_id,
            one.target,
            note.read(),
            note=note,
        )
        return Mounted(one, written)

    def upper(self, runtime_id: str, one: WrittenRecord) -> Path:
        """Where a container writes, with what the overlay needs beside it."""
        return self._directory / runtime_id / f"{one.name}-{one.number}"

    def make(self, runtime_id: str) -> None:
        """Make the directory of a container that is not known yet: on some file systems that takes longer than all else
        here."""
        make_apart(self._directory / runtime_id)

    def unmake(self, runtime_id: str) -> None:
        """It has not come. Idempotent; what is in use stays."""
        with contextlib.suppress(OSError):
            (self._directory / runtime_id).rmdir()

    def directory_of(self, holder: Holder) -> Path:
        """Where all is that a container writes."""
        return self._directory / holder.runtime_id

    def write(self, holder: Holder) -> None:
        """Write down what a container has.

        Raises:
            OSError: the disk does not take it; what was written down before stays.
        """
        directory = self._directory / holder.runtime_id
        if not directory.exists():
            self.make(holder.runtime_id)
        told = {
            "first_id": holder.id_range.start,
            "container_id": holder.container_id,
            "boot": self._boot,
            "volumes": [to_wire(one.record) for one in holder.volumes],
        }
        new = directory / "record.new"
        new.write_text(json.dumps(told))
        os.replace(new, directory / "record.json")

    def _read(self, directory: Path) -> Holder | None:
        try:
            told = json.loads((directory / "record.json").read_text())
            holder = Holder(directory.name, IdRange(told["first_id"]), told["container_id"])
            holder.is_of_earlier_boot = told["boot"] != self._boot
            for one in told["volumes"]:
                holder.volumes.append(self.mounted(holder, from_wire(WrittenRecord, one)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.error("what %s wrote to volumes cannot be told: %s", directory.name, error)
            return None
        return holder

    def set_aside(self, holder: Holder, why: str) -> str:
        """Keep what is in no commit, and will be in none, of what a container wrote; what and where, empty where there
        is nothing.

        Raises:
            OSError: it stays where it was.
        """
        left = [what for written in holder.written() if (what := _left_of(written))]
        if not left:
            return ""
        return self._lost.keep(self.directory_of(holder), f"{why}: {'; '.join(left)}")

    def discard(self, holder: Holder) -> None:
        """Remove all of a container, which is in commits."""
        self._away(self.directory_of(holder))

    def discard_upper(self, holder: Holder, one: WrittenRecord) -> None:
        """Remove one upper, which is in a commit."""
        upper = self.upper(holder.runtime_id, one)
        self._away(upper)
        _note_path(upper).unlink(missing_ok=True)

    def _away(self, path: Path) -> None:
        # At once: nobody finds a half of it, and takes the rest for removed.
        place = self._gone / f"{path.name}-{secrets.token_hex(4)}"
        try:
            os.rename(path, place)
        except FileNotFoundError:
            return
        _remove(place)


def _remove(path: Path) -> None:
    try:
        remove_tree(str(path))
    except RuntimeFailure as error:
        # The next agent tries again.
        _log.warning("%s", error)


def _left_of(written: Written) -> str:
    """What an upper has that is in no commit; empty when there is nothing."""
    what = f"of volume {written.volume_id}, on its version {written.version}"
    try:
        reading = read_upper(written.upper, written.first_id, written.committed)
    except (PlatformError, OSError) as error:
        return f"{what}: {error}"
    paths = [from_wire_path(change.path) for change in reading.changes] + [one.path for one in reading.files]
    return f"{what}: {len(paths):,} paths, as {paths[0]!r}" if paths else ""


def _note_path(upper: Path) -> Path:
    return upper.with_name(f"{upper.name}.json")
