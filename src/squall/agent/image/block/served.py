"""Layers that are served while they come: parts on demand, ahead by the trace of an earlier start, the rest in time.

    add    manifest, first part (the superblock), trace ─▶ the paths to mount
    read   the parts of a read, a few more when reads go on where the last one ended
    fill   block by block when nobody has wanted anything for a while ─▶ an ordinary layer of the store

Containers come first: the fill waits for them, though not for ever.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from squall.agent.image.block.errors import BlockError, NotInStore
from squall.agent.image.block.manifest import PART_BYTES, PARTS_PER_BLOCK, layer_id_of
from squall.agent.image.block.partial import PartialLayer, Run
from squall.agent.image.block.store import BlockStore
from squall.agent.image.block.trace import Recorder, Wanted, parse_trace
from squall.agent.image.layer.store import LayerError, LayerStore

AHEAD_PARTS_MAX = 8
"""Fetched at once where one reads on and on."""
QUIET_S = 2.0
"""The fill begins when nothing was wanted for so long."""
FILL_WAIT_S = 5.0
"""But waits no longer than this for each block."""
FILL_AGAIN_S = 15.0
"""After a failure."""
RECORDED_S = 120.0
"""A first start is over then, or when nothing was wanted for `RECORD_QUIET_S`."""
RECORD_QUIET_S = 5.0
MOUNTED_WITHIN_S = 60.0
"""Who was told where a layer is has it open by then."""
_FETCHES_AHEAD = 8
_FILLS = 4

_log = logging.getLogger("squall.agent.image.block.served")


@dataclass(slots=True)
class Served:
    """One layer."""

    digest: str
    partial: PartialLayer
    opens: int = 0
    next_part: int = -1
    """Where the last read ended."""
    ahead: int = 0
    told_s: float = field(default_factory=time.monotonic)
    """When somebody was last told of it."""
    kept_s: float = 0.0
    """When it became an ordinary layer; what has it open goes on reading here."""

    @property
    def is_kept(self) -> bool:
        """Whether it is one."""
        return self.kept_s > 0


@dataclass(slots=True)
class _Recording:
    image_id: str
    recorder: Recorder
    begun_s: float = field(default_factory=time.monotonic)


class ServedLayers:
    """The layers of one node that are not whole. Any number of threads may use it."""

    def __init__(self, store: BlockStore, layers: LayerStore) -> None:
        self._store = store
        self._layers = layers
        self._lock = threading.Lock()
        self._served: dict[str, Served] = {}
        self._replaced: list[Served] = []
        """Removed from this node while somebody had them open, and on their way here once more."""
        self._recordings: list[_Recording] = []
        self._wanted_s = time.monotonic()
        self._ahead = ThreadPoolExecutor(_FETCHES_AHEAD, "ahead")
        self._fills = ThreadPoolExecutor(_FILLS, "fill")
        self._has_more = threading.Event()

    # Add

    def add(self, image_id: str, digests: Sequence[str], is_served: Sequence[str]) -> dict[str, str]:
        """Serve layers of an image: for each that is wanted the name it has here, or the path when it is whole.

        Args:
            digests: all layers of the image, bottom first.
            is_served: those that are wanted.

        Raises:
            BlockError: the store does not give what the mount needs.
        """
        self._wanted_s = time.monotonic()
        with ThreadPoolExecutor(len(is_served) + 1) as threads:
            tracing = threads.submit(self._trace, image_id, digests)
            names = dict(zip(is_served, threads.map(self._add_layer, is_served), strict=True))
            wanted = tracing.result()
        if wanted is None:
            with self._lock:
                if not any(one.image_id == image_id for one in self._recordings):
                    self._recordings.append(_Recording(image_id, Recorder(digests)))
        else:
            self._fetch_ahead(digests, wanted)
        self._has_more.set()
        return names

    def _add_layer(self, digest: str) -> str:
        name = layer_id_of(digest)
        whole = self._layers.look(name)
        if whole is not None:
            return whole.path
        with self._lock:
            served = self._tell_of(name)
        if served is None:
            manifest = self._store.get_layer(digest)
            with self._lock:
                served = self._tell_of(name)
                if served is None:
                    served = Served(digest, PartialLayer(digest, manifest, self._store, self._layers))
                    if name in self._served:
                        self._replaced.append(self._served[name])
                    self._served[name] = served
        # Mounting reads it, and the process that mounts waits for nobody.
        served.partial.ensure(0, 1)
        return name

    def _tell_of(self, name: str) -> Served | None:
        """A layer that is served and that somebody is told of; for whoever holds the lock."""
        served = self._served.get(name)
        # What was whole and is not on this node any more was removed. Who has it open goes on with it, and nobody else.
        if served is None or (served.is_kept and self._layers.look(name) is None):
            return None
        served.told_s = time.monotonic()
        return served

    def _trace(self, image_id: str, digests: Sequence[str]) -> list[Wanted] | None:
        """What an earlier start wanted; None when nobody knows, so that this one is to be noted."""
        try:
            return parse_trace(self._store.get_trace(image_id), digests) or None
        except NotInStore:
            return None
        except BlockError as error:
            _log.warning("image %s starts without a trace: %s", image_id, error)
            return None

    def _fetch_ahead(self, digests: Sequence[str], wanted: Sequence[Wanted]) -> None:
        for number, first, end in wanted:
            with self._lock:
                served = self._served.get(layer_id_of(digests[number]))
            if served is not None:
                end = min(end, served.partial.manifest.part_count)
                for begin in range(first, end, PARTS_PER_BLOCK):
                    run = (begin, min(begin + PARTS_PER_BLOCK, end))
                    self._ahead.submit(self._bring, served.partial, run)

    # Read

    def find(self, name: str) -> Served | None:
        """A layer that is served, by its name."""
        with self._lock:
            return self._served.get(name)

    def names(self) -> list[str]:
        """Of all that are served."""
        with self._lock:
            return list(self._served)

    def open(self, name: str) -> Served | None:
        """The same for somebody who opens it: it stays until `close`."""
        with self._lock:
            served = self._served.get(name)
            if served is not None:
                served.opens += 1
            return served

    def close(self, served: Served) -> None:
        """Somebody has let it go."""
        with self._lock:
            served.opens -= 1

    def read(self, served: Served, offset: int, size: int) -> bytes:
        """Bytes of a layer, for whoever waits for them.

        Raises:
            BlockError: they cannot be had.
        """
        partial = served.partial
        first, end = offset // PART_BYTES, min(-(-(offset + size) // PART_BYTES), partial.manifest.part_count)
        self._wanted_s = time.monotonic()
        for recording in self._recordings:
            recording.recorder.note(served.digest, first, end)
        if all(map(partial.has, range(first, end))):
            served.next_part = end
            return partial.read(offset, size)
        # Reads that go on get twice as much ahead each time; others get what they ask for.
        is_next = first in (served.next_part, served.next_part - 1)
        served.ahead = min(max(1, served.ahead * 2), AHEAD_PARTS_MAX) if is_next else 0
        served.next_part = end
        block_end = (end - 1) // PARTS_PER_BLOCK * PARTS_PER_BLOCK + PARTS_PER_BLOCK
        partial.ensure(first, min(end + served.ahead, block_end, partial.manifest.part_count))
        return partial.read(offset, size)

    # Fill

    def fill(self) -> None:
        """Bring what is missing, for ever. For a thread of its own."""
        while True:
            self._has_more.wait()
            self._has_more.clear()
            for served in [one for one in self._all() if not one.is_kept]:
                if not self._complete(served):
                    self._has_more.set()
            if self._has_more.is_set():
                time.sleep(FILL_AGAIN_S)

    def _complete(self, served: Served) -> bool:
        def bring(run: Run) -> None:
            deadline = time.monotonic() + FILL_WAIT_S
            while (now := time.monotonic()) < deadline and now - self._wanted_s < QUIET_S:
                time.sleep(0.05)
            served.partial.ensure(*run, is_fill=True)

        bringing: list[Future[None]] = [self._fills.submit(bring, run) for run in served.partial.runs()]
        wait(bringing)
        try:
            for future in bringing:
                future.result()
            served.partial.keep()
        except (BlockError, LayerError) as error:
            _log.warning("layer %s is not whole yet: %s; trying again", served.partial.layer_id, error)
            return False
        served.kept_s = time.monotonic()
        _log.info("layer %s is whole", served.partial.layer_id)
        return True

    def save_traces(self) -> None:
        """Put the traces of the starts that are over."""
        now = time.monotonic()
        with self._lock:
            over = [
                one
                for one in self._recordings
                if now - one.begun_s > RECORDED_S or now - max(self._wanted_s, one.begun_s) > RECORD_QUIET_S
            ]
            self._recordings = [one for one in self._recordings if one not in over]
        for one in over:
            data = one.recorder.to_bytes()
            if data:
                try:
                    self._store.put_trace(one.image_id, data)
                except BlockError as error:
                    _log.warning("the next start of %s is slower than it could be: %s", one.image_id, error)

    # What there is

    def drop_unused(self) -> None:
        """Let go of whole layers that nobody has open, nor has just been told of."""
        with self._lock:
            for name, served in list(self._served.items()):
                is_old = served.is_kept and time.monotonic() - max(served.kept_s, served.told_s) > MOUNTED_WITHIN_S
                if is_old and not served.opens:
                    del self._served[name]
                    served.partial.close()
            unused = [served for served in self._replaced if not served.opens]
            for served in unused:
                self._replaced.remove(served)
                served.partial.close()

    def state(self) -> dict[str, int]:
        """Counts, for who asks how it goes."""
        every = self._all()
        return {
            "layers": len(every),
            "incomplete": sum(not one.is_kept for one in every),
            "opens": sum(one.opens for one in every),
            "fetched_bytes": sum(one.partial.fetched_bytes for one in every),
            "filled_bytes": sum(one.partial.filled_bytes for one in every),
            "recordings": len(self._recordings),
            "is_awaited": int(time.monotonic() - self._wanted_s < MOUNTED_WITHIN_S),
        }

    def _all(self) -> list[Served]:
        with self._lock:
            return [*self._served.values(), *self._replaced]

    def _bring(self, partial: PartialLayer, run: Run) -> None:
        try:
            partial.ensure(*run)
        except BlockError as error:
            # Whoever needs it finds the same, or better.
            _log.info("not fetched ahead: %s", error)
