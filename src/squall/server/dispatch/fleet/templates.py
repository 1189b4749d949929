"""Templates while they load: connections that are told what to load, and may use their app as its containers may.

A template is nothing that is placed, counted or scaled, and no container is known by its id. Whether there are any,
and what becomes of them, is for their node to know.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from squall.protocol.errors import INVALID, NOT_FOUND, PlatformError
from squall.protocol.guest import BootRefused
from squall.protocol.ids import is_id
from squall.server.dispatch.fleet.boot import boot_of
from squall.server.model.logs import printed_by

if TYPE_CHECKING:
    from squall.protocol.function import FunctionSpec
    from squall.protocol.log import LogEntry
    from squall.protocol.node import ContainerHello
    from squall.protocol.peer import Peer
    from squall.protocol.request import Request
    from squall.server.dispatch.control_plane import ControlPlane
    from squall.server.dispatch.function.dispatcher import Dispatcher

_log = logging.getLogger("squall.server.dispatch.fleet.templates")


class Template:
    """One that has a connection; to the clients in it, it is what a container is to those in one."""

    node = None
    """Nobody waits for what it prints."""

    def __init__(self, template_id: str, spec: FunctionSpec) -> None:
        self.container_id = template_id
        self.spec = spec
        self.has_clients = False
        self.on_stopped: list[Callable[[], None]] = []
        self.connection_count = 0


class Templates:
    """All that have a connection now, by id."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._known: dict[str, Template] = {}

    def enter(self, hello: ContainerHello) -> Template | None:
        """A connection of a template is there, of a function that is in memory; None where it may not be."""
        dispatcher = self._plane.apps.dispatchers.get(hello.function_id)
        if dispatcher is None or not is_id(hello.container_id, "tp") or _why_not(dispatcher, hello):
            return None
        template = self._known.get(hello.container_id)
        if template is None:
            template = self._known[hello.container_id] = Template(hello.container_id, dispatcher.spec)
        elif template.spec.function_id != hello.function_id:
            return None
        template.connection_count += 1
        return template

    def known(self, template_id: str) -> Template | None:
        """The one of that id, if it has a connection."""
        return self._known.get(template_id)

    def leave(self, template: Template) -> None:
        """One is gone. With the last one its clients are, too: what they began ends with them."""
        template.connection_count -= 1
        if template.connection_count:
            return
        del self._known[template.container_id]
        for callback in template.on_stopped:
            callback()

    async def find(self, hello: ContainerHello) -> Dispatcher:
        """The function that a template is of.

        Raises:
            PlatformError: `not_found`, for the user: it does not exist as it was then.
        """
        dispatcher = await self._plane.variants.find(hello.function_id)
        cause = _why_not(dispatcher, hello)
        if dispatcher is None or cause:
            raise PlatformError(NOT_FOUND, cause)
        return dispatcher

    def printed(self, entry: LogEntry) -> LogEntry:
        """A line of a template, as one of its function: its agent says which that is."""
        dispatcher = self._plane.apps.dispatchers.get(entry.function_id)
        is_known = dispatcher is not None and dispatcher.spec.app_id == entry.app_id
        return printed_by(dispatcher.spec, entry) if dispatcher is not None and is_known else entry


def _why_not(dispatcher: Dispatcher | None, hello: ContainerHello) -> str:
    """Why nothing is loaded for the template."""
    if dispatcher is None or dispatcher.spec.app_id != hello.app_id or dispatcher.stopped is not None:
        return f"function {hello.function_id[:80]} does not exist any more, or its app was stopped"
    if dispatcher.spec.version != hello.version:
        return f"function {dispatcher.spec.name} was deployed anew: it is of version {dispatcher.spec.version} now"
    return ""


class TemplateService:
    """The connection that a template asks for its Boot by. It is told nothing else, and says nothing."""

    def __init__(self, plane: ControlPlane, peer: Peer, hello: ContainerHello) -> None:
        self._plane = plane
        self._peer = peer
        self._hello = hello
        self._template: Template | None = None
        plane.tasks.start(self._boot())

    async def _boot(self) -> None:
        hello = self._hello
        try:
            dispatcher = await self._plane.templates.find(hello)
            if self._peer.is_closed:
                return
            self._template = self._plane.templates.enter(hello)
            if self._template is None:
                raise PlatformError(INVALID, f"{hello.container_id[:80]!r} is no id of a template of that function")
        except PlatformError as error:
            _log.warning("template %.80s is told nothing to load: %s", hello.container_id, error.message)
            self._peer.event("BootRefused", BootRefused(error.message))
            self._peer.channel.close()
            return
        boot = boot_of(self._plane, hello.container_id, dispatcher.spec, dispatcher.app_name)
        self._peer.event("Boot", boot)

    async def answer(self, request: Request) -> None:
        """See `Service`."""
        raise PlatformError(INVALID, f"{request.method}: a template asks for nothing")

    def event(self, method: str, params: Any, body: bytes) -> None:
        """See `Service`: whatever it is, it changes nothing."""

    def closed(self, reason: str) -> None:
        """See `Service`."""
        if self._template is not None:
            self._plane.templates.leave(self._template)
