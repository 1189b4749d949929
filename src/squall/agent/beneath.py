"""Opening paths in directories of strangers, as the kernel resolves them (openat2): never out of a directory."""

from __future__ import annotations

import ctypes
import errno
import os

NO_XDEV = 0x01
NO_MAGICLINKS = 0x02
NO_SYMLINKS = 0x04
BENEATH = 0x08
IN_ROOT = 0x10
_OPENAT2 = 437
"""The number of the system call, the same on every architecture."""
_AGAIN_MAX = 1_000
_LIBC = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(directory: int, path: bytes, flags: int, resolve: int = NO_SYMLINKS | BENEATH) -> int:
    """Open what a path leads to from an open directory; the caller closes it.

    Args:
        resolve: how the kernel is to go there, as openat2(2) says: by default no link is followed, wherever it stands.
    """
    how = _How(flags | os.O_CLOEXEC, 0, resolve)
    for _ in range(_AGAIN_MAX):
        found = _LIBC.syscall(
            ctypes.c_long(_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(path or b"."),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if found >= 0:
            return int(found)
        number = ctypes.get_errno()
        # The kernel gives up on `..` while anything on the machine is being renamed.
        if number not in (errno.EAGAIN, errno.EINTR):
            raise OSError(number, os.strerror(number), path)
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)
