"""What comes between the identity of a fork and its first result, gone through before that counts, as far as nothing
comes of it: with an input of its own making over a connection of its own, and a function that does nothing.

In the template, so that what is made at its first use is not made in each fork; in a fork that is parked, so that the
pages that it is the first to touch are copied while nobody waits.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import sys
from typing import Any

from squall.guest import spare_thread
from squall.guest.inbox import Input, Stopping
from squall.guest.link import Link, introduce, receive_boot
from squall.guest.loading import Served
from squall.guest.main import Guest, parts_of, ready_of
from squall.guest.runner import Runner, RunnerParts
from squall.protocol.call import InputBatch
from squall.protocol.codec import Envelope
from squall.protocol.frames import FrameDecoder
from squall.protocol.guest import Boot, GuestStop, GuestWaiting

_LIBRARIES: dict[str, dict[str, str]] = {"numpy": {}, "torch": {"device": "cpu"}}
"""And where they are to compute, whatever user code has made of that."""


def rehearse(guest: Guest, boot: Boot | None, served: Served | None, *, is_parked: bool) -> None:
    """Go through it.

    Args:
        boot, served: None where there is no function yet: then as far as the introduction.
        is_parked: in a fork, which may start threads.
    """
    if is_parked:
        spare_thread.keep_one()
        _compute()
    link = Link(guest.socket_path, "", "")
    link.frame("GuestWaiting", GuestWaiting(None if served is None else ready_of(served)))
    ours, server = socket.socketpair()
    try:
        link.begin(ours, None)
        introduce(ours, guest.socket_path, "", "")
        if boot is not None and served is not None and not boot.is_interactive:
            _run(boot, served, guest, link, server, is_parked=is_parked)
    finally:
        link.disconnect()
        server.close()


def _compute() -> None:
    """A product of two small matrices, too small for threads, by those libraries that are loaded: their first operation
    copies 200 pages, 1 ms."""
    for name, where in _LIBRARIES.items():
        ones: Any = getattr(sys.modules.get(name), "ones", None)
        with contextlib.suppress(Exception):
            if ones is not None:
                (ones((8, 8), **where) @ ones((8, 8), **where)).sum().item()


def _run(boot: Boot, served: Served, guest: Guest, link: Link, server: socket.socket, *, is_parked: bool) -> None:
    """Be told what to run, and run an input of a function that does nothing; its output goes to who has sent it."""
    # Not over the connection, which may not have room for it.
    link.put_back(_read(link, link.frame("Boot", boot)))
    parts = parts_of(receive_boot(link), served, link, guest)
    value, _ = parts.values.result(((), {}))
    if boot.is_batched:
        parts.values.arguments(Input("", 0, 0, value, ""))
        return
    server.sendall(link.frame("Inputs", InputBatch("", (0,), (len(value),), (0,)), value))
    parts = parts._replace(function=_nothing, is_generator=False, instance=None)
    stop = link.frame("GuestStop", GuestStop())
    link.codec.record(GuestStop, _read(link, stop)[0][0].params)
    if (boot.definition.is_async or served.is_web) and is_parked:
        # Not ahead of it: inputs that have not begun are given back then.
        _run_on_loop(parts._replace(function=functools.partial(server.sendall, stop)), boot.max_inputs)
    else:
        Runner(parts).run_one(parts.inbox.take())
    parts.outbox.flush()
    if guest.interrupter.is_ending:
        raise Stopping  # that was meant for all of it, and not for this input


def _read(link: Link, data: bytes) -> list[tuple[Envelope, bytes]]:
    return [(link.codec.decode(frame.header), frame.body) for frame in FrameDecoder().feed(data)]


def _run_on_loop(parts: RunnerParts, max_inputs: int) -> None:
    from squall.guest.async_runner import AsyncRunner  # cold start: it was loaded with the function

    try:
        AsyncRunner(parts, max_inputs).run()
    finally:
        parts.interrupter.on_ending = None


def _nothing() -> None:
    """What is run in place of the user's function."""
