"""The allow-list of system calls, as a classic BPF program for seccomp.

What is not listed fails with ENOSYS, so that programs fall back as on an older kernel; what is refused on purpose fails
with EPERM. libseccomp resolves names to this architecture's numbers; the program is ours, because the answer to
`socket` depends on its arguments in a way libseccomp's rules cannot say (see docs/decisions/0004).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct
from collections.abc import Collection, Mapping, Sequence

from squall.runtime.errors import FeatureMissing
from squall.runtime.seccomp_calls import ALLOWED, NEWER_NUMBERS, REFUSED
from squall.runtime.syscalls import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)

AUDIT_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000


def refuse(number: int) -> int:
    """The action that makes a call fail with this errno."""
    return 0x00050000 | number


AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
NETLINK_ROUTE = 0
SOCKET_TYPES = (1, 2, 5)
"""Of the internet: streams, datagrams, sequenced packets."""
_SOCKET_TYPE_MASK = 0xF
# XT_BASE_CTL, and where IPv6's own options have surely ended (they go to 80; arptables begins here).
NETFILTER_OPTION, NETFILTER_OPTION_IPV6_END = 64, 96
# Without CLONE_NEWTIME: its bit is part of clone's exit signal, where it can do nothing.
CLONE_NAMESPACES = (
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET
)
# Of the kernel's <linux/sched.h>; what `clone` is asked for beside namespaces.
_CLONE_VM, _CLONE_FS, _CLONE_FILES, _CLONE_VFORK = 0x100, 0x200, 0x400, 0x4000
_CLONE_PARENT, _CLONE_THREAD = 0x8000, 0x10000
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
TIOCSTI, TIOCLINUX = 0x5412, 0x541C

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_SET, _JUMP, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x05, 0x06
_AND = 0x54
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET = 0, 4


def _argument_offset(index: int, *, is_high: bool = False) -> int:
    return 16 + 8 * index + (4 if is_high else 0)


def _instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _return(action: int) -> bytes:
    return _instruction(_RETURN, 0, 0, action)


def _return_if(code: int, value: int, action: int) -> bytes:
    return _instruction(code, 0, 1, value) + _return(action)


def _load_argument(index: int) -> bytes:
    return _instruction(_LOAD, 0, 0, _argument_offset(index))


def _filter_socket() -> bytes:
    # A fork of a template has, for a moment, power over its own network namespace: enough for raw sockets, and for
    # those of packets, which are had under this family, too.
    by_type = _load_argument(1) + _instruction(_AND, 0, 0, _SOCKET_TYPE_MASK)
    by_type += b"".join(_return_if(_JUMP_EQUAL, kind, ALLOW) for kind in SOCKET_TYPES) + _return(refuse(errno.EPERM))
    internet = _instruction(_JUMP_EQUAL, 1, 0, AF_INET)
    internet += _instruction(_JUMP_EQUAL, 0, len(by_type) // 8, AF_INET6) + by_type
    # libaudit (useradd, passwd) takes "no such protocol" for a kernel without audit and goes on; EPERM stops it.
    no_protocol, no_family = refuse(errno.EPROTONOSUPPORT), refuse(errno.EAFNOSUPPORT)
    netlink = _load_argument(2) + _return_if(_JUMP_EQUAL, NETLINK_ROUTE, ALLOW) + _return(no_protocol)
    is_netlink = _instruction(_JUMP_EQUAL, 0, len(netlink) // 8, AF_NETLINK)
    plain = _return_if(_JUMP_EQUAL, AF_UNIX, ALLOW) + internet
    return _load_argument(0) + plain + is_netlink + netlink + _return(no_family)


def _filter_socket_option() -> bytes:
    # Tables of the older netfilter are changed by options of any socket, whose numbers no protocol has.
    refused = refuse(errno.EPERM)
    old = _load_argument(2) + _return_if(_JUMP_GREATER_EQUAL, NETFILTER_OPTION, refused) + _return(ALLOW)
    new = _load_argument(2) + b"".join(
        _return_if(_JUMP_EQUAL, option, refused) for option in (NETFILTER_OPTION, NETFILTER_OPTION + 1)
    )
    new += _return_if(_JUMP_GREATER_EQUAL, NETFILTER_OPTION_IPV6_END, refused) + _return(ALLOW)
    is_old = _instruction(_JUMP_EQUAL, 0, len(old) // 8, socket.IPPROTO_IP)
    is_new = _instruction(_JUMP_EQUAL, 0, len(new) // 8, socket.IPPROTO_IPV6)
    return _load_argument(1) + is_old + old + is_new + new + _return(ALLOW)


def _filter_clone() -> bytes:
    # Threads share all there is, and a process that waits until its child executes something shares its memory. Two
    # processes that share descriptors or a working directory are nobody's: of a fork of a template only one would be
    # looked at, and what the other opens would be the fork's. A child of one's parent is the spawner's own, where the
    # parent of a program that was added to a container is the spawner: nobody would reap it.
    refused = refuse(errno.EPERM)
    rules = (
        (CLONE_NAMESPACES | _CLONE_PARENT, refused),
        (_CLONE_THREAD, ALLOW),
        (_CLONE_FILES | _CLONE_FS, refused),
        (_CLONE_VFORK, ALLOW),
        (_CLONE_VM, refused),
    )
    return _load_argument(0) + b"".join(_return_if(_JUMP_SET, *rule) for rule in rules) + _return(ALLOW)


def _filter_flags(index: int, mask: int) -> bytes:
    return _load_argument(index) + _return_if(_JUMP_SET, mask, refuse(errno.EPERM)) + _return(ALLOW)


def _filter_values(index: int, values: Sequence[int]) -> bytes:
    allowed = [_return_if(_JUMP_EQUAL, value, ALLOW) for value in values]
    return _load_argument(index) + b"".join(allowed) + _return(refuse(errno.EPERM))


def _filter_ioctl() -> bytes:
    # Both put characters into a terminal's input, which may be the terminal of whoever runs exec.
    refused = [_return_if(_JUMP_EQUAL, request, refuse(errno.EPERM)) for request in (TIOCSTI, TIOCLINUX)]
    return _load_argument(1) + b"".join(refused) + _return(ALLOW)


def by_arguments() -> Mapping[str, bytes]:
    """Calls whose answer depends on their arguments, with the piece of program that decides."""
    return {
        "clone": _filter_clone(),
        "unshare": _filter_flags(0, CLONE_NAMESPACES | CLONE_NEWTIME),
        "socket": _filter_socket(),
        "setsockopt": _filter_socket_option(),
        "personality": _filter_values(0, PERSONALITIES),
        "ioctl": _filter_ioctl(),
    }


def resolve(names: Sequence[str]) -> Mapping[str, int]:
    """Numbers of the calls that exist on this architecture.

    Raises:
        FeatureMissing: libseccomp is not installed.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise FeatureMissing("cannot filter system calls: libseccomp.so.2 is missing; install libseccomp2") from error
    numbers = {name: int(library.seccomp_syscall_resolve_name(name.encode())) for name in names}
    # Negative: unknown, or another architecture's.
    found = {name: number for name, number in numbers.items() if number >= 0}
    return {**{name: number for name, number in NEWER_NUMBERS.items() if name in names}, **found}


def compile_filter(numbers: Mapping[str, int], also_allowed: Collection[str] = ()) -> bytes:
    """The program for the calls in `numbers`; calls of neither list get ENOSYS."""
    special = by_arguments()
    leaves: dict[int, bytes] = {}
    for name, number in numbers.items():
        if name in special:
            leaves[number] = special[name]
        elif name in ALLOWED or name in also_allowed:
            leaves[number] = _return(ALLOW)
        elif name in REFUSED:
            leaves[number] = _return(refuse(errno.EPERM))
    architecture = AUDIT_ARCHITECTURE.get(platform.machine())
    if architecture is None:
        raise FeatureMissing(f"cannot filter system calls on {platform.machine()}")
    head = _instruction(_LOAD, 0, 0, _ARCHITECTURE_OFFSET) + _instruction(_JUMP_EQUAL, 1, 0, architecture)
    head += _return(KILL_PROCESS) + _instruction(_LOAD, 0, 0, _NUMBER_OFFSET)
    # Also refuses the x32 calls, which are x86_64's numbers with this bit.
    head += _return_if(_JUMP_GREATER_EQUAL, X32_BIT, refuse(errno.ENOSYS))
    return head + _search_tree(_ranges(leaves))


def _ranges(leaves: Mapping[int, bytes]) -> list[tuple[int, bytes]]:
    """(first number, answer) of each run of numbers with the same answer, in order, gaps included."""
    unknown = _return(refuse(errno.ENOSYS))
    runs: list[tuple[int, bytes]] = []
    for number in range(max(leaves) + 2):
        answer = leaves.get(number, unknown)
        if not runs or runs[-1][1] != answer:
            runs.append((number, answer))
    return runs


def _search_tree(runs: Sequence[tuple[int, bytes]]) -> bytes:
    if len(runs) == 1:
        return runs[0][1]
    middle = len(runs) // 2
    low, high = _search_tree(runs[:middle]), _search_tree(runs[middle:])
    # The offsets of a conditional jump are one byte, so it jumps over an unconditional one.
    is_high = _instruction(_JUMP_GREATER_EQUAL, 0, 1, runs[middle][0])
    return is_high + _instruction(_JUMP, 0, 0, len(low) // 8) + low + high


def build_filter() -> bytes:
    """The program for containers on this machine."""
    return compile_filter(resolve(_names()))


def build_template_filter() -> bytes:
    """The program for templates: their forks enter the namespaces made for them, and then wear the other one, too."""
    return compile_filter(resolve(_names()), also_allowed={"setns"})


def _names() -> list[str]:
    return sorted({*ALLOWED, *REFUSED, *by_arguments()})
