"""The HTTP twin: `POST /api/v1/<Method>` for every method a client may ask, from the table of methods.

Events are not among them: what they bring about comes back on the channel they came on, and a request has none. Whoever
calls functions over HTTP uses CallSpawn and CallGet.

The request is the record as JSON; opaque bytes travel beside it, in base64, in a field `body`. Unary methods answer
with one JSON value, streams with one a line (application/x-ndjson). Errors are
`{"error": {"code", "message"}}` under the status of their code; in the middle of a stream, as its last line.

    GET /api/v1/channel        WebSocket of frames, for clients
    GET /api/v1/openapi.json   what there is
    GET /healthz               `ok`, without a token
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from squall.protocol.channel.contract import Channel
from squall.protocol.errors import INVALID, TIMED_OUT, PlatformError
from squall.protocol.methods import CLIENT, EVENT, METHODS, SERVER, STREAM, Method
from squall.server.api.errors import error_response, error_value, platform_error
from squall.server.api.guard import LOOPBACK_NAMES, Guard
from squall.server.api.openapi import describe
from squall.server.api.response_headers import ResponseHeaders
from squall.server.api.websocket import serve_channel

PREFIX = "/api/v1"
REQUEST_BYTES_MAX = 16 * 2**20
REQUEST_READ_S = 60.0
FIRST_ITEM_S = 1.0
"""How long a stream may take to fail with a proper status; after that its answer begins and errors come inside it."""

TWINS: dict[str, Method] = {
    name: method
    for name, method in METHODS.items()
    if method.asked_by == CLIENT and method.asked == SERVER and method.shape != EVENT
}


class Control(Protocol):
    """What the control plane offers to whoever asks over HTTP."""

    async def answer(self, method: str, record: Any, body: bytes) -> tuple[Any, bytes]:
        """Answer a unary method."""

    def stream(self, method: str, record: Any, body: bytes) -> AsyncIterator[tuple[Any, bytes]]:
        """Answer a stream."""

    def accept_client(self, channel: Channel) -> Any:
        """A client's channel has been opened."""


@dataclass(frozen=True, slots=True)
class Extra:
    """One more WebSocket path whose channels go elsewhere than to `accept_client`: those of agents."""

    path: str
    accept: Callable[[Channel], Any]


class _Body(msgspec.Struct):
    body: str = ""


def make_app(
    control: Control, token: str, host_names: frozenset[str] = LOOPBACK_NAMES, extras: tuple[Extra, ...] = ()
) -> ASGIApp:
    """The application. `token` opens it, `host_names` are what it may be called by."""
    twin = _Twin(control)
    document = msgspec.json.encode(describe(TWINS.values(), PREFIX))

    async def openapi(request: Request) -> Response:
        return Response(document, media_type="application/json")

    async def healthz(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    def channel_route(path: str, accept: Callable[[Channel], Any]) -> WebSocketRoute:
        async def channel(socket: WebSocket) -> None:
            await serve_channel(socket, accept)

        return WebSocketRoute(path, channel)

    routes = [
        Route("/healthz", healthz, methods=["GET"]),
        Route(f"{PREFIX}/openapi.json", openapi, methods=["GET"]),
        channel_route(f"{PREFIX}/channel", control.accept_client),
        *(channel_route(extra.path, extra.accept) for extra in extras),
        Route(f"{PREFIX}/{{method}}", twin.post, methods=["POST"]),
    ]
    return ResponseHeaders(Guard(Starlette(routes=routes), token, host_names))


class _Twin:
    """Answers posted methods."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._bodies = msgspec.json.Decoder(_Body)
        self._decoders = {name: msgspec.json.Decoder(method.request) for name, method in TWINS.items()}

    async def post(self, request: Request) -> Response:
        """One request."""
        name = request.path_params["method"]
        method = TWINS.get(name)
        if method is None:
            error = PlatformError("not_found", f"no method {name[:80]!r}; {PREFIX}/openapi.json lists what there is")
            return error_response(error)
        try:
            data = await _read(request)
            if data is None:
                message = f"{name}: a request may have {REQUEST_BYTES_MAX} bytes; put large values as blobs (BlobPut)"
                return error_response(PlatformError(INVALID, message), status=413)
            record, body = self._decode(method, data)
            if method.shape == STREAM:
                return await self._stream(method, record, body)
            reply, reply_body = await self._control.answer(name, record, body)
        except Exception as error:  # noqa: BLE001 - top of a request
            return error_response(platform_error(name, error))
        return Response(_encode(method, reply, reply_body), media_type="application/json")

    def _decode(self, method: Method, data: bytes) -> tuple[Any, bytes]:
        try:
            record = self._decoders[method.name].decode(data or b"{}")
            text = self._bodies.decode(data).body if method.has_body and data else ""
            return record, base64.b64decode(text, validate=True)
        except (ValueError, RecursionError) as error:
            raise PlatformError(INVALID, f"{method.name}: {error}") from error

    async def _stream(self, method: Method, record: Any, body: bytes) -> Response:
        items = self._control.stream(method.name, record, body)
        first = asyncio.ensure_future(anext(items, None))
        done, _ = await asyncio.wait([first], timeout=FIRST_ITEM_S)
        if done and first.exception() is not None:
            first.result()
        return StreamingResponse(_lines(method, first, items), media_type="application/x-ndjson")


async def _read(request: Request) -> bytes | None:
    """The whole request, or None when it is over the limit."""
    chunks: list[bytes] = []
    total = 0
    try:
        async with asyncio.timeout(REQUEST_READ_S):
            async for chunk in request.stream():
                total += len(chunk)
                if total > REQUEST_BYTES_MAX:
                    return None
                chunks.append(chunk)
    except TimeoutError:
        raise PlatformError(TIMED_OUT, f"the request did not arrive within {REQUEST_READ_S:.0f} s") from None
    return b"".join(chunks)


async def _lines(
    method: Method, first: asyncio.Future[Any], items: AsyncIterator[tuple[Any, bytes]]
) -> AsyncIterator[bytes]:
    try:
        item = await first
        while item is not None:
            yield _encode(method, *item) + b"\n"
            item = await anext(items, None)
    except Exception as error:  # noqa: BLE001 - the status has been sent; the last line says it
        yield msgspec.json.encode(error_value(platform_error(method.name, error))) + b"\n"
    finally:
        # Whoever asked may have gone in the middle: what runs for him ends now, not when it is collected.
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        close = getattr(items, "aclose", None)
        if close is not None:
            await close()


def _encode(method: Method, record: Any, body: bytes) -> bytes:
    if not method.has_body:
        return msgspec.json.encode(record)
    value = {**msgspec.to_builtins(record), "body": base64.b64encode(body).decode()}
    return msgspec.json.encode(value)
