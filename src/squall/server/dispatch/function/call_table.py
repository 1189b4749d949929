"""Every call that lives, and outputs whose call has not come back yet."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from squall.protocol.call import OutputBatch
from squall.server.dispatch.client.shelf import Shelf
from squall.server.dispatch.flight.recorder import FlightRecorder
from squall.server.dispatch.function.input import Call, Input
from squall.server.dispatch.shares import Shares

if TYPE_CHECKING:
    from squall.server.dispatch.function.dispatcher import Dispatcher

ORPHANS_MAX = 10_000
ORPHAN_BYTES_MAX = 256 * 2**20
CANCELLED_MAX = 10_000


class CallTable:
    """Calls by id; and *orphans*: outputs that containers bring after a restart of the server, before the client has
    opened its calls again. They are few and kept within limits, the oldest go first.

    A call's id says whose it is (`protocol/call_id.py`): nobody else can open the call, and so take its orphans.
    """

    def __init__(self, shelf: Shelf | None = None, recorder: FlightRecorder | None = None) -> None:
        self.recorder = recorder or FlightRecorder()
        self.shelf = shelf or Shelf()
        """What is kept for their clients."""
        self._calls: dict[str, Call] = {}
        self._of: dict[Dispatcher, dict[str, Call]] = {}
        """The same by function, of those that have some: a function is asked for its own while others have many."""
        self._orphans: OrderedDict[tuple[str, str], list[tuple[OutputBatch, bytes]]] = OrderedDict()
        """By call and the function that brought them."""
        self._orphan_count = 0
        self._orphan_bytes = 0
        self.open_below = Shares()
        """Calls of clients, until nothing of them runs."""
        self.refused_below = Shares()
        """Calls that clients could not open, and remember."""
        self.waiting_bytes = 0
        """Of the values of all inputs without an output."""

        self.cancelled: OrderedDict[str, None] = OrderedDict()
        """Calls that never came into memory, or only in a server before this one: what runs of them runs for nobody."""

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def has_inputs(self) -> bool:
        """Whether any input has no output."""
        return any(call.inputs for call in self._calls.values())

    def get(self, call_id: str) -> Call | None:
        """The call, if it lives."""
        return self._calls.get(call_id)

    def of(self, dispatcher: Dispatcher) -> Iterator[Call]:
        """The calls of one function."""
        return iter(list(self._of.get(dispatcher, {}).values()))

    def dispatchers(self) -> set[Dispatcher]:
        """Of all functions that have calls."""
        return set(self._of)

    def waited_for(self) -> Iterator[Call]:
        """Calls that inputs have made, with inputs of their own that have no output."""
        for call in self._calls.values():
            if call.parent is not None and call.inputs and not call.is_closed:
                yield call

    def input(self, call_id: str, index: int) -> Input | None:
        """An input without an output."""
        call = self._calls.get(call_id)
        return None if call is None else call.inputs.get(index)

    def add(self, call: Call) -> None:
        """A call begins; the input that made it, if any, waits from now on."""
        self._calls[call.call_id] = call
        self._of.setdefault(call.dispatcher, {})[call.call_id] = call
        self.recorder.opened(call)
        if call.parent is not None:
            call.parent.with_trouble().children += 1
            _claim_changed(call.parent)

    def end_if_over(self, call: Call) -> None:
        """Forget a call that nobody wants and of which nothing runs."""
        if call.is_closed and not call.inputs and self._calls.pop(call.call_id, None) is not None:
            of_function = self._of[call.dispatcher]
            del of_function[call.call_id]
            if not of_function:
                del self._of[call.dispatcher]
            self.recorder.ended_call(call)
            call.sink.call_ended(call)

    def release_parent(self, call: Call) -> None:
        """The input that made this call waits for it no longer."""
        if call.parent is not None and call.parent.trouble is not None:
            call.parent.trouble.children -= 1
            _claim_changed(call.parent)
        call.parent = None

    def named_blobs(self) -> set[str]:
        """Every blob that an input or output in memory names."""
        named: set[str] = set()
        for call in self._calls.values():
            named.update(one.blob for one in call.inputs.values() if one.blob)
            for kept in (*call.sent, *call.items):
                named.update(kept.record.blobs.values())
        for orphans in self._orphans.values():
            for record, _ in orphans:
                named.update(record.blobs.values())
        return named

    def remember_cancelled(self, call_id: str) -> None:
        """A call that is not in memory was cancelled; the last few thousand are remembered."""
        self.cancelled[call_id] = None
        if len(self.cancelled) > CANCELLED_MAX:
            self.cancelled.popitem(last=False)

    def keep_orphan(self, function_id: str, record: OutputBatch, body: bytes) -> None:
        """Keep outputs of a call that is not open."""
        self._orphans.setdefault((record.call_id, function_id), []).append((record, body))
        self._orphan_count += len(record.indexes)
        self._orphan_bytes += len(body)
        while self._orphan_count > ORPHANS_MAX or self._orphan_bytes > ORPHAN_BYTES_MAX:
            _, oldest = self._orphans.popitem(last=False)
            self._forget(oldest)

    def take_orphans(self, call_id: str, function_id: str) -> list[tuple[OutputBatch, bytes]]:
        """Outputs of a call that was opened (again), from containers of its function."""
        found = self._orphans.pop((call_id, function_id), [])
        self._forget(found)
        return found

    def _forget(self, orphans: list[tuple[OutputBatch, bytes]]) -> None:
        self._orphan_count -= sum(len(record.indexes) for record, _ in orphans)
        self._orphan_bytes -= sum(len(body) for _, body in orphans)


def _claim_changed(parent: Input) -> None:
    """A container whose inputs all wait claims no cpu."""
    container = parent.container
    if container is not None and container.claims_cpu:
        container.dispatcher.fleet.claim_changed(container)
