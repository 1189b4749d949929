"""Thin wrappers of the system calls Python does not offer, with failures named by operation and object.

Every call goes through `PyDLL`, which keeps the interpreter's lock: the processes that use this module have one thread,
and `clone3` must not return in a child whose lock belongs to nobody.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import signal
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from squall.runtime.errors import FeatureMissing, RuntimeFailure, describe_errno

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 32, 4096, 16384, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWTIME = 0x10000000, 0x20000000, 0x40000000, 0x80
CLONE_PIDFD, CLONE_INTO_CGROUP = 0x1000, 0x200000000

MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_IDMAP = 0x100000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_SET_FD, _FSCONFIG_CMD_CREATE = 0, 1, 5, 6
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_CLOSE_RANGE_CLOEXEC = 4
_SECCOMP_SET_MODE_FILTER = 1
_F_ADD_SEALS, _ALL_SEALS = 1033, 0xF
_CAPABILITY_VERSION_3 = 0x20080522
SO_SNDBUFFORCE = 32
_KCMP_VM = 1
_STATX_MODE_TYPE_INODE_MOUNT, _STATX_BYTES = 0x1 | 0x2 | 0x100 | 0x1000, 256
# struct statx: mode, inode, numbers of a device, of the device that it is on, mount.
_STATX = struct.Struct("=28xH2xQ88xIIIIQ")
_SIGNAL_MAX, _SIGNAL_SET_BYTES = 64, 8
_PIDFD_INFO_BYTES, _PIDFD_INFO_EXIT = 64, 1 << 3
# _IOWR(0xFF, 11, struct pidfd_info), in its first size.
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO_BYTES << 16 | 0xFF << 8 | 11
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

# From 424 on the numbers are the same on every architecture.
_CLONE3, _OPEN_TREE, _MOVE_MOUNT, _CLOSE_RANGE, _MOUNT_SETATTR = 435, 428, 429, 436, 442
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_OLD_NUMBERS: Mapping[str, Mapping[str, int]] = {
    "x86_64": {
        "pivot_root": 155,
        "execveat": 322,
        "seccomp": 317,
        "capget": 125,
        "capset": 126,
        "rt_sigaction": 13,
        "rt_sigprocmask": 14,
        "kcmp": 312,
    },
    "aarch64": {
        "pivot_root": 41,
        "execveat": 281,
        "seccomp": 277,
        "capget": 90,
        "capset": 91,
        "rt_sigaction": 134,
        "rt_sigprocmask": 135,
        "kcmp": 272,
    },
}

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.syscall.restype = ctypes.c_long
_libc.statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p]


def _old_number(name: str) -> int:
    numbers = _OLD_NUMBERS.get(platform.machine())
    if numbers is None:
        raise FeatureMissing(f"cannot run containers on {platform.machine()}: only {', '.join(_OLD_NUMBERS)} are known")
    return numbers[name]


_FIXES = {
    errno.EPERM: "; run as root",
    errno.ENOSYS: "; this needs Linux 5.19 or newer",
}


def _check(result: int, operation: str, subject: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        message = describe_errno(operation, subject, number) + _FIXES.get(number, "")
        kind = FeatureMissing if number == errno.ENOSYS else RuntimeFailure
        raise kind(message) from OSError(number, os.strerror(number))
    return result


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() if kind else None, flags, options.encode() or None
    )
    _check(result, f"mount {kind or source} at", target)


def make_mount(
    source: str, kind: str, attributes: int, options: Mapping[str, str] | None = None, flags: Sequence[str] = (),
    *, is_read_only: bool = True,
) -> int:  # fmt: skip
    """A mount of a file system that is attached nowhere; returns its descriptor."""
    subject = f"{kind} {source}"
    context = _check(_libc.syscall(_FSOPEN, kind.encode(), _FSOPEN_CLOEXEC), "mount", subject)
    try:
        for command, key, value in (
            (_FSCONFIG_SET_STRING, b"source", source.encode()),
            *((_FSCONFIG_SET_STRING, name.encode(), value.encode()) for name, value in (options or {}).items()),
            *((_FSCONFIG_SET_FLAG, name.encode(), None) for name in flags),
            *(((_FSCONFIG_SET_FLAG, b"ro", None),) if is_read_only else ()),
            (_FSCONFIG_CMD_CREATE, None, None),
        ):
            _check(_libc.syscall(_FSCONFIG, context, command, key, value, 0), "mount", subject)
        return _check(_libc.syscall(_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes), "mount", subject)
    finally:
        os.close(context)


def make_overlay(
    subject: str, options: Mapping[str, str], flags: Sequence[str], attributes: int, *, lower_fd: int = -1
) -> int:
    """An overlay that is attached nowhere; its descriptor.

    Args:
        lower_fd: its lower layer, where that has no path.
    """
    context = _check(_libc.syscall(_FSOPEN, b"overlay", _FSOPEN_CLOEXEC), "mount", subject)
    try:
        for command, key, value, descriptor in (
            *(((_FSCONFIG_SET_FD, b"lowerdir+", None, lower_fd),) if lower_fd >= 0 else ()),
            *((_FSCONFIG_SET_STRING, name.encode(), value.encode(), 0) for name, value in options.items()),
            *((_FSCONFIG_SET_FLAG, name.encode(), None, 0) for name in flags),
            (_FSCONFIG_CMD_CREATE, None, None, 0),
        ):
            _check(_libc.syscall(_FSCONFIG, context, command, key, value, descriptor), "mount", subject)
        return _check(_libc.syscall(_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes), "mount", subject)
    finally:
        os.close(context)


def set_propagation(tree_fd: int, subject: str, propagation: int) -> None:
    """mount_setattr(2): where mounts and unmounts below a detached mount come from, and go to."""
    record = struct.pack("QQQQ", 0, 0, propagation, 0)
    result = _libc.syscall(_MOUNT_SETATTR, tree_fd, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, record, len(record))
    _check(result, "set the propagation of", subject)


def unmount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target.encode(), flags), "unmount", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    result = _libc.syscall(_old_number("pivot_root"), new_root.encode(), put_old.encode())
    _check(result, "make the root file system of", new_root)


def open_tree(path: str, *, is_recursive: bool = False) -> int:
    """A detached copy of the mount at a path; returns its descriptor."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if is_recursive else 0)
    return _check(_libc.syscall(_OPEN_TREE, _AT_FDCWD, path.encode(), flags), "take a copy of the mount of", path)


def move_mount(tree_fd: int, target: str) -> None:
    """Attach a detached mount at a path."""
    result = _libc.syscall(_MOVE_MOUNT, tree_fd, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH)
    _check(result, "attach a mount at", target)


def set_mount_attributes(
    tree_fd: int, subject: str, attributes: int, *, user_namespace_fd: int = 0, is_recursive: bool = False
) -> None:
    """mount_setattr(2) on a descriptor; with MOUNT_ATTR_IDMAP through the map of a user namespace."""
    record = struct.pack("QQQQ", attributes, 0, 0, user_namespace_fd)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if is_recursive else 0)
    result = _libc.syscall(_MOUNT_SETATTR, tree_fd, b"", flags, record, len(record))
    if result < 0 and attributes & MOUNT_ATTR_IDMAP and ctypes.get_errno() == errno.EINVAL:
        raise FeatureMissing(
            f"cannot map the ids of {subject}: its file system does not support id-mapped mounts on this kernel; "
            "keep the data directory on ext4, xfs or btrfs and use Linux 5.19 or newer"
        )
    _check(result, "set the attributes of the mount of", subject)


def set_path_attributes(path: str, attributes: int) -> None:
    """mount_setattr(2) on the mount at a path."""
    record = struct.pack("QQQQ", attributes, 0, 0, 0)
    result = _libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path.encode(), 0, record, len(record))
    _check(result, "set the attributes of the mount at", path)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "make namespaces", f"{flags:#x}")


def setns(namespace_fd: int, flags: int, subject: str) -> None:
    """setns(2) of a namespace's or a process's descriptor."""
    _check(_libc.setns(namespace_fd, ctypes.c_int(flags)), "enter", subject)


def clone(flags: int, exit_signal: int, cgroup_fd: int = -1) -> tuple[int, int]:
    """Fork into new namespaces and, if given, a v2 cgroup: (pid, pidfd) in the parent, (0, -1) in the child.

    Only for a process with one thread that will soon end or execute another program: no fork hooks run.
    """
    pidfd = ctypes.c_int(-1)
    if cgroup_fd >= 0:
        flags |= CLONE_INTO_CGROUP
    record = struct.pack(
        "11Q", flags | CLONE_PIDFD, ctypes.addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, max(cgroup_fd, 0)
    )
    buffer = ctypes.create_string_buffer(record, len(record))
    pid = _check(_libc.syscall(_CLONE3, buffer, len(record)), "fork into namespaces", f"{flags:#x}")
    return (0, -1) if pid == 0 else (pid, pidfd.value)


def prctl(option: int, argument: int = 0, subject: str = "") -> None:
    """prctl(2) with one argument."""
    zero = ctypes.c_ulong(0)
    result = _libc.prctl(ctypes.c_int(option), ctypes.c_ulong(argument), zero, zero, zero)
    _check(result, "set", subject or f"process attribute {option}")


def set_capabilities(kept: int) -> None:
    """Make a mask the effective and permitted capabilities, and clear the inheritable and ambient ones."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, "ambient capabilities")
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    result = _libc.syscall(_old_number("capset"), header, struct.pack("6I", low, low, 0, high, high, 0))
    _check(result, "set capabilities", f"{kept:#x}")


def install_seccomp(program: bytes) -> None:
    """Install a filter on this process; it stays for good, over every exec."""
    instructions = ctypes.create_string_buffer(program, len(program))
    record = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions))
    result = _libc.syscall(_old_number("seccomp"), _SECCOMP_SET_MODE_FILTER, 0, record)
    _check(result, "install", "the seccomp filter")


def close_descriptors_on_exec(first: int) -> None:
    """Mark every descriptor from `first` on to be closed by the next exec."""
    _check(_libc.syscall(_CLOSE_RANGE, first, ctypes.c_uint(0xFFFFFFFF), _CLOSE_RANGE_CLOEXEC), "close", "descriptors")


def execute_descriptor(descriptor: int, argv: Sequence[str], env: Mapping[str, str]) -> None:
    """Execute the program in an open file; returns only by raising."""
    arguments = (ctypes.c_char_p * (len(argv) + 1))(*[os.fsencode(word) for word in argv], None)
    pairs = [os.fsencode(f"{name}={value}") for name, value in env.items()]
    variables = (ctypes.c_char_p * (len(pairs) + 1))(*pairs, None)
    result = _libc.syscall(_old_number("execveat"), descriptor, b"", arguments, variables, _AT_EMPTY_PATH)
    _check(result, "execute", argv[0])


def seal(descriptor: int) -> None:
    """Forbid any further change of a file in memory."""
    fcntl.fcntl(descriptor, _F_ADD_SEALS, _ALL_SEALS)


def set_filesystem_ids(uid: int, gid: int) -> None:
    """Own files made from now on by these ids, until called again; every other power is kept."""
    _libc.setfsgid(ctypes.c_uint(gid))
    _libc.setfsuid(ctypes.c_uint(uid))
    # setfsuid takes the capabilities over files away; they are still permitted, so take them back.
    header, sets = struct.pack("Ii", _CAPABILITY_VERSION_3, 0), ctypes.create_string_buffer(24)
    _check(_libc.syscall(_old_number("capget"), header, sets), "read", "capabilities")
    _, low, _, _, high, _ = struct.unpack("6I", sets.raw)
    _check(
        _libc.syscall(_old_number("capset"), header, struct.pack("6I", low, low, 0, high, high, 0)),
        "raise",
        "capabilities",
    )


def reset_signals() -> None:
    """Give every signal its default action, and block none: also 32 and 33, which C libraries let nobody touch."""
    default = bytes(32)
    for number in range(1, _SIGNAL_MAX + 1):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            result = _libc.syscall(_old_number("rt_sigaction"), number, default, None, _SIGNAL_SET_BYTES)
            _check(result, "reset", f"signal {number}")
    _check(_libc.syscall(_old_number("rt_sigprocmask"), signal.SIG_SETMASK, bytes(8), None, _SIGNAL_SET_BYTES), "block",
           "no signal")  # fmt: skip


def exit_status_of(pidfd: int) -> int | None:
    """How a process that was reaped by somebody else has ended, as from wait(2); None where the kernel does not tell.

    PIDFD_GET_INFO with its exit part is of Linux 6.15.
    """
    record = bytearray(struct.pack("Q", _PIDFD_INFO_EXIT).ljust(_PIDFD_INFO_BYTES, b"\0"))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, record)
    except OSError:
        return None
    (mask,) = struct.unpack_from("Q", record)
    return int(struct.unpack_from("i", record, _PIDFD_INFO_BYTES - 4)[0]) if mask & _PIDFD_INFO_EXIT else None


class File(NamedTuple):
    """What a path leads to."""

    mode: int
    inode: tuple[int, int]
    """With the device that it is on before it: the number alone may be another file's, too."""
    device: int
    """That it is, of a device; not the one that it is on."""
    mount_id: int
    """As in mountinfo."""


def find_file(path: str) -> File:
    """statx(2): what a path leads to, and by which mount.

    Raises:
        OSError: as `os.stat` does.
    """
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    if _libc.statx(_AT_FDCWD, path.encode(), 0, _STATX_MODE_TYPE_INODE_MOUNT, buffer) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    mode, inode, major, minor, major_below, minor_below, mount_id = _STATX.unpack_from(buffer)
    return File(mode, (os.makedev(major_below, minor_below), inode), os.makedev(major, minor), mount_id)


def inode_of(descriptor: int) -> tuple[int, int]:
    """As `File` has it."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def is_memory_shared(pid: int, other: int) -> bool:
    """kcmp(2): whether two processes have one memory; not where one of them has ended.

    Raises:
        RuntimeFailure: it cannot be told.
    """
    result = int(_libc.syscall(_old_number("kcmp"), pid, other, _KCMP_VM, 0, 0))
    if result < 0 and ctypes.get_errno() == errno.ESRCH:
        return False
    return _check(result, "compare the memory of", f"processes {pid} and {other}") == 0


def raise_loopback() -> None:
    """Bring `lo` of the current network namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        request = struct.pack("16sH22x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))
