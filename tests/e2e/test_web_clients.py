"""What docs/web.md promises to clients: of bodies and headers, and of what becomes of a request when one side ends."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from tests.e2e.installation import PROGRAMS, Installation, wait_until
from tests.e2e.programs.web_clients import PACKED, TEXT
from tests.e2e.test_http import url_of

GIB = 2**30
GROWTH_MAX_BYTES = 50 * 2**20
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def web(squall: Installation) -> Iterator[str]:
    """The app is deployed; the address of its site."""
    ended = squall.command("deploy", str(PROGRAMS / "web_clients.py"))
    assert ended.code == 0, ended
    url = f"{url_of(squall)}/w/clients-site"
    # It has a container, with everything loaded.
    assert httpx.get(f"{url}/count", timeout=60).status_code == 200
    yield url
    assert squall.command("app", "stop", "clients", "-y").code == 0


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["curl", "-sS", *arguments], capture_output=True, timeout=120, check=False)


def raw(web: str, text: bytes) -> bytes:
    """All that comes for these bytes until the other side closes."""
    parts = httpx.URL(web)
    with socket.create_connection((parts.host, parts.port), 60) as connection:
        connection.sendall(text)
        found = b""
        while piece := connection.recv(65_536):
            found += piece
    return found


class Peak:
    """How much memory the server has at most, over what it has now."""

    def __init__(self, pid: int) -> None:
        self._proc = Path(f"/proc/{pid}")
        (self._proc / "clear_refs").write_text("5")  # the peak is what there is, from now on
        self._before = self._bytes()

    def growth(self) -> int:
        return self._bytes() - self._before

    def _bytes(self) -> int:
        [line] = [one for one in (self._proc / "status").read_text().splitlines() if one.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024


# Bodies and headers


def test_upload_of_a_gigabyte_needs_no_memory_of_the_server(web: str, squall: Installation, tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as out:
        out.truncate(GIB)
    peak = Peak(squall.server_pid())

    sent = curl("-F", f"file=@{file}", f"{web}/count")

    found = json.loads(sent.stdout)
    # The file, and what is around it in a form.
    assert GIB < found["bytes"] < GIB + 1_000, sent
    assert found["headers"]["content-type"].startswith("multipart/form-data; boundary=")
    assert peak.growth() < GROWTH_MAX_BYTES


def test_download_of_a_gigabyte_needs_no_memory_of_the_server(web: str, squall: Installation) -> None:
    peak = Peak(squall.server_pid())

    got = curl("-o", "/dev/null", "-w", "%{size_download}", f"{web}/large")

    assert (got.returncode, int(got.stdout)) == (0, GIB), got
    assert peak.growth() < GROWTH_MAX_BYTES


def test_what_is_packed_stays_so_and_nothing_else_is_packed(web: str) -> None:
    packed = curl("-H", "Accept-Encoding: gzip", f"{web}/packed")
    of_program = curl("-H", "Accept-Encoding: gzip", f"{web.replace('site', 'program')}/packed")
    text = curl("-i", "-H", "Accept-Encoding: gzip", f"{web}/text")
    sent = httpx.post(f"{web}/count", content=PACKED, headers={"Content-Encoding": "gzip"}, timeout=60).json()

    assert packed.stdout == of_program.stdout == PACKED
    assert gzip.decompress(packed.stdout) == httpx.get(f"{web}/packed", timeout=60).content == TEXT
    assert text.stdout.endswith(b"\r\n\r\n" + TEXT)
    assert b"content-encoding" not in text.stdout.lower()
    assert (sent["bytes"], sent["headers"]["content-encoding"]) == (len(PACKED), "gzip")


def test_head_has_the_headers_alone_and_options_are_the_applications(web: str) -> None:
    head = curl("-I", f"{web}/text").stdout.lower()
    of_program = curl("-I", f"{web.replace('site', 'program')}/").stdout.lower()
    options = json.loads(curl("-X", "OPTIONS", f"{web}/count").stdout)

    assert head.startswith(b"http/1.1 200")
    assert b"content-length: %d\r\n" % len(TEXT) in head
    assert b"content-length: 1234\r\n" in of_program
    assert options["method"] == "OPTIONS"


def test_trailers_are_dropped_both_ways(web: str) -> None:
    place = httpx.URL(web).path.encode()
    chunked = (
        b"POST %s/count HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n%s\r\n"
        b"5\r\nwords\r\n0\r\nX-Sum: 5\r\n\r\n"
    )
    found = raw(web, chunked % (place, b"") + chunked % (place, b"Connection: close\r\n"))
    of_program = raw(web, b"GET /w/clients-program/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")

    # The second request of the connection is read from its beginning.
    assert found.count(b'"bytes": 5') == 2
    assert b"x-sum" not in found.lower()
    head, _, body = of_program.partition(b"\r\n\r\n")
    assert b"200" in head
    assert b"words" in body
    assert b"X-Sum: 5" not in body
    assert body.endswith(b"0\r\n\r\n")


# The end of a client


def test_application_sees_that_its_client_has_left(web: str, squall: Installation) -> None:
    with httpx.stream("GET", f"{web}/stream", timeout=60) as response:
        assert next(response.iter_raw()) == b"begin"

    wait_until(
        lambda: "the client has left: http.disconnect" in squall.command("app", "logs", "clients").out, "it is seen", 20
    )


def test_application_sees_that_a_socket_was_cut(web: str, squall: Installation) -> None:
    async def cut() -> None:
        async with connect(f"{web.replace('http', 'ws', 1)}/echo") as client:
            await client.send("x")
            await client.recv()
            client.transport.abort()

    asyncio.run(cut())

    wait_until(lambda: "the socket has left" in squall.command("app", "logs", "clients").out, "it is seen", 20)


# The end of a container


@pytest.mark.parametrize("path", ["site/stream", "site/stream?length", "program/stream"])
def test_response_of_a_container_that_is_killed_is_never_taken_for_whole(
    web: str, squall: Installation, path: str
) -> None:
    with httpx.stream("GET", web.replace("site", path), timeout=60) as response:
        pieces = response.iter_raw()
        assert (response.status_code, next(pieces)[:5]) in ((200, b"begin"), (200, b"words"))
        squall.kill_processes()
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            list(pieces)


def test_socket_of_a_container_that_is_killed_is_not_closed_as_if_it_were_well(web: str, squall: Installation) -> None:
    async def killed() -> int:
        async with connect(f"{web.replace('http', 'ws', 1)}/echo") as client:
            await client.send("x")
            await client.recv()
            await asyncio.to_thread(squall.kill_processes)
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await asyncio.wait_for(client.recv(), 60)
            return closed.value.rcvd.code if closed.value.rcvd else 1006

    assert asyncio.run(killed()) in (1006, 1011, 1012)


# The end of a container that is not needed any more


def test_deploy_cuts_neither_a_response_nor_a_socket(web: str, squall: Installation) -> None:
    async def over_a_deploy() -> tuple[bytes, list[str]]:
        async with (
            httpx.AsyncClient(timeout=60) as client,
            client.stream("GET", f"{web}/stream") as response,
            connect(f"{web.replace('http', 'ws', 1)}/echo") as talk,
        ):
            pieces = response.aiter_raw()
            came = await anext(pieces)
            before = (await client.get(f"{web}/count")).json()["container"]
            rolled = await asyncio.to_thread(squall.command, "app", "rollover", "clients")
            assert rolled.code == 0, rolled
            # Others come to the new container; who is with the old one stays there, and is the one to release it.
            assert (await client.get(f"{web}/count")).json()["container"] != before
            heard = []
            for text in ("still", "release"):
                await talk.send(text)
                heard.append(str(await asyncio.wait_for(talk.recv(), 30)))
            came += b"".join([piece async for piece in pieces])
            return came, heard

    assert asyncio.run(over_a_deploy()) == (b"begin-end.", ["still", "release"])


def test_scaling_down_cuts_neither_a_response_nor_a_socket(web: str, squall: Installation) -> None:
    url = web.replace("site", "two-at-a-time")
    update = ("function", "autoscaler", "update", "clients/two_at_a_time", "--max-containers")

    async def begin(held: contextlib.AsyncExitStack) -> tuple[websockets.ClientConnection, Any]:
        """A socket and a response of one container."""
        client = await held.enter_async_context(httpx.AsyncClient(timeout=60))
        talk = await held.enter_async_context(connect(f"{url.replace('http', 'ws', 1)}/echo"))
        response = await held.enter_async_context(client.stream("GET", f"{url}/stream"))
        pieces = response.aiter_raw()
        assert await anext(pieces) == b"begin"
        return talk, pieces

    async def scaled() -> list[bytes]:
        async with contextlib.AsyncExitStack() as held:
            pairs = [await begin(held) for _ in range(2)]
            assert len([one for one in await asyncio.to_thread(squall.containers) if one["state"] == "busy"]) == 2
            ended = await asyncio.to_thread(squall.command, *update, "1")
            assert ended.code == 0, ended
            states = await asyncio.to_thread(squall.containers)
            assert "draining" in [one["state"] for one in states], states
            for talk, _ in pairs:
                await talk.send("release")
                assert await asyncio.wait_for(talk.recv(), 30) == "release"
            return [b"".join([piece async for piece in pieces]) for _, pieces in pairs]

    assert asyncio.run(scaled()) == [b"-end.", b"-end."]


# Too much


def test_flood_of_messages_waits_in_its_client(web: str, squall: Installation) -> None:
    message, count = b"x" * 2**16, 2_000

    async def flood() -> tuple[int, int, str]:
        async with (
            httpx.AsyncClient(timeout=60) as others,
            connect(f"{web.replace('http', 'ws', 1)}/flood", max_size=None) as client,
        ):
            sent = 0

            async def send_all() -> None:
                nonlocal sent
                for _ in range(count):
                    await client.send(message)
                    sent += 1
                await client.send("end")

            sending = asyncio.ensure_future(send_all())
            # It stands still once all that is between is full.
            seen = -1
            while seen != sent:
                seen = sent
                for _ in range(10):
                    assert (await others.get(f"{web}/count")).status_code == 200
            held = sent * len(message)
            await others.get(f"{web}/release")
            await sending
            return held, peak.growth(), str(await client.recv())

    peak = Peak(squall.server_pid())
    held, growth, told = asyncio.run(flood())

    assert held < count * len(message) / 2
    assert growth < GROWTH_MAX_BYTES
    assert told == str(count * len(message))


def test_server_may_have_more_files_open_than_systems_begin_with(fresh_squall: Installation) -> None:
    ended = fresh_squall.command("run", str(PROGRAMS / "square.py"), prefix=("prlimit", "--nofile=900:5000"))
    assert ended.code == 0, ended

    limits = Path(f"/proc/{fresh_squall.server_pid()}/limits").read_text()
    assert re.search(r"Max open files +5000 +5000", limits), limits
