"""A template for the kernel suite: the guest's part of the protocol, as small as can be, and as free as user code.

    python3 template_program.py [--unfit CAUSE] [--skip STEP,...] [--add THING,...] [--hook FILE] [--late FILE]
                                [--before CODE]

`--skip` leaves out what an honest clone does (a namespace by its name, drop, bound, filter, close, again, cgroup files,
chdir, tasks, leave, begin, sense), `--add` does what none does (alone, second, child, thread, chroot, inherit, memory,
open, twice, twice inside, later, repeat, talk, vanish, stay, mute, bomb; while it waits: chatter, deaf).
`--hook` runs a file in the child of the fork before any of it, with every power it ever has, and `--late` one before it
says that it has joined. After the fork it does what ACTION in its new environment says.
"""

from __future__ import annotations

import argparse
import array
import ctypes
import json
import os
import runpy
import signal
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

libc = ctypes.PyDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"
SYS_SECCOMP, SYS_CAPSET, SYS_CLONE = (317, 126, 56) if X86 else (277, 91, 220)
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE = 24, 38, 4
NAMESPACES = ("user", "mnt", "net", "ipc", "uts", "cgroup", "pid")
CLONE_VM, CLONE_VFORK = 0x100, 0x4000
CAP_NET_ADMIN = 12
KEPT: set[int] = set()
"""Descriptors that a clone does not close; for `--before`."""


def checked(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def receive(channel: socket.socket) -> tuple[bytes, Sequence[int]]:
    data, ancillary, _, _ = channel.recvmsg(4 * 2**20, socket.CMSG_SPACE(32 * 4))
    found = array.array("i")
    for _, _, payload in ancillary:
        found.frombytes(payload[: len(payload) // 4 * 4])
    return data, list(found)


def fork_raw() -> int:
    """Without the hooks of Python's own fork: those are for the second one."""
    return checked(libc.syscall(SYS_CLONE, signal.SIGCHLD, 0, 0, 0, 0), "fork")


def fork_with_hooks(added: set[str]) -> int:
    """The second one; `memory`: in that of its parent, which waits for it."""
    if "memory" in added:
        return checked(libc.syscall(SYS_CLONE, CLONE_VM | CLONE_VFORK | signal.SIGCHLD, 0, 0, 0, 0), "fork")
    return os.fork()


def leave_behind(entered: Sequence[int]) -> None:
    """A process where this one is, and nobody's child; in these cgroups."""
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            for descriptor in entered:
                os.write(descriptor, b"0")
            signal.pause()
        os._exit(0)
    os.waitpid(middle, 0)


def bomb(entered: Sequence[int] = ()) -> None:
    """Processes that are never there when somebody looks for them: each is another one by then."""
    for _ in range(30):
        if fork_raw() == 0:
            for descriptor in entered:
                os.write(descriptor, b"0")
            while True:
                if libc.syscall(SYS_CLONE, signal.SIGCHLD, 0, 0, 0, 0) > 0:
                    os._exit(0)


def join(channel: socket.socket, skipped: set[str], added: set[str]) -> None:
    data, descriptors = receive(channel)
    way = json.loads(data)
    program, _ = receive(channel)
    entered = descriptors[way["namespaces"] :]
    if {"twice", "twice inside"} & added:
        leave_behind(entered if "twice inside" in added else ())
    if "bomb" in added:
        bomb(entered)
    for name, descriptor in zip(NAMESPACES, descriptors, strict=False):
        # The first gives the right to enter the others.
        if not {name, "user"} & skipped:
            checked(libc.setns(descriptor, 0), "setns")
    if "vanish" in added:
        checked(libc.setns(descriptors[NAMESPACES.index("net")], 0), "setns")
        channel.close()
        signal.pause()
    for descriptor in entered:
        if "cgroup files" not in skipped:
            os.write(descriptor, b"0")
    if "second" in added and os.fork() == 0:
        signal.pause()
    if fork_with_hooks(added):
        if "leave" in skipped:
            signal.pause()
        if "later" in added:
            time.sleep(1)
            if os.fork() == 0:
                signal.pause()
        os._exit(0)
    os.setsid()
    if "alone" in added:
        leave_behind(())
    if "close" not in skipped:
        kept = {channel.fileno(), *KEPT, *(entered if "tasks" in skipped else ())}
        for descriptor in range(3, 1_024):
            if descriptor not in kept:
                os.closerange(descriptor, descriptor + 1)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    if "again" not in skipped:
        open_again()
    if "child" in added and os.fork() == 0:
        signal.pause()
    confine(way, program, skipped, added)


def open_again() -> None:
    """Files by their paths, which lead to its own ones, where they were."""
    for descriptor in KEPT:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            again = os.open(os.readlink(f"/proc/self/fd/{descriptor}"), os.O_RDONLY)
            os.lseek(again, os.lseek(descriptor, 0, os.SEEK_CUR), os.SEEK_SET)
            os.dup2(again, descriptor)
            os.close(again)


def set_capabilities(permitted: int, inherited: int) -> None:
    low, high = permitted & 0xFFFFFFFF, permitted >> 32
    header, sets = struct.pack("Ii", 0x20080522, 0), struct.pack("6I", low, low, inherited, high, high, 0)
    checked(libc.syscall(SYS_CAPSET, header, sets), "capset")


def confine(way: dict[str, Any], program: bytes, skipped: set[str], added: set[str]) -> None:
    if "user" not in skipped:
        os.setgroups([])
        os.setresgid(way["gid"], way["gid"], way["gid"])
        os.setresuid(way["uid"], way["uid"], way["uid"])
    inherited = 1 << CAP_NET_ADMIN if "inherit" in added else 0
    if inherited:
        set_capabilities((2 << way["last_capability"]) - 1, inherited)
    if not {"drop", "user"} & skipped:
        for number in range(way["last_capability"] + 1):
            if number not in way["kept"] and "bound" not in skipped:
                checked(libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), "bound")
        set_capabilities(sum(1 << number for number in way["kept"]), inherited)
    checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    if "open" in added:
        program = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
    if "filter" not in skipped:
        code = ctypes.create_string_buffer(program, len(program))
        record = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
        checked(libc.syscall(SYS_SECCOMP, 1, 0, record), "seccomp")
    os.chdir(way["cwd"])
    if "chdir" in skipped:
        os.fchdir(next(iter(KEPT)))
        os.close(KEPT.pop())
    if "chroot" in added:
        os.chroot("/tmp")
    if "thread" in added:
        threading.Thread(target=signal.pause, daemon=True).start()


def live(channel: socket.socket, skipped: set[str], added: set[str]) -> int:
    for _ in range(200 if "repeat" in added else 1):
        channel.send(b'{"joined": 1}')
    data, outputs = receive(channel)
    was_told_to_wait = data == b'{"wait": 1}'
    if was_told_to_wait and "chatter" in added:
        while True:
            channel.send(json.dumps({"said": "x" * 60_000}).encode())
    if was_told_to_wait and "deaf" in added:
        channel.close()
        signal.pause()
    if was_told_to_wait:
        data, outputs = receive(channel)
    if not data and "stay" in added:
        signal.pause()
    if not data:
        return 1
    if "begin" in skipped:
        return 3
    if "mute" in added:
        signal.pause()
    if "sense" in skipped:
        for _ in range(2):
            channel.send(b"[" * 60_000)
    os.environ.clear()
    os.environ.update(json.loads(data)["env"])
    os.dup2(outputs[0], 1)
    os.dup2(outputs[1], 2)
    for descriptor in outputs:
        os.close(descriptor)
    channel.send(b'{"begun": 1}')
    code = 0
    try:
        exec(os.environ.get("ACTION", ""), {"__name__": "clone", "was_told_to_wait": was_told_to_wait})
    except SystemExit as ended:
        code = int(ended.code or 0)
    sys.stdout.flush()
    channel.send(json.dumps({"exit": code}).encode())
    return code


def be_copied(control: socket.socket, descriptor: int) -> bool:
    """True in a copy that was saved and has come back."""
    if fork_raw():
        os.close(descriptor)
        return False
    os.setsid()
    placeholder = os.open("/dev/full", os.O_RDWR)
    os.dup2(placeholder, control.fileno())
    os.close(placeholder)
    channel = socket.socket(fileno=descriptor)
    channel.send(b'{"copied": 1}')
    channel.close()
    while not stat.S_ISSOCK(os.fstat(control.fileno()).st_mode):
        time.sleep(0.005)
    return True


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--unfit", default="")
    parser.add_argument("--skip", default="")
    parser.add_argument("--add", default="")
    parser.add_argument("--hook", default="")
    parser.add_argument("--late", default="")
    parser.add_argument("--before", default="", help="Python that runs before the template is ready")
    arguments = parser.parse_args()
    skipped, added = set(arguments.skip.split(",")), set(arguments.add.split(","))
    control = socket.socket(fileno=int(os.environ.pop("SQUALL_TEMPLATE_FD")))
    if arguments.before:
        exec(arguments.before, {**globals(), "control": control})
    if arguments.unfit:
        control.send(json.dumps({"unfit": arguments.unfit}).encode())
        return 0
    if arguments.hook:
        os.register_at_fork(after_in_child=lambda: runpy.run_path(arguments.hook))
    control.send(b'{"ready": {"memory_bytes": 1000, "import_ms": 1.5}}')
    while True:
        data, descriptors = receive(control)
        if not data:
            return 0
        if b"save" in data:
            if be_copied(control, descriptors[0]):
                control.send(b'{"ready": {"memory_bytes": 2000, "import_ms": 2.5}}')
            continue
        child = fork_raw()
        if child == 0:
            channel = socket.socket(fileno=descriptors[0])
            code = 1
            try:
                join(channel, skipped, added)
                if arguments.late:
                    runpy.run_path(arguments.late)
                code = live(channel, skipped, added)
            except BaseException as error:  # noqa: BLE001  whatever it is, the other side is to hear it
                channel.send(json.dumps({"error": repr(error)}).encode())
            finally:
                os._exit(code)
        os.close(descriptors[0])
        os.waitpid(child, 0)


if __name__ == "__main__":
    os._exit(main())
