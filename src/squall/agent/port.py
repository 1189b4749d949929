"""Connects the server to a port of a container: bytes of a TCP connection that begins in the container's network.

    program ◀── connection ──▶ this ◀── stream of `NodePort` ──▶ server

A program that dies ends its connections as one that has said all: the kernel closes them. So at such an end it is
looked whether its container is dying, and then it is none: what was half said never looks whole. Our own death is a
reset, too.

Neither side is read further than the other takes: of the program no more is read than the server has passed on and a
window, of the server no more comes than was written and a window.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from squall.protocol.errors import EXHAUSTED, INVALID, NOT_FOUND, UNAVAILABLE, PlatformError
from squall.protocol.function import GVISOR
from squall.protocol.port import CONNECT_S, CONNECTIONS_MAX, WINDOW_BYTES, NodePort, PortInput, PortOutput
from squall.protocol.request import Request
from squall.protocol.task_set import TaskSet
from squall.runtime.errors import RuntimeFailure
from squall.runtime.network.inside import sockets_inside
from squall.runtime.procfs import is_doomed, program_of
from squall.runtime.spec import NetworkSlot

_RESET, _END = struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)


MakeSockets = Callable[[NetworkSlot], list[tuple[socket.socket, str]]]


class Slots(Protocol):
    """Where a container's network is found; `runtime.network.NetworkPool` is one."""

    def slot_of(self, container_id: str) -> NetworkSlot | None:
        """The slot a container holds."""


class Ports:
    """Connections to ports of this node's containers."""

    def __init__(
        self,
        slots: Slots,
        find: Callable[[str], tuple[str, str, int] | None],
        make_sockets: MakeSockets = sockets_inside,
    ) -> None:
        """`find` gives, of a container that runs, what the runtime calls it, its isolation and its first process."""
        self._slots = slots
        self._make_sockets = make_sockets
        self._find = find
        self._counts: Counter[str] = Counter()
        # Not the loop's: a thread that cannot come back from a namespace must never do anything else.
        self._visitors = ThreadPoolExecutor(1, "squall-port")

    async def serve(self, request: Request) -> None:
        """Answer a `NodePort`: carry bytes until both sides have ended.

        Raises:
            PlatformError: see `NodePort`; `unavailable` also when the program resets the connection.
        """
        asked = request.record(NodePort)
        what = f"cannot connect to port {asked.port} of {asked.container_id}"
        if not 1 <= asked.port <= 65_535:
            raise PlatformError(INVALID, f"{what}: a port is from 1 to 65535")
        found = self._find(asked.container_id)
        slot = None if found is None else self._slots.slot_of(found[0])
        if found is None or slot is None:
            raise PlatformError(NOT_FOUND, f"{what}: no such container runs on this node, or it has no network")
        if self._counts[asked.container_id] >= CONNECTIONS_MAX:
            raise PlatformError(EXHAUSTED, f"{what}: it has {CONNECTIONS_MAX} connections already")
        self._counts[asked.container_id] += 1
        try:
            connected = await self._connect(what, slot, found[1], asked.port)
            # Under gVisor its processes are none of this kernel's.
            pid = 0 if found[1] == GVISOR else found[2]
            await _Carried(request, connected, what, pid).run()
        finally:
            self._counts[asked.container_id] -= 1
            if not self._counts[asked.container_id]:
                del self._counts[asked.container_id]

    async def _connect(self, what: str, slot: NetworkSlot, isolation: str, port: int) -> socket.socket:
        loop = asyncio.get_running_loop()
        if isolation == GVISOR:
            # What it listens at is in a network stack of its own, behind the slot's interface.
            if not slot.address:
                # To connect to no address would be to connect to this machine.
                message = f'without a network nothing reaches a container with isolation="{GVISOR}"'
                raise PlatformError(UNAVAILABLE, f"{what}: {message}; leave out block_network=True")
            places = [(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), slot.address)]
        else:
            try:
                places = await loop.run_in_executor(self._visitors, self._make_sockets, slot)
            except RuntimeFailure as error:
                self._visitors = ThreadPoolExecutor(1, "squall-port")
                raise PlatformError(UNAVAILABLE, f"{what}: {error}") from error
        reasons = []
        connected: socket.socket | None = None
        try:
            for one, address in places:
                try:
                    await asyncio.wait_for(loop.sock_connect(one, (address, port)), CONNECT_S)
                except (TimeoutError, OSError) as error:
                    reasons.append(f"{address}: {error or 'no answer'}")
                else:
                    connected = one
                    return one
        finally:
            for one, _ in places:
                if one is not connected:
                    one.close()
        raise PlatformError(UNAVAILABLE, f"{what}: nothing listens there ({'; '.join(reasons)})")


class _Carried(asyncio.Protocol):
    """One connection and the stream it is joined to."""

    def __init__(self, request: Request, connected: socket.socket, what: str, pid: int) -> None:
        """`pid` is the container's first process; 0 where it is not to be looked at."""
        self._pid = pid
        self._request = request
        self._socket = connected
        self._what = what
        self._transport: Any = None
        self._come: deque[bytes] = deque()
        self._room = WINDOW_BYTES
        """How much more may be sent to the server."""
        self._passed = 0
        """Bytes that the program was given and the server was not told of."""
        self._changed = asyncio.Event()
        self._is_writable = asyncio.Event()
        self._is_writable.set()
        self._has_come_all = self._has_given_all = False
        self._lost: Exception | None = None
        self._is_closed = asyncio.Event()

    async def run(self) -> None:
        """Carry bytes until both sides have ended."""
        loop = asyncio.get_running_loop()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        await loop.create_connection(lambda: self, sock=self._socket)
        tasks = TaskSet()
        try:
            await self._request.send_item(PortOutput())
            tasks.start(self._give())
            await self._take()
            if self._lost is not None:
                raise PlatformError(UNAVAILABLE, f"{self._what}: the connection was reset: {self._lost}")
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _END)
        except BaseException:
            self._transport.abort()
            raise
        finally:
            self._transport.close()
            await tasks.close()

    async def _take(self) -> None:
        """What the program says goes to the server."""
        is_told = False
        while True:
            if self._come and self._room > 0:
                data = self._come.popleft()
                self._room -= len(data)
                self._look()
                await self._request.send_item(PortOutput(passed_bytes=self._told()), data)
            elif self._passed >= WINDOW_BYTES // 4:
                await self._request.send_item(PortOutput(passed_bytes=self._told()))
            elif self._lost is not None:
                return
            elif self._has_come_all and not self._come and not is_told:
                is_told = True
                await self._request.send_item(PortOutput(True, self._told()))
            elif is_told and self._has_given_all:
                return
            else:
                self._changed.clear()
                await self._changed.wait()

    def _told(self) -> int:
        passed, self._passed = self._passed, 0
        return passed

    async def _give(self) -> None:
        """What the server sends goes to the program."""
        async for record, body in self._request.uploads(PortInput):
            if record.passed_bytes > 0:
                self._room += record.passed_bytes
                self._changed.set()
            if body:
                self._transport.write(body)
                await self._is_writable.wait()
                self._passed += len(body)
                if self._passed >= WINDOW_BYTES // 4:
                    self._changed.set()
            if record.is_end and not self._has_given_all:
                self._has_given_all = True
                if self._lost is None and self._transport.can_write_eof():
                    self._transport.write_eof()
                self._changed.set()

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        """Called by the loop."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._come.append(bytes(data))
        self._look()
        self._changed.set()

    def _look(self) -> None:
        is_full = sum(map(len, self._come)) >= WINDOW_BYTES
        if is_full and self._transport.is_reading():
            self._transport.pause_reading()
        elif not is_full and not self._transport.is_reading() and not self._has_come_all:
            self._transport.resume_reading()

    def eof_received(self) -> bool:
        """Called by the loop: the program has ended its side. Ours may go on."""
        if self._pid and _is_dying(self._pid):
            return False
        self._has_come_all = True
        self._changed.set()
        return True

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._is_writable.clear()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._is_writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if exc is not None or not self._has_come_all:
            self._lost = exc or ConnectionResetError("it was closed")
        self._is_writable.set()
        self._changed.set()


def _is_dying(pid: int) -> bool:
    """Whether the container of this first process is, or its program."""
    try:
        program = program_of(pid)
    except (FileNotFoundError, ProcessLookupError):
        return True
    return is_doomed(pid) or (program != pid and is_doomed(program))
