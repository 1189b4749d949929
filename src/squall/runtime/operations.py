"""The operations a container is made of: plain records that can be printed, compared and tested without root.

Two kinds. `RootOperation`s are carried out by the machine's root and are the whole list of what our privileges are
used for; `ConfinedOperation`s come after `EnterUserNamespace`, when the process has no power over the machine any
more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from squall.runtime.spec import IdRange, Volume


@dataclass(frozen=True, slots=True)
class DetachMounts:
    """Keep every mount and unmount from here on in this mount namespace."""


@dataclass(frozen=True, slots=True)
class SetFileLimit:
    """Descriptors a process may have: this many, or the machine's maximum if that is lower; no core files."""

    nofile_max: int


@dataclass(frozen=True, slots=True)
class JoinNetwork:
    """Enter the network namespace bound at a path."""

    netns_path: str


@dataclass(frozen=True, slots=True)
class OpenNetwork:
    """Open the network namespace bound at a path, for a process that will enter it when it sees no path any more."""

    netns_path: str


@dataclass(frozen=True, slots=True)
class RaiseLoopback:
    """Bring up `lo` in the current network namespace."""


@dataclass(frozen=True, slots=True)
class WriteNetworkSetting:
    """Write a setting of the current network namespace, below /proc/sys/net."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class MountScratch:
    """Mount an empty memory file system over an empty directory of the container; hides nothing of the machine."""

    path: str


@dataclass(frozen=True, slots=True)
class WriteScratchFile:
    """Write a small file in the scratch file system and take a copy of its mount under a name."""

    path: str
    text: str
    name: str


@dataclass(frozen=True, slots=True)
class TakeTree:
    """Take a detached copy of the mount at a path under a name, to be attached later."""

    source: str
    name: str
    is_read_only: bool
    is_idmapped: bool


@dataclass(frozen=True, slots=True)
class TakeLayer:
    """Take a layer that is a directory, its ids mapped."""

    source: str
    name: str


@dataclass(frozen=True, slots=True)
class TakeImages:
    """Take the layers that are images from where the spawner has mounted them, their ids mapped."""

    points: Mapping[str, str]
    """By name."""


@dataclass(frozen=True, slots=True)
class TakePlace:
    """Take a directory in memory from where the spawner has it, with the machine's ids."""

    point: str
    name: str
    is_read_only: bool


@dataclass(frozen=True, slots=True)
class TakeVolume:
    """Take the place of a volume, in which mounts appear and go at the spawner's wish, and mount its version if it has
    one yet, which is attached nowhere."""

    volume: Volume
    point: str
    """In the namespace of images."""
    name: str


@dataclass(frozen=True, slots=True)
class AttachVolume:
    """Attach the place of a volume inside, and its version in that place if it was taken."""

    volume: Volume
    point: str
    name: str
    root: str = "/"
    """The container's root directory: its links lead nowhere else."""


@dataclass(frozen=True, slots=True)
class AttachBucket:
    """Attach a bucket's file system, which its program serves already, at a path inside."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class FillUpper:
    """Put copies of files where the container's own writes go, as if it had written them."""

    source: str
    writable: str


@dataclass(frozen=True, slots=True)
class MountRoot:
    """Mount the overlay of the layers taken (bottom first) and the writable upper at `scratch/root`."""

    scratch: str
    layers: Sequence[str]
    writable: str
    is_upper_idmapped: bool


@dataclass(frozen=True, slots=True)
class PivotRoot:
    """Make a directory the root of this mount namespace and let go of everything else."""

    path: str


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make a directory inside unless it is there; refuses a symbolic link."""

    path: str
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class MountKind:
    """Mount a file system of a kernel kind (proc, sysfs, tmpfs, devpts) inside."""

    kind: str
    target: str
    flags: int
    options: str = ""


@dataclass(frozen=True, slots=True)
class MakeDevice:
    """Make a character device in the container's /dev, for everyone."""

    path: str
    major: int
    minor: int


@dataclass(frozen=True, slots=True)
class MakeLink:
    """Make a symbolic link in the container's /dev."""

    path: str
    target: str


@dataclass(frozen=True, slots=True)
class AttachTree:
    """Attach a mount taken before at a path inside; the mount point is made if it is missing."""

    name: str
    target: str


@dataclass(frozen=True, slots=True)
class ProtectPath:
    """Make a path inside read-only, if it exists."""

    path: str


@dataclass(frozen=True, slots=True)
class MaskPath:
    """Cover a path inside, if it exists: a file by the null device, a directory by an empty one."""

    path: str


@dataclass(frozen=True, slots=True)
class SetHostname:
    """Name the container's uts namespace."""

    hostname: str


@dataclass(frozen=True, slots=True)
class OpenCgroup:
    """Open the files by which a process enters the container's v1 cgroups, while they can still be seen."""

    tasks_paths: Sequence[str]


@dataclass(frozen=True, slots=True)
class EnterCgroup:
    """Move this process into the cgroups opened before, then make what it sees of them begin there."""


@dataclass(frozen=True, slots=True)
class OwnMounts:
    """Copy the mounts into a namespace that belongs to this process's user namespace, where each of them is locked."""


@dataclass(frozen=True, slots=True)
class EnterUserNamespace:
    """Give up the machine's root for good: from here on this process is id 0 of a range."""

    id_range: IdRange


@dataclass(frozen=True, slots=True)
class BecomeUser:
    """Take a uid and gid of the container, without supplementary groups."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class OpenStandardInput:
    """Make the container's null device descriptor 0 and start a session."""


@dataclass(frozen=True, slots=True)
class OpenTerminal:
    """Make a new terminal the controlling one and descriptors 0, 1, 2; its master goes to the spawner."""

    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class DropCapabilities:
    """Keep these capabilities (over the container's own ids only) and no others, now and after any exec."""

    kept: Sequence[int]


@dataclass(frozen=True, slots=True)
class ForbidPrivileges:
    """No exec gains privileges any more (set-uid programs, file capabilities)."""


@dataclass(frozen=True, slots=True)
class FilterCalls:
    """Install the seccomp allow-list; of a template, the one by which its forks can enter what was made for them."""

    is_template: bool = False


@dataclass(frozen=True, slots=True)
class KeepControl:
    """Hand the program the socket over which a template is asked for forks, under this number."""

    number: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Execute a program that only waits and reaps, as pid 1 of a container whose first program comes from elsewhere."""

    is_child_of_spawner: bool
    """It ends with the spawner then; another one's ends with the namespace above its own."""


@dataclass(frozen=True, slots=True)
class Execute:
    """Execute the program, as pid 1's child (`has_init`) or in place of this process."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    """Secrets may be in it: no message has it."""
    cwd: str
    has_init: bool


# ---- containers under gVisor only (see `gvisor.plan`)


@dataclass(frozen=True, slots=True)
class FurnishSandbox:
    """Make of the scratch file system, which is to be the root directory, all that runsc sees of the machine."""

    scratch: str
    trees: Mapping[str, str]
    """Path to the name of a mount taken before."""
    files: Mapping[str, str]
    """Path to text; for root's eyes only."""


@dataclass(frozen=True, slots=True)
class CheckProgram:
    """Refuse a working directory or program that the container's root file system does not have."""

    root: str
    program: str
    search_path: str
    cwd: str
    unseen: Sequence[str]
    """Places whose files are elsewhere: what is below them is let pass."""


@dataclass(frozen=True, slots=True)
class ExecuteRunsc:
    """Execute runsc in place of this process."""

    argv: Sequence[str]
    kept_fd: int = -1
    """A descriptor it is to have, or -1."""
    document: str = ""
    """Text it is to read, in memory: its path takes the place of `{document}` in `argv`."""


# ---- programs that serve buckets only (see `bucket.plan`)


@dataclass(frozen=True, slots=True)
class MakeBucketMount:
    """Make the file system that the program is to serve, in the container's user namespace and attached nowhere: the
    spawner is sent it."""

    subject: str
    is_read_only: bool


@dataclass(frozen=True, slots=True)
class FurnishBucketServer:
    """Make of the scratch file system, which is to be the root directory, all that the program sees of the machine."""

    scratch: str
    trees: Sequence[str]
    """Directories of the machine, read-only."""
    links: Mapping[str, str]
    files: Mapping[str, str]
    covers: Sequence[str]
    """Files of those directories in whose place `helper` is."""
    helper: str
    """Text of the program that hands over what was made by `MakeBucketMount`."""
    writable: str
    """A directory that it may write to."""
    owner: int
    """Of that, on the machine."""


@dataclass(frozen=True, slots=True)
class KeepMade:
    """Hand the program what it is to serve, under this number."""

    number: int


RootOperation = (
    DetachMounts | SetFileLimit | JoinNetwork | OpenNetwork | RaiseLoopback | WriteNetworkSetting | MountScratch
    | WriteScratchFile | TakeTree | TakeLayer | TakeImages | TakePlace | TakeVolume | AttachVolume | FillUpper
    | MountRoot | PivotRoot | MakeDirectory | MountKind | MakeDevice | MakeLink | AttachTree | ProtectPath | MaskPath
    | SetHostname | OpenCgroup | EnterCgroup | OwnMounts | EnterUserNamespace | FurnishSandbox | CheckProgram
    | ExecuteRunsc | AttachBucket | MakeBucketMount | FurnishBucketServer
)  # fmt: skip
ConfinedOperation = (
    BecomeUser | OpenStandardInput | OpenTerminal | DropCapabilities | ForbidPrivileges | FilterCalls | KeepControl
    | KeepMade | Execute | Wait
)  # fmt: skip
Operation = RootOperation | ConfinedOperation


@dataclass(frozen=True, slots=True)
class Phase:
    """A named part of the plan, timed as one."""

    name: str
    operations: Sequence[Operation]
