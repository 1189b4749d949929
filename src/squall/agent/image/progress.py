"""An image as far as its steps have come, and what each step adds to it."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from squall.agent.image.layer.chain import MergeWanted, merges, shortened
from squall.agent.image.layer.overlay import has_directory
from squall.agent.image.layer.store import Layer, LayerStore
from squall.protocol import image
from squall.protocol.image import BuiltLayer, ImageConfig, ImageSpec, ImageStep


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image that containers can start from."""

    image_id: str
    layers: tuple[str, ...]
    """Directories or images, bottom first."""
    config: ImageConfig
    parts: tuple[BuiltLayer, ...] = ()
    """Its layers with their sizes; none of an image that came from a store."""


@dataclass(slots=True)
class Progress:
    """How far one build has come."""

    config: ImageConfig
    layers: list[Layer]
    is_forced: bool = False
    """A step said force_build: no later one comes from the cache."""
    merged: dict[str, Layer] = field(default_factory=dict)
    """Layers that stand for several, by their keys; see `layer.chain`."""

    @property
    def paths(self) -> tuple[str, ...]:
        """What containers stand on, bottom first: layers, and those that stand for several."""
        return tuple(layer.path for layer in shortened(self.layers, self.merged))

    @property
    def suite(self) -> str:
        """The Debian suite of the base; empty when it has none."""
        return self.layers[0].facts.get("suite", "") if self.layers else ""

    def add(self, config: ImageConfig, layer: Layer) -> None:
        """Go on with one more layer."""
        self.layers.append(layer)
        # A base from a registry says how its author wants programs to start.
        self.config = replace(
            config,
            env={**json.loads(layer.facts.get("env", "{}")), **config.env},
            workdir=config.workdir or layer.facts.get("workdir", ""),
            python_path=layer.facts.get("python_path", config.python_path),
            python_version=layer.facts.get("python_version", config.python_version),
        )

    def take_from_cache(self, store: LayerStore, step: ImageStep, key: str) -> bool:
        """Take a step whose layer is here, or that needs none."""
        config = config_after(self.config, step)
        layer = store.find(key)
        if layer is not None:
            store.mark_used(layer.layer_id)
            self.add(config, layer)
            return True
        if step.kind == image.ENV or (step.kind == image.WORKDIR and has_directory(self.paths, config.workdir)):
            self.config = config
            return True
        return False

    def find_merged(self, store: LayerStore) -> Sequence[MergeWanted]:
        """Take the layers that stand for several of these; returns those that are wanted and not there."""
        wanted = [one for one in merges(self.layers) if one.key not in self.merged]
        for one in wanted:
            if layer := store.find(one.key):
                store.mark_used(layer.layer_id)
                self.merged[one.key] = layer
        return [one for one in wanted if one.key not in self.merged]

    def built(self, spec: ImageSpec) -> BuiltImage:
        """The image, once this is all of it."""
        layers = tuple(layer.layer_id for layer in self.layers)
        config = replace(self.config, layers=layers)
        return BuiltImage(image.image_id(spec), self.paths, config, tuple(self._parts(spec)))

    def _parts(self, spec: ImageSpec) -> Iterator[BuiltLayer]:
        numbers = {key: number for number, key in enumerate(image.step_keys(spec), start=1)}
        number = 1
        for layer in self.layers:
            number = numbers.get(layer.key, number)
            yield BuiltLayer(layer.layer_id, layer.size_bytes, number)


def config_after(config: ImageConfig, step: ImageStep) -> ImageConfig:
    """What a step does to how containers start."""
    if step.kind == image.ENV:
        return replace(config, env={**config.env, **step.vars})
    if step.kind == image.WORKDIR:
        return replace(config, workdir=posixpath.normpath(posixpath.join(config.workdir or "/", step.path)))
    return config
