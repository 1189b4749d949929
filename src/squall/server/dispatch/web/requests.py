"""Requests become inputs here, and outputs responses.

All requests for a function, or for a method of a class, are inputs of one call, until it has had so many or is so old;
then there is the next. So what comes in one turn of the event loop leaves in one frame, and comes back in few.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from squall.protocol.call import SUCCEEDED, Failure, InputBatch, ItemBatch, OutputBatch, cut, decode_failure
from squall.protocol.ids import new_id
from squall.protocol.web import PROXIES, WEB, WebCredit, WebOut, WebRequest, decode_response, encode_request
from squall.server.dispatch.function.input import Call
from squall.server.dispatch.web.exchange import Exchange
from squall.server.dispatch.web.proxied import Proxied, Proxies
from squall.server.model.web import END, Busy, Full, Out, Whole

if TYPE_CHECKING:
    from squall.server.dispatch.client.shelf import Kept
    from squall.server.dispatch.fleet.container import Container
    from squall.server.dispatch.function.call_table import CallTable
    from squall.server.dispatch.function.dispatcher import Dispatcher
    from squall.server.dispatch.web.routes import Route
    from squall.server.model.clock import Clock

CALL_REQUESTS_MAX = 1_000
"""Of one call; what is seen of each is kept for as many (`flight/recorder.py`)."""
CALL_S = 60.0
"""After that long a call that has nothing to do ends, and requests that come get another."""
WAITING_MAX = 1_000
"""Requests of one function that wait for a container."""

_log = logging.getLogger("squall.server.dispatch.web.requests")


class Requests:
    """All requests on their way; the sink of their calls."""

    def __init__(self, calls: CallTable, clock: Clock, proxies: Proxies) -> None:
        self._calls = calls
        self.proxies = proxies
        self._clock = clock
        self._current: dict[tuple[Dispatcher, str], Call] = {}
        """The call that the next request will be an input of."""
        self._exchanges: dict[str, dict[int, Exchange]] = {}
        """By call and index."""

    def begin(self, route: Route, head: WebRequest, body: bytes) -> Exchange:
        """A request has come; `body` is what has come of it.

        Raises:
            Busy: as many wait as may.
            Full: none is to wait.
        """
        dispatcher = route.dispatcher
        if dispatcher.queued >= WAITING_MAX:
            raise Busy(f"{dispatcher.queued} requests wait for {dispatcher.spec.name}")
        if route.web.requests_max and not dispatcher.free:
            _check_room(dispatcher, route.web.requests_max)
        call = self._call_for(dispatcher, route.method, is_proxied=route.web.kind in PROXIES)
        index = call.input_count
        exchange: Exchange
        if call.proxy is None:
            exchange, value = Exchange(call.call_id, index), encode_request(head, body)
        else:
            exchange, value = Proxied(call.call_id, index, head, body, route.web.port), b""
        self._exchanges[call.call_id][index] = exchange
        dispatcher.put(call, InputBatch(call.call_id, (index,), (len(value),)), value)
        one = exchange.one = call.inputs.get(index)
        if one is not None and isinstance(exchange, Proxied):
            self.proxies.add(one, exchange)
        return exchange

    def begin_whole(self, route: Route, value: bytes, taker: Whole) -> Exchange:
        """See `model.web.Web`."""
        dispatcher = route.dispatcher
        if dispatcher.queued >= WAITING_MAX:
            raise Busy(f"{dispatcher.queued} requests wait for {dispatcher.spec.name}")
        call = self._call_for(dispatcher, route.method, is_proxied=False)
        index = call.input_count
        exchange = self._exchanges[call.call_id][index] = Exchange(call.call_id, index)
        exchange.one = dispatcher.put_one(call, index, value)
        if exchange.one is not None:
            exchange.taker = taker
        else:
            # It was refused, and whoever asks hears why; but not before it has this.
            asyncio.get_running_loop().call_soon(taker.other)
        return exchange

    def _call_for(self, dispatcher: Dispatcher, method: str, *, is_proxied: bool) -> Call:
        key = (dispatcher, method)
        call = self._current.get(key)
        if call is not None and call.input_count < CALL_REQUESTS_MAX and (call.proxy is not None) == is_proxied:
            return call
        made = Call(new_id("fc"), WEB, dispatcher, self, self._clock.now(), None, method)
        made.proxy = self.proxies if is_proxied else None
        self._current[key] = made
        self._exchanges[made.call_id] = {}
        self._calls.add(made)
        if call is not None:
            self._end_if_done(call)
        return made

    def _end_if_done(self, call: Call) -> None:
        """A call ends when its last response has come, and no more requests are for it."""
        if call.inputs:
            return
        key = (call.dispatcher, call.method)
        if self._current.get(key) is call:
            if self._clock.now() - call.created_at < CALL_S and call.dispatcher.stopped is None:
                return
            del self._current[key]
        call.is_closed = True
        self._exchanges.pop(call.call_id, None)
        self._calls.end_if_over(call)

    def tick(self) -> None:
        """Calls that have nothing to do end."""
        for call in list(self._current.values()):
            self._end_if_done(call)

    def leave(self, exchange: Exchange, code: int = 1006, reason: str = "") -> None:
        """The client of a request has gone. One that still waits for a container will not be run."""
        one = exchange.one
        exchange.leave(code, reason)
        if one is not None and one.container is None:
            one.call.dispatcher.attempts.cancel([one])

    # From guests

    def out(self, container: Container, record: WebOut, body: bytes) -> None:
        """Something of a response."""
        exchange = self._of(container, record.call_id, record.index)
        if exchange is not None and not exchange.came(record, body):
            container.dispatcher.fleet.kill(container, "it sent more of a response than it was asked for")

    def credit(self, container: Container, record: WebCredit) -> None:
        """Some of a request was taken."""
        exchange = self._of(container, record.call_id, record.index)
        if exchange is not None and record.byte_count > 0:
            exchange.credited(record)

    def _of(self, container: Container, call_id: str, index: int) -> Exchange | None:
        exchange = self._exchanges.get(call_id, {}).get(index)
        return exchange if exchange is not None and exchange.container is container else None

    def cut(self, container: Container) -> None:
        """The connection to a container's guest is gone, with what was on its way over it."""
        for one in list(container.held):
            exchange = self._exchanges.get(one.call.call_id, {}).get(one.index)
            if exchange is not None:
                why = "the connection to its container broke in the middle of the response"
                exchange.cut(Failure("lost", why, container_id=container.container_id))

    # As the sink of calls

    def put_outputs(self, call: Call, record: OutputBatch, body: bytes) -> None:
        """See `Sink`."""
        exchanges = self._exchanges.get(call.call_id, {})
        for index, status, value in zip(record.indexes, record.statuses, cut(body, record.sizes), strict=True):
            exchange = exchanges.pop(index, None)
            if exchange is None:
                continue
            if call.proxy is not None and exchange.one is not None:
                self.proxies.forget(exchange.one)
            taker = exchange.taker
            if taker is not None and status == SUCCEEDED and taker.whole(value):
                exchange.taker = exchange.one = None
                continue
            try:
                if status == SUCCEEDED:
                    exchange.ended(_response(value))
                else:
                    exchange.ended(None, decode_failure(value)[0])
            except (ValueError, UnicodeDecodeError) as error:
                exchange.ended(None, Failure("invalid", f"the response cannot be read: {error}"))
        if self._current.get((call.dispatcher, call.method)) is not call or call.dispatcher.stopped is not None:
            self._end_if_done(call)

    def put_items(self, call: Call, record: ItemBatch, body: bytes) -> None:
        """See `Sink`. A request has none."""
        _log.warning("%s sent items in the place of a response", call.dispatcher.spec.name)

    def put_notice(self, call_id: str, text: str) -> None:
        """See `Sink`: containers do not start. Who waits for a response is not to wait for what will not be."""
        call = self._calls.get(call_id)
        if call is not None:
            waiting = [one for one in call.inputs.values() if one.container is None]
            call.dispatcher.fail(waiting, Failure("unavailable", text.removesuffix("; the call waits")))

    def call_ended(self, call: Call) -> None:
        """See `Sink`."""
        self._exchanges.pop(call.call_id, None)

    def let_go(self, kept: Kept) -> None:
        """See `Sink`. Nothing is kept on the shelf."""


def _check_room(dispatcher: Dispatcher, requests_max: int) -> None:
    """Raises Full when all containers that there may be have, or will have, so many requests each."""
    limit = dispatcher.scaling.max_containers
    if limit is None:
        return
    going_on = [one for one in dispatcher.containers.values() if not one.is_draining and not one.ending]
    count = dispatcher.queued + sum([len(one.held) for one in going_on])
    if count >= requests_max * limit:
        raise Full(f"{dispatcher.spec.name} answers {count:,} requests, and takes no more at a time")


def _response(value: bytes) -> Out | None:
    """The response that an output is, or the end of one; None where all was sent before."""
    if not value:
        return Out(END, b"")
    response, body = decode_response(value)
    return Out(END, body, response.status, response.headers)
