"""What a container is made from: plain records, the whole input of the runtime.

The runtime takes these the way a shell takes argv. It knows nothing of functions, calls or images; the agent
translates. Every path is absolute and on this machine; every id range belongs to one (app, function).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

NAMESPACES, GVISOR = "namespaces", "gvisor"
"""What stands between a container and the machine: the kernel's own walls, or a kernel of the container's own."""


SAVED_FILES = "files"
"""Where a saved template has what it has written, below its directory."""


@dataclass(frozen=True, slots=True)
class IdRange:
    """A block of user and group ids of this machine that a container's 0..size-1 are mapped to.

    `start` is never 0: a container that ran on the machine's own ids would pass every owner check of its files.
    """

    start: int
    size: int = 65_536


@dataclass(frozen=True, slots=True)
class Bind:
    """A path of this machine made visible inside.

    With `is_idmapped` the files appear owned by the container's id 0.. as stored (an id-mapped mount); without it
    they appear with the machine's ids, which inside the container read as nobody (65534): enough for world-readable,
    read-only files.
    """

    source: str
    target: str
    is_read_only: bool = True
    is_idmapped: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """A version of a tree of files, made visible inside, with a place of the container's own for what is written.

    Another version can take its place later (`Runtime.swap_volume`), with another such place.
    """

    name: str
    """Of all volumes of the container, this one."""
    target: str
    image: str
    """An EROFS image of the tree without content: each file says by overlayfs' marks where in `contents` that is. Empty
    in what is prepared for a fork: the volume has a place then, and its version comes when the fork begins."""
    contents: str
    """A directory of contents. One that is missing when its file is opened is told as a file that is missing."""
    writable: str
    """A directory, made if missing and else empty, for what is written; empty: the volume is read-only."""
    sub_path: str = ""
    """What is visible is this directory of the tree, made if missing and writable."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Objects of a store that speaks S3, made visible inside as files. A program beside the container serves them, in
    its network: it reaches what the container reaches."""

    name: str
    """Of all buckets of the container, this one."""
    target: str
    bucket: str
    endpoint_url: str = ""
    """Empty: Amazon's."""
    key_prefix: str = ""
    """Only keys that begin with this are there, without it; empty, or it ends with a slash."""
    is_read_only: bool = False
    is_requester_paying: bool = False
    has_path_style: bool = False
    """The bucket's name is part of the path of requests, and not of the host's name."""
    silent_s: int = 60
    """How long the store may say nothing in the middle of a request: it puts large objects together at their end. What
    is asked for takes several requests, each of them three times."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What the store is asked with: `AWS_ACCESS_KEY_ID` and so on. Without keys it is asked as by anybody."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard limits. None means no limit of that kind."""

    cpu_milli: int | None = None
    cpu_weight: int = 100
    """Share of the processor under contention, 1..10000, 100 is ordinary (cgroup v2 scale)."""
    memory_bytes: int | None = None
    pids_max: int | None = 4_096
    tmp_bytes: int | None = None
    """Size of the private /tmp; None leaves it in the container's writable layer."""
    shm_bytes: int = 64 * 2**20


@dataclass(frozen=True, slots=True)
class NetworkSlot:
    """A network namespace made ahead of time: one end of a veth, an address, routes and rules are in place."""

    name: str
    netns_path: str
    address: str
    gateway: str
    resolv_conf: str
    """Text for the container's /etc/resolv.conf: resolvers that answer from inside."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables that make the machine's proxy settings valid inside (a proxy on 127.0.0.1 gets another address)."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything the runtime needs to start one container."""

    container_id: str
    layers: Sequence[str]
    """Directories or EROFS images of the root file system, bottom first, owned as inside (ids 0..65535)."""
    state_dir: str
    """An existing directory of this container's own; the runtime keeps the writable upper and its records there."""
    id_range: IdRange
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    """Secrets may be in it: no message has it."""
    cwd: str = "/"
    hostname: str = "squall"
    user: tuple[int, int] = (0, 0)
    """uid and gid inside."""
    binds: Sequence[Bind] = ()
    volumes: Sequence[Volume] = ()
    buckets: Sequence[Bucket] = ()
    limits: Limits = Limits()
    network: NetworkSlot | None = None
    """None: a namespace with nothing but its own loopback."""
    is_upper_idmapped: bool = False
    """True stores what the container writes with its ids as seen inside, ready to become a layer (image builds)."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Opaque to the runtime; handed back by `list` after a restart."""
    is_template: bool = False
    """Its program is a template: it says when it is ready, and containers are forked from it then."""
    restore_from: str = ""
    """Of a template: a directory it was saved in. Its program is brought back from there and not executed."""
    template_id: str = ""
    """The template that this one is to be a fork of: `argv` is not executed then. Of the same id range."""
    isolation: str = NAMESPACES
    """`namespaces` or `gvisor`."""


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """One more process in a running container, with the container's namespaces, limits and restrictions."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    """Secrets may be in it: no message has it."""
    cwd: str = "/"
    has_pty: bool = False
    """True: stdin, stdout and stderr are one terminal."""
    rows: int = 24
    columns: int = 80


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a container's first process ended: exactly one of `code` and `signal` is set.

    A program of a container that exits with 128 + n by itself, as shells do for a child ended by signal n, reads as
    that signal.
    """

    code: int | None
    signal: int | None
    is_oom: bool = False
    """The kernel killed something in it for passing the memory limit."""


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """One container as the spawner knows it, running or ended but not yet removed."""

    container_id: str
    pid: int
    labels: Mapping[str, str]
    exit_status: ExitStatus | None
    is_prepared: bool = False
    """Made ahead, and not begun yet."""


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What a container uses now."""

    memory_bytes: int
    cpu_ns: int
    pids: int
