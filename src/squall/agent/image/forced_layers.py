"""Which layers forced builds have made, so that the images of one run share them."""

from __future__ import annotations

import collections

from squall.agent.image.making import Making

LAYERS_MAX = 10_000
"""Remembered at a time; of a run whose layers are forgotten, the next image makes them again."""


class ForcedLayers:
    """Remembers layers by run, step and what they stand on.

    In memory: a run that outlives the agent makes them again.
    """

    def __init__(self) -> None:
        self._layer_ids: collections.OrderedDict[tuple[str, str, str], str] = collections.OrderedDict()

    def note(self, making: Making, layer_id: str) -> None:
        """A step of a forced build has made this layer."""
        if making.run_id:
            self._layer_ids[_name(making)] = layer_id
            while len(self._layer_ids) > LAYERS_MAX:
                self._layer_ids.popitem(last=False)

    def find(self, making: Making) -> str | None:
        """What another build of the run has made of this step, on the same layers."""
        return self._layer_ids.get(_name(making)) if making.run_id else None


def _name(making: Making) -> tuple[str, str, str]:
    return (making.run_id, making.key, making.below)
