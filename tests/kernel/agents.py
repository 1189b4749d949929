"""A real agent for tests: real containers and slots, a server's end in the test, and a guest of a few lines."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from squall.agent.agent import Agent
from squall.agent.config import PLAIN
from squall.agent.image.block.stored import StoredImages
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.known_images import Images
from squall.agent.lasting_runtime import LastingRuntime
from squall.protocol import codec as wire
from squall.protocol.channel.contract import Channel
from squall.protocol.channel.stream import StreamChannel, connect_unix
from squall.protocol.empty import Empty
from squall.protocol.frames import Frame
from squall.protocol.function import NAMESPACES
from squall.protocol.ids import new_id
from squall.protocol.image import BuildEvent, ImageBuild, ImageConfig, ImageSpec, image_id
from squall.protocol.image_steps import debian_slim
from squall.protocol.mount import MountRef
from squall.protocol.node import ContainerEnd, ContainerStart, ContainerStarted
from squall.protocol.peer import Peer
from squall.runtime.client import SpawnerRuntime
from squall.runtime.network.pool import NetworkPool
from tests.agent.parts import CODEC, BuiltImages, Inbox, ServerEnd, make_config, until

SPEC = ImageSpec((debian_slim("3.11"),))
PYTHON = "/usr/bin/python3"

# Answers each event by what its code prints or returns, for as long as there is an agent to talk to.
GUEST = b"""
import os, signal, socket, sys, time
from squall.protocol import codec, guest
from squall.protocol.frames import Frame, FrameDecoder, encode

print("guest is up", os.getpid())
signal.signal(signal.SIGTERM, lambda *_: (print("asked to end"), sys.exit(5)))
json = codec.JsonCodec()
token, container_id = os.environ[guest.ENV_TOKEN], os.environ[guest.ENV_CONTAINER_ID]
is_reconnect = False
while True:
    connection = socket.socket(socket.AF_UNIX)
    hello = guest.GuestHello(token, "guest", container_id, "0", 1, is_reconnect=is_reconnect)
    try:
        connection.connect(guest.SOCKET_PATH)
        # An agent that is killed may have its socket for a moment longer, and takes nothing.
        connection.sendall(encode(Frame(json.encode("ev", 0, "GuestHello", hello), b"")))
    except OSError:
        time.sleep(0.02)
        continue
    is_reconnect = True
    decoder = FrameDecoder()
    while True:
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        if not data:
            break
        for frame in decoder.feed(data):
            names = dict(globals(), result=None)
            exec(frame.body.decode(), names)
            connection.sendall(encode(Frame(json.encode("ev", 0, "Answer", None), str(names["result"]).encode())))
    connection.close()
"""


class Talk:
    """The server's side of a guest's channel."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.inbox = Inbox()
        channel.start(self.inbox)

    def tell(self, code: str) -> None:
        """Run a few lines in the container."""
        self.channel.send(Frame(CODEC.encode(wire.EVENT, 0, "Run", None), code.encode()))

    async def run(self, code: str, timeout_s: float = 20.0) -> str:
        """Run a few lines in the container; they leave what they found in `result`."""
        before = len(self._answers())
        self.tell(code)
        await until(lambda: len(self._answers()) > before, timeout_s)
        return self._answers()[-1].body.decode()

    def _answers(self) -> list[Frame]:
        return [frame for frame in self.inbox.frames if b'"Answer"' in frame.header]

    async def run_until(self, code: str, wanted: str) -> None:
        """Run a few lines until they find what is wanted."""
        async with asyncio.timeout(20):
            found = await self.run(code)
            while found != wanted:
                await asyncio.sleep(0.02)
                found = await self.run(code)


class Node:
    """A data directory, the server of its agents, and containers asked for by it."""

    def __init__(self, data_dir: Path, rootfs: str, isolation: str = NAMESPACES) -> None:
        self.data_dir = data_dir
        self.isolation = isolation
        self.instance = data_dir.name
        self.server = ServerEnd()
        self.guest_mount = self.server.files.add({"guest_double.py": GUEST})
        self.images: Images = BuiltImages(
            Path(rootfs), ImageConfig(python_path=PYTHON, python_version="3.11.2", layers=("ly-base",))
        )
        self.open_stored: Callable[[], AbstractAsyncContextManager[StoredImages | None]] = contextlib.nullcontext
        self.holds: LayerHolds | None = None
        self.agent: Agent
        self.runtime: LastingRuntime
        self.network: NetworkPool
        self.spawner_pids: list[int] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Agent]:
        """One agent of this process."""
        # Their guest is a double, and templates are made by the real one (decision 64).
        config = make_config(self.data_dir, guest_entry="/root/guest_double.py", start_path=PLAIN)
        async with contextlib.AsyncExitStack() as stack:
            self.runtime = await stack.enter_async_context(LastingRuntime(self._open_runtime))
            living = [status.container_id for status in await self.runtime.list()]
            pool = NetworkPool.open(str(self.data_dir / "network"), self.instance, 4, living=living)
            self.network = network = await stack.enter_async_context(pool)
            stored = await stack.enter_async_context(self.open_stored())
            connect = (self.server.connect, self.server.connect_container)
            agent = Agent(config, self.runtime, network, self.images, CODEC, *connect, stored=stored, holds=self.holds)
            self.agent = await stack.enter_async_context(agent)
            await asyncio.wait_for(agent.wait_connected(), 10)
            yield agent

    async def _open_runtime(self) -> SpawnerRuntime:
        opened = await SpawnerRuntime.open(str(self.data_dir / "spawner"), self.instance, idle_s=5)
        self.spawner_pids.append(opened.spawner_pid)
        return opened

    async def build(self) -> None:
        stream = self.server.peer.stream("NodeImageBuild", ImageBuild(SPEC))
        assert [event.kind async for event, _ in stream.items(BuildEvent)][-1] == "built"

    async def start(self, **changes: Any) -> tuple[ContainerStart, ContainerStarted]:
        request = ContainerStart(
            new_id("ct"), "ap-00000001", "fu-00000001", image_id(SPEC), (MountRef(self.guest_mount, "/root"),)
        )
        request = replace(request, **{"isolation": self.isolation, **changes})
        return request, await self.server.peer.request("ContainerStart", request, ContainerStarted)

    async def end(self, container_id: str, grace_s: float = 0.0) -> None:
        await self.server.peer.request("ContainerEnd", ContainerEnd(container_id, grace_s), Empty)

    async def talk(self, index: int = 0) -> Talk:
        """To the guest that connected as this one."""
        await until(lambda: len(self.server.container_channels) > index, 20)
        return Talk(self.server.container_channels[index])

    def left(self) -> list[str]:
        """Folders of containers that are still there."""
        return [path.name for name in ("containers", "removed") for path in (self.data_dir / name).iterdir()]


class SocketServer:
    """The server's end over sockets, for an agent in a process of its own."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.channels: list[StreamChannel] = []
        self.servers: list[asyncio.AbstractServer] = []

    async def __aenter__(self) -> SocketServer:
        loop = asyncio.get_running_loop()
        control, container = (str(self.node.data_dir / f"{name}.sock") for name in ("control", "container"))
        self.servers.append(await loop.create_unix_server(lambda: StreamChannel(self._control), control))
        self.servers.append(await loop.create_unix_server(lambda: StreamChannel(self._container), container))
        return self

    async def __aexit__(self, *error: object) -> None:
        for server in self.servers:
            server.close()
        for channel in self.channels:
            channel.close()
        await asyncio.sleep(0.01)

    def _control(self, channel: StreamChannel) -> None:
        self.channels.append(channel)
        peer = Peer(channel, CODEC, self.node.server)
        self.node.server.peers.append(peer)
        peer.start()

    def _container(self, channel: StreamChannel) -> None:
        self.channels.append(channel)
        self.node.server.container_channels.append(channel)

    @contextlib.asynccontextmanager
    async def agent_process(self, rootfs: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """An agent in a process of its own, known to the server; killed at the end if it still runs."""
        hellos = len(self.node.server.hellos)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.kernel.agents", str(self.node.data_dir), rootfs
        )
        try:
            await until(lambda: len(self.node.server.hellos) > hellos, 20)
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def main(data_dir: str, rootfs: str) -> None:
    """An agent whose server is at the sockets in its data directory; ends on SIGTERM."""
    node = Node(Path(data_dir), rootfs)

    async def connect() -> Channel:
        return await connect_unix(f"{data_dir}/control.sock")

    async def connect_container() -> Channel:
        return await connect_unix(f"{data_dir}/container.sock")

    node.server.connect, node.server.connect_container = connect, connect_container  # type: ignore[method-assign]
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with node.running():
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
