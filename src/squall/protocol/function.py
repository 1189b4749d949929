"""Functions: what runs in containers, with what, and how many."""

from __future__ import annotations

from squall.protocol.bucket import BucketMount
from squall.protocol.mount import MountRef
from squall.protocol.records import field, record, replace
from squall.protocol.volume import VolumeMount
from squall.protocol.web import WebSpec

BY_FILE = "file"
BY_PACKAGE = "package"
SERIALIZED = "serialized"
EXIT_GRACE_S = 30.0
"""What a container with exit hooks gets between the request to end and its end."""


INPUTS_AT_ONCE_MAX = 1_000
"""Inputs, or batches, that one container may run at once."""
BATCH_SIZE_MAX = 1_000
BATCH_WAIT_MS_MAX = 600_000

SCALEUP_S_MAX = 3_600.0
SERVER_TIMEOUT_S = 10 * 365 * 24 * 3600.0
"""Of requests to an app's server, which have no time limit: longer than any container runs."""

NAMESPACES = "namespaces"
GVISOR = "gvisor"
ISOLATIONS = (NAMESPACES, GVISOR)
"""What keeps a container apart from its machine: the kernel's namespaces alone, or another kernel between."""


@record
class MethodSpec:
    """A method of a class that can be called."""

    name: str
    is_generator: bool = False
    is_async: bool = False
    web: WebSpec | None = None
    """It answers requests, and cannot be called otherwise."""


@record
class ParameterSpec:
    """A parameter of a class: what its objects are told apart by."""

    name: str
    kind: str
    """`str`, `int`, `bool` or `bytes`."""
    is_required: bool = False


@record
class Definition:
    """How the container gets hold of the callable, or of the class whose methods it serves."""

    kind: str
    """`file` and `package`: import `module`, then look up `qualname`. `serialized`: unpickle `blob_sha256`."""
    module: str = ""
    qualname: str = ""
    blob_sha256: str = ""
    python_version: str = ""
    """Of the client that pickled, as `3.11`; a pickle needs the same in the image."""
    is_generator: bool = False
    is_async: bool = False
    is_class: bool = False
    methods: tuple[MethodSpec, ...] = ()
    """Of a class. A call names the one it is for (`CallOpen.method`)."""
    parameters: tuple[ParameterSpec, ...] = ()
    """Of a class, those that its objects may be given."""
    has_exit_hooks: bool = False
    """Its containers get time to run them when they end (`EXIT_GRACE_S`)."""


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
    """Inputs one container may run at once; of a function that takes batches, how many of these."""
    target_inputs: int | None = None
    """Inputs per container the autoscaler aims at; None means `max_inputs`."""
    is_single_use: bool = False
    scaleup_window_s: float = 0.0
    """Of a server: for how long more is wanted before a container is added to those there are."""


@record
class RetryPolicy:
    """Retries of inputs that failed by the user's exception or timeout."""

    max_retries: int = 0
    backoff_coefficient: float = 1.0
    initial_delay_s: float = 1.0
    max_delay_s: float = 60.0


@record
class Batching:
    """Inputs are run together, as lists: when there are `max_batch_size`, or the first has waited `wait_ms`."""

    max_batch_size: int
    wait_ms: int


CRON = "cron"
PERIOD = "period"


@record
class Schedule:
    """When a deployed function is called by itself."""

    kind: str
    cron: str = ""
    timezone: str = "UTC"
    months: int = 0
    """Of a period, with `seconds`: calendar months have no fixed length."""
    seconds: float = 0.0


@record
class Hosting:
    """Which rented machines are asked for, as it was given. On one's own there is nothing to choose: nothing follows
    from it."""

    cloud: str | None = None
    regions: tuple[str, ...] | None = None
    routing_region: str | None = None
    is_nonpreemptible: bool = False


@record
class FunctionOptions:
    """What `.with_options`, `.with_concurrency` and `.with_batching` change; None leaves a value as it is."""

    env: dict[str, str] | None = None
    resources: Resources | None = None
    retries: RetryPolicy | None = None
    timeout_s: float | None = None
    max_containers: int | None = None
    buffer_containers: int | None = None
    scaledown_window_s: float | None = None
    max_inputs: int | None = None
    target_inputs: int | None = None
    batching: Batching | None = None
    hosting: Hosting | None = None
    is_measured: bool | None = None
    """Starts of its containers are measured: somebody waits for them, and once nothing uses it its templates go."""
    secrets: tuple[str, ...] | None = None
    volumes: tuple[VolumeMount, ...] | None = None
    """In the place of all that it has mounted, buckets too."""
    buckets: tuple[BucketMount, ...] | None = None
    """Given together with volumes."""


@record
class FunctionSpec:
    """All there is to know to run a function.

    A function of a deployed app keeps its id from version to version; what is behind it is this record of the version
    that is current. A *variant* is a function of its own made from another one: with parameters (of a class), with
    other options, or held to one version.
    """

    function_id: str
    app_id: str
    name: str
    definition: Definition
    image_id: str
    mounts: tuple[MountRef, ...] = ()
    env: dict[str, str] = field(default_factory=dict, repr=False)
    resources: Resources = Resources()
    scaling: Scaling = Scaling()
    retries: RetryPolicy = RetryPolicy()
    timeout_s: float = 300.0
    startup_timeout_s: float = 300.0
    is_network_blocked: bool = False
    is_interactive: bool = False
    """Its container's `breakpoint()` and `interact()` find the terminal of the client (`squall run -i`)."""
    batching: Batching | None = None
    schedule: Schedule | None = None
    version: int = 0
    """Of the app, since when it is this; 0 in an app that is not deployed. Versions that leave a function as it was
    leave this, too."""
    variant_of: str = ""
    """The id of the function that this is a variant of; empty for one that was decorated."""
    parameters: str = ""
    """Of a class, as JSON with sorted keys; bytes are `{"bytes": base64}`. Empty where the defaults are meant."""
    options: FunctionOptions | None = None
    """What a variant has of its own."""
    is_pinned: bool = False
    """A variant that stays what it was in `version`."""
    hosting: Hosting = Hosting()
    is_snapshot_enabled: bool = False
    """Its containers may begin as copies of one in which it is loaded (`enable_memory_snapshot`)."""
    isolation: str = NAMESPACES
    """One of `ISOLATIONS`."""
    secrets: tuple[str, ...] = ()
    """By id, those of its app first: of what several have, the last one counts, and `env` before all."""
    volumes: tuple[VolumeMount, ...] = ()
    buckets: tuple[BucketMount, ...] = ()
    web: WebSpec | None = None
    """It answers requests, and cannot be called otherwise; of a class, as a server does. Methods have their own."""


def secrets_named(asked: FunctionSpec | FunctionOptions) -> tuple[str, ...]:
    """The ids of all secrets that a function, or what options add to one, cannot do without, its buckets' too."""
    return (*(asked.secrets or ()), *(mount.secret_id for mount in asked.buckets or () if mount.secret_id))


@record
class FunctionCreate:
    """Create the functions of an app, all at once; repeating with equal specs is harmless."""

    functions: tuple[FunctionSpec, ...]


@record
class FunctionCreated:
    """The ids, in the order given."""

    function_ids: tuple[str, ...]


@record
class FunctionBind:
    """Make a variant of a function, or find it: asking twice for the same is harmless and gives the same id."""

    function_id: str
    parameters: str = ""
    options: FunctionOptions | None = None
    version: int = 0
    """Hold it to that version of its app; 0 follows the current one."""
    app_id: str = ""
    """Of which app, with a version: the current one may not have the function any more."""


@record
class FunctionBound:
    """The variant's id."""

    function_id: str


@record
class FunctionGet:
    """Ask for a function by id, or by app (name or id) and function name."""

    function_id: str = ""
    app: str = ""
    name: str = ""
    environment: str = ""
    """Of the app, where it is named."""
    version: int = 0
    """As it was in that version of its app; 0 is the current one."""
    has_env: bool = False
    """With what is in its variables, of which else only the names are told: to run it somewhere else. Containers may
    not ask so."""


SPEC_BYTES_MAX = 2 * 2**20
"""Of the record of one function: its variables, above all. A page of a list takes it."""
FUNCTIONS_SHOWN_MAX = 200
"""Of one answer to `FunctionList`, which has as many as a page takes."""


@record
class FunctionList:
    """Ask for the functions of an app as they are now, a page of them."""

    app_id: str
    after: str = ""
    """The name of the last one of the answer before."""
    has_env: bool = False
    """As `FunctionGet` has it."""

    def following(self, listing: FunctionListing) -> FunctionList | None:
        """The question for the next page."""
        if not listing.is_cut or not listing.functions or listing.functions[-1].name == self.after:
            return None
        return replace(self, after=listing.functions[-1].name)


@record
class FunctionListing:
    """The answer to `FunctionList`, in an order of the server's own."""

    functions: tuple[FunctionSpec, ...]
    is_cut: bool = False
    """There are more."""


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
    input_headroom: int = 0
    """Inputs that the containers there are could begin now."""
