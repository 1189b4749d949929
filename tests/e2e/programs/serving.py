"""Servers of an app: an open one, one that wants a token, and one that never listens."""

import http.server
import os
import threading
from typing import Any

import squall

app = squall.App("serving")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = ""

    def do_GET(self) -> None:
        said = f"{self.name} of {os.environ['SQUALL_CONTAINER_ID']} at {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


def listen(port: int) -> None:
    """Let it answer there, from now on."""
    threading.Thread(
        target=http.server.ThreadingHTTPServer(("0.0.0.0", port), Handler).serve_forever, daemon=True
    ).start()


@app.server(port=8131, unauthenticated=True, target_concurrency=0.5, max_concurrency=20, max_containers=2)
class Open:
    """Answers anybody."""

    @squall.enter()
    def load(self) -> None:
        Handler.name = "the open one"

    @squall.enter()
    def start(self) -> None:
        listen(8131)

    @squall.exit()
    def leave(self) -> None:
        print("the open one leaves", flush=True)


@app.server(port=8132, name="closed")
class Closed:
    @squall.enter()
    def start(self) -> None:
        listen(8132)


@app.server(port=8133, unauthenticated=True, startup_timeout=1)
class Silent:
    @squall.enter()
    async def start(self) -> None:
        """Nothing listens."""


@app.local_entrypoint()
def tell() -> None:
    opened: Any = Open
    print(opened.get_url())
    print(squall.Server.from_name("serving", "closed").get_url())
    info = opened.info()
    print(info.port, info.unauthenticated, info.startup_timeout)
    print(opened.autoscaler.update(target_concurrency=3, scaleup_window=5))
    print(
        app.info().servers
        == {"Open": opened.object_id, **{name: app.info().servers[name] for name in ("closed", "Silent")}}
    )
