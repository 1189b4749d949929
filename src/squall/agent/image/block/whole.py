"""Fetches layers whole: what a node does that cannot start a container before all of a layer is here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from squall.agent.image.block.errors import BlockError
from squall.agent.image.block.manifest import layer_id_of
from squall.agent.image.block.partial import Busy, PartialLayer, Run
from squall.agent.image.block.store import BlockStore
from squall.agent.image.layer.holds import Hold
from squall.agent.image.layer.store import Layer, LayerStore

AT_A_TIME = 4
_BUSY_WAIT_S = 600.0
_BUSY_POLL_S = 0.1


def fetch_whole(
    digests: Sequence[str],
    store: BlockStore,
    layers: LayerStore,
    is_cancelled: Callable[[], bool] = lambda: False,
    *,
    hold: Hold | None = None,
) -> list[Layer]:
    """The layers of these manifests, fetched where they are not here. Blocks.

    Args:
        hold: gets each as soon as it is here: the next may take minutes, and it could be removed meanwhile.

    Raises:
        BlockError: one of them cannot be had; what came of it is used by the next attempt.
        LayerError: a layer cannot be written.
    """
    return [_fetch_one(digest, store, layers, is_cancelled, hold) for digest in digests]


def _fetch_one(
    digest: str, store: BlockStore, layers: LayerStore, is_cancelled: Callable[[], bool], hold: Hold | None
) -> Layer:
    deadline = time.monotonic() + _BUSY_WAIT_S
    while True:
        try:
            found = layers.look(layer_id_of(digest)) or _bring(digest, store, layers, is_cancelled)
            if hold is None or hold.add(found.layer_id):
                return found
            # Once it is gone, it is fetched again.
            raise Busy(f"cannot fetch layer {found.layer_id}: it is being removed")
        except Busy:
            if is_cancelled() or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_POLL_S)


def _bring(digest: str, store: BlockStore, layers: LayerStore, is_cancelled: Callable[[], bool]) -> Layer:
    partial = PartialLayer(digest, store.get_layer(digest), store, layers)
    try:
        return _complete(partial, is_cancelled)
    finally:
        partial.close()


def _complete(partial: PartialLayer, is_cancelled: Callable[[], bool]) -> Layer:
    """Fetch what is missing, several blocks at a time, and keep the layer.

    Raises:
        BlockError: a block cannot be had, or this is cancelled.
    """
    failures: list[BlockError] = []

    def bring(run: Run) -> None:
        # The first failure ends it: the others would each be patient in vain.
        if not failures:
            try:
                if is_cancelled():
                    raise BlockError(f"cannot fetch layer {partial.layer_id}: stopped")
                partial.ensure(*run)
            except BlockError as error:
                failures.append(error)

    with ThreadPoolExecutor(AT_A_TIME, "blocks") as threads:
        wait([threads.submit(bring, run) for run in partial.runs()])
    if failures:
        raise failures[0]
    return partial.keep()
