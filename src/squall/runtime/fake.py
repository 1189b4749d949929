"""A runtime in memory: the same contract without kernel or root, for tests of what stands on it.

Programs are coroutines of the test process, found by the first word of argv. `FakeMachine` is what outlives an agent;
each `FakeRuntime` is one agent's connection to it.
"""

from __future__ import annotations

import asyncio
import os
import signal as signals
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from squall.runtime.contract import ExecStarted, Started, TemplateReport
from squall.runtime.errors import ContainerExists, ContainerMissing, ProgramMissing, RuntimeFailure, TemplateUnfit
from squall.runtime.spec import ContainerSpec, ContainerStatus, ContainerUsage, ExecSpec, ExitStatus, IdRange, Volume

WRITE_PAUSE_S = 0.002
FIRST_PID = 1_000


class FakeProcess:
    """What a program sees of its container."""

    def __init__(self, pid: int, argv: Sequence[str], env: Mapping[str, str], stdin_fd: int, outputs: tuple[int, int]):
        self.pid = pid
        self.argv = argv
        self.env = env
        self.handled: set[int] = set()
        """Signals the program takes from `signals` itself; others end it."""
        self.signals: asyncio.Queue[int] = asyncio.Queue()
        self.is_oom = False
        """Set by a program before it ends by SIGKILL, to end as one that passed its memory limit."""
        self.report: asyncio.Future[TemplateReport] = asyncio.get_running_loop().create_future()
        """What a program that is a template says of itself, once."""
        self.runnable = asyncio.Event()
        self.runnable.set()
        self._stdin_fd = stdin_fd
        self.outputs = outputs
        """Where stdout and stderr go; closed when it ends, and its children's copies are not."""

    async def write(self, data: bytes, *, is_stderr: bool = False) -> None:
        """Write all of it, waiting while the pipe is full, the container frozen, or nobody reads."""
        descriptor = self.outputs[1 if is_stderr else 0]
        while data:
            await self.runnable.wait()
            try:
                data = data[os.write(descriptor, data) :]
            except BlockingIOError:
                await asyncio.sleep(WRITE_PAUSE_S)

    async def read(self) -> bytes:
        """Some of stdin; empty at its end, which a container's first process is at from the start."""
        while self._stdin_fd >= 0:
            await self.runnable.wait()
            try:
                return os.read(self._stdin_fd, 65_536)
            except BlockingIOError:
                await asyncio.sleep(WRITE_PAUSE_S)
        return b""

    def close(self) -> None:
        """Close its descriptors, as the kernel does at its end."""
        for descriptor in (self._stdin_fd, *self.outputs):
            if descriptor >= 0:
                os.close(descriptor)


Program = Callable[[FakeProcess], Awaitable[int]]


async def _true(_: FakeProcess) -> int:
    return 0


async def _false(_: FakeProcess) -> int:
    return 1


async def _echo(process: FakeProcess) -> int:
    await process.write(" ".join(process.argv[1:]).encode() + b"\n")
    return 0


async def _cat(process: FakeProcess) -> int:
    while data := await process.read():
        await process.write(data)
    return 0


async def _sleep(process: FakeProcess) -> int:
    await asyncio.sleep(float(process.argv[1]))
    return 0


PROGRAMS: Mapping[str, Program] = {"true": _true, "false": _false, "echo": _echo, "cat": _cat, "sleep": _sleep}


@dataclass(frozen=True, slots=True)
class _Running:
    process: FakeProcess
    task: asyncio.Task[int]
    ended: asyncio.Future[ExitStatus]
    ending_signals: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Container:
    spec: ContainerSpec
    first: _Running
    outputs: tuple[int, int]
    execs: list[str] = field(default_factory=list)
    is_told: bool = False
    """Its exit was told to who was connected."""


class FakeMachine:
    """The containers, whoever is connected. Close it in the loop it was used in."""

    def __init__(self, programs: Mapping[str, Program] | None = None) -> None:
        self.programs: dict[str, Program] = {**PROGRAMS, **(programs or {})}
        self.containers: dict[str, _Container] = {}
        self.execs: dict[str, _Running] = {}
        self.prepared: dict[str, ContainerSpec] = {}
        self.parked: set[str] = set()
        """Of the prepared ones those that are forks already."""
        self.prepared_ended: dict[str, ExitStatus] = {}
        """Of the prepared ones those that have ended while they waited."""
        self.agents: list[asyncio.Queue[tuple[str, ExitStatus]]] = []
        self.start_failures: list[RuntimeFailure] = []
        """Raised by the next starts, one each, instead of starting."""
        self.kill_failures: list[RuntimeFailure] = []
        """The same of signals."""
        self.remove_failures: list[RuntimeFailure] = []
        """The same of removals."""
        self.swap_failures: list[RuntimeFailure] = []
        """The same of volumes."""
        self.swaps: list[tuple[str, Volume]] = []
        """Which versions took the place of others, and of what container."""
        self.prepare_failures: list[RuntimeFailure] = []
        self.begin_failures: list[Exception] = []
        """The same of cells, and of those that are to begin: nothing is left of what fails."""
        self.save_failures: list[RuntimeFailure] = []
        """The same of templates that are to be saved."""
        self.memory_bytes: dict[str, int] = {}
        """What containers use, where it is not what the fake says."""
        self._next_pid = FIRST_PID

    def run(self, argv: Sequence[str], env: Mapping[str, str], stdin_fd: int, outputs: tuple[int, int]) -> _Running:
        """Start a program; its descriptors are closed when it ends."""
        program = self.programs[argv[0].rpartition("/")[2]]
        self._next_pid += 1
        process = FakeProcess(self._next_pid, argv, env, stdin_fd, outputs)
        task = asyncio.ensure_future(_call(program, process))
        running = _Running(process, task, asyncio.get_running_loop().create_future())

        def on_done(_: asyncio.Task[int]) -> None:
            # Here and not in the coroutine, which a signal may cancel before it has begun.
            process.close()
            running.ended.set_result(_status(task, running))
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, BrokenPipeError):
                # The fault of who wrote the program: told on the loop, and the container has ended all the same.
                raise error

        task.add_done_callback(on_done)
        return running

    def has_clones(self, template_id: str) -> bool:
        """Whether a template has any that run or are parked."""
        running = (one for one in self.containers.values() if not one.first.ended.done())
        parked = (self.prepared[name] for name in self.parked)
        return any(spec.template_id == template_id for spec in (*(one.spec for one in running), *parked))

    def exit_of(self, container: _Container) -> ExitStatus | None:
        """How a container has ended, if it has: a template has not while it has clones."""
        if not container.first.ended.done() or self.has_clones(container.spec.container_id):
            return None
        return container.first.ended.result()

    def kill_prepared(self, container_id: str) -> None:
        """End what waits to be begun, as somebody on the machine might."""
        status = ExitStatus(code=None, signal=int(signals.SIGKILL))
        self.prepared_ended[container_id] = status
        for agent in self.agents:
            agent.put_nowait((container_id, status))

    async def close(self) -> None:
        """End and remove everything."""
        runtime = FakeRuntime(self)
        for container_id in list(self.containers):
            await runtime.remove(container_id)


async def _call(program: Program, process: FakeProcess) -> int:
    return await program(process)


def _status(task: asyncio.Task[int], running: _Running) -> ExitStatus:
    if task.cancelled():
        number = running.ending_signals[0] if running.ending_signals else int(signals.SIGKILL)
        return ExitStatus(code=None, signal=number, is_oom=running.process.is_oom)
    error = task.exception()
    if isinstance(error, BrokenPipeError):
        return ExitStatus(code=None, signal=signals.SIGPIPE)
    return ExitStatus(code=1 if error is not None else task.result(), signal=None)


class FakeRuntime:
    """`contract.Runtime` on a `FakeMachine`."""

    def __init__(self, machine: FakeMachine) -> None:
        self._machine = machine
        self._exits: asyncio.Queue[tuple[str, ExitStatus]] = asyncio.Queue()
        for container_id, container in machine.containers.items():
            if (status := machine.exit_of(container)) is not None:
                self._exits.put_nowait((container_id, status))
        for container_id, status in machine.prepared_ended.items():
            self._exits.put_nowait((container_id, status))
        machine.agents.append(self._exits)

    async def __aenter__(self) -> FakeRuntime:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Disconnect; the containers go on."""
        if self._exits in self._machine.agents:
            self._machine.agents.remove(self._exits)

    async def start(self, spec: ContainerSpec) -> Started:
        """See `contract.Runtime`."""
        if spec.container_id in self._machine.containers:
            raise ContainerExists(f"cannot start container {spec.container_id}: it exists; remove it first")
        if self._machine.start_failures:
            raise self._machine.start_failures.pop(0)
        if spec.restore_from and not os.path.isdir(f"{spec.restore_from}/images"):
            raise TemplateUnfit(f"cannot bring a template back from {spec.restore_from}: none was saved there whole")
        if spec.template_id:
            await self.prepare(spec, is_parked=False)
            return await self.begin(spec.container_id, spec.env, spec.volumes)
        return self._run(spec)

    async def template_report(self, container_id: str) -> TemplateReport:
        """See `contract.Runtime`."""
        first = self._known(container_id).first
        either: list[asyncio.Future[Any]] = [first.process.report, first.ended]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not first.process.report.done():
            raise ContainerMissing(f"container {container_id} has ended")
        return first.process.report.result()

    async def prepare(self, spec: ContainerSpec, *, is_parked: bool) -> None:
        """See `contract.Runtime`. The fork of a template runs the program that its spec names."""
        known = self._machine.prepared.get(spec.container_id)
        is_new_fork = known is not None and is_parked and spec.container_id not in self._machine.parked
        if spec.container_id in self._machine.containers or (known is not None and not is_new_fork):
            raise ContainerExists(f"cannot prepare container {spec.container_id}: it exists; remove it first")
        if spec.container_id in self._machine.prepared_ended:
            raise ContainerMissing(f"cannot prepare container {spec.container_id}: its cell has ended")
        self._fail(self._machine.prepare_failures, spec.container_id)
        self._check_template(spec)
        self._machine.prepared[spec.container_id] = spec
        if is_parked:
            self._machine.parked.add(spec.container_id)

    async def begin(self, container_id: str, env: Mapping[str, str], volumes: Sequence[Volume] = ()) -> Started:
        """See `contract.Runtime`."""
        if container_id not in self._machine.prepared or container_id in self._machine.prepared_ended:
            raise ContainerMissing(f"no container {container_id} is prepared")
        self._fail(self._machine.begin_failures, container_id)
        spec = self._machine.prepared.pop(container_id)
        if container_id not in self._machine.parked:
            self._check_template(spec)
        self._machine.parked.discard(container_id)
        if [(one.name, one.target) for one in volumes] != [(one.name, one.target) for one in spec.volumes]:
            raise RuntimeFailure(f"cannot begin container {container_id}: it was prepared for other volumes")
        return self._run(replace(spec, env=dict(env), volumes=volumes))

    async def save(self, template_id: str, directory: str, file_bytes_max: int = 0) -> None:
        """See `contract.Runtime`. What is saved is that it was."""
        template = self._machine.containers.get(template_id)
        report = template.first.process.report if template and not template.first.ended.done() else None
        if report is None or not report.done() or not report.result().is_ready:
            raise TemplateUnfit(f"cannot save template {template_id}: it is not ready, or has ended")
        self._fail(self._machine.save_failures, template_id)
        os.mkdir(f"{directory}/images")

    def _fail(self, failures: list[RuntimeFailure] | list[Exception], container_id: str) -> None:
        """Raise the next failure, if there is one."""
        if failures:
            self._machine.prepared.pop(container_id, None)
            self._machine.parked.discard(container_id)
            raise failures.pop(0)

    async def make_network_namespaces(self, id_range: IdRange, uid: int, count: int) -> Sequence[int]:
        """See `contract.Runtime`. Descriptors of nothing."""
        return [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(count)]

    def _check_template(self, spec: ContainerSpec) -> None:
        template = self._machine.containers.get(spec.template_id)
        if template is None or template.first.ended.done():
            raise TemplateUnfit(f"cannot fork container {spec.container_id}: no template {spec.template_id}")
        report = template.first.process.report
        if not report.done() or not report.result().is_ready:
            raise TemplateUnfit(f"cannot fork container {spec.container_id}: {spec.template_id} is not ready")

    def _run(self, spec: ContainerSpec) -> Started:
        if not spec.argv or spec.argv[0].rpartition("/")[2] not in self._machine.programs:
            name = spec.argv[0] if spec.argv else "nothing"
            raise ProgramMissing(f"cannot start container {spec.container_id}: cannot execute {name}: no such program")
        (out_read, out_write), (error_read, error_write) = _pipe(), _pipe()
        first = self._machine.run(spec.argv, spec.env, -1, (out_write, error_write))
        container = _Container(spec, first, (out_read, error_read))
        self._machine.containers[spec.container_id] = container
        first.ended.add_done_callback(lambda _: self._tell_exit(container))
        return _started(container)

    def _tell_exit(self, container: _Container) -> None:
        for name in container.execs:
            _end(self._machine.execs[name], signals.SIGKILL)
        self._tell(container)
        self._tell_template(container.spec)

    def _tell(self, container: _Container) -> None:
        status = self._machine.exit_of(container)
        if status is None or container.is_told:
            return
        container.is_told = True
        for agent in self._machine.agents:
            agent.put_nowait((container.spec.container_id, status))

    def _tell_template(self, clone: ContainerSpec) -> None:
        """A clone is gone: its template's end may be told now."""
        template = self._machine.containers.get(clone.template_id)
        if template is not None:
            self._tell(template)

    async def kill(self, container_id: str, signal: int) -> None:
        """See `contract.Runtime`."""
        container = self._known(container_id)
        if self._machine.kill_failures:
            raise self._machine.kill_failures.pop(0)
        if signal == signals.SIGKILL:
            for name in container.execs:
                _end(self._machine.execs[name], signal)
            for one in [one for one in self._machine.containers.values() if one.spec.template_id == container_id]:
                _end(one.first, signal)
            for name in [
                name for name in self._machine.parked if self._machine.prepared[name].template_id == container_id
            ]:
                self._forget_prepared(name)
        _end(container.first, signal)

    def _forget_prepared(self, container_id: str) -> None:
        spec = self._machine.prepared.pop(container_id, None)
        self._machine.prepared_ended.pop(container_id, None)
        self._machine.parked.discard(container_id)
        if spec is not None:
            self._tell_template(spec)

    async def exec(self, container_id: str, spec: ExecSpec) -> ExecStarted:
        """See `contract.Runtime`. There are no terminals here: with a pty it is pipes all the same."""
        container = self._running(container_id)
        if not spec.argv or spec.argv[0].rpartition("/")[2] not in self._machine.programs:
            raise ProgramMissing(f"in container {container_id}: cannot execute {spec.argv[:1]}: no such program")
        (in_read, in_write), (out_read, out_write), (error_read, error_write) = _pipe(), _pipe(), _pipe()
        running = self._machine.run(spec.argv, spec.env, in_read, (out_write, error_write))
        exec_id = f"{container_id}/{running.process.pid}"
        self._machine.execs[exec_id] = running
        container.execs.append(exec_id)
        return ExecStarted(exec_id, running.process.pid, in_write, out_read, error_read)

    async def wait_exec(self, exec_id: str) -> ExitStatus:
        """See `contract.Runtime`."""
        if exec_id not in self._machine.execs:
            raise ContainerMissing(f"no process {exec_id}: unknown, or its container has been removed")
        return await asyncio.shield(self._machine.execs[exec_id].ended)

    async def adopt(self, container_id: str) -> Started:
        """See `contract.Runtime`."""
        container = self._known(container_id)
        spec = container.spec
        started = _started(container)
        return replace(started, env=dict(spec.env), cwd=spec.cwd) if spec.template_id else started

    async def list(self) -> Sequence[ContainerStatus]:
        """See `contract.Runtime`."""
        return [
            ContainerStatus(
                container_id,
                container.first.process.pid,
                dict(container.spec.labels),
                self._machine.exit_of(container),
            )
            for container_id, container in self._machine.containers.items()
        ] + [
            ContainerStatus(
                container_id,
                0,
                dict(spec.labels),
                self._machine.prepared_ended.get(container_id),
                is_prepared=True,
            )
            for container_id, spec in self._machine.prepared.items()
        ]

    async def usage(self, container_id: str) -> ContainerUsage:
        """See `contract.Runtime`. What is prepared has one process, the first of its cell."""
        if container_id in self._machine.prepared_ended:
            raise ContainerMissing(f"container {container_id} has ended")
        if container_id in self._machine.prepared:
            return ContainerUsage(memory_bytes=self._memory_bytes(container_id, 1), cpu_ns=0, pids=1)
        container = self._known(container_id)
        if self._machine.exit_of(container) is not None:
            raise ContainerMissing(f"container {container_id} has ended")
        execs = [self._machine.execs[name] for name in container.execs]
        count = 1 + sum(1 for running in execs if not running.ended.done())
        return ContainerUsage(memory_bytes=self._memory_bytes(container_id, count), cpu_ns=0, pids=count)

    def _memory_bytes(self, container_id: str, process_count: int) -> int:
        return self._machine.memory_bytes.get(container_id, process_count * 2**20)

    async def freeze(self, container_id: str) -> None:
        """See `contract.Runtime`. A fake program stops at its next read or write."""
        self._running(container_id).first.process.runnable.clear()

    async def thaw(self, container_id: str) -> None:
        """See `contract.Runtime`."""
        self._running(container_id).first.process.runnable.set()

    async def swap_volume(self, container_id: str, volume: Volume) -> None:
        """See `contract.Runtime`."""
        self._running(container_id)
        if self._machine.swap_failures:
            raise self._machine.swap_failures.pop(0)
        self._machine.swaps.append((container_id, volume))

    async def remove(self, container_id: str) -> None:
        """See `contract.Runtime`."""
        if self._machine.remove_failures:
            raise self._machine.remove_failures.pop(0)
        self._forget_prepared(container_id)
        container = self._machine.containers.get(container_id)
        if container is None:
            return
        await self.kill(container_id, signals.SIGKILL)
        execs = [self._machine.execs[name] for name in container.execs]
        await asyncio.wait([container.first.ended, *(running.ended for running in execs)])
        # Another `remove` may have waited beside this one.
        if self._machine.containers.pop(container_id, None):
            for descriptor in container.outputs:
                os.close(descriptor)
            for name in container.execs:
                del self._machine.execs[name]

    async def drop_removed_layers(self) -> None:
        """See `contract.Runtime`. Nothing is mounted here."""

    async def exits(self) -> AsyncIterator[tuple[str, ExitStatus]]:
        """See `contract.Runtime`."""
        while True:
            yield await self._exits.get()

    def _known(self, container_id: str) -> _Container:
        if container_id not in self._machine.containers:
            raise ContainerMissing(f"no container {container_id}")
        return self._machine.containers[container_id]

    def _running(self, container_id: str) -> _Container:
        container = self._known(container_id)
        if container.first.ended.done():
            raise ContainerMissing(f"container {container_id} has ended")
        return container


def _end(running: _Running, signal: int) -> None:
    if running.ended.done():
        return
    if signal in running.process.handled and signal != signals.SIGKILL:
        running.process.signals.put_nowait(signal)
    else:
        running.ending_signals.append(signal)
        running.task.cancel()


def _pipe() -> tuple[int, int]:
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    return read_end, write_end


def _started(container: _Container) -> Started:
    stdout_fd, stderr_fd = (os.dup(descriptor) for descriptor in container.outputs)
    pid = container.first.process.pid
    # Nothing serves its buckets here: its own process stands for what would.
    return Started(pid, stdout_fd, stderr_fd, {"fake": 0.0}, bucket_pids=(pid,) * len(container.spec.buckets))
