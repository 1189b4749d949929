"""Who reads the connection, and what becomes of what was read.

Two threads take turns. While the main thread has nothing to run it reads the socket itself: an input then costs no
switch between threads. While it is busy with an input for longer than `TICK_S`, the watcher reads: cancellations,
requests to give inputs back and heartbeats must not wait for user code. The watcher sleeps without a timer while
nothing happens. Where requests are answered an event loop reads, in its own turns (`read_on_loop`).

Invariants:
  * exactly one thread reads at a time (`_reading`)
  * an input is in `_held`, or in `_begun`, or unknown here; what has begun is never given back
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Union

from squall.guest import spare_thread
from squall.guest.link import Link, LinkLost
from squall.guest.outbox import Outbox
from squall.protocol.call import InputBatch, InputRefs, ItemCredit, cut
from squall.protocol.codec import Envelope
from squall.protocol.guest import HEARTBEAT_S, GuestStop, Heartbeat, Holding, Ready, TerminalData

if TYPE_CHECKING:
    from squall.guest.batch import Batch

Work = Union["Input", "Batch"]
"""What one call of the user's function runs."""

TICK_S = 0.01
_ARMED_S = 0.05
_WATCH_S = 0.05
_OF_REQUESTS = frozenset({"WebIn", "WebCredit"})


Key = tuple[str, int]
"""Call and index of an input."""


class Input:
    """One input to run."""

    __slots__ = ("attempt", "blob_sha256", "call_id", "index", "input_id", "keys", "method", "value")

    def __init__(
        self, call_id: str, index: int, attempt: int, value: bytes, blob_sha256: str, method: str = ""
    ) -> None:
        self.call_id = call_id
        self.method = method
        self.index = index
        self.attempt = attempt
        self.value = value
        self.blob_sha256 = blob_sha256
        self.keys: tuple[Key, ...] = ((call_id, index),)
        """What it is found by."""
        self.input_id = f"in-{call_id[3:]}:{index}"
        """Its id, as users see it."""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Itself; a batch has several."""
        return (self,)

    @property
    def has_blobs(self) -> bool:
        """Whether something has to be fetched first."""
        return bool(self.blob_sha256)

    def without(self, gone: set[Key]) -> Work | None:
        """What is left of it when these were given back."""
        return None if self.keys[0] in gone else self


class Stopping(BaseException):
    """The guest is to end: no input will come any more. Not an Exception, so that user code does not swallow it."""


class Inbox:
    """Inputs in, in order; everything else the server says is handled as it comes."""

    def __init__(self, link: Link, outbox: Outbox, on_cancel: Callable[[str, int], None]) -> None:
        self._link = link
        self._outbox = outbox
        self.on_cancel = on_cancel
        self.on_terminal: Callable[[TerminalData, bytes], None] | None = None
        self.on_web: Callable[[Envelope, bytes], None] | None = None
        """Told what comes of requests that have begun."""
        self._is_on_loop = False
        """An event loop reads, in the turns it has."""
        self._ready: Ready | None = None
        self._held: deque[Work] = deque()
        self._gathered: list[Input] = []
        """Of a batch that is not whole yet."""
        self._missing = 0
        """Inputs of it that are still to come."""
        self._unhandled: deque[tuple[Envelope, bytes]] = deque()
        """Received; only whoever reads touches it."""
        self._begun: dict[Key, tuple[Input, float, Work]] = {}
        """Taken by the runner and not answered yet, since when, and what it was taken with."""
        self._cancelled: set[Key] = set()
        """Of those, what nobody wants any more."""
        self._item_credit: dict[tuple[str, int], int] = {}
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._reading: threading.Thread | None = None
        self._running = 0
        self._busy_since = 0.0
        self._last_active = 0.0
        self._is_armed = False
        self._arm = threading.Event()
        self._failure: BaseException | None = None
        self.is_stopping = False
        self._watcher: threading.Thread | None = None

    def start(self, ready: Ready) -> None:
        """Tell the server that inputs may come, and begin to watch."""
        self._ready = ready
        if not self._link.is_ready_said:
            self._link.send("Ready", ready)
        self._watcher = spare_thread.start(self._watch)

    # The runner's side

    def take(self) -> Work:
        """The next input (or batch, of a function that takes these), reading the connection until there is one.

        Raises:
            Stopping: there will be none.
        """
        while True:
            held = self.pop()
            if held is not None:
                return held
            self._outbox.flush()
            self._wait_or_read(lambda: bool(self._held) or self.is_stopping)

    def pop(self) -> Work | None:
        """The next input if there is one here. Raises as `take`."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self.is_stopping:
                raise Stopping
            if not self._held:
                return None
            item = self._held.popleft()
            now = time.monotonic()
            for one in item.inputs:
                self._begun[one.keys[0]] = (one, now, item)
            return item

    def answered(self, item: Work) -> None:
        """Its output is in the outbox, or will never be."""
        with self._lock:
            for key in item.keys:
                self._begun.pop(key, None)
            if self._cancelled:
                self._cancelled.difference_update(item.keys)

    def read_on_loop(self) -> None:
        """From now on nobody reads but this thread, by `read_now`, when there is something to read."""
        with self._lock:
            self._is_on_loop, self._reading = True, threading.current_thread()

    def read_now(self) -> bool:
        """Take what has come, of which there is something; False when the connection has ended: `reconnect`."""
        messages = self._link.receive()
        if messages is None:
            return False
        self._unhandled.extend(messages)
        self._handle_all()
        return True

    def reconnect(self) -> None:
        """Make the connection again, which may take long; `pop` raises what is wrong with that."""
        if self._failure is None:
            self._reconnect()

    def has_begun(self, call_id: str, index: int) -> bool:
        """Whether the runner has taken it and not answered yet."""
        with self._lock:
            return (call_id, index) in self._begun

    def taken_with(self, call_id: str, index: int) -> Work | None:
        """What the runner took it with, and has not answered yet: the input itself or its batch."""
        begun = self._begun.get((call_id, index))
        return None if begun is None else begun[2]

    def is_cancelled(self, item: Work) -> bool:
        """Whether the last of it that was wanted was cancelled after the runner had taken it."""
        if not self._cancelled:
            return False  # nearly always
        with self._lock:
            return any(key in self._cancelled for key in item.keys)

    def began(self) -> None:
        """User code begins to run, in one thread at a time."""
        now = time.monotonic()
        self._running += 1
        self._busy_since = self._last_active = now
        if not self._is_armed and not self._is_on_loop:
            self._is_armed = True
            self._arm.set()

    def ended(self) -> None:
        """It has ended; likewise."""
        self._running -= 1
        self._busy_since = time.monotonic() if self._running else 0.0

    def wait_item_credit(self, call_id: str, index: int, wanted: int) -> None:
        """Wait until the consumer of a generator has taken at least `wanted` items, or the generator was given up."""
        key = (call_id, index)
        self._wait_or_read(
            lambda: (
                self._item_credit.get(key, 0) >= wanted
                or self.is_stopping
                or key not in self._begun
                or key in self._cancelled
            )
        )

    def drop_item_credit(self, call_id: str, index: int) -> None:
        """The generator has ended."""
        self._item_credit.pop((call_id, index), None)

    def has_input(self) -> bool:
        """Whether another input waits here."""
        return bool(self._held)

    def _wait_or_read(self, is_done: Callable[[], bool]) -> None:
        me = threading.current_thread()
        with self._lock:
            while not is_done() and self._failure is None:
                if self._reading is None:
                    self._reading = me
                    break
                self._changed.wait(_WATCH_S)
            else:
                return
        try:
            while not is_done() and self._failure is None:
                self._read()
        finally:
            with self._lock:
                self._reading = None
                self._changed.notify_all()

    # Reading

    def _read(self) -> None:
        if not self._unhandled:
            messages = self._link.receive()
            if messages is None:
                if self._failure is None:
                    self._reconnect()
                return
            self._unhandled.extend(messages)
        self._handle_all()

    def _handle_all(self) -> None:
        while self._unhandled:
            # Taken one by one: a cancellation among them may interrupt us, and the others wait for the next turn.
            envelope, body = self._unhandled.popleft()
            self._handle(envelope, body)

    def _reconnect(self) -> None:
        with self._lock:
            # Whoever takes our place hears of these inputs from their client; running them here as well would be twice.
            self._held.clear()
            self._gathered.clear()
            self._missing = 0
        try:
            self._link.connect(is_reconnect=True, frames=self._reintroduction)
        except LinkLost as error:
            with self._lock:
                self._failure = error
                self._changed.notify_all()
            return
        # What ended while there was no connection is not named; its output says that it is not to run again. The server
        # hands nothing out until Ready.
        self._outbox.flush()
        if self._ready is not None:
            self._link.send("Ready", self._ready)

    def _reintroduction(self) -> bytes:
        """What runs here. An output that is late finds its input named here, or follows."""
        by_call: dict[tuple[str, str], list[tuple[int, int, float]]] = {}
        now = time.monotonic()
        with self._lock:
            for (call_id, index), (one, begun_at, _) in self._begun.items():
                by_call.setdefault((call_id, one.method), []).append((index, one.attempt, round(now - begun_at, 3)))
        frames = []
        for (call_id, method), rows in by_call.items():
            indexes, attempts, running_s = zip(*rows, strict=True)
            frames.append(self._link.frame("Holding", Holding(call_id, indexes, attempts, running_s, method)))
        return b"".join(frames)

    def _handle(self, envelope: Envelope, body: bytes) -> None:
        record = self._link.codec.record
        method = envelope.method
        if method == "Inputs":
            self._hold(record(InputBatch, envelope.params), body)
        elif method == "ItemCredit":
            credit = record(ItemCredit, envelope.params)
            key = (credit.call_id, credit.index)
            with self._lock:
                if key not in self._begun:
                    return  # the generator has ended
                self._item_credit[key] = self._item_credit.get(key, 0) + credit.count
                self._changed.notify_all()
        elif method == "TakeBack":
            self._give_back(record(InputRefs, envelope.params))
        elif method == "CancelInputs":
            self._cancel(record(InputRefs, envelope.params))
        elif method == "GuestStop":
            record(GuestStop, envelope.params)
            self.stop()
        elif method in _OF_REQUESTS and self.on_web is not None:
            self.on_web(envelope, body)
        elif method == "TerminalData" and self.on_terminal is not None:
            self.on_terminal(record(TerminalData, envelope.params), body)

    def _hold(self, batch: InputBatch, body: bytes) -> None:
        attempts = batch.attempts or (0,) * len(batch.indexes)
        inputs = [
            Input(
                batch.call_id,
                index,
                attempt,
                value,
                batch.blobs.get(str(index), "") if batch.blobs else "",
                batch.method,
            )
            for index, attempt, value in zip(batch.indexes, attempts, cut(body, batch.sizes), strict=True)
        ]
        with self._lock:
            if batch.batch:
                self._gather(inputs, batch.batch_size)
            else:
                self._held.extend(inputs)
            self._changed.notify_all()

    def _gather(self, inputs: list[Input], batch_size: int) -> None:
        """Inputs of one batch come call by call, one right after the other."""
        from squall.guest.batch import Batch  # cold start: batched functions only

        self._missing = (self._missing or batch_size) - len(inputs)
        self._gathered += inputs
        if self._missing <= 0 and self._gathered:
            self._held.append(Batch(tuple(self._gathered)))
            self._gathered, self._missing = [], 0

    def _give_back(self, refs: InputRefs) -> None:
        """Give back all that has not begun: what is held, and what was lost with a connection and is not known here."""
        call_id = refs.call_id
        with self._lock:
            given = [index for index in refs.indexes if (call_id, index) not in self._begun]
            gone = {(call_id, index) for index in given}
            self._held = deque([left for held in self._held if (left := held.without(gone)) is not None])
            self._gathered = [one for one in self._gathered if one.keys[0] not in gone]
        if given:
            # Outputs first: one that waits here is of an input that is not known any more, and must not run again.
            self._outbox.flush()
            self._link.send("GivenBack", InputRefs(call_id, tuple(given)))

    def _cancel(self, refs: InputRefs) -> None:
        # Never begun: to give it back is enough, the server knows that it is cancelled.
        self._give_back(refs)
        with self._lock:
            # Not of what was given back: it may come here again, as a new attempt that nobody cancelled.
            for index in refs.indexes:
                if (refs.call_id, index) in self._begun:
                    self._cancelled.add((refs.call_id, index))
                    self.on_cancel(refs.call_id, index)
            self._changed.notify_all()

    def stop(self) -> None:
        """Give everything back that has not begun and let the runner end."""
        with self._lock:
            held = [one for item in self._held for one in item.inputs] + self._gathered
            self._held.clear()
            self._gathered, self._missing = [], 0
            self.is_stopping = True
            self._changed.notify_all()
        by_call: dict[str, list[int]] = {}
        for item in held:
            by_call.setdefault(item.call_id, []).append(item.index)
        for call_id, indexes in by_call.items():
            self._link.send("GivenBack", InputRefs(call_id, tuple(indexes)))

    def close(self) -> None:
        """Let nobody wait for the server any more: the process ends, and would join a thread that does."""
        with self._lock:
            self._failure = Stopping()
            self._changed.notify_all()
        self._link.shut_down()

    # The watcher

    def _watch(self) -> None:
        next_heartbeat = time.monotonic() + HEARTBEAT_S
        while not self.is_stopping or self._running:
            if self._is_armed:
                time.sleep(TICK_S)
            else:
                self._arm.wait(max(0.0, next_heartbeat - time.monotonic()))
            self._arm.clear()
            now = time.monotonic()
            if now >= next_heartbeat:
                self._link.send("Heartbeat", Heartbeat(self._running, len(self._held)))
                next_heartbeat = now + HEARTBEAT_S
            if self._is_armed and not self._running and now - self._last_active > _ARMED_S:
                self._is_armed = False
            busy_since = self._busy_since
            if busy_since and now - busy_since >= TICK_S:
                if self._outbox.is_due():
                    self._outbox.flush()
                self._read_while_busy(busy_since, next_heartbeat)

    def _read_while_busy(self, busy_since: float, until: float) -> None:
        """Read for the main thread until it is back from the input it began at `busy_since`."""
        with self._lock:
            if self._reading is not None:
                return
            self._reading = threading.current_thread()
        try:
            while self._busy_since == busy_since and time.monotonic() < until and self._failure is None:
                descriptor = self._link.fileno()
                if descriptor < 0:
                    self._read()
                    continue
                poll = select.poll()
                poll.register(descriptor, select.POLLIN)
                if poll.poll(_WATCH_S * 1000):
                    self._read()
        finally:
            with self._lock:
                self._reading = None
                self._changed.notify_all()
