"""Between server and agent.

The agent asks: NodeHello (first), BlobGet, MountGet. The server asks: ContainerStart, ContainerEnd, NodeImageBuild,
NodeImageShell, NodeExec, NodeTemplateList, NodeTemplateDrop, NodeTemplatesFree. The agent tells: NodeImages
(after the hello), NodeImagePut, which the server passes on to the other agents, ContainerExited, Logs, NodeReport,
NodeVolumesHeld.

Each container's connections are channels of their own, opened by the agent and introduced by a `ContainerHello`. Into
them the agent puts `PrintedBefore`, where the container had printed something.
"""

from __future__ import annotations

from squall.protocol.bucket import BucketStart
from squall.protocol.function import NAMESPACES, Resources
from squall.protocol.mount import MountRef
from squall.protocol.records import field, record
from squall.protocol.volume import VolumeStart

NODE_IMAGES_MAX = 100


@record
class NodeContainer:
    """A container that an agent found running when it started."""

    container_id: str
    function_id: str
    app_id: str
    version: int = 0
    """As it was started with (`ContainerStart`)."""


@record
class NodeHello:
    """An agent introduces its node."""

    node_id: str
    version: str
    protocol_version: int
    cpu_milli: int
    memory_mib: int
    hostname: str = ""
    containers: tuple[NodeContainer, ...] = ()
    pythons: tuple[str, ...] = ()
    """Versions that a base image can be had for on this node."""


@record
class NodeWelcome:
    """The server's answer: which of the found containers nobody wants any more."""

    server_id: str
    unwanted_container_ids: tuple[str, ...] = ()


@record
class NodeImages:
    """Images that are on the node, whole or served while they come: some of them, at most `NODE_IMAGES_MAX`. Several of
    these follow a hello; the last is empty, and says that there are no others."""

    image_ids: tuple[str, ...]


@record
class NodeImagePut:
    """A node has put an image that it has built into the store of layers. What others have under its id may be old."""

    image_id: str


@record
class ContainerStart:
    """Start a container. The answer comes when its process has been executed.

    Errors: `exhausted` when the node has no room, `not_found` when the image is not here, `unsupported` when the
    machine lacks a feature, `unavailable` for a start that failed and may succeed elsewhere or later.
    """

    container_id: str
    app_id: str
    function_id: str
    image_id: str
    mounts: tuple[MountRef, ...] = ()
    env: dict[str, str] = field(default_factory=dict, repr=False)
    resources: Resources = field(default_factory=Resources)
    is_network_blocked: bool = False
    version: int = 0
    """Of the function's app (`FunctionSpec.version`): whoever finds the container later knows what it runs."""
    is_snapshot_enabled: bool = False
    """It may begin as a copy of one in which the function is loaded (`enable_memory_snapshot`)."""
    isolation: str = NAMESPACES
    """What keeps it apart from the machine (`FunctionSpec.isolation`). `unsupported` where the machine lacks it."""
    startup_timeout_s: float = 0.0
    """What its function may take to load (`FunctionSpec.startup_timeout_s`); 0: not said."""
    follows_id: str = ""
    """The function that a deploy changes together with it: itself, or what it is a variant of. Empty where none does,
    as it is held to its version."""
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    """More variables: of what both have, `env` counts. They are in the memory of the node and of its containers,
    and are written nowhere."""
    secrets_mark: str = ""
    """Another one whenever one of the values is; it tells nothing of them."""
    volumes: tuple[VolumeStart, ...] = ()
    buckets: tuple[BucketStart, ...] = ()
    is_plain: bool = False
    """Its program is executed, whatever there is that it might be a fork of: one that was has ended under its first
    input, and it is to be seen whether this one does."""


PATH_PLAIN, PATH_FORK, PATH_PARKED, PATH_RESTORE = "plain", "fork", "parked", "restore"
PATHS = (PATH_PLAIN, PATH_FORK, PATH_PARKED, PATH_RESTORE)


@record
class ContainerStarted:
    """The process runs; how long each phase took."""

    phase_ms: dict[str, float] = field(default_factory=dict)
    path: str = PATH_PLAIN
    """How it came to be: its program was executed; it is a fork of a template, made now or ahead; it was restored."""
    cause: str = ""
    """Why it took a longer path than it might have, in words for the user."""
    has_snapshot: bool = False
    """It began with what its function had loaded: a fork may be one of its image's template only."""


@record
class ContainerEnd:
    """End a container: SIGTERM, then SIGKILL after `grace_s`. An unknown container is no error."""

    container_id: str
    grace_s: float = 0.0


@record
class ContainerExited:
    """A container's first process ended and everything of it has been removed."""

    container_id: str
    exit_code: int | None = None
    signal: int | None = None
    is_oom: bool = False
    is_lost: bool = False
    """It was ended with the process that held it, not by what ran in it; how is not known."""
    over_disk: str = ""
    """It wrote too much and was ended for it: how much, and what to do about it, in words."""
    memory_limit_mib: int = 0
    """What it might use; 0: not known any more."""


@record
class ContainerHello:
    """The first frame the agent sends on a container's channel to the server; the token has been checked."""

    container_id: str
    role: str
    client_id: str = ""
    is_reconnect: bool = False
    app_id: str = ""
    function_id: str = ""
    """Of a template (role `template`, and `client` in it), whose id the server does not know."""
    version: int = 0
    is_ahead: bool = False
    """Of a guest that was chosen and has not said its hello: nothing reaches it before `GuestCame` follows."""


@record
class PrintedBefore:
    """What the container printed before the frames that follow is among the first so many lines of its node, counted
    from the node's last `NodeHello`. What follows waits a moment for those lines; a false number delays no one else."""

    line_count: int


TEMPLATE_FUNCTIONS_MAX = 256


@record
class NodeReport:
    """How the node is, every few seconds."""

    cpu_used_milli: int
    memory_used_mib: int
    disk_free_mib: int
    container_count: int
    template_memory_mib: int = 0
    """Of it, what templates occupy, with their cells and parked clones: what they share with clones that run is
    counted once, here. The agent gives it back, the templates used longest ago first, when a `ContainerStart` needs
    it."""
    template_function_ids: tuple[str, ...] = ()
    """Whose containers are started from templates that are ready: at most `TEMPLATE_FUNCTIONS_MAX`, those used last
    first."""
    memory_total_mib: int = 0
    """What the machine has, of which `memory_used_mib` is used, by whomever: containers may have less (`NodeHello`).
    0: not said."""
