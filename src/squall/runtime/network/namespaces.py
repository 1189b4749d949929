"""Network namespaces pinned by bind mounts, and a thread's way into one and back."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from squall.runtime.errors import RuntimeFailure, describe_errno

CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_PRIVATE = 0x40000
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
THREAD_NAMESPACE = "/proc/thread-self/ns/net"


def _call(operation: str, subject: str, result: int) -> None:
    if result != 0:
        raise RuntimeFailure(describe_errno(operation, subject, ctypes.get_errno())) from OSError(
            ctypes.get_errno(), ""
        )


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, flags: int) -> None:
    result = _libc().mount(source.encode(), target.encode(), None, ctypes.c_ulong(flags), None)
    _call("mount network namespace on", target, result)


def unmount(path: str) -> None:
    """Unmount what is at `path`, if anything is."""
    # Detached: a container that still runs in the namespace keeps it alive, not its name.
    if _libc().umount2(path.encode(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0:
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOENT):
            raise RuntimeFailure(describe_errno("unmount", path, number))


def is_mount_point(path: str) -> bool:
    """Whether something is mounted exactly there, by this process's own mount table."""
    escaped = path.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return any(line.split(" ")[4] == escaped for line in file)


def make_pin_directory(path: str) -> None:
    """A directory for pins that other mount namespaces do not see: a copy elsewhere would keep a namespace alive."""
    os.makedirs(path, mode=0o700, exist_ok=True)
    if not is_mount_point(path):
        _mount(path, path, MS_BIND)
        _mount("none", path, MS_PRIVATE)


def remove_pin_directory(path: str) -> None:
    """Remove the directory; its pins must be gone. Idempotent."""
    unmount(path)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RuntimeFailure(describe_errno("remove", path, error.errno or 0)) from error


def unpin(path: str) -> None:
    """Let go of a pinned namespace. Idempotent."""
    unmount(path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RuntimeFailure(describe_errno("remove", path, error.errno or 0)) from error


def current_namespace() -> int:
    """A descriptor of the calling thread's network namespace."""
    return os.open(THREAD_NAMESPACE, os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def entered_namespace(path: str) -> Iterator[bool]:
    """Be in a pinned namespace until the block ends; False, and nowhere else, when nothing is pinned there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    home_fd = current_namespace()
    try:
        if _libc().setns(descriptor, CLONE_NEWNET) != 0:
            # The file that a namespace was pinned at, without it.
            yield False
            return
        try:
            yield True
        finally:
            _call("return from network namespace", path, _libc().setns(home_fd, CLONE_NEWNET))
    finally:
        os.close(descriptor)
        os.close(home_fd)


@contextmanager
def new_namespace(path: str, home_fd: int) -> Iterator[None]:
    """Make a namespace, pin it at `path` and be in it until the block ends; only the calling thread moves.

    Raises:
        RuntimeFailure: not made; the thread is back home then, and nothing is left at `path`.
    """
    with _pinned_from(path, home_fd):
        _call("make network namespace", path, _libc().unshare(CLONE_NEWNET))
        _mount(THREAD_NAMESPACE, path, MS_BIND)
        yield


@contextmanager
def given_namespace(descriptor: int, path: str, home_fd: int) -> Iterator[None]:
    """Pin somebody else's namespace at `path` and be in it until the block ends, as in a new one.

    Raises:
        RuntimeFailure: not pinned; the thread is back home then, and nothing is left at `path`.
    """
    with _pinned_from(path, home_fd):
        _mount(f"/proc/self/fd/{descriptor}", path, MS_BIND)
        _enter(descriptor)
        yield


@contextmanager
def visited_namespace(descriptor: int, home_fd: int) -> Iterator[None]:
    """Be in a namespace until the block ends; only the calling thread moves."""
    _enter(descriptor)
    try:
        yield
    finally:
        _return(home_fd)


@contextmanager
def _pinned_from(path: str, home_fd: int) -> Iterator[None]:
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise RuntimeFailure(describe_errno("make", path, error.errno or 0)) from error
    try:
        try:
            yield
        finally:
            _return(home_fd)
    except BaseException:
        unpin(path)
        raise


def _enter(descriptor: int) -> None:
    _call("enter", "network namespace", _libc().setns(descriptor, CLONE_NEWNET))


def _return(home_fd: int) -> None:
    _call("return from", "network namespace", _libc().setns(home_fd, CLONE_NEWNET))
