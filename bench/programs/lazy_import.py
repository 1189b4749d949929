"""Imports numpy first thing in containers of a 300 MB image that comes from a store, and prints how long it takes.

The store is a folder shown over HTTP that answers each request after 2 ms. Every start has a spawner of its own, so
nothing is mounted before, and the memory that the layers' files were cached in is given back first where it says cold.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from squall.agent.image.block.lazy import LazyLayers
from squall.agent.image.block.put import Putter
from squall.agent.image.block.store import Patience, open_store
from squall.agent.image.block.stored import StoredImages
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.store import Layer, LayerStore
from squall.erofs.unpack import unpack
from squall.protocol.image import ImageConfig
from squall.runtime.client import SpawnerRuntime
from squall.runtime.removal import remove_tree
from squall.runtime.spec import ContainerSpec, IdRange

IMAGE_ID = "im-" + "1" * 32
IMAGE_BYTES = 300_000_000
LATENCY_S = 0.002
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": "/opt/packages"}


def fill_image(data_dir: Path, first: LayerStore) -> list[Layer]:
    """A base of the store that is measured with, and a layer of numpy and what else an environment has."""
    bases = [layer for layer in LayerStore(data_dir, is_packed=True).list() if layer.facts.get("python_path")]
    base = max(bases, key=lambda layer: layer.size_bytes)
    place = first.incoming_dir / base.layer_id
    place.mkdir()
    subprocess.run(["cp", "--reflink=auto", base.path, str(place / "layer.erofs")], check=True)
    lower = first.take_in(place, base.layer_id, base.key, base.facts)
    with first.scratch() as scratch:
        packages = scratch.path / "fs/opt/packages"
        packages.mkdir(parents=True)
        uv = str(Path(sys.executable).parent / "uv")
        target = [uv, "pip", "install", "--quiet", "--target", str(packages), "--only-binary", ":all:"]
        subprocess.run([*target, "--python-version", base.facts["python_version"], "numpy"], check=True, timeout=200)
        noise = random.Random(1)
        left = IMAGE_BYTES - lower.size_bytes - sum(p.stat().st_size for p in packages.rglob("*") if p.is_file())
        for number in range(max(0, left) // 1_000_000):
            folder = packages / f"package_{number % 40}"
            folder.mkdir(exist_ok=True)
            (folder / f"module_{number}.py").write_bytes(noise.randbytes(1_000_000))
        return [lower, first.commit(scratch, scratch.path / "fs", "b" * 64, {}, replaces=False)]


def give_back(paths: list[str]) -> None:
    """Let the kernel forget what it has cached of files."""
    os.sync()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def wait_for(path: Path) -> None:
    """Return when a file is there."""
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


class Measuring:
    """A store, and nodes that start from it."""

    def __init__(self, place: Path, url: str, python: str) -> None:
        self.place = place
        self.python = python
        self.url = url
        self.count = 0

    async def runtime(self, stack: AsyncExitStack) -> SpawnerRuntime:
        """A spawner of its own, ended with the stack."""
        self.count += 1
        name = f"{self.place.name}{self.count}"
        runtime = await stack.enter_async_context(
            await SpawnerRuntime.open(str(self.place / f"s{self.count}"), name, idle_s=5)
        )
        stack.push_async_callback(runtime.shutdown)
        return runtime

    async def run(self, runtime: SpawnerRuntime, layers: tuple[str, ...]) -> None:
        """A container that imports numpy and ends."""
        self.count += 1
        state_dir = self.place / f"c{self.count}"
        state_dir.mkdir()
        code = "import numpy; print(numpy.__version__)"
        argv = [self.python, "-B", "-c", code]
        spec = ContainerSpec(f"ct-{self.count}", layers, str(state_dir), IdRange(0x6000_0000), argv, ENV)
        exits = runtime.exits()
        ended = asyncio.ensure_future(anext(exits))
        started = await runtime.start(spec)
        status = (await asyncio.wait_for(ended, 60))[1]
        said = os.read(started.stderr_fd, 9_999).decode() if status.code else ""
        os.close(started.stdout_fd)
        os.close(started.stderr_fd)
        await runtime.remove(spec.container_id)
        if status.code != 0:
            raise SystemExit(f"the container ended with {status}: {said}")

    async def local(self, layers: tuple[str, ...], *, is_cold: bool) -> float:
        """Seconds with everything here."""
        async with AsyncExitStack() as stack:
            runtime = await self.runtime(stack)
            if is_cold:
                give_back(list(layers))
            else:
                await self.run(runtime, layers)
            begin_s = time.perf_counter()
            await self.run(runtime, layers)
            return time.perf_counter() - begin_s

    async def lazy(self, *, has_trace: bool) -> tuple[float, int]:
        """Seconds and bytes with nothing here."""
        self.count += 1
        data_dir = self.place / f"n{self.count}"
        data_dir.mkdir()
        trace = self.place / "store/images" / f"{IMAGE_ID}.trace"
        if not has_trace:
            trace.unlink(missing_ok=True)
        async with AsyncExitStack() as stack:
            runtime = await self.runtime(stack)
            # It is there before, as on any node that has started something lazily of late.
            lazy = await stack.enter_async_context(LazyLayers(data_dir, self.url, Patience(), {}))
            await lazy.ready()
            stack.push_async_callback(lazy.end)
            holds = LayerHolds(LayerStore(data_dir, is_packed=True))
            stored = StoredImages(open_store(self.url), holds, data_dir, lazy)
            await stack.enter_async_context(stored)
            begin_s = time.perf_counter()
            image = await stored.find(IMAGE_ID, holds.begin("start"))
            assert image is not None, "it was put"
            await self.run(runtime, image.layers)
            took_s = time.perf_counter() - begin_s
            fetched = (await lazy.state())["fetched_bytes"]
            if not has_trace:
                recorded = self.place / "store/images" / f"{IMAGE_ID}.trace"
                await asyncio.to_thread(wait_for, recorded)
        remove_tree(str(data_dir))
        return took_s, fetched


async def measure(place: Path, data_dir: Path, count: int, url: str) -> dict[str, float]:
    """All figures, each kind of start in turn."""
    first = LayerStore(place / "first", is_packed=True)
    layers = fill_image(data_dir, first)
    Putter(open_store(f"file://{place}/store")).put_image(IMAGE_ID, ImageConfig(), layers)
    images = tuple(layer.path for layer in layers)
    directories = tuple(str(place / f"plain-{number}") for number, _ in enumerate(images))
    for image, directory in zip(images, directories, strict=True):
        os.mkdir(directory)
        unpack(Path(image), directory)
    measuring = Measuring(place, url, layers[0].facts["python_path"])
    taken: dict[str, list[float]] = {}
    fetched = 0
    for _ in range(count):
        for name, start in (
            ("cold_s", measuring.local(images, is_cold=True)),
            ("warm_s", measuring.local(images, is_cold=False)),
            ("directory_s", measuring.local(directories, is_cold=False)),
        ):
            taken.setdefault(name, []).append(await start)
        for name, has_trace in (("untraced_s", False), ("traced_s", True)):
            took_s, fetched_now = await measuring.lazy(has_trace=has_trace)
            taken.setdefault(name, []).append(took_s)
            fetched = max(fetched, fetched_now)
    total = sum(layer.size_bytes for layer in layers)
    numbers = {name: statistics.median(values) for name, values in taken.items()}
    return {**numbers, "bytes_percent": 100 * fetched / total, "image_mb": total / 1e6}


def main() -> None:
    """Print the numbers as one line of JSON."""
    place = Path(tempfile.mkdtemp(prefix="sq-", dir="/tmp"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    (place / "store").mkdir()
    server = subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("slow_store.py")),
            str(place / "store"),
            str(port),
            str(LATENCY_S),
        ]
    )
    try:
        numbers = asyncio.run(measure(place, Path(sys.argv[1]), int(sys.argv[2]), f"http://127.0.0.1:{port}"))
    finally:
        server.kill()
        server.wait()
        remove_tree(str(place))
    print(json.dumps(numbers))


main()
