"""Requests, streams with credit, uploads, events, giving up, and ends in the middle of it."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from squall.protocol import peer as peer_module
from squall.protocol import request as request_module
from squall.protocol.app import AppGet, AppInfo, AppList
from squall.protocol.channel.memory import MemoryChannel
from squall.protocol.codec import STREAM_WINDOW, Codec, JsonCodec
from squall.protocol.container import TerminalInput, TerminalOutput
from squall.protocol.empty import Empty
from squall.protocol.errors import INTERNAL, ChannelClosed, PlatformError
from squall.protocol.frames import BODY_BYTES_MAX, HEADER_BYTES_MAX, Frame, FrameTooLarge
from squall.protocol.log import LogRead
from squall.protocol.peer import Peer
from squall.protocol.request import Request


class Server:
    """Answers what these tests ask."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any, bytes]] = []
        self.reasons: list[str] = []
        self.sent_items = 0
        self.was_cancelled = asyncio.Event()
        self._begun = asyncio.Semaphore(0)

    async def begun(self, count: int) -> None:
        """Return when so many more requests are being answered."""
        for _ in range(count):
            await asyncio.wait_for(self._begun.acquire(), 10)

    async def answer(self, request: Request) -> tuple[Any, bytes] | None:
        """See `Service`."""
        self._begun.release()
        answer = getattr(self, "answer_" + request.method)
        result: tuple[Any, bytes] | None = await answer(request)
        return result

    def event(self, method: str, params: Any, body: bytes) -> None:
        """See `Service`."""
        if method == "Explode":
            raise RuntimeError("in an event")
        self.events.append((method, params, body))

    def closed(self, reason: str) -> None:
        """See `Service`."""
        self.reasons.append(reason)

    async def answer_Echo(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802 - named after the method
        return request.record(AppGet), request.body

    async def answer_Slow(self, request: Request) -> tuple[Any, bytes]:  # noqa: N802
        await asyncio.sleep(request.record(AppList).limit / 1_000)
        return request.record(AppList), b""

    async def answer_Forever(self, request: Request) -> None:  # noqa: N802
        try:
            await asyncio.Event().wait()
        finally:
            self.was_cancelled.set()

    async def answer_Refuse(self, request: Request) -> None:  # noqa: N802
        raise PlatformError("conflict", "it is in use; wait")

    async def answer_Explode(self, request: Request) -> None:  # noqa: N802
        raise RuntimeError("a secret of the server")

    async def answer_Fill(self, request: Request) -> None:  # noqa: N802
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/secret/path")

    async def answer_Count(self, request: Request) -> None:  # noqa: N802
        try:
            for number in range(request.record(LogRead).tail):
                await request.send_item(AppGet(str(number)), b"%d" % number)
                self.sent_items = number + 1
        finally:
            self.was_cancelled.set()

    async def answer_CountThenFail(self, request: Request) -> None:  # noqa: N802
        await request.send_item(AppGet("0"))
        raise PlatformError("exhausted", "no more")

    async def answer_Terminal(self, request: Request) -> None:  # noqa: N802
        async for _, body in request.uploads(TerminalInput):
            await request.send_item(TerminalOutput(), body.upper())
        await request.send_item(TerminalOutput(exit_code=3))


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Peer]:
    """A peer connected to one that `server` answers for."""
    ours, theirs = MemoryChannel.pair()
    codec: Codec = JsonCodec()
    asking, answering = Peer(ours, codec), Peer(theirs, codec, server)
    asking.start()
    answering.start()
    yield asking
    await asking.close()
    await answering.close()


async def test_answer_comes_back_with_its_body(client: Peer) -> None:
    assert await client.request_with_body("Echo", AppGet("hello"), AppGet, b"\x00\xff") == (
        AppGet("hello"),
        b"\x00\xff",
    )


async def test_an_answer_that_is_no_such_record_is_an_error_of_the_platform(client: Peer) -> None:
    with pytest.raises(PlatformError, match="Echo: the answer cannot be read: ") as caught:
        await client.request("Echo", AppGet("hello"), AppInfo)

    assert caught.value.code == INTERNAL
    assert await client.request("Echo", AppGet("hello"), AppGet) == AppGet("hello")


async def test_service_may_come_when_the_peer_is_there(server: Server) -> None:
    ours, theirs = MemoryChannel.pair()
    asking, answering = Peer(ours, JsonCodec()), Peer(theirs, JsonCodec())
    asking.start()
    answering.start(server)

    assert await asking.request("Echo", AppGet("hello"), AppGet) == AppGet("hello")
    await asking.close()
    await answering.close()


async def test_answers_come_in_any_order(client: Peer) -> None:
    order: list[int] = []

    async def ask(millis: int) -> None:
        reply = await client.request("Slow", AppList(millis), AppList)
        order.append(reply.limit)

    await asyncio.gather(ask(60), ask(1), ask(30))

    assert order == [1, 30, 60]


async def test_error_of_the_other_side_is_raised_with_its_code(client: Peer) -> None:
    with pytest.raises(PlatformError, match="it is in use; wait") as caught:
        await client.request("Refuse", Empty(), Empty)

    assert caught.value.code == "conflict"


async def test_unexpected_error_is_internal_and_keeps_its_secrets(
    client: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PlatformError, match="request rq-") as caught:
        await client.request("Explode", Empty(), Empty)

    assert caught.value.code == "internal"
    assert "secret" not in caught.value.message
    assert "a secret of the server" in caplog.text


async def test_request_that_finds_a_full_disk_says_so(client: Peer) -> None:
    with pytest.raises(PlatformError, match=r"Fill: .*No space left on device.*; free space") as caught:
        await client.request("Fill", Empty(), Empty)

    assert caught.value.code == "exhausted"
    assert "secret" not in caught.value.message


async def test_parameters_that_do_not_fit_are_invalid(client: Peer) -> None:
    with pytest.raises(PlatformError, match="Echo: AppGet") as caught:
        await client.request("Echo", Empty(), AppGet)

    assert caught.value.code == "invalid"


async def test_request_to_a_side_without_service_is_invalid(client: Peer, server: Server) -> None:
    ours, theirs = MemoryChannel.pair()
    asking, deaf = Peer(ours, JsonCodec()), Peer(theirs, JsonCodec())
    asking.start()
    deaf.start()

    with pytest.raises(PlatformError, match="answers no requests"):
        await asking.request("Echo", AppGet("x"), AppGet)
    await asking.close()
    await deaf.close()


async def test_request_without_an_answer_times_out_and_is_given_up(client: Peer, server: Server) -> None:
    with pytest.raises(PlatformError, match=r"within 0\.05 s") as caught:
        await client.request("Forever", Empty(), Empty, timeout_s=0.05)

    assert caught.value.code == "timed_out"
    await asyncio.wait_for(server.was_cancelled.wait(), 5)


async def test_cancelled_request_is_cancelled_on_the_other_side(client: Peer, server: Server) -> None:
    asking = asyncio.ensure_future(client.request("Forever", Empty(), Empty))
    await server.begun(1)

    asking.cancel()

    await asyncio.wait_for(server.was_cancelled.wait(), 5)
    await asyncio.gather(asking, return_exceptions=True)
    assert await client.request("Echo", AppGet("still here"), AppGet) == AppGet("still here")


async def test_stream_gives_every_item_in_order(client: Peer) -> None:
    stream = client.stream("Count", LogRead(tail=STREAM_WINDOW * 5))

    items = [item async for item in stream.items(AppGet)]

    assert items == [(AppGet(str(number)), b"%d" % number) for number in range(STREAM_WINDOW * 5)]


async def test_sender_of_a_stream_waits_for_its_reader(client: Peer, server: Server) -> None:
    stream = client.stream("Count", LogRead(tail=STREAM_WINDOW * 5))
    # An answer that is asked for later comes when the sender has had its turn, and waits.
    await client.request("Slow", AppList(20), AppList)
    sent_unread = server.sent_items

    for _ in range(STREAM_WINDOW):
        await stream.next(AppGet)
    await client.request("Slow", AppList(20), AppList)

    assert sent_unread == STREAM_WINDOW
    assert STREAM_WINDOW < server.sent_items <= 2 * STREAM_WINDOW
    stream.cancel()


async def test_stream_ends_with_the_error_after_its_items(client: Peer) -> None:
    stream = client.stream("CountThenFail", Empty())

    first = await stream.next(AppGet)
    with pytest.raises(PlatformError, match="no more") as caught:
        await stream.next(AppGet)

    assert first == (AppGet("0"), b"")
    assert caught.value.code == "exhausted"


async def test_leaving_a_stream_early_ends_it_on_the_other_side(client: Peer, server: Server) -> None:
    items = client.stream("Count", LogRead(tail=10_000)).items(AppGet)
    await anext(items)

    await items.aclose()  # type: ignore[attr-defined]

    await asyncio.wait_for(server.was_cancelled.wait(), 5)


async def test_uploads_reach_the_running_request_until_their_end(client: Peer) -> None:
    stream = client.stream("Terminal", Empty())
    stream.send(TerminalInput(), b"ls")
    stream.send(TerminalInput(), b"exit")
    stream.send(None)

    items = [(record.exit_code, body) async for record, body in stream.items(TerminalOutput)]

    assert items == [(None, b"LS"), (None, b"EXIT"), (3, b"")]


async def test_events_arrive_in_order_and_one_that_fails_stops_none(client: Peer, server: Server) -> None:
    client.event("One", AppGet("1"), b"a")
    client.event("Explode", Empty())
    client.event("Two", AppGet("2"))
    await client.request("Echo", AppGet("x"), AppGet)

    assert server.events == [("One", {"app": "1"}, b"a"), ("Two", {"app": "2"}, b"")]


@pytest.mark.parametrize(
    "header", [b"", b"\xff\xff", b"[]", b'{"k":"rep","i":99}', b'{"k":"what"}', b'{"k":"err","i":1}']
)
async def test_one_bad_frame_does_not_end_the_others(client: Peer, header: bytes) -> None:
    client.channel.send(Frame(header, b""))

    assert await client.request("Echo", AppGet("x"), AppGet) == AppGet("x")


async def test_other_end_closing_fails_what_waits(client: Peer, server: Server) -> None:
    asking = asyncio.ensure_future(client.request("Forever", Empty(), Empty, timeout_s=None))
    stream = client.stream("Count", LogRead(tail=1_000_000))
    await server.begun(2)

    client.channel.close()

    with pytest.raises(ChannelClosed):
        await asyncio.wait_for(asking, 5)
    with pytest.raises(ChannelClosed):
        _ = [item async for item in stream.items(AppGet)]
    await asyncio.wait_for(server.was_cancelled.wait(), 5)
    assert len(server.reasons) == 1
    assert client.is_closed


async def test_closed_peer_refuses_at_once(client: Peer) -> None:
    await client.close()

    with pytest.raises(ChannelClosed):
        await client.request("Echo", AppGet("x"), AppGet)
    with pytest.raises(ChannelClosed):
        client.stream("Count", LogRead())


async def test_too_many_requests_are_refused_one_by_one(
    client: Peer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "REQUESTS_MAX", 3)
    running = [asyncio.ensure_future(client.request("Forever", Empty(), Empty)) for _ in range(3)]
    await server.begun(3)

    with pytest.raises(PlatformError, match="running already") as caught:
        await client.request("Echo", AppGet("x"), AppGet)

    assert caught.value.code == "exhausted"
    for one in running:
        one.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    assert await client.request("Echo", AppGet("x"), AppGet) == AppGet("x")


async def test_requests_of_one_number_are_no_way_around_the_limit(
    client: Peer, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    header = JsonCodec().encode("req", 77, "Forever", Empty())
    for _ in range(3):
        client.channel.send(Frame(header, b""))
    await server.begun(1)

    client.channel.send(Frame(JsonCodec().encode("cancel", 77, "", None), b""))

    await asyncio.wait_for(server.was_cancelled.wait(), 5)
    assert caplog.text.count("request 77 is running already") == 2
    assert await client.request("Echo", AppGet("x"), AppGet) == AppGet("x")


async def test_requests_that_are_large_together_are_refused(
    client: Peer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "ANSWERING_BYTES_MAX", 10_000)
    running = asyncio.ensure_future(client.request("Forever", Empty(), Empty, b"x" * 9_000))
    await server.begun(1)

    with pytest.raises(PlatformError, match="running already") as caught:
        await client.request("Echo", AppGet("x"), AppGet, b"x" * 2_000)

    assert caught.value.code == "exhausted"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await asyncio.wait_for(server.was_cancelled.wait(), 5)
    assert await client.request("Echo", AppGet("x"), AppGet, b"x" * 2_000) == AppGet("x")


async def test_whoever_asks_and_does_not_read_gets_no_more_answers(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_module, "REQUESTS_MAX", 20)
    monkeypatch.setattr(peer_module, "REFUSALS_MAX", 30)
    ours, theirs = MemoryChannel.pair()
    answering = Peer(theirs, JsonCodec(), server)
    answering.start()
    codec, received = JsonCodec(), Received()
    ours.start(received)
    ours.pause()

    for number in range(1, 61):
        ours.send(Frame(codec.encode("req", number, "Echo", AppGet("x")), b"x" * 2**20))
        await asyncio.sleep(0)
    await asyncio.wait_for(answering.wait_closed(), 5)
    ours.resume()
    await asyncio.wait_for(received.is_over.wait(), 5)

    sizes = [len(frame.body) for frame in received.frames]
    assert sizes, "nothing was answered"
    assert sum(sizes) <= 8 * 2**20, "answers piled up"
    assert len(sizes) < 60
    await answering.close()


class Received:
    """Keeps frames."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.is_over = asyncio.Event()

    def frames_received(self, frames: list[Frame]) -> None:
        """See `Receiver`."""
        self.frames += frames

    def closed(self, reason: str) -> None:
        """See `Receiver`."""
        self.is_over.set()


async def test_what_a_request_does_not_read_is_not_kept_for_ever(
    client: Peer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_module, "UNREAD_BYTES_MAX", 100_000)
    stream = client.stream("Forever", Empty())

    for _ in range(10):
        stream.send(TerminalInput(), b"x" * 20_000)

    await asyncio.wait_for(client.wait_closed(), 5)
    assert len(server.reasons) == 1


async def test_a_flood_of_bad_frames_ends_the_conversation_and_not_the_log(
    client: Peer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(peer_module, "BAD_FRAMES_MAX", 5)

    for _ in range(50):
        client.channel.send(Frame(b"{", b""))

    await asyncio.wait_for(client.wait_closed(), 5)
    assert caplog.text.count("a frame could not be handled") == 5


async def test_closing_a_peer_ends_what_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    ours, theirs = MemoryChannel.pair()
    asking, answering = Peer(ours, JsonCodec()), Peer(theirs, JsonCodec(), server)
    asking.start()
    answering.start()
    waiting = asyncio.ensure_future(asking.request("Forever", Empty(), Empty))
    await server.begun(1)

    await answering.close()

    assert server.was_cancelled.is_set()
    with pytest.raises(ChannelClosed):
        await waiting
    await asking.close()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_an_answer_that_is_too_large_is_refused_and_the_conversation_goes_on(
    client: Peer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(request: Request) -> tuple[Any, bytes]:
        return AppGet("x" * HEADER_BYTES_MAX), b""

    monkeypatch.setattr(server, "answer_Echo", answer)

    with pytest.raises(PlatformError, match=r"Echo: the answer has 8\.0 MiB .* at most 8; ask for fewer") as caught:
        await client.request("Echo", AppGet("x"), AppGet)

    assert caught.value.code == "exhausted"
    assert (await client.request("Slow", AppList(1), AppList)).limit == 1


async def test_an_item_that_is_too_large_ends_its_stream_only(
    client: Peer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(request: Request) -> None:
        await request.send_item(AppGet("0"))
        await request.send_item(AppGet("1"), b"x" * (BODY_BYTES_MAX + 1))

    monkeypatch.setattr(server, "answer_Count", answer)
    stream = client.stream("Count", LogRead())

    assert await stream.next(AppGet) == (AppGet("0"), b"")
    with pytest.raises(PlatformError, match=r"Count: the answer has 64\.0 MiB of values, at most 64"):
        await stream.next(AppGet)
    assert (await client.request("Slow", AppList(1), AppList)).limit == 1


async def test_an_error_that_names_too_much_is_cut(
    client: Peer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(request: Request) -> None:
        raise PlatformError("conflict", "Refuse: " + "x" * 2 * HEADER_BYTES_MAX)

    monkeypatch.setattr(server, "answer_Refuse", answer)

    with pytest.raises(PlatformError, match="x… \\(16,777,224 characters\\)"):
        await client.request("Refuse", Empty(), Empty)


async def test_a_question_that_is_too_large_is_not_sent(client: Peer) -> None:
    large = AppGet("x" * HEADER_BYTES_MAX)

    with pytest.raises(PlatformError, match=r"Echo: 8\.0 MiB of parameters, at most 8; send less") as caught:
        await client.request("Echo", large, AppGet)
    with pytest.raises(PlatformError, match="Count: 8"):
        client.stream("Count", large)

    assert caught.value.code == "invalid"
    assert await client.request("Echo", AppGet("x"), AppGet) == AppGet("x")


async def test_an_event_that_is_too_large_is_not_sent(client: Peer, server: Server) -> None:
    with pytest.raises(FrameTooLarge):
        client.event("One", AppGet("x" * HEADER_BYTES_MAX))
    await client.request("Echo", AppGet("x"), AppGet)

    assert server.events == []
