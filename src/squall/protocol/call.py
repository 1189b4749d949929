"""Calls, inputs and outputs: the hot path. Batches are columns: a header is decoded once for hundreds of inputs.

Life of an input:

    queued ──▶ running ──▶ succeeded | failed | timed_out | cancelled | lost
       ▲          │
       └──────────┘  a new attempt: retried, its container died, or it was taken back unstarted

A client keeps each input until it has its output and sends it again after a reconnect; the server accepts one output
per input. The body of a batch is the arguments (or results) end to end, cut by `sizes`; a size of -1 means the value is
in the blob named in `blobs` under the index.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from squall.protocol.frames import Frame, FrameDecoder, encode
from squall.protocol.records import field, from_wire, record, to_wire

REMOTE = "remote"
MAP = "map"
SPAWN = "spawn"
SPAWN_MAP = "spawn_map"
GENERATOR = "generator"
SCHEDULE = "schedule"
"""Durable as a spawned one; made by the server when a function with a schedule is due."""

NO_ARGUMENTS = b"\x80\x05)}\x86."
"""The pickle of an input without arguments, for who makes inputs and does not pickle."""

SUCCEEDED = 0
FAILED = 1
TIMED_OUT = 2
CANCELLED = 3
LOST = 4
"""The container died or could not start; repeated by us a few times before anybody hears of it."""
STATUS_NAMES = ("succeeded", "failed", "timed_out", "cancelled", "lost")

OUTSTANDING_MAX = 1_000
"""Inputs of one map that a client has in flight at most."""
GENERATOR_WINDOW = 1_024
"""Items of a generator that are sent ahead of their consumer at most."""

IN_BLOB = -1


@record
class CallOpen:
    """A call begins. Comes before its inputs on the same channel, and again after a reconnect."""

    call_id: str
    function_id: str
    kind: str
    parent_input_id: str = ""
    """The input that made this call from inside a container, if any."""
    method: str = ""
    """Of a class: the one to run."""


@record
class InputBatch:
    """Inputs of one call: from client to server, and from server to a container (then with attempts)."""

    call_id: str
    indexes: tuple[int, ...]
    sizes: tuple[int, ...]
    attempts: tuple[int, ...] = ()
    blobs: dict[str, str] = field(default_factory=dict)
    """Index (as text) to SHA-256."""
    method: str = ""
    """To a container that serves a class: the method of these inputs."""
    batch: int = 0
    """To a container whose function takes batches: inputs of one number, of whichever calls, are run together."""
    batch_size: int = 0
    """How many there are of that number."""


@record
class OutputBatch:
    """Outputs of one call, on the way back. The value of a generator's output is the number of its items, as text.

    For every status but SUCCEEDED the value is an encoded `Failure`.
    """

    call_id: str
    indexes: tuple[int, ...]
    statuses: tuple[int, ...]
    sizes: tuple[int, ...]
    attempts: tuple[int, ...] = ()
    run_us: tuple[int, ...] = ()
    """How long each ran, in microseconds."""
    blobs: dict[str, str] = field(default_factory=dict)


@record
class ItemBatch:
    """Items that a generator has yielded, in order."""

    call_id: str
    index: int
    attempt: int
    first: int
    """Number of the first item in this batch."""
    sizes: tuple[int, ...]
    blobs: dict[str, str] = field(default_factory=dict)
    """Item number (as text) to SHA-256."""


@record
class ItemCredit:
    """The consumer has taken that many items."""

    call_id: str
    index: int
    count: int


@record
class InputRefs:
    """Names inputs of a call: to cancel them, to take them back unstarted, or to say they were given back."""

    call_id: str
    indexes: tuple[int, ...]


@record
class CallClose:
    """The client has what it wanted and forgets the call; what still runs for it is cancelled."""

    call_id: str


@record
class CallWaits:
    """Why a call waits longer than it might; for who looks on, it changes nothing."""

    call_id: str
    text: str


@record
class CallCancel:
    """Cancel a call's inputs; `terminate_containers` also ends the containers that run them."""

    call_id: str
    terminate_containers: bool = False


@record
class CallSpawn:
    """A durable call: the answer means it is on disk. The arguments are in the body, as in `InputBatch`.

    The caller makes the call's id, so repeating after a lost connection starts nothing twice.
    """

    call: CallOpen
    inputs: InputBatch
    is_growing: bool = False
    """More inputs follow by `CallExtend`. Where too many wait, the caller waits, too, and is refused nothing."""


@record
class SpawnBatch:
    """Durable calls of one input each, of one function: all of them are on disk, or none. As many `CallSpawn`s, and the
    way of a client that spawns many: the arguments are in the body, cut by `sizes`."""

    function_id: str
    call_ids: tuple[str, ...]
    sizes: tuple[int, ...]
    blobs: dict[str, str] = field(default_factory=dict)
    """Number of the call (as text) to SHA-256."""
    parent_input_id: str = ""
    method: str = ""
    """As of `CallOpen`."""


@record
class CallSpawned:
    """The inputs are on disk."""

    call_id: str
    input_count: int = 0
    """How many the call has now."""
    retry_s: float = 0.0
    """Not 0: nothing was kept, because too many inputs of the function wait; say it again after that long."""


@record
class CallExtend:
    """More inputs of a durable call that grows; the answer means they are on disk.

    Their indexes follow those that the call has, so repeating after a lost connection adds nothing twice. Whoever
    stops in the middle leaves a call of the inputs that were acknowledged.
    """

    inputs: InputBatch
    is_last: bool = False
    """The call grows no more. There may be no inputs then."""


@record
class CallRead:
    """Wait for outputs of a durable call, from input `first` on, in order and without a gap: as many as there are, at
    most `count`. The answer has none when the first one is not there within `timeout_s`.
    """

    call_id: str
    first: int
    count: int
    timeout_s: float = 0.0
    parent_input_id: str = ""
    """As of `CallGet`."""


@record
class CallGet:
    """Wait for the output of one input of a durable call, at most `timeout_s`.

    The answer has no index when the output is not there yet.
    """

    call_id: str
    index: int = 0
    timeout_s: float = 0.0
    parent_input_id: str = ""
    """In a container, the input that waits: it needs no cpu meanwhile."""


@record
class CallGather:
    """Wait for outputs of several durable calls, of the first input of each: the answer has those there are, or the
    first that come, and none when there is none within `timeout_s`. Its indexes are numbers of the calls here.

    An answer need not have all there are: who wants more asks again, without the calls that were answered.
    """

    call_ids: tuple[str, ...]
    """At most 1,000, each once."""
    timeout_s: float = 0.0
    parent_input_id: str = ""
    """As of `CallGet`."""


@record
class CallInfoGet:
    """Ask about a call."""

    call_id: str


@record
class CallInfo:
    """A call as listed."""

    call_id: str
    function_id: str
    kind: str
    input_count: int
    created_at: float
    statuses: tuple[str, ...] = ()
    """Of the first inputs, at most 1,000: queued, running, or one of STATUS_NAMES."""
    is_growing: bool = False
    """Inputs are still added."""


@record
class TraceFrame:
    """One frame of a remote traceback."""

    file: str
    line: int
    name: str
    text: str = ""


@record
class Failure:
    """Why an input has no result. `kind` tells what to raise; the user's own exception comes along pickled.

    Kinds: user (the function raised), import (its module could not be loaded), unserializable (result or exception
    could not be pickled), timed_out, startup_timed_out, cancelled, crashed (the process ended), oom, disk (it wrote too
    much), lost (node or container gone), exhausted (too much queued), stopped (its app was stopped), image (no image to
    run in), invalid, not_found (no such function in the version that its caller is held to), unavailable (the server
    could not find out now).
    """

    kind: str
    message: str
    type_name: str = ""
    traceback: str = ""
    frames: tuple[TraceFrame, ...] = ()
    container_id: str = ""


def encode_failure(failure: Failure, pickled: bytes = b"") -> bytes:
    """A failure as the value of an output; `pickled` is the user's exception, opaque to us."""
    return encode(Frame(json.dumps(to_wire(failure)).encode(), pickled))


def decode_failure(value: bytes) -> tuple[Failure, bytes]:
    """The failure and the pickled exception (empty when there is none).

    Raises:
        ValueError: the bytes are no failure.
    """
    frames = FrameDecoder().feed(value)
    if len(frames) != 1:
        raise ValueError("the value of a failed output is no encoded failure")
    return from_wire(Failure, json.loads(frames[0].header)), frames[0].body


def cut(body: bytes, sizes: tuple[int, ...]) -> Iterator[bytes]:
    """The values of a batch, in order; empty bytes for those in blobs.

    Raises:
        ValueError: the sizes do not add up to the body.
    """
    if sum(size for size in sizes if size > 0) != len(body):
        raise ValueError(f"sizes of a batch do not add up to its body of {len(body)} bytes")
    offset = 0
    for size in sizes:
        if size > 0:
            yield body[offset : offset + size]
            offset += size
        else:
            yield b""
