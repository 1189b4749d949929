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
import time
from collections.abc import Callable

from squall.runtime.aside import run_aside
from squall.runtime.container import Outcome, Reply, receive
from squall.runtime.criu.launch import fork_save, uncover
from squall.runtime.criu.tool import PLACE, find_tool
from squall.runtime.errors import FeatureMissing, RuntimeFailure, TemplateUnfit
from squall.runtime.launch import Forked
from squall.runtime.poll import Poller
from squall.runtime.procfs import has_ended, read_children
from squall.runtime.templates import Template
from squall.runtime.wire import failure_from_json

COPY_TIMEOUT_S = 10.0
SAVE_TIMEOUT_S = 60.0
END_AGAIN_S = 1.0
END_ROUNDS_MAX = 10
LOOK_S = 0.01
_CREDENTIALS = struct.Struct("iII")
_MESSAGE_BYTES = 4_096


class Saving:
    """Saves templates, several at once if need be."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller

    def save(self, template: Template, directory: str, file_bytes_max: int, answer: Outcome) -> None:
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
                self._save_copy(template, pid, directory, file_bytes_max, answer)
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

    def _save_copy(self, template: Template, pid: int, directory: str, file_bytes_max: int, answer: Outcome) -> None:
        tool = find_tool()
        if tool is None:
            raise FeatureMissing(f"CRIU is not in {PLACE} any more")
        template.copies.add(pid)
        spec, files = template.entry.spec, template.files
        with contextlib.ExitStack() as undo:
            copy_pidfd = os.pidfd_open(pid)
            undo.callback(os.close, copy_pidfd)
            undo.callback(_kill, copy_pidfd)
            container_pidfd = os.dup(template.entry.forked.pidfd)
            undo.callback(os.close, container_pidfd)
            private = self._poller.private
            forked = fork_save(
                tool, spec.id_range, container_pidfd, pid, files, directory, private, file_bytes_max=file_bytes_max
            )
            undo.pop_all()
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
            self._tidy_up(forked.pid, container_pidfd, lambda: answer(failures[0]))

        self._poller.watch(forked.channel.fileno(), on_message)
        self._poller.call_later(SAVE_TIMEOUT_S, lambda: self._end_late(forked))

    def _end_late(self, forked: Forked, rounds: int = 1) -> None:
        """End what saves a template from below, one after the other: each tidies up then. What is left of it after some
        rounds ends together."""
        if forked.channel.fileno() < 0:
            return
        with contextlib.suppress(OSError):
            _end_lowest(forked)
        if rounds > END_ROUNDS_MAX:
            with contextlib.suppress(ProcessLookupError):
                # It is its first one's number, who has not been reaped.
                os.killpg(forked.pid, signal.SIGKILL)
        self._poller.call_later(END_AGAIN_S, lambda: self._end_late(forked, rounds + 1))

    def _tidy_up(self, group: int, container_pidfd: int, then: Callable[[], None]) -> None:
        """Do what those would have done who have been killed on the way, and go on.

        Whoever is left of them is ended first. One that cannot be, since it waits for a disk, is not waited for longer
        than for a save.
        """
        self._look(group, container_pidfd, then, time.monotonic() + SAVE_TIMEOUT_S)

    def _look(self, group: int, container_pidfd: int, then: Callable[[], None], until: float) -> None:
        is_left = _reap(group)
        if container_pidfd >= 0 and (not is_left or time.monotonic() >= until):
            self._uncover(container_pidfd, then)
            container_pidfd = -1
        if is_left:
            pause_s = LOOK_S if container_pidfd >= 0 else END_AGAIN_S
            self._poller.call_later(pause_s, lambda: self._look(group, container_pidfd, then, until))

    def _uncover(self, container_pidfd: int, then: Callable[[], None]) -> None:
        try:
            run_aside(self._poller, lambda: uncover(container_pidfd), lambda _: then())
        except (OSError, RuntimeFailure):
            # No process or descriptor is to be had. Its forks have roots of their own, where nothing is covered.
            then()
        finally:
            os.close(container_pidfd)


def _reap(group: int) -> bool:
    """Reap those of a group of processes that have ended, and kill those that have not; whether there are any."""
    try:
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    with contextlib.suppress(ProcessLookupError):
        # The group is not empty, so the number is nobody else's.
        os.killpg(group, signal.SIGKILL)
    return True


def _end_lowest(forked: Forked) -> None:
    """Kill a process below this one that has no living children; this one itself where there is none.

    Raises:
        OSError: one of them has ended meanwhile.
    """
    parent, pid = 0, forked.pid
    # One that its parent does not reap, since that hangs, is still among its children.
    while children := [child for child in read_children(pid) if not has_ended(child)]:
        parent, pid = pid, children[0]
    if not parent:
        signal.pidfd_send_signal(forked.pidfd, signal.SIGKILL)
        return
    pidfd = os.pidfd_open(pid)
    try:
        if pid in read_children(parent):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


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
