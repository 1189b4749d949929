"""What a server says of its requests: how many at a time, what for others are started, and what may be finished."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from squall.protocol.app import AppStop, AppStopped
from squall.protocol.container import ContainerStop
from squall.protocol.empty import Empty
from squall.protocol.function_window import FunctionWindow, FunctionWindowGet
from squall.protocol.ids import function_id
from squall.protocol.web import SERVER, WebSpec
from tests.server.ingress.test_ingress import respond, socket_url
from tests.server.ingress.test_proxied import nothing, program
from tests.server.ingress.web_stage import APP, web_stage

pytestmark = pytest.mark.long


class Held:
    """An application that answers when it may."""

    def __init__(self) -> None:
        self.began: asyncio.Queue[str] = asyncio.Queue()
        self.may_answer = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.began.put_nowait(scope["path"])
        await self.may_answer.wait()
        await respond(send, b"done")


async def status_of(client: httpx.AsyncClient, url: str) -> int:
    """0: it is not answered."""
    try:
        return (await client.get(url, timeout=5)).status_code
    except httpx.ReadTimeout:
        return 0


async def test_request_beyond_what_all_containers_take_is_429() -> None:
    held = Held()
    async with program(held) as port:
        spec = WebSpec(SERVER, port=port, requests_max=1)
        async with web_stage(nothing, spec, max_inputs=1, max_containers=2) as web, httpx.AsyncClient() as client:
            # The first starts a container, and the second another one.
            first = [asyncio.ensure_future(client.get(f"{web.url}/{number}", timeout=30)) for number in range(2)]
            for _ in first:
                await held.began.get()

            assert await status_of(client, f"{web.url}/2") == 429
            refused = await client.get(f"{web.url}/3")
            held.may_answer.set()
            answers = [(await one).status_code for one in first]
            again = await client.get(f"{web.url}/4")

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    assert "takes no more" in refused.text
    assert (answers, again.status_code) == ([200, 200], 200)


async def test_requests_that_wait_for_the_only_container_count() -> None:
    held = Held()
    async with program(held) as port:
        spec = WebSpec(SERVER, port=port, requests_max=2)
        async with web_stage(nothing, spec, max_inputs=2, max_containers=1) as web, httpx.AsyncClient() as client:
            asked = [asyncio.ensure_future(client.get(web.url, timeout=30)) for _ in range(3)]
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            refused = [one.result().status_code for one in done]
            held.may_answer.set()
            statuses = sorted([(await one).status_code for one in asked])

    assert refused == [429]
    assert statuses == [200, 200, 429]


async def test_responses_are_counted_by_their_status() -> None:
    async def answers(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close" if scope["path"] == "/no" else "websocket.accept"})
        else:
            await respond(send, b"", status=int(scope["path"].strip("/")))

    async with program(answers) as port:
        spec = WebSpec(SERVER, port=port)
        async with web_stage(nothing, spec, max_inputs=10) as web, httpx.AsyncClient() as client:
            for status in (200, 404, 200):
                await client.get(f"{web.url}/{status}")
            await client.get(f"{web.url}/200?{'x' * 20_000}")
            async with connect(socket_url(web)):
                pass
            with pytest.raises(websockets.InvalidStatus):
                async with connect(socket_url(web, "/no")):
                    pass
            window = await web.stage.client.ask(
                "FunctionWindow", FunctionWindowGet(function_id(APP, "site")), FunctionWindow
            )

    assert window.responses == {"101": 1, "200": 2, "403": 1, "404": 1, "414": 1}


async def test_where_more_containers_may_come_requests_wait() -> None:
    held = Held()
    async with program(held) as port:
        spec = WebSpec(SERVER, port=port, requests_max=1)
        async with web_stage(nothing, spec, max_inputs=1) as web, httpx.AsyncClient() as client:
            asked = [asyncio.ensure_future(client.get(web.url, timeout=30)) for _ in range(3)]
            await web.stage.until(lambda: held.began.qsize() == 3 or any(one.done() for one in asked))
            assert not [one.result().status_code for one in asked if one.done()]
            held.may_answer.set()
            assert [(await one).status_code for one in asked] == [200, 200, 200]


async def test_second_container_comes_only_for_demand_that_lasts() -> None:
    held = Held()
    async with program(held) as port:
        spec = WebSpec(SERVER, port=port)
        async with web_stage(nothing, spec, max_inputs=1, scaleup_window_s=2.0) as web, httpx.AsyncClient() as client:
            stage = web.stage
            asked = [asyncio.ensure_future(client.get(web.url, timeout=30)) for _ in range(2)]
            await held.began.get()
            began, counts = stage.clock.monotonic(), set()
            while len(stage.node.started) < 2:
                counts.add((stage.clock.monotonic() - began < 1.0, len(stage.node.started)))
                await asyncio.sleep(0.005)
            held.may_answer.set()
            statuses = [(await one).status_code for one in asked]

    # For a second of the clock's time there was one, and for more than that, too.
    assert {(True, 1), (False, 1)} <= counts
    assert statuses == [200, 200]


@pytest.mark.parametrize("way", ["app", "container"])
@pytest.mark.parametrize(("grace_s", "status"), [(30.0, 200), (0.2, 502), (0.0, 502)])
async def test_what_was_given_is_finished_for_as_long_as_the_server_says(way: str, grace_s: float, status: int) -> None:
    held = Held()
    async with program(held) as port:
        spec = WebSpec(SERVER, port=port, exit_grace_s=grace_s)
        async with web_stage(nothing, spec, max_inputs=10) as web, httpx.AsyncClient() as client:
            asked = asyncio.ensure_future(status_of(client, web.url))
            await held.began.get()
            [container] = web.stage.plane.fleet.containers.values()
            if way == "app":
                ending: Any = web.stage.client.ask("AppStop", AppStop(APP), AppStopped)
            else:
                ending = web.stage.client.ask("ContainerStop", ContainerStop(container.container_id), Empty)
            ending = asyncio.ensure_future(ending)
            await web.stage.until(lambda: container.is_draining or bool(container.ending))
            elsewhere = await client.get(web.url) if way == "app" else None
            if status == 200:
                held.may_answer.set()
            answered = await asked
            # An app that stops says so; a container that ends in the middle says nothing.
            assert answered == (503 if way == "app" and not grace_s else status)
            await ending
            await web.stage.until(lambda: container.is_stopped)

    assert elsewhere is None or elsewhere.status_code == 404
