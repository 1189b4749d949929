"""Guests in containers, for tests that know processes only: what `subprocess.Popen` would give, of a container."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import signal
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from squall.agent.bytecode import run_python
from squall.agent.guest_library import GuestLibrary
from squall.agent.launch import Identity, Provision, container_spec
from squall.agent.ranges import IdRanges
from squall.protocol.guest import CODE_DIR, ENV_CONTAINER_ID, ENV_TEMPLATE, ENV_TOKEN, TEMPLATE_FUNCTION
from squall.protocol.node import ContainerStart
from squall.runtime.client import SpawnerRuntime
from squall.runtime.spec import NAMESPACES, ContainerSpec, NetworkSlot
from tests.agent.parts import make_config
from tests.guest.spawner_double import TEMPLATE, TEMPLATE_TOKEN, ForkedGuest
from tests.guest.started_guest import CONTAINER, Launched
from tests.kernel.containers import TIMEOUT_S, Containers, Running
from tests.kernel.debian import Debian

T = TypeVar("T")


class GuestStarter:
    """Starts guests as the agent does, on an event loop in a thread of its own. `close` ends all of it."""

    def __init__(
        self, data_dir: Path, debian: Debian, stage: str = "", isolation: str = NAMESPACES, *, is_saved: bool = False
    ) -> None:
        """`stage`: they are forks, of templates that go so far. `is_saved`: and that were on disk in between."""
        self._stage = stage
        self.isolation = isolation
        self._is_saved = is_saved
        self._data_dir = data_dir
        self._debian = debian
        self._config = make_config(data_dir)
        self._ranges = IdRanges(data_dir)
        self.threads = ThreadPoolExecutor(max_workers=4)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.runtime: SpawnerRuntime = self.wait(
            SpawnerRuntime.open(str(data_dir / "spawner"), data_dir.name, idle_s=5)
        )
        self._library_dir = self.wait(self._make_library(), 60)
        self.containers: Containers = self.wait(self._open_containers())

    def wait(self, waited: Coroutine[Any, Any, T], timeout_s: float | None = TIMEOUT_S) -> T:
        """What a coroutine returns, run on the loop of the containers."""
        return asyncio.run_coroutine_threadsafe(waited, self._loop).result(timeout_s)

    def __call__(self, directory: Path) -> Launched:
        """A container with the guest, the code in this directory, and the socket there."""
        layer = directory / "layer"
        shutil.copytree(directory / "code", layer / CODE_DIR.strip("/"))
        (directory / "agent" / "agent.sock").chmod(0o666)
        (directory / "state").mkdir()
        spec = self._spec(directory, str(layer))
        return ForkedContainer(self, spec, self._stage, is_saved=self._is_saved) if self._stage else self.start(spec)

    def start(self, spec: ContainerSpec) -> GuestContainer:
        """A container."""
        return GuestContainer(self, self.wait(self.containers.start_spec(spec)))

    def _spec(self, directory: Path, code_layer: str) -> ContainerSpec:
        provision = Provision(
            state_dir=str(directory / "state"),
            socket_dir=str(directory / "agent"),
            library_dir=self._library_dir,
            layers=(self._debian.root, code_layer),
            id_range=self._ranges.acquire("guest"),
            network=NetworkSlot("", "", "", "", ""),
            runtime_id=directory.name,
        )
        request = ContainerStart(CONTAINER, "ap-1", "fu-1", "im-1")
        spec = container_spec(self._config, request, self._debian.image, provision, Identity(CONTAINER, "secret"))
        return replace(spec, network=None, isolation=self.isolation)

    async def _make_library(self) -> str:
        run = functools.partial(run_python, self.runtime, self._ranges, self._data_dir)
        library = GuestLibrary(self._data_dir, self.threads, run)
        library.prepare()
        return await library.get([self._debian.root], self._debian.image, "im-1")

    async def _open_containers(self) -> Containers:
        return Containers(self.runtime, self._data_dir, self._debian.root)

    def close(self) -> None:
        """Leave nothing."""
        self.wait(self.containers.close())
        self.wait(self._close_runtime())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self.threads.shutdown()

    async def _close_runtime(self) -> None:
        async with self.runtime:
            await self.runtime.shutdown()


class GuestContainer:
    """A container as a process: `tests.guest.started_guest.Launched`."""

    def __init__(self, starter: GuestStarter, running: Running) -> None:
        self._starter = starter
        self._running = running
        self.returncode: int | None = None
        for output in (running.stdout, running.stderr):
            os.set_blocking(output.descriptor, True)
        self.stdout = os.fdopen(running.stdout.descriptor, "rb", closefd=False)
        self._stderr = os.fdopen(running.stderr.descriptor, "rb", closefd=False)

    def communicate(self, *, timeout: float | None = None) -> tuple[bytes, bytes]:
        """What is left of its output, read to the end; then it has ended and is gone."""
        reads = [self._starter.threads.submit(stream.read) for stream in (self.stdout, self._stderr)]
        out, err = (read.result(timeout) for read in reads)
        if self.returncode is None:
            status = self._starter.wait(self._starter.containers.exit(self._running), timeout)
            self.returncode = status.code if status.code is not None else -(status.signal or 0)
            self._starter.wait(self._starter.runtime.remove(self._running.container_id))
        return out, err

    def send_signal(self, sig: int) -> None:
        """To its first process, which passes it on."""
        self._starter.wait(self._starter.runtime.kill(self._running.container_id, sig))

    def kill(self) -> None:
        """End all that runs in it."""
        if self.returncode is None:
            self.send_signal(signal.SIGKILL)


class ForkedContainer(ForkedGuest):
    """A container that is a fork of another one."""

    def __init__(self, starter: GuestStarter, spec: ContainerSpec, stage: str, *, is_saved: bool) -> None:
        super().__init__(stage == TEMPLATE_FUNCTION, CONTAINER)
        self._starter = starter
        self._spec = spec
        template_id = f"{spec.container_id}-template"
        state_dir = Path(spec.state_dir).parent / "state-template"
        state_dir.mkdir()
        env = {**spec.env, ENV_CONTAINER_ID: TEMPLATE, ENV_TOKEN: TEMPLATE_TOKEN, ENV_TEMPLATE: stage}
        self._template_spec = replace(
            spec, container_id=template_id, state_dir=str(state_dir), env=env, is_template=True
        )
        self._template = starter.start(self._template_spec)
        self._template_id = template_id
        self._is_to_be_saved = is_saved
        if not self.has_function:
            self._guest = self.fork()

    def fork(self) -> GuestContainer:
        """See `ForkedGuest`."""
        report = self._starter.wait(self._starter.runtime.template_report(self._template_id))
        self.is_fork, self.why_plain = report.is_ready, report.cause
        if self.is_fork and self._is_to_be_saved:
            self._is_to_be_saved = False
            self._save_and_bring_back()
        return self._starter.start(replace(self._spec, template_id=self._template_id) if self.is_fork else self._spec)

    def _save_and_bring_back(self) -> None:
        saved = Path(self._spec.state_dir).parent / "saved"
        saved.mkdir()
        self._starter.wait(self._starter.runtime.save(self._template_id, str(saved)))
        self.end_template()
        self._template = self._starter.start(replace(self._template_spec, restore_from=str(saved)))
        report = self._starter.wait(self._starter.runtime.template_report(self._template_id))
        assert report.is_ready, report.cause

    def end_template(self) -> None:
        """See `ForkedGuest`."""
        if self._template.returncode is None:
            self._template.kill()
            self._template.communicate()
