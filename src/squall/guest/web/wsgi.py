"""A WSGI application as one of ASGI: each request in a thread, its body read and its response written as they come."""

from __future__ import annotations

import asyncio
import contextvars
import io
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from squall.guest.web.exchange import Event, Scope

Receive = Callable[[], Any]
Send = Callable[[Event], Any]
Environ = dict[str, Any]


class FromWsgi:
    """Answers HTTP requests by a WSGI application (PEP 3333)."""

    def __init__(self, application: Callable[..., Iterable[bytes]], threads: int) -> None:
        self._application = application
        self._threads = ThreadPoolExecutor(threads, "squall-wsgi")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            raise LookupError("WSGI has no lifespan")
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": "this application has no WebSockets"})
            return
        loop = asyncio.get_running_loop()
        call = _Call(self._application, scope, loop, receive, send)
        running = loop.run_in_executor(self._threads, contextvars.copy_context().run, call.run)
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            # A thread cannot be stopped: it is told so where it reads or writes, and waited for.
            call.is_cancelled = True
            await asyncio.wait([running])
            raise


class Disconnected(OSError):
    """The client has gone, or the request was cancelled."""


class _Call:
    """One request, in its thread."""

    def __init__(
        self, application: Callable[..., Iterable[bytes]], scope: Scope, loop: asyncio.AbstractEventLoop,
        receive: Receive, send: Send,
    ) -> None:  # fmt: skip
        self._application = application
        self._scope = scope
        self._loop = loop
        self._receive = receive
        self._send_event = send
        self._start: Event | None = None
        self._is_started = self._is_ended = False
        self._left = -1
        """Of the body, by what its headers say; negative where they do not."""
        self.is_cancelled = False

    def run(self) -> None:
        environ = environ_of(self._scope, io.BufferedReader(_Input(self._wait, self._receive), 64 * 1024))
        chunks = self._application(environ, self._start_response)
        try:
            if isinstance(chunks, (list, tuple)):
                self._send(b"".join(chunks), has_more=False)
                return
            for chunk in chunks:
                if chunk:
                    self._body(chunk)
            if not self._is_ended:
                self._send(b"", has_more=False)
        finally:
            close = getattr(chunks, "close", None)
            if close is not None:
                close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None:
            try:
                if self._is_started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._start is not None:
            raise AssertionError("start_response was called a second time, without exc_info")
        self._start = {
            "type": "http.response.start",
            "status": int(status.split(" ", 1)[0]),
            "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers],
        }
        lengths = [value for name, value in headers if name.lower() == "content-length"]
        self._left = int(lengths[0]) if lengths else -1
        return self._body

    def _body(self, data: bytes) -> None:
        if self._left >= 0:
            self._left = max(0, self._left - len(data))
        # Whole by its own account: what needs no second event comes to its client in one piece.
        self._send(data, has_more=self._left != 0)

    def _send(self, data: bytes, *, has_more: bool) -> None:
        if self._start is None:
            raise AssertionError("the application sent a body before it called start_response")
        if self._is_ended:
            return  # more than it has said
        events: list[Event] = [] if self._is_started else [self._start]
        self._is_started, self._is_ended = True, not has_more
        self._wait(self._send_all([*events, {"type": "http.response.body", "body": data, "more_body": has_more}]))

    async def _send_all(self, events: list[Event]) -> None:
        for event in events:
            await self._send_event(event)

    def _wait(self, awaitable: Any) -> Any:
        if self.is_cancelled:
            awaitable.close()
            raise Disconnected("the request was cancelled")
        return asyncio.run_coroutine_threadsafe(awaitable, self._loop).result()


class _Input(io.RawIOBase):
    """The body of a request, read from a thread."""

    def __init__(self, wait: Callable[[Any], Any], receive: Receive) -> None:
        self._wait = wait
        self._receive = receive
        self._left = b""
        self._is_whole = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left and not self._is_whole:
            event = self._wait(self._receive())
            if event["type"] == "http.disconnect":
                raise Disconnected("the client has gone")
            self._left = event.get("body", b"")
            self._is_whole = not event.get("more_body", False)
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count


def environ_of(scope: Scope, body: Any) -> Environ:
    """What PEP 3333 says of a request."""
    root, path = scope.get("root_path", ""), scope["path"]
    if root and path.startswith(root):
        path = path[len(root) :]
    environ: Environ = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": root.encode().decode("latin-1"),
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        # It ends where the body does, also where no length is said.
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if scope.get("server"):
        environ["SERVER_NAME"], environ["SERVER_PORT"] = scope["server"][0], str(scope["server"][1] or "")
    if scope.get("client"):
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = scope["client"][0], str(scope["client"][1])
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name in ("content-length", "content-type"):
            environ[name.upper().replace("-", "_")] = value
            continue
        if "_" in name:
            continue  # it would pass for the one with a dash
        key = "HTTP_" + name.upper().replace("-", "_")
        environ[key] = f"{environ[key]}{'; ' if name == 'cookie' else ','}{value}" if key in environ else value
    return environ
