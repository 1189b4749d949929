"""A node brings its images to a real registry and sends them as files, and nothing of that stays."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from squall.agent.agent import Agent
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.transfer import Transfers
from squall.protocol.errors import PlatformError
from squall.protocol.image import BuildEvent, ImageBuild, ImageConfig, ImageSpec, image_id
from squall.protocol.image_steps import debian_slim
from squall.protocol.image_transfer import ImageExport, ImagePush, TransferEvent
from squall.runtime.fake import FakeMachine, FakeRuntime
from tests.agent.parts import CODEC, BuiltImages, ServerEnd, Slots, make_config, until
from tests.kernel import registries
from tests.kernel.registries import PASSWORD, USER, Registry, gate

SPEC = ImageSpec((debian_slim("3.11"),))
CONFIG = ImageConfig(python_path="/usr/bin/python3", layers=("ly-" + "0" * 32,))


@pytest.fixture(autouse=True)
def _skip_aloud() -> None:
    if registries.missing():
        pytest.skip(registries.missing())


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty one that wants a password."""
    running = Registry(tmp_path / "registry", has_password=True)
    running.start()
    yield running
    running.stop()


@asynccontextmanager
async def node(data_dir: Path, registry: Registry) -> AsyncIterator[ServerEnd]:
    """An agent with one image of one layer, and its server's end."""
    layer = data_dir / "layer"
    (layer / "usr").mkdir(parents=True)
    (layer / "usr/random").write_bytes(os.urandom(3 * 2**20))
    server, runtime = ServerEnd(), FakeRuntime(FakeMachine({}))
    settings = MachineSettings(registry_env={"HOME": str(registry.home)})
    transfers = Transfers(LayerStore(data_dir), settings)
    connect = (server.connect, server.connect_container)
    async with Agent(
        make_config(data_dir), runtime, Slots(), BuiltImages(layer, CONFIG), CODEC, *connect, transfers=transfers
    ) as agent:
        await asyncio.wait_for(agent.wait_connected(), 10)
        stream = server.peer.stream("NodeImageBuild", ImageBuild(SPEC))
        assert [event.kind async for event, _ in stream.items(BuildEvent)][-1] == "built"
        yield server
    await runtime.close()
    assert os.listdir(data_dir / "layers/.scratch") == []


async def ask(server: ServerEnd, record: ImagePush | ImageExport) -> list[tuple[TransferEvent, bytes]]:
    stream = server.peer.stream(f"Node{type(record).__name__}", record)
    return [item async for item in stream.items(TransferEvent)]


async def test_image_is_pushed_and_its_digest_told(registry: Registry, data_dir: Path) -> None:
    async with node(data_dir, registry) as server:
        record = ImagePush(image_id(SPEC), f"{registry.place}/app:1", USER, PASSWORD)
        *lines, (done, _) = await ask(server, record)

    assert done.kind == "done"
    assert done.digest.startswith("sha256:")
    assert {event.kind for event, _ in lines} == {"line"}
    assert PASSWORD not in str(lines)


async def test_image_is_sent_as_a_file(registry: Registry, data_dir: Path) -> None:
    async with node(data_dir, registry) as server:
        items = await ask(server, ImageExport(image_id(SPEC), "docker", "app:1"))

    content = b"".join(body for _, body in items)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert "manifest.json" in tar.getnames()
    assert items[-1][0] == TransferEvent("done", size_bytes=len(content))


@pytest.mark.parametrize(
    ("record", "code", "words"),
    [
        (ImagePush(image_id(SPEC), "PLACE/app:1", USER, "wr0ng"), "forbidden", "check the password"),
        (ImagePush(image_id(SPEC), "127.0.0.1:1/app:1"), "unavailable", "cannot be reached"),
        (ImagePush(image_id(SPEC), "-x"), "invalid", "is no name"),
        (ImagePush("im-" + "0" * 32, "PLACE/app:1"), "not_found", "has no image"),
        (ImageExport("../secrets"), "not_found", "has no image"),
        (ImageExport(image_id(SPEC), "zip"), "invalid", "no form"),
    ],
)
async def test_what_cannot_be_done_is_told(
    registry: Registry, data_dir: Path, record: ImagePush | ImageExport, code: str, words: str
) -> None:
    registry.trust("127.0.0.1:1")
    if isinstance(record, ImagePush):
        record = ImagePush(
            record.image_id, record.target.replace("PLACE", registry.place), record.username, record.password
        )

    async with node(data_dir, registry) as server:
        with pytest.raises(PlatformError, match=words) as caught:
            await ask(server, record)

    assert caught.value.code == code
    assert "wr0ng" not in str(caught.value)


async def test_transfer_that_nobody_waits_for_ends_and_leaves_nothing(registry: Registry, data_dir: Path) -> None:
    registry.stop()
    registry.has_password = False
    registry.start()
    with gate(registry, "stall") as place:
        async with node(data_dir, registry) as server:
            stream = server.peer.stream("NodeImagePush", ImagePush(image_id(SPEC), f"{place.place}/app:1"))
            await asyncio.to_thread(place.has_torn.wait, 30)
            stream.cancel()
            await until(lambda: not os.listdir(data_dir / "layers/.scratch"))
