"""Turn a spec into the list of operations that makes its container.

Pure: nothing here touches the machine. Invariants of a plan:
  * no confined operation comes before `EnterUserNamespace`, no root operation after it
  * every mount is made before it, so that no process of the container owns or can undo one
  * `FilterCalls` is last but for the program

The cell of a clone is made by three processes, and its plan has three parts. What the invariants are there for holds in
another way: the machine's root makes the mounts, and the first process copies them into a namespace of its own user
namespace, which locks them. See docs/decisions/0057.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from squall.runtime import operations as op
from squall.runtime.spec import SAVED_FILES, ContainerSpec, ExecSpec
from squall.runtime.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY
from squall.runtime.volumes import point_of

NOFILE_MAX = 1_048_576
CONTROL_FD = 3
CONTROL_ENV = "SQUALL_TEMPLATE_FD"
"""Tells a template its socket to the spawner."""

# What package managers and ordinary programs need as root over files and processes of their own id range. Docker's
# default set has three more: MKNOD and AUDIT_WRITE mean nothing in a user namespace, NET_RAW forges packets (ping
# works without).
KEPT_CAPABILITIES = {
    "CHOWN": 0,
    "DAC_OVERRIDE": 1,
    "FOWNER": 3,
    "FSETID": 4,
    "KILL": 5,
    "SETGID": 6,
    "SETUID": 7,
    "SETPCAP": 8,
    "NET_BIND_SERVICE": 10,
    "SYS_CHROOT": 18,
    "SETFCAP": 31,
}

DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)

# World-readable or world-writable files of the machine that tell or do more than a container needs.
MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    # Hidden, not shown read-only: see docs/decisions/0003.
    "/sys/fs/cgroup",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
)
PROTECTED = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys")

TTY_GROUP = 5


def plan_start(
    spec: ContainerSpec, tasks_paths: Sequence[str], image_points: Mapping[str, str] | None = None
) -> list[op.Phase]:
    """The phases that turn a process forked into new namespaces into pid 1 of the container.

    Args:
        image_points: of the layers that are images, where each is mounted in the namespace of images.
    """
    network, rootfs = plan_root(spec, tasks_paths, image_points or {})
    return [
        network,
        op.Phase(rootfs.name, [*rootfs.operations, op.PivotRoot(f"{scratch_of(spec)}/root")]),
        op.Phase("system", list(_system(spec))),
        op.Phase("cgroup", [op.EnterCgroup()]),
        op.Phase("confine", [op.EnterUserNamespace(spec.id_range), *_confine_first(spec), *_last(spec)]),
    ]


def plan_root(spec: ContainerSpec, tasks_paths: Sequence[str], image_points: Mapping[str, str]) -> list[op.Phase]:
    """The network a container is in, and its root file system, mounted at `root` in `scratch_of` it: what is the same
    whatever it is confined by. Files of its own and binds are taken, and not attached yet."""
    return [
        op.Phase("network", [op.OpenCgroup(tuple(tasks_paths)), *_network(spec)]),
        op.Phase("rootfs", list(_rootfs(spec, scratch_of(spec), image_points))),
    ]


def scratch_of(spec: ContainerSpec) -> str:
    """Where the file system in memory is mounted that a container's mounts are made in."""
    return f"{spec.state_dir}/mnt"


def plan_template(spec: ContainerSpec) -> list[op.Phase]:
    """What the process that is to be forked does once it has entered every namespace of its container but one.

    It has no capabilities, not even over its own ids: what it needs to send its forks elsewhere, it has as the owner of
    the user namespace that they go to.
    """
    become, *_ = _confine(spec.user)
    env = {**_env(spec), CONTROL_ENV: str(CONTROL_FD)}
    last: list[op.Operation] = [
        op.DropCapabilities(()),
        op.ForbidPrivileges(),
        op.OpenStandardInput(),
        op.KeepControl(CONTROL_FD),
        op.FilterCalls(is_template=True),
        op.Execute(tuple(spec.argv), env, spec.cwd, has_init=False),
    ]
    return [op.Phase("confine", [op.EnterUserNamespace(spec.id_range), become, *last])]


@dataclass(frozen=True, slots=True)
class CellPlan:
    """What each of the processes does that make a cell; they share one mount namespace until the first has its own."""

    root: Sequence[op.Phase]
    """The machine's root, while it sees the machine's files: the root file system."""
    system: Sequence[op.Phase]
    """The machine's root, from inside the cell's other namespaces: what shows them (/proc, /sys), and all above it."""
    first: Sequence[op.Phase]
    """Pid 1, in the nested user namespace from its start, when the others are done."""


def plan_cell(
    spec: ContainerSpec,
    tasks_paths: Sequence[str],
    image_points: Mapping[str, str] | None = None,
    template_files: str = "",
) -> CellPlan:
    """The parts of the plan of a cell.

    Args:
        template_files: a directory of what the template has written, which its forks find as it left it.
    """
    # Whose versions it is to see is known when somebody begins in it, and until then a fork in it is nobody yet.
    spec = replace(spec, volumes=[replace(volume, image="") for volume in spec.volumes])
    network = [op.OpenNetwork(spec.network.netns_path)] if spec.network else []
    entry: list[op.Operation] = [op.DetachMounts(), op.OpenCgroup(tuple(tasks_paths)), *network]
    rootfs = _rootfs(spec, scratch_of(spec), image_points or {}, template_files)
    first: list[op.Operation] = [op.DropCapabilities(()), op.ForbidPrivileges(), op.FilterCalls(), op.Wait(False)]
    return CellPlan(
        root=[op.Phase("rootfs", [*entry, *rootfs, op.PivotRoot(f"{scratch_of(spec)}/root")])],
        system=[op.Phase("system", list(_system(spec, () if spec.network else _bare_network())))],
        first=[op.Phase("cgroup", [op.EnterCgroup(), op.OwnMounts()]), op.Phase("confine", first)],
    )


def kept_capabilities(user: tuple[int, int]) -> tuple[int, ...]:
    """The capabilities that a container's first process has, over the container's own ids: anyone but root has none."""
    return tuple(KEPT_CAPABILITIES.values()) if user[0] == 0 else ()


def plan_exec_entry(tasks_paths: Sequence[str]) -> list[op.Phase]:
    """What a process that is to run beside pid 1 does while it still sees the machine's files."""
    return [op.Phase("cgroup", [op.SetFileLimit(NOFILE_MAX), op.OpenCgroup(tuple(tasks_paths)), op.EnterCgroup()])]


def plan_exec(spec: ExecSpec, container: ContainerSpec) -> list[op.Phase]:
    """What it does once it has entered every namespace of the container but the user namespace."""
    terminal = [op.OpenTerminal(spec.rows, spec.columns)] if spec.has_pty else []
    execute = op.Execute(tuple(spec.argv), dict(spec.env), spec.cwd, has_init=False)
    first: list[op.Operation] = [op.EnterUserNamespace(container.id_range)]
    become, *restrict = _confine(container.user)
    return [op.Phase("confine", [*first, become, *terminal, *restrict, op.FilterCalls(), execute])]


def _network(spec: ContainerSpec) -> Iterator[op.RootOperation]:
    yield op.DetachMounts()
    yield op.SetFileLimit(NOFILE_MAX)
    if spec.network:
        yield op.JoinNetwork(spec.network.netns_path)
        yield from _open_to_all()
    else:
        yield from _bare_network()


def _bare_network() -> Iterator[op.RootOperation]:
    yield op.RaiseLoopback()
    yield from _open_to_all()


def _open_to_all() -> Iterator[op.RootOperation]:
    # The namespace belongs to the machine, not to the container's ids, so its NET_BIND_SERVICE does not count there.
    yield op.WriteNetworkSetting("ipv4/ip_unprivileged_port_start", "0")
    # Ping without raw sockets.
    yield op.WriteNetworkSetting("ipv4/ping_group_range", "0 2147483647")


def _rootfs(
    spec: ContainerSpec, scratch: str, image_points: Mapping[str, str], template_files: str = ""
) -> Iterator[op.RootOperation]:
    yield op.MountScratch(scratch)
    for name, text in written_files(spec):
        yield op.WriteScratchFile(f"{scratch}/{name}", text, name)
    for index, bind in enumerate(spec.binds):
        yield op.TakeTree(bind.source, f"bind-{index}", bind.is_read_only, bind.is_idmapped)
    for index, volume in enumerate(spec.volumes):
        yield op.TakeVolume(volume, point_of(spec.container_id, volume.name), f"volume-{index}")
    names = [f"layer-{index}" for index in range(len(spec.layers))]
    points = {
        name: image_points[layer] for name, layer in zip(names, spec.layers, strict=True) if layer in image_points
    }
    for name, layer in zip(names, spec.layers, strict=True):
        if name not in points:
            yield op.TakeLayer(layer, name)
    if points:
        yield op.TakeImages(points)
    if template_files:
        # Owned as on the machine: they were written by the range's own ids.
        yield op.TakeTree(template_files, "template", is_read_only=True, is_idmapped=False)
        names.append("template")
    if spec.restore_from:
        yield op.FillUpper(f"{spec.restore_from}/{SAVED_FILES}", f"{spec.state_dir}/rw")
    yield op.MountRoot(scratch, names, f"{spec.state_dir}/rw", spec.is_upper_idmapped)


def written_files(spec: ContainerSpec) -> Iterator[tuple[str, str]]:
    """Names and text of the files below /etc that a container has of its own."""
    yield "hostname", f"{spec.hostname}\n"
    hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    address = spec.network.address.partition("/")[0] if spec.network else "127.0.1.1"
    yield "hosts", f"{hosts}{address}\t{spec.hostname}\n"
    yield "resolv.conf", spec.network.resolv_conf if spec.network else ""


def _system(spec: ContainerSpec, network: Iterable[op.RootOperation] = ()) -> Iterator[op.RootOperation]:
    start = spec.id_range.start
    owner = f"uid={start},gid={start}"
    closed = MS_NOSUID | MS_NODEV | MS_NOEXEC
    for path in ("/proc", "/sys", "/dev"):
        yield op.MakeDirectory(path)
    yield op.MountKind("proc", "/proc", closed)
    # Of a cell, whose network namespace nobody was in before: its settings are below this /proc.
    yield from network
    yield op.MountKind("sysfs", "/sys", closed | MS_RDONLY)
    yield op.MountKind("tmpfs", "/dev", MS_NOSUID | MS_NOEXEC, f"mode=755,size=65536,{owner}")
    for name, major, minor in DEVICES:
        yield op.MakeDevice(f"/dev/{name}", major, minor)
    for name, target in LINKS:
        yield op.MakeLink(f"/dev/{name}", target)
    yield op.MakeDirectory("/dev/pts")
    yield op.MountKind(
        "devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=0620,gid={start + TTY_GROUP}"
    )
    yield op.MakeDirectory("/dev/shm")
    yield op.MountKind("tmpfs", "/dev/shm", closed, f"mode=1777,size={spec.limits.shm_bytes},{owner}")
    yield op.MakeDirectory("/tmp", 0o1777)
    if spec.limits.tmp_bytes is not None:
        options = f"mode=1777,size={spec.limits.tmp_bytes},{owner}"
        yield op.MountKind("tmpfs", "/tmp", MS_NOSUID | MS_NODEV, options)
    for name, _ in written_files(spec):
        yield op.AttachTree(name, f"/etc/{name}")
    for path in PROTECTED:
        yield op.ProtectPath(path)
    for path in MASKED:
        yield op.MaskPath(path)
    yield from _placed(spec)
    yield op.SetHostname(spec.hostname)


def plan_volumes(spec: ContainerSpec, root: str = "/") -> Sequence[op.AttachVolume]:
    """What attaches the volumes, in the root file system that is there."""
    volumes = sorted(enumerate(spec.volumes), key=lambda pair: pair[1].target.count("/"))
    return [
        op.AttachVolume(volume, point_of(spec.container_id, volume.name), f"volume-{index}", root)
        for index, volume in volumes
    ]


def _placed(spec: ContainerSpec) -> Iterator[op.RootOperation]:
    placed: list[tuple[str, op.RootOperation]] = [
        (bind.target, op.AttachTree(f"bind-{index}", bind.target)) for index, bind in enumerate(spec.binds)
    ]
    placed += [(one.volume.target, one) for one in plan_volumes(spec)]
    placed += [(one.target, op.AttachBucket(one.name, one.target)) for one in spec.buckets]
    # Shorter targets first: what is at /data must not cover what came to /data/cache before it.
    for _, operation in sorted(placed, key=lambda pair: pair[0].count("/")):
        yield operation


def _confine(user: tuple[int, int]) -> list[op.Operation]:
    uid, gid = user
    return [op.BecomeUser(uid, gid), op.DropCapabilities(kept_capabilities(user)), op.ForbidPrivileges()]


def _confine_first(spec: ContainerSpec) -> list[op.Operation]:
    if not spec.is_template:
        return _confine(spec.user)
    become, *_ = _confine(spec.user)
    return [become, op.DropCapabilities(()), op.ForbidPrivileges()]


def _env(spec: ContainerSpec) -> dict[str, str]:
    return {**(spec.network.env if spec.network else {}), **spec.env}


def _last(spec: ContainerSpec) -> list[op.Operation]:
    program: op.Operation = op.Execute(tuple(spec.argv), _env(spec), spec.cwd, has_init=True)
    if spec.is_template:
        # What is forked comes later, beside a first process that outlives it: with that, the pid namespace would end,
        # and with it those of all forks, which are below it.
        program = op.Wait(is_child_of_spawner=True)
    return [op.OpenStandardInput(), op.FilterCalls(), program]
