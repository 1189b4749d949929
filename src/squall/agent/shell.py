"""Shells in images of this node, each in a container of its own that ends with the stream it is joined to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator

from squall.agent.exec import TERM, run_in
from squall.agent.image import commands
from squall.agent.image.builder import UNUSABLE
from squall.agent.image.layer.holds import Hold, LayerHolds
from squall.agent.image.shell_container import ShellContainer, ShellContainers
from squall.agent.known_images import KnownImages
from squall.agent.mounts import Mounts
from squall.agent.ranges import IdRanges
from squall.protocol import image
from squall.protocol.container import TerminalOutput
from squall.protocol.errors import EXHAUSTED, NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.ids import new_id
from squall.protocol.image import ImageConfig, ImageSpec
from squall.protocol.image_shell import ImageShell
from squall.protocol.mount import MountRef
from squall.protocol.request import Request
from squall.protocol.task_set import TaskSet
from squall.runtime.contract import Runtime
from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import ExecSpec

SHELLS_MAX = 16
"""At a time on one node."""


class Shells:
    """Opens them.

    Args:
        containers: makes what they are in; None on a node that builds no images.
    """

    def __init__(
        self,
        runtime: Runtime,
        images: KnownImages,
        containers: ShellContainers | None,
        holds: LayerHolds,
        mounts: Mounts,
        ranges: IdRanges,
    ) -> None:
        self._runtime = runtime
        self._images = images
        self._containers = containers
        self._holds = holds
        self._mounts = mounts
        self._ranges = ranges
        self._tasks = TaskSet()
        self._open: set[asyncio.Future[None]] = set()

    async def serve(self, request: Request) -> None:
        """Answer a `NodeImageShell`; returns when nothing of the container is left, or will be in a moment.

        Raises:
            PlatformError: the image is not here or has no shell, or the container was ended.
        """
        asked = request.record(ImageShell)
        if len(self._open) >= SHELLS_MAX:
            raise PlatformError(EXHAUSTED, f"cannot open a shell: {SHELLS_MAX} are open on this node; close one")
        # A task of its own, which is cancelled once: the end of a connection cancels requests, and then once more,
        # which would leave the container half removed.
        session: asyncio.Future[None] = self._tasks.start(self._run(request, asked))
        self._open.add(session)
        session.add_done_callback(self._open.discard)
        try:
            await asyncio.shield(session)
        except asyncio.CancelledError:
            _cancel(session)
            raise

    async def close(self) -> None:
        """End all of them, and return when nothing of them is left."""
        sessions = tuple(self._open)
        for session in sessions:
            _cancel(session)
        await asyncio.gather(*sessions, return_exceptions=True)

    async def _run(self, request: Request, asked: ImageShell) -> None:
        hold = self._holds.begin(f"shell in {asked.image}")
        try:
            async with self._container(asked, hold) as (opened, words):
                line_end = "\r\n" if asked.has_pty else "\n"
                await request.send_item(TerminalOutput("stderr"), "".join(f"{one}{line_end}" for one in words).encode())
                env = {**({"TERM": TERM} if asked.has_pty else {}), **opened.env, **asked.variables}
                spec = ExecSpec(opened.argv(asked.command), env, opened.cwd, asked.has_pty, asked.rows, asked.columns)
                await run_in(self._runtime, request, opened.container_id, spec, opened.pid)
        except (RuntimeFailure, *UNUSABLE) as error:
            raise PlatformError(UNAVAILABLE, f"cannot open a shell in image {asked.image}: {error}") from error
        finally:
            hold.release()

    @contextlib.asynccontextmanager
    async def _container(self, asked: ImageShell, hold: Hold) -> AsyncIterator[tuple[ShellContainer, list[str]]]:
        """The container, and what to say first."""
        if self._containers is None:
            raise PlatformError(NOT_FOUND, f"cannot open a shell in image {asked.image}: this node has no images")
        owner = f"shell/{new_id('ct')}"
        id_range = self._ranges.acquire(owner)
        try:
            if not asked.step:
                built = await self._images.get(asked.image, hold)
                if built is None:
                    raise self._missing(asked.image)
                async with self._containers.of_image(built, id_range, asked.mounts) as opened:
                    yield opened, []
                return
            spec = self._images.definition(asked.image)
            if spec is None:
                raise self._missing(asked.image)
            async with self._files(spec, asked.step):
                bring = functools.partial(self._images.bring_below, spec, asked.step, hold)
                before = self._containers.before_step(spec, asked.step, hold, id_range, bring, asked.mounts)
                async with before as opened:
                    yield opened, self._introduction(spec, asked, opened.config)
        finally:
            self._ranges.release(owner)

    @contextlib.asynccontextmanager
    async def _files(self, spec: ImageSpec, number: int) -> AsyncIterator[None]:
        """Keep the user's files that a step sees on this node."""
        mount_id = spec.steps[number - 1].mount_id if 1 <= number <= len(spec.steps) else ""
        if not mount_id:
            yield
            return
        files = await self._mounts.acquire([MountRef(mount_id, "/")], ())
        try:
            yield
        finally:
            await self._mounts.release(files.name)

    def _missing(self, image_id: str) -> PlatformError:
        spec = self._images.definition(image_id)
        why = "nobody has built it here; build it first, by running an app that uses it"
        if spec is not None:
            first = f"squall shell --image-step {image_id}/{len(spec.steps)}"
            why = f"it is not whole on this node; build it again, or look at it before the step that failed: {first}"
        return PlatformError(NOT_FOUND, f"cannot open a shell in image {image_id[:100]}: {why}")

    def _introduction(self, spec: ImageSpec, asked: ImageShell, config: ImageConfig) -> list[str]:
        step = spec.steps[asked.step - 1]
        names = self._images.secret_names(asked.image)
        secrets = sorted({variable for name in step.secrets for variable in names.get(name, (f"secret {name}",))})
        lines = [f"the step's secrets are not kept, and not set here: {', '.join(secrets)}"] if secrets else []
        if step.volumes:
            places = ", ".join(sorted(mount.target for mount in step.volumes))
            lines.append(f"the step's volumes are mounted, and what is written to them stays: {places}")
        if step.buckets:
            places = ", ".join(sorted(mount.target for mount in step.buckets))
            lines.append(f"the step's buckets are not mounted here: {places}")
        if asked.command:
            return lines
        typed = [f"  {line}" for text in commands.shown(step, config) for line in text.splitlines()]
        title = f"before step {asked.step} of {len(spec.steps)}: {image.step_title(step)}"
        return [title, *(["what the step runs:", *typed] if typed else []), *lines]


def _cancel(session: asyncio.Future[None]) -> None:
    if isinstance(session, asyncio.Task) and not session.cancelling():
        session.cancel()
