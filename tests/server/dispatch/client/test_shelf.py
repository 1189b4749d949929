"""Results that their clients do not read: bounded in memory, and there when somebody reads."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from squall.protocol.call import ItemBatch, OutputBatch
from squall.protocol.channel.contract import HIGH_WATER_BYTES
from squall.protocol.channel.memory import MemoryChannel
from squall.protocol.channel.stream import StreamChannel, connect_unix
from squall.protocol.errors import EXHAUSTED, PlatformError
from squall.protocol.peer import Peer
from squall.protocol.server import Hello, Welcome
from squall.protocol.task_set import TaskSet
from squall.protocol.version import PROTOCOL_VERSION, VERSION
from squall.server.dispatch.client.shelf import MOVED_BYTES_MIN, Kept, Shelf, moved
from squall.server.model.config import ServerConfig
from tests.server.doubles import FakeCall, FakeClient, FakeGuest, MemoryBlobs, Stage, double, settle, staged

KEPT_BYTES = 8 * 2**20
VALUE_BYTES = 256 * 2**10
COUNT = 160
"""Outputs of a call: 40 MiB."""
CONFIG = ServerConfig(kept_bytes_max=KEPT_BYTES, app_grace_s=1e6)


class FullBlobs(MemoryBlobs):
    """A store without room."""

    async def put_chunk(self, sha256: str, size_bytes: int, offset: int, data: bytes) -> bool:
        raise PlatformError(EXHAUSTED, "cannot write a blob: the disk is full")


class Reader(FakeClient):
    """A client that finds values in blobs too."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.plane, stage.codec)
        self._blobs = stage.blobs
        self._named: dict[tuple[str, int], str] = {}

    def event(self, method: str, params: Any, body: bytes) -> None:
        if method == "PutOutputs":
            record = self.codec.record(OutputBatch, params)
            self._named.update({(record.call_id, int(index)): sha256 for index, sha256 in record.blobs.items()})
        super().event(method, params, body)

    def values(self, call: FakeCall) -> list[bytes]:
        """All that came, by index."""
        return [
            got.value or self._blobs.blobs[self._named[call.call_id, index]]
            for index, got in sorted(call.outputs.items())
        ]


async def large(guest: FakeGuest, value: bytes) -> bytes:
    await asyncio.sleep(0.001)
    return value.rjust(VALUE_BYTES, b".")


EXPECTED = [str(index).encode().rjust(VALUE_BYTES, b".") for index in range(COUNT)]


async def until(stage: Stage, condition: Callable[[], object]) -> None:
    """Wait for something that takes threads and sockets, while the stage's clock goes on."""
    async with asyncio.timeout(30):
        while not condition():
            stage.clock.advance(0.01)
            await asyncio.sleep(0.002)


@asynccontextmanager
async def connected(stage: Stage, path: Path) -> AsyncIterator[tuple[Reader, StreamChannel]]:
    """A client that is connected by a real socket."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_unix_server(lambda: StreamChannel(stage.plane.accept_client), str(path))
    reader, channel = Reader(stage), await connect_unix(str(path))
    reader.peer = Peer(channel, stage.codec, reader)
    reader.peer.start()
    await reader.ask("Hello", Hello(VERSION, PROTOCOL_VERSION, reader.client_id), Welcome)
    try:
        yield reader, channel
    finally:
        channel.close()
        listener.close()
        await asyncio.sleep(0.01)


async def test_large_values_of_a_batch_are_named_by_their_hash() -> None:
    blobs = MemoryBlobs()
    values = [b"small", b"x" * MOVED_BYTES_MIN, b"", b"y" * MOVED_BYTES_MIN]
    sizes = tuple(len(value) for value in values)

    outputs, body = await moved(blobs, OutputBatch("fc-1", (4, 7, 5, 9), (0,) * 4, sizes), b"".join(values))
    items, rest = await moved(blobs, ItemBatch("fc-1", 0, 0, 30, sizes), b"".join(values))

    names = [hashlib.sha256(values[index]).hexdigest() for index in (1, 3)]
    assert (outputs.sizes, body, outputs.blobs) == ((5, -1, 0, -1), b"small", {"7": names[0], "9": names[1]})
    assert (items.sizes, rest, items.blobs) == ((5, -1, 0, -1), b"small", {"31": names[0], "33": names[1]})
    assert [blobs.blobs[name] for name in names] == [values[1], values[3]]


@pytest.mark.long
async def test_client_that_does_not_read_costs_bounded_memory_and_others_nothing(tmp_path: Path) -> None:
    async with staged(CONFIG) as stage, connected(stage, tmp_path / "s") as (reader, channel):
        shelf, calls = stage.plane.calls.shelf, stage.plane.calls
        spec = await reader.function(max_containers=1)
        other = await stage.client.function(max_containers=1)
        stage.node.run = large
        channel.pause()

        call = reader.call(spec.function_id, *range(COUNT))
        await until(stage, lambda: (kept := calls.get(call.call_id)) and kept.input_count and not kept.inputs)
        await until(stage, lambda: shelf.size_bytes <= KEPT_BYTES)

        in_blobs = len(stage.blobs.blobs) * VALUE_BYTES
        assert in_blobs > COUNT * VALUE_BYTES - KEPT_BYTES - 4 * HIGH_WATER_BYTES
        stage.node.run = double
        assert (await stage.done(stage.client.call(other.function_id, 4), 1))[0].value == b"8"

        channel.resume()
        await until(stage, lambda: len(call.outputs) == COUNT)
        assert reader.values(call) == EXPECTED
        assert call.copies == 0


@pytest.mark.long
async def test_results_for_a_client_that_is_away_are_bounded_and_there_when_it_is_back() -> None:
    async with staged(CONFIG) as stage:
        shelf, calls = stage.plane.calls.shelf, stage.plane.calls
        stage.client = reader = Reader(stage)
        await reader.connect()
        spec = await reader.function(max_containers=1)
        stage.node.run = large
        values = {index: str(index).encode() for index in range(COUNT)}
        call = reader.open(spec.function_id)
        reader.put(call, values)
        await until(stage, lambda: calls.get(call.call_id) and stage.node.started)

        reader.disconnect()
        await until(stage, lambda: (kept := calls.get(call.call_id)) and not kept.inputs)
        await until(stage, lambda: shelf.size_bytes <= KEPT_BYTES)
        await reader.connect()
        reader.resume(call, values)
        await until(stage, lambda: len(call.outputs) == COUNT)

        assert reader.values(call) == EXPECTED
        assert len(stage.node.started) == 1
        reader.close_call(call)
        await until(stage, lambda: not calls.get(call.call_id))
        assert shelf.size_bytes == 0


async def test_without_room_for_blobs_a_deaf_client_is_disconnected_and_sends_again() -> None:
    async with staged(CONFIG) as stage:
        stage.plane.calls.shelf._blobs = FullBlobs()
        shelf = stage.plane.calls.shelf
        stage.client = reader = Reader(stage)
        await reader.connect()
        spec = await reader.function(max_containers=1)
        stage.node.run = large
        values = {index: str(index).encode() for index in range(COUNT)}
        call = reader.open(spec.function_id)
        assert reader.peer is not None
        assert isinstance(reader.peer.channel, MemoryChannel)
        reader.peer.channel.pause()
        reader.put(call, values)

        await until(stage, lambda: reader.peer is None or reader.peer.is_closed)
        assert shelf.size_bytes <= 2 * KEPT_BYTES + VALUE_BYTES
        for _ in range(20):
            if len(call.outputs) == COUNT:
                break
            await reader.connect()
            reader.resume(call, values)
            await until(stage, lambda: len(call.outputs) == COUNT or reader.peer is None or reader.peer.is_closed)

        assert reader.values(call) == EXPECTED


async def test_what_was_sent_is_forgotten_before_anything_is_moved() -> None:
    async with staged(CONFIG) as stage:
        spec = await stage.client.function(max_containers=1)
        stage.node.run = large

        call = stage.client.call(spec.function_id, *range(COUNT))
        await until(stage, lambda: len(call.outputs) == COUNT)

        assert not stage.blobs.blobs
        assert stage.plane.calls.shelf.size_bytes <= KEPT_BYTES


async def test_items_that_are_not_taken_are_moved_too() -> None:
    async with staged(CONFIG) as stage:
        shelf = stage.plane.calls.shelf
        spec = await stage.client.function(is_generator=True, max_containers=1)
        running = asyncio.Event()

        async def forever(guest: FakeGuest, value: bytes) -> bytes:
            running.set()
            await asyncio.Event().wait()
            return value

        stage.node.run = forever
        call = stage.client.open(spec.function_id, "generator")
        stage.client.put(call, {0: b"1"})
        await until(stage, running.is_set)
        for number in range(COUNT):
            stage.node.started[0].items(call.call_id, 0, number, [EXPECTED[number]])
            await asyncio.sleep(0.001)

        await until(stage, lambda: len(call.items) == COUNT and shelf.size_bytes <= KEPT_BYTES)

        assert len(stage.blobs.blobs) > COUNT // 2
        stage.client.close_call(call)
        await until(stage, lambda: shelf.size_bytes == 0)


async def test_full_shelf_of_items_is_not_looked_through_for_each_output() -> None:
    looks: list[Kept] = []

    class Watched(Kept):
        """Notes each look at it."""

        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            if name in ("is_unsent", "record"):
                looks.append(self)
            return super().__getattribute__(name)

    async with staged() as stage:
        stage.node.is_slow_to_load = True
        spec = await stage.client.function()
        call = stage.client.call(spec.function_id, 1)
        await settle()
        known = stage.plane.calls.get(call.call_id)
        assert known is not None
        shelf = Shelf(bytes_max=2_000 * 200)
        items = [Watched(known, ItemBatch(call.call_id, 0, 0, number, (100,)), b"x" * 100) for number in range(4_200)]
        for kept in items:
            shelf.put(kept)
        assert shelf.is_full
        looks.clear()

        for _ in range(500):
            kept = Watched(known, OutputBatch(call.call_id, (0,), (0,), (100,)), b"x" * 100)
            known.keep(kept)
            shelf.put(kept)

        assert len(looks) < 500 * 20
        assert shelf.size_bytes == sum(kept.size_bytes for kept in items)
        assert not known.sent


async def test_unsent_outputs_are_not_looked_through_for_what_was_sent() -> None:
    looks: list[Kept] = []

    class Watched(Kept):
        """Notes each look at it."""

        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            if name == "is_unsent":
                looks.append(self)
            return super().__getattribute__(name)

    async with staged() as stage:
        stage.node.is_slow_to_load = True
        spec = await stage.client.function()
        call = stage.client.call(spec.function_id, 1)
        await settle()
        known = stage.plane.calls.get(call.call_id)
        assert known is not None
        shelf = Shelf(bytes_max=4_000 * 200)
        for _ in range(3_000):
            shelf.put(Watched(known, OutputBatch(call.call_id, (0,), (0,), (100,)), b"x" * 100))
        looks.clear()

        for _ in range(3_000):
            kept = Watched(known, OutputBatch(call.call_id, (0,), (0,), (100,)), b"x" * 100)
            known.keep(kept)
            shelf.put(kept)
            shelf.sent(kept)

        assert len(looks) < 3_000 * 10
        assert 3_000 * 200 <= shelf.size_bytes <= 4_000 * 200 + 200


@pytest.mark.long
async def test_many_small_results_are_not_looked_through_for_each_of_them() -> None:
    looks: list[Kept] = []

    class Small(Kept):
        """Notes each look at it."""

        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            if name == "is_unsent":
                looks.append(self)
            return super().__getattribute__(name)

    async with staged() as stage:
        stage.node.is_slow_to_load = True
        spec = await stage.client.function()
        call = stage.client.call(spec.function_id, 1)
        await settle()
        known = stage.plane.calls.get(call.call_id)
        assert known is not None
        tasks = TaskSet()
        shelf = Shelf(MemoryBlobs(), tasks, 4_000 * 200)

        for _ in range(4_000 * 7 // 4):
            shelf.put(Small(known, OutputBatch(call.call_id, (0,), (0,), (100,)), b"x" * 100))
        await settle()
        await tasks.close()

        assert shelf.size_bytes <= 4_000 * 200 * 7 // 4
        assert len(looks) < 4_000 * 100
