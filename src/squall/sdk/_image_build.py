"""Has images built: their files put on the server, other images they need built first, what happens shown."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, NamedTuple

from squall.exception import Error, ImageBuildError, InvalidError, NotFoundError, RemoteError
from squall.protocol import image_steps
from squall.protocol.image import (
    FROM_IMAGE,
    FROM_SCRATCH,
    BuildEvent,
    ImageBuild,
    ImageInvalid,
    ImageSpec,
    ImageStep,
    image_id,
    step_title,
)
from squall.protocol.image_catalog import ImageGet, ImageInfo
from squall.protocol.records import replace
from squall.sdk import _mount, _output
from squall.sdk._client import Client, ClientStream, ConnectionLost
from squall.sdk._image_steps import Step, flat
from squall.sdk._pending import Pending
from squall.sdk._turn import Turn

if TYPE_CHECKING:
    from squall.sdk.image import Image
    from squall.sdk.secret import Secret

AT_ONCE_MAX = 8
"""Builds that one run has under way; the others wait. How many steps run is for the node to say."""
_SHOWN_LINES_MAX = 40
_TAKEN_FROM = "an image that another one takes files from"


def _rebuilt(spec: ImageSpec) -> ImageSpec:
    """The image as this program's environment wants it built.

    `SQUALL_FORCE_BUILD` takes no step from the cache and puts what it makes there. `SQUALL_IGNORE_CACHE` leaves the
    cache to the others: a variable that no other program has gives the first step, and so all after it, keys of their
    own. The base is made anew in both, unless it is an image by its id, which is what was asked for, or nothing.
    """
    is_forced = _is_set("FORCE_BUILD")
    if not is_forced and not _is_set("IGNORE_CACHE"):
        return spec
    number = 1 if spec.steps[0].kind in (FROM_IMAGE, FROM_SCRATCH) else 0
    if number == len(spec.steps):
        return spec
    steps = list(spec.steps)
    if is_forced:
        steps[number] = replace(steps[number], force_build=True)
    else:
        steps[number] = replace(steps[number], env={**steps[number].env, "SQUALL_IGNORE_CACHE": _of_this_program()})
    return ImageSpec(tuple(steps))


def _is_set(name: str) -> bool:
    """Whether a setting is on, by our name for it or by Modal's."""
    value = os.environ.get(f"SQUALL_{name}") or os.environ.get(f"MODAL_{name}") or ""
    return value.strip().lower() not in ("", "0", "false", "no", "off")


@functools.cache
def _of_this_program() -> str:
    """One text for all images, so that equal beginnings are built once, and what was built is found again."""
    return os.urandom(8).hex()


class Build:
    """An image on its way. Without a request it is there: nothing has to be built."""

    def __init__(self, image_id: str, request: ImageBuild | None, needs: tuple[Build, ...]) -> None:
        self.image_id = image_id
        self.request = request
        self.needs = needs
        """What it takes files from, to be built before."""
        self.stream: ClientStream | None = None
        self.is_built = request is None
        self.error: BaseException | None = None
        self.log: list[str] = []
        """The last lines of its last step."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.is_built or self.error is not None


class _Secrets(NamedTuple):
    """Of the steps of one build, by the names that these have for them: the values that are here, and ids."""

    values: dict[str, dict[str, str]]
    ids: dict[str, str]

    async def name_of(self, secret: Secret, client: Client) -> str:
        name = str(len(self.values) + len(self.ids))
        if secret.has_name:
            self.ids[name] = await secret.id_for(client)
        else:
            self.values[name] = secret.values()
        return name


class Builds:
    """The images of one run of an app, or of one program.

    What needs no other image is built at the same time, and what takes files from others as soon as these are there. An
    event of any build is seen by whoever waits for one of them: there may be no event loop to follow each by itself.
    """

    def __init__(self, client: Client, app_id: str, output: _output.Output) -> None:
        self._client = client
        self._app_id = app_id
        self._output = output
        self._by_image: dict[int, Build] = {}
        self._by_id: dict[str, Build] = {}
        self._run_id = os.urandom(8).hex()
        self._images: list[Image] = []
        """Kept, so that no other object gets the identity of one."""
        self._unfinished: list[Build] = []
        """In an order in which each comes after those it needs."""
        self._waiting: list[Pending[None]] = []
        self._turn = Turn()
        self._is_asked = False
        """Whether somebody wanted to look while another had the turn."""
        self._is_lost = False
        self._is_closed = False

    async def begin(self, image: Image, what: str) -> Build:
        """Have an image built, once however often it is asked for; `what` says in errors what it is for.

        Raises:
            InvalidError: no server could build it, or files it needs are not here.
            NotFoundError: it is named by an id that no image has.
        """
        found = self._by_image.get(id(image))
        if found is not None:
            return found
        steps = flat(image.steps)
        needs = tuple([await self.begin(step.image, _TAKEN_FROM) for step in steps if step.image is not None])
        secrets = _Secrets({}, {})
        spec = ImageSpec(tuple([await self._step(step, secrets) for step in steps]))
        try:
            image_steps.check(spec)
        except ImageInvalid as error:
            raise InvalidError(f"{error}; it is {what}") from error
        only = spec.steps[0].image_id if len(spec.steps) == 1 else ""
        spec = spec if only else _rebuilt(spec)
        name = only or image_id(spec)
        build = self._by_id.get(name)
        if build is None:
            if only and steps[0].published is None:
                # Nothing will be built that could find out that there is no such image.
                await self._client.request("ImageGet", ImageGet(only), ImageInfo)
            request = None if only else ImageBuild(spec, self._app_id, secrets.values, self._run_id, secrets.ids)
            build = Build(name, request, needs)
            self._by_id[name] = build
            if request is not None:
                self._unfinished.append(build)
                self._look()
        self._by_image[id(image)] = build
        self._images.append(image)
        return build

    async def _step(self, step: Step, secrets: _Secrets) -> ImageStep:
        arguments = dict(step.arguments)
        if step.add is not None:
            arguments["path"], mount = step.add.mount()
            arguments["mount_id"] = await _mount.upload(self._client, mount)
        if step.files is not None:
            arguments["mount_id"] = await _mount.upload(self._client, step.files())
        if step.image is not None:
            arguments["image_id"] = (await self.begin(step.image, _TAKEN_FROM)).image_id
        if step.published is not None:
            found = await self._client.request("ImageGet", ImageGet(*step.published), ImageInfo)
            arguments["image_id"] = found.image_id
        if step.secrets:
            arguments["secrets"] = tuple([await secrets.name_of(one, self._client) for one in step.secrets])
        if step.volumes:
            from squall.sdk._volume_mounts import mounts_of  # cold start: images with volumes only

            try:
                mounts, arguments["buckets"] = await mounts_of(
                    step.volumes, self._client, lambda secret: secrets.name_of(secret, self._client)
                )
            except (NotFoundError, InvalidError) as error:
                raise type(error)(f"image step {_title(step)}: {error}") from error
            # Renamed, they are the same, and so is what the step makes.
            arguments["volumes"] = tuple([replace(mount, name="") for mount in mounts])
        return getattr(image_steps, step.name)(**arguments)  # type: ignore[no-any-return]

    async def finish(self, build: Build) -> None:
        """Wait until an image is there; a broken connection asks again, what was built is kept.

        Raises:
            ImageBuildError: it cannot be built, or one that it needs; the message has the step and its last lines.
        """
        while not build.is_over:
            changed: Pending[None] = Pending(self._client.connection)
            # Before the look: what comes after it is not missed.
            self._waiting.append(changed)
            try:
                self._look()
                if self._is_lost and not build.is_over:
                    await self._connected_or(changed)
                elif not build.is_over:
                    await changed
            finally:
                self._waiting.remove(changed)
        if build.error is not None:
            raise build.error

    async def _connected_or(self, changed: Pending[None]) -> None:
        """Wait for a connection, or for anything else to be seen: the app may end before there is a server again.

        Raises:
            Error: as `Client.connect`.
        """
        connecting = self._client.connecting()
        if connecting is not None:
            connecting.add_callback(self._wake)
            await changed
            if not connecting.is_done:
                return
            connecting.result()
        self._is_lost = False

    def close(self) -> None:
        """Give up what is still being built, also for those who wait for it."""
        self._is_closed = True
        self._look()

    def _look(self) -> None:
        """See what has come of each build, and begin those that can."""
        self._is_asked = True
        # Who has the turn looks once more for those that came meanwhile: before they asked, something had changed.
        while self._is_asked and self._turn.take():
            is_changed = True  # also by an error: others find it for themselves
            try:
                self._is_asked = False
                is_changed = self._look_once()
            finally:
                self._turn.leave()
                if is_changed:
                    # What came before `on_change` was set, what has room now, what others wait for in their threads.
                    self._wake()

    def _look_once(self) -> bool:
        """The same, for whoever has the turn; returns whether anything is different now."""
        was_lost, is_changed = self._is_lost, False
        for build in tuple(self._unfinished):
            build.error = next((need.error for need in build.needs if need.error is not None), None)
            if build.stream is not None:
                self._follow(build, build.stream)
            elif self._can_begin(build):
                is_changed = True
                stream = build.stream = self._client.stream("ImageBuild", build.request)
                stream.on_change = self._wake
            if self._is_closed and not build.is_over:
                if build.stream is not None:
                    build.stream.cancel()
                build.error = ImageBuildError(
                    "the image is not built to its end: the app that it was built for has stopped"
                )
            if build.is_over:
                is_changed = True
                self._unfinished.remove(build)
        return is_changed or self._is_lost != was_lost

    def _can_begin(self, build: Build) -> bool:
        under_way = sum(one.stream is not None for one in self._unfinished)
        is_open = not (self._is_closed or self._is_lost) and under_way < AT_ONCE_MAX
        return is_open and all(need.is_built for need in build.needs)

    def _wake(self) -> None:
        for waiting in tuple(self._waiting):
            waiting.set(None)

    def _follow(self, build: Build, stream: ClientStream) -> None:
        """Show what a build says, and note how it ended."""
        is_ended = stream.is_ended  # before the last items are taken
        for event, _ in stream.take(BuildEvent):
            self._output.build_event(build.image_id, event)
            if event.kind == "step":
                build.log.clear()  # the step before ended well
            elif event.kind == "line":
                build.log.append(event.text)
                del build.log[:-_SHOWN_LINES_MAX]
            build.is_built = build.is_built or event.kind == "built"
        if not is_ended or build.is_built:
            return
        build.stream = None
        if isinstance(stream.error, ConnectionLost):
            self._is_lost = True
        elif stream.error is None:
            build.error = ImageBuildError("the build of the image ended without a result; see the server's log")
        elif isinstance(stream.error, RemoteError) or not isinstance(stream.error, Error):
            build.error = stream.error
        else:
            self._output.build_failed(build.image_id)
            build.error = ImageBuildError(f"{stream.error}{_not_said(str(stream.error), build.log)}")
            build.error.__cause__ = stream.error


def _title(step: Step) -> str:
    """As the node will call it."""
    arguments = {name: value for name, value in step.arguments.items() if name in ("commands", "title")}
    return step_title(ImageStep(step.name, **arguments))


def _not_said(message: str, log: list[str]) -> str:
    """The last lines of the failed step, where nobody has seen them: neither shown before nor in the message."""
    if _output.is_enabled() or not log or log[-1].strip() in message:
        return ""
    return "\nIts last lines:\n  " + "\n  ".join(log)
