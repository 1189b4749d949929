"""Which definition an image id stands for on this node: what is needed to find a built image again after a restart, and
the steps of one that could not be built."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from squall.agent.disk import Writer
from squall.agent.image import garbage
from squall.agent.image.block.errors import BlockError
from squall.agent.image.block.stored import StoredImages
from squall.agent.image.definitions import Definitions
from squall.agent.image.layer.holds import Hold
from squall.agent.image.layer.store import LayerError
from squall.agent.image.making import Secrets
from squall.agent.image.progress import BuiltImage
from squall.agent.image.step_container import StepVolumes
from squall.protocol import image_steps
from squall.protocol.errors import NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.image import BuildEvent, ImageSpec, ImageStep, image_id, step_title
from squall.protocol.image_store import NodeStoreGc, StoreGcEvent

DAMAGED = (LayerError, OSError, ValueError)
"""What a look at an image raises that cannot be read. It says nothing about the others."""
_log = logging.getLogger("squall.agent.known_images")


class Images(Protocol):
    """Builds images and finds built ones; `agent.image.builder.ImageBuilder` is one."""

    async def build(
        self, spec: ImageSpec, on_event: Callable[[BuildEvent], None], secrets: Secrets | None = None, run_id: str = ""
    ) -> BuiltImage:
        """Build an image, or find it built."""

    def find(self, spec: ImageSpec) -> BuiltImage | None:
        """The image if all of its layers are here."""

    def writers(self) -> Sequence[Writer]:
        """The containers of build steps that run now."""

    def over_disk(self, container_id: str, why: str) -> None:
        """End the step of this container, if there is one, for what it has written."""

    def use_volumes(self, volumes: StepVolumes) -> None:
        """These are what steps, and shells, mount from now on."""


class KnownImages:
    """Keeps the definition of every image that was built here, or was to be."""

    def __init__(self, data_dir: Path, images: Images, stored: StoredImages | None = None) -> None:
        """`stored` has the images that other nodes have built."""
        self._definitions = Definitions(data_dir)
        self._images = images
        self._stored = stored
        self._built: dict[str, BuiltImage] = {}

    def prepare(self) -> None:
        """Make the directory."""
        self._definitions.prepare()

    async def build(
        self, spec: ImageSpec, on_event: Callable[[BuildEvent], None], secrets: Secrets | None = None, run_id: str = ""
    ) -> BuiltImage:
        """As `Images.build`; the image is found by its id from then on. What the store has is not built."""
        image_steps.check(spec)
        hold = self._stored.holds.begin(f"build of {image_id(spec)}") if self._stored is not None else None
        try:
            if hold is not None:
                stored = await self._find_stored(spec, hold)
                if stored is not None:
                    for number, step in enumerate(spec.steps, start=1):
                        on_event(BuildEvent("cached", number, len(spec.steps), step_title(step)))
                    return stored
                await self._bring_named(spec, hold)
            return await self._build(spec, on_event, secrets, run_id)
        finally:
            if hold is not None:
                hold.release()

    async def _build(
        self, spec: ImageSpec, on_event: Callable[[BuildEvent], None], secrets: Secrets | None, run_id: str
    ) -> BuiltImage:
        secret_names = {name: sorted(variables) for name, variables in (secrets or {}).items()}
        # Before: what fails is to be looked at. After: somebody may have removed an old image of this id meanwhile.
        self._definitions.save(spec, secret_names)
        try:
            built = await self._images.build(spec, on_event, secrets, run_id)
        except PlatformError:
            self._definitions.save(spec, secret_names, has_failed=True)
            raise
        self._definitions.save(spec, secret_names)
        self._built[built.image_id] = built
        if self._stored is not None:
            self._stored.put_soon(built)
        return built

    async def _find_stored(self, spec: ImageSpec, hold: Hold) -> BuiltImage | None:
        """An image that is not here but in the store, unless it is to be built anew."""
        if self._stored is None or _is_forced(spec) or self._find_built(image_id(spec)):
            return None
        try:
            return await self._stored.find(image_id(spec), hold)
        except PlatformError as error:
            _log.warning("%s; it is built here", error)
            return None

    async def _bring_named(self, spec: ImageSpec, hold: Hold) -> None:
        """Hold the images that its steps name, brought from the store where they are not here, unless it is built.

        Raises:
            PlatformError: as `get`.
        """
        if self._stored is None or (not _is_forced(spec) and self._images.find(spec)):
            return
        await self._bring(spec.steps, hold)

    async def bring_below(self, spec: ImageSpec, number: int, hold: Hold) -> bool:
        """Hold what the steps before this one, counted from 1, take from the store; whether something came from there.

        Raises:
            PlatformError: as `get`.
        """
        # Where the image was built once, the store has these layers themselves.
        if self._stored is not None and await self._stored.bring(image_id(spec), hold) is not None:
            return True
        return await self._bring(spec.steps[: number - 1], hold)

    async def _bring(self, steps: Sequence[ImageStep], hold: Hold) -> bool:
        """Hold the images that steps name, brought from the store where they are not here; whether one was."""
        if self._stored is None:
            return False
        has_come = False
        for name in dict.fromkeys(step.image_id for step in steps if step.image_id):
            here = self._find_built(name) or self._stored.find_here(name)
            if here is None or not (hold.add_paths(here.layers) and hold.add_all(here.config.layers)):
                has_come = await self._stored.bring(name, hold) is not None or has_come
        return has_come

    def put_rest(self) -> None:
        """Put what was built here and is not in the store: an earlier agent was stopped before, or had none."""
        if self._stored is None:
            return
        for built_id in self._definitions.ids():
            pinned = self._definitions.pinned(built_id)
            # With the layers of its last build: a forced one may have been the last that the earlier agent did.
            if not self._stored.was_put(built_id, pinned.layers if pinned is not None else ()):
                built = self._find_built(built_id)
                if built is not None:
                    self._stored.put_soon(built)

    async def note_used(self, image_ids: Sequence[str]) -> None:
        """These are needed: note it in the store, and put what it lacks and was built here.

        Raises:
            PlatformError: `unavailable`: the store cannot be asked.
        """
        if self._stored is None:
            return
        try:
            missing = await self._stored.note_used(image_ids)
        except BlockError as error:
            raise PlatformError(UNAVAILABLE, f"cannot note which images are used: {error}") from error
        for wanted in missing:
            built = self._find_built(wanted)
            if built is not None:
                self._stored.lost(wanted)
                self._stored.put_soon(built)

    async def remove_stored(self, record: NodeStoreGc, tell: Callable[[str], None]) -> StoreGcEvent:
        """Remove what nothing needs from the store.

        Raises:
            PlatformError: `not_found` without a store; `unavailable`: it fails, or somebody else is at work in it.
        """
        if self._stored is None:
            raise PlatformError(NOT_FOUND, "this node has no store of layers; set SQUALL_LAYER_URL")
        try:
            return await self._stored.remove_garbage(record, tell)
        except BlockError as error:
            raise PlatformError(UNAVAILABLE, f"cannot remove garbage from the store of layers: {error}") from error

    async def get(self, wanted: str, hold: Hold) -> BuiltImage | None:
        """As `find`, and held; what is not here is brought from the store, if that has it.

        Raises:
            PlatformError: `unavailable`: it cannot be had now.
        """
        # Twice: what is removed between finding and holding it may still be here in another way.
        for _ in range(2):
            found = self.find(wanted)
            if found is not None and hold.add_paths(found.layers):
                return found
        return await self._stored.find(wanted, hold) if self._stored is not None else None

    def find(self, wanted: str) -> BuiltImage | None:
        """The built image of this id, or None when its definition or one of its layers is not here."""
        known = self._built.get(wanted)
        if known is not None and all(map(os.path.exists, known.layers)):
            return known
        found = self._find_built(wanted)
        if found is None and self._stored is not None and is_id(wanted, "im"):
            found = self._stored.find_here(wanted)
        if found is not None:
            self._built[wanted] = found
        return found

    def here(self) -> Iterator[str]:
        """The images that containers are started from here at once, also those that come meanwhile from the store.

        Blocks, and marks none as used.
        """
        for name in self._ids():
            known = self._built.get(name)
            try:
                is_here = known is not None and all(map(os.path.exists, known.layers))
                is_here = is_here or self._look(name) is not None
                is_here = is_here or (self._stored is not None and self._stored.is_coming(name))
            except DAMAGED as error:
                _log.warning("image %s counts as one that is not here: %s", name, error)
                continue
            if is_here:
                yield name

    def survey(self) -> garbage.Images:
        """All images that are whole here, and what is here of damaged ones. Blocks, and marks none as used."""
        whole: dict[str, BuiltImage] = {}
        damaged: dict[str, tuple[str, ...]] = {}
        elsewhere: set[str] = set()
        for name in self._ids():
            found = None
            try:
                found = self._look(name)
            except DAMAGED as error:
                _log.warning("image %s counts as one that is not whole: %s", name, error)
                damaged[name] = self._stored.layer_ids(name) if self._stored is not None else ()
            if found is not None:
                whole[name] = found
            if self._stored is not None and self._stored.has(name, found.config.layers if found is not None else ()):
                elsewhere.add(name)
        return garbage.Images(whole, frozenset(elsewhere), damaged)

    def forget(self, image_ids: Iterable[str]) -> None:
        """These are not here any more: they have to be built again, or brought from the store as if they never were."""
        for name in image_ids:
            self._built.pop(name, None)
            if self._stored is not None:
                self._stored.unlearn(name)
        self._definitions.forget(frozenset(image_ids))

    async def put_by_another(self, image_id: str) -> None:
        """Another node has put an image: the next who wants it here gets that one, and not what it was before.

        What runs goes on with the layers that it holds.
        """
        pinned = self._definitions.pinned(image_id)
        try:
            if self._stored is None or not await self._stored.is_replaced(image_id, pinned.layers if pinned else ()):
                return
        except BlockError as error:
            _log.warning("image %s stays what it is on this node: %s", image_id, error)
            return
        _log.info("image %s was built anew by another node", image_id)
        self._definitions.drop(image_id)
        self._stored.unlearn(image_id)
        self._built.pop(image_id, None)

    def forget_unbuilt(self, survey: garbage.Images, now: float) -> None:
        """Images that are not whole and were not tried of late. Blocks."""
        self._definitions.forget_unbuilt({*survey.whole, *survey.elsewhere}, now)

    def definition(self, wanted: str) -> ImageSpec | None:
        """The definition of an image that was built here, or was to be; else None."""
        return self._definitions.load(wanted)

    def secret_names(self, wanted: str) -> dict[str, tuple[str, ...]]:
        """The variables of its steps' secrets, by the names that steps have for them."""
        return self._definitions.secret_names(wanted)

    def _ids(self) -> tuple[str, ...]:
        """Of all images that may be here."""
        fetched = self._stored.fetched_ids() if self._stored is not None else ()
        return tuple(dict.fromkeys((*self._definitions.ids(), *fetched)))

    def _look(self, wanted: str) -> BuiltImage | None:
        """An image that is whole here, without marking it as used."""
        found = self._find_built(wanted)
        if found is None and self._stored is not None:
            found = self._stored.find_here(wanted, is_used=False)
        return found

    def _find_built(self, wanted: str) -> BuiltImage | None:
        """An image that was built here."""
        spec = self.definition(wanted)
        return self._images.find(spec) if spec is not None else None


def _is_forced(spec: ImageSpec) -> bool:
    return any(step.force_build for step in spec.steps)
