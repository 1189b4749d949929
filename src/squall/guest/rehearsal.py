"""What comes between the identity of a fork and its first result, gone through before that counts, as far as nothing
comes of it: with an input of its own making over a connection of its own, and a function that does nothing.

In the template, so that what is made at its first use is not made in each fork; in a fork that is parked, so that the
pages that it is the first to touch are copied while nobody waits.
"""

from __future__ import annotations

import socket
import threading

from squall.guest.inbox import Input
from squall.guest.link import Link, introduce, receive_boot
from squall.guest.loading import Served
from squall.guest.main import Guest, parts_of, ready_of
from squall.guest.runner import Runner
from squall.protocol.call import InputBatch
from squall.protocol.frames import FrameDecoder
from squall.protocol.guest import Boot, GuestWaiting


def rehearse(guest: Guest, boot: Boot | None, served: Served | None, *, is_parked: bool) -> None:
    """Go through it.

    Args:
        boot, served: None where there is no function yet: then as far as the introduction.
        is_parked: in a fork, which may start threads.
    """
    if is_parked:
        _start_thread()
    link = Link(guest.socket_path, "", "")
    link.frame("GuestWaiting", GuestWaiting(None if served is None else ready_of(served)))
    ours, server = socket.socketpair()
    try:
        link.begin(ours, None)
        introduce(ours, guest.socket_path, "", "")
        if boot is not None and served is not None and not boot.is_interactive:
            _run(boot, served, guest, link, server)
    finally:
        link.disconnect()
        server.close()


def _start_thread() -> None:
    """The memory of its stack stays for the next one: the watcher of inputs."""
    thread = threading.Thread(target=_nothing, daemon=True)
    thread.start()
    thread.join()


def _run(boot: Boot, served: Served, guest: Guest, link: Link, server: socket.socket) -> None:
    """Be told what to run, and run an input of a function that does nothing; its output goes to who has sent it."""
    # Not over the connection, which may not have room for it.
    link.put_back([(link.codec.decode(frame.header), b"") for frame in FrameDecoder().feed(link.frame("Boot", boot))])
    parts = parts_of(receive_boot(link), served, link, guest)
    value, _ = parts.values.result(((), {}))
    if boot.is_batched:
        parts.values.arguments(Input("", 0, 0, value, ""))
        return
    runner = Runner(parts._replace(function=_nothing, is_generator=False, instance=None))
    server.sendall(link.frame("Inputs", InputBatch("", (0,), (len(value),), (0,)), value))
    runner.run_one(parts.inbox.take())
    parts.outbox.flush()


def _nothing() -> None:
    """What is run in place of the user's function."""
