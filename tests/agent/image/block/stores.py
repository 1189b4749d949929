"""Stores for tests: a directory, a bucket of a server that speaks S3, and one that answers as a test wants it."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from squall.agent.image.block.store import BlockStore, Patience, open_store
from squall.agent.image.layer.store import Layer, LayerStore
from tests.ports import hold_port, port_of

HASTY = Patience(attempts=2, pause_s=0.01, answer_s=5.0)
KEY = "a" * 64


def store_in(folder: Path) -> BlockStore:
    """A store in a directory."""
    return open_store(f"file://{folder}", HASTY)


def make_layer(layers: LayerStore, key: str = KEY, size_mib: int = 18, seed: int = 1) -> Layer:
    """A packed layer of some blocks: noise, then zeros, then noise."""
    with layers.scratch() as scratch:
        tree = scratch.path / "fs"
        tree.mkdir()
        noise = random.Random(seed)
        (tree / "a-first").write_bytes(noise.randbytes(2**20))
        # Written, so no hole: a block of zeros in the image.
        (tree / "b-zeros").write_bytes(bytes(size_mib * 2**20))
        (tree / "c-last").write_bytes(noise.randbytes(3 * 2**20 + 12_345))
        return layers.commit(scratch, tree, key, {"fact": "x"}, replaces=False)


class S3Server:
    """moto's server on loopback, with one bucket."""

    def __init__(self) -> None:
        self._held = hold_port()
        self.port = port_of(self._held)
        self.url = "s3://layers/some/where"
        self.environ = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_REGION": "us-east-1",
        }

    def __enter__(self) -> S3Server:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}/layers", method="PUT")
            try:
                urllib.request.urlopen(request, timeout=5).close()
                return self
            except OSError:
                assert self.process.poll() is None, f"moto's server ended with {self.process.returncode}"
                assert time.monotonic() < deadline, "moto's server does not start"
                time.sleep(0.1)

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait(20)
        self._held.close()


class WebStore(ThreadingHTTPServer):
    """Shows a directory over HTTP with ranges, and takes files into it, as slowly and as wrongly as it is told."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Getting)
        self.folder = folder
        self.latency_s = 0.0
        self.sent_bytes = 0
        self.requests: list[str] = []
        self.damage: Callable[[str, bytes], bytes | None] = lambda path, data: data
        """What to send instead; None for an error."""
        self.gate = threading.Event()
        """While it is not set, nothing is answered."""
        self.gate.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Getting(BaseHTTPRequestHandler):
    server: WebStore
    protocol_version = "HTTP/1.1"
    # Two small writes and a delayed acknowledgement would be 40 ms.
    wbufsize = -1

    def do_GET(self) -> None:
        """Send a file or a range of it."""
        server = self.server
        server.requests.append(self.path)
        server.gate.wait(60)
        time.sleep(server.latency_s)
        path = server.folder / self.path.lstrip("/")
        if not path.is_file():
            self._answer(404, b"")
            return
        data = path.read_bytes() if "Range" not in self.headers else b""
        extra = ""
        if wanted := self.headers.get("Range"):
            begin, end = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
            size = path.stat().st_size
            with path.open("rb") as file:
                file.seek(begin)
                data = file.read(end + 1 - begin)
            extra = f"bytes {begin}-{begin + len(data) - 1}/{size}"
        sent = server.damage(self.path, data)
        if sent is None:
            self._answer(503, b"")
            return
        self._answer(206 if extra else 200, sent, extra)

    def do_PUT(self) -> None:
        """Take a file."""
        (self.server.folder / self.path.lstrip("/")).write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(200, b"")

    def _answer(self, status: int, data: bytes, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"x"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        if content_range:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)
        self.server.sent_bytes += len(data)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: tests say what went wrong."""


@contextlib.contextmanager
def web_store(folder: Path) -> Iterator[WebStore]:
    """A directory shown over HTTP meanwhile."""
    with WebStore(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.gate.set()
            server.shutdown()
            thread.join(20)
