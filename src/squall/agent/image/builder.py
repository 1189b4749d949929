"""Builds images: each step in a container of the image so far, what it wrote becoming the next layer.

One build serves everyone who wants the same image at the same time; images with the same first steps share their
layers even while both are being built. A build nobody waits for any more is stopped. Nothing half-made is ever used: a
layer is renamed into the store when its step has ended well, and what a killed agent leaves is removed by the next.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from squall.agent.disk import Writer
from squall.agent.image.as_built import IMAGES_DEEP_MAX, AsBuilt
from squall.agent.image.definitions import Definitions
from squall.agent.image.forced_layers import ForcedLayers
from squall.agent.image.layer.holds import Hold, LayerHolds
from squall.agent.image.layer.store import LayerError, LayerStore
from squall.agent.image.layer.users import UnknownUser
from squall.agent.image.layer_maker import LayerMaker
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.making import BuildFailed, Making, OnEvent, Secrets
from squall.agent.image.progress import BuiltImage, Progress
from squall.agent.image.shell_container import ShellContainers
from squall.agent.image.step_container import Network, StepContainers, StepVolumes
from squall.agent.image.step_logs import StepLogs
from squall.agent.image.thread_call import run_whole
from squall.erofs.errors import BadImage
from squall.protocol import image, image_steps
from squall.protocol.errors import INTERNAL, INVALID, NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.image import BuildEvent, ImageConfig, ImageSpec
from squall.protocol.secret_mark import secret_mark
from squall.runtime.contract import Runtime
from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import IdRange

STEP_TIMEOUT_S = 3_600.0
"""What one step may take that says nothing of it."""
STEP_BYTES_MAX = 128 * 2**30
"""What one step may have on the disk while it runs."""
PACKAGE_BYTES_MAX = 20 * 2**30
"""What the Python packages that builds share may take."""
_REPLAYED_EVENTS_MAX = 2_000
_log = logging.getLogger("squall.agent.image.builder")

UNUSABLE = (UnknownUser, LayerError, BadImage, OSError)
"""What is raised where layers do not make an image."""
_THREADS = 4


@dataclass(slots=True)
class _Build:
    """One image in the making and everyone who waits for it."""

    spec: ImageSpec
    secrets: Secrets
    result: asyncio.Future[BuiltImage]
    listeners: list[OnEvent] = field(default_factory=list)
    run_id: str = ""
    waiters: int = 0
    runner: asyncio.Task[None] | None = None
    history: collections.deque[BuildEvent] = field(
        default_factory=lambda: collections.deque(maxlen=_REPLAYED_EVENTS_MAX)
    )

    def tell(self, event: BuildEvent) -> None:
        """Pass an event on, and keep it for those who come later."""
        self.history.append(event)
        for listener in tuple(self.listeners):
            listener(event)


class ImageBuilder:
    """Builds images on this node, a few at a time.

    Args:
        id_ranges: one per build that may run at a time; nothing else uses them.
        mount_path: the directory of a mount's files by its id.
        uv_path: the uv program, mounted into builds.
        step_timeout_s: how long one step may take that says nothing of it. None: for ever.
        step_bytes_max: what one step may have on the disk while it runs; kept by whoever watches `writers`.
        package_bytes_max: what the packages that builds share may take; 0: they share none.
        holds: of this store, where others hold layers of it too.
        fetched: an image that another node has built and that is whole here.
        discard: has a directory deleted by and by; what it leaves in its place is deleted before a build goes on.
        now: seconds since 1970, for the logs of steps.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        network: Network,
        store: LayerStore,
        settings: MachineSettings,
        data_dir: Path,
        id_ranges: Sequence[IdRange],
        mount_path: Callable[[str], str],
        uv_path: str,
        step_timeout_s: float | None = STEP_TIMEOUT_S,
        step_bytes_max: int = STEP_BYTES_MAX,
        package_bytes_max: int = PACKAGE_BYTES_MAX,
        holds: LayerHolds | None = None,
        fetched: Callable[[str], BuiltImage | None] = lambda image_id: None,
        discard: Callable[[Path], None] = lambda path: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._definitions = Definitions(data_dir)
        self._logs = StepLogs(data_dir, now)
        self._holds = holds or LayerHolds(store)
        self._fetched = fetched
        self._built_before = AsBuilt(store, self._definitions, fetched)
        self._containers = StepContainers(runtime, network, step_timeout_s, step_bytes_max)
        self._maker = LayerMaker(
            containers=self._containers,
            store=store,
            settings=settings,
            data_dir=data_dir,
            id_ranges=id_ranges,
            mount_path=mount_path,
            uv_path=uv_path,
            package_bytes_max=package_bytes_max,
            discard=discard,
        )
        self.shells = ShellContainers(self._containers, self._maker, self.reached)
        self._keeping_room: asyncio.Task[None] | None = None
        self._builds: dict[str, _Build] = {}
        self._key_locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._forced = ForcedLayers()
        self._group = asyncio.TaskGroup()
        self._threads = ThreadPoolExecutor(_THREADS, "builder")
        """For looks into the store: those of the maker may all be packing layers."""

    async def __aenter__(self) -> ImageBuilder:
        """Remove what builds of a killed agent left, containers first: their mounts are below their files."""
        await self._containers.remove_left()
        await asyncio.to_thread(self._store.sweep)
        await asyncio.to_thread(self._definitions.prepare)
        await asyncio.to_thread(lambda: self._logs.tidy({layer.key for layer in self._store.list()}.__contains__))
        await self._group.__aenter__()
        self._keeping_room = self._group.create_task(self._maker.keep_room())
        return self

    async def __aexit__(self, *error: object) -> None:
        """Stop every build and wait until nothing of them is left."""
        for build in tuple(self._builds.values()):
            if build.runner is not None:
                build.runner.cancel()
        if self._keeping_room is not None:
            self._keeping_room.cancel()
        await self._group.__aexit__(None, None, None)
        await self._maker.close()
        # In a thread: the loop must not stand still.
        await asyncio.to_thread(self._threads.shutdown, wait=True)

    def writers(self) -> Sequence[Writer]:
        """See `agent.known_images.Images`."""
        return self._containers.writers()

    def over_disk(self, container_id: str, why: str) -> None:
        """See `agent.known_images.Images`."""
        self._containers.over_disk(container_id, why)

    def use_volumes(self, volumes: StepVolumes) -> None:
        """See `agent.known_images.Images`."""
        self._containers.volumes = volumes

    def find(self, spec: ImageSpec) -> BuiltImage | None:
        """The image if all of its layers are here; `force_build` means nothing to this question."""
        try:
            return self._find(spec, 0)
        except UNUSABLE:
            # Also one that never could be built: a directory that leads in circles, say.
            return None

    def _find(self, spec: ImageSpec, depth: int) -> BuiltImage | None:
        if self._definitions.pinned(image.image_id(spec)) is None:
            progress = self._reached(spec, len(spec.steps), None, depth)
        else:
            # With those layers or not at all: other ones, under the same id, are another image for who runs it.
            progress = self._as_built(spec, None)
        return progress.built(spec) if progress is not None else None

    def _as_built(self, spec: ImageSpec, hold: Hold | None) -> Progress | None:
        """An image with the layers that it was built with; None when it was not, or they are not here. Blocks.

        Where the keys of its steps lead now does not matter.
        """
        config = self._definitions.pinned(image.image_id(spec))
        progress = Progress(ImageConfig(), [], hold=hold)
        if config is None or not progress.take_built(self._store, config):
            return None
        progress.find_merged(self._store)
        return progress

    def reached(self, spec: ImageSpec, count: int, hold: Hold) -> Progress | None:
        """An image after its first steps, held; None when a layer of these is not here. Blocks.

        With the layers that it was built with; if its last build failed, with those that this one had come to.

        Raises:
            UnknownUser, LayerError, BadImage, OSError: its layers do not make an image.
        """
        if self._definitions.has_failed(image.image_id(spec)):
            return self._reached(spec, count, hold, 0) or self._built_before.reached(spec, count, hold)
        return self._built_before.reached(spec, count, hold) or self._reached(spec, count, hold, 0)

    def _reached(self, spec: ImageSpec, count: int, hold: Hold | None, depth: int) -> Progress | None:
        progress = Progress(ImageConfig(), [], hold=hold)
        for step, key in zip(spec.steps[:count], image.step_keys(spec)[:count], strict=True):
            if step.kind == image.FROM_IMAGE:
                built = self._known(step.image_id, depth + 1)
                if built is None:
                    return None
                progress.take_image(self._store, built)
                continue
            other = self._known(step.image_id, depth + 1) if step.image_id else None
            if (step.image_id and other is None) or not progress.take_from_cache(self._store, step, key, other):
                return None
        progress.find_merged(self._store)
        return progress

    def _known(self, image_id: str, depth: int = 0) -> BuiltImage | None:
        """An image that was built here before, or came from another node, and is still whole."""
        spec = self._definitions.load(image_id) if depth < IMAGES_DEEP_MAX else None
        built = None
        with contextlib.suppress(*UNUSABLE):
            built = self._find(spec, depth) if spec is not None else None
        with contextlib.suppress(*UNUSABLE):
            built = built or self._fetched(image_id)
        return built

    def _other(self, making: Making) -> BuiltImage:
        """The image that a step takes files from, or begins with.

        Raises:
            BuildFailed: it is not here.
        """
        built, hold = self._known(making.step.image_id), making.progress.hold
        if built is None or (
            hold is not None and not (hold.add_paths(built.layers) and hold.add_all(built.config.layers))
        ):
            raise making.failure(
                NOT_FOUND,
                f"needs image {making.step.image_id}, which is not on this node",
                "",
                "build that image first",
            )
        return built

    async def build(
        self, spec: ImageSpec, on_event: OnEvent, secrets: Secrets | None = None, run_id: str = ""
    ) -> BuiltImage:
        """Build an image, or join the build of it that is running with these secrets; what was built before is cached.

        Cancelling this call stops the build when nobody else waits for it.

        Args:
            secrets: variables by the names that steps have for them. They are kept nowhere, and hidden in what is said.
            run_id: of the builds that share what forced steps make; empty: this one shares it with nobody.

        Raises:
            BuildFailed: a step failed, or its base cannot be had; the message carries the last lines of output.
            ImageInvalid: nobody could build this.
        """
        image_steps.check(spec)
        # With a wrong token of one, all who joined would fail: others come behind it, and take what it made.
        forced = [number for number, step in enumerate(spec.steps, start=1) if step.force_build]
        name = f"{image.image_id(spec)}/{forced}/{secret_mark(secrets or {})}/{run_id if forced else ''}"
        build = self._builds.get(name)
        if build is None:
            build = _Build(spec, secrets or {}, asyncio.get_running_loop().create_future(), run_id=run_id)
            self._builds[name] = build
            build.runner = self._group.create_task(self._run(name, build))
        for event in tuple(build.history):
            on_event(event)
        build.listeners.append(on_event)
        build.waiters += 1
        try:
            return await asyncio.shield(build.result)
        finally:
            build.listeners.remove(on_event)
            build.waiters -= 1
            if not build.waiters and build.runner is not None:
                # Out of sight first: who comes now must not join a build that is being stopped.
                self._forget(name, build)
                build.runner.cancel()

    async def _run(self, name: str, build: _Build) -> None:
        hold = self._holds.begin(f"build of {image.image_id(build.spec)}")
        try:
            build.result.set_result(await self._build_steps(build, hold))
        except asyncio.CancelledError:
            stopped = BuildFailed(UNAVAILABLE, f"build of {image.image_id(build.spec)} was stopped; build again")
            build.result.set_exception(stopped)
        except PlatformError as error:
            build.result.set_exception(error)
        except (RuntimeFailure, *UNUSABLE) as error:
            build.result.set_exception(BuildFailed(INTERNAL, f"cannot build {image.image_id(build.spec)}: {error}"))
        except Exception as error:  # noqa: BLE001 - a mistake of ours ends this build, and not all that are under way
            _log.exception("the build of %s failed by a mistake", image.image_id(build.spec))
            what = f"cannot build {image.image_id(build.spec)}: {type(error).__name__}; the log of the node says more"
            build.result.set_exception(BuildFailed(INTERNAL, what))
        finally:
            hold.release()
            self._forget(name, build)
            if build.result.done():
                # Seen, so that asyncio does not complain of an exception nobody waits for any more.
                build.result.exception()

    def _forget(self, name: str, build: _Build) -> None:
        if self._builds.get(name) is build:
            del self._builds[name]

    async def _build_steps(self, build: _Build, hold: Hold) -> BuiltImage:
        spec = build.spec
        await asyncio.to_thread(self._logs.begin, image.image_id(spec), image.step_keys(spec))
        if not any(step.force_build for step in spec.steps):
            progress = await run_whole(self._threads, lambda: self._as_built(spec, hold))
            if progress is not None:
                return await self._taken(build, progress)
        progress = Progress(ImageConfig(), [], hold=hold)
        for number, (step, key) in enumerate(zip(spec.steps, image.step_keys(spec), strict=True), start=1):
            event = BuildEvent("step", number, len(spec.steps), image.step_title(step))
            progress.is_forced = progress.is_forced or step.force_build
            size_bytes, count = progress.size_bytes, len(progress.layers)
            async with self._only_one(key):
                making = Making(spec, progress, step, key, event, build.tell, build.secrets, run_id=build.run_id)
                if await run_whole(self._threads, partial(self._is_cached, making)):
                    build.tell(replace(event, kind="cached", size_bytes=progress.size_bytes - size_bytes))
                    continue
                await self._maker.merge(progress)
                build.tell(event)
                started = time.monotonic()
                with self._logs.keeping(key, event, build.tell, build.secrets) as tell, _users_known(making):
                    other = await run_whole(self._threads, partial(self._other, making)) if step.image_id else None
                    making = replace(making, tell=tell, below=progress.below(other))
                    await self._maker.make(making, other)
                    if progress.is_forced and len(progress.layers) > count:
                        self._forced.note(making, progress.layers[-1].layer_id)
                duration_s, grown = time.monotonic() - started, progress.size_bytes - size_bytes
                build.tell(replace(event, kind="done", duration_s=duration_s, size_bytes=grown))
        await self._maker.merge(progress)
        built = progress.built(spec)
        await asyncio.to_thread(self._definitions.pin, built.image_id, built.config)
        return built

    async def _taken(self, build: _Build, progress: Progress) -> BuiltImage:
        """An image that was built before and is whole: all of its steps are told as cached."""
        await self._maker.merge(progress)
        spec, built = build.spec, progress.built(build.spec)
        size_bytes: dict[int, int] = {}
        for part in built.parts:
            size_bytes[part.step] = size_bytes.get(part.step, 0) + part.size_bytes
        for number, step in enumerate(spec.steps, start=1):
            event = BuildEvent("cached", number, len(spec.steps), image.step_title(step))
            build.tell(replace(event, size_bytes=size_bytes.get(number, 0)))
        return built

    def _is_cached(self, making: Making) -> bool:
        """Take a step from the cache, if it is there. Blocks."""
        progress, step = making.progress, making.step
        if step.kind == image.FROM_IMAGE:
            progress.take_image(self._store, self._other(making))
            return True
        other = self._known(step.image_id) if step.image_id else None
        if step.image_id and other is None:
            return False
        with _users_known(making):
            if progress.is_forced:
                # What another image of this run has made is as new as what this one would make.
                layer_id = self._forced.find(replace(making, below=progress.below(other)))
                return progress.take_layer(step, self._store.look(layer_id) if layer_id else None)
            return progress.take_from_cache(self._store, step, making.key, other)

    @contextlib.asynccontextmanager
    async def _only_one(self, key: str) -> AsyncIterator[None]:
        """Keep another build of this node from the same step: it then finds the layer in the cache."""
        lock, users = self._key_locks.get(key, (asyncio.Lock(), 0))
        self._key_locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._key_locks.pop(key)
            if users > 1:
                self._key_locks[key] = (lock, users - 1)


@contextlib.contextmanager
def _users_known(making: Making) -> Iterator[None]:
    """What a step, or the base that it fetches, says of users is told as the failure of the step."""
    try:
        yield
    except UnknownUser as error:
        raise making.failure(INVALID, f"failed: {error}", "", "correct the step and build again") from error
