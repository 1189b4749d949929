"""Who uses which layers of this node now: what is held is removed by nobody.

A hold is a shared lock on the layer's manifest, and `LayerStore.remove` takes the other kind: so it counts between
processes, and what a killed process held is free. To find a layer is not to have it. Whoever goes on with one holds it
first, and looks again when that fails: it was removed in between.

What is held counts as used, when it is taken and when it is let go.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable

from squall.agent.image.layer.store import LayerStore


class LayerHolds:
    """The holds of one process."""

    def __init__(self, store: LayerStore) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._descriptors: dict[str, int] = {}
        self._holds: dict[str, set[Hold]] = {}

    def begin(self, user: str) -> Hold:
        """A hold on nothing yet; `user` says in words who has it."""
        return Hold(self, user)

    def users(self, layer_id: str) -> tuple[str, ...]:
        """Who holds a layer."""
        with self._lock:
            return tuple(sorted({hold.user for hold in self._holds.get(layer_id, ())}))

    def add(self, layer_id: str, hold: Hold) -> bool:
        """See `Hold.add`."""
        with self._lock:
            if layer_id not in self._descriptors:
                descriptor = self.store.open_used(layer_id)
                if descriptor is None:
                    return False
                self._descriptors[layer_id] = descriptor
            self._holds.setdefault(layer_id, set()).add(hold)
            return True

    def release(self, layer_ids: Iterable[str], hold: Hold) -> None:
        """See `Hold.release`."""
        with self._lock:
            for layer_id in layer_ids:
                holds = self._holds[layer_id]
                holds.discard(hold)
                with contextlib.suppress(OSError):
                    # A full disk may have no room for the time; it is let go all the same.
                    os.utime(self._descriptors[layer_id])
                if not holds:
                    del self._holds[layer_id]
                    os.close(self._descriptors.pop(layer_id))


class Hold:
    """The layers that one user holds, until `release`."""

    def __init__(self, holds: LayerHolds, user: str) -> None:
        self.user = user
        self._holds = holds
        self._layer_ids: set[str] = set()

    @property
    def layer_ids(self) -> tuple[str, ...]:
        """What it has."""
        return tuple(sorted(self._layer_ids))

    def add(self, layer_id: str) -> bool:
        """Hold one more layer; False when it is not there (any more)."""
        if layer_id in self._layer_ids:
            return True
        is_held = self._holds.add(layer_id, self)
        if is_held:
            self._layer_ids.add(layer_id)
        return is_held

    def add_paths(self, paths: Iterable[str]) -> bool:
        """Hold the layers that are at these places; False when one is not there. Places elsewhere are not ours."""
        found = (self._holds.store.id_at(path) for path in paths)
        return all(self.add(layer_id) for layer_id in found if layer_id is not None)

    def add_all(self, layer_ids: Iterable[str]) -> bool:
        """Hold several layers; False when one is not there."""
        return all(self.add(layer_id) for layer_id in layer_ids)

    def release(self) -> None:
        """Let go of all of them; may be repeated."""
        layer_ids, self._layer_ids = self._layer_ids, set()
        self._holds.release(layer_ids, self)
