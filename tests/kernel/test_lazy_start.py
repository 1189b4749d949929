"""Containers that start before their layers are here: from a folder, from a bucket, and from stores with faults."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from squall.agent.disk import Writer
from squall.agent.image.block import lazy as lazy_module
from squall.agent.image.block.control import ask
from squall.agent.image.block.lazy import LazyLayers
from squall.agent.image.block.put import Putter
from squall.agent.image.block.store import Patience, open_store
from squall.agent.image.block.stored import StoredImages
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.making import Secrets
from squall.agent.image.progress import BuiltImage
from squall.agent.image.step_container import StepVolumes
from squall.main import leftovers
from squall.protocol.errors import PlatformError
from squall.protocol.image import BuildEvent, ImageConfig, ImageSpec, image_id
from squall.runtime.client import SpawnerRuntime
from squall.runtime.layer_mounts import can_mount_from_file
from tests.agent.image.block.stores import KEY, S3Server, WebStore, web_store
from tests.agent.parts import until
from tests.conftest import remove_data_dir
from tests.kernel import agents
from tests.kernel.containers import Containers, Running

IMAGE_ID = "im-" + "1" * 32
PATIENCE = Patience(attempts=2, pause_s=0.05, answer_s=5.0)
IMPORT = ("python3", "-c", "import email.mime.text, json, asyncio; print(json.__file__)")
IMPORTED = "/usr/lib/python3.11/json/__init__.py\n"
# Says so when it is up, and reads what it has not read before.
READER = """
import os, time
file = os.open("/usr/bin/perl", os.O_RDONLY)
print("up", flush=True)
time.sleep(0.7)
try:
    while os.read(file, 65536):
        pass
    print("read", flush=True)
except OSError as error:
    print(error.strerror, flush=True)
"""


def missing() -> str:
    """What this machine lacks to start lazily, or nothing."""
    if not can_mount_from_file():
        return "needs a kernel that mounts EROFS from files (Linux 6.12)"
    if not os.path.exists("/dev/fuse") or not os.path.exists("/usr/bin/fusermount3"):
        return "needs /dev/fuse and libfuse (package fuse3)"
    return ""


@dataclass
class Stocked:
    """A folder store with the image, and the bytes of its layer."""

    folder: Path
    image: Path

    @property
    def url(self) -> str:
        return f"file://{self.folder}"


@pytest.fixture(scope="module")
def stocked(rootfs: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stocked]:
    if missing():
        pytest.skip(missing())
    top = tmp_path_factory.mktemp("lazy")
    layers = LayerStore(top / "first", is_packed=True)
    with layers.scratch() as scratch:
        layer = layers.commit(scratch, Path(rootfs), KEY, {}, replaces=False)
    Putter(open_store(f"file://{top}/store")).put_image(IMAGE_ID, ImageConfig(), [layer])
    yield Stocked(top / "store", Path(layer.path))
    assert not remove_data_dir(top)


@pytest.fixture(autouse=True)
def _no_trace(stocked: Stocked) -> None:
    """Each test is a first start."""
    trace(stocked).unlink(missing_ok=True)


@pytest.fixture
def web(stocked: Stocked) -> Iterator[WebStore]:
    with web_store(stocked.folder) as server:
        yield server


def trace(stocked: Stocked) -> Path:
    return stocked.folder / "images" / f"{IMAGE_ID}.trace"


def wanted_bytes(state: dict[str, int]) -> int:
    """What was fetched for somebody, and not by the fill, which begins sooner or later."""
    return state["fetched_bytes"] - state["filled_bytes"]


class Node:
    """A node whose data directory is empty."""

    def __init__(self, data_dir: Path, stored: StoredImages, lazy: LazyLayers) -> None:
        self.data_dir = data_dir
        self.stored = stored
        self.lazy = lazy

    async def find(self) -> BuiltImage:
        found = await asyncio.wait_for(self.stored.find(IMAGE_ID, self.stored.holds.begin("test")), 60)
        assert found is not None
        return found

    async def wait_whole(self) -> BuiltImage:
        """The image, once it is an ordinary one."""
        await until(lambda: self.stored.find_here(IMAGE_ID), 60)
        found = self.stored.find_here(IMAGE_ID)
        assert found is not None
        return found

    def log(self) -> str:
        return (self.data_dir / "lazy.log").read_text()


@asynccontextmanager
async def node_at(data_dir: Path, url: str, environ: dict[str, str] | None = None) -> AsyncIterator[Node]:
    """A node; its daemon ends with it."""
    place = data_dir / "node"
    place.mkdir(exist_ok=True)
    async with LazyLayers(place, url, PATIENCE, environ or {}) as lazy:
        layers = LayerStore(place, is_packed=True)
        async with StoredImages(open_store(url, PATIENCE), LayerHolds(layers), place, lazy) as stored:
            yield Node(place, stored, lazy)
        await lazy.end()


async def test_a_container_starts_from_a_folder_with_few_bytes_and_the_rest_follows(
    data_dir: Path, stocked: Stocked, containers: Containers
) -> None:
    async with node_at(data_dir, stocked.url) as node:
        image = await node.find()
        assert image.layers[0].startswith(f"/proc/{node.lazy.pid}/fd/")
        running = await containers.start(*IMPORT, layers=image.layers)
        ended = await containers.finish(running)
        state = await node.lazy.state()

        assert ended.stdout == IMPORTED, ended
        assert state["opens"] == 1
        assert 0 < wanted_bytes(state) < 0.25 * stocked.image.stat().st_size
        await containers.runtime.remove(running.container_id)
        whole = await node.wait_whole()
        assert Path(whole.layers[0]).read_bytes() == stocked.image.read_bytes()
        assert (await containers.run(*IMPORT, layers=whole.layers)).stdout == IMPORTED
        # Nobody stands on what was served: it is no longer mounted, and the daemon may go.
        assert (await node.lazy.state())["opens"] == 0


async def test_a_container_starts_from_a_bucket_with_few_bytes(
    data_dir: Path, stocked: Stocked, containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with S3Server() as s3:
        for name, value in s3.environ.items():
            monkeypatch.setenv(name, value)
        store = open_store(s3.url)
        layers = LayerStore(stocked.image.parents[2], is_packed=True)
        Putter(store).put_image(IMAGE_ID, ImageConfig(), [layers.get(stocked.image.parent.name)])

        async with node_at(data_dir, s3.url, s3.environ) as node:
            ended = await containers.run(*IMPORT, layers=(await node.find()).layers)
            state = await node.lazy.state()

        assert ended.stdout == IMPORTED, ended
        assert 0 < wanted_bytes(state) < 0.25 * stocked.image.stat().st_size
        assert s3.environ["AWS_SECRET_ACCESS_KEY"] not in node.log()


async def test_what_a_first_start_wanted_is_fetched_ahead_by_the_next_node(
    data_dir: Path, stocked: Stocked, containers: Containers, web: WebStore, make_data_dir: Callable[[], Path]
) -> None:
    async with node_at(data_dir, stocked.url) as node:
        await containers.run(*IMPORT, layers=(await node.find()).layers)
        first = await node.lazy.state()
        await until(trace(stocked).exists)

    async with node_at(make_data_dir(), web.url) as second:
        image = await second.find()
        # Nothing reads yet.
        fetched = [-1, 0]
        while fetched[-1] == 0 or fetched[-1] != fetched[-2]:
            await asyncio.sleep(0.2)
            fetched.append(wanted_bytes(await second.lazy.state()))
        assert 0.5 * wanted_bytes(first) < fetched[-1] <= wanted_bytes(first)
        ranges = len(web.requests)
        assert (await containers.run(*IMPORT, layers=image.layers)).stdout == IMPORTED

        assert (await second.lazy.state())["recordings"] == 0
        assert len(web.requests) - ranges < 10


async def test_a_damaged_trace_costs_time_and_nothing_else(
    data_dir: Path, stocked: Stocked, containers: Containers
) -> None:
    trace(stocked).write_bytes(b"x" * 200)

    async with node_at(data_dir, stocked.url) as node:
        assert (await containers.run(*IMPORT, layers=(await node.find()).layers)).stdout == IMPORTED
        assert f"image {IMAGE_ID} starts without a trace: cannot fetch the trace" in node.log()


async def test_a_slow_store_makes_a_slow_start(
    data_dir: Path, stocked: Stocked, containers: Containers, web: WebStore
) -> None:
    web.latency_s = 0.02

    async with node_at(data_dir, web.url) as node:
        assert (await containers.run(*IMPORT, layers=(await node.find()).layers)).stdout == IMPORTED


async def start_reader(containers: Containers, image: BuiltImage) -> Running:
    running = await containers.start("python3", "-c", READER, layers=image.layers)
    await running.stdout.read_until("up\n")
    return running


async def test_a_dead_store_is_an_error_of_reading_after_retries_and_of_nothing_else(
    data_dir: Path, stocked: Stocked, containers: Containers, web: WebStore
) -> None:
    async with node_at(data_dir, web.url) as node:
        image = await node.find()
        running = await start_reader(containers, image)
        asked = len(web.requests)
        web.damage = lambda path, data: None
        ended = await containers.finish(running)

        assert ended.stdout == "up\nInput/output error\n", ended
        assert len(web.requests) - asked >= PATIENCE.attempts
        assert f"{web.url}: " in node.log()
        # What is here goes on, and so does the rest when the store is back.
        web.damage = lambda path, data: data
        assert (await containers.finish(await start_reader(containers, image))).stdout == "up\nread\n"


async def test_a_wrong_block_is_fetched_again_and_never_shown(
    data_dir: Path, stocked: Stocked, containers: Containers, web: WebStore, make_data_dir: Callable[[], Path]
) -> None:
    async with node_at(data_dir, web.url) as node:
        running = await start_reader(containers, await node.find())
        wrong = [True]
        web.damage = lambda path, data: bytes(len(data)) if "blocks" in path and wrong and wrong.pop() else data
        assert (await containers.finish(running)).stdout == "up\nread\n"
        assert not wrong

    async with node_at(make_data_dir(), web.url) as node:
        running = await start_reader(containers, await node.find())
        web.damage = lambda path, data: bytes(len(data)) if "blocks" in path else data
        assert (await containers.finish(running)).stdout == "up\nInput/output error\n"
        assert "are not those of its hash" in node.log()
        assert "of layer ly-" in node.log()


@pytest.mark.parametrize("fault", ["killed", "stopped"])
async def test_a_daemon_that_dies_or_hangs_is_an_error_of_reading_and_another_one_goes_on(
    data_dir: Path,
    stocked: Stocked,
    containers: Containers,
    web: WebStore,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    monkeypatch.setattr(lazy_module, "PING_S", 0.2)
    monkeypatch.setattr(lazy_module, "ANSWER_S", 1.0)
    async with node_at(data_dir, web.url) as node:
        running = await start_reader(containers, await node.find())
        web.gate.clear()
        asked = len(web.requests)
        await until(lambda: len(web.requests) > asked)
        pid = node.lazy.pid
        os.kill(pid, signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
        finishing = asyncio.ensure_future(containers.finish(running))
        has_ended = (await asyncio.wait([finishing], timeout=8))[0]

        assert has_ended, "the container hangs"
        ended = await finishing
        assert ended.stdout in ("up\nInput/output error\n", "up\nSoftware caused connection abort\n"), ended
        web.gate.set()
        await until(lambda: node.lazy.pid not in (0, pid), 20)
        before = web.sent_bytes
        again = await node.find()
        assert again.layers[0].startswith(f"/proc/{node.lazy.pid}/")
        assert (await containers.run("true", layers=again.layers)).status.code == 0
        # What the first one has brought stays.
        assert web.sent_bytes - before < 2**21
        await node.wait_whole()


OPENER = """
import asyncio, sys
from pathlib import Path
from tests.kernel.test_lazy_start import IMAGE_ID, PATIENCE
from squall.agent.image.block.lazy import LazyLayers
from squall.agent.image.block.store import open_store
from squall.agent.image.block.stored import StoredImages
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.store import LayerStore

async def main(place, url):
    async with LazyLayers(place, url, PATIENCE, {}) as lazy:
        async with StoredImages(open_store(url), LayerHolds(LayerStore(place, is_packed=True)), place, lazy) as stored:
            print((await stored.find(IMAGE_ID, stored.holds.begin("test"))).layers[0], flush=True)
            await asyncio.sleep(60)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def test_an_agent_that_is_killed_leaves_a_daemon_that_goes_on_for_its_containers(
    data_dir: Path, stocked: Stocked, containers: Containers, web: WebStore
) -> None:
    place = data_dir / "node"
    place.mkdir()
    environ = {**os.environ, "PYTHONPATH": "src:."}
    command = (sys.executable, "-c", OPENER, str(place), web.url)
    agent = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environ)
    assert agent.stdout is not None
    layer = (await asyncio.wait_for(agent.stdout.readline(), 20)).decode().strip()
    running = await containers.start("python3", "-c", READER + "time.sleep(30)", layers=[layer])
    await running.stdout.read_until("up\n")
    agent.kill()
    await agent.wait()
    await running.stdout.read_until("read\n")
    pid = int(layer.split("/")[2])

    async with node_at(data_dir, web.url) as node:
        assert node.lazy.pid == pid
        await node.find()
        await node.wait_whole()
        await containers.runtime.kill(running.container_id, signal.SIGKILL)
        await containers.exit(running)


async def test_a_daemon_that_nobody_needs_ends_by_itself(data_dir: Path, stocked: Stocked) -> None:
    async with LazyLayers(data_dir, stocked.url, PATIENCE, {}) as lazy:
        manifest = open_store(stocked.url).get_image(IMAGE_ID)
        LayerStore(data_dir, is_packed=True)
        await lazy.open(manifest, manifest.layers)
        pid = lazy.pid

    assert ask(data_dir, {"do": "state"}) is not None
    # Not by asking: who asks needs it.
    await until(lambda: not os.path.exists(f"/proc/{pid}/fd/0"), 60)
    assert ask(data_dir, {"do": "state"}) is None


async def test_stopping_a_server_that_was_killed_ends_its_daemon(data_dir: Path, stocked: Stocked) -> None:
    LayerStore(data_dir, is_packed=True)
    async with LazyLayers(data_dir, stocked.url, PATIENCE, {}) as lazy:
        await lazy.ready()
        pid = lazy.pid

    assert await asyncio.to_thread(leftovers.take_away, data_dir) == []

    await until(lambda: not os.path.exists(f"/proc/{pid}/fd/0"))
    assert ask(data_dir, {"do": "state"}) is None


async def test_without_fuse_layers_are_fetched_whole(
    data_dir: Path, stocked: Stocked, containers: Containers, caplog: pytest.LogCaptureFixture
) -> None:
    async with node_at(data_dir, stocked.url, {"FUSE_LIBRARY_PATH": "/nowhere/libfuse3.so"}) as node:
        image = await node.find()

        assert Path(image.layers[0]).read_bytes() == stocked.image.read_bytes()
        assert (await containers.run(*IMPORT, layers=image.layers)).stdout == IMPORTED
        assert "are fetched whole: cannot serve layers that are not whole: " in caplog.text


async def test_a_store_that_is_dead_from_the_beginning_is_an_error_of_starting(
    data_dir: Path, stocked: Stocked, web: WebStore
) -> None:
    async with node_at(data_dir, web.url) as node:
        node.stored._learn(IMAGE_ID)
        web.damage = lambda path, data: None

        with pytest.raises(PlatformError, match=f"cannot use image {IMAGE_ID}: cannot fetch the manifest of image"):
            await node.find()


class NothingBuilt:
    """Images of a node that has built none, and is not to."""

    async def build(
        self, spec: ImageSpec, on_event: Callable[[BuildEvent], None], secrets: Secrets | None = None, run_id: str = ""
    ) -> BuiltImage:
        raise AssertionError("it is in the store")

    def find(self, spec: ImageSpec) -> BuiltImage | None:
        return None

    def writers(self) -> Sequence[Writer]:
        return []

    def use_volumes(self, volumes: StepVolumes) -> None:
        """No step of it has any."""

    def over_disk(self, container_id: str, why: str) -> None:
        pass


async def test_an_agent_starts_a_function_of_an_image_that_only_the_store_has(
    data_dir: Path, stocked: Stocked, rootfs: str
) -> None:
    wanted = image_id(agents.SPEC)
    manifest = open_store(stocked.url).get_image(IMAGE_ID)
    config = ImageConfig(python_path=agents.PYTHON, python_version="3.11.2", layers=("ly-base",))
    open_store(stocked.url).put_image(replace(manifest, image_id=wanted, config=config))
    node = agents.Node(data_dir, rootfs)
    node.images = NothingBuilt()
    opened: list[LazyLayers] = []

    @asynccontextmanager
    async def open_stored() -> AsyncIterator[StoredImages]:
        async with LazyLayers(data_dir, stocked.url, PATIENCE, {}) as lazy:
            opened.append(lazy)
            layers = LayerStore(data_dir, is_packed=True)
            async with StoredImages(open_store(stocked.url), LayerHolds(layers), data_dir, lazy) as stored:
                yield stored

    node.open_stored = open_stored
    try:
        # Started, and built: neither needs more of the image than is here.
        async with node.running():
            request, _ = await node.start()
            guest = await node.talk()
            assert await guest.run("import email.mime.text; result = 6 * 7") == "42"
            assert 0 < wanted_bytes(await opened[-1].state()) < 0.25 * stocked.image.stat().st_size
            await node.build()
        # The next agent adopts the container and the daemon that serves it.
        async with node.running():
            guest = await node.talk(1)
            assert await guest.run("import xml.dom.minidom; result = xml.__name__") == "xml"
            assert opened[0].pid in (0, opened[1].pid)
            await node.end(request.container_id)
            await opened[-1].end()
        assert not node.left()
    finally:
        async with await SpawnerRuntime.open(str(data_dir / "spawner"), node.instance, idle_s=5) as runtime:
            for status in await runtime.list():
                await runtime.remove(status.container_id)
            await runtime.shutdown()


async def test_an_agent_says_of_an_image_that_nobody_has_that_it_is_to_be_built(
    data_dir: Path, stocked: Stocked, rootfs: str
) -> None:
    node = agents.Node(data_dir, rootfs)
    node.images = NothingBuilt()
    node.open_stored = lambda: StoredImages(
        open_store(stocked.url), LayerHolds(LayerStore(data_dir, is_packed=True)), data_dir, None
    )

    async with node.running():
        with pytest.raises(PlatformError, match="is not on this node; build it"):
            await node.start(image_id="im-" + "2" * 32)
        await node.runtime.shutdown()
