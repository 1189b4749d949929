"""A user's program that measures web functions: `web.py MEASUREMENT COUNT` prints one JSON object.

Clients are programs of their own, or sockets of this one: between them and the ingress is loopback.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import squall
from bench.figure import percentile

CONNECTIONS = 32
RATE_S = 5
HERE = Path(__file__).parent

app = squall.App("bench-web")
code = squall.Image.debian_slim().add_local_file(str(HERE / "web_application.py"), "/root/web_application.py")


@app.function(image=code, include_source=False, serialized=True, scaledown_window=60, max_containers=1)
@squall.concurrent(max_inputs=1000)
@squall.asgi_app()
def trivial() -> Any:
    return importlib.import_module("web_application").application


@app.function(image=code, include_source=False, serialized=True, scaledown_window=2, enable_memory_snapshot=True)
@squall.concurrent(max_inputs=1000)
@squall.asgi_app()
def short_lived() -> Any:
    return importlib.import_module("web_application").application


@app.function(image=code, include_source=False, serialized=True, scaledown_window=60, max_containers=4)
@squall.concurrent(max_inputs=1000)
@squall.asgi_app()
def many() -> Any:
    return importlib.import_module("web_application").application


@contextmanager
def uvicorn() -> Iterator[str]:
    """The same application under uvicorn, with all that makes it fast."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "web_application:application", "--port", str(port), "--loop", "uvloop"]
    command += ["--http", "httptools", "--no-access-log", "--log-level", "error", "--lifespan", "off"]
    with subprocess.Popen(command, cwd=HERE) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url)
            yield url
        finally:
            process.terminate()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for(url: str) -> None:
    """Return when it answers."""
    for _ in range(200):
        try:
            get(connection(url), url)
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{url} does not answer")


def connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    return http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)


def get(open_: http.client.HTTPConnection, url: str) -> bytes:
    open_.request("GET", urlsplit(url).path or "/")
    answer = open_.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{url}: {answer.status} {body[:200]!r}")
    return body


def rate_of(url: str, seconds: int) -> dict[str, float]:
    """What wrk finds: requests a second over some connections that are kept."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([\d.]+)", said)
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)|Socket errors: (.*)", said)
    if found is None or wrong is not None:
        raise SystemExit(f"wrk: {said}")
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    factor = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    return {"per_s": float(found[1]), "p99_ms": float(p99[1]) * factor[p99[2]] if p99 else 0.0}


def latency_of(url: str, count: int) -> dict[str, float]:
    """One request after the other over one connection."""
    open_, found = connection(url), []
    for number in range(count + count // 10):
        began = time.perf_counter()
        get(open_, url)
        if number >= count // 10:
            found.append((time.perf_counter() - began) * 1e3)
    return shown(found)


def shown(values_ms: Sequence[float]) -> dict[str, float]:
    return {"p50_ms": statistics.median(values_ms), "p99_ms": percentile(values_ms, 99)}


def first_byte(url: str, count: int) -> dict[str, float]:
    """From the application's first piece to its first byte here."""
    found = []
    for _ in range(count):
        open_ = connection(url)
        open_.request("GET", urlsplit(url).path + "/stream")
        answer = open_.getresponse()
        line = answer.readline()
        found.append((time.time() - float(line)) * 1e3)
        answer.read()
        open_.close()
    return shown(found)


def download(url: str, megabytes: int) -> dict[str, float]:
    before, most = resident_mb(), 0.0
    open_ = connection(url)
    began = time.perf_counter()
    open_.request("GET", f"{urlsplit(url).path}/download?{megabytes}")
    answer, buffer, total = open_.getresponse(), bytearray(2**20), 0
    while count := answer.readinto(buffer):
        total += count
        if total % (64 * 2**20) < count:
            most = max(most, resident_mb())
    took = time.perf_counter() - began
    if total != megabytes * 2**20:
        raise SystemExit(f"{total} bytes came of {megabytes} MB")
    return {"mb_per_s": total / 1e6 / took, "server_mb": max(0.0, most - before)}


def resident_mb() -> float:
    """Of the server."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (path / "cmdline").read_bytes().split(b"\0")
            if b"squall.main.dev" in arguments and b"serve" in arguments:
                return int((path / "statm").read_text().split()[1]) * 4096 / 2**20
        except OSError:
            continue
    raise SystemExit("the server was not found")


def from_zero(url: str, count: int) -> dict[str, float]:
    """The first request after the last container has gone."""
    found = []
    for _ in range(count):
        while short_lived.get_current_stats().num_total_runners:
            time.sleep(0.05)
        time.sleep(0.3)
        began = time.perf_counter()
        get(connection(url), url)
        found.append((time.perf_counter() - began) * 1e3)
    return shown(found)


def sockets(url: str, count: int) -> dict[str, float]:
    """Memory of the server for WebSockets that are open and silent."""
    from websockets.asyncio.client import connect

    async def hold() -> float:
        address = url.replace("http", "ws", 1) + "/"
        first = await connect(address, compression=None, ping_interval=None)
        await first.send("x")
        await first.recv()
        before, held = resident_mb(), [first]
        for _ in range(count):
            held.append(await connect(address, compression=None, ping_interval=None, open_timeout=60))
        await asyncio.sleep(2)
        each = (resident_mb() - before) * 1024 / count
        for one in (first, held[-1]):
            await one.send("still there")
            assert await one.recv() == "still there"
        for one in held:
            one.transport.abort()
        return each

    return {"kb_each": asyncio.run(hold())}


def measure(what: str, count: int) -> dict[str, float]:
    if what.startswith("uvicorn_"):
        with uvicorn() as url:
            return rate_of(url, RATE_S) if what == "uvicorn_rate" else latency_of(url, count)
    with app.run():
        function: squall.Function[..., Any] = {"from_zero": short_lived, "sockets": many}.get(what, trivial)
        url = function.get_web_url() or ""
        get(connection(url), url)
        if what == "rate":
            rate_of(url, 1)
            return rate_of(url, RATE_S)
        measured = {
            "latency": latency_of, "first_byte": first_byte, "download": download, "from_zero": from_zero,
            "sockets": sockets,
        }  # fmt: skip
        return measured[what](url, count)


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
