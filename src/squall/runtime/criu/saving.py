"""Saving templates: a template makes a copy of itself, and the copy is saved and ends; the template itself goes on.

    spawner                 template                its copy
      one descriptor ──────▶ fork ──────────────────▶ lets go of the spawner's socket
      ◀───────────────────────────────────"copied" ── waits for another one, in whichever life
      has CRIU save it (`launch`)

Brought back, it finds a socket where it had put a placeholder, says that it is ready, and is a template.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct

from squall.runtime.aside import run_aside
from squall.runtime.container import Outcome, Reply, close_descriptors, receive
from squall.runtime.criu.launch import fork_save, uncover
from squall.runtime.criu.tool import PLACE, find_tool
from squall.runtime.errors import FeatureMissing, RuntimeFailure, TemplateUnfit
from squall.runtime.launch import Forked
from squall.runtime.poll import Poller
from squall.runtime.procfs import read_children
from squall.runtime.templates import Template
from squall.runtime.wire import failure_from_json

COPY_TIMEOUT_S = 10.0
SAVE_TIMEOUT_S = 60.0
END_AGAIN_S = 1.0
LOOK_S = 0.01
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
        container_pidfd = os.dup(entry.forked.pidfd)
        try:
            forked = fork_save(tool, entry.spec.id_range, container_pidfd, pid, template.files, directory)
        except BaseException:
            _kill(copy_pidfd)
            close_descriptors(copy_pidfd, container_pidfd)
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
            if not failures:
                os.close(container_pidfd)
                answer(Reply())
                return
            self._tidy_up(forked.pid, container_pidfd, lambda _: answer(failures[0]))

        self._poller.watch(forked.channel.fileno(), on_message)
        self._poller.call_later(SAVE_TIMEOUT_S, lambda: self._end_late(forked))

    def _end_late(self, forked: Forked) -> None:
        """End what saves a template from below, one after the other: each tidies up then."""
        if forked.channel.fileno() < 0:
            return
        pid = forked.pid
        with contextlib.suppress(OSError):
            while children := read_children(pid):
                pid = children[0]
            os.kill(pid, signal.SIGKILL)
        self._poller.call_later(END_AGAIN_S, lambda: self._end_late(forked))

    def _tidy_up(self, group: int, container_pidfd: int, then: Outcome) -> None:
        """Do what those would have done who have been killed on the way."""
        try:
            is_left = os.waitpid(-group, os.WNOHANG)[0] == 0
        except ChildProcessError:
            run_aside(self._poller, lambda: uncover(container_pidfd), then)
            os.close(container_pidfd)
            return
        delay_s = LOOK_S if is_left else 0.0
        self._poller.call_later(delay_s, lambda: self._tidy_up(group, container_pidfd, then))


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
