"""Functions: what runs in containers, with what, and how many."""

from __future__ import annotations

from squall.protocol.mount import MountRef
from squall.protocol.records import field, record

BY_FILE = "file"
BY_PACKAGE = "package"
SERIALIZED = "serialized"


@record
class Definition:
    """How the container gets hold of the callable."""

    kind: str
    """`file` and `package`: import `module`, then look up `qualname`. `serialized`: unpickle `blob_sha256`."""
    module: str = ""
    qualname: str = ""
    blob_sha256: str = ""
    python_version: str = ""
    """Of the client that pickled, as `3.11`; a pickle needs the same in the image."""
    is_generator: bool = False
    is_async: bool = False


@record
class Resources:
    """What one container asks for and may use. Requests reserve; None means a weight only."""

    cpu_milli: int | None = None
    cpu_limit_milli: int | None = None
    memory_mib: int | None = None
    memory_limit_mib: int | None = None
    disk_mib: int | None = None


@record
class Scaling:
    """How many containers, and for how long."""

    min_containers: int = 0
    max_containers: int | None = None
    buffer_containers: int = 0
    scaledown_window_s: float = 60.0
    max_inputs: int = 1
    """Inputs one container may run at once."""
    target_inputs: int | None = None
    """Inputs per container the autoscaler aims at; None means `max_inputs`."""
    is_single_use: bool = False


@record
class RetryPolicy:
    """Retries of inputs that failed by the user's exception or timeout."""

    max_retries: int = 0
    backoff_coefficient: float = 1.0
    initial_delay_s: float = 1.0
    max_delay_s: float = 60.0


@record
class FunctionSpec:
    """All there is to know to run a function."""

    function_id: str
    app_id: str
    name: str
    definition: Definition
    image_id: str
    mounts: tuple[MountRef, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    resources: Resources = Resources()
    scaling: Scaling = Scaling()
    retries: RetryPolicy = RetryPolicy()
    timeout_s: float = 300.0
    startup_timeout_s: float = 300.0
    is_network_blocked: bool = False
    is_interactive: bool = False
    """Its container's `breakpoint()` and `interact()` find the terminal of the client (`squall run -i`)."""


@record
class FunctionCreate:
    """Create the functions of an app, all at once; repeating with equal specs is harmless."""

    functions: tuple[FunctionSpec, ...]


@record
class FunctionCreated:
    """The ids, in the order given."""

    function_ids: tuple[str, ...]


@record
class FunctionGet:
    """Ask for a function by id, or by app (name or id) and function name."""

    function_id: str = ""
    app: str = ""
    name: str = ""


@record
class FunctionStatsGet:
    """Ask how busy a function is."""

    function_id: str


@record
class FunctionStats:
    """How busy a function is now."""

    queued_inputs: int
    running_inputs: int
    container_count: int
    idle_containers: int
