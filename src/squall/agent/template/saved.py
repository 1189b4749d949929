"""Templates on disk: which there are, how much they may occupy, and of which there will be none.

    <data directory>/saved/<key>/about.json     what is known of it
                                 template/      as the runtime has saved it; absent where that has failed
                           .new-<some>/         being saved, and nothing yet

All of it is the machine's root's alone, as it is what was in memory. A template is there whole or not at all: it comes
by one rename, when it has been brought back once and has got as far as it was. What of it is damaged later is found out
by the runtime, before it is brought back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from squall.agent.disk import Space
from squall.agent.template.machine import machine_facts
from squall.agent.template.order import STEP_S
from squall.protocol.records import RecordError, from_wire, record, replace, to_wire
from squall.protocol.template import FUNCTION, SAVED, NodeTemplate

FAILURES_MAX = 3
"""So often is a template tried, to be saved or to be brought back, before it is given up."""
SAVED_MAX = 512
_MIB = 2**20
_ABOUT, _TEMPLATE, _NEW = "about.json", "template", ".new-"
_KEY = re.compile(r"[0-9a-f]{40}")

_log = logging.getLogger("squall.agent.template")


@record
class SavedTemplate:
    """One template that is on the disk, or that could not be put there."""

    key: str
    template_id: str
    """Of the one that was saved: it has another id whenever it comes back."""
    app_id: str
    function_id: str
    image_id: str
    saved_at: float
    """Seconds since 1970."""
    machine: dict[str, str]
    """What it counts on (`machine_facts`)."""
    size_bytes: int = 0
    """0: nothing is there."""
    failure_count: int = 0
    cause: str = ""
    """Why it is not there."""
    used_at: float = 0.0
    """Seconds since 1970: when it was last brought back, or saved."""
    follows_id: str = ""
    version: int = 0
    """Both as in `ContainerStart`."""

    def told(self) -> NodeTemplate:
        """As its server is told of it while none of it lives."""
        return NodeTemplate(
            self.template_id,
            self.app_id,
            self.function_id,
            FUNCTION,
            SAVED,
            disk_mib=self.disk_mib,
            made_at=self.saved_at,
            used_at=self.used_at,
        )

    @property
    def disk_mib(self) -> int:
        """What it takes; one that is there takes something."""
        return math.ceil(self.size_bytes / _MIB)

    @property
    def is_given_up(self) -> bool:
        """It is not tried again."""
        return self.failure_count >= FAILURES_MAX


class SavedTemplates:
    """Those of one node, by key. What reads or writes files does so in threads.

    Args:
        bytes_max: what all may occupy; 0: nothing is saved.
        discard: takes directories away that nobody needs.
        now: seconds since 1970, in the order in which it is asked (`order.py`).
    """

    def __init__(self, data_dir: Path, bytes_max: int, discard: Callable[[Path], None], now: Callable[[], float]):
        self.top = data_dir / "saved"
        self.bytes_max = bytes_max
        self._discard = discard
        self._now = now
        self._machine: Mapping[str, str] | None = None
        self._known: dict[str, SavedTemplate] = {}
        self._keys_of: dict[str, set[str]] = {}
        """Of those that are known, by function: each start of one asks."""
        self._opening = asyncio.Lock()
        self.is_open = False
        """It is known what there is."""

    async def open(self) -> bool:
        """Find out what there is; False where nothing can be saved, or read now. May be repeated."""
        async with self._opening:
            if not self.is_open:
                try:
                    found, doomed = await asyncio.to_thread(self._read)
                except OSError as error:
                    _log.warning("cannot read which templates are on the disk: %s; trying again", error)
                    return False
                for one in found:
                    self._know(one)
                for place, cause in doomed:
                    _log.info("a saved template is dropped: %s (%s)", cause, place.name)
                    self._take_away(place)
                self.is_open = True
        return self._machine is not None

    def _know(self, about: SavedTemplate) -> None:
        """It is the one used last."""
        self._known.pop(about.key, None)
        self._known[about.key] = about
        self._keys_of.setdefault(about.function_id, set()).add(about.key)

    def _read(self) -> tuple[list[SavedTemplate], list[tuple[Path, str]]]:
        """What an agent of before has left: what is of use here, and what is not, with its cause."""
        self._machine = machine_facts() if self.bytes_max else None
        found, doomed = [], []
        for name in os.listdir(self.top) if self.top.is_dir() else []:
            about = _read_about(self.top / name) if _KEY.fullmatch(name) else None
            if about is None or about.key != name:
                doomed.append((self.top / name, "it is not whole"))
            elif self._machine is None:
                doomed.append((self.top / name, "nothing is saved here any more"))
            elif changed := [one for one, value in self._machine.items() if about.machine.get(one) != value]:
                doomed.append((self.top / name, f"it was saved with another {' and another '.join(changed)}"))
            else:
                found.append(about)
        found.sort(key=lambda one: one.used_at)
        return [self._past(one, len(found) - place) for place, one in enumerate(found)], doomed

    def _past(self, about: SavedTemplate, count: int) -> SavedTemplate:
        """As one that was used before now, and with `count` others since the earliest of these: what a clock that was
        ahead has written stays in its order, and before what is used from now on."""
        latest = self._now() - count * STEP_S
        if about.used_at <= latest:
            return about
        _set_used_at(self.top / about.key, latest)
        return replace(about, used_at=latest)

    def known(self) -> Iterable[SavedTemplate]:
        """All of them, also those that are not there; those used longest ago come first."""
        return self._known.values()

    def find(self, key: str) -> SavedTemplate | None:
        """What is known of one."""
        return self._known.get(key)

    def place(self, key: str) -> Path | None:
        """Where it is to be brought back from, if it is there: it counts as used then."""
        found = self._known.get(key)
        if found is None or not found.size_bytes:
            return None
        found = replace(found, used_at=self._now())
        self._know(found)
        _set_used_at(self.top / key, found.used_at)
        return self.top / key / _TEMPLATE

    def may_be_saved(self, key: str) -> bool:
        """It is not there, and has not been given up."""
        found = self._known.get(key)
        return self._machine is not None and (found is None or not (found.size_bytes or found.is_given_up))

    def begin(self) -> Path:
        """An empty directory to save one in, for `keep`. Blocks."""
        place = self._new_place()
        (place / _TEMPLATE).mkdir(mode=0o700)
        return place

    def _new_place(self) -> Path:
        self.top.mkdir(mode=0o700, exist_ok=True)
        os.chmod(self.top, 0o700)
        place = self.top / f"{_NEW}{secrets.token_hex(8)}"
        place.mkdir(mode=0o700)
        return place

    def template_in(self, place: Path) -> Path:
        """Where the runtime is to save it."""
        return place / _TEMPLATE

    def give_up(self, place: Path) -> None:
        """Nothing has come of it."""
        self._discard(place)

    async def keep(self, place: Path, about: SavedTemplate) -> None:
        """What is in `place` is good: others go to make room for it.

        Raises:
            OSError: the disk does not take it.
        """
        before = self._known.get(about.key)
        about = replace(
            about,
            machine=dict(self._machine or {}),
            used_at=self._now(),
            # That it was brought back as a check says little of one that did not come back when it was needed.
            failure_count=before.failure_count if before is not None else 0,
        )
        await asyncio.to_thread(_write_about, place, about)
        self.forget([about.key])
        await asyncio.to_thread(_put, place, self.top / about.key)
        self._know(about)
        self.keep_within()

    async def came_back(self, key: str) -> None:
        """It was needed, and is good: what has failed before is forgotten."""
        found = self._known.get(key)
        if found is not None and found.failure_count:
            self._known[key] = replace(found, failure_count=0)
            with contextlib.suppress(OSError):
                await asyncio.to_thread(_write_about, self.top / key, self._known[key])

    async def failed(self, about: SavedTemplate, cause: str, *, is_for_good: bool = False) -> None:
        """It could not be saved, or brought back: nothing of it is kept but that."""
        before = self._known.get(about.key)
        count = FAILURES_MAX if is_for_good else (before.failure_count if before is not None else 0) + 1
        ending = f"; given up after {count} attempts" if count >= FAILURES_MAX and not is_for_good else ""
        failed = replace(
            about, machine=dict(self._machine or {}), size_bytes=0, failure_count=count, cause=cause + ending,
            used_at=self._now(),
        )  # fmt: skip
        self.forget([about.key])
        self._know(failed)
        _log.warning("%s: it is not on the disk: %s", about.template_id, failed.cause)
        place: Path | None = None
        try:
            place = await asyncio.to_thread(self._new_place)
            await asyncio.to_thread(_write_about, place, failed)
            await asyncio.to_thread(_put, place, self.top / failed.key)
        except OSError as error:
            _log.warning("%s: that is not written down: %s", about.template_id, error)
            if place is not None:
                self._discard(place)

    def waits(self, about: SavedTemplate, cause: str) -> None:
        """There is no room for it now, which is no failure of it, and is not written down."""
        before = self._known.get(about.key)
        count = before.failure_count if before is not None else 0
        self._know(replace(about, failure_count=count, cause=cause, used_at=self._now()))

    # What goes

    def forget(self, keys: Collection[str]) -> list[SavedTemplate]:
        """Drop these; returns which there were."""
        gone = [self._known.pop(key) for key in keys if key in self._known]
        for one in gone:
            keys_of = self._keys_of[one.function_id]
            keys_of.discard(one.key)
            if not keys_of:
                del self._keys_of[one.function_id]
            self._take_away(self.top / one.key)
        return gone

    def _take_away(self, place: Path) -> None:
        """Out of the way of the next one of its key, whenever it is deleted."""
        doomed = self.top / f"{_NEW}{secrets.token_hex(8)}"
        try:
            os.rename(place, doomed)
        except FileNotFoundError:
            return
        except OSError:
            doomed = place
        self._discard(doomed)

    def forget_if(self, is_doomed: Callable[[SavedTemplate], bool]) -> list[SavedTemplate]:
        """Drop those that are; returns which there were."""
        return self.forget([one.key for one in self._known.values() if is_doomed(one)])

    def supersede(self, function_id: str, key: str) -> None:
        """Drop those of a function that is another one now."""
        self.forget([other for other in self._keys_of.get(function_id, ()) if other != key])

    def keep_within(self, space: Space | None = None) -> None:
        """Drop what is too much, or in the way of others on a disk that is nearly full: what was used longest ago goes
        first. Of what is not there it is forgotten why, before anything that is goes."""
        held = [one for one in self._known.values() if one.size_bytes]
        occupied_bytes = sum(one.size_bytes for one in held)
        is_short = space is not None and (space.is_short_of_bytes or space.is_short_of_inodes)
        while held and (occupied_bytes > self.bytes_max or is_short):
            occupied_bytes -= held[0].size_bytes
            _log.info("%s is dropped from the disk: its place is needed", held[0].template_id)
            self.forget([held.pop(0).key])
            is_short = False  # what went is not gone yet; it is looked again
        surplus = max(0, len(self._known) - SAVED_MAX)
        self.forget([one.key for one in sorted(self._known.values(), key=lambda one: one.size_bytes > 0)[:surplus]])


def _read_about(place: Path) -> SavedTemplate | None:
    try:
        with open(os.open(place / _ABOUT, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), encoding="utf-8") as file:
            about = from_wire(SavedTemplate, json.load(file))
            # Later than what is written in it: when it was last brought back.
            about = replace(about, used_at=os.fstat(file.fileno()).st_mtime)
    except (OSError, RecordError, ValueError, RecursionError):
        return None
    return about if not about.size_bytes or (place / _TEMPLATE).is_dir() else None


def _set_used_at(place: Path, seconds: float) -> None:
    with contextlib.suppress(OSError):
        os.utime(place / _ABOUT, (seconds, seconds))


def _write_about(place: Path, about: SavedTemplate) -> None:
    fresh = place / f"{_ABOUT}.new"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        json.dump(to_wire(about), file)
        file.flush()
        os.fsync(descriptor)
    os.utime(fresh, (about.used_at, about.used_at))
    os.rename(fresh, place / _ABOUT)


def _put(place: Path, target: Path) -> None:
    """Where it belongs, also after a power loss."""
    os.rename(place, target)
    for directory in (target, target.parent):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
