"""Builds images: each step in a container of the image so far, what it wrote becoming the next layer.

One build serves everyone who wants the same image at the same time; images with the same first steps share their
layers even while both are being built. A build nobody waits for any more is stopped. Nothing half-made is ever used: a
layer is renamed into the store when its step has ended well, and what a killed agent leaves is removed by the next.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import logging
import os
import posixpath
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar

from squall.agent.image import commands
from squall.agent.image.bases import ensure_base
from squall.agent.image.debian import BaseUnavailable, sources_of_suite
from squall.agent.image.inherit import COPY_DIR, Inherited, inherit
from squall.agent.image.layers import Layer, LayerError, LayerStore, Scratch
from squall.agent.image.machine import MachineSettings
from squall.agent.image.output import StepOutput
from squall.agent.image.overlay import drop_mount_points, has_directory
from squall.agent.image.packages import PackageCache, drop_view, fetch_options, has_view
from squall.protocol import image
from squall.protocol.errors import INTERNAL, INVALID, TIMED_OUT, UNAVAILABLE, UNSUPPORTED, PlatformError
from squall.protocol.ids import new_id
from squall.protocol.image import BuildEvent, ImageConfig, ImageSpec, ImageStep
from squall.runtime.contract import Runtime
from squall.runtime.errors import RuntimeFailure
from squall.runtime.removal import remove_tree
from squall.runtime.spec import Bind, ContainerSpec, ExitStatus, IdRange, Limits, NetworkSlot

_log = logging.getLogger("squall.agent.image.builder")
T = TypeVar("T")
OnEvent = Callable[[BuildEvent], None]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KIND_LABEL = "squall.kind"
BUILD_KIND = "image-build"
_STEP_TIMEOUT_S = 3_600.0
_REPLAYED_EVENTS_MAX = 2_000
_BUILD_PIDS_MAX = 16_384
_EXIT_POLL_S = (0.002, 0.25)
# Where the runtime keeps what a container writes, below the state directory it is given.
_UPPER = "rw/upper"
# Places the runtime mounts on in every container, made where an image lacks them; they are no part of a layer.
_RUNTIME_MOUNT_POINTS = ("/dev", "/proc", "/sys", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname")


class Network(Protocol):
    """Where build containers get their network from."""

    async def acquire(self, container_id: str) -> NetworkSlot:
        """A slot for this container alone."""

    async def release(self, slot: NetworkSlot) -> None:
        """Give it back, once the container is gone."""


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image that containers can start from."""

    image_id: str
    layers: tuple[str, ...]
    """Directories, bottom first."""
    config: ImageConfig


class BuildFailed(PlatformError):
    """An image could not be built. The message names the image, the step, the cause with its last lines, a way out."""


@dataclass(slots=True)
class _Build:
    """One image in the making and everyone who waits for it."""

    spec: ImageSpec
    result: asyncio.Future[BuiltImage]
    listeners: list[OnEvent] = field(default_factory=list)
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


@dataclass(slots=True)
class _Progress:
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


@dataclass(frozen=True, slots=True)
class _Making:
    """One step of one build, being made."""

    build: _Build
    progress: _Progress
    step: ImageStep
    key: str
    event: BuildEvent

    def on_line(self, text: str) -> None:
        """Pass on a line of output."""
        self.build.tell(replace(self.event, kind="line", text=text))

    def on_download_line(self, text: str) -> None:
        """Pass on a line of a fetch if it tells of what takes long; the step itself says the rest."""
        if "ownload" in text:
            self.on_line(text)

    def failure(self, code: str, cause: str, tail: str, remedy: str) -> BuildFailed:
        """The error for this step."""
        what = f"step {self.event.step} of {self.event.steps} ({self.event.text})"
        lines = f"; its last lines:\n{tail}" if tail else " and printed nothing"
        return BuildFailed(
            code, f"cannot build image {image.image_id(self.build.spec)}: {what} {cause}; {remedy}{lines}"
        )


class ImageBuilder:
    """Builds images on this node, a few at a time.

    Args:
        id_ranges: one per build that may run at a time; nothing else uses them.
        mount_path: the directory of a mount's files by its id.
        uv_path: the uv program, mounted into builds.
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
        step_timeout_s: float = _STEP_TIMEOUT_S,
    ) -> None:
        self._runtime = runtime
        self._network = network
        self._store = store
        self._settings = settings
        self._packages = PackageCache(data_dir)
        self._mount_path = mount_path
        self._uv_path = uv_path
        self._step_timeout_s = step_timeout_s
        self._id_ranges: asyncio.Queue[IdRange] = asyncio.Queue()
        for id_range in id_ranges:
            self._id_ranges.put_nowait(id_range)
        self._builds: dict[str, _Build] = {}
        self._key_locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._group = asyncio.TaskGroup()
        self._threads = ThreadPoolExecutor(max_workers=2 + len(id_ranges), thread_name_prefix="image")

    async def __aenter__(self) -> ImageBuilder:
        """Remove what builds of a killed agent left, containers first: their mounts are below their files."""
        for status in await self._runtime.list():
            if status.labels.get(KIND_LABEL) == BUILD_KIND:
                await self._runtime.remove(status.container_id)
        await self._blocking(self._store.sweep)
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        """Stop every build and wait until nothing of them is left."""
        for build in tuple(self._builds.values()):
            if build.runner is not None:
                build.runner.cancel()
        await self._group.__aexit__(None, None, None)
        # A base in the making notices within a line of output that nobody wants it; the loop must not stand still.
        await asyncio.to_thread(self._threads.shutdown, wait=True)

    def find(self, spec: ImageSpec) -> BuiltImage | None:
        """The image if all of its layers are here; `force_build` means nothing to this question."""
        progress = _Progress(ImageConfig(), [])
        for step, key in zip(spec.steps, image.step_keys(spec), strict=True):
            if not self._take_from_cache(progress, step, key):
                return None
        return _built(spec, progress)

    async def build(self, spec: ImageSpec, on_event: OnEvent) -> BuiltImage:
        """Build an image, or join the build of it that is running; what was built before is taken from the cache.

        Cancelling this call stops the build when nobody else waits for it.

        Raises:
            BuildFailed: a step failed, or its base cannot be had; the message carries the last lines of output.
            ImageInvalid: nobody could build this.
        """
        image.check(spec)
        name = f"{image.image_id(spec)}/{[step.force_build for step in spec.steps]}"
        build = self._builds.get(name)
        if build is None:
            build = _Build(spec, asyncio.get_running_loop().create_future())
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
        try:
            build.result.set_result(await self._build_steps(build))
        except asyncio.CancelledError:
            stopped = BuildFailed(UNAVAILABLE, f"build of {image.image_id(build.spec)} was stopped; build again")
            build.result.set_exception(stopped)
        except PlatformError as error:
            build.result.set_exception(error)
        except (RuntimeFailure, LayerError, OSError) as error:
            build.result.set_exception(BuildFailed(INTERNAL, f"cannot build {image.image_id(build.spec)}: {error}"))
        finally:
            self._forget(name, build)
            if build.result.done():
                # Seen, so that asyncio does not complain of an exception nobody waits for any more.
                build.result.exception()

    def _forget(self, name: str, build: _Build) -> None:
        if self._builds.get(name) is build:
            del self._builds[name]

    async def _build_steps(self, build: _Build) -> BuiltImage:
        spec = build.spec
        progress = _Progress(ImageConfig(), [])
        for number, (step, key) in enumerate(zip(spec.steps, image.step_keys(spec), strict=True), start=1):
            event = BuildEvent("step", number, len(spec.steps), commands.title(step))
            progress.is_forced = progress.is_forced or step.force_build
            async with self._only_one(key):
                if not progress.is_forced and self._take_from_cache(progress, step, key):
                    build.tell(replace(event, kind="cached"))
                    continue
                build.tell(event)
                started = time.monotonic()
                await self._make(_Making(build, progress, step, key, event))
                build.tell(replace(event, kind="done", duration_s=time.monotonic() - started))
        return _built(spec, progress)

    def _take_from_cache(self, progress: _Progress, step: ImageStep, key: str) -> bool:
        """Take a step whose layer is here, or that needs none."""
        config = _config_after(progress.config, step)
        layer = self._store.find(key)
        if layer is not None:
            self._store.mark_used(layer.layer_id)
            progress.add(config, layer)
            return True
        if step.kind == image.ENV or (step.kind == image.WORKDIR and has_directory(progress.paths, config.workdir)):
            progress.config = config
            return True
        return False

    async def _make(self, making: _Making) -> None:
        """Make the layer of a step, if it needs one, and add it."""
        progress, step = making.progress, making.step
        config = _config_after(progress.config, step)
        if step.kind == image.ENV:
            progress.config = config
        elif step.kind == image.DEBIAN_SLIM:
            progress.add(config, await self._make_base(making))
        else:
            progress.add(config, await self._make_layer(making, config))

    async def _make_base(self, making: _Making) -> Layer:
        loop = asyncio.get_running_loop()
        is_abandoned = threading.Event()

        def make() -> Layer:
            return ensure_base(
                self._store,
                self._settings,
                making.step.python_version,
                lambda text: _call_soon(loop, making.on_line, text),
                is_forced=making.progress.is_forced,
                is_cancelled=is_abandoned.is_set,
            )

        try:
            return await self._blocking(make)
        except asyncio.CancelledError:
            is_abandoned.set()
            raise
        except BaseUnavailable as error:
            raise BuildFailed(UNSUPPORTED, str(error)) from error

    async def _make_layer(self, making: _Making, config: ImageConfig) -> Layer:
        """Run a step in a container and keep what it wrote."""
        id_range = await self._id_ranges.get()
        try:
            await self._fetch(making, id_range)
            async with self._scratch() as scratch:
                command = commands.command(making.step, config.workdir)
                spec, inherited = await self._blocking(lambda: self._container(making, command, scratch, id_range))
                if has_view(making.step):
                    spec = replace(spec, layers=(*spec.layers, self._packages.layer))
                await self._run_step(making, spec, making.on_line)
                return await self._blocking(lambda: self._seal(making, scratch, inherited))
        finally:
            self._id_ranges.put_nowait(id_range)

    async def _fetch(self, making: _Making, id_range: IdRange) -> None:
        """Bring what a step will install into the cache of packages, if that may be shared and is not there yet."""
        options = fetch_options(making.step, making.progress.config.env)
        if options is None or making.build.spec.steps[0].kind != image.DEBIAN_SLIM:
            return
        pristine = _Progress(ImageConfig(), [])
        pristine.add(ImageConfig(), making.progress.layers[0])
        name = json.dumps([making.progress.layers[0].layer_id, *options])
        if self._packages.is_fetched(name, time.monotonic()):
            return
        fetch = replace(making, progress=pristine, step=replace(making.step, env={}))
        async with self._scratch() as scratch:
            command = commands.fetch_command(options)
            spec, _ = await self._blocking(lambda: self._container(fetch, command, scratch, id_range))
            spec = replace(spec, binds=(*spec.binds, self._packages.bind), env={**spec.env, **commands.fetch_env()})
            try:
                await self._run_step(fetch, spec, making.on_download_line)
            except BuildFailed as error:
                # No wheel, no such package, no network: the step finds out, and says it.
                _log.info("packages are not shared: %s", error)
                return
        self._packages.note_fetched(name, time.monotonic())

    def _container(
        self, making: _Making, command: Sequence[str], scratch: Scratch, id_range: IdRange
    ) -> tuple[ContainerSpec, Inherited]:
        step, before = making.step, making.progress.config
        inside = scratch.path / "inside"
        inside.mkdir(mode=0o755)
        sources = sources_of_suite(making.progress.suite, self._settings)
        self._packages.ensure()
        inherited = inherit(self._settings, sources, inside, uv_path=self._uv_path)
        binds = inherited.binds
        if step.kind == image.COPY:
            binds = (*binds, Bind(self._mount_path(step.mount_id), COPY_DIR, is_idmapped=True))
        state_dir = scratch.path / "state"
        state_dir.mkdir(mode=0o700)
        spec = ContainerSpec(
            container_id=new_id("ct"),
            layers=making.progress.paths,
            state_dir=str(state_dir),
            id_range=id_range,
            argv=command,
            env={"PATH": PATH, "HOME": "/root", **inherited.env, **commands.step_env(step), **before.env, **step.env},
            cwd=before.workdir or "/",
            hostname="build",
            binds=binds,
            limits=Limits(pids_max=_BUILD_PIDS_MAX),
            is_upper_idmapped=True,
            labels={KIND_LABEL: BUILD_KIND, "squall.key": making.key},
        )
        return spec, inherited

    async def _run_step(self, making: _Making, spec: ContainerSpec, on_line: Callable[[str], None]) -> None:
        """Run a step's container to its end; nothing of it but its files is left.

        Raises:
            BuildFailed: it did not end well.
        """
        output = StepOutput(on_line)
        started = time.monotonic()
        slot = await self._network.acquire(spec.container_id)
        try:
            # A proxy on the machine's loopback has another address inside, which the slot knows. The user's word counts
            # above both.
            own = {**spec.env, **slot.env, **making.progress.config.env, **making.step.env}
            running = await self._runtime.start(replace(spec, env=own, network=slot))
            try:
                async with asyncio.timeout(self._step_timeout_s):
                    await asyncio.gather(output.read(running.stdout_fd), output.read(running.stderr_fd))
                    status = await self._exit_of(spec.container_id)
            finally:
                os.close(running.stdout_fd)
                os.close(running.stderr_fd)
        except TimeoutError:
            raise making.failure(
                TIMED_OUT, f"did not end within {self._step_timeout_s:g} s", output.tail, "split the step"
            ) from None
        finally:
            await self._runtime.remove(spec.container_id)
            await self._network.release(slot)
        output.finish()
        if status.code != 0:
            cause = f"failed after {time.monotonic() - started:.1f} s with {_described(status)}"
            raise making.failure(INVALID, cause, output.tail, "correct the step and build again")

    async def _exit_of(self, container_id: str) -> ExitStatus:
        """The end of a container whose output has ended: normally there already."""
        # Asked for, not taken from `exits()`: that stream belongs to the agent, and has each exit only once.
        pause_s = _EXIT_POLL_S[0]
        while True:
            known = {status.container_id: status for status in await self._runtime.list()}
            if container_id not in known:
                raise BuildFailed(UNAVAILABLE, f"build container {container_id} was removed by somebody; build again")
            ended = known[container_id].exit_status
            if ended is not None:
                return ended
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _EXIT_POLL_S[1])

    def _seal(self, making: _Making, scratch: Scratch, inherited: Inherited) -> Layer:
        """Make the container's upper directory the layer of its key."""
        upper = scratch.path / "state" / _UPPER
        # A step that wrote nothing may have none.
        upper.mkdir(parents=True, exist_ok=True)
        if has_view(making.step):
            drop_view(str(upper))
        drop_mount_points(str(upper), making.progress.paths, (*inherited.mount_points, *_RUNTIME_MOUNT_POINTS))
        return self._store.commit(scratch, upper, making.key, {}, replaces=making.progress.is_forced)

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

    @contextlib.asynccontextmanager
    async def _scratch(self) -> AsyncIterator[Scratch]:
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(self._store.scratch())
            try:
                yield scratch
            finally:
                # Deleting a tree takes a while; what is left for the stack is quick.
                await self._blocking(lambda: remove_tree(str(scratch.path)))

    async def _blocking(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _config_after(config: ImageConfig, step: ImageStep) -> ImageConfig:
    """What a step does to how containers start."""
    if step.kind == image.ENV:
        return replace(config, env={**config.env, **step.vars})
    if step.kind == image.WORKDIR:
        return replace(config, workdir=posixpath.normpath(posixpath.join(config.workdir or "/", step.path)))
    return config


def _built(spec: ImageSpec, progress: _Progress) -> BuiltImage:
    layers = tuple(layer.layer_id for layer in progress.layers)
    return BuiltImage(image.image_id(spec), progress.paths, replace(progress.config, layers=layers))


def _described(status: ExitStatus) -> str:
    if status.is_oom:
        return "out of memory"
    if status.signal is not None:
        return f"signal {signal.Signals(status.signal).name}"
    return f"exit status {status.code}"


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[str], None], text: str) -> None:
    # The loop may be gone while the thread still reads the last lines.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, text)
