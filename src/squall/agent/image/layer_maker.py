"""Makes the layer of one step: a base, or what a container of the image so far has written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from squall.agent.disk import limit_of
from squall.agent.guest_library import plain_library
from squall.agent.image import commands
from squall.agent.image.bases.debian import python_of_suite, sources_of_suite
from squall.agent.image.bases.standalone import PYTHON_DIR
from squall.agent.image.inherit import CACHE_DIR, Inherited, inherit
from squall.agent.image.layer.overlay import drop_mount_points
from squall.agent.image.layer.scratch import Scratch
from squall.agent.image.layer.store import Layer, LayerStore
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.machine.tool import PATH
from squall.agent.image.making import BuildFailed, Making
from squall.agent.image.outside import OutsideMaker
from squall.agent.image.package.cache import PackageCache, apt_dir, fetch_words, has_view, take_view
from squall.agent.image.progress import BuiltImage, Progress, absolute
from squall.agent.image.step_container import Room, StepContainers
from squall.agent.image.thread_call import run_whole
from squall.agent.labels import BUILD_KIND, KIND_LABEL
from squall.protocol import image, image_steps
from squall.protocol.errors import INVALID, UNAVAILABLE
from squall.protocol.guest import LIBRARY_DIR
from squall.protocol.ids import new_id
from squall.protocol.image import ImageConfig, ImageStep
from squall.runtime.errors import RuntimeFailure
from squall.runtime.removal import remove_tree
from squall.runtime.spec import Bind, ContainerSpec, IdRange, Limits

_log = logging.getLogger("squall.agent.image.layer_maker")
T = TypeVar("T")

_AS_USER = (image.RUN_COMMANDS, image.RUN_FUNCTION)
"""Packages are for everybody who uses the image, whoever that is."""
BUILD_PIDS_MAX = 16_384
ROOM_S = 60.0
"""Between two looks at how large the cache of packages is."""
# Where the runtime keeps what a container writes, below the state directory it is given.
_UPPER = "rw/upper"
# Places the runtime mounts on in every container, made where an image lacks them; they are no part of a layer.
_RUNTIME_MOUNT_POINTS = ("/dev", "/proc", "/sys", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname")


class LayerMaker:
    """Makes layers, as many at a time as there are id ranges. See `ImageBuilder` for its arguments."""

    def __init__(
        self,
        *,
        containers: StepContainers,
        store: LayerStore,
        settings: MachineSettings,
        data_dir: Path,
        id_ranges: Sequence[IdRange],
        mount_path: Callable[[str], str],
        uv_path: str,
        package_bytes_max: int,
        discard: Callable[[Path], None],
    ) -> None:
        self._containers = containers
        self._store = store
        self._settings = settings
        self._packages = PackageCache(data_dir, package_bytes_max)
        self._mount_path = mount_path
        self._uv_path = uv_path
        self._discard = discard
        self._id_ranges: asyncio.Queue[IdRange] = asyncio.Queue()
        for id_range in id_ranges:
            self._id_ranges.put_nowait(id_range)
        self._has_fetched = True
        """Since the shared packages were last measured; who is new has not looked."""
        self._threads = ThreadPoolExecutor(max_workers=2 + len(id_ranges), thread_name_prefix="image")
        self._outside = OutsideMaker(
            store, settings, self._threads, mount_path, uv_path, containers.bytes_max, containers.timeout_s
        )

    async def close(self) -> None:
        """Wait for what still makes a base: it notices within a line of output that nobody wants it."""
        # In a thread: the loop must not stand still.
        await asyncio.to_thread(self._threads.shutdown, wait=True)

    async def make(self, making: Making, other: BuiltImage | None = None) -> None:
        """Make the layer of a step, if it needs one, and add it to the image.

        Args:
            other: the image that a step takes files from.

        Raises:
            BuildFailed: the step did not end well, or the base cannot be had.
            UnknownUser: the step, or the base, names a user that the image does not have.
        """
        progress, step = making.progress, making.step
        config = progress.config_after(step)
        if step.kind in image.CONFIG_KINDS or step.kind == image.FROM_SCRATCH:
            progress.config = config
        elif step.kind == image.DEBIAN_SLIM:
            progress.add(config, await self._outside.make_base(making))
        elif step.kind == image.FROM_REGISTRY:
            progress.add(config, await self._outside.pull(making))
        elif step.kind == image.FROM_ARCHIVE:
            progress.add(config, await self._outside.read_archive(making))
        elif step.kind == image.ADD_PYTHON:
            await self._add_python(making, config)
        elif step.kind in (image.COPY, image.WORKDIR):
            progress.add(config, await self._outside.lay_files(making, other))
        else:
            progress.add(config, await self._make_layer(making))

    async def merge(self, progress: Progress) -> None:
        """Make what stands for many layers at once, where the image has become that deep.

        Raises:
            LayerError: one of the layers is damaged, or the disk is full.
        """
        for wanted in progress.find_merged(self._store):
            merged = await self._blocking(partial(self._store.merge, wanted.layers, wanted.key))
            progress.add_merged(wanted.key, merged)

    async def _add_python(self, making: Making, config: ImageConfig) -> None:
        """A Python of its own in front of the image's others, or the one that its distribution has."""
        progress = making.progress
        layer = await self._outside.add_python(making)
        if layer is not None:
            path = f"{PYTHON_DIR}/bin:{config.env.get('PATH', PATH)}"
            progress.add(replace(config, env={**config.env, "PATH": path}), layer)
            return
        version = making.step.python_version
        if python_of_suite(progress.suite) != version:
            cause = f"cannot fetch Python {version}, and the image's own distribution does not have it"
            remedy = "name a mirror with UV_PYTHON_INSTALL_MIRROR, or another version"
            raise making.failure(UNAVAILABLE, cause, "", remedy)
        packages = image_steps.apt_install(("python3", "python3-venv"))
        progress.add(config, await self._make_layer(replace(making, step=packages)))

    async def _make_layer(self, making: Making) -> Layer:
        """Run a step in a container and keep what it wrote."""
        id_range = await self._id_ranges.get()
        try:
            await self._fetch(making, id_range)
            command = commands.command(making.step, making.progress.config)
            async with self.prepared(making, command, id_range) as (spec, inherited, scratch):
                await self._containers.run(making, spec, making.on_line, Room((str(scratch.path),)))
                # A layer of which half was removed while it was written out would be found from then on.
                return await self._written(lambda: self._seal(making, scratch, inherited))
        finally:
            self._id_ranges.put_nowait(id_range)

    @contextlib.asynccontextmanager
    async def prepared(
        self, making: Making, command: Sequence[str], id_range: IdRange
    ) -> AsyncIterator[tuple[ContainerSpec, Inherited, Scratch]]:
        """A container for a step, to be started: with all that the step sees, and its files in a scratch directory."""
        async with self.scratch() as scratch, self._view(making):
            spec, inherited = await self._written(lambda: self._container(making, command, scratch, id_range))
            if has_view(making.step):
                spec = replace(spec, layers=(*spec.layers, self._packages.layer))
            yield spec, inherited, scratch

    async def _fetch(self, making: Making, id_range: IdRange) -> None:
        """Bring what a step will install into the cache of packages, if that may be shared and is not there yet."""
        step = making.step
        words = fetch_words(step, {**making.progress.config.env, **making.secret_env})
        if words is None or not self._shares(making):
            return
        base = making.progress.layers[0]
        name = json.dumps([base.layer_id, step.kind, *words])
        if self._packages.is_fetched(name, time.monotonic()):
            return
        pristine = Progress(ImageConfig(), [])
        pristine.add(ImageConfig(), base)
        fetch = replace(making, progress=pristine, step=replace(step, env={}, secrets=()))
        async with self.scratch() as scratch, self._packages.in_use():
            command = commands.fetch_command(step.kind, words)
            spec, _ = await self._written(lambda: self._container(fetch, command, scratch, id_range))
            spec = replace(spec, binds=(*spec.binds, self._packages.bind), env={**spec.env, **commands.fetch_env()})
            try:
                room = Room(
                    (str(scratch.path), self._packages.layer),
                    limit_of(self._packages.bytes_max),
                    "give the packages that builds share more with SQUALL_PACKAGE_BYTES_MAX",
                )
                await self._containers.run(fetch, spec, making.on_download_line, room)
            except BuildFailed as error:
                # No wheel, no such package, no network: the step finds out, and says it.
                _log.info("packages are not shared: %s", error)
                return
            finally:
                self._has_fetched = True
            fetched = scratch.path / "inside/tmp/fetched"
            await self._blocking(lambda: self._packages.note_fetched(name, time.monotonic(), fetched))

    def _shares(self, making: Making) -> bool:
        """Whether packages for this image are the same for everybody: its base is none that a user chose."""
        return bool(self._packages.bytes_max) and making.spec.steps[0].kind == image.DEBIAN_SLIM

    def _view(self, making: Making) -> AbstractAsyncContextManager[None]:
        """While a step sees the shared packages, none of them goes."""
        return self._packages.in_use() if has_view(making.step) else contextlib.nullcontext()

    async def keep_room(self) -> None:
        """Keep the shared packages below their limit, for ever. To be awaited by whoever owns this."""
        while True:
            if self._has_fetched:
                self._has_fetched = False
                try:
                    is_done = await self._packages.keep_room(self._threads)
                except (RuntimeFailure, OSError) as error:
                    _log.warning("cannot make room among the shared packages: %s; trying again", error)
                    is_done = False
                self._has_fetched = self._has_fetched or not is_done
            await asyncio.sleep(ROOM_S)

    def _container(
        self, making: Making, command: Sequence[str], scratch: Scratch, id_range: IdRange
    ) -> tuple[ContainerSpec, Inherited]:
        step, before = making.step, making.progress.config
        inside = scratch.path / "inside"
        inside.mkdir(mode=0o755)
        sources = sources_of_suite(making.progress.suite, self._settings)
        self._packages.ensure()
        shared = apt_dir(making.progress.suite) if step.kind == image.APT_INSTALL and self._shares(making) else ""
        inherited = inherit(self._settings, sources, inside, uv_path=self._uv_path, apt_dir=shared)
        inherited = replace(inherited, binds=(*inherited.binds, *self._mounts(making, scratch)))
        binds, layers = inherited.binds, making.progress.paths
        if step.kind == image.RUN_FUNCTION:
            layers = (*layers, self._mount_path(step.mount_id))
            binds = (*binds, Bind(plain_library(self._store.data_dir), LIBRARY_DIR))
        elif step.mount_id:
            binds = (*binds, Bind(self._mount_path(step.mount_id), image.BUILD_FILES, is_idmapped=True))
        state_dir = scratch.path / "state"
        state_dir.mkdir(mode=0o700)
        spec = ContainerSpec(
            container_id=new_id("ct"),
            layers=layers,
            state_dir=str(state_dir),
            id_range=id_range,
            argv=command,
            env={**_defaults(step, before), **inherited.env, **commands.step_env(step), **before.env, **step.env},
            cwd=before.workdir or "/",
            hostname="build",
            user=(before.uid, before.gid) if step.kind in _AS_USER else (0, 0),
            binds=binds,
            limits=_limits(step),
            is_upper_idmapped=True,
            labels={KIND_LABEL: BUILD_KIND, "squall.key": making.key},
        )
        return spec, inherited

    def _mounts(self, making: Making, scratch: Scratch) -> Iterator[Bind]:
        """What a step sees at paths of its own: files of its mount, or room that is no part of the image."""
        files = self._mount_path(making.step.mount_id) if making.step.mount_id else ""
        for number, mount in enumerate(making.step.mounts):
            target = absolute(making.progress.config.workdir, mount.target)
            if target == "/":
                raise making.failure(INVALID, "failed: it mounts over the whole image", "", "name a directory")
            if mount.source:
                yield Bind(f"{files}/{mount.source}", target, is_idmapped=True)
                continue
            room = scratch.path / f"room-{number}"
            room.mkdir()
            room.chmod(0o1777)
            yield Bind(str(room), target, is_read_only=False, is_idmapped=True)

    def _seal(self, making: Making, scratch: Scratch, inherited: Inherited) -> Layer:
        """Make the container's upper directory the layer of its key."""
        upper = scratch.path / "state" / _UPPER
        # A step that wrote nothing may have none.
        upper.mkdir(parents=True, exist_ok=True)
        lent: tuple[str, ...] = ()
        if has_view(making.step):
            view = take_view(str(upper), str(scratch.path))
            # Packages are links to where uv has unpacked them; nothing else that a step leaves may borrow.
            lent = (CACHE_DIR, view, self._packages.folder) if making.step.kind == image.PIP_INSTALL else ()
        own = (*(one.target for one in making.step.volumes), *(one.target for one in making.step.buckets))
        points = (*inherited.mount_points, *own, *_RUNTIME_MOUNT_POINTS)
        drop_mount_points(str(upper), making.progress.paths, points)
        is_forced = making.progress.is_forced
        return self._store.commit(scratch, upper, making.key, {}, replaces=is_forced, below=making.below, lent=lent)

    @contextlib.asynccontextmanager
    async def scratch(self) -> AsyncIterator[Scratch]:
        """A directory of the store's file system, deleted at the end with what is left in it."""
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(self._store.scratch())
            try:
                yield scratch
            finally:
                # Deleting a tree takes seconds, which nobody has to wait for who wants its layer.
                self._discard(scratch.path)
                if scratch.path.exists():
                    await self._blocking(lambda: remove_tree(str(scratch.path)))

    async def _blocking(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    async def _written(self, call: Callable[[], T]) -> T:
        """As `_blocking`, for what writes into a scratch directory: once it has begun, it is over when this returns."""
        # What it still wrote would make the directory again, behind who removes it.
        return await run_whole(self._threads, call)


def _defaults(step: ImageStep, config: ImageConfig) -> dict[str, str]:
    return {"PATH": PATH, "HOME": (config.home if step.kind in _AS_USER else "") or "/root"}


def _limits(step: ImageStep) -> Limits:
    return Limits(
        cpu_milli=step.cpu_milli or None,
        memory_bytes=step.memory_mib * 2**20 or None,
        pids_max=BUILD_PIDS_MAX,
    )
