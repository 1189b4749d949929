"""What a container answers requests with: made once, before the first of them, of what the user's code gives.

An application is called with each request. What listens at a port was started by the user's code, is waited for here,
and is the agent's from then on: it connects there itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from squall import exception
from squall.exception import InputCancellation, InvalidError
from squall.guest.async_runner import outside_loop
from squall.guest.inbox import Stopping
from squall.guest.instance import PICKLED_BYTES_MAX
from squall.guest.loading import EnterFailed
from squall.guest.runner import RunnerParts
from squall.guest.web.exchange import Application
from squall.guest.web.lifespan import Lifespan
from squall.guest.web.specs import webs_of
from squall.protocol.call import decode_failure
from squall.protocol.guest import Boot
from squall.protocol.web import ENDPOINT, PROXIES, SERVER, WSGI, WebSpec
from squall.sdk import _container
from squall.sdk._serialization import encode_exception

_LOOK_S = 0.01


class Web(NamedTuple):
    """One that requests are for."""

    application: Application
    lifespan: Lifespan


class Applications:
    """Those of one container, by the method they are for: of a function there is one, for no method."""

    def __init__(self, boot: Boot, parts: RunnerParts) -> None:
        self._boot = boot
        self._parts = parts
        self._by_method: dict[str, Web] = {}
        self._starting: list[asyncio.Future[Any]] = []

    async def begin(self) -> None:
        """Make them all, begin their lifespans, and see what is to listen listen.

        Raises:
            EnterFailed: user code raised, gave no application, or nothing listened in time.
        """
        for method, spec in webs_of(self._boot):
            with _failing():
                await self._begin(method, spec)

    async def end(self) -> None:
        """Their lifespans end."""
        for web in self._by_method.values():
            await web.lifespan.end()

    def get(self, method: str) -> Web | None:
        """The one that requests for this method are for; none where that is called in another way."""
        return self._by_method.get(method)

    async def _begin(self, method: str, spec: WebSpec) -> None:
        if spec.kind in PROXIES:
            await self._begin_listening(method, spec)
            return
        web = self._made(method, spec)
        await web.lifespan.begin()
        self._by_method[method] = web

    def _made(self, method: str, spec: WebSpec) -> Web:
        function = self._function(method)
        if spec.kind == ENDPOINT:
            from squall.guest.web.endpoint import endpoint_application  # cold start: endpoints only

            with outside_loop():
                application = endpoint_application(function, spec)
        else:
            with outside_loop():
                found = function()
            if not callable(found):
                raise InvalidError(f"{self._name(method)} returned {found!r:.200}, which is no {spec.kind} to call")
            application = found
            if spec.kind == WSGI:
                from squall.guest.web.wsgi import FromWsgi  # cold start: WSGI applications only

                application = FromWsgi(found, self._boot.max_inputs)
        return Web(application, Lifespan(application))

    async def _begin_listening(self, method: str, spec: WebSpec) -> None:
        running: asyncio.Future[Any] | None = None
        if spec.kind != SERVER:
            function = self._function(method)
            # Most return when their server has begun; what serves here itself does not, and is not waited for.
            running = asyncio.ensure_future(_called(function))
            self._starting.append(running)
        await self._listens(method, spec, running)

    async def _listens(self, method: str, spec: WebSpec, running: asyncio.Future[Any] | None) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + spec.port_timeout_s
        while not _is_listening(spec.port):
            if running is not None and running.done():
                running.result()  # raises what it raised
            if loop.time() > deadline:
                raise exception.TimeoutError(
                    f"nothing listens at port {spec.port} {spec.port_timeout_s:g} s after {self._name(method)} was"
                    " started; give it more time by startup_timeout=, and let it listen at 0.0.0.0"
                )
            await asyncio.sleep(_LOOK_S)

    def _function(self, method: str) -> Callable[..., Any]:
        if self._parts.instance is None:
            return self._parts.function
        return self._parts.instance.methods[method].function

    def _name(self, method: str) -> str:
        return f"{self._boot.function_name}.{method}" if method else self._boot.function_name


async def _called(function: Callable[..., Any]) -> None:
    found = await asyncio.get_running_loop().run_in_executor(None, function)
    if hasattr(found, "__await__"):
        await found


def _is_listening(port: int) -> bool:
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with contextlib.suppress(OSError), socket.socket(family) as connection:
            connection.settimeout(1.0)
            connection.connect((address, port))
            return True
    return False


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except (Stopping, InputCancellation, GeneratorExit, asyncio.CancelledError):
        raise
    except BaseException as error:
        failure, pickled = decode_failure(encode_exception(error, _container.container_id()))
        raise EnterFailed(failure, pickled if len(pickled) <= PICKLED_BYTES_MAX else b"") from error
