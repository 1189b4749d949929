"""What a node's layers occupy, who needs them, and the removal of those that nobody does.

A layer stays when an image that is needed has it (the server says which are), when somebody on this node holds it
(`layer.holds`), or when it was used since a given time, and in any case since the removal began: a build that finds a
layer while this looks around has used it. Removal is decided layer by layer behind the layer's lock, so a look that has
grown old does no harm. Killed half-way, what was removed is gone and the rest is whole.

Images that somebody wants removed go the same way, each with the layers that no other image has, whatever their age.

What has come of a layer that was never whole goes by its age alone, unless somebody fetches it now: an image that needs
it gets it again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from squall.agent.image.block.partial import LeftLayer, left_layers, remove_left
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.store import Layer, LayerError, LayerStore
from squall.agent.image.progress import BuiltImage
from squall.protocol.image_catalog import LayerUse, NodeGc, NodeImageDelete, NodeImageGc

MARGIN_S = 1.0
"""Times of files lag behind the clock by a tick."""
_FETCH = "a fetch that is under way"


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a node, as far as they are whole."""

    whole: Mapping[str, BuiltImage]
    elsewhere: frozenset[str] = frozenset()
    """Those that could be fetched again."""
    damaged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Layers of those that could not be read: who needs such an image keeps what is here of it. The disk may only have
    been full."""


def collect(holds: LayerHolds, node_id: str, images: Images, request: NodeImageGc, now: float) -> NodeGc:
    """Remove what nobody needs, or only say what that is. Blocks.

    Args:
        now: seconds since 1970, when this was asked for.
    """
    store = holds.store
    used_before = now - max(request.older_than_s, MARGIN_S)
    uses = _uses(holds, images, request.needed)
    found = [_remove(holds, use, used_before, is_dry_run=request.is_dry_run) for use in uses]
    gone = {image_id for use in found if use.is_removed for image_id in use.image_ids} - images.elsewhere
    found += [_remove_left(store, left, used_before, is_dry_run=request.is_dry_run) for left in left_layers(store)]
    return _done(node_id, found, gone)


def delete(holds: LayerHolds, node_id: str, images: Images, request: NodeImageDelete, now: float) -> NodeGc:
    """Remove images, or only say what that is: each as a whole, or not when one of the layers it alone has is used.

    The answer has their layers, also those that stay because other images have them. An image is gone with the last
    layer that it alone has; one that is whole nowhere is gone too. Blocks.

    Args:
        now: as in `collect`.
    """
    uses = tuple(_uses(holds, images, request.needed))
    wanted = set(request.image_ids) - set(request.needed)
    while used := {one for use in uses if use.users and wanted.issuperset(use.image_ids) for one in use.image_ids}:
        # What these have stays, also for others that were to go with them.
        wanted -= used
    used_before = math.inf if request.is_dry_run else now - MARGIN_S
    found = []
    for use in uses:
        if use.image_ids and wanted.issuperset(use.image_ids):
            found.append(_remove(holds, use, used_before, is_dry_run=request.is_dry_run))
        elif not set(request.image_ids).isdisjoint(use.image_ids):
            found.append(use)
    lost = {image_id for use in found if use.is_removed for image_id in use.image_ids}
    # Somebody came between looking and removing.
    kept = {one for use in found if not use.is_removed and wanted.issuperset(use.image_ids) for one in use.image_ids}
    return _done(node_id, found, wanted - (kept - lost))


def rest_s(dry: NodeGc, now: float) -> float:
    """How long after a dry run of `delete` all that would be removed is old enough to be."""
    youngest = max((use.used_at for use in dry.layers if use.is_removed), default=-math.inf)
    # A tick more: the clock that times of files are of may lag behind.
    return max(0.0, min(youngest - now, 0.0) + MARGIN_S + 0.05)


def _done(node_id: str, found: Sequence[LayerUse], gone: set[str]) -> NodeGc:
    freed_bytes = sum(use.size_bytes for use in found if use.is_removed)
    return NodeGc(node_id, tuple(found), freed_bytes, tuple(sorted(gone)))


def _uses(holds: LayerHolds, images: Images, needed: Mapping[str, tuple[str, ...]]) -> Iterator[LayerUse]:
    """All layers, each with its images and who needs it."""
    of_layer: dict[str, list[str]] = {}
    for image_id, built in sorted(images.whole.items()):
        # What it is made of, and the merged layers that a deep one stands on: it is not found without either.
        for layer_id in dict.fromkeys((*built.config.layers, *(holds.store.id_at(path) for path in built.layers))):
            if layer_id is not None:
                of_layer.setdefault(layer_id, []).append(image_id)
    for image_id, layer_ids in sorted(images.damaged.items()):
        for layer_id in layer_ids:
            of_layer.setdefault(layer_id, []).append(image_id)
    for layer in holds.store.list():
        yield _look(holds, layer, tuple(of_layer.get(layer.layer_id, ())), needed)


def _look(
    holds: LayerHolds, layer: Layer, image_ids: tuple[str, ...], needed: Mapping[str, tuple[str, ...]]
) -> LayerUse:
    needing = (user for image_id in image_ids for user in needed.get(image_id, ()))
    users = dict.fromkeys((*needing, *holds.users(layer.layer_id)))
    made_at, used_at = holds.store.made_at(layer.layer_id), holds.store.used_at(layer.layer_id)
    return LayerUse(layer.layer_id, layer.size_bytes, made_at, used_at, False, image_ids, tuple(users))


def _remove(holds: LayerHolds, use: LayerUse, used_before: float, *, is_dry_run: bool) -> LayerUse:
    if use.users or use.used_at >= used_before:
        return use
    if is_dry_run:
        return _removed(use)
    try:
        return _removed(use) if holds.store.remove(use.layer_id, used_before) else use
    except LayerError as error:
        users = holds.users(use.layer_id) or (str(error),)
        return LayerUse(use.layer_id, use.size_bytes, use.made_at, use.used_at, False, use.image_ids, users)


def _remove_left(store: LayerStore, left: LeftLayer, used_before: float, *, is_dry_run: bool) -> LayerUse:
    users = (_FETCH,) if left.is_busy else ()
    use = LayerUse(left.layer_id, left.size_bytes, left.made_at, left.used_at, users=users)
    if users or use.used_at >= used_before:
        return use
    return _removed(use) if is_dry_run or remove_left(store, left.layer_id, used_before) else use


def _removed(use: LayerUse) -> LayerUse:
    return LayerUse(use.layer_id, use.size_bytes, use.made_at, use.used_at, True, use.image_ids)
