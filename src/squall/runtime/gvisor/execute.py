"""Carry out the operations that only containers under gVisor have."""

from __future__ import annotations

import os
import stat
from typing import Protocol

from squall.runtime import operations as op
from squall.runtime import syscalls as sc
from squall.runtime.errors import RuntimeFailure, describe_errno
from squall.runtime.programs import SEARCH_PATH, find_program

# Which processes may be in the root network namespace is found out by runsc by this file. Since Linux 6.17 every
# namespace has it, and runsc, thinking it is in the machine's own, refuses to take over the interface.
_MARK_OF_MACHINE = "proc/sys/net/core"
_RUN_BYTES = 16 * 2**20


class Trees(Protocol):
    """What `runtime.execute` gives all operations; of that, the detached mounts by name."""

    trees: dict[str, int]


def furnish_sandbox(operation: op.FurnishSandbox, context: Trees) -> None:
    """Everything is root's, and closed to the ids that sandbox and gofer run with: an escape finds nothing to write."""
    os.chdir(operation.scratch)
    for name in ("proc", "proc-whole", "tmp", "etc", "dev", "dev/pts", "run"):
        os.mkdir(name, 0o755)
    closed = sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC
    # Two: who is in a user namespace may mount one only where a whole one is in sight.
    for name in ("proc", "proc-whole"):
        sc.mount("proc", name, "proc", closed)
    sc.mount("squall", _MARK_OF_MACHINE, "tmpfs", closed | sc.MS_RDONLY, "mode=555,size=4k,nr_inodes=2")
    sc.mount("squall", "run", "tmpfs", closed, f"mode=700,size={_RUN_BYTES}")
    sc.mount("devpts", "dev/pts", "devpts", sc.MS_NOSUID | sc.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0600")
    os.symlink("pts/ptmx", "dev/ptmx")
    _make_mount_point("dev/null", is_directory=False)
    sc.mount("/dev/null", "dev/null", None, sc.MS_BIND)
    for path, name in operation.trees.items():
        tree = context.trees.pop(name)
        _make_mount_point(path[1:], is_directory=stat.S_ISDIR(os.fstat(tree).st_mode))
        sc.move_mount(tree, path[1:])
        os.close(tree)
    for path, text in operation.files.items():
        os.makedirs(os.path.dirname(path[1:]), mode=0o700, exist_ok=True)
        with open(os.open(path[1:], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)


def _make_mount_point(path: str, *, is_directory: bool) -> None:
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if is_directory:
        os.mkdir(path, 0o755)
    else:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def check_program(operation: op.CheckProgram, _: object) -> None:
    """runsc would say so only after a sandbox has been made, and in words of its own."""

    def is_unseen(path: str) -> bool:
        return any(path == place or path.startswith(f"{place}/") for place in operation.unseen)

    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Links in the container's files must not lead out of them.
        os.chroot(operation.root)
        os.chdir("/")
        if not is_unseen(operation.cwd):
            try:
                os.chdir(operation.cwd)
            except OSError as error:
                message = describe_errno("change to directory", operation.cwd, error.errno or 0)
                raise RuntimeFailure(message) from error
        folders = operation.search_path.split(":")
        is_elsewhere = is_unseen(operation.program) if "/" in operation.program else any(map(is_unseen, folders))
        if not is_elsewhere:
            find_program(operation.program, operation.search_path)
    finally:
        os.fchdir(top)
        os.chroot(".")
        os.close(top)


def execute_runsc(operation: op.ExecuteRunsc, _: object) -> None:
    """Returns only by raising. The signal at the spawner's death is still set: no ids have been changed."""
    argv = list(operation.argv)
    kept = [operation.kept_fd] if operation.kept_fd >= 0 else []
    if operation.document:
        document = os.memfd_create("document", os.MFD_CLOEXEC)
        os.write(document, operation.document.encode())
        argv = [word.format(document=f"/proc/self/fd/{document}") for word in argv]
        kept.append(document)
    # No descriptor of the machine's gets into a process that a sandbox talks to.
    sc.close_descriptors_on_exec(3)
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    os.chdir("/")
    sc.reset_signals()
    os.umask(0o022)
    os.execve(argv[0], argv, {"PATH": SEARCH_PATH})
