"""A machine in memory with its agents, one after the other, and their server: what tests of whole agents begin with."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from squall.agent.agent import Agent
from squall.agent.config import PLAIN
from squall.agent.image.block.stored import StoredImages
from squall.protocol import codec as wire
from squall.protocol.channel.stream import connect_unix
from squall.protocol.empty import Empty
from squall.protocol.frames import Frame
from squall.protocol.guest import ENV_CONTAINER_ID, ENV_TEMPLATE, ENV_TOKEN, GuestHello
from squall.protocol.ids import new_id
from squall.protocol.image import BuildEvent, ImageBuild, ImageSpec, image_id
from squall.protocol.image_steps import debian_slim
from squall.protocol.node import ContainerEnd, ContainerStart, ContainerStarted
from squall.runtime.contract import TemplateReport
from squall.runtime.fake import FakeMachine, FakeProcess, FakeRuntime
from tests.agent.parts import CODEC, BuiltImages, Inbox, ServerEnd, Slots, make_config

SPEC = ImageSpec((debian_slim("3.11"),))


class World:
    """A machine, its agents one after the other, and their server."""

    def __init__(self, data_dir: Path, layer: Path) -> None:
        self.data_dir = data_dir
        self.server = ServerEnd()
        self.slots = Slots()
        self.images = BuiltImages(layer)
        self.machine = FakeMachine({"python3": self.guest})
        self.stored: StoredImages | None = None
        self.agent: Agent
        self.inboxes: list[Inbox] = []
        self.now = 1.0
        self.templates: list[FakeProcess] = []
        """All that were started, one after the other."""
        self.report: TemplateReport | None = TemplateReport(is_ready=True, memory_bytes=20 * 2**20)
        """What templates say of themselves; None: they end without a word."""
        self.may_report = asyncio.Event()
        self.may_report.set()

    async def guest(self, process: FakeProcess) -> int:
        """A guest that introduces itself, prints, answers once when it gets inputs, and runs until it is told
        otherwise; or a template."""
        if ENV_TEMPLATE in process.env:
            return await self.template(process)
        await process.write(b"hello from the guest\n")
        container_id = process.env[ENV_CONTAINER_ID]
        path = self.directory_of(process) / "agent" / "agent.sock"
        while True:
            with contextlib.suppress(OSError):
                channel, inbox = await connect_unix(str(path)), Inbox()
                self.inboxes.append(inbox)
                channel.start(inbox)
                hello = GuestHello(process.env[ENV_TOKEN], "guest", container_id, "0", 1)
                channel.send(Frame(CODEC.encode(wire.EVENT, 0, "GuestHello", hello), b""))
                has_answered = False
                try:
                    while inbox.reason is None:
                        if not has_answered and any(b"Inputs" in frame.header for frame in inbox.frames):
                            has_answered = True
                            channel.send(Frame(CODEC.encode(wire.EVENT, 0, "Outputs", None), b""))
                        if any(b"Exit" in frame.header for frame in inbox.frames):
                            await process.write(b"last words\n")
                            return 7
                        await asyncio.sleep(0.005)
                finally:
                    channel.close()
            await asyncio.sleep(0.01)

    def directory_of(self, process: FakeProcess) -> Path:
        """That of the container a process is the first of."""
        found = (one.spec for one in self.machine.containers.values() if one.first.process is process)
        return Path(next(found).state_dir)

    async def template(self, process: FakeProcess) -> int:
        """Says what `report` is, when `may_report` is set, and waits to be forked."""
        self.templates.append(process)
        await process.write(b"hello from the template\n")
        await self.may_report.wait()
        if self.report is None:
            return 1
        process.report.set_result(self.report)
        await asyncio.sleep(1_000 if self.report.is_ready else 0)
        return 0

    @contextlib.asynccontextmanager
    async def running(self, **changes: Any) -> AsyncIterator[Agent]:
        """One agent, from its start to its end. It makes no templates unless it is told to."""
        config = make_config(self.data_dir, **{"start_path": PLAIN, **changes})
        runtime = FakeRuntime(self.machine)
        connect = (self.server.connect, self.server.connect_container)
        images = (self.slots, self.images)
        async with Agent(config, runtime, *images, CODEC, *connect, now=lambda: self.now, stored=self.stored) as agent:
            self.agent = agent
            if not self.server.is_down:
                await asyncio.wait_for(agent.wait_connected(), 10)
            yield agent
        await runtime.close()

    async def build(self) -> list[BuildEvent]:
        stream = self.server.peer.stream("NodeImageBuild", ImageBuild(SPEC))
        return [record async for record, _ in stream.items(BuildEvent)]

    async def start(self, **changes: Any) -> ContainerStart:
        request = replace(make_start(), **changes)
        await self.server.peer.request("ContainerStart", request, ContainerStarted)
        return request

    async def ask(self, **changes: Any) -> ContainerStarted:
        """Start a container; returns the answer."""
        return await self.server.peer.request("ContainerStart", replace(make_start(), **changes), ContainerStarted)

    async def end(self, container_id: str, grace_s: float = 0.0) -> None:
        await self.server.peer.request("ContainerEnd", ContainerEnd(container_id, grace_s), Empty)

    def left(self) -> list[str]:
        """What of containers is left anywhere."""
        folders = [path.name for name in ("containers", "removed") for path in (self.data_dir / name).iterdir()]
        return [*folders, *self.slots.held, *self.machine.containers]


def make_start() -> ContainerStart:
    return ContainerStart(new_id("ct"), "ap-00000001", "fu-00000001", image_id(SPEC))
