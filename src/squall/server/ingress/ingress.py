"""The ingress: an ASGI application before that of the API, on the same port.

A request is for a web function if it comes under a name with a label in front, under a custom domain, or under
`/w/LABEL/` of the server's own names; all others are the API's.
"""

from __future__ import annotations

import asyncio
import difflib
import socket
import struct
from collections import OrderedDict
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote, urlencode

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from squall.protocol.ids import new_id
from squall.protocol.web import ACCEPT, BYTES, CLOSE, DATA, SERVER, START, TEXT, WebRequest
from squall.server.ingress.answers import Answer, busy, of_failure
from squall.server.ingress.headers import has_body, host_of, of_request, of_response, token_of
from squall.server.ingress.lane import LOOK_S, Lane, Passing
from squall.server.model.web import CONNECTION, END, LATE, Busy, Exchange, Out, RequestFailed, Route, Web

PATH = "/w/"
ANSWER_S = 150.0
"""For how long a client waits for a response to begin before it is sent elsewhere to wait."""
KEPT_S = 300.0
"""For how long a response that has begun to come waits for its client to come back for it."""
KEPT_MAX = 10_000
PARAMETER = "__squall_request"
PATH_CHARS_MAX = 16 * 1024
"""Of a path with its query: what more has is refused."""


class Connection(Protocol):
    """What the HTTP protocol offers for a request's connection."""

    on_lost: Any
    """Called when it is gone."""
    transport: Any


class Ingress:
    """Wraps the API's application."""

    def __init__(self, api: ASGIApp, web: Web, own_names: frozenset[str], answer_s: float = ANSWER_S) -> None:
        """`own_names` are those that the API is found under."""
        self._api = api
        self.web = web
        self._own_names = own_names
        self._answer_s = answer_s
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self.lane = Lane(web, own_names, self, min(LOOK_S, answer_s))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        kind = scope["type"]
        if kind != "http" and kind != "websocket":
            await self._api(scope, receive, send)
            return
        found = self._route(scope)
        if found is None:
            await self._api(scope, receive, send)
            return
        route, root_path = found
        if isinstance(route, Answer):
            refusal: Answer | None = route
        else:
            refusal = self._refusal(route, scope)
            if route.web.kind == SERVER:
                send = self._noted(route, send)
        if kind == "websocket":
            await _Socket(self, scope, receive, send).run(route, root_path, refusal)
        elif refusal is not None:
            await answer(refusal, send)
        else:
            await self._http(route, root_path, scope, receive, send)

    def _noted(self, route: Route, send: Send) -> Send:
        is_begun = False

        async def noting(event: Any) -> None:
            nonlocal is_begun
            if not is_begun:
                is_begun = True
                refused = 403 if event["type"] == "websocket.close" else 101
                self.web.responded(route, event.get("status", refused))
            await send(event)

        return noting

    def is_for_api(self, scope: Scope) -> bool:
        """Whether a request is the API's."""
        host = host_of(scope)
        return host in self._own_names and not scope.get("path", "").startswith(PATH)

    # Who it is for

    def _route(self, scope: Scope) -> tuple[Any, str] | None:
        """The route and its root path, or what to say in its place; None where it is the API's."""
        host = host_of(scope)
        if host is None:
            return Answer(400, "a request names its host once (`Host`)"), ""
        if host in self._own_names:
            path = scope["path"]
            if not path.startswith(PATH):
                return None
            label = path[len(PATH) :].partition("/")[0].lower()
            return self._labelled(label), PATH + path[len(PATH) :].partition("/")[0]
        if host.endswith(self.web.host_suffix):
            return self._labelled(host[: -len(self.web.host_suffix)]), ""
        route = self.web.find_domain(host)
        return None if route is None else (route, "")

    def _labelled(self, label: str) -> Any:
        route = self.web.find(label)
        if route is not None:
            return route
        near = difflib.get_close_matches(label, self.web.labels(), 3) if len(label) <= 100 else []
        hint = f"; there is {' and '.join(near)}" if near else ""
        return Answer(404, f"no web function is found under {label[:100]!r} here{hint}")

    def _refusal(self, route: Route, scope: Scope) -> Answer | None:
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > PATH_CHARS_MAX:
            return Answer(414, f"a path with its query has {PATH_CHARS_MAX} characters at most")
        if not route.web.is_proxy_auth_required:
            return None
        token = token_of(scope)
        if token is not None and self.web.opens(*token, route.environment):
            return None
        text = "this web function needs a proxy token: send its id and secret once, as `Modal-Key` and `Modal-Secret`"
        return Answer(401, text, ((b"www-authenticate", b"Modal-Key"),))

    def head(self, scope: Scope, root_path: str, *, has_more: bool = False) -> WebRequest:
        """The head of a request as it goes on."""
        client, server = scope.get("client"), scope.get("server")
        return WebRequest(
            scope["type"],
            scope.get("method", "GET"),
            scope["scheme"],
            (scope.get("raw_path") or b"").decode("latin-1"),
            scope["query_string"].decode("latin-1"),
            of_request(scope, root_path),
            scope["http_version"],
            root_path,
            client[0] if client else "",
            client[1] if client else 0,
            server[0] if server else "",
            server[1] or 0 if server else 0,
            tuple(scope.get("subprotocols", ())),
            has_more,
        )

    # HTTP

    async def _http(self, route: Route, root_path: str, scope: Scope, receive: Receive, send: Send) -> None:
        name, kept = self._kept_for(route, scope)
        if kept is not None:
            await _Http(self, scope, receive, send, route, kept, name).run()
            return
        body, has_more = b"", False
        if has_body(scope):
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body, has_more = event["body"], event["more_body"]
        try:
            exchange = self.web.begin(route, self.head(scope, root_path, has_more=has_more), body)
        except Busy as error:
            await answer(busy(error), send)
            return
        await _Http(self, scope, receive, send, route, exchange).run(has_more=has_more)

    def go_on(self, passing: Passing) -> None:
        """See `lane.Long`."""
        assert passing.exchange is not None, "it has begun"
        protocol: Any = passing.protocol
        scope = protocol.scope_of(passing.url, passing.headers)
        scope["method"] = passing.method.decode("ascii")
        path, _, query = passing.url.partition(b"?")
        scope.update(path=unquote(path.decode("latin-1")), raw_path=path, query_string=query)
        cycle = RequestResponseCycle(
            scope=scope,
            transport=protocol.transport,
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=False,
            default_headers=protocol.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=passing.keep_alive,
            on_response=protocol.on_response_complete,
        )
        cycle.more_body = False
        protocol.cycle = cycle
        taken_in = passing.exchange

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            await _Http(self, scope, receive, send, passing.route, taken_in).run()

        protocol._start_asgi_task(cycle, respond)

    def _kept_for(self, route: Route, scope: Scope) -> tuple[str, Exchange | None]:
        """The request that a client comes back for, and what it is kept under."""
        if PARAMETER.encode() not in scope["query_string"]:
            return "", None
        name = dict(_query(scope)).get(PARAMETER, "")
        kept = self._kept.get(name)
        if kept is None or kept.label != route.label:
            return "", None
        del self._kept[name]
        kept.timer.cancel()
        return name, kept.exchange

    def keep(self, route: Route, exchange: Exchange, name: str = "") -> str:
        """Keep a request for a client that comes back for it, for a while. Returns what it is kept under."""
        name = name or new_id("rq")
        timer = asyncio.get_running_loop().call_later(KEPT_S, self._forget, name)
        self._kept[name] = _Kept(route.label, exchange, timer)
        while len(self._kept) > KEPT_MAX:
            self._forget(next(iter(self._kept)))
        return name

    def _forget(self, name: str) -> None:
        kept = self._kept.pop(name, None)
        if kept is not None:
            kept.timer.cancel()
            self.web.leave(kept.exchange)


class _Kept(NamedTuple):
    """A request whose client was sent elsewhere to wait."""

    label: str
    exchange: Exchange
    timer: asyncio.TimerHandle


class _Http:
    """An HTTP request that was taken in."""

    def __init__(
        self, ingress: Ingress, scope: Scope, receive: Receive, send: Send, route: Route, exchange: Exchange,
        kept_as: str = "",
    ) -> None:  # fmt: skip
        """`kept_as` is what the request was kept under, if its client has come back for it."""
        self._ingress = ingress
        self._scope = scope
        self._receive = receive
        self._send = send
        self._route = route
        self._exchange = exchange
        self._kept_as = kept_as
        self._is_begun = False

    async def run(self, *, has_more: bool = False) -> None:
        """Give the response to the client, as it comes, and what comes of the request to the application."""
        exchange, connection = self._exchange, self._scope[CONNECTION]
        # Who has been waiting elsewhere may do so again, over another connection.
        connection.on_lost = self._keep_again if self._kept_as else self._leave
        pumping = asyncio.ensure_future(self._pump()) if has_more else None
        reminding = asyncio.get_running_loop().call_later(self._ingress._answer_s, exchange.remind)
        try:
            while (out := await exchange.next()) is not None:
                if out.kind == LATE:
                    if await self._is_sent_elsewhere(pumping):
                        return
                elif await self._pass(out):
                    return
        except RequestFailed as error:
            if not self._is_begun:
                await answer(of_failure(error.failure, exchange.request_id), self._send)
            else:
                await abort(connection)
        except (RuntimeError, ValueError):
            # The application's response is none: longer than it said, or with headers that cannot be sent.
            self._leave()
            await abort(connection)
        finally:
            connection.on_lost = None
            reminding.cancel()
            if pumping is not None:
                pumping.cancel()

    async def _pass(self, out: Out) -> bool:
        """Something of the response goes on; whether it was the last."""
        is_last = out.kind == END
        if out.status:
            self._is_begun = True
            headers = of_response(out.headers)
            if is_last and not any(name == b"content-length" for name, _ in headers) and _has_length(out.status):
                headers.append((b"content-length", str(len(out.data)).encode()))
            await self._send({"type": "http.response.start", "status": out.status, "headers": headers})
        if out.data or is_last:
            await self._send({"type": "http.response.body", "body": out.data, "more_body": not is_last})
            self._exchange.taken(len(out.data))
        return is_last

    async def _pump(self) -> None:
        """The rest of a body goes on, as fast as the application takes it."""
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                return
            if not await self._exchange.give(event["body"], has_more=event["more_body"]) or not event["more_body"]:
                return

    async def _is_sent_elsewhere(self, pumping: asyncio.Future[None] | None) -> bool:
        """Nothing has come for long: the client is told where to wait, if it can wait there."""
        if self._route.web.kind == SERVER or (pumping is not None and not pumping.done()):
            return False
        if not self._exchange.is_running:
            self._leave()
            await answer(busy(Busy("no container could take the request")), self._send)
            return True
        self._scope[CONNECTION].on_lost = None
        name = self._ingress.keep(self._route, self._exchange, self._kept_as)
        query = [(key, value) for key, value in _query(self._scope) if key != PARAMETER]
        path = (self._scope.get("raw_path") or b"/").decode("latin-1")
        location = f"{path}?{urlencode([*query, (PARAMETER, name)])}".encode("latin-1")
        await answer(Answer(303, "it takes longer: wait there", ((b"location", location),)), self._send)
        return True

    def _leave(self) -> None:
        self._ingress.web.leave(self._exchange)

    def _keep_again(self) -> None:
        if self._is_begun:
            self._leave()
        else:
            self._ingress.keep(self._route, self._exchange, self._kept_as)


def _query(scope: Scope) -> list[tuple[str, str]]:
    return parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)


def _has_length(status: int) -> bool:
    return status >= 200 and status not in (204, 304)


class _Socket:
    """A WebSocket."""

    def __init__(self, ingress: Ingress, scope: Scope, receive: Receive, send: Send) -> None:
        self._ingress = ingress
        self._web = ingress.web
        self._scope = scope
        self._receive = receive
        self._send = send
        self._is_accepted = False

    async def run(self, route: Any, root_path: str, refusal: Answer | None) -> None:
        await self._receive()
        if refusal is not None:
            await self._refuse(refusal)
            return
        try:
            exchange = self._web.begin(route, self._ingress.head(self._scope, root_path), b"")
        except Busy as error:
            await self._refuse(busy(error))
            return
        reading = asyncio.ensure_future(self._read(exchange))
        try:
            await self._respond(exchange)
        finally:
            reading.cancel()

    async def _read(self, exchange: Exchange) -> None:
        while True:
            event = await self._receive()
            if event["type"] == "websocket.disconnect":
                self._web.leave(exchange, event.get("code") or 1005, event.get("reason") or "")
                return
            text = event.get("text")
            data = event.get("bytes") or b"" if text is None else text.encode()
            if not await exchange.give(data, has_more=False, kind=BYTES if text is None else TEXT):
                return

    async def _respond(self, exchange: Exchange) -> None:
        is_refused = False
        try:
            while (out := await exchange.next()) is not None:
                if out.kind == ACCEPT:
                    self._is_accepted = True
                    await self._send({
                        "type": "websocket.accept",
                        "subprotocol": out.subprotocol or None,
                        "headers": of_response(out.headers),
                    })  # fmt: skip
                elif out.kind == TEXT:
                    await self._send({"type": "websocket.send", "text": out.data.decode("utf-8", "replace")})
                    exchange.taken(len(out.data))
                elif out.kind == BYTES:
                    await self._send({"type": "websocket.send", "bytes": out.data})
                    exchange.taken(len(out.data))
                elif out.kind == CLOSE:
                    await self._close(out.code, out.reason)
                elif out.status and not self._is_accepted:
                    is_refused = True
                    await self._send({
                        "type": "websocket.http.response.start",
                        "status": out.status,
                        "headers": of_response(out.headers),
                    })  # fmt: skip
                if is_refused and out.kind in (START, DATA):
                    await self._send({"type": "websocket.http.response.body", "body": out.data, "more_body": True})
                elif out.kind not in (ACCEPT, TEXT, BYTES, CLOSE, START, DATA):
                    if is_refused:
                        await self._send({"type": "websocket.http.response.body", "body": out.data})
                    else:
                        await self._close(1000, "")
                    return
        except RequestFailed as error:
            if self._is_accepted:
                await self._close(1012 if error.failure.kind == "stopped" else 1011, "")
            elif not is_refused:
                await self._refuse(of_failure(error.failure, exchange.request_id))

    async def _close(self, code: int, reason: str) -> None:
        # One that its client has closed meanwhile takes no more.
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except RuntimeError:
            return

    async def _refuse(self, refusal: Answer) -> None:
        await self._send({
            "type": "websocket.http.response.start", "status": refusal.status, "headers": refusal.pairs,
        })  # fmt: skip
        await self._send({"type": "websocket.http.response.body", "body": refusal.body})


async def answer(found: Answer, send: Send) -> None:
    """Say it."""
    await send({"type": "http.response.start", "status": found.status, "headers": found.pairs})
    await send({"type": "http.response.body", "body": found.body})


async def abort(connection: Connection) -> None:
    """End a connection so that its client sees that the response is not whole: by a reset, in HTTP/1.0, too."""
    sock = connection.transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.transport.abort()
    await asyncio.sleep(0)  # the protocol hears of it before this request is over
