"""What a template has written, kept for its forks: a tree that nobody changes any more."""

from __future__ import annotations

import errno
import os

from squall.runtime import syscalls as sc
from squall.runtime.cgroup import Cgroup
from squall.runtime.errors import RuntimeFailure, TemplateUnfit
from squall.runtime.trees import copy_tree

KEEP_S = 10.0
"""For a link to each file that a template has written; nobody of it runs meanwhile."""


def keep_files(first_pid: int, cgroup: Cgroup, upper: str, target: str) -> None:
    """Copy the tree that a template has written, its files by hard links: an upper of a living mount may not be a lower
    of another one. From then on its files are read-only, for it and for whoever has kept a way to them: they are the
    ones that its forks find.

    Nobody of it runs meanwhile: a directory that became a link under our eyes would lead to files of the machine.

    Raises:
        TemplateUnfit: it has one open for writing.
        RuntimeFailure: they cannot be kept.
    """
    cgroup.freeze()
    try:
        _forbid_writing(first_pid)
        copy_tree(upper, target, is_linked=True, timeout_s=KEEP_S)
    finally:
        cgroup.thaw()


def _forbid_writing(first_pid: int) -> None:
    # Binds stay as they are: what they show is the machine's, and kept by nobody.
    namespace_fd = os.open(f"/proc/{first_pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # In a process of its own: whoever has entered the namespace sees none of the machine's files.
        child = os.fork()
        if child == 0:
            os._exit(_protect_root(namespace_fd))
    finally:
        os.close(namespace_fd)
    _, status = os.waitpid(child, 0)
    number = os.waitstatus_to_exitcode(status)
    if number == errno.EBUSY:
        raise TemplateUnfit("cannot keep the files it has written: one is open for writing")
    if number:
        reason = os.strerror(number) if number > 0 else "killed"
        raise RuntimeFailure(f"cannot keep the files it has written: they cannot be made read-only ({reason})")


def _protect_root(namespace_fd: int) -> int:
    """0, or the number of the error."""
    try:
        sc.setns(namespace_fd, sc.CLONE_NEWNS, "the mount namespace of a template")
        sc.set_path_attributes("/", sc.MOUNT_ATTR_RDONLY)
    except RuntimeFailure as failure:
        cause = failure.__cause__
        return (cause.errno or errno.EIO) if isinstance(cause, OSError) else errno.EIO
    return 0
