"""The examples of the web answer the clients that people have: httpx, curl, wrk, websockets, a browser, OpenAI's."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest
from websockets.asyncio.client import connect

from tests.e2e.browser import Browser
from tests.e2e.installation import Installation
from tests.e2e.test_http import url_of

EXAMPLES = Path(__file__).parent.parent.parent / "examples" / "web"
APPS = {
    "chat_page": "web-chat",
    "flask_app": "web-flask",
    "language_model": "web-model",
    "plain_server": "web-plain",
    "rest": "web-rest",
    "server_class": "web-server",
    "upload": "web-upload",
    "websocket": "web-room",
}
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def web(session_installation: Installation) -> Iterator[str]:
    """All of them are deployed; where the server is."""
    squall = session_installation
    started = [squall.start("deploy", str(EXAMPLES / f"{name}.py")) for name in APPS]
    for ended in [one.wait(240) for one in started]:
        assert ended.code == 0, ended
    yield url_of(squall)
    started = [squall.start("app", "stop", app, "-y") for app in APPS.values()]
    assert [one.wait().code for one in started] == [0] * len(APPS)
    squall.wait_no_processes(20)


def curl(*arguments: str) -> str:
    """What it prints; it must not fail."""
    ended = subprocess.run(["curl", "-sSf", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended
    return ended.stdout


def by_name(web: str, label: str) -> str:
    """The address by the name of a host, which curl and browsers resolve by themselves."""
    return f"http://{label}.localhost:{web.rpartition(':')[2]}"


def test_every_example_is_run() -> None:
    elsewhere = {"tunnel"}  # test_tunnels.py
    assert {path.stem for path in EXAMPLES.glob("*.py")} == APPS.keys() | elsewhere


def test_endpoint_reads_its_parameters_and_describes_itself(web: str) -> None:
    asked = json.loads(curl(f"{by_name(web, 'web-rest-square')}/?x=7"))
    wrong = httpx.get(f"{web}/w/web-rest-square/", params={"x": "seven"}, timeout=60)
    described = httpx.get(f"{web}/w/web-rest-square/openapi.json", timeout=60).json()

    assert asked == {"x": 7, "square": 49}
    assert (wrong.status_code, wrong.json()["detail"][0]["loc"]) == (422, ["query", "x"])
    assert list(described["paths"]) == ["/"]
    assert described["servers"] == [{"url": "/w/web-rest-square"}]


def test_application_keeps_what_it_is_told(web: str) -> None:
    shop = f"{web}/w/web-rest-shop/items"
    added = httpx.post(shop, json={"name": "tea", "price": 3.5}, timeout=60)
    found = json.loads(curl(f"{by_name(web, 'web-rest-shop')}/items/tea"))
    none = httpx.get(f"{shop}/coffee", timeout=60)

    assert (added.status_code, found) == (201, {"name": "tea", "price": 3.5})
    assert (none.status_code, none.json()) == (404, {"detail": "no item 'coffee'"})


def test_wrk_gets_an_answer_to_each_of_its_requests(web: str) -> None:
    url = f"{web}/w/web-model-model-api/v1/models"
    assert httpx.get(url, timeout=60).status_code == 200  # its container has started: wrk does not wait for one
    command = ["wrk", "-t1", "-c32", "-d2s", url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 0, ended
    assert "Non-2xx" not in ended.stdout, ended.stdout
    assert "Socket errors" not in ended.stdout, ended.stdout
    assert int(ended.stdout.split(" requests in")[0].split()[-1]) > 0


def test_flask_makes_links_that_hold_at_both_addresses(web: str) -> None:
    host = by_name(web, "web-flask-site")

    assert curl(f"{host}/?name=Ada") == f"Hello Ada, I am at {host}/\n"
    assert curl(f"{web}/w/web-flask-site/") == f"Hello World, I am at {web}/w/web-flask-site/\n"


def test_program_that_listens_answers(web: str) -> None:
    assert 'href="doc/"' in curl(f"{by_name(web, 'web-plain-listing')}/")
    assert "Directory listing for /doc/" in curl(f"{web}/w/web-plain-listing/doc/")


def test_server_answers(web: str, session_installation: Installation) -> None:
    said = curl(f"{by_name(web, 'web-server-echo')}/some/path?a=b")
    ran = session_installation.command("run", str(EXAMPLES / "server_class.py"))

    assert said.startswith("ct-")
    assert said.endswith(" was asked for /some/path?a=b\n")
    assert ran.out.splitlines()[0] == f"ask {web}/w/web-server-echo-dev", ran


def test_upload_comes_to_the_volume_and_back(web: str, session_installation: Installation, tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    file.write_bytes(hashlib.shake_128(b"upload").digest(24 * 2**20))
    host = by_name(web, "web-upload-files")

    told = json.loads(curl("-F", f"file=@{file}", f"{host}/"))
    curl("-o", str(tmp_path / "back"), f"{host}/large.bin")
    part = httpx.get(f"{web}/w/web-upload-files/large.bin", headers={"Range": "bytes=10-19"}, timeout=60)
    outside = httpx.post(f"{web}/w/web-upload-files/", files={"file": ("../x", b"1")}, timeout=60)
    listed = session_installation.command("volume", "ls", "web-uploads")

    assert told == {"bytes": 24 * 2**20, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert (tmp_path / "back").read_bytes() == file.read_bytes()
    assert (part.status_code, part.content) == (206, file.read_bytes()[10:20])
    assert outside.status_code == 400
    assert "large.bin" in listed.out, listed


def test_everybody_in_the_room_hears_everybody(web: str) -> None:
    async def talk() -> list[list[str]]:
        url = f"{web.replace('http', 'ws', 1)}/w/web-room-room/"
        async with connect(url) as ann, connect(url) as bob:
            # They are in the room when they are told so.
            entered = [str(await one.recv()) for one in (ann, bob, ann)]
            await ann.send("hello")
            await bob.send("there")
            return [entered, *[sorted([str(await one.recv()), str(await one.recv())]) for one in (ann, bob)]]

    assert asyncio.run(talk()) == [["1 here", "2 here", "2 here"], ["hello", "there"], ["hello", "there"]]


def test_browser_shows_an_answer_while_it_is_made(web: str) -> None:
    answered = """
        new Promise((done) => {
          const texts = []
          new MutationObserver(() => texts.push(answer.textContent)).observe(answer, {childList: true})
          new MutationObserver(() => done({title: document.title, texts})).observe(
            document.querySelector("title"), {childList: true})
          text.value = "what a page is"
          form.requestSubmit()
        })
    """
    with Browser() as browser:
        for address in (by_name(web, "web-chat-chat"), f"{web}/w/web-chat-chat", f"{web}/w/web-chat-chat/"):
            browser.open(address)
            found = browser.run(answered)

            assert found["title"] == "Answered"
            assert found["texts"][-1] == "you asked 'what a page is', and that is a good question "
            # It grew with the events.
            assert {"you ", "you asked "} <= set(found["texts"])


def test_page_of_a_browser_fetches_from_endpoints_and_talks_by_a_websocket(web: str) -> None:
    port = web.rpartition(":")[2]
    fetched = f"fetch('http://web-rest-square.localhost:{port}/?x=9').then((response) => response.json())"
    posted = f"""
        fetch('http://web-rest-shop.localhost:{port}/items/none').then(() => "read", (error) => error.name)
    """
    talked = f"""
        new Promise((done, failed) => {{
          const heard = []  // who is here, and what is said
          const socket = new WebSocket("ws://web-room-room.localhost:{port}/")
          socket.onerror = failed
          socket.onopen = () => socket.send("from a page")
          socket.onmessage = (event) => {{ heard.push(event.data); if (heard.length == 2) socket.close(1000) }}
          socket.onclose = (event) => done({{heard, code: event.code, clean: event.wasClean}})
        }})
    """
    with Browser() as browser:
        browser.open(by_name(web, "web-chat-chat"))

        assert browser.run(fetched) == {"x": 9, "square": 81}
        # Endpoints are open to pages of any origin, applications as they say themselves.
        assert browser.run(posted) == "TypeError"
        talk = browser.run(talked)
        assert (talk["heard"][1], talk["code"], talk["clean"]) == ("from a page", 1000, True)


def test_openais_client_reads_a_model_whole_and_as_a_stream(web: str) -> None:
    client = openai.OpenAI(base_url=f"{web}/w/web-model-model-api/v1", api_key="-", timeout=60)

    models = [model.id for model in client.models.list()]
    whole = client.chat.completions.create(model=models[0], messages=[{"role": "user", "content": "hello there"}])
    chunks = list(
        client.chat.completions.create(
            model=models[0], messages=[{"role": "user", "content": "hello there"}], stream=True
        )
    )

    assert models == ["parrot-1"]
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("hello there ", "stop")
    assert [one.choices[0].delta.content for one in chunks] == [None, "hello ", "there ", None]
    assert [one.choices[0].finish_reason for one in chunks] == [None, None, None, "stop"]
    assert len({one.id for one in chunks}) == 1
