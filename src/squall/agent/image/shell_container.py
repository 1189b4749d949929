"""Containers to look around in: of an image, or as a build has one before it runs a step. Thrown away at the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from squall.agent.image.layer.holds import Hold
from squall.agent.image.layer.merged import merged
from squall.agent.image.layer_maker import BUILD_PIDS_MAX, LayerMaker
from squall.agent.image.machine.tool import PATH
from squall.agent.image.making import Making
from squall.agent.image.progress import BuiltImage, Progress, is_program
from squall.agent.image.step_container import Mounting, OverDisk, Room, StepContainers
from squall.agent.labels import BUILD_KIND, KIND_LABEL
from squall.protocol import image
from squall.protocol.errors import INVALID, NOT_FOUND, TIMED_OUT, PlatformError
from squall.protocol.ids import new_id
from squall.protocol.image import BuildEvent, ImageConfig, ImageSpec
from squall.protocol.volume import VolumeMount, mount_problem
from squall.runtime.spec import ContainerSpec, IdRange, Limits

SHELL_TIMEOUT_S = 24 * 3600.0
"""Nobody looks at a shell that long, and what it uses is kept from removal."""
_SHELLS = (("/bin/bash", "-c"), ("/bin/sh", "-c"))
_WAIT = "while :; do kill -STOP $$; done"
"""The first process: needs nothing but a shell, and does nothing."""
_Reached = Callable[[ImageSpec, int, Hold], Progress | None]


@dataclass(frozen=True, slots=True)
class ShellContainer:
    """One that runs, and how a shell is started in it."""

    container_id: str
    pid: int
    env: Mapping[str, str]
    cwd: str
    config: ImageConfig
    shell: tuple[str, ...]
    """What a line of commands is the last argument of."""

    def argv(self, command: str) -> tuple[str, ...]:
        """To run a line of commands; without one, to have them typed."""
        return (*self.shell, command) if command else self.shell[:1]


class ShellContainers:
    """Makes them.

    Args:
        reached: see `ImageBuilder`.
    """

    def __init__(self, containers: StepContainers, maker: LayerMaker, reached: _Reached) -> None:
        self._containers = containers
        self._maker = maker
        self._reached = reached

    @contextlib.asynccontextmanager
    async def of_image(
        self, built: BuiltImage, id_range: IdRange, mounts: tuple[VolumeMount, ...] = ()
    ) -> AsyncIterator[ShellContainer]:
        """A container of an image, with what its functions have: none of the machine's settings.

        Raises:
            PlatformError: the image has no shell; or the container was ended, for what it wrote or how long it ran.
        """
        what, config = f"image {built.image_id}", built.config
        async with self._maker.scratch() as scratch:
            state_dir = scratch.path / "state"
            state_dir.mkdir(mode=0o700)
            spec = ContainerSpec(
                container_id=new_id("ct"),
                layers=built.layers,
                state_dir=str(state_dir),
                id_range=id_range,
                argv=(),
                env={"PATH": PATH, "HOME": config.home or "/root", "LANG": "C.UTF-8", **config.env},
                cwd=config.workdir or "/",
                hostname="shell",
                user=(config.uid, config.gid),
                limits=Limits(pids_max=BUILD_PIDS_MAX),
                labels={KIND_LABEL: BUILD_KIND},
            )
            async with self._opened(what, spec, config, config.env, scratch.path, mounts) as opened:
                yield opened

    @contextlib.asynccontextmanager
    async def before_step(
        self,
        spec: ImageSpec,
        number: int,
        hold: Hold,
        id_range: IdRange,
        bring: Callable[[], Awaitable[bool]],
        mounts: tuple[VolumeMount, ...] = (),
    ) -> AsyncIterator[ShellContainer]:
        """A container with what a build gives to this step, counted from 1, but its secrets.

        The step's volumes are there, beside `mounts`, and what is written to them is committed as the step's would be.

        Args:
            bring: brings what is below from elsewhere, and holds it; called when layers are not here. Whether
                something came.

        Raises:
            PlatformError: as `of_image`; or there is no such step, or nothing below it; `not_found` when the layers
                below are not to be had; and what `bring` raises.
        """
        image_id, steps = image.image_id(spec), spec.steps
        if not 2 <= number <= len(steps):
            which = "nothing is there before step 1" if number == 1 else f"it has {len(steps)} steps"
            raise PlatformError(INVALID, f"cannot open a shell before step {number} of image {image_id}: {which}")
        step, what = steps[number - 1], f"image {image_id} before step {number}"
        progress = await self._look(spec, number - 1, hold)
        if progress is None and await bring():
            progress = await self._look(spec, number - 1, hold)
        if progress is None:
            message = f"cannot open a shell in {what}: layers below it are not on this node (any more); build it again"
            raise PlatformError(NOT_FOUND, message)
        await self._maker.merge(progress)
        event = BuildEvent("step", number, len(steps), image.step_title(step))
        making = Making(spec, progress, step, image.step_keys(spec)[number - 1], event, lambda _: None)
        async with self._maker.prepared(making, (), id_range) as (prepared, _, scratch):
            own = {**progress.config.env, **step.env}
            mounts = (*step.volumes, *mounts)
            async with self._opened(what, prepared, progress.config, own, scratch.path, mounts) as opened:
                yield opened

    async def _look(self, spec: ImageSpec, count: int, hold: Hold) -> Progress | None:
        looking = asyncio.ensure_future(asyncio.to_thread(self._reached, spec, count, hold))
        try:
            return await asyncio.shield(looking)
        finally:
            # Given up or not: a layer held after the hold was released would be held for ever.
            await asyncio.wait([looking])
            # Seen, so that asyncio does not complain of an exception nobody waits for any more.
            looking.exception()

    @contextlib.asynccontextmanager
    async def _opened(
        self,
        what: str,
        spec: ContainerSpec,
        config: ImageConfig,
        own: Mapping[str, str],
        writes_to: Path,
        mounts: tuple[VolumeMount, ...],
    ) -> AsyncIterator[ShellContainer]:
        problem = mount_problem(mounts)
        if problem:
            raise PlatformError(INVALID, f"cannot open a shell in {what}: {problem}")
        shells = await asyncio.to_thread(_find_shells, spec.layers, (config.shell, *_SHELLS))
        if not shells:
            message = f"cannot open a shell in {what}: it has none; it has neither /bin/bash nor /bin/sh"
            raise PlatformError(INVALID, message)
        waiting = replace(spec, argv=(shells[-1][0], "-c", _WAIT))
        room, mounting = Room((str(writes_to),)), Mounting(mounts, f"shell in {what}")
        try:
            async with self._containers.opened(waiting, own, room, SHELL_TIMEOUT_S, mounting) as (started, env):
                yield ShellContainer(spec.container_id, started.pid, env, spec.cwd, config, shells[0])
        except OverDisk as error:
            raise PlatformError(INVALID, f"the shell in {what} was ended: {error}") from None
        except TimeoutError:
            message = f"the shell in {what} was ended: it was open for {SHELL_TIMEOUT_S / 3600:g} h"
            raise PlatformError(TIMED_OUT, message) from None


def _find_shells(layers: Sequence[str], wanted: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Those of the wanted that the image has."""
    with merged(layers) as tree:
        return [words for words in wanted if words and is_program(tree, words[0])]
