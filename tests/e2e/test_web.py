"""Web functions, deployed and asked by real clients."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.e2e import paths
from tests.e2e.installation import PROGRAMS, Installation, wait_until
from tests.e2e.test_http import url_of


@pytest.fixture
def web(squall: Installation) -> Iterator[str]:
    """The app is deployed; where the server is."""
    ended = squall.command("deploy", str(PROGRAMS / "answering.py"))
    assert ended.code == 0, ended
    assert "Web function site: http://answering-site.localhost:" in ended.err, ended
    yield url_of(squall)
    assert squall.command("app", "stop", "answering", "-y").code == 0


def test_application_is_found_by_path_and_by_name(web: str) -> None:
    by_path = httpx.post(f"{web}/w/answering-site/a/b?c=d", content=b"12345", timeout=30).json()
    by_name = httpx.get(f"{web}/x", headers={"Host": "answering-site.localhost"}, timeout=30).json()

    assert (by_path["path"], by_path["root_path"], by_path["body"]) == ("/w/answering-site/a/b", "/w/answering-site", 5)
    assert (by_name["path"], by_name["root_path"]) == ("/x", "")
    assert by_path["input"].startswith("in-")
    assert by_path["input"] != by_name["input"]
    assert by_path["headers"]["x-forwarded-for"] == "127.0.0.1"


def test_curl_reads_a_stream_to_its_end(web: str) -> None:
    whole = subprocess.run(
        ["curl", "-sSN", f"{web}/w/answering-site/stream"], capture_output=True, text=True, timeout=60, check=False
    )
    cut = subprocess.run(
        ["curl", "-sSN", f"{web}/w/answering-site/stream?die"], capture_output=True, text=True, timeout=60, check=False
    )

    assert (whole.returncode, whole.stdout) == (0, "0\n1\n2\nend\n")
    # Curl says that it is not whole: 18, or 56 of a reset.
    assert cut.returncode in (18, 56)


def test_what_ends_with_its_container_is_told_and_not_tried_again(web: str) -> None:
    response = httpx.get(f"{web}/w/answering-site/die", timeout=60)

    assert response.status_code == 502
    assert "its container ended" in response.text
    assert httpx.get(f"{web}/w/answering-site/", timeout=60).status_code == 200


def test_large_bodies_go_both_ways(web: str) -> None:
    size = 64 * 2**20

    sent = httpx.post(f"{web}/w/answering-site/", content=b"x" * size, timeout=60).json()
    with httpx.stream("GET", f"{web}/w/answering-site/download?64", timeout=60) as response:
        came = sum(len(piece) for piece in response.iter_raw())

    assert (sent["body"], came) == (size, size)


def test_requests_share_a_container_and_run_beside_each_other(web: str) -> None:
    async def many() -> set[str]:
        async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=40)) as client:
            await client.get(f"{web}/w/answering-site/")
            asked = [client.get(f"{web}/w/answering-site/slow?0.5") for _ in range(40)]
            return {one.json()["container"] for one in await asyncio.gather(*asked)}

    assert len(asyncio.run(many())) == 1


def test_websocket(web: str) -> None:
    async def talk() -> list[str]:
        async with connect(f"{web.replace('http', 'ws', 1)}/w/answering-site/") as socket:
            await socket.send("hello")
            await socket.send("there")
            return [str(await socket.recv()), str(await socket.recv())]

    assert asyncio.run(talk()) == ["HELLO", "THERE"]


def test_wsgi_application(web: str) -> None:
    response = httpx.post(f"{web}/w/old-style/x/y", content=b"123", timeout=60)

    assert response.text == "/x/y 3 in /w/old-style"


@paths.OF_BLOCKED_PORTS
def test_program_that_listens_is_reached_inside_its_container_without_a_network(web: str) -> None:
    blocked = httpx.get(f"{web}/w/answering-listens/a?b=c", timeout=60)
    sent = httpx.post(f"{web}/w/answering-listens/", content=b"x" * 32 * 2**20, timeout=60)

    assert blocked.text == "/a?b=c of /w/answering-listens"
    assert sent.text == str(32 * 2**20)


def test_program_of_another_process_is_reached(web: str) -> None:
    assert httpx.get(f"{web}/w/answering-program/hostname", timeout=60).status_code == 200


def test_function_that_never_listens_says_so(web: str, squall: Installation) -> None:
    response = httpx.get(f"{web}/w/answering-listens-nowhere/", timeout=60)

    assert response.status_code == 503
    wait_until(
        lambda: "nothing listens at port 8125" in squall.command("app", "logs", "answering").err, "its log says why", 20
    )


def test_class_answers_and_is_called(squall: Installation) -> None:
    ended = squall.command("run", str(PROGRAMS / "answering.py"))

    assert ended.code == 0, ended
    site, shop, none, named, refused = ended.out.splitlines()
    assert site.endswith("/w/answering-site-dev")
    assert shop.endswith("/w/answering-shop-page-dev")
    assert (none, named) == ("None", "the shop")
    assert "answers requests" in refused
    assert "Web function Shop.page: http://answering-shop-page-dev.localhost:" in ended.err


def test_label_of_another_app_is_refused(web: str, squall: Installation) -> None:
    ended = squall.command("deploy", str(PROGRAMS / "answering.py"), "--name", "another")

    assert ended.code == 1, ended
    assert "'old-style', which app answering has" in ended.err
    assert httpx.post(f"{web}/w/old-style/", content=b"", timeout=60).status_code == 200


def test_deploys_and_the_end_of_an_app_cut_nothing_short(web: str, squall: Installation) -> None:
    async def both() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(timeout=60) as client:
            first = (await client.get(f"{web}/w/answering-site/")).json()["container"]
            slow = asyncio.ensure_future(client.get(f"{web}/w/answering-site/slow?4"))
            await asyncio.sleep(0.3)
            rolled = await asyncio.to_thread(squall.command, "app", "rollover", "answering")
            assert rolled.code == 0, rolled
            after = await client.get(f"{web}/w/answering-site/")
            assert after.json()["container"] != first
            return await slow, after

    slow, after = asyncio.run(both())

    assert (slow.status_code, after.status_code) == (200, 200)
    assert json.loads(slow.text)["container"] != json.loads(after.text)["container"]
