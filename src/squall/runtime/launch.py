"""Fork the processes of containers: pid 1 straight into its namespaces, and further ones into those of a running one.

What the forked process does is a plan (see `plan`), carried out before anything else runs in it. It answers over a
channel: messages while it goes on, an error if one occurs, and the end of the channel when the program is executed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from squall.runtime import syscalls as sc
from squall.runtime.errors import RuntimeFailure
from squall.runtime.execute import Context, carry_out
from squall.runtime.operations import Phase
from squall.runtime.spec import IdRange

NAMESPACES = sc.CLONE_NEWNS | sc.CLONE_NEWPID | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS
JOINED_NAMESPACES = NAMESPACES | sc.CLONE_NEWNET
MESSAGE_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class LaunchKit:
    """What every container of this spawner stands on, prepared once."""

    images_fd: int
    """The mount namespace in which images of layers are mounted."""
    init_fd: int
    seccomp_program: bytes
    last_capability: int


@dataclass(frozen=True, slots=True)
class Forked:
    """A process on its way to its program. The caller closes both."""

    pid: int
    pidfd: int
    channel: socket.socket


def fork_first(
    kit: LaunchKit, id_range: IdRange, user_namespace_fd: int, phases: Sequence[Phase], outputs: tuple[int, int],
    *, cgroup_fd: int, has_own_network: bool,
) -> Forked:  # fmt: skip
    """Fork pid 1 of a container, into a v2 cgroup if `cgroup_fd` is one.

    `outputs` become its descriptors 1 and 2; the caller closes its own copies.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    flags = NAMESPACES | (sc.CLONE_NEWNET if has_own_network else 0)
    begin_ns = time.monotonic_ns()
    pid, pidfd = sc.clone(flags, signal.SIGCHLD, cgroup_fd)
    if pid == 0:

        def body() -> None:
            fork_ms = (time.monotonic_ns() - begin_ns) / 1e6
            sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
            os.dup2(outputs[0], 1)
            os.dup2(outputs[1], 2)
            context = _context(kit, id_range, user_namespace_fd, theirs)
            context.phase_ms["fork"] = fork_ms
            carry_out(phases, context, lambda phase_ms: _tell(theirs, {"phase_ms": dict(phase_ms)}))

        _run_and_exit(body, theirs)
    theirs.close()
    return Forked(pid, pidfd, ours)


def fork_beside(
    kit: LaunchKit, id_range: IdRange, user_namespace_fd: int, entry: Sequence[Phase], phases: Sequence[Phase],
    container_pidfd: int, standard: tuple[int, int, int] | None, *, cgroup_fd: int,
) -> Forked:  # fmt: skip
    """Fork a process that joins a running container; its pid comes as a message, and it ends as a child of ours.

    `standard` become its descriptors 0, 1 and 2; None when the plan opens a terminal. `Forked` is the helper, which
    ends at once.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, pidfd = sc.clone(0, signal.SIGCHLD, cgroup_fd)
    if pid == 0:

        def body() -> None:
            sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
            for number, descriptor in enumerate(standard or ()):
                os.dup2(descriptor, number)
            context = _context(kit, id_range, user_namespace_fd, theirs)
            carry_out(entry, context, lambda _: None)
            sc.setns(container_pidfd, JOINED_NAMESPACES, "the container's namespaces")
            child = os.fork()
            if child:
                _tell(theirs, {"pid": child})
                os._exit(0)
            os.setsid()
            carry_out(phases, context, lambda _: None)

        _run_and_exit(body, theirs)
    theirs.close()
    return Forked(pid, pidfd, ours)


def fork_aside(action: Callable[[], None]) -> Forked:
    """Run something that may block in a process of its own; it answers with an error or just ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, pidfd = sc.clone(0, signal.SIGCHLD)
    if pid == 0:
        _run_and_exit(action, theirs, code=0)
    theirs.close()
    return Forked(pid, pidfd, ours)


def _context(kit: LaunchKit, id_range: IdRange, user_namespace_fd: int, channel: socket.socket) -> Context:
    return Context(
        id_range=id_range,
        user_namespace_fd=user_namespace_fd,
        images_fd=kit.images_fd,
        init_fd=kit.init_fd,
        seccomp_program=kit.seccomp_program,
        last_capability=kit.last_capability,
        channel=channel,
    )


def _tell(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.send(json.dumps(message).encode())


def _run_and_exit(body: Callable[[], None], channel: socket.socket, code: int = 1) -> NoReturn:
    try:
        body()
    except RuntimeFailure as failure:
        _tell(channel, {"error": failure.message, "kind": type(failure).__name__})
    except BaseException as error:  # noqa: BLE001  the parent hears of our mistakes too; nothing unwinds past
        _tell(channel, {"error": f"unexpected {type(error).__name__}: {error}", "kind": "RuntimeFailure"})
    finally:
        os._exit(code)
