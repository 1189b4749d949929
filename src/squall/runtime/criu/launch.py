"""The processes that save a template and bring it back: root of the machine, in the template's namespaces.

CRIU takes for granted what it has in common with a process, so it joins all of its namespaces but the user namespace,
in which it would lack the rights it needs. What it and its libraries read on their own is covered while it runs: the
files around it are those of somebody's image, and somebody's program may be running among them.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from squall.runtime import syscalls as sc
from squall.runtime.criu.checksums import checksums
from squall.runtime.criu.images import forget_user_namespace
from squall.runtime.criu.tool import Tool, argv_through
from squall.runtime.errors import TemplateUnfit
from squall.runtime.execute import carry_out
from squall.runtime.launch import JOINED_NAMESPACES, Forked, LaunchKit, context_of, end_with, run_and_exit, tell
from squall.runtime.operations import Phase
from squall.runtime.procfs import filter_count
from squall.runtime.spec import SAVED_FILES, IdRange
from squall.runtime.trees import copy_tree

SAVED = "saved.json"
"""What is told of a saved template beside its images; the last file to be written."""
# Configuration of the loader and of libraries, and a cache of what the kernel can.
_COVERED = ("/etc", "/run")
_COVER = "squall-cover"
"""What lies over them is called, in the list of mounts."""
_SCRATCH = "/tmp"
"""Where CRIU makes directories to find out what the kernel can, by a name that cannot be changed."""
# In its own pid namespace a template has a low number, and CRIU's processes must not take that one.
_ROOM_OF_PIDS = 1_000
_FIRST_DESCRIPTOR = 10
_CAUSE_LENGTH = 500


def fork_save(
    tool: Tool, id_range: IdRange, container_pidfd: int, pid: int, files: str, directory: str,
    private: Collection[int] = (), *, file_bytes_max: int = 0,
) -> Forked:  # fmt: skip
    """Save a template's copy, which ends with that; what went wrong comes as a message.

    All processes that do so are one group: where one is killed, those below it end, and are children of the caller.

    Args:
        files: what the template has written.
        private: descriptors that are the caller's alone.
        file_bytes_max: of each file that CRIU writes; 0: whatever it takes.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent_pid = os.getpid()
    helper, pidfd = sc.clone(0, signal.SIGCHLD)
    if helper == 0:

        def body() -> None:
            end_with(parent_pid, private)
            os.setsid()
            pid_inside = _number_inside(pid)
            saved = {
                "pid": pid_inside,
                "outputs": [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (1, 2)],
                "filters": filter_count(pid),
                "first_id": id_range.start,
            }
            own_pid = os.getpid()
            child = os.fork()
            if child == 0:

                def dump() -> None:
                    end_with(own_pid)
                    if file_bytes_max:
                        # Writing more fails: Python ignores the signal, and so does CRIU then.
                        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, file_bytes_max))
                    _dump(tool, container_pidfd, pid_inside, directory)

                run_and_exit(dump, theirs, code=0)
            status = os.waitpid(child, 0)[1]
            if os.WIFSIGNALED(status):
                raise TemplateUnfit("cannot save a template: what runs CRIU was killed")
            if status == 0:
                forget_user_namespace(directory)
                copy_tree(files, f"{directory}/{SAVED_FILES}")
                _write_saved(directory, {**saved, "checksums": checksums(directory, SAVED_FILES)})

        run_and_exit(body, theirs, code=0)
    theirs.close()
    return Forked(helper, pidfd, ours)


def fork_restore(
    kit: LaunchKit, tool: Tool, id_range: IdRange, entry: Sequence[Phase], container_pidfd: int,
    outputs: Sequence[int], control: socket.socket, directory: str, cgroup_fd: int, private: Collection[int] = (),
) -> Forked:  # fmt: skip
    """Bring a saved template back into a container; its pid comes as a message, and it ends as a child of ours.

    Args:
        outputs: its new descriptors 1 and 2.
        control: its new end of what it is asked for forks by.
        private: descriptors that are the caller's alone.

    `Forked` is the helper, which ends at once.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent_pid = os.getpid()
    helper, pidfd = sc.clone(0, signal.SIGCHLD, cgroup_fd)
    if helper == 0:

        def body() -> None:
            end_with(parent_pid, private)
            carry_out(entry, context_of(kit, id_range, -1, theirs), lambda _: None)
            saved = _read_saved(directory, id_range)
            keys = ("dev/full", *saved["outputs"])
            inherited = dict(zip(keys, (control.fileno(), *outputs), strict=True))
            _give_to(id_range.start, directory)
            _raise_last_pid(container_pidfd, saved["pid"] + _ROOM_OF_PIDS)
            _restore(tool, container_pidfd, directory, inherited, theirs)

        run_and_exit(body, theirs, code=0)
    theirs.close()
    return Forked(helper, pidfd, ours)


def uncover(container_pidfd: int) -> None:
    """Take away what still covers files of a container, where whoever was to do so has been killed.

    The caller is in its mount namespace afterwards.
    """
    own_fd = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sc.setns(container_pidfd, sc.CLONE_NEWNS, "the container's mount namespace")
    with open(os.open("mountinfo", os.O_RDONLY | os.O_CLOEXEC, dir_fd=own_fd), errors="surrogateescape") as file:
        # What was mounted last comes last.
        mounts = [line.split(" ") for line in file]
    for mount in reversed(mounts):
        if mount[mount.index("-") + 2] == _COVER:
            sc.unmount(mount[4])


def end_with_holder(life: int) -> None:
    """End when the parent does, which has no number that could be compared, in another pid namespace: what it has begun
    would go on, and whoever waits for it would be told of no end.

    Args:
        life: of a pipe, whose other end the parent alone has open; it closes that before its children are told.
    """
    sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([life], [], [], 0)[0]:
        os._exit(1)


def _dump(tool: Tool, container_pidfd: int, pid_inside: int, directory: str) -> None:
    _run(tool, container_pidfd, directory, "dump", ("--tree", str(pid_inside)), {}, scratch=_SCRATCH)


def _restore(
    tool: Tool, container_pidfd: int, directory: str, inherited: Mapping[str, int], channel: socket.socket
) -> None:
    # The range's user namespace is that of the first process.
    options = ("--restore-detached", "--restore-sibling", "--join-ns", "user:1")
    children_fd = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
    os.setsid()
    _run(tool, container_pidfd, directory, "restore", options, inherited)
    children = os.pread(children_fd, 1_000, 0).split()
    if len(children) != 1:
        raise TemplateUnfit(f"cannot bring a template back: {len(children)} processes came, not one")
    tell(channel, {"pid": int(children[0])})


def _run(
    tool: Tool, container_pidfd: int, directory: str, action: str, options: Sequence[str], inherited: Mapping[str, int],
    *, scratch: str = "",
) -> None:  # fmt: skip
    """Run CRIU in a container, and stay there.

    Args:
        scratch: a directory that is to be written where the container's files are read-only, those of a template that
            is ready. Nobody in it runs user code meanwhile; what it has open there cannot be saved.

    Raises:
        TemplateUnfit: it failed; with its own words.
    """
    tool_fd = tool.open()
    images_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    sc.setns(container_pidfd, JOINED_NAMESPACES | sc.CLONE_NEWCGROUP, "the container's namespaces")
    life, own_life = os.pipe()
    with _covered(scratch):
        child = os.fork()
        if child == 0:
            try:
                os.close(own_life)
                end_with_holder(life)
                _execute(tool_fd, images_fd, action, options, inherited)
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
    if status:
        raise TemplateUnfit(f"cannot {action} a template by CRIU: {_last_error(images_fd, action) or 'it was killed'}")


def _execute(tool_fd: int, images_fd: int, action: str, options: Sequence[str], inherited: Mapping[str, int]) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    more: list[str] = []
    for number, key in enumerate(inherited, _FIRST_DESCRIPTOR):
        more += ["--inherit-fd", f"fd[{number}]:{key}"]
    # First out of the way of the numbers they are to have.
    moved = [os.dup(descriptor) for descriptor in (tool_fd, images_fd, *inherited.values())]
    while min(moved) < _FIRST_DESCRIPTOR + len(moved):
        moved = [os.dup(descriptor) for descriptor in moved]
    for number, descriptor in enumerate(moved[2:], _FIRST_DESCRIPTOR):
        os.dup2(descriptor, number)
    for descriptor in moved[:2]:
        os.set_inheritable(descriptor, True)
    argv = argv_through(moved[0], moved[1], action, *options, *more)
    # No program is found by its name, and no library by a variable.
    os.execve(argv[0], argv, {"PATH": "/nonexistent", "HOME": "/nonexistent"})


@contextmanager
def _covered(scratch: str) -> Iterator[None]:
    """Nothing is in the directories where programs look for configuration, nor in `scratch`, if there is to be one.

    Whoever runs here may rename what is not covered yet, so it is looked whether the cover is where it should be: from
    then on it cannot be moved.

    Raises:
        TemplateUnfit: there are no such directories.
    """
    covered: list[str] = []
    try:
        for path in (*_COVERED, *filter(None, (scratch,))):
            if not os.path.isdir(path) or os.path.islink(path):
                raise TemplateUnfit(f"cannot save a template or bring one back: its image has no directory {path}")
            flags = sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC | (0 if path == scratch else sc.MS_RDONLY)
            sc.mount(_COVER, path, "tmpfs", flags, "size=65536,mode=700")
            covered.append(path)
            found = os.lstat(path)
            if found.st_dev == os.lstat("/").st_dev or os.path.islink(path) or os.listdir(path):
                raise TemplateUnfit(f"cannot save a template or bring one back: its {path} is being changed")
        yield
    finally:
        for path in covered:
            sc.unmount(path)


def _give_to(uid: int, directory: str) -> None:
    """Let what comes back read its own images: it does so with no right but those over its range's ids."""
    for path in (directory, *(entry.path for entry in os.scandir(directory))):
        os.chown(path, uid, uid, follow_symlinks=False)


def _raise_last_pid(container_pidfd: int, last: int) -> None:
    child = os.fork()
    if child == 0:
        try:
            sc.setns(container_pidfd, sc.CLONE_NEWPID, "the container's pid namespace")
            # Only a child is in it, and the machine's /proc is to be written.
            if os.fork() == 0:
                with open("/proc/sys/kernel/ns_last_pid", "w", encoding="ascii") as file:
                    file.write(str(last))
                os._exit(0)
            os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise TemplateUnfit("cannot bring a template back: its pid cannot be kept free")


def _number_inside(pid: int) -> int:
    """The pid of a process in its own namespace."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        line = next(line for line in file if line.startswith("NSpid:"))
    return int(line.split()[-1])


def _write_saved(directory: str, saved: Mapping[str, Any]) -> None:
    """Say that it is there whole, once it is: on the disk, not only in the memory of the machine."""
    done = subprocess.run(["sync", "--file-system", directory], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise TemplateUnfit(f"cannot save a template: the disk does not take it: {done.stderr.strip()[:_CAUSE_LENGTH]}")
    with open(f"{directory}/{SAVED}", "w", encoding="utf-8") as file:
        json.dump(saved, file)
        file.flush()
        os.fsync(file.fileno())


def saved_filter_count(directory: str) -> int:
    """How many filters of system calls a saved template wears; -1 where that cannot be read."""
    try:
        with open(f"{directory}/{SAVED}", encoding="utf-8") as file:
            return int(json.load(file)["filters"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return -1


def _read_saved(directory: str, id_range: IdRange) -> Mapping[str, Any]:
    try:
        with open(f"{directory}/{SAVED}", encoding="utf-8") as file:
            saved: Mapping[str, Any] = json.load(file)
        is_own = saved["first_id"] == id_range.start
        # What is cut short would be waited for, for ever.
        is_whole = is_own and saved["checksums"] == checksums(directory, SAVED_FILES)
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise TemplateUnfit(f"cannot bring a template back from {directory}: none was saved there whole") from error
    if not is_own:
        # Its files are those ids'.
        raise TemplateUnfit(f"cannot bring a template back from {directory}: it was saved for other ids")
    if not is_whole:
        raise TemplateUnfit(f"cannot bring a template back from {directory}: its files are not as they were saved")
    return saved


def _last_error(images_fd: int, action: str) -> str:
    try:
        descriptor = os.open(f"{action}.log", os.O_RDONLY | os.O_CLOEXEC, dir_fd=images_fd)
    except OSError:
        return ""
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        errors = [line for line in file if "Error" in line and "tun" not in line and "rlimit" not in line]
    return errors[0].strip()[:_CAUSE_LENGTH] if errors else ""
