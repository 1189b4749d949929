"""Runs one more process in a container and joins its terminal or pipes to a stream."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from squall.agent.launch import DEFAULT_PATH
from squall.protocol.container import ContainerExec, TerminalInput, TerminalOutput
from squall.protocol.errors import INVALID, NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.guest import ENV_TOKEN
from squall.protocol.request import Request
from squall.protocol.task_set import TaskSet
from squall.runtime.contract import ExecStarted, Runtime
from squall.runtime.errors import ContainerMissing, ProgramMissing, ProgramRefused, RuntimeFailure
from squall.runtime.spec import ExecSpec

TERM = "xterm-256color"
"""What a terminal of ours is, for programs that draw on it."""
READ_BYTES = 64 * 1024
# What still comes when the process has ended; its own children may hold the pipe for ever, and print for ever.
LAST_OUTPUT_S = 1.0
LAST_OUTPUT_BYTES = 2**20
"""As much as a pipe can hold."""
_LOOK_S = 0.05
_END_OF_FILE = b"\x04"
_ENVIRON_BYTES_MAX = 2**20


@dataclass(frozen=True, slots=True)
class Inside:
    """A container in which a command is to run."""

    runtime_id: str
    """What the runtime calls it."""
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = ""
    """What it began with, where its first process does not say it."""


async def serve_exec(runtime: Runtime, request: Request, inside: Inside) -> None:
    """Answer a `NodeExec`: items are what the process prints, the last one its exit code.

    When the stream is given up the process is killed.

    Raises:
        PlatformError: the container is not there. A command that is not ends with 127, as in a shell.
    """
    asked = request.record(ContainerExec)
    if not asked.argv:
        raise PlatformError(INVALID, f"cannot run a command in {asked.container_id}: it is empty")
    first_pid = await _first_pid(runtime, inside.runtime_id)
    await run_in(runtime, request, inside.runtime_id, _spec(asked, inside, first_pid), first_pid)


async def run_in(runtime: Runtime, request: Request, container_id: str, spec: ExecSpec, first_pid: int) -> None:
    """Run a process in a container as `serve_exec` does; `first_pid` is that of the container's first process.

    Raises:
        PlatformError: as `serve_exec`.
    """
    starting = asyncio.ensure_future(_start(runtime, container_id, spec))
    try:
        started = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # Given up while it starts: nobody but us will ever know of the process.
        await _kill_once_started(starting, first_pid)
        raise
    except (ProgramMissing, ProgramRefused) as error:
        await _answer_as_shells_do(request, error, spec.has_pty)
        return
    process_fd = _open_process(started.pid, first_pid)
    for descriptor in _descriptors(started):
        os.set_blocking(descriptor, False)
    session = _Session(request, started, spec.has_pty)
    is_over = False
    try:
        exit_code = await session.run(runtime)
        is_over = True
        await request.send_item(TerminalOutput(exit_code=exit_code))
    finally:
        await session.close()
        if process_fd is not None:
            with _closing(process_fd):
                if not is_over:
                    with contextlib.suppress(OSError):
                        signal.pidfd_send_signal(process_fd, signal.SIGKILL)


async def _kill_once_started(starting: asyncio.Future[ExecStarted], first_pid: int) -> None:
    try:
        started = await starting
    except (PlatformError, RuntimeFailure):
        return
    process_fd = _open_process(started.pid, first_pid)
    if process_fd is not None:
        with _closing(process_fd), contextlib.suppress(OSError):
            signal.pidfd_send_signal(process_fd, signal.SIGKILL)
    for descriptor in _descriptors(started):
        os.close(descriptor)


async def _answer_as_shells_do(request: Request, error: RuntimeFailure, has_pty: bool) -> None:
    """A line and a code: whoever runs commands for others need not tell this failure from one of a shell."""
    line_end = "\r\n" if has_pty else "\n"
    await request.send_item(TerminalOutput("stderr"), f"squall: {error}{line_end}".encode())
    await request.send_item(TerminalOutput(exit_code=127 if isinstance(error, ProgramMissing) else 126))


def _descriptors(started: ExecStarted) -> set[int]:
    """With a terminal all three are one."""
    return {started.stdin_fd, started.stdout_fd, started.stderr_fd}


async def _first_pid(runtime: Runtime, container_id: str) -> int:
    """The container's first process; 0 when it is unknown."""
    for status in await runtime.list():
        if status.container_id == container_id and status.exit_status is None:
            return status.pid
    return 0


def _spec(asked: ContainerExec, inside: Inside, first_pid: int) -> ExecSpec:
    env = {"PATH": DEFAULT_PATH, "HOME": "/root", "LANG": "C.UTF-8"}
    if asked.has_pty:
        env["TERM"] = TERM
    env.update(inside.env or _environ_of(first_pid))
    env.update(asked.env)
    cwd = asked.cwd or inside.cwd or _cwd_of(first_pid)
    return ExecSpec(asked.argv, env, cwd, asked.has_pty, asked.rows, asked.columns)


async def _start(runtime: Runtime, container_id: str, spec: ExecSpec) -> ExecStarted:
    try:
        return await runtime.exec(container_id, spec)
    except ContainerMissing as error:
        message = f"cannot run a command in {container_id}: no such container runs on this node"
        raise PlatformError(NOT_FOUND, message) from error
    except (ProgramMissing, ProgramRefused):
        raise
    except RuntimeFailure as error:
        raise PlatformError(UNAVAILABLE, f"cannot run a command in {container_id}: {error}") from error


class _Session:
    """One running process and the stream it is joined to."""

    def __init__(self, request: Request, started: ExecStarted, has_pty: bool) -> None:
        self._request = request
        self._started = started
        self._has_pty = has_pty
        self._open = _descriptors(started)
        self._carried_bytes = 0
        self._sending = 0
        """Outputs that wait for the reader of the stream."""
        self._tasks = TaskSet()

    async def run(self, runtime: Runtime) -> int:
        """Carry bytes until the process ends; returns its exit code, 128 and the signal's number if one ended it."""
        started = self._started
        self._tasks.start(self._carry_input())
        outputs = [self._tasks.start(self._carry_output(started.stdout_fd, "stdout"))]
        if started.stderr_fd != started.stdout_fd and not self._has_pty:
            outputs.append(self._tasks.start(self._carry_output(started.stderr_fd, "stderr")))
        status = await runtime.wait_exec(started.exec_id)
        await self._carry_last(outputs)
        return status.code if status.code is not None else 128 + (status.signal or 0)

    async def _carry_last(self, outputs: list[asyncio.Future[None]]) -> None:
        """Carry what the process has printed to its end. Time in which the stream's reader is waited for is no part of
        `LAST_OUTPUT_S`: what is in the pipe then is still the process's."""
        left_s, bytes_max = LAST_OUTPUT_S, self._carried_bytes + LAST_OUTPUT_BYTES
        while left_s > 0 and self._carried_bytes <= bytes_max:
            _, pending = await asyncio.wait(outputs, timeout=_LOOK_S)
            if not pending:
                return
            if not self._sending:
                left_s -= _LOOK_S

    async def close(self) -> None:
        """Let go of the process's descriptors."""
        await self._tasks.close()
        for descriptor in list(self._open):
            self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.discard(descriptor)
            os.close(descriptor)

    async def _carry_output(self, descriptor: int, source: str) -> None:
        while data := await _read(descriptor):
            self._carried_bytes += len(data)
            self._sending += 1
            try:
                await self._request.send_item(TerminalOutput(source), data)
            finally:
                self._sending -= 1

    async def _carry_input(self) -> None:
        stdin_fd = self._started.stdin_fd
        async for record, body in self._request.uploads(TerminalInput):
            if record.rows and record.columns and self._has_pty:
                size = struct.pack("HHHH", record.rows & 0xFFFF, record.columns & 0xFFFF, 0, 0)
                with contextlib.suppress(OSError):
                    fcntl.ioctl(stdin_fd, termios.TIOCSWINSZ, size)
            if body and not await _write(stdin_fd, body):
                return
            if record.is_end:
                break
        if self._has_pty:
            await _write(stdin_fd, _END_OF_FILE)
        else:
            self._close(stdin_fd)


async def _ready(descriptor: int, is_for_writing: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if is_for_writing else (loop.add_reader, loop.remove_reader)

    def on_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    add(descriptor, on_ready)
    try:
        await ready
    finally:
        remove(descriptor)


async def _read(descriptor: int) -> bytes:
    """The next bytes; none at the end."""
    while True:
        try:
            return os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            await _ready(descriptor, is_for_writing=False)
        except OSError:
            # A terminal whose other side is closed says EIO.
            return b""


async def _write(descriptor: int, data: bytes) -> bool:
    """Write all; False when nobody reads any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            await _ready(descriptor, is_for_writing=True)
        except OSError:
            return False
    return True


def _open_process(pid: int, first_pid: int) -> int | None:
    """A descriptor by which the process can be killed; None when it is gone, or is not in the container."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    # The number may have passed to another process of the machine before it was opened.
    if _pid_namespace(pid) == _pid_namespace(first_pid) != _pid_namespace(os.getpid()):
        return descriptor
    os.close(descriptor)
    return None


def _pid_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return f"none of {pid}"


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def _environ_of(pid: int) -> Mapping[str, str]:
    """The variables a container's first process was started with."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            raw = file.read(_ENVIRON_BYTES_MAX)
    except OSError:
        return {}
    pairs = (item.partition(b"=") for item in raw.split(b"\0") if b"=" in item)
    env = {os.fsdecode(name): os.fsdecode(value) for name, _, value in pairs}
    # The command is its user's, and may use the SDK as the container does; a second guest it cannot be.
    return env if ENV_TOKEN in env else {}


def _cwd_of(pid: int) -> str:
    """The working directory of a container's first process, as seen inside."""
    try:
        inside = os.path.relpath(os.readlink(f"/proc/{pid}/cwd"), os.readlink(f"/proc/{pid}/root"))
    except OSError:
        return "/"
    return "/" if Path(inside).parts[:1] in ((), ("..",)) else f"/{inside}"
