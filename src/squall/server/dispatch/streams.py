"""Streams that clients ask for: builds, logs, commands in containers, lent terminals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from squall.protocol.container import ContainerExec, TerminalInput, TerminalOffer, TerminalOutput
from squall.protocol.errors import FORBIDDEN, INVALID, NOT_FOUND, UNAVAILABLE, ChannelClosed, PlatformError
from squall.protocol.ids import is_id
from squall.protocol.image import ImageBuild
from squall.protocol.image_catalog import ImageLogRead
from squall.protocol.image_shell import ImageShell
from squall.protocol.image_store import ImageStoreGc
from squall.protocol.image_transfer import ImageExport, ImagePush
from squall.protocol.log import LogBatch, LogRead
from squall.protocol.stream import Stream
from squall.server.dispatch.client.callers import Caller
from squall.server.dispatch.image.transfer import transfer
from squall.server.model.logs import Progress
from squall.server.model.variant import has_none_of_its_own

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane

Item = tuple[Any, bytes]
Uploads = AsyncIterator[tuple[TerminalInput, bytes]]


class Streams:
    """The streaming half of the table of methods."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane

    def open(self, caller: Caller, method: str, record: Any, uploads: Uploads) -> AsyncIterator[Item]:
        """The items of a stream.

        Raises:
            PlatformError: `invalid` for an unknown stream, `forbidden`; the iterator raises what the method says.
        """
        caller.check_method(method)
        record = self._plane.environments.meant(method, record, caller)
        if method == "ImageBuild":
            return self._image_build(caller, record)
        if method in ("ImagePush", "ImageExport"):
            return self._image_transfer(method, record)
        if method == "ImageStoreGc":
            return self._image_store_gc(record)
        if method == "ImageShell":
            return self._image_shell(caller, record, uploads)
        if method == "ImageLogRead":
            return self._image_log_read(record)
        if method == "LogRead":
            return self._log_read(caller, record)
        if method == "ContainerExec":
            return self._container_exec(record, uploads)
        if method == "TerminalOffer":
            return self._terminal_offer(caller, record, uploads)
        raise PlatformError(INVALID, f"{method}: this server has no such stream")

    async def _image_build(self, caller: Caller, record: ImageBuild) -> AsyncIterator[Item]:
        images = self._plane.images
        if not caller.why_no_builds:
            await self._plane.volume_mounts.check_build(caller, record)
            record = await self._plane.secrets.for_build(caller, record)
        if not caller.scope_app_id:
            events = images.build(record)
        elif caller.why_no_builds:
            events = images.find(record, self._plane.apps.dispatchers.values(), caller.why_no_builds)
        else:
            root_app_id = self._plane.apps.get_live(caller.scope_app_id).row.root_app_id
            events = images.build_inside(record, root_app_id)
        async for event in events:
            yield event, b""

    async def _image_transfer(self, method: str, record: ImagePush | ImageExport) -> AsyncIterator[Item]:
        image_id = await self._plane.catalog.resolve(method, record.image_id, record.environment)
        async for item in transfer(self._plane.fleet.nodes.values(), method, replace(record, image_id=image_id)):
            yield item

    async def _image_store_gc(self, record: ImageStoreGc) -> AsyncIterator[Item]:
        async for event in self._plane.image_store.remove_garbage(record):
            yield event, b""

    async def _image_shell(self, caller: Caller, record: ImageShell, uploads: Uploads) -> AsyncIterator[Item]:
        """On the first node that has what it takes. What is typed goes there once the shell is open."""
        record = await self._plane.secrets.for_shell(caller, record)
        record = await self._plane.volume_mounts.for_shell(caller, record)
        image_id = await self._plane.catalog.resolve("ImageShell", record.image, record.environment)
        error = PlatformError(UNAVAILABLE, "ImageShell: no node is connected; see `squall server status`")
        nodes = self._plane.fleet.nodes.values()
        for node in sorted(nodes, key=lambda node: (image_id not in node.image_ids, node.node_id)):
            if node.peer is None:
                continue
            stream = node.peer.stream("NodeImageShell", replace(record, image=image_id))
            typing: asyncio.Future[None] | None = None
            try:
                async for item, body in stream.items(TerminalOutput):
                    typing = typing or self._plane.tasks.start(_forward(uploads, stream))
                    yield item, body
                return
            except ChannelClosed:
                message = f"ImageShell: the node of the shell is gone, and what was in it; open one in {image_id} again"
                error = PlatformError(UNAVAILABLE, message)
            except PlatformError as refused:
                error = refused
            finally:
                if typing is not None:
                    typing.cancel()
            if typing is not None or error.code not in (NOT_FOUND, UNAVAILABLE):
                break
        raise error

    async def _image_log_read(self, record: ImageLogRead) -> AsyncIterator[Item]:
        """From the first node that has it: a step's log is where it was built."""
        image_id = await self._plane.catalog.resolve("ImageLogRead", record.image, record.environment)
        for node in list(self._plane.fleet.nodes.values()):
            if node.peer is None:
                continue
            stream = node.peer.stream("NodeImageLogs", replace(record, image=image_id))
            try:
                async for item, body in stream.items(LogBatch):
                    yield item, body
                return
            except ChannelClosed:
                continue
            except PlatformError as error:
                if error.code != NOT_FOUND:
                    raise
        message = f"ImageLogRead: no node that is connected has built image {image_id[:100]}; `squall image list` shows"
        raise PlatformError(NOT_FOUND, f"{message} what was built")

    async def _log_read(self, caller: Caller, record: LogRead) -> AsyncIterator[Item]:
        query, is_live = await self._query(caller, record)
        logs = self._plane.logs
        await logs.flush()
        if not (query.is_following and is_live):
            async for entries in logs.read(query):
                yield LogBatch(entries), b""
            return
        with _followed(caller) as progress:
            async for entries in logs.follow(query, progress):
                yield LogBatch(entries), b""

    async def _query(self, caller: Caller, record: LogRead) -> tuple[LogRead, bool]:
        """The same with ids for names, and whether more can come."""
        if caller.scope_app_id:
            if not record.app:
                raise PlatformError(INVALID, "LogRead: name an app")
            app = await self._plane.apps.find(record.app, caller.scope_app_id)
            caller.check_change("LogRead", app)
            record = replace(record, app=app.app_id)
            await self._check_container(record)
        if record.container_id:
            is_live = record.container_id in self._plane.fleet.containers
            container = self._plane.fleet.containers.get(record.container_id)
            container = container or self._plane.fleet.stopped.get(record.container_id)
            app_id = container.spec.app_id if container is not None else ""
            if not app_id and record.app:
                app_id = (await self._plane.apps.find(record.app)).app_id
            if container is None and not await self._has_lines(record.container_id, app_id):
                message = f"LogRead: there is no container {record.container_id}; `squall container list` shows them"
                raise PlatformError(NOT_FOUND, message)
            return await self._of_function(replace(record, app=app_id)), is_live
        if not record.app:
            raise PlatformError(INVALID, "LogRead: name an app or a container")
        app = await self._plane.apps.find(record.app)
        return await self._of_function(replace(record, app=app.app_id)), app.app_id in self._plane.apps.live

    async def _of_function(self, record: LogRead) -> LogRead:
        """The same with the id of the app's function, or of a variant of one, that is named.

        Raises:
            PlatformError: `not_found`.
        """
        if not record.function or not record.app:
            return record
        found = await self._plane.store.find_function(record.app, record.function)
        if found is None and is_id(record.function, "fu"):
            # A variant is in no list of the app's functions, and one that a deploy left out not any more.
            found = await self._plane.variants.find_spec(record.function)
        if found is None or found.app_id != record.app:
            message = f"LogRead: app {record.app} has no function {record.function[:100]!r}"
            raise PlatformError(NOT_FOUND, f"{message}; `squall app info {record.app}` lists them")
        has_variants = record.has_variants or has_none_of_its_own(found)
        return replace(record, function=found.function_id, has_variants=has_variants)

    async def _check_container(self, record: LogRead) -> None:
        """From inside, a container is asked for together with its app."""
        fleet = self._plane.fleet
        container = fleet.containers.get(record.container_id) or fleet.stopped.get(record.container_id)
        if container is not None and container.spec.app_id != record.app:
            message = f"LogRead: container {record.container_id} is of another app than {record.app}"
            raise PlatformError(FORBIDDEN, message)

    async def _has_lines(self, container_id: str, app_id: str) -> bool:
        """Whether a container that is not known any more has printed something that is kept."""
        logs = self._plane.logs
        await logs.flush()
        async for entries in logs.read(LogRead(app=app_id, container_id=container_id, tail=1)):
            if entries:
                return True
        return False

    async def _container_exec(self, record: ContainerExec, uploads: Uploads) -> AsyncIterator[Item]:
        container = self._plane.methods.container("ContainerExec", record.container_id)
        node = container.node
        if not record.argv:
            raise PlatformError(INVALID, "ContainerExec: name a command, for example `-- sh`")
        if node is None or node.peer is None:
            message = f"ContainerExec: container {record.container_id} is {container.state}; try again when it runs"
            raise PlatformError(UNAVAILABLE, message)
        stream = node.exec(record)
        typing = self._plane.tasks.start(_forward(uploads, stream))
        try:
            async for item, body in stream.items(TerminalOutput):
                yield item, body
        finally:
            typing.cancel()

    async def _terminal_offer(self, caller: Caller, record: TerminalOffer, uploads: Uploads) -> AsyncIterator[Item]:
        self._plane.apps.get_live(record.app_id)
        with _followed(caller) as progress:
            async for item in self._plane.terminals.offer(record, uploads, progress):
                yield item


@contextmanager
def _followed(caller: Caller) -> Iterator[Progress]:
    """What the caller is shown while the block runs goes before the results that came after it."""
    progress = Progress()
    reads = caller.client.lines.reads if caller.client is not None else set()
    reads.add(progress)
    try:
        yield progress
    finally:
        reads.discard(progress)


async def _forward(uploads: Uploads, stream: Stream) -> None:
    """What the client types goes to the node."""
    async for record, body in uploads:
        stream.send(record, body)
    stream.send(None)


async def no_uploads() -> Uploads:
    """For streams that nobody feeds: waits for ever."""
    await asyncio.Event().wait()
    yield TerminalInput(), b""
