"""The connection: lost, found again, refused; and who reads it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import squall
from squall.exception import ConnectionError as SquallConnectionError
from squall.exception import NotFoundError, VersionError
from squall.protocol.app import AppGet, AppInfo
from squall.protocol.blob import BlobMissing, BlobStat
from squall.protocol.deployment import AppHistory, AppHistoryGet
from squall.protocol.frames import FrameDecoder
from squall.protocol.request import Request
from squall.sdk import _client, _local_server
from squall.sdk._client import Client
from squall.sdk._local_server import Endpoint
from squall.sdk._pending import Pending, run, sleep
from squall.sdk._transport import Transport
from tests.sdk.double import Connection, ServerDouble

app = squall.App("client", include_source=False)

# The real one: the fixtures put another in its place.
START = _local_server.start


@app.function()
def square(x: int) -> int:
    return x * x


@app.function()
def count_to(limit: int) -> Iterator[int]:
    yield from range(limit)


def test_answers_of_the_server_become_our_exceptions(server: ServerDouble) -> None:
    with pytest.raises(squall.Error, match="has no AppHistory"):
        run(_client.current().request("AppHistory", AppHistoryGet("nothing"), AppHistory))
    with pytest.raises(NotFoundError):
        squall.Function.from_name("none", "none").remote()


def test_a_look_costs_no_more_than_its_time_and_is_asked_once(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    cancelled = threading.Event()
    may_answer = False

    async def answer(connection: Connection, request: Request) -> tuple[AppInfo, bytes]:
        asked.append(request.record(AppGet).app)
        try:
            if not may_answer:
                await asyncio.Event().wait()
        finally:
            cancelled.set()
        return AppInfo("ap-1", "", "ephemeral", 0.0), b""

    monkeypatch.setattr(Connection, "_answer_AppGet", answer, raising=False)
    client = _client.current()
    run(client.connect())
    began = time.monotonic()

    assert client.ask_soon("AppGet", AppGet("first"), AppInfo, 0.05) is None
    assert cancelled.wait(5), "the server is told that nobody waits"
    server.hang_up()
    run(sleep(0.01))
    client.connection.poll()
    assert client.ask_soon("AppGet", AppGet("second"), AppInfo, 60.0) is None
    assert time.monotonic() - began < 10, "without a connection there is nothing to wait for"
    server.listen()
    run(client.connect())
    may_answer = True
    found = client.ask_soon("AppGet", AppGet("third"), AppInfo, 60.0)

    assert found is not None
    assert found.app_id == "ap-1"
    assert asked == ["first", "third"]


@pytest.mark.parametrize("who_is_first", ["the asker", "the keeper"])
def test_a_request_that_meets_a_new_connection_is_sent_over_it_once(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, who_is_first: str
) -> None:
    asked: list[str] = []

    async def answer(connection: Connection, request: Request) -> tuple[AppInfo, bytes]:
        asked.append(request.record(AppGet).app)
        await asyncio.sleep(0.1)
        return AppInfo("ap-1", "", "ephemeral", 0.0), b""

    monkeypatch.setattr(Connection, "_answer_AppGet", answer, raising=False)
    client = _client.current()
    pendings: list[Pending[Any]] = []
    adopt, ensure = client.connection.adopt, client._keeper.ensure

    def ask_between(transport: Transport, decoder: FrameDecoder) -> None:
        adopt(transport, decoder)
        pendings.append(client.ask("AppGet", AppGet("one")))

    def ensure_and_wait() -> None:
        ready = ensure()
        if ready is not None:
            ready.block(time.monotonic() + 10)

    if who_is_first == "the asker":
        monkeypatch.setattr(client.connection, "adopt", ask_between)
        run(client.connect())
    else:
        monkeypatch.setattr(client._keeper, "ensure", ensure_and_wait)
        pendings.append(client.ask("AppGet", AppGet("one")))
    (pending,) = pendings

    assert pending.block(time.monotonic() + 10)
    assert asked == ["one"]
    # The double's end of the connection is that of a server.
    assert not [one for one in caplog.records if "could not be handled" in one.getMessage()]


@pytest.mark.long
def test_a_call_survives_a_restart_of_the_server(server: ServerDouble) -> None:
    with app.run():
        server.is_holding_outputs = True
        threading.Timer(0.3, server.restart).start()
        threading.Timer(0.8, server.release_outputs).start()

        assert square.remote(7) == 49

    assert len(server.hellos) == 2
    assert server.hellos[0].client_id == server.hellos[1].client_id


@pytest.mark.long
def test_a_map_gives_every_result_once_over_restarts(server: ServerDouble) -> None:
    with app.run():
        found = []
        for number, value in enumerate(square.map(range(6000))):
            found.append(value)
            if number in (1000, 3000):
                server.restart()

    assert found == [x * x for x in range(6000)]


def test_a_generator_gives_every_item_once_over_a_restart(server: ServerDouble) -> None:
    with app.run():
        found = []
        for item in count_to.remote_gen(3000):
            found.append(item)
            if item == 1000:
                server.restart()

    assert found == list(range(3000))


@pytest.mark.long
def test_a_server_that_waits_for_us_to_read_gets_all_inputs(server: ServerDouble) -> None:
    server.callables["square"] = lambda x: x

    with app.run():
        # Results fill the connection's buffers long before the inputs are sent.
        values = [bytes([number]) * 900_000 for number in range(60)]
        assert list(square.map(values)) == values  # type: ignore[comparison-overlap]


@pytest.mark.long
def test_an_idle_app_keeps_its_lease_over_a_restart(server: ServerDouble) -> None:
    with app.run():
        square.remote(1)
        server.restart()
        deadline = time.monotonic() + 10
        while app.app_id not in server.apps and time.monotonic() < deadline:
            time.sleep(0.02)

        assert app.app_id in server.apps
        assert square.remote(2) == 4


def test_an_app_that_was_stopped_meanwhile_costs_a_container_no_other_call(server: ServerDouble) -> None:
    endpoint = Endpoint(server.socket_path, container_token="secret", container_id="ct-1")
    client = Client(endpoint)
    try:
        with app.run(client=client):
            server.stopped.append(app.app_id or "")

            server.restart()
            answer = run(client.request("BlobStat", BlobStat(("0" * 64,)), BlobMissing))
    finally:
        client.close()

    assert answer.sha256s == ("0" * 64,)


@pytest.mark.long
def test_ctrl_c_while_waiting_stops_the_app(server: ServerDouble) -> None:
    server.callables["square"] = lambda x: time.sleep(2)

    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), app.run():
        square.remote(1)

    assert server.stopped == list(server.apps)


def test_a_call_after_ctrl_c_works(server: ServerDouble) -> None:
    server.callables["square"] = lambda x: time.sleep(1) if x == 1 else x

    with app.run():
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            square.remote(1)
        assert square.remote(5) == 5


@pytest.mark.parametrize("form", ["remote", "map", "for_each"])
def test_the_server_hears_of_a_call_that_ctrl_c_gave_up_while_the_app_stays(server: ServerDouble, form: str) -> None:
    server.callables["square"] = lambda x: time.sleep(1)
    calls: dict[str, Callable[[], object]] = {
        "remote": lambda: square.remote(1),
        "map": lambda: list(square.map([1])),
        "for_each": lambda: square.for_each([1]),
    }

    with app.run():
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            calls[form]()
        deadline = time.monotonic() + 5
        while not server.closed_calls and time.monotonic() < deadline:
            time.sleep(0.02)

        assert server.closed_calls == [server.opened[0].call_id]


def test_calls_answered_before_a_connection_is_lost_are_closed_on_the_next(server: ServerDouble) -> None:
    with app.run():
        square.remote(1)
        server.restart()
        square.remote(2)

        # Sent behind the call, whose answer may be faster.
        deadline = time.monotonic() + 5.0
        while not server.closed_calls and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.closed_calls == [server.opened[0].call_id]


def test_a_busy_server_of_another_version_is_left_alone(server: ServerDouble) -> None:
    server.version = "0.0.1"

    with pytest.raises(VersionError, match=r"0\.0\.1, which is busy"):
        with app.run():
            pytest.fail("it must not start")


def test_without_root_nobody_starts_a_server(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SQUALL_DATA_DIR", str(data_dir))
    monkeypatch.setattr(_local_server, "start", START)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    try:
        with pytest.raises(SquallConnectionError, match="needs root"):
            with app.run():
                pytest.fail("it must not start")
    finally:
        _client.close()


def test_a_server_that_does_not_start_says_why(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(sys, "executable", "/bin/false")

    with pytest.raises(SquallConnectionError, match="exit status 1"):
        START(str(data_dir))


def test_a_server_is_started_when_none_answers(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    double = ServerDouble(str(data_dir / "server.sock"))

    def start(directory: str) -> None:
        started.append(directory)
        double.__enter__()

    monkeypatch.setenv("SQUALL_DATA_DIR", str(data_dir))
    monkeypatch.setattr(_local_server, "start", start)

    try:
        with app.run():
            assert square.remote(3) == 9
    finally:
        _client.close()
        double.__exit__()

    assert started == [str(data_dir)]


def test_importing_is_quick_and_loads_no_event_loop() -> None:
    program = (
        "import sys, squall\n"
        "squall.App, squall.Image, squall.Function\n"
        "heavy = ('asyncio', 'inspect', 'cloudpickle', 'websockets', 'subprocess')\n"
        "print([name for name in heavy if name in sys.modules])"
    )

    out = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(squall.__file__).parent.parent)},
    )

    assert out.stdout.strip() == "[]", out.stdout
