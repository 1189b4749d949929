"""Inputs and calls as they are while they live: one small object per input, because there are tens of thousands."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from squall.protocol import call as wire
from squall.protocol.call import Failure, ItemBatch, OutputBatch

if TYPE_CHECKING:
    from squall.server.dispatch.client.shelf import Kept
    from squall.server.dispatch.fleet.container import Container
    from squall.server.dispatch.flight.recorder import CallTrack
    from squall.server.dispatch.function.dispatcher import Dispatcher
    from squall.server.model.clock import Timer

SENT_MAX = wire.OUTSTANDING_MAX
"""Outputs kept of a call for a client that comes back. It has at most that many inputs without an output, and what it
has not received is what was sent last."""
SENT_BYTES_MAX = 64 * 2**20
"""Of those outputs, once they were sent."""


class Trouble:
    """What only some inputs need to remember."""

    __slots__ = (
        "asked_at", "children", "crashes", "cut_short_by", "is_suspect", "losses", "needs_proven", "retries_used",
        "shared_crashes", "timer",
    )  # fmt: skip

    def __init__(self) -> None:
        self.retries_used = 0
        self.losses = 0
        self.crashes = 0
        """Containers that ended by themselves while they ran this input alone."""
        self.shared_crashes = 0
        """Those that held others, too."""
        self.is_suspect = False
        self.needs_proven = False
        """The last one was a fork that had served nothing: the next one must be known to work (`quarantine.py`)."""
        self.children = 0
        """Calls that this input has made and still waits for."""
        self.asked_at: float | None = None
        """When the guest was asked to stop it."""
        self.cut_short_by = ""
        """Why: `cancelled` or `timed_out`."""
        self.timer: Timer | None = None
        """Rings when its retry is due; the input is not in the queue until then."""


class Input:
    """One input of a call, from the moment it comes until its output is accepted."""

    __slots__ = (
        "attempt", "batch", "began_at", "blob", "call", "container", "index", "is_queued", "queued_at", "trouble",
        "value",
    )  # fmt: skip

    def __init__(self, call: Call, index: int, value: bytes, blob: str, queued_at: float = 0.0) -> None:
        self.call = call
        self.index = index
        self.value = value
        self.blob = blob
        self.attempt = 0
        self.container: Container | None = None
        """Who holds it."""
        self.batch = 0
        """The number of the batch that it is held in; 0 where there are none."""
        self.began_at = 0.0
        """When the container can have begun it (0: it has not, as far as is known)."""
        self.queued_at = queued_at
        """When this attempt began to wait."""
        self.is_queued = True
        self.trouble: Trouble | None = None

    def with_trouble(self) -> Trouble:
        """Its troubles, made when first needed."""
        if self.trouble is None:
            self.trouble = Trouble()
        return self.trouble


class Sink(Protocol):
    """Where a call's outputs go: a client, or the store."""

    def put_outputs(self, call: Call, record: OutputBatch, body: bytes) -> None:
        """Outputs that were accepted, each once. Must not block."""

    def put_items(self, call: Call, record: ItemBatch, body: bytes) -> None:
        """Items of a generator. Must not block."""

    def put_notice(self, call_id: str, text: str) -> None:
        """Why a call of it waits. Must not block."""

    def call_ended(self, call: Call) -> None:
        """The call is closed and nothing of it runs any more."""

    def let_go(self, kept: Kept) -> None:
        """There is no room to keep this for its client any longer."""


class Proxy(Protocol):
    """Who carries out the inputs of a call in the place of guests."""

    def handed_out(self, container: Container, inputs: list[Input]) -> None:
        """The container is given these. Must not block."""

    def stop(self, inputs: list[Input]) -> None:
        """These are not to go on. Must not block."""


class Call:
    """A call with the inputs that have no output yet."""

    __slots__ = (
        "call_id", "created_at", "dispatcher", "done", "input_count", "inputs", "is_closed", "is_durable",
        "items", "items_credit", "items_passed", "items_waiting", "kind", "method", "parent", "parent_input_id",
        "proxy", "sent", "sent_bytes", "sent_count", "sink", "track",
    )  # fmt: skip

    def __init__(
        self, call_id: str, kind: str, dispatcher: Dispatcher, sink: Sink, created_at: float, parent: Input | None,
        method: str = "",
    ) -> None:  # fmt: skip
        self.call_id = call_id
        self.kind = kind
        self.method = method
        """Of a class, the one to run."""
        self.dispatcher = dispatcher
        self.sink = sink
        self.created_at = created_at
        self.parent = parent
        self.parent_input_id = ""
        """The input that made it, also where nobody is known to wait."""
        self.proxy: Proxy | None = None
        """Guests are told nothing of its inputs: this carries them out."""
        self.track: CallTrack | None = None
        """What the flight recorder notes of it."""
        self.inputs: dict[int, Input] = {}
        self.input_count = 0
        self.is_closed = False
        """Nobody wants its outputs."""
        self.is_durable = False
        self.sent: deque[Kept] = deque()
        """Outputs, sent or about to be."""
        self.sent_count = 0
        self.sent_bytes = 0
        self.done: set[int] | None = None
        """Indexes with an output that is kept; known only once a client came back, since nobody asks before."""
        self.items: deque[Kept] = deque()
        """Items of a generator that the client has not taken; the guest sends no more than a window of them."""
        self.items_passed = 0
        self.items_waiting = 0
        """Items that the client has not said it took."""
        self.items_credit = 0

    def keep(self, kept: Kept) -> list[Kept]:
        """Keep outputs for a client that may have to hear them again; returns the oldest when there are too many."""
        self.sent.append(kept)
        self.sent_count += len(kept.record.sizes)
        self.sent_bytes += len(kept.body)
        if self.done is not None:
            self.done.update(_indexes(kept))
        dropped = []
        while len(self.sent) > 1 and self._has_too_many(self.sent[0]):
            dropped.append(self.sent[0])
            self.forget(self.sent[0])
        return dropped

    def _has_too_many(self, oldest: Kept) -> bool:
        is_too_large = self.sent_bytes > SENT_BYTES_MAX and not oldest.is_unsent
        return is_too_large or self.sent_count - len(oldest.record.sizes) >= SENT_MAX

    def forget(self, kept: Kept) -> None:
        """Do not keep these outputs: a client that has not got them sends their inputs again, and they run again."""
        if self.sent and self.sent[0] is kept:
            self.sent.popleft()
        elif kept in self.sent:
            self.sent.remove(kept)
        else:
            return
        self.sent_count -= len(kept.record.sizes)
        self.sent_bytes -= len(kept.body)
        if self.done is not None:
            self.done.difference_update(_indexes(kept))

    def reopened(self) -> None:
        """A client came back: it will send inputs again that have an output."""
        self.done = {index for kept in self.sent for index in _indexes(kept)}

    def keep_items(self, kept: Kept) -> None:
        """Keep items until the client says it took them."""
        self.items.append(kept)
        self.items_passed += len(kept.record.sizes)
        self.items_waiting += len(kept.record.sizes)

    def items_taken(self, count: int) -> None:
        """The client took that many more; whole batches are forgotten as they are used up."""
        self.items_credit += count
        self.items_waiting = max(0, self.items_waiting - count)
        while self.items and len(self.items[0].record.sizes) <= self.items_credit:
            kept = self.items.popleft()
            self.items_credit -= len(kept.record.sizes)
            self.dispatcher.calls.shelf.remove(kept)


def _indexes(kept: Kept) -> tuple[int, ...]:
    return kept.record.indexes if isinstance(kept.record, OutputBatch) else ()


STATUS_OF_KIND = {
    "timed_out": wire.TIMED_OUT,
    "cancelled": wire.CANCELLED,
    "stopped": wire.CANCELLED,
    "lost": wire.LOST,
}


FAILURES_BYTES_MAX = 8 * 2**20
"""Of one batch that says the same of many inputs."""
WORDS_CHARS_MAX = 32 * 2**20
"""Of what many inputs are told at once, all together; beyond it each is told the beginning."""
BEGINNING_CHARS = 1_000


def for_many(failure: Failure, count: int) -> Failure:
    """What so many inputs are told at once: a text of some length for each of thousands would fill the memory."""
    if (len(failure.message) + len(failure.traceback)) * count <= WORDS_CHARS_MAX:
        return failure
    return replace(failure, message=_beginning(failure.message), traceback=_beginning(failure.traceback))


def _beginning(text: str) -> str:
    return text if len(text) <= BEGINNING_CHARS else f"{text[:BEGINNING_CHARS]} … {len(text)} characters in all"


def status_of(failure: Failure) -> int:
    """The status of an output that says so."""
    return STATUS_OF_KIND.get(failure.kind, wire.FAILED)


def failed_batches(
    call_id: str, indexes: tuple[int, ...], attempts: tuple[int, ...], failure: Failure, pickled: bytes = b""
) -> Iterator[tuple[OutputBatch, bytes]]:
    """Outputs that say why these inputs have no result, none larger than can be sent."""
    value, status = wire.encode_failure(failure, pickled), status_of(failure)
    step = max(1, FAILURES_BYTES_MAX // len(value))
    for first in range(0, len(indexes), step):
        some, tries = indexes[first : first + step], attempts[first : first + step]
        count = len(some)
        record = OutputBatch(call_id, some, (status,) * count, (len(value),) * count, tries, (0,) * count)
        yield record, value * count
