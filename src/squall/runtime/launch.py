"""Fork the processes of containers: pid 1 straight into its namespaces, and further ones into those of a running one.

What the forked process does is a plan (see `plan`), carried out before anything else runs in it. It answers over a
channel: messages while it goes on, an error if one occurs, and the end of the channel when the program is executed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from squall.runtime import syscalls as sc
from squall.runtime.errors import RuntimeFailure, SlotUnfit
from squall.runtime.execute import Context, carry_out
from squall.runtime.operations import BecomeUser, Phase
from squall.runtime.plan import CellPlan
from squall.runtime.spec import IdRange

NAMESPACES = sc.CLONE_NEWNS | sc.CLONE_NEWPID | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS
JOINED_NAMESPACES = NAMESPACES | sc.CLONE_NEWNET
CELL_NAMESPACES = sc.CLONE_NEWIPC | sc.CLONE_NEWUTS | sc.CLONE_NEWPID
MESSAGE_BYTES_MAX = 65_536
_CREDENTIALS = struct.Struct("iII")


@dataclass(frozen=True, slots=True)
class LaunchKit:
    """What every container of this spawner stands on, prepared once."""

    images_fd: int
    """The mount namespace in which images of layers are mounted."""
    init_fd: int
    pause_fd: int
    """A program that waits and reaps, for first processes with nothing else to do; -1: templates are off."""
    seccomp_program: bytes
    template_program: bytes
    last_capability: int


@dataclass(frozen=True, slots=True)
class Forked:
    """A process on its way to its program. The caller closes both."""

    pid: int
    pidfd: int
    channel: socket.socket


def fork_first(
    kit: LaunchKit, id_range: IdRange, user_namespace_fd: int, phases: Sequence[Phase], outputs: tuple[int, int],
    *, cgroup_fd: int, has_own_network: bool, trees: Mapping[str, int] | None = None,
) -> Forked:  # fmt: skip
    """Fork pid 1 of a container, into a v2 cgroup if `cgroup_fd` is one.

    `outputs` become its descriptors 1 and 2; the caller closes its own copies, as it does those of `trees`: mounts by
    name that its plan is to find taken.
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
            context = context_of(kit, id_range, user_namespace_fd, theirs)
            context.trees.update(trees or {})
            context.phase_ms["fork"] = fork_ms
            carry_out(phases, context, lambda phase_ms: tell(theirs, {"phase_ms": dict(phase_ms)}))

        run_and_exit(body, theirs)
    theirs.close()
    return Forked(pid, pidfd, ours)


def fork_beside(
    kit: LaunchKit, id_range: IdRange, user_namespace_fd: int, entry: Sequence[Phase], phases: Sequence[Phase],
    container_pidfd: int, standard: Mapping[int, int], *, cgroup_fd: int, control: socket.socket | None = None,
) -> Forked:  # fmt: skip
    """Fork a process that joins a running container; its pid comes as a message, and it ends as a child of ours.

    Args:
        standard: its descriptors by number, as far as the plan does not open them.
        control: its own end, of a process that is a template.

    `Forked` is the helper, which ends at once.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, pidfd = sc.clone(0, signal.SIGCHLD, cgroup_fd)
    if pid == 0:

        def body() -> None:
            sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
            for number, descriptor in standard.items():
                os.dup2(descriptor, number)
            context = context_of(kit, id_range, user_namespace_fd, theirs)
            context.control = control
            carry_out(entry, context, lambda _: None)
            sc.setns(container_pidfd, JOINED_NAMESPACES, "the container's namespaces")
            child = os.fork()
            if child:
                tell(theirs, {"pid": child})
                os._exit(0)
            os.setsid()
            carry_out(phases, context, lambda _: None)

        run_and_exit(body, theirs)
    theirs.close()
    return Forked(pid, pidfd, ours)


def fork_cell(
    kit: LaunchKit, id_range: IdRange, nested_fd: int, plan: CellPlan, template_pidfd: int, *, has_own_network: bool
) -> Forked:
    """Make a cell; its first process's pid comes as a message with its pidfd, and it is no child of ours but of the
    template's pid 1. Another message says that it is done.

    Four processes. The one forked here (`Forked`) is the machine's root in a mount namespace of its own, makes the root
    file system in it, and ends when all is done. The second is born into the template's pid namespace, enters the
    nested user namespace, and makes all others there but for the mounts; its child is the third, pid 1 of the cell. The
    fourth is root again, from inside those namespaces: /proc and /sys show the namespaces of whoever mounts them. When
    it is done, pid 1 copies the mounts, which locks them, and executes the program that waits.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, pidfd = sc.clone(sc.CLONE_NEWNS, signal.SIGCHLD)
    if pid == 0:

        def body() -> None:
            sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
            sc.prctl(sc.PR_SET_DUMPABLE, 0, "not dumpable")
            context = context_of(kit, id_range, nested_fd, theirs)
            carry_out(plan.root, context, lambda _: None)
            first_pid, gate = _fork_first_of_cell(context, plan.first, template_pidfd, has_own_network=has_own_network)
            first_pidfd = os.pidfd_open(first_pid)
            try:
                _mount_from_inside(context, plan.system, first_pidfd)
            except RuntimeFailure:
                signal.pidfd_send_signal(first_pidfd, signal.SIGKILL)
                raise
            # Before it may go on: from then on it does not end with us.
            socket.send_fds(theirs, [json.dumps({"pid": first_pid}).encode()], [first_pidfd])
            gate.send(b"go")
            # Its end of the gate is closed when it executes its program, or ends.
            gate.recv(1)
            tell(theirs, {"phase_ms": dict(context.phase_ms)})

        run_and_exit(body, theirs, code=0)
    theirs.close()
    return Forked(pid, pidfd, ours)


def _fork_first_of_cell(
    context: Context, phases: Sequence[Phase], template_pidfd: int, *, has_own_network: bool
) -> tuple[int, socket.socket]:
    """The pid, as we see it, of a process that is pid 1 in a nested user namespace, and where it waits to go on."""
    gate, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gate.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    sc.setns(template_pidfd, sc.CLONE_NEWPID, "the template's pid namespace")
    middle = os.fork()
    if middle == 0:

        def body() -> None:
            gate.close()
            sc.setns(context.user_namespace_fd, sc.CLONE_NEWUSER, "the user namespace for forks of templates")
            if context.network_fd >= 0:
                _enter_slot(context.network_fd)
            carry_out([Phase("first", [BecomeUser(0, 0)])], context, lambda _: None)
            sc.unshare(CELL_NAMESPACES | (sc.CLONE_NEWNET if has_own_network else 0))
            if os.fork():
                os._exit(0)
            theirs.send(b"here")
            if theirs.recv(8) == b"go":
                sc.close_descriptors_on_exec(3)
                carry_out(phases, context, lambda _: None)

        run_and_exit(body, context.channel)
    theirs.close()
    _, status = os.waitpid(middle, 0)
    message, ancillary, _, _ = gate.recvmsg(8, socket.CMSG_SPACE(_CREDENTIALS.size))
    if status or not message:
        raise RuntimeFailure("cannot make the namespaces of a cell: its first process ended")
    (pid, _uid, _gid) = _CREDENTIALS.unpack(ancillary[0][2])
    return pid, gate


def _enter_slot(network_fd: int) -> None:
    try:
        sc.setns(network_fd, sc.CLONE_NEWNET, "the network namespace made for it")
    except RuntimeFailure as failure:
        raise SlotUnfit(failure.message) from failure


def _mount_from_inside(context: Context, phases: Sequence[Phase], first_pidfd: int) -> None:
    """Carry out what has to come from inside a cell's namespaces, as the machine's root, in our own mount namespace."""
    sc.setns(first_pidfd, CELL_NAMESPACES | sc.CLONE_NEWNET, "the namespaces of a cell")
    child = os.fork()
    if child == 0:

        def body() -> None:
            sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
            carry_out(phases, context, lambda _: None)

        run_and_exit(body, context.channel, code=0)
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeFailure("cannot mount what a cell needs")


def fork_network_namespaces(nested_fd: int, count: int, private: Collection[int] = ()) -> Forked:
    """Make empty network namespaces that belong to a user namespace; their descriptors come with a message."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent_pid = os.getpid()
    pid, pidfd = sc.clone(0, signal.SIGCHLD)
    if pid == 0:

        def body() -> None:
            end_with(parent_pid, private)
            sc.setns(nested_fd, sc.CLONE_NEWUSER, "the user namespace for forks of templates")
            # Several by one process: to start it costs more than to make one.
            made = []
            for _ in range(count):
                sc.unshare(sc.CLONE_NEWNET)
                made.append(os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
            socket.send_fds(theirs, [b'{"namespaces": true}'], made)

        run_and_exit(body, theirs, code=0)
    theirs.close()
    return Forked(pid, pidfd, ours)


def fork_aside(action: Callable[[], None], private: Collection[int] = ()) -> Forked:
    """Run something that may block in a process of its own; it answers with an error or just ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent_pid = os.getpid()
    pid, pidfd = sc.clone(0, signal.SIGCHLD)
    if pid == 0:

        def body() -> None:
            end_with(parent_pid, private)
            action()

        run_and_exit(body, theirs, code=0)
    theirs.close()
    return Forked(pid, pidfd, ours)


def end_with(parent_pid: int, private: Collection[int] = ()) -> None:
    """End when the parent does, and let go of what is the spawner's alone: a process that cannot be killed just now,
    since it waits for a disk, would hold its lock."""
    for descriptor in private:
        os.close(descriptor)
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        # It had ended before it could be said.
        os._exit(1)


def context_of(kit: LaunchKit, id_range: IdRange, user_namespace_fd: int, channel: socket.socket) -> Context:
    """What the operations of a plan are given."""
    return Context(
        id_range=id_range,
        user_namespace_fd=user_namespace_fd,
        images_fd=kit.images_fd,
        init_fd=kit.init_fd,
        pause_fd=kit.pause_fd,
        seccomp_program=kit.seccomp_program,
        template_program=kit.template_program,
        last_capability=kit.last_capability,
        channel=channel,
    )


def tell(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.send(json.dumps(message).encode())


def run_and_exit(body: Callable[[], None], channel: socket.socket, code: int = 1) -> NoReturn:
    """Run it and end, with `code` where it returns, and with 1 where it raises."""
    try:
        body()
    except RuntimeFailure as failure:
        code = 1
        tell(channel, {"error": failure.message, "kind": type(failure).__name__})
    except BaseException as error:  # noqa: BLE001  the parent hears of our mistakes too; nothing unwinds past
        code = 1
        tell(channel, {"error": f"unexpected {type(error).__name__}: {error}", "kind": "RuntimeFailure"})
    finally:
        os._exit(code)
