"""A layer of which some parts are here: a file with holes that grows from a store until it is whole.

    <data>/layers/.incoming/<layer id>/layer.erofs     as long as the layer; holes where nothing is yet

Every part is checked before it is written, and before it is used again by another process: nothing but the bytes
themselves says what is there, so that killing whoever fetches, or the machine, loses nothing and leaves nothing wrong.
The directory is locked by its one process; whole, it is renamed into the layer store. What nobody goes on with is
removed like a layer that nobody uses.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from squall.agent.image.block.errors import BlockError
from squall.agent.image.block.manifest import PART_BYTES, PARTS_PER_BLOCK, LayerManifest, layer_id_of
from squall.agent.image.block.store import BlockStore
from squall.agent.image.layer.lock import is_at, try_lock
from squall.agent.image.layer.store import IMAGE_NAME, Layer, LayerStore

Run = tuple[int, int]
"""Parts from one to before another, all in one block."""


_GLANCE_S = 0.1
"""Who only looks has let go of the lock by then."""


class Busy(BlockError):
    """Another process is at this layer."""


class PartialLayer:
    """One layer on its way here. Any number of threads may use it; call `close`, or `keep` when it is whole."""

    def __init__(self, digest: str, manifest: LayerManifest, store: BlockStore, layers: LayerStore) -> None:
        """Take up what is there of it.

        Raises:
            Busy: another process is at it.
            BlockError: its file cannot be made.
        """
        self.layer_id = layer_id_of(digest)
        self.manifest = manifest
        self.fetched_bytes = 0
        self.filled_bytes = 0
        """Of these: those that nobody had asked for."""
        self._store = store
        self._layers = layers
        self._lock = threading.Lock()
        self._have = bytearray(manifest.part_count)
        self._missing = manifest.part_count
        self._flying: dict[int, Future[None]] = {}
        place = layers.incoming_dir / self.layer_id
        self._place: Path = place
        self._lock_fd = _made_and_locked(place, self.layer_id)
        try:
            self._file = os.open(place / IMAGE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            os.close(self._lock_fd)
            raise
        try:
            self._unchecked = set(_parts_with_data(self._file, manifest))
            os.ftruncate(self._file, manifest.size_bytes)
        except OSError as error:
            self.close()
            raise BlockError(f"cannot keep layer {self.layer_id} in {place}: {error.strerror}") from error
        for part in range(manifest.part_count):
            if manifest.is_zero_part(part) and part not in self._unchecked:
                self._have[part] = 1
                self._missing -= 1

    @property
    def is_whole(self) -> bool:
        """Whether every part is here."""
        return self._missing == 0

    def has(self, part: int) -> bool:
        """Whether a part is here."""
        return bool(self._have[part])

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the layer; waits for those that are not here.

        Raises:
            BlockError: they cannot be had.
        """
        end = min(offset + size, self.manifest.size_bytes)
        if offset >= end:
            return b""
        self.ensure(offset // PART_BYTES, -(-end // PART_BYTES))
        return os.pread(self._file, end - offset, offset)

    def ensure(self, first: int, end: int, *, is_fill: bool = False) -> None:
        """Return when the parts from `first` to before `end` are here. A fill is counted as such.

        Raises:
            BlockError: one of them cannot be had.
        """
        while not self.is_whole:
            with self._lock:
                run = self._next_run(first, end)
                if run is None:
                    waits = [self._flying[part] for part in range(first, end) if part in self._flying]
                    if not waits:
                        return
                else:
                    future: Future[None] = Future()
                    self._flying.update(dict.fromkeys(range(*run), future))
            if run is None:
                waits[0].result()
                continue
            self._bring(run, future, is_fill)

    def runs(self) -> Iterable[Run]:
        """What is still to be fetched, block by block: up to a block at a time."""
        for block in range(len(self.manifest.blocks)):
            first = block * PARTS_PER_BLOCK
            end = min(first + PARTS_PER_BLOCK, self.manifest.part_count)
            if not all(self._have[first:end]):
                yield first, end

    def keep(self) -> Layer:
        """Make the whole layer an ordinary one. What has its file open goes on reading it.

        Raises:
            BlockError: it cannot be written out.
        """
        assert self.is_whole, "every part is here"
        try:
            return self._layers.take_in(self._place, self.layer_id, self.manifest.key, self.manifest.facts)
        except OSError as error:
            raise BlockError(f"cannot keep layer {self.layer_id}: {error.strerror}") from error

    def close(self) -> None:
        """Let go of it; what is here stays for the next one."""
        os.close(self._file)
        os.close(self._lock_fd)

    def _next_run(self, first: int, end: int) -> Run | None:
        """The first parts that are missing and that nobody is fetching, as far as they lie together in a block."""
        begin = next((p for p in range(first, end) if not self._have[p] and p not in self._flying), None)
        if begin is None:
            return None
        last = min(end, (begin // PARTS_PER_BLOCK + 1) * PARTS_PER_BLOCK)
        stop = next((p for p in range(begin, last) if self._have[p] or p in self._flying), last)
        return begin, stop

    def _bring(self, run: Run, future: Future[None], is_fill: bool) -> None:
        """Get these parts, from what an earlier process left or from the store."""
        try:
            left = [part for part in range(*run) if not self._is_left(part)]
            for piece in _together(left):
                self._fetch(piece, is_fill)
        except BaseException as error:
            with self._lock:
                for part in range(*run):
                    self._flying.pop(part, None)
            future.set_exception(error)
            # Who waits gets it; when nobody does, nothing complains.
            future.exception()
            raise
        with self._lock:
            for part in range(*run):
                self._flying.pop(part, None)
                self._missing -= 1 - self._have[part]
                self._have[part] = 1
            self._unchecked.difference_update(range(*run))
        future.set_result(None)

    def _is_left(self, part: int) -> bool:
        """Whether an earlier process has left it here; zeros, which no store has, are written."""
        if part not in self._unchecked:
            return False
        begin, end = self.manifest.part_range(part)
        data = os.pread(self._file, end - begin, begin)
        if hashlib.sha256(data).digest() == self.manifest.part_digest(part):
            return True
        return self.manifest.is_zero_part(part) and os.pwrite(self._file, bytes(end - begin), begin) == end - begin

    def _fetch(self, run: Run, is_fill: bool) -> None:
        begin, end = run[0] * PART_BYTES, min(run[1] * PART_BYTES, self.manifest.size_bytes)

        def check(data: bytes) -> None:
            view = memoryview(data)
            for part in range(*run):
                at = part * PART_BYTES - begin
                if hashlib.sha256(view[at : at + PART_BYTES]).digest() != self.manifest.part_digest(part):
                    raise BlockError(f"bytes from {part % PARTS_PER_BLOCK * PART_BYTES} on are not those of its hash")

        data = self._store.get_range(self.manifest, begin, end, check)
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self._file, memoryview(data)[done:], begin + done)
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            hint = "; free space in the data directory's file system" if is_full else ""
            raise BlockError(f"cannot keep parts of layer {self.layer_id}: {error.strerror}{hint}") from error
        with self._lock:
            self.fetched_bytes += len(data)
            self.filled_bytes += is_fill * len(data)


@dataclass(frozen=True, slots=True)
class LeftLayer:
    """A layer of which parts are here."""

    layer_id: str
    size_bytes: int
    """Of the parts."""
    made_at: float
    used_at: float
    """When the last part came."""
    is_busy: bool
    """Somebody fetches it now."""


def left_layers(layers: LayerStore) -> list[LeftLayer]:
    """Those of a node."""
    found = []
    for place in sorted(layers.incoming_dir.glob("ly-*")):
        with contextlib.suppress(FileNotFoundError), _opened(place) as descriptor:
            found.append(_look(place, is_busy=not try_lock(descriptor)))
    return found


def remove_left(layers: LayerStore, layer_id: str, used_before: float) -> bool:
    """Remove what has come of a layer unless somebody is at it, or was since that time; whether it was removed."""
    place = layers.incoming_dir / layer_id
    with contextlib.suppress(FileNotFoundError), _opened(place) as descriptor:
        if try_lock(descriptor) and is_at(descriptor, place) and _look(place).used_at < used_before:
            # Out of sight first: whoever wants it from now on makes another one.
            with layers.scratch() as scratch:
                os.rename(place, scratch.path / "left")
            return True
    return False


def _look(place: Path, *, is_busy: bool = False) -> LeftLayer:
    made = place.stat()
    try:
        image = (place / IMAGE_NAME).stat()
    except FileNotFoundError:
        image = made
    return LeftLayer(place.name, image.st_blocks * 512, made.st_mtime, image.st_mtime, is_busy)


@contextlib.contextmanager
def _opened(place: Path) -> Iterator[int]:
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _made_and_locked(place: Path, layer_id: str) -> int:
    deadline_s = time.monotonic() + _GLANCE_S
    while True:
        place.mkdir(mode=0o700, exist_ok=True)
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        is_ours, is_there = try_lock(descriptor), is_at(descriptor, place)
        # It may have been removed, or become a layer, between our opening and locking it.
        if is_ours and is_there:
            return descriptor
        os.close(descriptor)
        if is_there and time.monotonic() > deadline_s:
            raise Busy(f"cannot fetch layer {layer_id}: another process is at it")
        time.sleep(_GLANCE_S / 10)


def _parts_with_data(file: int, manifest: LayerManifest) -> Iterable[int]:
    """Parts of which an earlier process has written something."""
    end = min(os.fstat(file).st_size, manifest.size_bytes)
    at = 0
    while at < end:
        try:
            begin = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(file, begin, os.SEEK_HOLE)
        yield from range(begin // PART_BYTES, -(-min(at, end) // PART_BYTES))


def _together(parts: list[int]) -> Iterable[Run]:
    """Ascending parts as runs."""
    begin = 0
    for index in range(1, len(parts) + 1):
        if index == len(parts) or parts[index] != parts[index - 1] + 1:
            yield parts[begin], parts[index - 1] + 1
            begin = index
