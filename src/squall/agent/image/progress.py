"""An image as far as its steps have come, and what each step adds to it."""

from __future__ import annotations

import json
import posixpath
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from squall.agent.image.layer.chain import MergeWanted, merges, shortened
from squall.agent.image.layer.holds import Hold
from squall.agent.image.layer.merged import Merged, merged
from squall.agent.image.layer.overlay import has_directory
from squall.agent.image.layer.store import Layer, LayerError, LayerStore, stands_on
from squall.agent.image.layer.users import find_user
from squall.agent.image.machine.tool import PATH
from squall.agent.image.template import expand
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
    hold: Hold | None = None
    """Gets every layer of it; None for one that is only looked at."""

    @property
    def paths(self) -> tuple[str, ...]:
        """What containers stand on, bottom first: layers, and those that stand for several."""
        return tuple(layer.path for layer in shortened(self.layers, self.merged))

    @property
    def size_bytes(self) -> int:
        """Of all layers."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def suite(self) -> str:
        """The Debian suite of the base; empty when it has none."""
        return self.layers[0].facts.get("suite", "") if self.layers else ""

    def add(self, config: ImageConfig, layer: Layer) -> None:
        """Go on with one more layer.

        Raises:
            LayerError: it was removed since it was made.
        """
        self._keep(layer)
        self.layers.append(layer)
        # A base from a registry says how its author wants programs to start.
        facts = layer.facts
        self.config = replace(
            config,
            env={**json.loads(facts.get("env", "{}")), **config.env},
            workdir=config.workdir or facts.get("workdir", ""),
            python_path=facts.get("python_path", config.python_path),
            python_version=facts.get("python_version", config.python_version),
            entrypoint=config.entrypoint or tuple(json.loads(facts.get("entrypoint", "[]"))),
            cmd=config.cmd or tuple(json.loads(facts.get("cmd", "[]"))),
            shell=config.shell or tuple(json.loads(facts.get("shell", "[]"))),
        )
        if facts.get("user"):
            self.config = self._as_user(facts["user"])

    def _as_user(self, name: str) -> ImageConfig:
        with merged(self.paths) as layers:
            user = find_user(layers, name)
        return replace(self.config, user=name, uid=user.uid, gid=user.gid, home=user.home)

    def add_merged(self, key: str, layer: Layer) -> None:
        """Go on with one layer for those that this key stands for.

        Raises:
            LayerError: as `add`.
        """
        self._keep(layer)
        self.merged[key] = layer

    def _keep(self, layer: Layer) -> None:
        if not self._holds(layer):
            raise LayerError(f"layer {layer.layer_id} was removed while it was to be used; build again")

    def _holds(self, layer: Layer) -> bool:
        return self.hold is None or self.hold.add(layer.layer_id)

    def below(self, other: BuiltImage | None) -> str:
        """What the next layer will stand on; `other` is the image that its files are taken from."""
        return stands_on((layer.layer_id for layer in self.layers), other.config.layers if other is not None else ())

    def take_from_cache(self, store: LayerStore, step: ImageStep, key: str, other: BuiltImage | None = None) -> bool:
        """Take a step whose layer is here, built on the layers of this image, or that needs none.

        Args:
            other: the image that the step takes files from.

        Raises:
            UnknownUser: the step names a user that the image does not have.
        """
        return self.take(step, store.find(key, self.below(other)))

    def take(self, step: ImageStep, layer: Layer | None) -> bool:
        """Take a step with its layer; without one, whether it needs none.

        Raises:
            UnknownUser: as `take_from_cache`.
        """
        if self.take_layer(step, layer):
            return True
        if step.kind in image.CONFIG_KINDS or step.kind == image.FROM_SCRATCH or self._is_there(step):
            self.config = self.config_after(step)
            return True
        return False

    def take_layer(self, step: ImageStep, layer: Layer | None) -> bool:
        """Take a step with this layer; False for none, and for one that is removed at this moment.

        Raises:
            UnknownUser: as `take_from_cache`.
        """
        if layer is None or not self._holds(layer):
            return False
        self.add(self.config_after(step), layer)
        return True

    def find_merged(self, store: LayerStore) -> Sequence[MergeWanted]:
        """Take the layers that stand for several of these; returns those that are wanted and not there."""
        wanted = [one for one in merges(self.layers) if one.key not in self.merged]
        for one in wanted:
            layer = store.find(one.key)
            if layer is not None and self._holds(layer):
                self.merged[one.key] = layer
        return [one for one in wanted if one.key not in self.merged]

    def _is_there(self, step: ImageStep) -> bool:
        return step.kind == image.WORKDIR and has_directory(self.paths, self.config_after(step).workdir)

    def take_image(self, store: LayerStore, built: BuiltImage) -> None:
        """Begin with another image.

        Raises:
            LayerError: it is not whole (any more).
        """
        self.layers = [store.get(layer_id) for layer_id in built.config.layers]
        for layer in self.layers:
            self._keep(layer)
        self.config = built.config

    def take_built(self, store: LayerStore, config: ImageConfig) -> bool:
        """Begin with what was built before; False when one of its layers is not here (any more)."""
        layers = [layer for layer in map(store.look, config.layers) if layer is not None and self._holds(layer)]
        self.layers, self.config = layers, config
        return len(layers) == len(config.layers)

    def config_after(self, step: ImageStep) -> ImageConfig:
        """What a step does to how containers start.

        Raises:
            UnknownUser: the step names a user that the image does not have.
        """
        config = self.config
        if step.kind == image.ENV:
            return replace(
                config, env={**config.env, **{name: self.text(step, text) for name, text in step.vars.items()}}
            )
        if step.kind == image.WORKDIR:
            return replace(config, workdir=self.path_of(step))
        if step.kind == image.USER:
            return self._as_user(self.text(step, step.user))
        if step.kind == image.SHELL:
            return replace(config, shell=step.arguments)
        if step.kind == image.ENTRYPOINT:
            # As with Docker: a command is for the entrypoint it was written for.
            return replace(config, entrypoint=step.arguments, cmd=())
        if step.kind == image.CMD:
            return replace(config, cmd=step.arguments)
        return config

    def path_of(self, step: ImageStep) -> str:
        """The path of a step, absolute."""
        return absolute(self.config.workdir, self.text(step, step.path))

    def text(self, step: ImageStep, text: str) -> str:
        """A text of a step, with the image's variables where it names some."""
        return expand(text, {"PATH": PATH, **self.config.env}) if step.is_template else text

    def built(self, spec: ImageSpec) -> BuiltImage:
        """The image, once this is all of it."""
        layers = tuple(layer.layer_id for layer in self.layers)
        config = replace(self.config, layers=layers)
        if "PATH" in config.env or not config.python_path:
            config = self._with_python(config)
        return BuiltImage(image.image_id(spec), self.paths, config, tuple(self._parts(spec)))

    def _parts(self, spec: ImageSpec) -> Iterator[BuiltLayer]:
        numbers = {key: number for number, key in enumerate(image.step_keys(spec), start=1)}
        number = 1
        for layer in self.layers:
            number = numbers.get(layer.key, number)
            yield BuiltLayer(layer.layer_id, layer.size_bytes, number)

    def _with_python(self, config: ImageConfig) -> ImageConfig:
        """The first Python on the image's PATH is the one its author means."""
        with merged(self.paths) as layers:
            found = find_python(layers, config.env.get("PATH", PATH))
        if found == config.python_path:
            return config
        return replace(config, python_path=found, python_version="")


def absolute(workdir: str, path: str) -> str:
    """A path that may be relative to the working directory of an image."""
    return "/" + posixpath.normpath(posixpath.join(workdir or "/", path)).lstrip("/")


def find_python(layers: Merged, path: str) -> str:
    """The first Python 3 on a PATH; an empty text where there is none."""
    places = [place.rstrip("/") for place in path.split(":") if place.startswith("/")]
    found = (f"{place}/{name}" for place in places for name in ("python3", "python"))
    return next((program for program in found if is_program(layers, program)), "")


def is_program(layers: Merged, path: str) -> bool:
    """Whether a file that can be executed is there."""
    found = layers.find(path)
    return found is not None and stat.S_ISREG(found.found.mode) and bool(found.found.mode & 0o111)
