"""What became of calls and containers, as the server's flight recorder has it.

Times of a call are milliseconds since it was made, by a clock that no one sets; only `created_at` is a time of day.
"""

from __future__ import annotations

from squall.protocol.call import Failure
from squall.protocol.container import ContainerInfo
from squall.protocol.records import field, record

QUEUED = "queued"
RUNNING = "running"

INPUTS_SHOWN_MAX = 1_000
"""Of one answer to `CallShow`."""


@record
class AttemptFlight:
    """One attempt of an input: it waits for a container, then runs."""

    attempt: int
    status: str
    """queued, running, or one of STATUS_NAMES."""
    queued_ms: float
    began_ms: float | None = None
    finished_ms: float | None = None
    container_id: str = ""
    failure: Failure | None = None
    """Without the pickled exception; long texts are cut."""
    retry_delay_ms: float = 0.0
    """How long the next attempt was put off, as the function's `retries` say."""


@record
class InputFlight:
    """One input with its attempts, the first one first."""

    index: int
    input_id: str
    status: str
    attempts: tuple[AttemptFlight, ...] = ()
    is_kept: bool = False
    """Its arguments are kept: it can be replayed."""


@record
class ContainerFlight:
    """One container: how it started, what it served and how it ended."""

    container: ContainerInfo
    asked_ms: float = 0.0
    """When it was asked for; in a call's flight, since the call was made."""
    is_adopted: bool = False
    """It ran before this server did: of its start nothing is known."""
    succeeded_inputs: int = 0
    failed_inputs: int = 0


@record
class CallSummary:
    """One call as listed."""

    call_id: str
    function_id: str
    function_name: str
    app_id: str
    app_name: str
    kind: str
    created_at: float
    status: str
    """queued, running, succeeded, failed (an input has), cancelled."""
    input_count: int = 0
    failed_count: int = 0
    duration_ms: float | None = None
    """Until its last output; None while it goes on, and where it is not known."""
    method: str = ""
    is_durable: bool = False


@record
class CallFlight:
    """What became of one call."""

    summary: CallSummary
    counts: dict[str, int] = field(default_factory=dict)
    """Status to number of inputs."""
    inputs: tuple[InputFlight, ...] = ()
    """Those asked for, of the ones that are known one by one."""
    known_inputs: int = 0
    """How many are known one by one: the first 1,000, and those that failed, up to a bound."""
    containers: tuple[ContainerFlight, ...] = ()
    """That served these inputs and are remembered."""
    parent_input_id: str = ""
    parent_function: str = ""
    children: tuple[CallSummary, ...] = ()
    """Calls that its inputs made, at most 100."""
    queue_ms_mean: float = 0.0
    queue_ms_max: float = 0.0
    run_ms_mean: float = 0.0
    run_ms_max: float = 0.0
    why: tuple[str, ...] = ()
    """Where its time went, in words, the largest part first."""
    gaps: str = ""
    """What is not known (any more) about it, and why."""


@record
class CallList:
    """Ask for calls, newest first: those that are remembered and those that are kept."""

    app: str = ""
    """Id; or name, of which there may be several: each run of a program is one."""
    function: str = ""
    """Id, or name in the app."""
    is_failed: bool = False
    """Only those with an input that failed."""
    since: float | None = None
    until: float | None = None
    limit: int = 100
    has_variants: bool = False
    """Of a function, those of its variants too."""
    environment: str = ""
    """Of the app, where it is named."""


@record
class CallListing:
    """The answer to `CallList`."""

    calls: tuple[CallSummary, ...]
    is_cut: bool = False
    """Of very many apps of the name, or variants of a function, only the newest ones were looked for in the store."""


@record
class CallShow:
    """Ask what became of a call, with its inputs from `first` on, at most `limit`."""

    call_id: str
    first: int = 0
    limit: int = 100
    is_failed: bool = False
    """Only inputs that failed."""


@record
class ContainerShow:
    """Ask what became of a container."""

    container_id: str


@record
class CallGraph:
    """Ask for what a call's inputs called, and what those called; as much as is remembered."""

    call_id: str


@record
class GraphInput:
    """One input of a call graph."""

    input_id: str
    call_id: str
    status: str
    container_id: str = ""
    function_name: str = ""
    module: str = ""
    parent_input_id: str = ""


@record
class CallGraphed:
    """The answer to `CallGraph`: parents before their children."""

    inputs: tuple[GraphInput, ...]
    is_cut: bool = False
    """There were more."""


@record
class CallInputGet:
    """Ask for the arguments of an input that is kept; they come in the body, or in the blob that is named."""

    call_id: str
    index: int = 0


@record
class CallInput:
    """The answer to `CallInputGet`."""

    call_id: str
    index: int
    function_id: str
    blob_sha256: str = ""
    method: str = ""


@record
class CallReplay:
    """Run a kept input again, as a new durable call of its function as that is now, or of another one's."""

    call_id: str
    new_call_id: str
    """Made by who asks, so that asking again starts nothing twice."""
    index: int = 0
    function_id: str = ""
    """Run it by this function: where the app of its own has stopped, and was made again."""
