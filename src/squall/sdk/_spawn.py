"""Starting durable calls: on disk before their id is known, few requests on the way whatever the program asks for."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from squall.exception import InvalidError
from squall.protocol.call import SPAWN, SPAWN_MAP, CallExtend, CallOpen, CallSpawn, CallSpawned, InputBatch
from squall.protocol.ids import new_id
from squall.sdk import _invoke, _map, _pending
from squall.sdk._calls import Payload
from squall.sdk._client import Client
from squall.sdk._pending import Pending, running_loop

PORTION_INPUTS = 512
"""Of a `spawn_map` in one request, or as many as have `_map.BATCH_BYTES`."""
WINDOW_BYTES = 64 * 2**20
"""Of spawns that wait for their answer; the server refuses what has four times that under way."""
SPAWN_BYTES = 64 * 2**10
"""What a spawn counts at least: a thousand small ones wait at a time."""
RETRY_S_MAX = 5.0
"""Between two questions whether there is room for more inputs."""


class Window:
    """Lets only so much of this process be on its way to the server; who comes first goes first."""

    def __init__(self, client: Client, bytes_max: int = WINDOW_BYTES) -> None:
        self._reader = client.connection
        self._left = bytes_max
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Pending[None], int]] = deque()

    async def enter(self, size_bytes: int) -> None:
        """Wait until there is room."""
        with self._lock:
            if not self._waiting and self._left > 0:
                self._left -= size_bytes
                return
            place = (Pending[None](self._reader), size_bytes)
            self._waiting.append(place)
        try:
            await place[0]
        except BaseException:  # given up: whoever comes next must not wait for us
            with self._lock:
                was_let_in = place not in self._waiting
                if not was_let_in:
                    self._waiting.remove(place)
            if was_let_in:
                self.leave(size_bytes)
            raise

    def leave(self, size_bytes: int) -> None:
        """It has been answered."""
        let_in = []
        with self._lock:
            self._left += size_bytes
            while self._waiting and self._left > 0:
                pending, its_bytes = self._waiting.popleft()
                self._left -= its_bytes
                let_in.append(pending)
        for pending in let_in:
            pending.set(None)


def _window(client: Client) -> Window:
    window = client.spawning
    if not isinstance(window, Window):
        window = client.spawning = Window(client)
    return window


async def spawn(
    client: Client, function_id: str, args: tuple[Any, ...], kwargs: dict[str, Any], method: str = ""
) -> str:
    """Start a call of one input; returns its id when it is on disk.

    Raises:
        ResourceExhaustedError: too many inputs of the function wait, or the server's disk is full.
    """
    parent_id = _invoke.parent_input_id()
    payload = await _invoke.pack(client, args, kwargs)
    call_id = new_id("fc")
    record = CallSpawn(CallOpen(call_id, function_id, SPAWN, parent_id, method), _batch(call_id, 0, [payload]))
    window, size_bytes = _window(client), max(len(payload.value), SPAWN_BYTES)
    await window.enter(size_bytes)
    try:
        await client.ask("CallSpawn", record, payload.value)
    finally:
        window.leave(size_bytes)
    return call_id


async def spawn_map(
    client: Client, function_id: str, iterables: tuple[Any, ...], kwargs: dict[str, Any], method: str = ""
) -> str:
    """Start one call for all inputs of a map, while they are pulled; returns its id when all are on disk.

    What was taken before an iterator raises, or this process ends, is run. With more inputs waiting than the server
    takes, it waits, too.

    Raises:
        ResourceExhaustedError: the server's disk is full.
        ConflictError: the call was cancelled meanwhile.
    """
    growing = _GrowingCall(client, function_id, method)
    feed = _map.Feed(iterables, is_star=False)
    if feed.is_async and running_loop() is None:
        raise InvalidError("async iterators need the async form: `await ….spawn_map.aio(…)`")
    is_last = False
    while not is_last:
        payloads: list[Payload] = []
        size_bytes = 0
        while len(payloads) < PORTION_INPUTS and size_bytes < _map.BATCH_BYTES:
            args = await feed.pull_async()
            if args is None:
                is_last = True
                break
            payload = await _invoke.pack(client, args, kwargs)
            payloads.append(payload)
            size_bytes += len(payload.value)
        await growing.add(payloads, is_last=is_last)
    await growing.settle()
    return growing.call_id


class _GrowingCall:
    """A call that inputs are added to; one request is on its way while the next one is made."""

    def __init__(self, client: Client, function_id: str, method: str) -> None:
        self.call_id = new_id("fc")
        self._client = client
        self._opened = CallOpen(self.call_id, function_id, SPAWN_MAP, _invoke.parent_input_id(), method)
        self._input_count = 0
        self._is_begun = False
        self._asked: tuple[str, Any, bytes] | None = None
        self._answer: Pending[Any] | None = None

    async def add(self, payloads: list[Payload], *, is_last: bool) -> None:
        """Send inputs, once those before them are on disk."""
        batch = _batch(self.call_id, self._input_count, payloads)
        body = b"".join([payload.value for payload in payloads])
        self._input_count += len(payloads)
        await self.settle()
        if self._is_begun:
            self._ask("CallExtend", CallExtend(batch, is_last), body)
            return
        self._is_begun = True
        self._ask("CallSpawn", CallSpawn(self._opened, batch, is_growing=True), body)
        if is_last:
            # Only growing calls wait for room: one of few inputs ends with a request of its own.
            await self.settle()
            self._ask("CallExtend", CallExtend(_batch(self.call_id, self._input_count, []), is_last=True), b"")

    def _ask(self, method: str, record: Any, body: bytes) -> None:
        self._asked = (method, record, body)
        self._answer = self._client.ask(method, record, body)

    async def settle(self) -> None:
        """Wait until all that was sent is on disk, and for as long as there is no room for it."""
        delay_s = 0.0
        while self._answer is not None:
            params, _ = await self._answer
            retry_s = self._client.codec.record(CallSpawned, params).retry_s
            if not retry_s:
                self._answer = None
                return
            delay_s = min(max(retry_s, 2 * delay_s), RETRY_S_MAX)
            await _pending.sleep(delay_s)
            assert self._asked is not None
            self._ask(*self._asked)


def _batch(call_id: str, first: int, payloads: list[Payload]) -> InputBatch:
    blobs = {str(index): payload.blob_sha256 for index, payload in enumerate(payloads, first) if payload.blob_sha256}
    return InputBatch(
        call_id,
        tuple(range(first, first + len(payloads))),
        tuple([-1 if payload.blob_sha256 else len(payload.value) for payload in payloads]),
        blobs=blobs,
    )
