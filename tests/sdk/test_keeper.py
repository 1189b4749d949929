"""The thread that keeps a client connected outlives what goes wrong in it, and says so to those who wait."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import squall
from squall.exception import InternalError
from squall.protocol.frames import Frame, FrameDecoder
from squall.protocol.server import Welcome
from squall.sdk import _keeper
from squall.sdk._connection import Connection
from squall.sdk._keeper import Keeper
from squall.sdk._local_server import Endpoint
from squall.sdk._pending import Reader
from tests.sdk.double import ServerDouble

app = squall.App("keeper", include_source=False)


@app.function()
def square(x: int) -> int:
    return x * x


def slow_for_two(x: int) -> int:
    time.sleep(1.0 if x == 2 else 0.0)
    return x * x


class FakeKept:
    """A client that breaks when it is first asked for leases; its transport never says anything."""

    def __init__(self) -> None:
        self.endpoint = Endpoint("/nowhere")
        self.welcome: Welcome | None = None
        self.connection = Connection(lambda frames: None, lambda reason, is_unreadable: None, lambda: None)
        self.failures: list[BaseException] = []
        self.connected_count = 0
        self.is_broken = True
        self.has_apps = True

    def connect_once(self) -> Welcome:
        self.connected_count += 1
        self.connection.adopt(SilentTransport(), FrameDecoder())
        self.welcome = Welcome("0", 1, "sv-1")
        return self.welcome

    def has_work(self) -> bool:
        return True

    def has_leases(self) -> bool:
        if self.is_broken:
            self.is_broken = False
            raise RuntimeError("no leases")
        return False

    def fail_waiting(self, error: BaseException) -> None:
        self.failures.append(error)

    def drop_leases(self) -> None:
        self.has_apps = False


class SilentTransport:
    """See `Transport`."""

    def __init__(self) -> None:
        self.reader: Reader | None = None
        self._closed = threading.Event()

    def write(self, data: bytes, body: bytes | memoryview = b"") -> None:
        """Nobody reads it."""

    def read(self, deadline: float | None = None) -> bytes | None:
        self._closed.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return b"" if self._closed.is_set() else None

    def close(self) -> None:
        self._closed.set()


def test_what_breaks_in_the_keeper_is_told_and_the_keeper_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_keeper, "BROKEN_S", 0.01)
    kept = FakeKept()
    keeper = Keeper(kept, kept.connection)

    try:
        keeper.ensure()
        deadline = time.monotonic() + 10
        while kept.connected_count < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        kept.connection.lose("the test ends")
        keeper.close()

    assert kept.connected_count >= 2
    assert [str(error) for error in kept.failures] == [
        "the connection to the Squall server broke down: RuntimeError('no leases')"
    ]
    assert kept.has_apps


@pytest.mark.long
async def test_a_loop_that_waits_hears_of_bytes_that_cannot_be_read(server: ServerDouble) -> None:
    server.callables["square"] = slow_for_two

    async with app.run():
        waiting = asyncio.ensure_future(square.remote.aio(2))
        await asyncio.sleep(0.3)

        async def send_nonsense() -> None:
            for connection in server.connections:
                connection.peer.channel.send(Frame(b"{nonsense", b""))

        await asyncio.to_thread(server.do, send_nonsense())

        with pytest.raises(InternalError, match="broke down: JSONDecodeError"):
            await asyncio.wait_for(waiting, 10)
        # The keeper went on, and has taken the app up again.
        assert await asyncio.wait_for(square.remote.aio(3), 10) == 9
