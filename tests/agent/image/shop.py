"""A builder on the fake runtime, with a base; and what its tests say again and again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from squall.agent.image.builder import STEP_BYTES_MAX, ImageBuilder
from squall.agent.image.definitions import Definitions
from squall.agent.image.layer.holds import LayerHolds
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import MachineSettings
from squall.agent.image.making import Secrets
from squall.agent.image.progress import BuiltImage
from squall.protocol import image, image_steps
from squall.protocol.image import BuildEvent, ImageSpec, ImageStep
from squall.runtime.fake import FakeMachine, FakeProcess, FakeRuntime
from squall.runtime.spec import ContainerSpec, IdRange, NetworkSlot

Step = Callable[[ContainerSpec], Awaitable[int]]


class CountingNetwork:
    """Hands out slots and knows which are out."""

    def __init__(self) -> None:
        self.held: set[str] = set()

    async def acquire(self, container_id: str) -> NetworkSlot:
        self.held.add(container_id)
        return NetworkSlot(container_id, "/netns", "10.0.0.2/24", "10.0.0.1", "", {"http_proxy": "http://slot:1"})

    async def release(self, slot: NetworkSlot) -> None:
        self.held.remove(slot.name)


class Shop:
    """A builder on a machine whose only program is the shell; `step` says what it does."""

    def __init__(self, data_dir: Path, *, is_packed: bool = False) -> None:
        self.data_dir = data_dir
        self.store = LayerStore(data_dir, is_packed=is_packed)
        self.network = CountingNetwork()
        self.specs: list[ContainerSpec] = []
        self.step: Step = self.write_a_file
        self.machine = FakeMachine({"sh": self._shell, "bash": self._shell})
        self.builder: ImageBuilder
        self.holds = LayerHolds(self.store)
        self.says = ""

    async def _shell(self, process: FakeProcess) -> int:
        await asyncio.sleep(0)
        spec = next(one.spec for one in self.machine.containers.values() if one.first.process is process)
        self.specs.append(spec)
        await process.write(f"line of {len(self.specs)}\n{self.says}".encode())
        return await self.step(spec)

    async def write_a_file(self, spec: ContainerSpec) -> int:
        upper = Path(spec.state_dir, "rw/upper")
        upper.mkdir(parents=True)
        (upper / f"file-{len(self.specs)}").write_text("x")
        return 0

    async def build(
        self,
        *steps: ImageStep,
        events: list[BuildEvent] | None = None,
        secrets: Secrets | None = None,
        run_id: str = "",
    ) -> BuiltImage:
        on_event = (events if events is not None else list[BuildEvent]()).append
        return await asyncio.wait_for(self.builder.build(make_spec(*steps), on_event, secrets, run_id), 20)

    async def keep(self, *steps: ImageStep) -> BuiltImage:
        """Build an image that others can name."""
        definitions = Definitions(self.data_dir)
        definitions.prepare()
        definitions.save(make_spec(*steps))
        return await self.build(*steps)

    def leftovers(self) -> object:
        return (os.listdir(self.data_dir / "layers/.scratch"), self.network.held, self.machine.containers)


NOTHING: object = ([], set(), {})
RUN = image_steps.run_commands(("make it",))


def make_spec(*steps: ImageStep) -> ImageSpec:
    return ImageSpec((image_steps.debian_slim("3.11"), *steps))


@asynccontextmanager
async def open_shop(
    data_dir: Path,
    *,
    ranges: int = 2,
    step_timeout_s: float = 10,
    step_bytes_max: int = STEP_BYTES_MAX,
    more_facts: Mapping[str, str] | None = None,
    is_packed: bool = False,
    fetched: Callable[[str], BuiltImage | None] = lambda image_id: None,
    settings: MachineSettings | None = None,
    discard: Callable[[Path], None] = lambda path: None,
) -> AsyncIterator[Shop]:
    shop = Shop(data_dir, is_packed=is_packed)
    with shop.store.scratch() as scratch:
        (scratch.path / "fs/srv").mkdir(parents=True)
        facts = {"suite": "bookworm", "python_path": "/usr/bin/python3", "python_version": "3.11.2"}
        facts.update(more_facts or {})
        key = image.cache_key("", image_steps.debian_slim("3.11"))
        shop.store.commit(scratch, scratch.path / "fs", key, facts, replaces=False)
    async with FakeRuntime(shop.machine) as runtime:
        shop.builder = ImageBuilder(
            runtime=runtime,
            network=shop.network,
            store=shop.store,
            settings=settings or MachineSettings(proxies={"http_proxy": "http://machine:1"}),
            data_dir=data_dir,
            id_ranges=[IdRange(65_536 * number) for number in range(1, ranges + 1)],
            mount_path=lambda mount_id: str(data_dir / "mounts" / mount_id),
            uv_path="/usr/bin/uv",
            step_timeout_s=step_timeout_s,
            step_bytes_max=step_bytes_max,
            holds=shop.holds,
            fetched=fetched,
            discard=discard,
        )
        async with shop.builder:
            yield shop
        await shop.machine.close()


def make_mount(shop: Shop, name: str, path: str, mode: int = 0o644) -> None:
    place = shop.data_dir / "mounts" / name / path
    place.parent.mkdir(parents=True)
    place.write_text(path)
    place.chmod(mode)
