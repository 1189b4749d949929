"""An image as far as its steps have come, and what each step adds to it."""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass, replace

from squall.agent.image.layer.overlay import has_directory
from squall.agent.image.layer.store import Layer, LayerStore
from squall.protocol import image
from squall.protocol.image import ImageConfig, ImageSpec, ImageStep


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image that containers can start from."""

    image_id: str
    layers: tuple[str, ...]
    """Directories, bottom first."""
    config: ImageConfig


@dataclass(slots=True)
class Progress:
    """How far one build has come."""

    config: ImageConfig
    layers: list[Layer]
    is_forced: bool = False
    """A step said force_build: no later one comes from the cache."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Directories of the layers, bottom first."""
        return tuple(layer.path for layer in self.layers)

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

    def built(self, spec: ImageSpec) -> BuiltImage:
        """The image, once this is all of it."""
        layers = tuple(layer.layer_id for layer in self.layers)
        return BuiltImage(image.image_id(spec), self.paths, replace(self.config, layers=layers))


def config_after(config: ImageConfig, step: ImageStep) -> ImageConfig:
    """What a step does to how containers start."""
    if step.kind == image.ENV:
        return replace(config, env={**config.env, **step.vars})
    if step.kind == image.WORKDIR:
        return replace(config, workdir=posixpath.normpath(posixpath.join(config.workdir or "/", step.path)))
    return config
