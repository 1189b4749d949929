"""Calls of the C library that Python lacks, looked up by a template before it is forked.

Through `PyDLL`, which keeps the interpreter's lock: `fork` must not return in a child whose lock belongs to nobody.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 22, 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_MADV_COLLAPSE = 25
_MADV_POPULATE_READ = 22
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.PyDLL(None, use_errno=True)
_fork, _setns, _prctl, _capset = _libc.fork, _libc.setns, _libc.prctl, _libc.capset
_fork.argtypes = []
_setns.argtypes = [ctypes.c_int, ctypes.c_int]
_prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_madvise = _libc.madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_capset.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
_getenv = _libc.getenv
_getenv.argtypes, _getenv.restype = [ctypes.c_char_p], ctypes.c_void_p


class CallFailed(Exception):
    """The kernel said no; the message has what was to be done, and why not."""


def fork() -> int:
    """Fork without a hook of Python's or of user code's.

    Only for a process with one thread, whose child forks again by `os.fork` or ends.
    """
    return _check(_fork(), "fork")


def enter_namespace(descriptor: int, kind: str) -> None:
    """setns(2)."""
    _check(_setns(descriptor, 0), f"enter the {kind} namespace")


def set_attribute(option: int, value: int, what: str) -> None:
    """prctl(2) with one argument."""
    _check(_prctl(option, value, 0, 0, 0), what)


def set_capabilities(kept: int) -> None:
    """Make a mask the effective and permitted capabilities, and clear the inheritable and ambient ones."""
    _check(_prctl(PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear the ambient capabilities")
    low, high = kept & 0xFFFFFFFF, kept >> 32
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_capset(header, struct.pack("6I", low, low, 0, high, high, 0)), f"set the capabilities {kept:#x}")


def collapse_pages(address: int, length: int) -> bool:
    """Put a stretch of memory into huge pages; False where this kernel cannot (Linux 6.1 can)."""
    # What cannot be had for this stretch, as no free huge page, may be had for the next.
    return _madvise(address, length, _MADV_COLLAPSE) == 0 or ctypes.get_errno() != errno.EINVAL


def populate_pages(address: int, length: int) -> bool:
    """Have these pages mapped as if each was read; False where this kernel cannot (Linux 5.14 can)."""
    return _madvise(address, length, _MADV_POPULATE_READ) == 0 or ctypes.get_errno() != errno.EINVAL


def erase_variable(name: str) -> None:
    """Overwrite the value of a variable where it is in memory: of one that is as it was when the process was started
    /proc has nothing any more, of this process nor of its forks."""
    address = _getenv(os.fsencode(name))
    if address is not None:
        ctypes.memset(address, 0, len(ctypes.string_at(address)))


def install_filter(program: bytes) -> None:
    """Filter this process's system calls from now on."""
    instructions = ctypes.create_string_buffer(program, len(program))
    record = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(instructions)))
    result = _prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(record), 0, 0)
    _check(result, "install the filter of system calls")


def _check(result: int, what: str) -> int:
    if result < 0:
        raise CallFailed(f"cannot {what}: {os.strerror(ctypes.get_errno())}")
    return result
