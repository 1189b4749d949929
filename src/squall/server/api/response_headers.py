"""What responses of the API tell browsers: not to guess what they are, not to frame them, not to tell others of them.

Web functions are others' pages: theirs have what their applications say, and nothing of this.
"""

from __future__ import annotations

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
# Not `includeSubDomains`: below this server's name are web functions, which have policies of their own.
UNDER_TLS = ((b"strict-transport-security", b"max-age=31536000"),)
_STARTS = frozenset({"http.response.start", "websocket.http.response.start"})


class ResponseHeaders:
    """Wraps an ASGI application. What a response says itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        added = ALWAYS + UNDER_TLS if scope.get("scheme") in ("https", "wss") else ALWAYS

        async def send_more(event: Any) -> None:
            if event["type"] in _STARTS:
                headers = list(event.get("headers", ()))
                said = {name.lower() for name, _ in headers}
                event = {**event, "headers": headers + [pair for pair in added if pair[0] not in said]}
            await send(event)

        await self._app(scope, receive, send_more)
