"""Web functions: what makes one, where it is found, and how a request gets to it and its response back.

A request, or a WebSocket, is an input of its function. Where the guest runs an application (`APPLICATIONS`), the
input's value is the request and events of ASGI pass over the container's channel, each side sending no more than
`WINDOW_BYTES` that the other has not taken:

    server                                   guest
      Inputs (value: request) ─────────────▶
      WebIn (data, text, bytes, gone) ─────▶
      ◀───────────────────── WebOut (start, data, accept, text, bytes, close)
      ◀──▶ WebCredit, either way
      ◀───────────────────── Outputs (value: the response, where none of it was sent before)

Where the function has made something listen at a port (`PROXIES`), the request goes there, and the guest hears nothing
of it (`port.py`).
"""

from __future__ import annotations

import struct

from squall.protocol.records import record, replace

ENDPOINT = "fastapi_endpoint"
ASGI = "asgi_app"
WSGI = "wsgi_app"
WEB_SERVER = "web_server"
SERVER = "server"
APPLICATIONS = frozenset({ENDPOINT, ASGI, WSGI})
PROXIES = frozenset({WEB_SERVER, SERVER})

WEB = "web"
"""The kind of a call (`call.py`) whose inputs are requests."""

WINDOW_BYTES = 2**20
"""Of one request, each way: what may be under way."""
CHUNK_BYTES_MAX = 256 * 1024
"""Of one event with a piece of a body."""
MESSAGE_BYTES_MAX = 16 * 2**20
"""Of one message of a WebSocket."""

START, DATA = "start", "data"
ACCEPT, TEXT, BYTES, CLOSE = "accept", "text", "bytes", "close"
GONE = "gone"
"""The client has gone."""


@record
class WebSpec:
    """What makes a function, or a method, one that answers requests."""

    kind: str
    """One of `APPLICATIONS` and `PROXIES`."""
    label: str = ""
    """The first part of its address; empty: made of the names of app and function."""
    custom_domains: tuple[str, ...] = ()
    """Names that lead to it, too."""
    is_proxy_auth_required: bool = False
    """Only requests with a proxy token are passed on."""
    method: str = "GET"
    """Of an endpoint, the one that it answers."""
    has_docs: bool = False
    """Of an endpoint: pages that describe it."""
    port: int = 0
    """Of proxies: where something listens in the container."""
    port_timeout_s: float = 5.0
    """For how long it may take to listen."""
    requests_max: int = 0
    """Of a server: requests that one container is given at a time; beyond, when there can be no other container, they
    are refused. 0: as many as there are."""
    exit_grace_s: float = 0.0
    """Of a server: for how long its container is to finish what it was given, where it would be ended at once."""


@record
class WebAddressList:
    """Ask where the web functions of an app are found, or those of one function; a page of them."""

    app_id: str = ""
    function_id: str = ""
    after: str = ""
    """The label of the last one of the answer before."""

    def following(self, listing: WebAddressListing) -> WebAddressList | None:
        """The question for the next page."""
        if not listing.is_cut or not listing.addresses or listing.addresses[-1].label <= self.after:
            return None
        return replace(self, after=listing.addresses[-1].label)


@record
class WebAddress:
    """Where a function, or a method of a class, is found."""

    function_id: str
    function_name: str
    method: str
    """Of a class; empty for a function."""
    label: str
    url: str
    """By the name of a host: `http://label.domain:port`."""
    path_url: str
    """By a path, for who cannot resolve that name: `http://127.0.0.1:port/w/label`."""
    custom_domains: tuple[str, ...] = ()
    kind: str = ""
    """As of its `WebSpec`."""


@record
class WebAddressListing:
    """In the order of their labels."""

    addresses: tuple[WebAddress, ...] = ()
    is_cut: bool = False
    """There are more."""


@record
class WebIn:
    """Something of a request for the guest that runs it; bytes are in the body."""

    call_id: str
    index: int
    kind: str
    """DATA, TEXT, BYTES or GONE."""
    has_more: bool = False
    """Of DATA: it was not the last."""
    code: int = 1005
    """Of GONE: why the WebSocket was closed."""
    reason: str = ""


@record
class WebOut:
    """Something that the application has sent; bytes are in the body."""

    call_id: str
    index: int
    kind: str
    """START, DATA, ACCEPT, TEXT, BYTES or CLOSE."""
    status: int = 0
    headers: tuple[str, ...] = ()
    """As of `WebRequest`."""
    subprotocol: str = ""
    code: int = 1000
    reason: str = ""


@record
class WebCredit:
    """So many bytes of a request, or of its response, were taken."""

    call_id: str
    index: int
    byte_count: int


# The values of inputs and outputs are not JSON: a server reads and writes tens of thousands a second.


@record
class WebRequest:
    """The head of a request, as ASGI has it."""

    type: str
    """`http` or `websocket`."""
    method: str
    scheme: str
    raw_path: str
    query: str = ""
    headers: tuple[str, ...] = ()
    """A name in lower case and its value, in turns; each character is a byte."""
    http_version: str = "1.1"
    root_path: str = ""
    client_host: str = ""
    client_port: int = 0
    server_host: str = ""
    server_port: int = 0
    subprotocols: tuple[str, ...] = ()
    has_more: bool = False
    """Of its body, after what comes with it."""


@record
class WebResponse:
    """A whole response, or what is left of one that was begun (status 0); its body, or the end of it, is beside it."""

    status: int = 0
    headers: tuple[str, ...] = ()
    """As of `WebRequest`."""


REQUEST_FIELDS = 13
"""Of a request's head before its headers."""
_LENGTH = struct.Struct("<I")


def encode_request(request: WebRequest, body: bytes) -> bytes:
    """A request as the value of an input: see `joined_request`.

    Raises:
        ValueError: something of it has a NUL in it.
    """
    fields = [
        request.type, request.method, request.scheme, request.http_version, request.raw_path, request.query,
        request.root_path, request.client_host, str(request.client_port), request.server_host,
        str(request.server_port), ",".join(request.subprotocols), "1" if request.has_more else "", *request.headers,
    ]  # fmt: skip
    if any("\0" in field for field in fields):
        raise ValueError("a request with a NUL in its head")
    return joined_request([field.encode("latin-1") for field in fields], body)


def joined_request(fields: list[bytes], body: bytes = b"") -> bytes:
    """The same of what is in bytes already: the fields of `WebRequest` in the order of `encode_request`, then names and
    values of headers, with NULs between. None of them may have one in it."""
    head = b"\0".join(fields)
    return _LENGTH.pack(len(head)) + head + body


def split_request(value: bytes) -> tuple[list[bytes], bytes]:
    """The fields of a request, as of `joined_request`, and what there is of its body.

    Raises:
        ValueError: the bytes are no request.
    """
    head, body = halves(value)
    fields = head.split(b"\0")
    if len(fields) < REQUEST_FIELDS or not len(fields) % 2:
        raise ValueError(f"a request of {len(fields)} fields")
    return fields, body


def encode_response(status: int, lines: bytes, body: bytes) -> bytes:
    """A response as the value of an output; `lines` are its headers as HTTP/1.1 writes them."""
    head = b"%d\r\n%b" % (status, lines)
    return _LENGTH.pack(len(head)) + head + body


def split_response(value: bytes) -> tuple[int, bytes, bytes]:
    """Status, lines of headers and body of one.

    Raises:
        ValueError: the bytes are no response.
    """
    head, body = halves(value)
    status, _, lines = head.partition(b"\r\n")
    return int(status), lines, body


def decode_response(value: bytes) -> tuple[WebResponse, bytes]:
    """The same as a record.

    Raises:
        ValueError: the bytes are no response.
    """
    status, lines, body = split_response(value)
    flat: list[str] = []
    for line in lines.split(b"\r\n"):
        if line:
            name, separator, text = line.partition(b": ")
            if not separator:
                raise ValueError("a response with a header that is none")
            flat += (name.decode("latin-1"), text.decode("latin-1"))
    return WebResponse(status, tuple(flat)), body


def halves(value: bytes) -> tuple[bytes, bytes]:
    """The head and the body of a request or a response.

    Raises:
        ValueError: the bytes are neither.
    """
    if len(value) < _LENGTH.size:
        raise ValueError("the value of an input or output is no request and no response")
    end = _LENGTH.size + _LENGTH.unpack_from(value)[0]
    if end > len(value):
        raise ValueError("the value of an input or output is cut off")
    return value[_LENGTH.size : end], value[end:]
