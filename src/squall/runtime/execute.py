"""Carry a plan out: one loop, and one short function per kind of operation.

Runs in a process forked for one container. Any failure ends it before a line of the container's program has run.
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import stat
import struct
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from squall.runtime import operations as op
from squall.runtime import syscalls as sc
from squall.runtime import volumes
from squall.runtime.bucket.execute import furnish_bucket_server, keep_made, make_bucket_mount
from squall.runtime.errors import ProgramMissing, ProgramRefused, RuntimeFailure, TemplateUnfit, describe_errno
from squall.runtime.gvisor.execute import check_program, execute_runsc, furnish_sandbox
from squall.runtime.programs import SEARCH_PATH, find_program
from squall.runtime.spec import IdRange
from squall.runtime.trees import copy_tree


@dataclass(slots=True)
class Context:
    """What the operations of one container share, and what the spawner prepared for them."""

    id_range: IdRange
    user_namespace_fd: int
    images_fd: int
    """The mount namespace in which images of layers are mounted."""
    init_fd: int
    pause_fd: int
    seccomp_program: bytes
    template_program: bytes
    last_capability: int
    channel: socket.socket
    """To the spawner: messages, and descriptors made inside."""
    control: socket.socket | None = None
    """Of a template: over which it is asked for forks."""
    network_fd: int = -1
    trees: dict[str, int] = field(default_factory=dict)
    """Detached mounts by name, from the operation that took them to the one that attaches them."""
    cgroup_fds: list[int] = field(default_factory=list)
    phase_ms: dict[str, float] = field(default_factory=dict)


def carry_out(phases: Sequence[op.Phase], context: Context, report: Callable[[Mapping[str, float]], None]) -> None:
    """Perform every operation in order. From a plan that ends in a program this returns by raising only.

    Args:
        report: called with the time of each phase just before a program is executed.

    Raises:
        RuntimeFailure: the first operation that failed.
    """
    for phase in phases:
        begin_ns = time.monotonic_ns()
        for operation in phase.operations:
            if isinstance(operation, op.Execute | op.ExecuteRunsc | op.Wait):
                context.phase_ms[phase.name] = (time.monotonic_ns() - begin_ns) / 1e6
                report(context.phase_ms)
            try:
                PERFORM[type(operation)](operation, context)
            except OSError as error:
                subject = error.filename if isinstance(error.filename, str) else repr(operation)
                raise RuntimeFailure(describe_errno(_words(operation), subject, error.errno or 0)) from error
        context.phase_ms[phase.name] = (time.monotonic_ns() - begin_ns) / 1e6


def _words(operation: op.Operation) -> str:
    """`make directory` of a `MakeDirectory`, for the error that names what failed."""
    name = type(operation).__name__
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


@contextmanager
def _as_range(context: Context) -> Iterator[None]:
    # Files made by the machine's root would belong to nobody inside, and cannot be made at all on an id-mapped upper.
    sc.set_filesystem_ids(context.id_range.start, context.id_range.start)
    try:
        yield
    finally:
        sc.set_filesystem_ids(0, 0)


def _detach_mounts(_operation: op.DetachMounts, _context: Context) -> None:
    sc.mount("", "/", None, sc.MS_REC | sc.MS_PRIVATE)


def _set_file_limit(operation: op.SetFileLimit, _: Context) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    nofile = operation.nofile_max if hard == resource.RLIM_INFINITY else min(operation.nofile_max, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _join_network(operation: op.JoinNetwork, _: Context) -> None:
    descriptor = os.open(operation.netns_path, os.O_RDONLY | os.O_CLOEXEC)
    sc.setns(descriptor, sc.CLONE_NEWNET, f"network namespace {operation.netns_path}")
    os.close(descriptor)


def _open_network(operation: op.OpenNetwork, context: Context) -> None:
    context.network_fd = os.open(operation.netns_path, os.O_RDONLY | os.O_CLOEXEC)


def _raise_loopback(_operation: op.RaiseLoopback, _context: Context) -> None:
    sc.raise_loopback()


def _write_network_setting(operation: op.WriteNetworkSetting, _: Context) -> None:
    _write(f"/proc/sys/net/{operation.name}", operation.value, os.O_WRONLY)


def _write(path: str, text: str, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _mount_scratch(operation: op.MountScratch, _: Context) -> None:
    os.makedirs(operation.path, mode=0o700, exist_ok=True)
    sc.mount("squall", operation.path, "tmpfs", sc.MS_NOSUID | sc.MS_NODEV, "mode=755,size=1m")


def _write_scratch_file(operation: op.WriteScratchFile, context: Context) -> None:
    _write(operation.path, operation.text, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    # Root of the container may edit its own resolv.conf and hosts, as on any machine.
    os.chown(operation.path, context.id_range.start, context.id_range.start)
    context.trees[operation.name] = sc.open_tree(operation.path)


def _take_tree(operation: op.TakeTree, context: Context) -> None:
    tree = sc.open_tree(operation.source)
    if operation.is_idmapped:
        sc.set_mount_attributes(
            tree, operation.source, sc.MOUNT_ATTR_IDMAP, user_namespace_fd=context.user_namespace_fd
        )
    attributes = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV
    if operation.is_read_only:
        attributes |= sc.MOUNT_ATTR_RDONLY
    sc.set_mount_attributes(tree, operation.source, attributes)
    context.trees[operation.name] = tree


def _take_layer(operation: op.TakeLayer, context: Context) -> None:
    context.trees[operation.name] = sc.open_tree(operation.source)
    _map_ids(operation.name, operation.source, context)


def _take_images(operation: op.TakeImages, context: Context) -> None:
    with _among_images(context):
        for name, point in operation.points.items():
            context.trees[name] = sc.open_tree(point)
    for name, point in operation.points.items():
        _map_ids(name, point, context)


def _map_ids(name: str, subject: str, context: Context) -> None:
    tree = context.trees[name]
    sc.set_mount_attributes(tree, subject, sc.MOUNT_ATTR_IDMAP, user_namespace_fd=context.user_namespace_fd)


@contextmanager
def _among_images(context: Context) -> Iterator[None]:
    """Where the spawner has mounted its images and nothing else; our own mounts are there again afterwards."""
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        sc.setns(context.images_fd, sc.CLONE_NEWNS, "the namespace of images")
        try:
            yield
        finally:
            sc.setns(own, sc.CLONE_NEWNS, "the container's mount namespace")
    finally:
        os.close(own)


def _attach_idmapped(source: str, target: str, context: Context) -> None:
    tree = sc.open_tree(source)
    sc.set_mount_attributes(tree, source, sc.MOUNT_ATTR_IDMAP, user_namespace_fd=context.user_namespace_fd)
    sc.move_mount(tree, target)
    os.close(tree)


def _take_place(operation: op.TakePlace, context: Context) -> None:
    with _among_images(context):
        tree = sc.open_tree(operation.point)
    attributes = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV
    if operation.is_read_only:
        attributes |= sc.MOUNT_ATTR_RDONLY
    sc.set_mount_attributes(tree, operation.point, attributes)
    context.trees[operation.name] = tree


def _take_volume(operation: op.TakeVolume, context: Context) -> None:
    volume = operation.volume
    if volume.image:
        version = volumes.make_version(volume, context.id_range, context.user_namespace_fd)
        context.trees[_version_of(operation.name)] = version
    with _among_images(context):
        tree = volumes.take_place(operation.point)
    sc.set_propagation(tree, volume.target, sc.MS_SLAVE)
    context.trees[operation.name] = tree


def _attach_volume(operation: op.AttachVolume, context: Context) -> None:
    with _rooted(operation.root):
        _attach_tree(op.AttachTree(operation.name, operation.volume.target), context)
    version = context.trees.pop(_version_of(operation.name), None)
    if version is None:
        return
    with _among_images(context):
        volumes.attach_version(operation.point, version, operation.volume, context.id_range)
    # While we have it, it counts as used.
    os.close(version)


@contextmanager
def _rooted(root: str) -> Iterator[None]:
    """As the container sees its files; afterwards as before."""
    if root == "/":
        yield
        return
    top = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.chroot(root)
        os.chdir("/")
        try:
            yield
        finally:
            os.fchdir(top)
            os.chroot(".")
    finally:
        os.close(top)


def _version_of(name: str) -> str:
    return f"{name}-version"


def _fill_upper(operation: op.FillUpper, context: Context) -> None:
    os.makedirs(operation.writable, exist_ok=True)
    try:
        copy_tree(operation.source, f"{operation.writable}/upper")
    except RuntimeFailure as failure:
        raise TemplateUnfit(f"cannot bring a template back: {failure.message}") from failure


def _mount_root(operation: op.MountRoot, context: Context) -> None:
    # Relative names in a directory of our own: overlayfs takes its options in one page (4096 bytes), which is about 40
    # layers when they are named by their paths, and all it can stack (500) when they are called 0, 1, 2.
    os.chdir(operation.scratch)
    for index, layer in enumerate(operation.layers):
        os.mkdir(str(index))
        tree = context.trees.pop(layer)
        sc.move_mount(tree, str(index))
        os.close(tree)
    _make_upper(operation.writable, owner=0 if operation.is_upper_idmapped else context.id_range.start)
    writable = operation.writable
    if operation.is_upper_idmapped:
        os.mkdir("rw")
        _attach_idmapped(writable, "rw", context)
        writable = "rw"
    os.mkdir("root")
    lower = ":".join(str(index) for index in reversed(range(len(operation.layers))))
    # volatile: nothing in an upper outlives a crash of the machine, so fsync inside may be free (dpkg calls it per
    # file) and ending a container does not wait for the disk. A renamed directory says where it was, so that it need
    # not be copied. No metadata-only copies: layers are packed from uppers.
    options = f"lowerdir={lower},upperdir={writable}/upper,workdir={writable}/work"
    options += ",volatile,redirect_dir=on,metacopy=off,index=off"
    if not operation.is_upper_idmapped:
        sc.mount("squall", "root", "overlay", sc.MS_NODEV, options)
        return
    # overlayfs works in its upper as whoever mounted it; the machine's root has no id on an id-mapped mount.
    with _as_range(context):
        sc.mount("squall", "root", "overlay", sc.MS_NODEV, options)


def _make_upper(writable: str, owner: int) -> None:
    for name in ("upper", "work"):
        path = f"{writable}/{name}"
        if not os.path.isdir(path):
            os.makedirs(path, mode=0o755)
            os.chmod(path, 0o755)
            os.chown(path, owner, owner)


def _pivot_root(operation: op.PivotRoot, _: Context) -> None:
    os.chdir(operation.path)
    sc.pivot_root(".", ".")
    sc.unmount(".")
    os.chdir("/")


def _make_directory(operation: op.MakeDirectory, context: Context) -> None:
    try:
        mode = os.lstat(operation.path).st_mode
    except FileNotFoundError:
        with _as_range(context):
            os.mkdir(operation.path)
            os.chmod(operation.path, operation.mode)
        return
    if not stat.S_ISDIR(mode):
        raise RuntimeFailure(f"cannot mount over {operation.path}: it is not a directory in the image; make it one")


def _mount_kind(operation: op.MountKind, _: Context) -> None:
    sc.mount("squall" if operation.kind == "tmpfs" else operation.kind, operation.target, operation.kind,
             operation.flags, operation.options)  # fmt: skip


def _make_device(operation: op.MakeDevice, _: Context) -> None:
    os.mknod(operation.path, stat.S_IFCHR, os.makedev(operation.major, operation.minor))
    os.chmod(operation.path, 0o666)


def _make_link(operation: op.MakeLink, _: Context) -> None:
    os.symlink(operation.target, operation.path)


def _attach_tree(operation: op.AttachTree, context: Context) -> None:
    tree = context.trees.pop(operation.name)
    if not os.path.exists(operation.target):
        with _as_range(context):
            parent = os.path.dirname(operation.target)
            os.makedirs(parent, exist_ok=True)
            if stat.S_ISDIR(os.stat(tree).st_mode):
                os.mkdir(operation.target)
            else:
                os.close(os.open(operation.target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
    sc.move_mount(tree, operation.target)
    os.close(tree)


def _attach_bucket(operation: op.AttachBucket, context: Context) -> None:
    if not os.path.isdir(operation.target):
        with _as_range(context):
            os.makedirs(operation.target)
    tree = context.trees.pop(operation.name)
    sc.move_mount(tree, operation.target)
    os.close(tree)


def _protect_path(operation: op.ProtectPath, _: Context) -> None:
    if os.path.isdir(operation.path):
        sc.mount(operation.path, operation.path, None, sc.MS_BIND | sc.MS_REC)
        closed = sc.MOUNT_ATTR_NOSUID | sc.MOUNT_ATTR_NODEV | sc.MOUNT_ATTR_NOEXEC
        sc.set_path_attributes(operation.path, sc.MOUNT_ATTR_RDONLY | closed)


def _mask_path(operation: op.MaskPath, _: Context) -> None:
    if not os.path.exists(operation.path):
        return
    if os.path.isdir(operation.path):
        closed = sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC | sc.MS_RDONLY
        sc.mount("squall", operation.path, "tmpfs", closed, "mode=555,size=4k,nr_inodes=2")
    else:
        sc.mount("/dev/null", operation.path, None, sc.MS_BIND)


def _set_hostname(operation: op.SetHostname, _: Context) -> None:
    socket.sethostname(operation.hostname)


def _open_cgroup(operation: op.OpenCgroup, context: Context) -> None:
    for path in operation.tasks_paths:
        context.cgroup_fds.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))


def _enter_cgroup(_: op.EnterCgroup, context: Context) -> None:
    while context.cgroup_fds:
        descriptor = context.cgroup_fds.pop()
        os.write(descriptor, b"0")
        os.close(descriptor)
    sc.unshare(sc.CLONE_NEWCGROUP)


def _own_mounts(_: op.OwnMounts, __: Context) -> None:
    sc.unshare(sc.CLONE_NEWNS)


def _enter_user_namespace(_: op.EnterUserNamespace, context: Context) -> None:
    sc.setns(context.user_namespace_fd, sc.CLONE_NEWUSER, f"the user namespace of ids {context.id_range.start}..")
    # Whatever was opened before: no descriptor of the machine's gets into the container's program.
    sc.close_descriptors_on_exec(3)


def _become_user(operation: op.BecomeUser, _: Context) -> None:
    # From a uid that has no name in this namespace to one that has: the kernel leaves the capabilities as they are,
    # which DropCapabilities counts on.
    os.setgroups([])
    os.setresgid(operation.gid, operation.gid, operation.gid)
    os.setresuid(operation.uid, operation.uid, operation.uid)
    # Until exec this process holds the spawner's memory and descriptors; whoever is in the container already must not
    # get at them by /proc, whatever fs.suid_dumpable says.
    sc.prctl(sc.PR_SET_DUMPABLE, 0, "not dumpable")


def _open_standard_input(_operation: op.OpenStandardInput, _context: Context) -> None:
    if os.getsid(0) != os.getpid():
        os.setsid()
    descriptor = os.open("/dev/null", os.O_RDWR)
    os.dup2(descriptor, 0)
    os.close(descriptor)


def _open_terminal(operation: op.OpenTerminal, context: Context) -> None:
    # Opened here, inside and as the container's user: the other end must be a device of the container's own /dev/pts.
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", operation.rows, operation.columns, 0, 0))
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    socket.send_fds(context.channel, [b'{"terminal": true}'], [master])
    for descriptor in (0, 1, 2):
        os.dup2(slave, descriptor)
    os.close(master)
    os.close(slave)


def _drop_capabilities(operation: op.DropCapabilities, context: Context) -> None:
    for number in range(context.last_capability + 1):
        if number not in operation.kept:
            sc.prctl(sc.PR_CAPBSET_DROP, number, f"capability bound {number}")
    sc.set_capabilities(sum(1 << number for number in operation.kept))


def _forbid_privileges(_: op.ForbidPrivileges, __: Context) -> None:
    sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")


def _filter_calls(operation: op.FilterCalls, context: Context) -> None:
    sc.install_seccomp(context.template_program if operation.is_template else context.seccomp_program)


def _keep_control(operation: op.KeepControl, context: Context) -> None:
    assert context.control is not None, "a template has one"
    os.dup2(context.control.fileno(), operation.number)


def _wait(operation: op.Wait, context: Context) -> None:
    os.chdir("/")
    # Who is root in the container can open whatever its first process holds, and ours are the spawner's: its log.
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in (0, 1, 2):
        os.dup2(null, number)
    sc.reset_signals()
    if operation.is_child_of_spawner:
        # As in `_execute`.
        sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL, "the signal at the spawner's death")
    sc.execute_descriptor(context.pause_fd, ["init", "-P"], {})


def _execute(operation: op.Execute, context: Context) -> None:
    try:
        os.chdir(operation.cwd)
    except OSError as error:
        raise RuntimeFailure(describe_errno("change to directory", operation.cwd, error.errno or 0)) from error
    env = {"PATH": SEARCH_PATH, **operation.env}
    path = find_program(operation.argv[0], env["PATH"])
    # What is ignored or blocked stays so over an exec: Python ignores two signals, the spawner two more, and whoever
    # started it may have ignored or blocked any.
    sc.reset_signals()
    os.umask(0o022)
    if operation.has_init:
        # The spawner holds output and exit status; without it nobody could ever tell how this ended. Set here: changing
        # ids has cleared it. Not for the others: pid 1 takes them along, and their first parent ends on purpose.
        sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL, "the signal at the spawner's death")
        # -g: to the whole process group of the program, so that a shell's children hear of it too.
        sc.execute_descriptor(context.init_fd, ["init", "-g", "--", *operation.argv], env)
    try:
        os.execve(path, list(operation.argv), env)
    except OSError as error:
        # The file is there: what is not is the interpreter in its first line, or its dynamic loader.
        kind = ProgramMissing if error.errno == errno.ENOENT else ProgramRefused
        raise kind(describe_errno("execute", path, error.errno or 0)) from error


PERFORM: Mapping[type, Callable[[Any, Context], None]] = {
    op.DetachMounts: _detach_mounts,
    op.SetFileLimit: _set_file_limit,
    op.JoinNetwork: _join_network,
    op.OpenNetwork: _open_network,
    op.RaiseLoopback: _raise_loopback,
    op.WriteNetworkSetting: _write_network_setting,
    op.MountScratch: _mount_scratch,
    op.WriteScratchFile: _write_scratch_file,
    op.TakeTree: _take_tree,
    op.TakeLayer: _take_layer,
    op.TakeImages: _take_images,
    op.TakePlace: _take_place,
    op.TakeVolume: _take_volume,
    op.AttachVolume: _attach_volume,
    op.FillUpper: _fill_upper,
    op.MountRoot: _mount_root,
    op.PivotRoot: _pivot_root,
    op.MakeDirectory: _make_directory,
    op.MountKind: _mount_kind,
    op.MakeDevice: _make_device,
    op.MakeLink: _make_link,
    op.AttachTree: _attach_tree,
    op.ProtectPath: _protect_path,
    op.MaskPath: _mask_path,
    op.SetHostname: _set_hostname,
    op.OpenCgroup: _open_cgroup,
    op.EnterCgroup: _enter_cgroup,
    op.OwnMounts: _own_mounts,
    op.EnterUserNamespace: _enter_user_namespace,
    op.BecomeUser: _become_user,
    op.OpenStandardInput: _open_standard_input,
    op.OpenTerminal: _open_terminal,
    op.DropCapabilities: _drop_capabilities,
    op.ForbidPrivileges: _forbid_privileges,
    op.FilterCalls: _filter_calls,
    op.KeepControl: _keep_control,
    op.Execute: _execute,
    op.Wait: _wait,
    op.FurnishSandbox: furnish_sandbox,
    op.CheckProgram: check_program,
    op.ExecuteRunsc: execute_runsc,
    op.AttachBucket: _attach_bucket,
    op.MakeBucketMount: make_bucket_mount,
    op.FurnishBucketServer: furnish_bucket_server,
    op.KeepMade: keep_made,
}
