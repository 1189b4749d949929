"""The application that is measured, in a container and under uvicorn: ASGI without a framework."""

from __future__ import annotations

import asyncio
import time
from typing import Any

PIECE = b"x" * (256 * 1024)


async def application(scope: Any, receive: Any, send: Any) -> None:
    """`/`: a short answer; `/stream`: the time of the first piece, then one more; `/download?MB`: so much."""
    if scope["type"] == "lifespan":
        raise NotImplementedError("no lifespan")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event.get("text") or ""})
        return
    path = scope["path"]
    headers = [(b"content-type", b"text/plain")]
    if path.endswith("/stream"):
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"%.6f\n" % time.time(), "more_body": True})
        await asyncio.sleep(0.02)
        await send({"type": "http.response.body", "body": b"end\n"})
    elif path.endswith("/download"):
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(int(scope["query_string"]) * 4):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    else:
        body = b"Hello, world!"
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, (b"content-length", b"13")]})
        await send({"type": "http.response.body", "body": body})
