"""Who may ask at all: looked at before anything else of a request.

A page in a browser can send requests to a loopback port, and by a name that it makes resolve to 127.0.0.1 it can read
the answers. Hence, on loopback too: a token, only the names we are known by in `Host`, and no foreign `Origin`.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from squall.protocol.errors import FORBIDDEN, UNAUTHENTICATED, PlatformError
from squall.server.api.errors import error_response

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
OPEN_PATHS = frozenset({"/healthz"})


class Guard:
    """Wraps an ASGI application."""

    def __init__(self, app: ASGIApp, token: str, host_names: frozenset[str] = LOOPBACK_NAMES) -> None:
        """`host_names` are those of this server in a `Host` header, without a port, lower case."""
        assert token, "an empty token would let everybody in"
        self._app = app
        self._token = token.encode()
        self._host_names = host_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        error = self._refusal(scope)
        if error is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await error_response(error)(scope, receive, send)
        else:
            await _refuse_websocket(error_response(error), scope, receive, send)

    def _refusal(self, scope: Scope) -> PlatformError | None:
        values: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            values.setdefault(name, []).append(value)
        hosts = [value.decode("latin-1") for value in values.get(b"host", [])]
        if len(hosts) != 1 or _name(hosts[0]) not in self._host_names:
            return PlatformError(
                FORBIDDEN,
                f"refused: this server is not known as {', '.join(hosts)[:100]!r}; use one of"
                f" {', '.join(sorted(self._host_names))}",
            )
        for origin in values.get(b"origin", []):
            if _name(urlsplit(origin.decode("latin-1")).netloc) not in self._host_names:
                return PlatformError(FORBIDDEN, "refused: the request comes from a page of another origin")
        if scope["path"] in OPEN_PATHS:
            return None
        given = values.get(b"authorization", [b""])[0]
        kind, _, token = given.partition(b" ")
        if kind.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._token):
            return PlatformError(
                UNAUTHENTICATED,
                "send the token of this server as `Authorization: Bearer TOKEN`; it is in the file `token` of the"
                " server's data directory",
            )
        return None


def _name(host: str) -> str:
    """`localhost` of `LocalHost:8080`."""
    name, separator, port = host.strip().lower().rpartition(":")
    return name if separator and port.isdigit() else host.strip().lower()


async def _refuse_websocket(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    headers = response.raw_headers
    await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": response.body})
