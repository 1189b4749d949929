"""The runtime over a spawner: connects to the one of a state directory, or starts it."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any

import squall
from squall.runtime import codec
from squall.runtime.contract import ExecStarted, Started, TemplateReport
from squall.runtime.errors import DescriptorsLost, RuntimeFailure, SpawnerGone
from squall.runtime.spec import ContainerSpec, ContainerStatus, ContainerUsage, ExecSpec, ExitStatus, IdRange, Volume
from squall.runtime.sweep import socket_path
from squall.runtime.wire import (
    DESCRIPTORS_MAX,
    EXIT_DIED,
    EXIT_HELD,
    PROTOCOL_VERSION,
    RECEIVE_BYTES,
    FrameReader,
    encode_frame,
    failure_from_json,
)

PATIENCE_S = 30.0
"""How long spawners may die, or not be there yet, until the one who opens the runtime gives up."""
PAUSE_S, PAUSE_S_MAX = 0.05, 1.0
"""Before it is tried again: at first, and at most."""
LAUNCH_TIMEOUT_S = 30.0
HELLO_TIMEOUT_S = 10.0
END_TIMEOUT_S = 10.0


# Inside the class below, `list` is the method of the contract.
Descriptors = list[int]


class SpawnerRuntime:
    """`contract.Runtime` by a spawner process. Leaving the context lets go of the spawner; it and the containers go on.

    When the spawner dies, every pending and later request raises `RuntimeFailure`, and so does `exits`.
    """

    def __init__(self, connection: socket.socket, state_dir: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._state_dir = state_dir
        self._reader = FrameReader()
        self._outgoing: deque[memoryview] = deque()
        self._request_ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[tuple[Any, Descriptors | None]]] = {}
        self._exits: asyncio.Queue[tuple[str, ExitStatus] | None] = asyncio.Queue()
        self._failure: RuntimeFailure | None = None
        self.spawner_pid = 0
        self._loop.add_reader(connection.fileno(), self._on_readable)

    @classmethod
    async def open(cls, state_dir: str, instance: str, *, idle_s: float = 60.0) -> SpawnerRuntime:
        """Connect to the spawner of a state directory, starting it when there is none.

        One that is killed on its way up, or before it has said who it is, is no reason to give up, nor is one that
        somebody else has begun to start and that still sweeps: within `PATIENCE_S` it is tried again.

        Args:
            state_dir: where the spawner keeps socket, lock and records; at most about 90 characters.
            instance: name of this installation, part of the names of its cgroups.
            idle_s: a spawner started here ends after so long without a running container and without an agent.

        Raises:
            RuntimeFailure: it cannot be started (with its reason), speaks another version, or does not answer.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        pause_s = PAUSE_S
        while True:
            try:
                return await cls._open_once(state_dir, instance, idle_s)
            except SpawnerGone as error:
                if loop.time() > deadline:
                    raise RuntimeFailure(
                        f"cannot open the spawner in {state_dir}: not within {PATIENCE_S:g} s: {error.message}"
                    ) from error
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S_MAX)

    @classmethod
    async def _open_once(cls, state_dir: str, instance: str, idle_s: float) -> SpawnerRuntime:
        connection = _connect(state_dir)
        if connection is None:
            await _launch(state_dir, instance, idle_s)
            connection = _connect(state_dir)
        if connection is None:
            raise SpawnerGone(f"it does not listen at {socket_path(state_dir)}; see spawner.log")
        runtime = cls(connection, state_dir)
        try:
            await runtime._greet(instance)
        except BaseException:
            await runtime.close()
            raise
        return runtime

    async def _greet(self, instance: str) -> None:
        """Find out who listens."""
        try:
            hello, _ = await asyncio.wait_for(self._request("hello"), HELLO_TIMEOUT_S)
        except TimeoutError:
            raise RuntimeFailure(
                f"cannot use the spawner in {self._state_dir}: it does not answer after {HELLO_TIMEOUT_S:g} s; "
                "wait until the machine is less busy, or kill it, and its containers with it"
            ) from None
        if hello["version"] != PROTOCOL_VERSION or hello["instance"] != instance:
            raise RuntimeFailure(
                f"cannot use the spawner in {self._state_dir} (process {hello['pid']}): it speaks version "
                f"{hello['version']} for instance {hello['instance']}, wanted is {PROTOCOL_VERSION} for "
                f"{instance}; stop its containers, or end it with `shutdown`"
            )
        self.spawner_pid = hello["pid"]

    async def __aenter__(self) -> SpawnerRuntime:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_lost(self) -> bool:
        """The spawner, or the connection to it, is gone."""
        return self._failure is not None

    async def close(self) -> None:
        """Disconnect. Idempotent; what is pending fails."""
        self._disconnect(RuntimeFailure("the connection to the spawner was closed"))

    async def start(self, spec: ContainerSpec) -> Started:
        """See `contract.Runtime`."""
        with_outputs = self._request("start", spec=codec.to_json(spec))
        return _started(*await self._or_removed(spec.container_id, with_outputs))

    async def template_report(self, container_id: str) -> TemplateReport:
        """See `contract.Runtime`."""
        result, _ = await self._request("template_report", container_id=container_id)
        return codec.template_report(result)

    async def prepare(self, spec: ContainerSpec, *, is_parked: bool) -> None:
        """See `contract.Runtime`."""
        await self._request("prepare", spec=codec.to_json(spec), is_parked=is_parked)

    async def begin(self, container_id: str, env: Mapping[str, str], volumes: Sequence[Volume] = ()) -> Started:
        """See `contract.Runtime`."""
        versions = [codec.to_json(one) for one in volumes]
        with_outputs = self._request("begin", container_id=container_id, env=dict(env), volumes=versions)
        return _started(*await self._or_removed(container_id, with_outputs))

    async def save(self, template_id: str, directory: str, file_bytes_max: int = 0) -> None:
        """See `contract.Runtime`."""
        limits = {"file_bytes_max": file_bytes_max}
        await self._request("save", container_id=template_id, directory=directory, **limits)

    async def make_network_namespaces(self, id_range: IdRange, uid: int, count: int) -> Sequence[int]:
        """See `contract.Runtime`."""
        parameters = {"id_range": codec.to_json(id_range), "uid": uid, "count": count}
        _, descriptors = await self._request("make_network_namespaces", **parameters)
        return descriptors

    async def kill(self, container_id: str, signal: int) -> None:
        """See `contract.Runtime`."""
        await self._request("kill", container_id=container_id, signal=int(signal))

    async def exec(self, container_id: str, spec: ExecSpec) -> ExecStarted:
        """See `contract.Runtime`."""
        result, given = await self._request("exec", container_id=container_id, spec=codec.to_json(spec))
        for descriptor in given:
            os.set_blocking(descriptor, False)
        stdin_fd, stdout_fd, stderr_fd = (given[0],) * 3 if len(given) == 1 else given
        return ExecStarted(result["exec_id"], result["pid"], stdin_fd, stdout_fd, stderr_fd)

    async def wait_exec(self, exec_id: str) -> ExitStatus:
        """See `contract.Runtime`."""
        result, _ = await self._request("wait_exec", exec_id=exec_id)
        return codec.exit_status(result)

    async def adopt(self, container_id: str) -> Started:
        """See `contract.Runtime`."""
        return _started(*await self._request("adopt", container_id=container_id))

    async def list(self) -> Sequence[ContainerStatus]:
        """See `contract.Runtime`."""
        result, _ = await self._request("list")
        return [codec.container_status(values) for values in result]

    async def usage(self, container_id: str) -> ContainerUsage:
        """See `contract.Runtime`."""
        result, _ = await self._request("usage", container_id=container_id)
        return codec.usage(result)

    async def freeze(self, container_id: str) -> None:
        """See `contract.Runtime`."""
        await self._request("freeze", container_id=container_id)

    async def thaw(self, container_id: str) -> None:
        """See `contract.Runtime`."""
        await self._request("thaw", container_id=container_id)

    async def swap_volume(self, container_id: str, volume: Volume) -> None:
        """See `contract.Runtime`."""
        await self._request("swap_volume", container_id=container_id, volume=codec.to_json(volume))

    async def remove(self, container_id: str) -> None:
        """See `contract.Runtime`."""
        await self._request("remove", container_id=container_id)

    async def drop_removed_layers(self) -> None:
        """See `contract.Runtime`."""
        await self._request("drop_removed_layers")

    async def shutdown(self) -> None:
        """Remove every container and end the spawner: its process is gone then. The connection is of no use afterwards.

        Raises:
            RuntimeFailure: it said that it would end, and has not.
        """
        process = _find_process(self.spawner_pid)
        try:
            await self._request("shutdown")
            if process is not None:
                await self._ended(process)
        finally:
            if process is not None:
                os.close(process)

    async def _ended(self, process: int) -> None:
        """Return when a process has ended. It answers, and then has a socket to remove and its memory to give back."""
        ended = asyncio.Event()
        self._loop.add_reader(process, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), END_TIMEOUT_S)
        except TimeoutError:
            raise RuntimeFailure(
                f"cannot end the spawner in {self._state_dir}: process {self.spawner_pid} is still there after "
                f"{END_TIMEOUT_S:g} s, though its containers are gone; kill it"
            ) from None
        finally:
            self._loop.remove_reader(process)

    async def exits(self) -> AsyncIterator[tuple[str, ExitStatus]]:
        """See `contract.Runtime`. For one consumer.

        Raises:
            RuntimeFailure: the spawner has died, or the connection was closed.
        """
        while True:
            item = await self._exits.get()
            if item is None:
                assert self._failure is not None, "the end of the queue has a reason"
                raise self._failure
            yield item

    async def _request(self, method: str, **parameters: Any) -> tuple[Any, Descriptors]:
        if self._failure is not None:
            raise type(self._failure)(f"cannot {method}: {self._failure.message}")
        request_id = next(self._request_ids)
        frame = encode_frame({"request_id": request_id, "method": method, **parameters})
        future: asyncio.Future[tuple[Any, Descriptors | None]] = self._loop.create_future()
        self._pending[request_id] = future
        self._outgoing.append(memoryview(frame))
        if len(self._outgoing) == 1:
            self._flush()
        try:
            result, descriptors = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                # The answer has come just before.
                _close(future.result()[1])
            raise
        if descriptors is None:
            raise DescriptorsLost(
                f"cannot {method}: the kernel has not let this process have the descriptors of the answer, most likely "
                "since it has as many files open as it may; raise its limit (ulimit -n, LimitNOFILE=)"
            )
        return result, descriptors

    async def _or_removed(
        self, container_id: str, answer: Coroutine[Any, Any, tuple[Any, Descriptors]]
    ) -> tuple[Any, Descriptors]:
        """The answer to what lets a container begin; one that runs, and whose output nobody has, is removed."""
        try:
            return await answer
        except DescriptorsLost:
            await self.remove(container_id)
            raise

    def _flush(self) -> None:
        try:
            while self._outgoing:
                sent = self._connection.send(self._outgoing[0])
                if sent < len(self._outgoing[0]):
                    self._outgoing[0] = self._outgoing[0][sent:]
                else:
                    self._outgoing.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._connection.fileno(), self._flush)
        except OSError as error:
            self._disconnect(self._death(error.strerror or ""))
        else:
            self._loop.remove_writer(self._connection.fileno())

    def _on_readable(self) -> None:
        try:
            data, descriptors, flags, _ = socket.recv_fds(self._connection, RECEIVE_BYTES, DESCRIPTORS_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            self._disconnect(self._death(error.strerror or ""))
            return
        if not data:
            self._disconnect(self._death("it closed the connection"))
            return
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        frames: deque[tuple[dict[str, Any], Descriptors | None]] = deque()
        try:
            frames.extend(self._reader.feed(data, descriptors, is_cut=bool(flags & socket.MSG_CTRUNC)))
            while frames:
                self._on_message(*frames[0])
                frames.popleft()
        except Exception as error:  # noqa: BLE001  all who wait would wait for ever
            for _, given in frames:
                _close(given)
            cause = f"it says what cannot be read ({type(error).__name__}: {error})"
            failure = RuntimeFailure(f"the connection to the spawner in {self._state_dir} is of no use: {cause}")
            self._disconnect(failure)

    def _on_message(self, message: dict[str, Any], descriptors: Descriptors | None) -> None:
        if message.get("event") == "exit":
            self._exits.put_nowait((message["container_id"], codec.exit_status(message["exit_status"])))
            return
        # First: whoever waits for an answer that cannot be read is to fail with all others.
        failure = failure_from_json(message["error"]) if "error" in message else None
        result = message["result"] if failure is None else None
        future = self._pending.pop(message.get("request_id", 0), None)
        if future is None or future.done():
            # The caller was cancelled meanwhile. What it would own is closed; the container is in `list`.
            _close(descriptors)
        elif failure is not None:
            future.set_exception(failure)
        else:
            future.set_result((result, descriptors))

    def _death(self, cause: str) -> SpawnerGone:
        return SpawnerGone(
            f"the spawner in {self._state_dir} is gone ({cause}), and its containers with it; open the runtime again"
        )

    def _disconnect(self, failure: RuntimeFailure) -> None:
        if self._failure is not None:
            return
        self._failure = failure
        self._loop.remove_reader(self._connection.fileno())
        self._loop.remove_writer(self._connection.fileno())
        self._connection.close()
        self._reader.close()
        self._outgoing.clear()
        pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(failure)
        self._exits.put_nowait(None)


def _close(descriptors: Descriptors | None) -> None:
    for descriptor in descriptors or ():
        os.close(descriptor)


def _find_process(pid: int) -> int | None:
    """A descriptor that can be read when the process has ended; None when it has already, or cannot be watched."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _started(result: dict[str, Any], descriptors: list[int]) -> Started:
    stdout_fd, stderr_fd = descriptors
    env, cwd = result.get("env", {}), result.get("cwd", "")
    bucket_pids = tuple(result.get("bucket_pids", ()))
    return Started(result["pid"], stdout_fd, stderr_fd, result["phase_ms"], env, cwd, bucket_pids)


def _connect(state_dir: str) -> socket.socket | None:
    """A connection to the spawner, or None when none listens."""
    path = socket_path(state_dir)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Where a spawner takes no connections, the next one would wait for ever, and the loop with it.
    connection.setblocking(False)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            return None
        if isinstance(error, BlockingIOError):
            raise SpawnerGone(f"the spawner at {path} has stopped taking connections") from error
        raise RuntimeFailure(f"cannot connect to the spawner at {path}: {error.strerror}") from error
    return connection


async def _launch(state_dir: str, instance: str, idle_s: float) -> None:
    """Start a spawner, and return when it listens.

    Raises:
        SpawnerGone: it was killed before, or another one is alive.
        RuntimeFailure: it cannot be started, and says why.
    """
    source = os.path.dirname(os.path.dirname(os.path.abspath(squall.__file__)))
    # -S: it needs nothing but the standard library and us, and stays smaller without site-packages.
    argv = [sys.executable, "-S", "-m", "squall.runtime.spawner"]
    argv += ["--state", state_dir, "--instance", instance, "--idle-s", str(idle_s)]
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.defpath, "PYTHONPATH": source},
    )
    try:
        _, errors = await asyncio.wait_for(process.communicate(), LAUNCH_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise RuntimeFailure(f"cannot start the spawner in {state_dir}: not ready after {LAUNCH_TIMEOUT_S} s") from None
    if process.returncode is None or process.returncode < 0 or process.returncode == EXIT_DIED:
        raise SpawnerGone("it was killed on its way up")
    if process.returncode == EXIT_HELD:
        # Of another agent, and still sweeping; or an idle one that is just leaving.
        raise SpawnerGone(f"a process holds {state_dir}/spawner.lock and does not listen")
    if process.returncode:
        # The last line says it; a traceback may come before.
        said = errors.decode(errors="replace").strip().rpartition("\n")[2]
        raise RuntimeFailure(f"cannot start the spawner in {state_dir}: {said}")
