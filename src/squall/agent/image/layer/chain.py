"""Which layers of a deep chain are merged, so that the kernel can stack it and a start does not take each of them.

Overlayfs stacks 500 layers at most, and each costs a start some 40 µs. A chain of up to `DEPTH_MAX` is mounted as it
is. In a longer one each whole group of `GROUP` layers above the base, counted from the bottom, is replaced by one that
was made of them: images with the same first steps have the same groups and share what was merged. See
docs/decisions/0032.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from squall.agent.image.layer.store import Layer

DEPTH_MAX = 128
GROUP = 64
# Raise it when merging gives other files.
_VERSION = 1


@dataclass(frozen=True, slots=True)
class MergeWanted:
    """Several layers, bottom first, and the key of the one that stands for them."""

    key: str
    layers: Sequence[Layer]


def merges(layers: Sequence[Layer]) -> list[MergeWanted]:
    """What a chain is merged into, bottom first; nothing when it is short.

    The base stays out: a whiteout in the lowest layer of a stack would be shown.
    """
    if len(layers) <= DEPTH_MAX:
        return []
    starts = range(1, len(layers) - GROUP + 1, GROUP)
    groups = [layers[start : start + GROUP] for start in starts]
    return [MergeWanted(_key(group), group) for group in groups]


def shortened(layers: Sequence[Layer], merged: Mapping[str, Layer]) -> list[Layer]:
    """The chain with those groups replaced whose merged layer is there."""
    wanted = merges(layers)
    found = list(layers[:1])
    for one in wanted:
        found += [merged[one.key]] if one.key in merged else one.layers
    return found + list(layers[1 + GROUP * len(wanted) :])


def _key(layers: Sequence[Layer]) -> str:
    # Of the layers and not of the keys they serve: a forced rebuild makes other files under the same key.
    text = " ".join([f"merged-{_VERSION}", *(layer.layer_id for layer in layers)])
    return hashlib.sha256(text.encode()).hexdigest()
