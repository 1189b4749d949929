"""Requests in a guest that is a process of its own, plain and forked: what it is told, and what it answers."""

from __future__ import annotations

import functools
import json
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from squall.protocol.call import CANCELLED, FAILED, SUCCEEDED, InputBatch, InputRefs, decode_failure
from squall.protocol.function import BY_FILE, Definition, MethodSpec
from squall.protocol.guest import Boot, GuestStop, Ready, StartupFailed
from squall.protocol.web import (
    ACCEPT,
    ASGI,
    CLOSE,
    DATA,
    ENDPOINT,
    GONE,
    START,
    TEXT,
    WEB_SERVER,
    WINDOW_BYTES,
    WSGI,
    WebCredit,
    WebIn,
    WebOut,
    WebRequest,
    WebResponse,
    WebSpec,
    decode_response,
    encode_request,
)
from tests.guest.started_guest import CALL, CONTAINER, Process, Way, start_process, ways

pytestmark = pytest.mark.long

CODE = """
import asyncio, ctypes, json, os, sys, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer

def app():
    started = []
    async def application(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                event = await receive()
                if event["type"] == "lifespan.startup":
                    scope["state"]["greeting"] = "hello"
                    await send({"type": "lifespan.startup.complete"})
                else:
                    print("shut down", flush=True)
                    await send({"type": "lifespan.shutdown.complete"})
                    return
        if scope["type"] == "websocket":
            await receive()
            if scope["path"] == "/closed":
                await send({"type": "websocket.close", "code": 4001, "reason": "no"})
                return
            await send({"type": "websocket.accept", "subprotocol": "chat"})
            while True:
                event = await receive()
                if event["type"] == "websocket.disconnect":
                    print("left with", event["code"], flush=True)
                    return
                if event.get("text") == "bye":
                    await send({"type": "websocket.close", "code": 4000, "reason": "bye"})
                    return
                await send({"type": "websocket.send", "text": event["text"].upper()})
        path = scope["path"]
        headers = [(b"content-type", b"text/plain")]
        if path == "/raise":
            raise RuntimeError("before it began")
        if path == "/split":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y\\r\\nset-cookie: z")]})
            await send({"type": "http.response.body", "body": b""})
        if path == "/silent":
            return
        if path == "/wait":
            event = await receive()
            while event["type"] != "http.disconnect":
                event = await receive()
            print("disconnected", flush=True)
            return
        if path == "/sum":
            total = 0
            while True:
                event = await receive()
                total += len(event.get("body", b""))
                if not event.get("more_body"):
                    break
            body = str(total).encode()
        elif path == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await receive()
            await receive()  # until the client has gone, in this test
            return
        elif path == "/large":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            sent = 0
            while sent < 4 * 2**20:
                await send({"type": "http.response.body", "body": b"x" * 2**20, "more_body": True})
                sent += 2**20
            await send({"type": "http.response.body", "body": b"end"})
            return
        elif path == "/raise-late":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            raise RuntimeError("after it began")
        elif path == "/raise-headed":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            raise RuntimeError("before any of it was sent")
        elif path == "/fork" or path == "/fork-unseen":
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            child = os.fork() if path == "/fork" else ctypes.PyDLL(None).fork()
            body = str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode() if child else b"the child's"
            await send({"type": "http.response.body", "body": body})
            return
        elif path == "/head-first":
            await send({"type": "http.response.start", "status": 202, "headers": headers})
            await receive()
            await receive()
            return
        else:
            body = json.dumps({
                "state": scope["state"], "method": scope["method"], "query": scope["query_string"].decode(),
                "root": scope["root_path"], "client": scope["client"],
                "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
            }).encode()
        await send({"type": "http.response.start", "status": 201, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    return application

def wsgi():
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/raise":
            raise RuntimeError("in a thread")
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain"), ("X-Query", environ["QUERY_STRING"])])
        if environ["PATH_INFO"] == "/stream":
            return (piece for piece in (b"one", b"two"))
        return [b"got ", str(len(body)).encode(), b" in ", threading.current_thread().name.encode()[:11]]
    return application

def item(number: int = 3):
    return {"twice": number * 2}

async def item_later(number: int = 3):
    await asyncio.sleep(0)
    return {"thrice": number * 3}

def no_app():
    return 7

def raises():
    raise ValueError("no application today")

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"served")

def listens():
    server = HTTPServer(("127.0.0.1", PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()

def listens_itself():
    HTTPServer(("127.0.0.1", PORT), Handler).serve_forever()

def listens_nowhere():
    pass
"""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


class Guest:
    """A guest that answers requests."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.agent = process.agent
        self._index = 0

    def boot(self, name: str, kind: str, *, max_inputs: int = 10, is_async: bool = False, **more: object) -> None:
        spec = WebSpec(kind, **more)  # type: ignore[arg-type]
        definition = Definition(BY_FILE, "web_code", name, is_async=is_async)
        boot = Boot(CONTAINER, "ap-1", "app", "fu-1", name, definition, max_inputs=max_inputs, web=spec)
        self.process.introduce(boot)

    def serve(self, name: str, kind: str, **more: object) -> None:
        self.boot(name, kind, **more)  # type: ignore[arg-type]
        self.agent.expect("Ready", Ready)

    def ask(self, path: str = "/", body: bytes = b"", **more: object) -> int:
        """Begin a request; returns its index."""
        head = WebRequest("http", "GET", "http", path, "a=1", **more)  # type: ignore[arg-type]
        return self._give(head, body)

    def connect(self, path: str = "/") -> int:
        return self._give(WebRequest("websocket", "GET", "ws", path, subprotocols=("chat",)))

    def _give(self, head: WebRequest, body: bytes = b"") -> int:
        index, self._index = self._index, self._index + 1
        value = encode_request(head, body)
        self.agent.say("Inputs", InputBatch(CALL, (index,), (len(value),), (0,)), value)
        return index

    def say(self, index: int, kind: str, body: bytes = b"", **more: object) -> None:
        self.agent.say("WebIn", WebIn(CALL, index, kind, **more), body)  # type: ignore[arg-type]

    def credit(self, index: int, count: int) -> None:
        self.agent.say("WebCredit", WebCredit(CALL, index, count))

    def out(self) -> tuple[WebOut, bytes]:
        return self.agent.expect("WebOut", WebOut)

    def response(self) -> tuple[WebResponse, bytes]:
        """The response that an output is, or the end of one."""
        status, value = self.process.output()
        assert status == SUCCEEDED, decode_failure(value)
        return decode_response(value)


@pytest.fixture(params=ways())
def guest(request: pytest.FixtureRequest, data_dir: Path) -> Iterator[Guest]:
    process = Process(data_dir, functools.partial(start_process, way=request.param), {"web_code.py": CODE})
    yield Guest(process)
    process.close()


@pytest.fixture
def plain(data_dir: Path) -> Iterator[Callable[..., Guest]]:
    """Starts a guest with a port in its code."""
    started = []

    def begin(port: int = 0) -> Guest:
        way = Way(sys.executable)
        code = {"web_code.py": f"PORT = {port}\n{CODE}"}
        started.append(Process(data_dir, functools.partial(start_process, way=way), code))
        return Guest(started[-1])

    yield begin
    for one in started:
        one.close()


def test_request_is_answered_in_one_piece(guest: Guest) -> None:
    guest.serve("app", ASGI)
    guest.ask("/x", headers=("x-one", "\xe4"), root_path="/w/x", client_host="10.0.0.1", client_port=5)

    head, body = guest.response()

    assert (head.status, head.headers) == (201, ("content-type", "text/plain"))
    assert json.loads(body) == {
        "state": {"greeting": "hello"},
        "method": "GET",
        "query": "a=1",
        "root": "/w/x",
        "client": ["10.0.0.1", 5],
        "headers": [["x-one", "\xe4"]],
    }


def test_requests_run_beside_each_other_and_the_lifespan_ends_after_them(guest: Guest) -> None:
    guest.serve("app", ASGI)
    guest.ask("/wait")
    guest.ask("/x")

    assert guest.response()[0].status == 201
    guest.say(0, GONE)
    assert guest.process.output()[0] == SUCCEEDED
    guest.agent.say("GuestStop", GuestStop())
    code, printed = guest.process.end()
    lines = [line.rpartition("\x1f")[2] for line in printed.splitlines() if line]
    assert (code, lines) == (0, ["disconnected", "shut down"])


def test_body_is_sent_only_when_the_application_wants_it(guest: Guest) -> None:
    guest.serve("app", ASGI)
    index = guest.ask("/sum", b"first", has_more=True)

    credit, _ = guest.agent.expect("WebCredit", WebCredit)
    assert (credit.index, credit.byte_count) == (index, WINDOW_BYTES)
    guest.say(index, DATA, b"x" * (WINDOW_BYTES // 2), has_more=True)
    assert guest.agent.expect("WebCredit", WebCredit)[0].byte_count == WINDOW_BYTES // 2
    guest.say(index, DATA, b"last")

    assert guest.response() == (WebResponse(201, ("content-type", "text/plain")), str(9 + WINDOW_BYTES // 2).encode())


def test_first_piece_of_a_stream_leaves_at_once_with_the_head(guest: Guest) -> None:
    guest.serve("app", ASGI)
    index = guest.ask("/stream")

    out, body = guest.out()

    assert (out.kind, out.status, out.headers, body) == (START, 200, ("content-type", "text/plain"), b"one")
    guest.say(index, GONE)
    assert guest.process.output() == (SUCCEEDED, b"")


def test_head_leaves_without_a_body_when_none_follows_in_the_same_turn(guest: Guest) -> None:
    guest.serve("app", ASGI)
    guest.ask("/head-first")

    out, body = guest.out()

    assert (out.kind, out.status, body) == (START, 202, b"")


def test_no_more_leaves_than_a_window(guest: Guest) -> None:
    guest.serve("app", ASGI)
    index = guest.ask("/large")

    came = 0
    while came < WINDOW_BYTES:
        came += len(guest.out()[1])
    guest.process.let_it_begin()
    assert guest.agent.events.empty()
    guest.credit(index, 4 * WINDOW_BYTES)
    while came < 4 * 2**20:
        came += len(guest.out()[1])

    assert guest.response() == (WebResponse(), b"end")


@pytest.mark.parametrize("path", ["/raise", "/raise-headed", "/silent", "/raise-late", "/split"])
def test_application_that_fails_is_a_failed_input(guest: Guest, path: str) -> None:
    guest.serve("app", ASGI)
    guest.ask(path)

    status, value = guest.process.output()

    assert status == FAILED
    assert decode_failure(value)[0].type_name in ("RuntimeError", "Misused")


@pytest.mark.parametrize("path", ["/fork", "/fork-unseen"])
def test_child_that_comes_back_answers_nothing(guest: Guest, path: str) -> None:
    guest.serve("app", ASGI)

    for _ in range(2):
        guest.ask(path)
        assert guest.response() == (WebResponse(200, ("content-type", "text/plain")), b"0")


def test_cancelled_request_ends(guest: Guest) -> None:
    guest.serve("app", ASGI)
    guest.ask("/wait")
    guest.process.let_it_begin()

    guest.agent.say("CancelInputs", InputRefs(CALL, (0,)))

    assert guest.process.output()[0] == CANCELLED


def test_messages_of_a_websocket(guest: Guest) -> None:
    guest.serve("app", ASGI)
    index = guest.connect()

    out, _ = guest.out()
    assert (out.kind, out.subprotocol) == (ACCEPT, "chat")
    guest.say(index, TEXT, "grüße".encode())
    out, body = guest.out()
    assert (out.kind, body.decode()) == (TEXT, "GRÜSSE")
    guest.say(index, TEXT, b"bye")
    out, _ = guest.out()
    assert (out.kind, out.code, out.reason) == (CLOSE, 4000, "bye")
    assert guest.process.output() == (SUCCEEDED, b"")


def test_websocket_that_is_refused(guest: Guest) -> None:
    guest.serve("app", ASGI)
    guest.connect("/closed")

    out, _ = guest.out()

    assert (out.kind, out.code) == (CLOSE, 4001)


def test_client_that_leaves_a_websocket_is_seen_with_its_code(guest: Guest) -> None:
    guest.serve("app", ASGI)
    index = guest.connect()
    guest.out()

    guest.say(index, GONE, code=4444)

    assert guest.process.output() == (SUCCEEDED, b"")
    guest.agent.say("GuestStop", GuestStop())
    assert "left with 4444" in guest.process.end()[1]


def test_wsgi_application_runs_in_threads_of_its_own(guest: Guest) -> None:
    guest.serve("wsgi", WSGI)
    guest.ask("/", b"12345")

    head, body = guest.response()

    assert (head.status, body) == (200, b"got 5 in squall-wsgi")
    assert head.headers == ("content-type", "text/plain", "x-query", "a=1")


def test_wsgi_application_streams(guest: Guest) -> None:
    guest.serve("wsgi", WSGI)
    guest.ask("/stream")

    assert [guest.out()[1], guest.out()[1]] == [b"one", b"two"]
    assert guest.response() == (WebResponse(), b"")


@pytest.mark.parametrize(("name", "is_async", "expected"), [("item", False, "twice"), ("item_later", True, "thrice")])
def test_endpoint_is_one_route(plain: Callable[..., Guest], name: str, is_async: bool, expected: str) -> None:
    guest = plain()
    guest.serve(name, ENDPOINT, is_async=is_async)
    guest.ask("/")
    head, body = guest.response()
    assert (head.status, list(json.loads(body))) == (200, [expected])

    guest.ask("/docs")

    assert guest.response()[0].status == 404


def test_endpoint_with_pages_that_describe_it(plain: Callable[..., Guest]) -> None:
    guest = plain()
    guest.serve("item", ENDPOINT, has_docs=True)

    guest.ask("/openapi.json")

    assert guest.response()[0].status == 200


@pytest.mark.parametrize(
    ("name", "cause"), [("no_app", "returned 7, which is no asgi_app"), ("raises", "no application today")]
)
def test_application_that_is_none_fails_the_start(guest: Guest, name: str, cause: str) -> None:
    guest.boot(name, ASGI)

    failed, _ = guest.agent.expect("StartupFailed", StartupFailed)

    assert cause in failed.failure.message


@pytest.mark.parametrize("name", ["listens", "listens_itself"])
def test_function_that_serves_is_ready_when_its_port_is(plain: Callable[..., Guest], name: str) -> None:
    port = free_port()
    guest = plain(port)

    guest.serve(name, WEB_SERVER, port=port)

    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"200" in connection.recv(1_000)


def test_function_that_never_listens_fails_its_start(plain: Callable[..., Guest]) -> None:
    guest = plain()

    guest.boot("listens_nowhere", WEB_SERVER, port=free_port(), port_timeout_s=0.2)

    failed, _ = guest.agent.expect("StartupFailed", StartupFailed)
    assert "nothing listens at port" in failed.failure.message
    assert failed.failure.type_name == "TimeoutError"


def test_guest_that_comes_back_ends_streams_and_keeps_whole_responses(guest: Guest) -> None:
    guest.serve("app", ASGI)
    guest.ask("/wait")
    guest.process.let_it_begin()

    guest.agent.drop()
    guest.agent.come_back()

    # The client is gone for the application, and a response that is whole counts all the same.
    said: set[str] = set()
    while not said >= {"Outputs", "Ready"}:
        said.add(guest.agent.events.get(timeout=10)[0].method)
    guest.ask("/x")
    assert guest.response()[0].status == 201


CLASS = """
import squall
app = squall.App()
@app.cls()
class Site:
    @squall.enter()
    def load(self):
        self.name = "site"
    @squall.method()
    def plain(self, x):
        return (self.name, x)
    @squall.method()
    def other(self):
        async def application(scope, receive, send):
            if scope["type"] == "lifespan":
                raise NotImplementedError
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": self.name.encode()})
        return application
    @squall.exit()
    def leave(self):
        print("left", flush=True)
"""


def test_class_answers_requests_and_calls(data_dir: Path) -> None:
    process = Process(data_dir, functools.partial(start_process, way=Way(sys.executable)), {"web_class.py": CLASS})
    guest = Guest(process)
    try:
        methods = (MethodSpec("plain"), MethodSpec("other", web=WebSpec(ASGI)))
        definition = Definition(BY_FILE, "web_class", "Site", is_class=True, methods=methods)
        process.introduce(Boot(CONTAINER, "ap-1", "app", "fu-1", "Site", definition, max_inputs=2))
        guest.agent.expect("Ready", Ready)
        value = encode_request(WebRequest("http", "GET", "http", "/"), b"")
        guest.agent.say("Inputs", InputBatch(CALL, (0,), (len(value),), (0,), method="other"), value)
        assert guest.response() == (WebResponse(200), b"site")
        guest.agent.say("GuestStop", GuestStop())
        assert process.end() == (0, "left\n")
    finally:
        process.close()
