"""Web functions that tell what reaches them, and go on until they are told to stop."""

import asyncio
import gzip
import http.server
import json
import os
import threading
from typing import Any

import squall

app = squall.App("clients")
TEXT = b"the same words again and again; " * 4_000
PACKED = gzip.compress(TEXT, mtime=0)


class Site:
    """An application: one method for each path. What streams goes on until somebody asks for /release."""

    def __init__(self) -> None:
        self.released = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        name = scope["path"].removeprefix(scope["root_path"]).strip("/")
        await getattr(self, f"{scope['type']}_{name}")(scope, receive, send)

    async def respond(self, send: Any, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
        await send({"type": "http.response.body", "body": body})

    async def http_count(self, scope: Any, receive: Any, send: Any) -> None:
        """Says what it was sent."""
        size, event = 0, {"more_body": True}
        while event.get("more_body"):
            event = await receive()
            size += len(event.get("body", b""))
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        said = {"method": scope["method"], "bytes": size, "headers": headers}
        said["container"] = os.environ["SQUALL_CONTAINER_ID"]
        await self.respond(send, json.dumps(said).encode(), (b"content-type", b"application/json"))

    async def http_packed(self, scope: Any, receive: Any, send: Any) -> None:
        await self.respond(send, PACKED, (b"content-encoding", b"gzip"), (b"content-type", b"text/plain"))

    async def http_text(self, scope: Any, receive: Any, send: Any) -> None:
        await self.respond(send, TEXT, (b"content-type", b"text/plain"))

    async def http_large(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1024):
            await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def http_stream(self, scope: Any, receive: Any, send: Any) -> None:
        """Begins, and ends when it is released; or says that its client has left."""
        length = [(b"content-length", b"10")] if scope["query_string"] == b"length" else []
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        leaving = asyncio.ensure_future(self.left(receive))
        await asyncio.wait([leaving, asyncio.ensure_future(self.released.wait())], return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            print(f"the client has left: {leaving.result()}", flush=True)
            return
        await send({"type": "http.response.body", "body": b"-end."})

    async def left(self, receive: Any) -> str:
        while (event := await receive())["type"] == "http.request":
            pass
        return str(event["type"])

    async def http_release(self, scope: Any, receive: Any, send: Any) -> None:
        self.released.set()
        await self.respond(send, b"")

    async def websocket_echo(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            if event.get("text") == "release":
                self.released.set()
            await send({"type": "websocket.send", "text": event["text"]})
        print(f"the socket has left: {event['code']}", flush=True)

    async def websocket_flood(self, scope: Any, receive: Any, send: Any) -> None:
        """Reads nothing until it is released, then all, and says how much that was."""
        await receive()
        await send({"type": "websocket.accept"})
        await self.released.wait()
        size = 0
        while "end" not in (event := await receive()).get("text", ""):
            size += len(event["bytes"])
        await send({"type": "websocket.send", "text": str(size)})
        await send({"type": "websocket.close", "code": 1000})


@app.function()
@squall.concurrent(max_inputs=50)
@squall.asgi_app()
def site() -> Any:
    return Site()


@app.function()
@squall.concurrent(max_inputs=2)
@squall.asgi_app()
def two_at_a_time() -> Any:
    return Site()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path == "/packed":
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(PACKED)))
            self.end_headers()
            self.wfile.write(PACKED)
            return
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Trailer", "X-Sum")
        self.end_headers()
        self.wfile.write(b"5\r\nwords\r\n")
        if self.path == "/stream":
            threading.Event().wait()
        self.wfile.write(b"0\r\nX-Sum: 5\r\n\r\n")

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1234")
        self.end_headers()


@app.function()
@squall.concurrent(max_inputs=20)
@squall.web_server(8151)
def program() -> None:
    listener = http.server.ThreadingHTTPServer(("0.0.0.0", 8151), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
