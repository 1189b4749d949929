"""Web functions without containers: the real port, ingress and control plane, and applications that run in this process
with the guest's own exchanges, over the wire's own frames."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from squall.guest.inbox import Input
from squall.guest.web.exchange import Beginnings, Exchange
from squall.protocol.app import AppCreate, AppCreated
from squall.protocol.errors import UNAVAILABLE, PlatformError
from squall.protocol.function import FunctionCreate, FunctionCreated
from squall.protocol.web import ASGI, WebCredit, WebIn, WebSpec
from squall.server.api.http import make_app
from squall.server.api.listen import serving
from squall.server.ingress.ingress import Ingress
from squall.server.model.config import ServerConfig
from tests.server.doubles import Failed, FakeGuest, Stage, make_spec, staged

Scope = dict[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

TOKEN = "a-token"
OWN_NAMES = frozenset({"localhost", "127.0.0.1"})
APP = "ap-0123456789ABCDEFGHabcd"


class Link:
    """What the guest's exchange sends by."""

    def __init__(self, guest: FakeGuest) -> None:
        self._guest = guest

    def send(self, method: str, record: Any, body: bytes = b"") -> bool:
        if self._guest.peer is None or self._guest.peer.is_closed:
            return False
        self._guest.tell(method, record, body)
        return True


class LocalPort:
    """See `model.port.PortStream`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(65_536)
        except OSError as error:
            raise PlatformError(UNAVAILABLE, "the connection was reset") from error

    async def write(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise PlatformError(UNAVAILABLE, "the connection was reset") from error

    def write_eof(self) -> None:
        self._writer.write_eof()

    async def wait_ended(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    def close(self) -> None:
        self._writer.transport.abort()


class WebStage:
    """One app with one web function `site`, found under `shop-site-dev`."""

    def __init__(self, stage: Stage, application: Application) -> None:
        self.stage = stage
        self.application = application
        self.port = 0
        self.ingress: Ingress
        self.exchanges: dict[tuple[str, int], Exchange] = {}
        self.seen: list[Any] = []
        """What the application has noted."""

    async def begin(self, spec: WebSpec, **function: Any) -> None:
        node = self.stage.node
        node.credit_max = 1
        node.run_request, node.on_web = self._run, self._came
        await self.stage.client.ask("AppCreate", AppCreate(APP, "shop"), AppCreated)
        made = make_spec(APP, "site", web=spec, **{"max_inputs": 10, **function})
        await self.stage.client.ask("FunctionCreate", FunctionCreate((made,)), FunctionCreated)

    async def _run(self, guest: FakeGuest, call_id: str, index: int, value: bytes) -> bytes:
        link: Any = Link(guest)
        exchange = Exchange(Input(call_id, index, 0, value, ""), link, {}, Beginnings())
        self.exchanges[call_id, index] = exchange
        try:
            await self.application(exchange.scope, exchange.receive, exchange.send)
            return exchange.outcome()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise Failed("user", str(error)) from error
        finally:
            del self.exchanges[call_id, index]
            exchange.gone()

    def _came(self, guest: FakeGuest, method: str, params: Any, body: bytes) -> None:
        record: Any = self.stage.codec.record(WebIn if method == "WebIn" else WebCredit, params)
        exchange = self.exchanges.get((record.call_id, record.index))
        if exchange is None:
            return
        if isinstance(record, WebIn):
            exchange.came(record, body)
        else:
            exchange.credited(record)

    @property
    def url(self) -> str:
        """By the path."""
        return f"http://127.0.0.1:{self.port}/w/shop-site-dev"

    async def open_port(self, container: Any, port: int) -> Any:
        """A connection to a port of this machine, as if it were one of a container."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            raise PlatformError(UNAVAILABLE, f"nothing listens at port {port}") from error
        return LocalPort(reader, writer)

    async def raw(self, request: bytes, *, host: str = "shop-site-dev.localhost") -> bytes:
        """Everything that comes back over one connection for these bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request.replace(b"HOST", host.encode()))
        try:
            return await asyncio.wait_for(reader.read(), 10)
        finally:
            writer.close()

    async def seen_at_least(self, count: int) -> list[Any]:
        """What the application has noted, when it is so much."""
        await self.stage.until(lambda: len(self.seen) >= count)
        return self.seen


@asynccontextmanager
async def web_stage(
    application: Application, spec: WebSpec | None = None, *, config: ServerConfig | None = None,
    answer_s: float = 150.0, **function: Any,
) -> AsyncIterator[WebStage]:  # fmt: skip
    """Serve an application at a port of this machine, while time passes as it does."""
    async with staged(config) as stage:
        web = WebStage(stage, application)
        stage.plane.web.requests.proxies.open_port = web.open_port
        await web.begin(spec or WebSpec(ASGI), **function)
        web.ingress = Ingress(make_app(stage.plane, TOKEN, OWN_NAMES), stage.plane.web, OWN_NAMES, answer_s)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        web.port = listener.getsockname()[1]
        ticking = asyncio.ensure_future(_tick(stage))
        try:
            async with serving(web.ingress, listener, is_for_api=web.ingress.is_for_api, lane=web.ingress.lane):
                yield web
        finally:
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking


async def _tick(stage: Stage) -> None:
    while True:
        await asyncio.sleep(0.005)
        stage.clock.advance(0.005)
