"""Start containers in tests and read what they say."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squall.runtime.contract import Runtime, Started
from squall.runtime.errors import RuntimeFailure
from squall.runtime.spec import NAMESPACES, ContainerSpec, ExecSpec, ExitStatus, IdRange

TIMEOUT_S = 20.0
READ_PAUSE_S = 0.002
POLL_S = 0.01
# Far from any range that the machine or another suite hands out.
FIRST_ID = 0x6000_0000
RANGE_SIZE = 65_536
ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Ended:
    """What a container did."""

    status: ExitStatus
    stdout: str
    stderr: str


class Output:
    """Everything read from a descriptor so far."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.text = ""

    async def read_until(self, wanted: str) -> str:
        """Read until the text appears."""
        async with asyncio.timeout(TIMEOUT_S):
            while wanted not in self.text:
                assert await self._read(), f"ended without {wanted!r}: {self.text!r}"
        return self.text

    async def read_all(self, timeout_s: float = TIMEOUT_S) -> str:
        """Read to the end."""
        async with asyncio.timeout(timeout_s):
            while await self._read():
                pass
        return self.text

    async def _read(self) -> bool:
        while True:
            try:
                data = os.read(self.descriptor, 65_536)
            except BlockingIOError:
                await asyncio.sleep(READ_PAUSE_S)
                continue
            except OSError:
                return False  # EIO: the other side of a terminal is gone
            self.text += data.decode(errors="replace")
            return bool(data)


class Running:
    """A started container; `close` it to close its descriptors."""

    def __init__(self, container_id: str, started: Started) -> None:
        self.container_id = container_id
        self.pid = started.pid
        self.phase_ms = started.phase_ms
        self.bucket_pids = started.bucket_pids
        self.stdout = Output(started.stdout_fd)
        self.stderr = Output(started.stderr_fd)

    def close(self) -> None:
        os.close(self.stdout.descriptor)
        os.close(self.stderr.descriptor)


class Containers:
    """Containers of one test on one runtime. `close` removes them all."""

    def __init__(self, runtime: Runtime, base: Path, rootfs: str, isolation: str = NAMESPACES) -> None:
        self.runtime = runtime
        self.isolation = isolation
        self.base = base
        self.rootfs = rootfs
        self.exit_of: dict[str, ExitStatus] = {}
        self._numbers = itertools.count(1)
        self._running: list[Running] = []
        self._exit_told = asyncio.Event()
        self._follower = asyncio.ensure_future(self._follow())

    async def _follow(self) -> None:
        try:
            async for container_id, status in self.runtime.exits():
                self.exit_of[container_id] = status
                self._exit_told.set()
        except RuntimeFailure:
            pass  # closed, or killed, by the test

    def spec(self, *argv: str, **fields: Any) -> ContainerSpec:
        """A spec with a directory and, unless given, an id range of its own."""
        number = next(self._numbers)
        container_id = fields.pop("container_id", f"ct-{number}")
        state_dir = self.base / container_id
        state_dir.mkdir()
        defaults: dict[str, Any] = {
            "container_id": container_id,
            "layers": [self.rootfs],
            "state_dir": str(state_dir),
            "id_range": IdRange(FIRST_ID + number * RANGE_SIZE),
            "argv": argv,
            "env": ENV,
            "isolation": self.isolation,
        }
        return ContainerSpec(**{**defaults, **fields})

    async def start(self, *argv: str, **fields: Any) -> Running:
        """Start a container."""
        return await self.start_spec(self.spec(*argv, **fields))

    async def start_spec(self, spec: ContainerSpec) -> Running:
        """Start a container from a spec."""
        async with asyncio.timeout(TIMEOUT_S):
            running = Running(spec.container_id, await self.runtime.start(spec))
        self._running.append(running)
        return running

    async def exit(self, running: Running) -> ExitStatus:
        """Wait for its end."""
        async with asyncio.timeout(TIMEOUT_S):
            while running.container_id not in self.exit_of:
                self._exit_told.clear()
                await self._exit_told.wait()
        return self.exit_of[running.container_id]

    async def finish(self, running: Running) -> Ended:
        """Read what it says to the end, and wait for it."""
        stdout, stderr = await asyncio.gather(running.stdout.read_all(), running.stderr.read_all())
        return Ended(await self.exit(running), stdout, stderr)

    async def run(self, *argv: str, **fields: Any) -> Ended:
        """Start one and wait for its end."""
        return await self.finish(await self.start(*argv, **fields))

    async def exec(self, running: Running, *argv: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> Ended:
        """Run a program in it to its end."""
        started = await self.runtime.exec(running.container_id, ExecSpec(argv, env or ENV))
        try:
            os.write(started.stdin_fd, stdin)
        finally:
            os.close(started.stdin_fd)
        stdout, stderr = Output(started.stdout_fd), Output(started.stderr_fd)
        await asyncio.gather(stdout.read_all(), stderr.read_all())
        os.close(stdout.descriptor)
        os.close(stderr.descriptor)
        async with asyncio.timeout(TIMEOUT_S):
            return Ended(await self.runtime.wait_exec(started.exec_id), stdout.text, stderr.text)

    async def close(self) -> None:
        """Remove them all and close what was opened."""
        self._follower.cancel()
        await asyncio.wait([self._follower])
        async with asyncio.timeout(TIMEOUT_S):
            for status in await self.runtime.list():
                await self.runtime.remove(status.container_id)
        for running in self._running:
            running.close()


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for something that will be true soon."""
    for _ in range(int(TIMEOUT_S / POLL_S)):
        if is_true():
            return
        await asyncio.sleep(POLL_S)
    raise AssertionError("never came true")


def shell(*lines: str) -> Sequence[str]:
    """A shell script as argv."""
    return ["sh", "-c", "\n".join(lines)]


def processes_of(pid: int) -> list[int]:
    """A process and all below it, whichever of its threads has started them."""
    if not os.path.exists(f"/proc/{pid}"):
        return []
    try:
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(below for text in texts for child in text.split() for below in processes_of(int(child)))]
