"""Containers that others reach through tunnels: by HTTP, a WebSocket, and bytes both ways and one."""

import base64
import hashlib
import http.server
import os
import socketserver
import sys
import threading
from typing import Any

import squall

app = squall.App("tunnels")
ENDED = threading.Event()
HTTP, ECHO, SILENT, ENDLESS, UPLOAD = 8101, 9101, 9102, 9103, 9104
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.headers.get("Upgrade") == "websocket":
            self._echo_messages()
            return
        said = f"{os.environ['SQUALL_CONTAINER_ID']} at {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        ENDED.set()

    def _echo_messages(self) -> None:
        key = self.headers["Sec-WebSocket-Key"].encode()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key + MAGIC).digest()).decode())
        self.end_headers()
        self.close_connection = True
        while True:
            first, length = self.rfile.read(2)
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[place % 4] for place, byte in enumerate(self.rfile.read(length & 127)))
            self.wfile.write(bytes([first, len(data)]) + data)
            if first & 15 == 8:
                return


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65_536):
            self.request.sendall(data)
        self.request.sendall(b"the end")


class Endless(socketserver.BaseRequestHandler):
    """Never comes to an end, and says what became of its client."""

    def handle(self) -> None:
        try:
            while True:
                self.request.sendall(bytes(65_536))
        except OSError as error:
            print("endless:", type(error).__name__, flush=True)


class Upload(socketserver.BaseRequestHandler):
    """Says how it came to an end, and no more."""

    def handle(self) -> None:
        count = 0
        try:
            while data := self.request.recv(65_536):
                if not count:
                    print("upload: begun", flush=True)
                count += len(data)
            print(f"upload: {count} bytes, and their end", flush=True)
        except OSError as error:
            print("upload:", type(error).__name__, flush=True)


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = allow_reuse_address = True


def listen(host: str) -> None:
    for server in (
        http.server.ThreadingHTTPServer(("0.0.0.0", HTTP), Handler),
        Server((host, ECHO), Echo),
        Server((host, ENDLESS), Endless),
        Server((host, UPLOAD), Upload),
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()


def serve(host: str = "127.0.0.1") -> None:
    listen(host)
    with (
        squall.forward(HTTP) as web,
        squall.forward(ECHO, unencrypted=True) as echo,
        squall.forward(ECHO) as again,
        squall.forward(SILENT) as silent,
        squall.forward(ENDLESS) as endless,
        squall.forward(UPLOAD) as upload,
    ):
        host, port = echo.tcp_socket
        ports = f"{host} {port} {again.port} {silent.port} {endless.port} {upload.port}"
        print(f"tunnels: {web.url} {ports} {os.environ['SQUALL_CONTAINER_ID']}.", flush=True)
        ENDED.wait()
    print("closed", flush=True)


@app.function(timeout=300)
def plain() -> None:
    serve()


@app.function(block_network=True)
def blocked() -> str:
    try:
        with squall.forward(HTTP):
            said = "open"
    except squall.exception.InvalidError as error:
        said = str(error)
    print(said)
    return said


@app.function(timeout=300, isolation="gvisor")
def strong() -> None:
    serve("0.0.0.0")  # loopback is its own kernel's


@app.function(timeout=300, enable_memory_snapshot=True)
def forked() -> None:
    serve()


@app.function()
async def wrong() -> None:
    async with squall.forward(8000) as tunnel:
        try:
            print(tunnel.tcp_socket)
        except squall.exception.InvalidError as error:
            print("no unencrypted address:", error, flush=True)
        try:
            print(tunnel.tls_socket)
        except squall.exception.InvalidError as error:
            print("no TLS:", error, flush=True)
    ports: list[Any] = [0, 65_536, "80"]
    for port in ports:
        try:
            async with squall.forward.aio(port):
                print("it has no such port", file=sys.stderr)
        except squall.exception.InvalidError as error:
            print(error, flush=True)


@app.function()
def many(count: int) -> None:
    import contextlib

    with contextlib.ExitStack() as stack:
        try:
            for _ in range(count):
                stack.enter_context(squall.forward(8000))
        except squall.exception.Error as error:
            print(type(error).__name__, error, flush=True)
