"""Run requests on an event loop, which reads the guest's connection itself: between a frame and the application that it
is for there is no other thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable

from squall.guest.async_runner import AsyncRunner
from squall.guest.inbox import Input, Key, Stopping, Work
from squall.guest.link import LinkLost
from squall.guest.runner import Outcome, RunnerParts, cancelled, end_forked, failed
from squall.guest.web.applications import Applications, Web
from squall.guest.web.exchange import Beginnings, Exchange
from squall.protocol.call import SUCCEEDED
from squall.protocol.codec import Envelope
from squall.protocol.guest import Boot
from squall.protocol.web import WebCredit, WebIn
from squall.sdk import _container


class WebRunner(AsyncRunner):
    """An `AsyncRunner` some or all of whose inputs are requests."""

    def __init__(self, parts: RunnerParts, boot: Boot, start: Callable[[], None]) -> None:
        super().__init__(parts, boot.max_inputs, start)
        self._applications = Applications(boot, parts)
        self._has_hooks_here = boot.definition.is_async
        """Hooks of the class are run on this loop; else they have been, or will be, around it."""
        self._exchanges: dict[Key, Exchange] = {}
        self._beginnings = Beginnings()
        self._is_flushing = False
        self._reading_fd = -1
        parts.inbox.on_web = self._came

    # Before and after

    async def _begin(self) -> None:
        if self._has_hooks_here:
            await super()._begin()
        try:
            await self._applications.begin()
        except BaseException:
            await self._leave()
            raise

    async def _leave(self) -> None:
        await self._applications.end()
        if self._has_hooks_here:
            await super()._leave()

    # Reading

    def _begin_reading(self, loop: asyncio.AbstractEventLoop) -> None:
        self._parts.inbox.read_on_loop()
        while self._parts.link.has_unread:
            self._parts.inbox.read_now()
        self._take_all()
        self._watch_link(loop)

    def _watch_link(self, loop: asyncio.AbstractEventLoop) -> None:
        self._reading_fd = self._parts.link.fileno()
        if self._reading_fd < 0:
            self._reconnect(loop)
        else:
            loop.add_reader(self._reading_fd, self._readable, loop)

    def _readable(self, loop: asyncio.AbstractEventLoop) -> None:
        if os.getpid() != self._pid:
            return  # a child that user code forked in the loop, and that is no second guest
        descriptor = self._reading_fd
        if self._parts.inbox.read_now():
            self._take_all()
            return
        loop.remove_reader(descriptor)
        self._reconnect(loop)

    def _reconnect(self, loop: asyncio.AbstractEventLoop) -> None:
        # Who waited there for a response has lost it, or what was on its way of it.
        for exchange in self._exchanges.values():
            exchange.gone(is_cut=True)
        connecting = loop.run_in_executor(None, self._parts.inbox.reconnect)

        def connected(_: asyncio.Future[None]) -> None:
            self._take_all()
            if not self._done.is_set():
                self._watch_link(loop)

        connecting.add_done_callback(connected)

    def _take_all(self) -> None:
        try:
            while (item := self._parts.inbox.pop()) is not None:
                self._start(item)
        except (Stopping, LinkLost):
            self._done.set()

    def _came(self, envelope: Envelope, body: bytes) -> None:
        record = self._parts.link.codec.record
        if envelope.method == "WebIn":
            more = record(WebIn, envelope.params)
            exchange = self._exchanges.get((more.call_id, more.index))
            if exchange is not None:
                exchange.came(more, body)
        else:
            credit = record(WebCredit, envelope.params)
            exchange = self._exchanges.get((credit.call_id, credit.index))
            if exchange is not None:
                exchange.credited(credit)

    # Running

    def _start(self, item: Work) -> None:
        one = item.inputs[0]
        web = self._applications.get(one.method)
        if web is None or self._cancelled_early:
            super()._start(item)
        else:
            self._running[one.keys[0]] = asyncio.get_running_loop().create_task(self._run_request(one, web))

    async def _run_request(self, one: Input, web: Web) -> None:
        """As `_run_one`, in one piece: it is done for every request."""
        inbox, key = self._parts.inbox, one.keys[0]
        inbox.began()
        token = _container.begin_input(one.input_id, one.call_id)
        started_ns = time.perf_counter_ns()
        try:
            outcome = await self._outcome_of(one, web)
        finally:
            _container.end_input(token)
            inbox.ended()
            self._running.pop(key, None)
        run_us = (time.perf_counter_ns() - started_ns) // 1000
        self._parts.end_input(one)
        if self._parts.interrupter.is_ending and outcome[0] != SUCCEEDED:
            # Interrupted: its client hears that its container has ended.
            inbox.answered(one)
            return
        self._answer(one, outcome, run_us)

    async def _outcome(self, item: Work) -> Outcome:
        web = self._applications.get(item.inputs[0].method)
        return await (super()._outcome(item) if web is None else self._outcome_of(item.inputs[0], web))

    async def _outcome_of(self, one: Input, web: Web) -> Outcome:
        key, exchange = one.keys[0], None
        try:
            exchange = self._exchanges[key] = Exchange(one, self._parts.link, web.lifespan.state, self._beginnings)
            await web.application(exchange.scope, exchange.receive, exchange.send)
            if _container.is_forked():
                end_forked(None)
            return SUCCEEDED, exchange.outcome(), ""
        except (asyncio.CancelledError, Stopping) as error:
            if os.getpid() != self._pid:
                end_forked(error)
            return cancelled()
        except BaseException as error:
            if isinstance(error, GeneratorExit) and asyncio.current_task() is not self._running.get(key):
                raise  # Python takes the coroutine down
            if os.getpid() != self._pid:
                end_forked(error)
            return failed(error)
        finally:
            if exchange is not None:
                del self._exchanges[key]
                exchange.gone()  # for what may still hold on to it

    def _answer(self, item: Work, outcome: Outcome, run_us: int) -> None:
        self._parts.answer(item, outcome, run_us)
        if not self._is_flushing:
            self._end_if_forked()
            # What ends in one turn of the loop leaves together.
            self._is_flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flushing = False
        self._end_if_forked()
        with contextlib.suppress(OSError):
            self._parts.outbox.flush()

    def _end_if_forked(self) -> None:
        """Asks the kernel, as a child may have been forked behind Python's back: once for many requests, for in a
        sandbox it takes long to answer."""
        if os.getpid() != self._pid:
            end_forked(None)
