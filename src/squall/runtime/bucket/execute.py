"""Carry out the operations that only the programs of buckets have."""

from __future__ import annotations

import os
import signal
import socket
from typing import Protocol

from squall.runtime import operations as op
from squall.runtime import syscalls as sc
from squall.runtime.bucket.program import FUSE_DEVICE
from squall.runtime.errors import RuntimeFailure

_MADE = "made"


class Context(Protocol):
    """What `runtime.execute` gives all operations; of that, what these need."""

    user_namespace_fd: int
    channel: socket.socket
    trees: dict[str, int]


def make_bucket_mount(operation: op.MakeBucketMount, context: Context) -> None:
    """In a process of its own: whoever makes it has to be in the user namespace, and cannot leave that any more."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
            sc.setns(context.user_namespace_fd, sc.CLONE_NEWUSER, "the container's user namespace")
            sc.unshare(sc.CLONE_NEWNS)
            device = os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC)
            socket.send_fds(theirs, [b"."], [_make(operation, device), device])
            code = 0
        except (RuntimeFailure, OSError) as error:
            theirs.send(str(error).encode()[:4_000])
        finally:
            os._exit(code)
    theirs.close()
    with ours:
        said, given, _, _ = socket.recv_fds(ours, 4_096, 2)
    os.waitpid(child, 0)
    if len(given) != 2:
        raise RuntimeFailure(f"cannot mount {operation.subject}: {said.decode(errors='replace') or 'it was killed'}")
    mount, context.trees[_MADE] = given
    socket.send_fds(context.channel, [b'{"mount": true}'], [mount])
    os.close(mount)


def _make(operation: op.MakeBucketMount, device: int) -> int:
    options = {"fd": str(device), "rootmode": "40000", "user_id": "0", "group_id": "0"}
    closed = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV
    attributes = closed | (sc.MOUNT_ATTR_RDONLY if operation.is_read_only else 0)
    flags = ("allow_other", "default_permissions")
    return sc.make_mount("bucket", "fuse", attributes, options, flags, is_read_only=operation.is_read_only)


def furnish_bucket_server(operation: op.FurnishBucketServer, _: object) -> None:
    """All but one directory is root's: whoever runs there finds nothing to write."""
    os.chdir(operation.scratch)
    closed = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV
    for path in operation.trees:
        _attach(path, path[1:], closed | sc.MOUNT_ATTR_RDONLY)
    for path, target in operation.links.items():
        os.makedirs(os.path.dirname(path[1:]) or ".", exist_ok=True)
        os.symlink(target, path[1:])
    for name in ("null", "urandom"):
        _attach(f"/dev/{name}", f"dev/{name}", sc.MOUNT_ATTR_NOSUID)
    # libfuse opens it and, where it may not mount, asks for another: it is not to have the machine's.
    _attach("/dev/null", FUSE_DEVICE[1:], sc.MOUNT_ATTR_NOSUID)
    for path, text in operation.files.items():
        _write(path[1:], text, 0o644)
    _write("helper", operation.helper, 0o755)
    for path in operation.covers:
        _attach("helper", path[1:], closed | sc.MOUNT_ATTR_RDONLY)
    os.makedirs(operation.writable, mode=0o700, exist_ok=True)
    os.chown(operation.writable, operation.owner, operation.owner)
    _attach(operation.writable, "tmp", closed | sc.MOUNT_ATTR_NOEXEC)
    os.mkdir("proc", 0o755)
    os.mkdir("mnt", 0o700)
    os.chown("mnt", operation.owner, operation.owner)


def keep_made(operation: op.KeepMade, context: Context) -> None:
    """Until here it was closed when a program was executed."""
    os.dup2(context.trees.pop(_MADE), operation.number)


def _attach(source: str, target: str, attributes: int) -> None:
    os.makedirs(os.path.dirname(target) or ".", mode=0o755, exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(target, mode=0o755, exist_ok=True)
    elif not os.path.exists(target):
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    tree = sc.open_tree(source)
    sc.set_mount_attributes(tree, source, attributes)
    sc.move_mount(tree, target)
    os.close(tree)


def _write(path: str, text: str, mode: int) -> None:
    os.makedirs(os.path.dirname(path) or ".", mode=0o755, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.write(descriptor, text.encode())
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
