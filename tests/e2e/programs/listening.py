"""What listens at ports of containers of every kind, and a neighbour that should not reach it."""

import http.server
import os
import re
import socket
import threading

import squall

app = squall.App("listening")
PORT = 8141


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        said = f"{os.environ['SQUALL_CONTAINER_ID']} {own_address()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)


def own_address() -> str:
    """Of this container in its node's network, where it can tell; empty without one."""
    try:
        with open("/proc/net/fib_trie") as routes:
            found = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", routes.read())
    except OSError:
        return ""
    return next((address for address in found if not address.startswith("127.")), "")


def listen() -> None:
    server = http.server.ThreadingHTTPServer(("0.0.0.0", PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


@app.function()
@squall.web_server(PORT)
def plain() -> None:
    listen()


@app.function(block_network=True)
@squall.web_server(PORT)
def blocked() -> None:
    listen()


@app.function(isolation="gvisor")
@squall.web_server(PORT, startup_timeout=20)
def strong() -> None:
    listen()


@app.function(enable_memory_snapshot=True)
@squall.web_server(PORT)
def forked() -> None:
    listen()


@app.server(port=PORT, unauthenticated=True, isolation="gvisor", startup_timeout=60)
class StrongServer:
    @squall.enter()
    def start(self) -> None:
        listen()


@app.server(port=PORT, unauthenticated=True, enable_memory_snapshot=True)
class ForkedServer:
    @squall.enter()
    def start(self) -> None:
        listen()


@app.function()
def neighbour(addresses: str) -> None:
    for address in addresses.split(","):
        host, _, port = address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), 3).close()
        except OSError as error:
            print(f"{address}: {type(error).__name__}", flush=True)
        else:
            print(f"{address}: reached", flush=True)
