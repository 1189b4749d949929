"""Frames over the limits: those of the server that nobody can read, and ours, which are not sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

import squall
from squall.exception import InvalidError, ServiceError
from squall.protocol.app import AppGet, AppInfo
from squall.protocol.blob import BlobMissing, BlobPut, BlobStat
from squall.protocol.deployment import AppPrepared
from squall.protocol.empty import Empty
from squall.protocol.frames import BODY_BYTES_MAX, HEADER_BYTES_MAX, Frame
from squall.protocol.log import LogBatch, LogRead
from squall.protocol.request import Request
from squall.sdk import _client, _deploy
from squall.sdk._pending import iterate, run
from squall.sdk._unreadable import APART_S, TIMES_MAX, Unreadable
from tests.sdk.double import Connection, ServerDouble

app = squall.App("unreadable", include_source=False)


@app.function()
def square(x: int) -> int:
    return x * x


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Apps that were asked for; the answers are headers that no client reads."""
    asked: list[str] = []

    async def answer(connection: Connection, request: Request) -> tuple[AppInfo, bytes]:
        asked.append(request.record(AppGet).app)
        connection.peer.channel.send(Frame(b"x" * (HEADER_BYTES_MAX + 1), b""))
        await connection.peer.wait_closed()
        return AppInfo("", "", "", 0.0), b""

    monkeypatch.setattr(Connection, "_answer_AppGet", answer, raising=False)
    return asked


def test_a_question_whose_answer_cannot_be_read_is_asked_a_few_times(server: ServerDouble, asked: list[str]) -> None:
    with pytest.raises(ServiceError, match=r"cannot find the app: what the server sends cannot be read .* 3 times"):
        run(_client.current().request("AppGet", AppGet("large"), AppInfo))

    assert asked == ["large"] * TIMES_MAX
    assert run(_client.current().request("BlobStat", BlobStat(()), BlobMissing)) == BlobMissing(())


def test_a_call_outlives_a_question_whose_answer_cannot_be_read(server: ServerDouble, asked: list[str]) -> None:
    server.is_holding_outputs = True
    with app.run():
        with ThreadPoolExecutor(1) as thread:
            result = thread.submit(square.remote, 7)
            while not server.attempts:
                time.sleep(0.01)

            with pytest.raises(ServiceError, match="cannot be read"):
                run(_client.current().request("AppGet", AppGet("large"), AppInfo))

            server.release_outputs()
            assert result.result(30) == 49


def test_a_call_whose_outputs_cannot_be_read_fails(server: ServerDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    def send(connection: Connection, call_id: str, index: int) -> None:
        connection.peer.channel.send(Frame(b"x" * (HEADER_BYTES_MAX + 1), b""))

    monkeypatch.setattr(Connection, "_send", send)

    with app.run():
        with pytest.raises(ServiceError, match=r"outputs of call fc-\w+: what the server sends cannot be read"):
            square.remote(7)

        monkeypatch.undo()
        assert square.remote(8) == 64


def test_what_is_rare_is_not_the_same_again() -> None:
    now = [0.0]
    unreadable = Unreadable(lambda: now[0])

    for _ in range(2 * TIMES_MAX):
        unreadable.note([1], ["fc-1"])
        assert unreadable.hopeless([1, "fc-1"]) == []
        now[0] += APART_S


def test_requests_are_given_up_before_calls() -> None:
    unreadable = Unreadable()
    for _ in range(TIMES_MAX):
        unreadable.note([1], ["fc-1"])
    first = unreadable.hopeless([1, "fc-1"])
    for _ in range(TIMES_MAX):
        assert unreadable.hopeless(["fc-1"]) == []
        unreadable.note([], ["fc-1"])

    assert first == [1]
    assert unreadable.hopeless(["fc-1"]) == ["fc-1"]


@pytest.mark.parametrize(
    ("ask", "has"),
    [
        (lambda client: run(client.request("AppGet", AppGet("x" * HEADER_BYTES_MAX), AppInfo)), "8.0 MiB of param"),
        (lambda client: list(iterate(client.stream("LogRead", LogRead("x" * HEADER_BYTES_MAX)).items(LogBatch))), "8"),
        (lambda client: run(client.request("BlobPut", BlobPut("", 0, 0), Empty, bytes(BODY_BYTES_MAX + 1))), "64.0"),
    ],
)
def test_a_question_that_is_too_large_is_not_sent(
    server: ServerDouble, ask: Callable[[_client.Client], object], has: str
) -> None:
    client = _client.current()
    run(client.connect())

    with pytest.raises(InvalidError, match=f"^cannot .*: {has}.*send less at a time"):
        ask(client)

    assert run(client.request("BlobStat", BlobStat(()), BlobMissing)) == BlobMissing(())
    assert client.connection_count == 1


def test_a_function_that_is_too_large_is_named_before_it_is_sent(server: ServerDouble) -> None:
    large = squall.App("large", include_source=False)
    large.function(env={"TEXT": "x" * 2**21}, name="heavy", serialized=True)(lambda: 1)

    with pytest.raises(InvalidError, match=r"function heavy: its variables, .* 2\.0 MiB, at most 2"), large.run():
        pass

    assert _client.current().connection_count == 1


def test_functions_that_are_large_together_go_in_pieces(server: ServerDouble) -> None:
    heavy = squall.App("heavy", include_source=False)
    for number in range(12):
        heavy.function(env={"TEXT": "x" * 2**20}, name=f"f{number}", serialized=True)(lambda: 1)

    with heavy.run():
        assert len(server.functions) == 12

    assert _client.current().connection_count == 1


def test_a_deploy_that_is_too_large_says_which_function_is_the_largest(
    server: ServerDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_deploy, "BODY_BYTES_MAX", 2**20)
    answer = (AppPrepared("ap-" + "0" * 22), b"")
    monkeypatch.setattr(Connection, "_answer_AppPrepare", lambda connection, request: answer, raising=False)
    heavy = squall.App("heavy", include_source=False)
    for number in range(3):
        heavy.function(env={"TEXT": "x" * (number * 2**19)}, name=f"f{number}", serialized=True)(lambda: 1)

    with pytest.raises(InvalidError, match=r"cannot deploy app heavy: its 3 functions have 1\.5 MiB .* f2 has most"):
        heavy.deploy()
