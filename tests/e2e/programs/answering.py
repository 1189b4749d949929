"""Web functions of every kind that need no package."""

import asyncio
import http.server
import json
import os
import subprocess
import sys
import threading
from typing import Any

import squall

app = squall.App("answering")


@app.function()
@squall.concurrent(max_inputs=50)
@squall.asgi_app()
def site() -> Any:
    print("the site begins", flush=True)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (event := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": event["text"].upper()})
            print("the socket has closed", flush=True)
            return
        path = scope["path"].removeprefix(scope["root_path"])
        if path == "/die":
            os._exit(3)
        if path == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            for number in range(3):
                await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
                await asyncio.sleep(0.01)
            if scope["query_string"] == b"die":
                os._exit(3)
            await send({"type": "http.response.body", "body": b"end\n"})
            return
        if path == "/slow":
            await asyncio.sleep(float(scope["query_string"] or b"1"))
        total = 0
        while True:
            event = await receive()
            total += len(event.get("body", b""))
            if not event.get("more_body"):
                break
        if path == "/download":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            piece = b"x" * 2**20
            for _ in range(int(scope["query_string"])):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            return
        said = {
            "method": scope["method"],
            "path": scope["path"],
            "root_path": scope["root_path"],
            "body": total,
            "input": squall.current_input_id(),
            "container": os.environ["SQUALL_CONTAINER_ID"],
            "headers": {name.decode(): value.decode() for name, value in scope["headers"]},
        }
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(said).encode()})

    return application


@app.function()
@squall.wsgi_app(label="old-style")
def old() -> Any:
    def application(environ: Any, start_response: Any) -> list[bytes]:
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode(), b" ", str(len(body)).encode(), b" in ", environ["SCRIPT_NAME"].encode()]

    return application


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        said = f"{self.path} of {self.headers.get('X-Forwarded-Prefix')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def do_POST(self) -> None:
        count, size = 0, int(self.headers["Content-Length"])
        while count < size:
            count += len(self.rfile.read(min(2**20, size - count)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(count).encode())
        self.close_connection = True


@app.function(block_network=True)
@squall.concurrent(max_inputs=20)
@squall.web_server(8123)
def listens() -> None:
    threading.Thread(
        target=http.server.ThreadingHTTPServer(("0.0.0.0", 8123), Handler).serve_forever, daemon=True
    ).start()


@app.function()
@squall.web_server(8124, startup_timeout=20)
def program() -> None:
    subprocess.Popen([sys.executable, "-m", "http.server", "8124", "--directory", "/etc"])


@app.function()
@squall.web_server(8125, startup_timeout=0.5)
def listens_nowhere() -> None:
    pass


@app.cls()
class Shop:
    @squall.enter()
    def load(self) -> None:
        self.name = "the shop"

    @squall.asgi_app()
    def page(self) -> Any:
        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                raise NotImplementedError
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": self.name.encode()})

        return application

    @squall.method()
    def named(self) -> str:
        return self.name


@app.local_entrypoint()
def ask() -> None:
    print(site.get_web_url())
    print(Shop().page.get_web_url())
    print(Shop().named.get_web_url())
    print(Shop().named.remote())
    try:
        site.remote()
    except squall.exception.InvalidError as error:
        print(error)
