"""Clones: forks of templates, on their way into the cells that were made for them.

    spawner                    template                    its child
      one descriptor ─────────▶ fork ─────────────────────▶
      ───────────── where to go, over that descriptor ────▶ joins, gives up its powers
      ◀───────────────────────────────────────── "joined" ─ waits
      verifies it in the kernel (`verification`)
      ────────────────────── "wait", if it is to be parked ▶ connects to its agent
      ───────── who it is: environment, output pipes ─────▶ goes on as the container's program
      ◀────────────────────────────────────────── "begun" ─

The descriptor is all that the template ever sees of it. What the child says is never believed, only its silence: it has
a time to join in, and then it is ended with its cell. So it is when it says anything that it was not asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from squall.runtime import syscalls as sc
from squall.runtime.cgroup import Cgroup
from squall.runtime.container import Clone, Done
from squall.runtime.errors import ContainerMissing, JoinFailure, RuntimeFailure, TemplateUnfit
from squall.runtime.launch import MESSAGE_BYTES_MAX, LaunchKit
from squall.runtime.plan import kept_capabilities
from squall.runtime.poll import Poller
from squall.runtime.procfs import is_ending
from squall.runtime.spec import ContainerSpec
from squall.runtime.templates import Template
from squall.runtime.verification import NAMESPACES, Expected, verify

JOIN_TIMEOUT_S, BEGIN_TIMEOUT_S = 6.0, 3.0
"""For its two answers; for the first from when another fork of its template has joined, where that is later, and longer
than it takes to end who stays in their way (`strays`). Whoever wants a clone waits longer than for both: it is to hear
that a fork hangs, and not to give up without knowing."""
ENV_BYTES_MAX = 2**20
"""Of an environment, in one message: a start by exec has room for twice as much, and follows."""
_CREDENTIALS = struct.Struct("iII")
_SIGNAL_PROCESS_GROUP = 1 << 2


class Clones:
    """Forks templates into cells."""

    def __init__(self, kit: LaunchKit, poller: Poller) -> None:
        self._kit = kit
        self._poller = poller

    def fork(self, clone: Clone, spec: ContainerSpec, cgroup: Cgroup, template: Template, done: Done) -> None:
        """Have a fork made in a cell; `done` when it has joined and is what it has to be, or with the failure."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        assert clone.cell is not None, "it was made"
        try:
            expected = Expected(
                cell=clone.cell,
                first_pid=template.entry.forked.pid,
                cgroup_name=cgroup.name,
                capabilities=sum(1 << number for number in kept_capabilities(spec.user)),
                channel_inode=sc.inode_of(theirs.fileno()),
                output_inodes=frozenset(map(sc.inode_of, template.entry.outputs)),
                filter_count=template.filter_count + 1,
            )
            ours.setblocking(False)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            ours.setsockopt(socket.SOL_SOCKET, sc.SO_SNDBUFFORCE, 2 * ENV_BYTES_MAX)
            self._send_way(ours, clone, spec, cgroup)
            socket.send_fds(template.control, [b'{"fork": 1}'], [theirs.fileno()])
        except OSError as error:
            ours.close()
            raise TemplateUnfit(
                f"cannot fork template {clone.template_id}: it does not take requests ({error.strerror})"
            ) from error
        finally:
            theirs.close()
        clone.channel = ours

        def on_joined(failure: RuntimeFailure | None) -> None:
            if failure is None:
                template.joined_at = time.monotonic()
            done(_blamed(failure, clone, template))

        def left_s() -> float:
            # Many at once wait for each other, and whoever wants one gives it up by itself.
            return template.joined_at + JOIN_TIMEOUT_S - time.monotonic()

        self._expect(clone, on_joined, JOIN_TIMEOUT_S, left_s)
        self._poller.watch(ours.fileno(), lambda _: self._on_message(clone, expected))

    def _send_way(self, channel: socket.socket, clone: Clone, spec: ContainerSpec, cgroup: Cgroup) -> None:
        """Put into the channel what the child needs to join; it reads it when it is there."""
        uid, gid = spec.user
        descriptors: list[int] = []
        try:
            for name in NAMESPACES:
                descriptors.append(os.open(f"/proc/{clone.cell_pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC))
            entries = entry_paths(cgroup)
            for path in entries:
                descriptors.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
            way = {
                "uid": uid,
                "gid": gid,
                "kept": kept_capabilities(spec.user),
                "last_capability": self._kit.last_capability,
                "cwd": spec.cwd,
                "namespaces": len(NAMESPACES),
                "cgroups": len(entries),
                "has_volumes": bool(spec.volumes),
            }
            socket.send_fds(channel, [json.dumps(way).encode()], descriptors)
            channel.send(self._kit.seccomp_program)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def let_wait(self, clone: Clone) -> None:
        """Tell one that has joined that it is not told yet who it is. That it may have ended is found out later."""
        if clone.channel is not None:
            with contextlib.suppress(OSError):
                clone.channel.send(b'{"wait": 1}')

    def give(self, clone: Clone, env: Mapping[str, str], outputs: tuple[int, int], done: Done) -> None:
        """Tell one that has joined who it is; `done` when it goes on as that, or with the failure."""
        if clone.channel is None:
            raise ContainerMissing("cannot begin a clone: it has ended while it waited")
        message = json.dumps({"env": dict(env)}).encode()
        if len(message) > ENV_BYTES_MAX:
            raise TemplateUnfit(f"cannot begin a clone: its environment has {len(message)} bytes")
        try:
            socket.send_fds(clone.channel, [message], list(outputs))
        except OSError as error:
            raise ContainerMissing(f"cannot begin a clone: it has ended while it waited ({error.strerror})") from error
        self._expect(clone, done, BEGIN_TIMEOUT_S)

    def _expect(self, clone: Clone, done: Done, timeout_s: float, left_s: Callable[[], float] = lambda: 0.0) -> None:
        clone.waiting = done
        clone.tries += 1
        tries = clone.tries

        def give_up() -> None:
            if clone.tries != tries or clone.waiting is None:
                return
            more_s = left_s()
            if more_s > 0:
                self._poller.call_later(more_s, give_up)
            else:
                self._settle(clone, TemplateUnfit(f"a fork of the template did nothing within {timeout_s:g} s"))

        self._poller.call_later(timeout_s, give_up)

    @staticmethod
    def _settle(clone: Clone, failure: RuntimeFailure | None) -> None:
        done, clone.waiting = clone.waiting, None
        if done is not None:
            done(failure)

    def _on_message(self, clone: Clone, expected: Expected) -> None:
        channel = clone.channel
        assert channel is not None, "it is watched"
        try:
            data, ancillary, _, _ = channel.recvmsg(MESSAGE_BYTES_MAX, socket.CMSG_SPACE(_CREDENTIALS.size))
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        message = _read(data)
        if message is not None and isinstance(message.get("exit"), int):
            clone.said_code = message["exit"] & 0xFF
        if clone.waiting is None:
            self.hang_up(clone)
            kill_process(clone.cell_pidfd)
        elif message is None:
            self.hang_up(clone)
            self.give_up(clone)
        elif "error" in message:
            self._settle(clone, TemplateUnfit(f"a fork of the template could not join: {str(message['error'])[:500]}"))
        elif "joined" in message and not clone.pid and ancillary:
            self._on_joined(clone, _CREDENTIALS.unpack(ancillary[0][2][: _CREDENTIALS.size])[0], expected)
        elif "begun" in message and clone.is_joined:
            clone.is_begun = True
            # What it says from now on is heard at its end (`drain`): until then it may say what it likes.
            self._poller.unwatch(channel.fileno())
            self._settle(clone, None)
        elif clone.said_code is not None:
            self.give_up(clone)
        else:
            self._settle(clone, TemplateUnfit("a fork of the template said what it was not asked"))

    def _on_joined(self, clone: Clone, pid: int, expected: Expected) -> None:
        try:
            # The kernel's word for who sent it. Opened first: what is verified is then what is held.
            clone.pid, clone.pidfd = pid, os.pidfd_open(pid)
            verify(pid, expected)
        except RuntimeFailure as failure:
            self._settle(clone, failure)
        except OSError as error:
            self._settle(clone, TemplateUnfit(f"a fork of the template ended on its way ({error.strerror})"))
        else:
            clone.is_joined = True
            self._settle(clone, None)

    def drain(self, clone: Clone) -> None:
        """Hear what it said before it ended."""
        while clone.channel is not None:
            try:
                message = _read(clone.channel.recv(MESSAGE_BYTES_MAX))
            except OSError:
                return
            if message is None:
                return
            if isinstance(message.get("exit"), int):
                clone.said_code = message["exit"] & 0xFF

    def give_up(self, clone: Clone) -> None:
        """Tell who waits for something of it that it has ended."""
        self._settle(clone, TemplateUnfit("a fork of the template ended on its way"))

    def hang_up(self, clone: Clone) -> None:
        """Listen to it no more. Idempotent."""
        if clone.channel is not None:
            self._poller.unwatch(clone.channel.fileno())
            clone.channel.close()
            clone.channel = None


def send_signal(clone: Clone, number: int) -> None:
    """Signal a clone with its process group, as the first process of a plain container does."""
    try:
        signal.pidfd_send_signal(clone.pidfd, number, None, _SIGNAL_PROCESS_GROUP)
    except ProcessLookupError:
        pass
    except OSError:
        # Before Linux 6.9 a group cannot be named so that it surely is the one that is meant; the process can.
        try:
            signal.pidfd_send_signal(clone.pidfd, number)
        except ProcessLookupError:
            pass


def kill_process(pidfd: int) -> None:
    """End a process that somebody else may have reaped already."""
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass


def entry_paths(cgroup: Cgroup) -> list[str]:
    """Files into which a process of one thread writes `0` to enter: v1's `tasks` where it is, which takes no lock."""
    found = []
    for path in cgroup.procs_paths:
        tasks = f"{os.path.dirname(path)}/tasks"
        found.append(tasks if os.path.exists(tasks) else path)
    return found


def _blamed(failure: RuntimeFailure | None, clone: Clone, template: Template) -> RuntimeFailure | None:
    """What a fork failed of that was asked for: a `JoinFailure` if anybody may be left who was told the way to its
    cell.

    Who is where it should not be, or says nothing, need not end with the cell: it may be in one of its namespaces only.
    """
    if failure is None or clone.is_joined or _is_gone(template):
        return failure
    return JoinFailure(failure.message)


def _is_gone(template: Template) -> bool:
    """Its program has ended, or is about to, and nobody is left whom it has forked."""
    try:
        has_ended = not template.pid or is_ending(template.pid)
    except (FileNotFoundError, ProcessLookupError):
        has_ended = True
    try:
        return has_ended and set(template.entry.cgroup.pids()) <= {template.entry.forked.pid, template.pid}
    except (RuntimeFailure, OSError):
        return False


def _read(data: bytes) -> dict[str, Any] | None:
    """A message, or None at the end of the channel, also where somebody sends nonsense."""
    try:
        message = json.loads(data) if data else None
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None
