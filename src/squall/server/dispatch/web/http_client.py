"""HTTP/1.1 to a program that listens in a container: a request is written anew, a response read by uvicorn's parser.

One connection carries one request after the other, as long as the program keeps it open.
"""

from __future__ import annotations

from collections import deque

import httptools

from squall.protocol.web import WebRequest
from squall.server.model.port import PortStream

HEAD_BYTES_MAX = 256 * 1024
"""Of a response; more is none."""
_INFORMATIONAL = range(100, 200)


class BadResponse(Exception):
    """What the program has sent is no response of HTTP."""


class HttpConnection:
    """One connection. Write the head of a request, its body; read what comes."""

    def __init__(self, stream: PortStream) -> None:
        self.stream = stream
        self.is_reusable = False
        """The last response was whole, and another request may follow."""
        self.has_read = False
        """Something of the response has come."""
        self._is_chunked = False
        self._reader: _Reader | None = None

    async def begin(self, request: WebRequest, body: bytes) -> None:
        """Send the head of a request, with what there is of its body.

        Raises:
            PlatformError: see `PortStream`.
        """
        names = request.headers[::2]
        has_length = "content-length" in names
        self.is_reusable = self.has_read = False
        self._is_chunked = not has_length and (request.has_more or bool(body))
        self._reader = _Reader(is_head=request.method == "HEAD")
        await self.stream.write(head_of(request, is_chunked=self._is_chunked) + self._framed(body))
        if not request.has_more and self._is_chunked:
            await self.stream.write(b"0\r\n\r\n")

    async def give(self, data: bytes, *, has_more: bool) -> None:
        """More of the body. Raises as `begin`."""
        if data:
            await self.stream.write(self._framed(data))
        if not has_more and self._is_chunked:
            await self.stream.write(b"0\r\n\r\n")

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if data and self._is_chunked else data

    async def next(self) -> Part | None:
        """The next part of the response; None at its end.

        Raises:
            BadResponse: it is none, or ended too early.
            PlatformError: see `PortStream`.
        """
        reader = self._reader
        assert reader is not None, "nothing was asked"
        while not reader.parts:
            if reader.is_done:
                self.is_reusable = reader.keeps_open
                return None
            data = await self.stream.read()
            self.has_read = self.has_read or bool(data)
            if data:
                reader.feed(data)
            else:
                reader.end()
        return reader.parts.popleft()


class Part:
    """Of a response: its head, or a piece of its body."""

    __slots__ = ("data", "headers", "status")

    def __init__(self, status: int, headers: tuple[str, ...], data: bytes) -> None:
        self.status = status
        """0: of the body."""
        self.headers = headers
        self.data = data


class _Reader:
    """What the parser calls."""

    def __init__(self, *, is_head: bool) -> None:
        self.parts: deque[Part] = deque()
        self.is_done = False
        self.keeps_open = False
        self._is_head = is_head
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[str] = []
        self._head_bytes = 0
        self._is_begun = False
        self._has_body_come = False
        """With what was fed last."""
        self._has_end = False
        """Its own framing says where it ends, and not the connection's end."""

    def feed(self, data: bytes) -> None:
        if self.is_done:
            self.keeps_open = False  # more than was asked for: whose that is nobody knows
            return
        self._has_body_come = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            raise BadResponse("it wants to speak something else than HTTP") from error
        except httptools.HttpParserError as error:
            raise BadResponse(f"it is no response: {error}") from error
        # Behind the head there are sizes of chunks and trailers, of which the parser keeps one that does not end.
        self._head_bytes = 0 if self._has_body_come else self._head_bytes + len(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            raise BadResponse(f"its headers, or its trailers, have more than {HEAD_BYTES_MAX >> 10} KiB")

    def end(self) -> None:
        if self._is_begun and not self._has_end:
            self.is_done, self.keeps_open = True, False
        elif not self.is_done:
            raise BadResponse("the connection was closed before the response was whole")

    # The parser's

    def on_message_begin(self) -> None:
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_begun:
            return  # a trailer
        self._headers.append(name.decode("latin-1").lower())
        self._headers.append(value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status in _INFORMATIONAL:
            return
        names = self._headers[::2]
        values = self._headers[1::2]
        coding = ",".join(value for name, value in zip(names, values, strict=True) if name == "transfer-encoding")
        self._has_end = "content-length" in names or "chunked" in coding.lower() or status in (204, 304)
        self._is_begun = True
        self.parts.append(Part(status, tuple(self._headers), b""))
        if self._is_head:
            # The parser waits for a body that does not come; the connection is not used again.
            self.is_done, self._has_end = True, True

    def on_body(self, body: bytes) -> None:
        self._has_body_come = True
        if self._is_begun and not self.is_done:
            self.parts.append(Part(0, (), body))

    def on_message_complete(self) -> None:
        if self._is_begun and not self.is_done:
            self.is_done = True
            self.keeps_open = self._parser.should_keep_alive()


def head_of(request: WebRequest, *, is_chunked: bool = False) -> bytes:
    """The head of a request as it is written: for what listens, its path begins where its root ends."""
    path = request.raw_path
    if request.root_path and path.startswith(request.root_path):
        path = path[len(request.root_path) :]
    target = path if path.startswith("/") else f"/{path}"
    if request.query:
        target = f"{target}?{request.query}"
    lines = [f"{request.method} {target} HTTP/1.1"]
    lines += (f"{name}: {value}" for name, value in zip(request.headers[::2], request.headers[1::2], strict=True))
    if is_chunked:
        lines.append("transfer-encoding: chunked")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
