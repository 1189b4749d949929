"""Removal of garbage from the store of layers that nodes share."""

from __future__ import annotations

from squall.protocol.records import record

DAY_S = 24 * 3600.0
GRACE_S = 7 * DAY_S
"""What is younger stays in the store, whoever needs it."""


@record
class ImageStoreGc:
    """Remove from the store of layers what nothing needs: a stream of `StoreGcEvent`.

    Images stay that an app that has not stopped, a container, a published name or another such image needs, or that any
    server of the store has used in the last `older_than_s`. What only removed images need goes 7 days after them.

    Errors: `invalid` for less than 7 days; `not_found` when no connected node has such a store; `unavailable` when the
    store fails or somebody else is at work in it, and what was not removed by then is as it was.
    """

    older_than_s: float = 30 * DAY_S
    is_dry_run: bool = False
    """Only say what would be removed."""


@record
class NodeStoreGc:
    """The same for the node that does it. `needed` has the images that must stay."""

    older_than_s: float
    is_dry_run: bool = False
    needed: tuple[str, ...] = ()


@record
class StoreKind:
    """The objects of one kind."""

    count: int = 0
    size_bytes: int = 0
    removed: int = 0
    """Of these; or would be, in a dry run."""
    removed_bytes: int = 0


@record
class StoreGcEvent:
    """Something to tell whoever waits for it.

    kind: `line` (of what is happening), `done` (the last event).
    """

    kind: str
    text: str = ""
    store: str = ""
    """done: which; this and the following."""
    images: StoreKind = StoreKind()
    layers: StoreKind = StoreKind()
    blocks: StoreKind = StoreKind()
    waiting: StoreKind = StoreKind()
    """Images that were removed earlier and keep their layers for 7 days."""
    removed_image_ids: tuple[str, ...] = ()


@record
class NodeImagesUsed:
    """These images are needed: the node notes it in its store, and puts there what is missing and was built on it."""

    image_ids: tuple[str, ...]
