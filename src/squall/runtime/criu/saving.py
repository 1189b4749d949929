"""Saving templates: a template makes a copy of itself, and the copy is saved and ends; the template itself goes on.

    spawner                 template                its copy
      one descriptor ──────▶ fork ──────────────────▶ lets go of the spawner's socket
      ◀───────────────────────────────────"copied" ── waits for another one, in whichever life
      has CRIU save it (`launch`)

Brought back, it finds a socket where it had put a placeholder, says that it is ready, and is a template.
"""

from __future__ import annotations

import os
import signal
import socket
import struct

from squall.runtime.container import Outcome, Reply, receive
from squall.runtime.criu.launch import fork_save
from squall.runtime.criu.tool import PLACE, find_tool
from squall.runtime.errors import FeatureMissing, RuntimeFailure, TemplateUnfit
from squall.runtime.launch import Forked
from squall.runtime.poll import Poller
from squall.runtime.procfs import read_children
from squall.runtime.templates import Template
from squall.runtime.wire import failure_from_json

COPY_TIMEOUT_S = 10.0
SAVE_TIMEOUT_S = 60.0
_CREDENTIALS = struct.Struct("iII")
_MESSAGE_BYTES = 4_096


class Saving:
    """Saves templates, several at once if need be."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller

    def save(self, template: Template, directory: str, answer: Outcome) -> None:
        """Have a copy made and saved in an empty directory; the answer comes when it is there whole.

        Raises:
            RuntimeFailure: what can be known at once.
        """
        if find_tool() is None:
            raise FeatureMissing(f"cannot save a template: CRIU is not in {PLACE}; make criu puts it there")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            try:
                socket.send_fds(template.control, [b'{"save": 1}'], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise TemplateUnfit(f"cannot save a template: it takes no messages ({error.strerror})") from error
        has_come = False

        def on_message(_: int) -> None:
            nonlocal has_come
            has_come = True
            try:
                pid = _sender(ours)
                is_its = bool(pid and template.pid) and pid in read_children(template.pid)
            except OSError:
                is_its = False  # one of the two has ended meanwhile
            self._poller.unwatch(ours.fileno())
            ours.close()
            if not is_its:
                answer(TemplateUnfit("cannot save a template: it has made no copy of itself"))
                return
            try:
                self._save_copy(template, pid, directory, answer)
            except (OSError, RuntimeFailure) as error:
                template.copies.discard(pid)
                answer(TemplateUnfit(f"cannot save a template: {error}"))

        def on_late() -> None:
            if not has_come:
                self._poller.unwatch(ours.fileno())
                ours.close()
                answer(TemplateUnfit(f"cannot save a template: no copy came within {COPY_TIMEOUT_S:g} s"))

        self._poller.watch(ours.fileno(), on_message)
        self._poller.call_later(COPY_TIMEOUT_S, on_late)

    def _save_copy(self, template: Template, pid: int, directory: str, answer: Outcome) -> None:
        tool = find_tool()
        if tool is None:
            raise FeatureMissing(f"CRIU is not in {PLACE} any more")
        template.copies.add(pid)
        copy_pidfd = os.pidfd_open(pid)
        entry = template.entry
        try:
            forked = fork_save(tool, entry.spec.id_range, entry.forked.pidfd, pid, template.files, directory)
        except BaseException:
            _kill(copy_pidfd)
            os.close(copy_pidfd)
            raise
        failures: list[RuntimeFailure] = []

        def on_message(_: int) -> None:
            message = receive(forked.channel)
            if message is not None:
                failures.append(failure_from_json({"kind": message["kind"], "message": message["error"]}))
                return
            self._poller.unwatch(forked.channel.fileno())
            forked.channel.close()
            _, status = os.waitpid(forked.pid, 0)
            os.close(forked.pidfd)
            # Saved, it has ended; if not, nobody needs it.
            _kill(copy_pidfd)
            os.close(copy_pidfd)
            template.copies.discard(pid)
            if status and not failures:
                failures.append(TemplateUnfit("cannot save a template: what saves it was killed"))
            answer(failures[0] if failures else Reply())

        self._poller.watch(forked.channel.fileno(), on_message)
        self._poller.call_later(SAVE_TIMEOUT_S, lambda: _kill_late(forked))


def _kill_late(forked: Forked) -> None:
    if forked.channel.fileno() >= 0:
        _kill(forked.pidfd)


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass  # ended already


def _sender(channel: socket.socket) -> int:
    """Whoever has sent the next message, as the kernel says; 0 at the end of the channel."""
    message, ancillary, _, _ = channel.recvmsg(_MESSAGE_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
    for _, kind, data in ancillary:
        if message and kind == socket.SCM_CREDENTIALS:
            return int(_CREDENTIALS.unpack(data[: _CREDENTIALS.size])[0])
    return 0
