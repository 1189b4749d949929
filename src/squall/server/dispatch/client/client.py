"""Clients: their calls, what is on its way to them, and what is kept until they come back."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from squall.protocol.call import CallOpen, CallWaits, Failure, InputBatch, ItemBatch, OutputBatch
from squall.protocol.call_id import may_open, owner_mark
from squall.protocol.errors import ChannelClosed
from squall.protocol.ids import parse_input_id
from squall.protocol.peer import Peer
from squall.protocol.task_set import TaskSet
from squall.server.dispatch.client.followed_lines import LOOK_S, FollowedLines
from squall.server.dispatch.client.shelf import Kept
from squall.server.dispatch.function.call_table import CallTable
from squall.server.dispatch.function.dispatcher import Dispatcher
from squall.server.dispatch.function.input import Call, Input, failed_batches, for_many
from squall.server.model.clock import Clock

if TYPE_CHECKING:
    from squall.server.model.clock import Timer

CALLS_MAX = 10_000
"""Calls that one client may have open."""
CALLS_BELOW_MAX = 20_000
"""Calls that all clients in containers of one app, and of those started from it, may have open: each of its thousands
of containers is a client."""
MERGED_BYTES_MAX = 16 * 2**20
"""Outputs of one turn of the loop are joined into one frame up to this size."""
TURN_BYTES_MAX = 4 * 2**20
"""What is sent in one turn, or one value more; then the client has to read."""
TURN_OUTPUTS_MAX = 4_000
"""The same for outputs and items, or one batch more: to join 100,000 small ones takes a tenth of a second."""

_log = logging.getLogger("squall.server.dispatch.client.client")


class Client:
    """One client process, connected or away. The sink of its calls."""

    def __init__(
        self, client_id: str, scope_app_id: str, root_app_id: str, table: CallTable, clock: Clock, tasks: TaskSet
    ) -> None:
        self.client_id = client_id
        self.scope_app_id = scope_app_id
        """The only app it may use, with those below: that of the container it is in. Empty: all."""
        self.root_app_id = root_app_id
        """The first app above that one."""
        self.container_id = ""
        """The container that it was in last, if any."""
        self.peer: Peer | None = None
        self.calls: dict[str, Call] = {}
        self.away_timer: Timer | None = None
        self.on_forgotten: dict[str, Callable[[], None]] = {}
        """By what ends with it."""
        self._mark = owner_mark(client_id)
        self._table = table
        self._clock = clock
        self._refusals: dict[str, Failure] = {}
        """Calls that could not be opened: their inputs fail with this."""
        self._shelf = table.shelf
        self._tasks = tasks
        self._unsent: deque[Kept] = deque()
        self._sending: asyncio.Future[None] | None = None
        self.lines = FollowedLines(clock)
        self._has_looked = False
        self._loop = asyncio.get_running_loop()

    # Sink

    def put_outputs(self, call: Call, record: OutputBatch, body: bytes) -> None:
        """See `Sink`."""
        kept = Kept(call, record, body)
        for dropped in call.keep(kept):
            self._shelf.remove(dropped)
            if dropped.is_unsent:
                self.let_go(dropped)
        self._shelf.put(kept)
        self._queue(kept)

    def put_notice(self, call_id: str, text: str) -> None:
        """See `Sink`. Who is away is not told."""
        if self.peer is not None:
            self.peer.event("CallWaits", CallWaits(call_id, text))

    def put_items(self, call: Call, record: ItemBatch, body: bytes) -> None:
        """See `Sink`."""
        one = call.inputs.get(record.index)
        if self._shelf.is_full and one is not None and one.container is not None:
            reason = (
                "no memory is left for what its generator yields: clients do not read it, and the blob store is full"
            )
            call.dispatcher.fleet.kill(one.container, reason)
            return
        kept = Kept(call, record, body)
        call.keep_items(kept)
        self._shelf.put(kept)
        self._queue(kept)

    def call_ended(self, call: Call) -> None:
        """See `Sink`."""
        self.calls.pop(call.call_id, None)
        self._table.open_below.add(self.root_app_id, -1)

    def let_go(self, kept: Kept) -> None:
        """See `Sink`: it must come back to send again what has no output."""
        if self.peer is not None and kept.is_unsent:
            _log.warning("client %s does not read its results; it is disconnected", self.client_id)
            self.peer.channel.abort()

    # On the way out

    def connected(self, peer: Peer) -> None:
        """It is there, and opens its calls again."""
        self._clear()
        self.peer = peer

    def disconnected(self) -> None:
        """It is gone; what is kept is sent when it opens its calls again."""
        self._clear()
        self.peer = None

    def _clear(self) -> None:
        for kept in self._unsent:
            kept.is_queued = False
        self._unsent.clear()

    def _queue(self, kept: Kept) -> None:
        if self.peer is None:
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        kept.is_queued = True
        self._shelf.queued(kept)
        self._unsent.append(kept)

    def _flush(self) -> None:
        """Send what one turn of the loop brought; the rest when the client has read."""
        if self._sending is not None:
            return
        if not self._send_what_may_go():
            self._look_again()
            return
        self._has_looked = False
        if self._unsent:
            self._sending = self._tasks.start(self._send_all())

    def _send_what_may_go(self) -> bool:
        """Send some; False when lines come before the others."""
        count = len(self._unsent)
        may_go = self.lines.may_go(count) if self.lines.reads else count
        self._send_some(may_go)
        return may_go == count

    def _look_again(self) -> None:
        """Log lines that came before have not left yet: mostly they do within this turn of the loop."""
        if self._has_looked:
            self._clock.call_later(LOOK_S, self._flush)
        else:
            self._has_looked = True
            self._loop.call_soon(self._flush)

    async def _send_all(self) -> None:
        """Send as the client reads."""
        try:
            while self._unsent and self.peer is not None:
                await self.peer.channel.drain()
                if not self._send_what_may_go():
                    return  # `_flush` looks again
                await asyncio.sleep(0)
        except ChannelClosed:
            return  # whoever has it on its list is told too
        finally:
            self._sending = None
            if self._unsent:
                self._loop.call_soon(self._flush)  # for the connection that came meanwhile

    def _send_some(self, count: int) -> None:
        """The first `count`, at most until the channel is full; outputs of one call in as few frames as can be."""
        peer = self.peer
        if peer is None or peer.channel.is_full:
            return
        batch: list[Kept] = []
        size = outputs = 0
        while self._unsent and count > 0 and size <= TURN_BYTES_MAX and outputs <= TURN_OUTPUTS_MAX:
            count -= 1
            kept = self._unsent.popleft()
            kept.is_queued = False
            self._shelf.sent(kept)
            if not kept.call.is_closed:
                batch.append(kept)
                size += len(kept.body)
                outputs += len(kept.record.sizes)
        if len(batch) == 1:
            peer.event_now(_event_of(batch[0].record), batch[0].record, batch[0].body)
            return
        by_call: dict[Call, list[tuple[OutputBatch, bytes]]] = {}
        for kept in batch:
            if isinstance(kept.record, OutputBatch):
                by_call.setdefault(kept.call, []).append((kept.record, kept.body))
            else:
                peer.event("PutItems", kept.record, kept.body)
        for batches in by_call.values():
            for record, body in merged(batches):
                peer.event("PutOutputs", record, body)

    # Calls

    def open(self, record: CallOpen, dispatcher: Dispatcher | None, failure: Failure | None) -> None:
        """A call begins, or is taken up again: then what was sent is sent again."""
        call = self._table.get(record.call_id)
        if call is not None and (call.sink is self or call.is_closed):
            if not call.is_closed:
                self._reopen(call)
            return
        self._forget_refusal(record.call_id)
        if call is not None or not may_open(record.call_id, self._mark):
            message = f"CallOpen: call {record.call_id} is that of another client; make one of your own"
            failure = Failure("invalid", message)
        failure = failure or self._no_room(record.call_id)
        if dispatcher is None or failure is not None:
            unknown = Failure("invalid", f"CallOpen: call {record.call_id}: its function does not exist")
            self._remember_refusal(record.call_id, failure or unknown)
            return
        parent = self._parent(record.parent_input_id)
        call = Call(record.call_id, record.kind, dispatcher, self, self._clock.now(), parent, record.method)
        call.parent_input_id = record.parent_input_id if parent is not None else ""
        self._table.add(call)
        self.calls[call.call_id] = call
        self._table.open_below.add(self.root_app_id)
        orphans = self._table.take_orphans(call.call_id, dispatcher.spec.function_id)
        if orphans:
            call.reopened()
        for output, body in orphans:
            self.put_outputs(call, output, body)

    def _no_room(self, call_id: str) -> Failure | None:
        """Why one more call cannot be opened, if so."""
        if len(self.calls) >= CALLS_MAX:
            what = f"this client has {CALLS_MAX} calls open, as many as one may have"
        elif self.root_app_id and self._table.open_below[self.root_app_id] >= CALLS_BELOW_MAX:
            whose = f"functions of app {self.root_app_id} and of apps started from it"
            what = f"{whose} have {CALLS_BELOW_MAX} calls open, as many as they may have together"
        else:
            return None
        return Failure("exhausted", f"CallOpen: call {call_id}: {what}; let some of them end first")

    def _remember_refusal(self, call_id: str, failure: Failure) -> None:
        """Keep why, for the inputs that follow; without room for it they are told that the call is not open."""
        refused = self._table.refused_below
        if len(self._refusals) >= CALLS_MAX or (self.root_app_id and refused[self.root_app_id] >= CALLS_MAX):
            if not self._refusals:
                return
            self._forget_refusal(next(iter(self._refusals)))
        self._refusals[call_id] = failure
        refused.add(self.root_app_id)

    def _forget_refusal(self, call_id: str) -> None:
        if self._refusals.pop(call_id, None) is not None:
            self._table.refused_below.add(self.root_app_id, -1)

    def _reopen(self, call: Call) -> None:
        call.reopened()
        if self.peer is None:
            return
        for kept in (*call.items, *call.sent):
            if not kept.is_queued:
                self._queue(kept)

    def _parent(self, parent_input_id: str) -> Input | None:
        """The input that makes this call: known only when it is of an app this client may use."""
        if not parent_input_id:
            return None
        try:
            one = self._table.input(*parse_input_id(parent_input_id))
        except ValueError:
            return None
        if one is None or one.call.dispatcher.spec.app_id != self.scope_app_id:
            return None
        return one

    def put_inputs(self, record: InputBatch, body: bytes) -> None:
        """Inputs of one of its calls; of a call that could not be opened, they fail."""
        call = self.calls.get(record.call_id)
        if call is not None and not call.is_closed:
            call.dispatcher.put(call, record, body)
            return
        refusal = self._refusals.get(record.call_id)
        if refusal is None:
            refusal = Failure("invalid", f"call {record.call_id} is not open; send CallOpen first")
        self._refuse(record, refusal)

    def _refuse(self, record: InputBatch, failure: Failure) -> None:
        if self.peer is None:
            return
        if self.peer.channel.is_full:
            _log.warning("client %s sends inputs of calls that are not open, and reads nothing", self.client_id)
            self.peer.channel.abort()
            return
        attempts = record.attempts or (0,) * len(record.indexes)
        told = for_many(failure, len(record.indexes))
        for refused, body in failed_batches(record.call_id, record.indexes, attempts, told):
            self.peer.event("PutOutputs", refused, body)

    def close(self, call_id: str, *, is_cancelling: bool = True) -> None:
        """The client forgets a call; what still runs for it is cancelled."""
        self._forget_refusal(call_id)
        call = self.calls.pop(call_id, None)
        if call is None or call.is_closed:
            return
        call.is_closed = True
        for kept in (*call.sent, *call.items):
            self._shelf.remove(kept)
        call.sent.clear()
        call.items.clear()
        self._table.release_parent(call)
        if call.inputs and is_cancelling:
            call.dispatcher.attempts.cancel(list(call.inputs.values()))
        self._table.end_if_over(call)

    def close_all(self) -> None:
        """It will not come back. Calls of an app that lives without its client run to their end."""
        for call_id in list(self._refusals):
            self._forget_refusal(call_id)
        for call in list(self.calls.values()):
            self.close(call.call_id, is_cancelling=not call.dispatcher.outlives_client)


def _event_of(record: OutputBatch | ItemBatch) -> str:
    return "PutOutputs" if isinstance(record, OutputBatch) else "PutItems"


def merged(batches: list[tuple[OutputBatch, bytes]]) -> list[tuple[OutputBatch, bytes]]:
    """Several batches of one call as few, none larger than `MERGED_BYTES_MAX` unless it came so."""
    groups: list[list[tuple[OutputBatch, bytes]]] = [[]]
    size = 0
    for record, body in batches:
        if groups[-1] and size + len(body) > MERGED_BYTES_MAX:
            groups.append([])
            size = 0
        groups[-1].append((record, body))
        size += len(body)
    return [group[0] if len(group) == 1 else _joined(group) for group in groups]


def _joined(group: list[tuple[OutputBatch, bytes]]) -> tuple[OutputBatch, bytes]:
    indexes: list[int] = []
    statuses: list[int] = []
    sizes: list[int] = []
    attempts: list[int] = []
    run_us: list[int] = []
    blobs: dict[str, str] = {}
    for record, _ in group:
        count = len(record.indexes)
        indexes += record.indexes
        statuses += record.statuses
        sizes += record.sizes
        attempts += record.attempts or (0,) * count
        run_us += record.run_us or (0,) * count
        if record.blobs:
            blobs.update(record.blobs)
    columns = (tuple(indexes), tuple(statuses), tuple(sizes), tuple(attempts), tuple(run_us))
    return OutputBatch(group[0][0].call_id, *columns, blobs), b"".join([body for _, body in group])
