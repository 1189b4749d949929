"""A Ctrl-C that no system call has heard of, because it came just before one, is noticed all the same."""

from __future__ import annotations

import _thread
import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import squall
from squall.sdk._pending import Pending, run, sleep
from squall.sdk._transport import UnixTransport
from tests.sdk.double import ServerDouble
from tests.sdk.test_websocket_transport import url as url  # a fixture

pytestmark = pytest.mark.long

LATE_S = 1.5
"""Of the two seconds in which containers are to be gone."""

app = squall.App("signals", include_source=False)


@app.function()
def square(x: int) -> int:
    return x * x


@pytest.fixture
def slow(server: ServerDouble) -> Iterator[None]:
    """Inputs take longer than a person waits after Ctrl-C."""
    is_over = threading.Event()

    def wait(x: int) -> int:
        is_over.wait(10.0)
        return x

    server.callables["square"] = wait
    yield
    is_over.set()


def assert_interrupted(action: Callable[[], object], after_s: float = 0.3) -> None:
    """`interrupt_main` is that Ctrl-C: Python knows of it, and no system call is interrupted."""
    came_at = 0.0

    def interrupt() -> None:
        nonlocal came_at
        came_at = time.monotonic()
        _thread.interrupt_main()

    timer = threading.Timer(after_s, interrupt)
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            action()
    finally:
        timer.join()
    assert time.monotonic() - came_at < LATE_S


FORMS: dict[str, Callable[[], Any]] = {
    "remote": lambda: square.remote(2),
    "map": lambda: list(square.map(range(3))),
    "unordered map": lambda: list(square.map(range(3), order_outputs=False)),
    "for_each": lambda: square.for_each(range(3)),
    "get": lambda: square.spawn(2).get(),
    "get with a timeout": lambda: square.spawn(2).get(timeout=30),
    "gather": lambda: squall.FunctionCall.gather(square.spawn(2), square.spawn(3)),
    "event loop": lambda: asyncio.run(asyncio.wait_for(square.remote.aio(2), 30)),
}


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("form", FORMS)
def test_ctrl_c_is_noticed_while_the_main_thread_waits_by(form: str) -> None:
    with app.run():
        assert_interrupted(FORMS[form])


@pytest.mark.usefixtures("slow")
def test_ctrl_c_is_noticed_while_another_thread_reads() -> None:
    def read() -> None:
        with suppress(squall.Error):
            square.remote(1)

    with app.run():
        threading.Thread(target=read, daemon=True).start()
        time.sleep(0.1)

        assert_interrupted(lambda: square.remote(2))


@pytest.mark.usefixtures("slow", "url")
@pytest.mark.parametrize("form", ["remote", "get with a timeout"])
def test_ctrl_c_is_noticed_over_a_websocket(form: str) -> None:
    with app.run():
        assert_interrupted(FORMS[form])


def test_ctrl_c_is_noticed_while_nothing_is_read() -> None:
    assert_interrupted(lambda: run(sleep(10)))
    assert_interrupted(lambda: Pending[None]().block(time.monotonic() + 10))


def test_ctrl_c_is_noticed_while_the_server_reads_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        transport = UnixTransport(path)
        accepted, _ = listener.accept()
        threading.Timer(10.0, accepted.close).start()
        try:
            assert_interrupted(lambda: transport.write(b"head", bytes(50_000_000)))
        finally:
            transport.close()


def test_what_is_written_while_the_server_reads_slowly_arrives_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    body = bytes(range(256)) * 8_000
    got = bytearray()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        transport = UnixTransport(path)
        accepted, _ = listener.accept()
        writer = threading.Thread(target=transport.write, args=(b"head", body))
        writer.start()

        time.sleep(0.5)
        while len(got) < len(body) + 4:
            got += accepted.recv(65_536)

        writer.join()
        transport.close()
        accepted.close()
    assert bytes(got) == b"head" + body
