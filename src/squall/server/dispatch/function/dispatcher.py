"""One function's queue and the containers that serve it: who gets which input, and whose output counts.

This is the hot path: work is done per batch, bodies are cut once and passed on whole, nothing here awaits.

Invariants:
  * an input is in the queue, waits for its retry, or is held by exactly one container, until its output is accepted
  * an output is accepted from the container that holds the input, for the attempt it was handed out as, once
  * a container holds no more inputs than its window (`policy/credit.py`)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from squall.protocol import call as wire
from squall.protocol.blob import is_sha256
from squall.protocol.call import Failure, InputBatch, ItemBatch, OutputBatch, cut
from squall.protocol.function import FunctionSpec, FunctionStats, Scaling
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.function import choice
from squall.server.dispatch.function.attempts import Attempts
from squall.server.dispatch.function.batches import Batches
from squall.server.dispatch.function.call_table import CallTable
from squall.server.dispatch.function.holdings import Holdings
from squall.server.dispatch.function.input import Call, Input, failed_batches, for_many, status_of
from squall.server.dispatch.function.input_queue import InputQueue
from squall.server.dispatch.function.quarantine import Quarantine
from squall.server.dispatch.function.returns import RESYNC_S, Returns
from squall.server.model.clock import Clock, Timer
from squall.server.model.config import ServerConfig
from squall.server.model.definition import is_generator
from squall.server.policy import credit

MEASURED_MAX = 100
"""How many inputs earlier measures count for when others come: a single one that took long, among many that did not, is
not worth containers."""
SEND_AT = 16
"""Single inputs that are handed out before the turn of the loop that they come in is over: their container is at work
while the others are read. A frame for fewer costs both sides more than that gains."""
TURN_INPUTS_MAX = 2_000
"""Inputs handed out in one turn of the event loop: those of other functions come in between."""
TURN_BATCHES_MAX = 20
"""The same, of batches."""
FRAME_BYTES_MAX = 16 * 2**20
"""Of arguments in one frame; a single input may have more."""

ITEMS_WAITING_MAX = 4 * wire.GENERATOR_WINDOW
"""Items of one call that its client has not taken. Guests stop at a window of them; a retry may begin another one."""

PICKLED_BYTES_MAX = 32 * 2**20
"""Of an exception that ends many inputs at once, all together; beyond it they are told in words only."""
ATTEMPT_MAX = 2**31 - 1
RUN_US_MAX = 2**53
"""What a container may say of an output; databases and JSON elsewhere have no larger numbers."""

GONE_MAX = 1_000
"""Inputs that the queue may keep although they have left it."""


class Fleet(Protocol):
    """What a dispatcher asks of whoever starts and ends containers."""

    idle: dict[Container, None]
    """All containers that run nothing, the one that was busy last at the end."""

    def changed(self, dispatcher: Dispatcher) -> None:
        """Its load changed: look soon whether it has the right number of containers."""

    def claim_changed(self, container: Container) -> None:
        """Of a container that claims cpu: what it runs has changed, or whether that waits for calls."""

    def drain(self, container: Container, reason: str) -> None:
        """Let it finish what it holds, then end it."""

    def kill(self, container: Container, reason: str, grace_s: float = 0.0) -> None:
        """End it now."""

    def end(self, container: Container, reason: str, grace_s: float) -> None:
        """End it; one of a server that says so has some time to finish what it was given."""

    def log(self, container: Container, text: str, input_id: str = "") -> None:
        """Say something in the app's log."""


class Dispatcher:
    """The dispatcher of one function."""

    def __init__(
        self, spec: FunctionSpec, app_name: str, *, calls: CallTable, fleet: Fleet, clock: Clock,
        config: ServerConfig, root_app_id: str = "",
    ) -> None:  # fmt: skip
        self.spec = spec
        self.scaling = spec.scaling
        """What the autoscaler goes by."""
        self.batches: Batches | None = None
        self.batches_at_once = self.max_inputs = self.target = 1
        self.runs_in_threads = False
        self.root_app_id = root_app_id or spec.app_id
        """Whose share of the nodes its containers count for."""
        self.app_name = app_name
        self.calls = calls
        self.fleet = fleet
        self.clock = clock
        self.config = config
        self.attempts = Attempts(self)
        self.returns = Returns(self)
        self.holdings = Holdings(self)
        self.queue = InputQueue()
        self.quarantine = Quarantine(self)
        self.queued = 0
        """There and in the queue."""
        self.delayed = 0
        """Inputs that wait for their retry."""
        self.containers: dict[str, Container] = {}
        self.open: dict[Container, None] = {}
        """Containers that may be handed inputs when they have room."""
        self.free: dict[Container, None] = {}
        """Containers that may be handed an input now."""
        self.idle: dict[Container, None] = {}
        """Those of them that hold none, the one that was busy last at the end."""
        self.service_us = 0.0
        """How long inputs have taken, on average."""
        self.expected_us = 0.0
        """The same, but longer as soon as a container goes quiet: for handing out, where a wrong guess costs little."""
        self.measured_inputs = 0
        """Of how many these are the averages; the last ones count."""
        self.failures_in_a_row = 0
        self.last_failure_at = float("-inf")
        self.last_step_at = float("-inf")
        self.last_scaled_at = float("-inf")
        self.is_provided_for = False
        """Inputs have waited ever since the autoscaler looked, and for these it found enough containers, or to come."""
        self.above_target_since = self.short_since = float("inf")
        self.next_look: Timer | None = None
        """When the autoscaler looks again even if nothing changes."""
        self.stopped: Failure | None = None
        """Set once its app stops: nothing is queued any more."""
        self.outlives_client = False
        """Its app goes on without its client, and so do calls under way."""
        self.is_deployed = False
        """Its app goes on until somebody stops it: what waits for a container waits as long as it takes."""
        self._is_scheduled = False
        self._loop = asyncio.get_running_loop()
        self._size_containers()

    def _size_containers(self) -> None:
        """What a container may run at once: `batches_at_once`, each of them one input where there are no batches;
        `target` of them it is meant to run; `max_inputs` are the inputs in them. Those that run in threads cannot be
        stopped one by one."""
        scaling, batching = self.spec.scaling, self.spec.batching
        self.batches_at_once = max(1, scaling.max_inputs)
        self.max_inputs = self.batches_at_once * (batching.max_batch_size if batching is not None else 1)
        self.runs_in_threads = self.batches_at_once > 1 and not self.spec.definition.is_async
        self.go_by(self.scaling)
        if batching is None:
            self.batches = None
        elif self.batches is None:
            self.batches = Batches(self, batching)
        else:
            self.batches.revise(batching)

    def go_by(self, scaling: Scaling) -> None:
        """Its autoscaler goes by this; nothing is begun or ended for it."""
        self.scaling = scaling
        self.target = min(self.batches_at_once, max(1, scaling.target_inputs or self.batches_at_once))

    @property
    def has_inputs(self) -> bool:
        """Whether any input without an output is here: one that waits, for its retry or its turn, or runs."""
        return bool(self.queued or self.delayed or any(container.held for container in self.containers.values()))

    # Inputs come

    def put(self, call: Call, record: InputBatch, body: bytes) -> None:
        """Queue inputs of a call; those it has already, or has an output of, are passed over.

        Raises:
            ValueError: the columns do not fit together.
        """
        if len(record.indexes) != len(record.sizes):
            raise ValueError("as many indexes as sizes are needed")
        if record.blobs:
            check_blobs(record.indexes, record.sizes, record.blobs)
        inputs, done, blobs = call.inputs, call.done, record.blobs
        now = self.clock.monotonic()
        added: list[Input] = []
        for index, value in zip(record.indexes, cut(body, record.sizes), strict=True):
            if index in inputs or (done is not None and index in done):
                continue
            one = Input(call, index, value, blobs.get(str(index), "") if blobs else "", now)
            inputs[index] = one
            added.append(one)
        if not added:
            return
        call.input_count += len(added)
        self.calls.waiting_bytes += sum([len(one.value) for one in added])
        if self.holdings.has_unknown and self.stopped is None:
            added = self.holdings.claim(call, added)
        refusal = self._refusal(call, len(added))
        if refusal is not None:
            for one in added:
                one.is_queued = False
            self.fail(added, refusal)
            return
        self.queue.extend(call, added)
        self.queued += len(added)
        if self.batches is not None:
            self.batches.came(added)
        self.schedule()
        self.fleet.changed(self)

    def put_one(self, call: Call, index: int, value: bytes) -> Input | None:
        """The same of a single input that the call does not have, and for which no guest can have been waiting; None
        where it was refused, and has failed."""
        one = call.inputs[index] = Input(call, index, value, "", self.clock.monotonic())
        call.input_count += 1
        self.calls.waiting_bytes += len(value)
        refusal = self._refusal(call, 1)
        if refusal is not None:
            one.is_queued = False
            self.fail([one], refusal)
            return None
        self.queue.extend(call, (one,))
        self.queued += 1
        if self.batches is not None:
            self.batches.came([one])
        if not self._is_scheduled:
            self.schedule()
            self.fleet.changed(self)
        elif self.queued >= SEND_AT:
            # A container that has some of many is at work while the others are read.
            self._dispatch()
            self.fleet.changed(self)
        return one

    def in_words(self, method: str = "") -> str:
        """What is run, for messages: with its app where that is not its callers' own."""
        return f"{self._what(method)} of app {self.app_name}" if self.is_deployed else self._what(method)

    def _what(self, method: str) -> str:
        return f"method {method} of class {self.spec.name}" if method else f"function {self.spec.name}"

    def _misfit(self, call: Call) -> Failure | None:
        """Why what is run now cannot answer a call, if so: it yields where the call wants a value, or the other way."""
        is_now = is_generator(self.spec.definition, call.method)
        if is_now == (call.kind == wire.GENERATOR):
            return None
        what = self._what(call.method)
        since = f" since version {self.spec.version} of app {self.app_name}" if self.spec.version else ""
        return Failure("invalid", f"{what} is {'a' if is_now else 'no'} generator{since}; call it again")

    def _refusal(self, call: Call, count: int) -> Failure | None:
        """Why no more inputs can be taken, if so."""
        if self.stopped is not None:
            return self.stopped
        misfit = self._misfit(call)
        if misfit is not None:
            return misfit
        if call.is_durable:
            # What was acknowledged is not refused any more: spawns are before they are put on disk, and the backlog
            # brings in what there is room for.
            return None
        limit = self.config.queued_inputs_max
        if self.queued + count > limit:
            what = f"function {self.spec.name} has {self.queued} inputs queued, at most {limit} may wait"
            return Failure("exhausted", f"{what}; send fewer at a time, or let more containers run (max_containers=)")
        if self.calls.waiting_bytes > self.config.queued_bytes_max:
            what = f"inputs that wait use {self.calls.waiting_bytes >> 20} MiB, the limit of this server"
            return Failure("exhausted", f"{what}; send fewer at a time")
        return None

    def put_back(self, one: Input, *, has_waited: bool = True) -> None:
        """An input is to run (again): it comes before all others of its call. It ends where it cannot be run any more:
        a deploy has changed what is run."""
        misfit = self._misfit(one.call)
        if misfit is not None:
            self.fail([one], misfit)
            return
        # A place that it has left behind in the other queue would count again.
        if one.trouble is not None and one.trouble.is_suspect:
            if len(self.queue) > self.ordinary:
                self.queue.forget_gone()
            self.queued += 1
            self.quarantine.put_back(one)
            return
        if len(self.quarantine.queue) > self.quarantine.queued:
            self.quarantine.queue.forget_gone()
        self.queued += 1
        self.queue.put_back(one)
        if self.batches is not None:
            self.batches.came_back(one, has_waited=has_waited)

    def unqueue(self, one: Input) -> None:
        """An input that was queued is not any more, and no container took it."""
        one.is_queued = False
        self.queued -= 1
        if one.trouble is not None and one.trouble.is_suspect:
            self.quarantine.left()
        self.forget_gone()

    # Inputs go out

    @property
    def ordinary(self) -> int:
        """How many of those that are queued may run beside others."""
        return self.queued - self.quarantine.queued

    def schedule(self) -> None:
        """Hand out inputs at the end of this turn of the event loop: what came in one turn leaves in few frames."""
        if self._is_scheduled or not self.queued or self.holdings.absent:
            return
        if (self.free and self.ordinary) or self.quarantine.can_go():
            self._is_scheduled = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._is_scheduled = False
        if not self.holdings.absent:
            self.quarantine.hand_out()
        if self.batches is not None:
            if not self.holdings.absent:
                self.batches.hand_out(TURN_BATCHES_MAX)
            return
        left = TURN_INPUTS_MAX
        while self.ordinary and self.free and left > 0 and not self.holdings.absent:
            for container, count in choice.choose(self, left):
                count = min(count, left)
                if count > 0 and self.ordinary:
                    self.hand_out(container, count)
                    left -= count
                self.refresh(container)
        self.schedule()
        if self.queued:
            self.fleet.changed(self)

    def load(self, container: Container) -> int:
        """How much it runs: inputs, or batches."""
        return len(container.held) if self.batches is None else self.batches.held_by(container)

    def window(self, container: Container) -> int:
        """How many inputs the container may hold now."""
        if self.attempts.is_ending(container):
            return 0
        if self.attempts.suspects and self.quarantine.is_apart(container):
            return len(container.held)
        if self.batches is not None:
            return self.batches.window(container)
        if self.spec.scaling.is_single_use:
            return 0 if container.has_served else 1
        return self.holdings.room(container, container.credit) if container.unknown else container.credit

    def refresh(self, container: Container) -> None:
        """Put a container among the free ones, or take it from them, as it is now."""
        is_open = container.is_open
        if is_open:
            self.open[container] = None
        else:
            self.open.pop(container, None)
        if is_open and len(container.held) < self.window(container):
            self.free[container] = None
            if container.is_busy:
                self._not_idle(container)
            else:
                self.idle[container] = self.fleet.idle[container] = None
        else:
            self.free.pop(container, None)
            self._not_idle(container)
        if container.claims_cpu:
            self.fleet.claim_changed(container)

    def _not_idle(self, container: Container) -> None:
        self.idle.pop(container, None)
        self.fleet.idle.pop(container, None)

    def hand_out(self, container: Container, count: int, batch: int = 0, queue: InputQueue | None = None) -> None:
        """Give the container the next inputs of the queue, or of another one; with a number, as a batch."""
        held = container.held
        now = self.clock.monotonic()
        can_begin = self.max_inputs - len(held)
        by_call: dict[Call, list[Input]] = {}
        taken = (self.queue if queue is None else queue).take(count)
        for one in taken:
            one.container = container
            one.began_at = now if can_begin > 0 else 0.0
            can_begin -= 1
            self.queued -= 1
            held[one] = None
            if batch:
                container.took_of_batch(one, batch)
            of_call = by_call.get(one.call)
            if of_call is None:
                by_call[one.call] = [one]
            else:
                of_call.append(one)
        if not self.queued:
            self.is_provided_for = False
        container.handed_out_at = now
        if not container.has_served:
            container.has_served = True
            container.mark("first_input", now)
        tell = container.tell_now if len(by_call) == 1 else container.tell
        for call, inputs in by_call.items():
            if call.proxy is not None:
                call.proxy.handed_out(container, inputs)
            else:
                self._send(tell, call, inputs, batch, len(taken))

    def _send(
        self, tell: Callable[[str, InputBatch, bytes], None], call: Call, inputs: list[Input], batch: int, size: int
    ) -> None:
        blobs = {str(one.index): one.blob for one in inputs if one.blob}
        if blobs:
            sizes = tuple([wire.IN_BLOB if one.blob else len(one.value) for one in inputs])
        else:
            sizes = tuple([len(one.value) for one in inputs])
        if len(inputs) > 1 and sum(sizes) > FRAME_BYTES_MAX:
            half = len(inputs) // 2
            self._send(tell, call, inputs[:half], batch, size)
            self._send(tell, call, inputs[half:], batch, size)
            return
        record = InputBatch(
            call.call_id,
            tuple([one.index for one in inputs]),
            sizes,
            tuple([one.attempt for one in inputs]),
            blobs,
            call.method,
            batch,
            size if batch else 0,
        )
        body = inputs[0].value if len(inputs) == 1 else b"".join([one.value for one in inputs])
        tell("Inputs", record, body)

    # Outputs come

    def put_outputs(self, container: Container, record: OutputBatch, body: bytes) -> None:
        """Outputs of inputs that the container holds.

        Raises:
            ValueError: the record is not of its body, or its columns are not of one length: joined with outputs of
                others it would shift theirs.
        """
        _check_sizes(record.sizes, record.blobs, body)
        _check_outputs(record)
        if container.unknown:
            record, body = self.holdings.answered(container, record, body)
        call = self.calls.get(record.call_id)
        if call is None or call.dispatcher is not self:
            if call is None and container.is_adopted and record.indexes and not self.spec.definition.is_generator:
                self.calls.keep_orphan(self.spec.function_id, record, body)
            self._measure(container, record)
            self._served(container)
            return
        inputs, held = call.inputs, container.held
        is_simple = not (call.is_closed or any(record.statuses) or call.kind == wire.GENERATOR)
        if not (is_simple and record.indexes and self._are_held(container, call, record)):
            self.attempts.settle(container, call, record, body)
        else:
            freed = 0
            for index in record.indexes:
                one = inputs.pop(index)
                del held[one]
                if one.batch:
                    container.left_batch(one)
                freed += len(one.value)
                if one.trouble is not None:
                    self.quarantine.succeeded(one, container)
                    self.attempts.forget(one)
            self.calls.waiting_bytes -= freed
            self.calls.recorder.outputs(
                call, container, record.indexes, record.attempts, record.run_us, one.queued_at, self.clock.monotonic()
            )
            call.sink.put_outputs(call, record, body)
        self._measure(container, record)
        self._served(container)

    def _are_held(self, container: Container, call: Call, record: OutputBatch) -> bool:
        """Whether every output of the batch is of an attempt that the container holds."""
        inputs = call.inputs
        for index, attempt in zip(record.indexes, record.attempts or (0,) * len(record.indexes), strict=True):
            one = inputs.get(index)
            if one is None or one.container is not container or one.attempt != attempt:
                return False
        return len(set(record.indexes)) == len(record.indexes)

    def _measure(self, container: Container, record: OutputBatch) -> None:
        container.last_output_at = self.clock.monotonic()
        succeeded = record.statuses.count(wire.SUCCEEDED)
        container.succeeded_inputs += succeeded
        container.failed_inputs += len(record.statuses) - succeeded
        run_us: Sequence[int] = record.run_us
        if not run_us:
            return
        if 0 < succeeded < len(run_us):
            run_us = [us for us, status in zip(run_us, record.statuses, strict=True) if status == wire.SUCCEEDED]
        mean_us = credit.mean_us(run_us)
        container.run_us = credit.smoothed_us(container.run_us, mean_us)
        container.credit = credit.window(container.credit, self.max_inputs, container.credit_max, container.run_us)
        if not succeeded and self.measured_inputs:
            # One that fails may take long to say why, which is worth no containers.
            mean_us = min(mean_us, self.service_us)
        before = min(self.measured_inputs, MEASURED_MAX)
        self.measured_inputs = before + len(run_us)
        part = len(run_us) / self.measured_inputs
        self.service_us = max(self.service_us + (mean_us - self.service_us) * part, 1.0)
        self.expected_us = max(self.expected_us + (mean_us - self.expected_us) * part, 1.0)

    def _served(self, container: Container) -> None:
        """The container may have room again."""
        if not container.is_busy:
            container.idle_since = container.last_output_at
            if self.spec.scaling.is_single_use and not container.is_draining:
                self.fleet.drain(container, "it is for one input only")
            elif container.is_draining:
                self.fleet.drain(container, container.drain_reason)
        self.refresh(container)
        self.schedule()
        self.fleet.changed(self)

    def put_items(self, container: Container, record: ItemBatch, body: bytes) -> None:
        """Items of a generator that the container runs.

        Raises:
            ValueError: the record is not of its body.
        """
        _check_sizes(record.sizes, record.blobs, body)
        if record.blobs:
            check_blobs(range(record.first, record.first + len(record.sizes)), record.sizes, record.blobs)
        call = self.calls.get(record.call_id)
        one = call.inputs.get(record.index) if call is not None else None
        if call is None or one is None or one.container is not container or one.attempt != record.attempt:
            return
        container.last_output_at = self.clock.monotonic()
        if call.items_waiting > ITEMS_WAITING_MAX:
            self.fleet.kill(container, "its generator went on without being asked")
        elif not call.is_closed and (call.is_durable or record.first == call.items_passed):
            call.sink.put_items(call, record, body)
        elif not call.is_closed:
            self.fail([one], self.attempts.items_lost(one, container))
            container.tell("CancelInputs", wire.InputRefs(call.call_id, (one.index,)))

    def credit_items(self, call: Call, index: int, count: int) -> None:
        """The client took items: let the generator go on."""
        call.items_taken(count)
        one = call.inputs.get(index)
        if one is not None and one.container is not None:
            one.container.tell("ItemCredit", wire.ItemCredit(call.call_id, index, count))

    def put_orphan(self, call: Call, record: OutputBatch, body: bytes) -> None:
        """An output that came before its call was known again; no container is asked about it."""
        self.attempts.settle(None, call, record, body)

    def sweep(self, now: float) -> None:
        """Look at time limits, and at inputs that wait behind long ones."""
        if any(one.held for one in self.containers.values()):
            self.attempts.sweep(now)
            self.returns.sweep(now)

    # Containers

    def add(self, container: Container) -> None:
        """A container of this function was asked for, or found."""
        self.containers[container.container_id] = container
        if container.is_adopted:
            self.holdings.expect(container)

    def ready(self, container: Container, credit_max: int) -> None:
        """The guest serves; after a reconnect it says what it no longer has."""
        now = self.clock.monotonic()
        container.is_ready = True
        container.credit_max = max(credit_max, self.max_inputs)
        container.credit = container.credit or self.max_inputs
        container.idle_since = now
        if "ready" not in container.phase_ms:
            container.mark("ready", now)
            if container.has_guest:
                self.serves(container)
        if container.held:
            before = [one for one in container.held if one.call.proxy is None]
            self.returns.take_back(container, before)
            container.timers.append(self.clock.call_later(RESYNC_S, lambda: self.returns.resync(container, before)))
        self.refresh(container)
        self.holdings.arrived(container)
        if self.spec.scaling.is_single_use and container.has_served and not container.is_busy:
            # Its server was killed between the output and this. As one that is idle it would be counted on.
            self.fleet.drain(container, "it is for one input only")
        self.schedule()
        self.fleet.changed(self)

    def serves(self, container: Container) -> None:
        """The guest is ready, and there."""
        self.calls.recorder.container_ready(container, self.clock.monotonic())
        self.failures_in_a_row = 0

    def not_ready(self, container: Container) -> None:
        """A guest that was announced as ready has not come: its node starts another one in its place."""
        container.is_ready = container.has_served = False
        container.credit = 0
        for phase in ("connected", "ready", "import", "first_input"):
            container.phase_ms.pop(phase, None)
        self.holdings.forget(container)
        self.returns.lost_on_the_way(container)

    def remove(self, container: Container) -> None:
        """A container is gone; its inputs have been dealt with."""
        self.containers.pop(container.container_id, None)
        if container.start_failure or (container.has_crashed and not container.ending and not container.is_draining):
            self.calls.recorder.container_failed(container)
        self.open.pop(container, None)
        self.free.pop(container, None)
        self._not_idle(container)
        self.holdings.forget(container)
        self.holdings.arrived(container)
        self.fleet.changed(self)

    @property
    def may_lose_one(self) -> bool:
        """Whether it has more containers that stay than it has to keep."""
        least = self.scaling.min_containers
        return not least or sum(not one.is_draining and not one.ending for one in self.containers.values()) > least

    # Versions

    def revise(self, spec: FunctionSpec) -> list[Container]:
        """A deploy changed the function: from now on this is what inputs are handed out to. The containers of what it
        was before are the caller's to end; they are handed nothing more once they drain."""
        is_other = spec.definition != self.spec.definition
        self.spec = spec
        self.scaling = spec.scaling
        self._size_containers()
        self.stopped = None
        self.failures_in_a_row = 0
        for call in self.calls.of(self) if is_other else ():
            misfit = self._misfit(call)
            if misfit is not None:
                self.fail([one for one in call.inputs.values() if one.container is None], misfit)
        self.fleet.changed(self)
        return [one for one in self.containers.values() if one.spec.version != spec.version and not one.ending]

    def rescale(self, scaling: Scaling) -> None:
        """From now on its autoscaler goes by this: what is missing starts, what is too much ends when it has finished
        what it runs."""
        self.go_by(scaling)
        most = scaling.max_containers
        if most is not None:
            staying = [one for one in self.containers.values() if not one.is_draining and not one.ending]
            # Those that have least to lose: not ready, then idle, then with the fewest inputs.
            staying.sort(key=lambda one: (one.is_ready, len(one.held), one.idle_since))
            for container in staying[: max(0, len(staying) - most)]:
                self.fleet.drain(container, f"its function may have {most} containers from now on")
        self.fleet.changed(self)

    def retire(self, failure: Failure) -> list[Container]:
        """A deploy left the function out: what waits ends with this failure, and so does what comes later; what runs
        goes on. Returns its containers, which are the caller's to drain."""
        self.stopped = failure
        self.fail_waiting(failure)
        return [one for one in self.containers.values() if not one.ending]

    # Ends

    def fail(self, inputs: list[Input], failure: Failure, pickled: bytes = b"") -> None:
        """These inputs end without a result; `pickled` is the user's exception, if it was that."""
        if len(pickled) * len(inputs) > PICKLED_BYTES_MAX:
            pickled = b""
        failure = for_many(failure, len(inputs))
        by_call: dict[Call, list[Input]] = {}
        for one in inputs:
            by_call.setdefault(one.call, []).append(one)
            self.attempts.detach(one)
        for call, ended in by_call.items():
            indexes, tries = tuple(one.index for one in ended), tuple(one.attempt for one in ended)
            for one in ended:
                call.inputs.pop(one.index, None)
            self.calls.recorder.failed(call, ended, failure.container_id, status_of(failure), failure)
            if not call.is_closed:
                for record, body in failed_batches(call.call_id, indexes, tries, failure, pickled):
                    call.sink.put_outputs(call, record, body)
            self.calls.end_if_over(call)
        if inputs:
            self.fleet.changed(self)  # containers that wait for a place may have waited for these

    def forget_gone(self) -> None:
        """Let go of inputs that have left the queue, once they are most of it: no container may come by for hours."""
        for queue in (self.queue, self.quarantine.queue):
            if len(queue) > 2 * self.queued + GONE_MAX:
                queue.forget_gone()

    def fail_queued(self, failure: Failure, pickled: bytes = b"") -> None:
        """All that waits for a container ends with this failure."""
        self.fail([*self.quarantine.queue.queued(), *self.queue.queued()], failure, pickled)
        self._clear_queues()

    def _clear_queues(self) -> None:
        self.queue.clear()
        self.quarantine.queue.clear()

    def fail_waiting(self, failure: Failure) -> None:
        """The same for what waits for its retry, too."""
        waiting = [one for call in self.calls.of(self) for one in call.inputs.values() if one.container is None]
        self.fail(waiting, failure)
        self._clear_queues()

    def stop(self, failure: Failure) -> None:
        """Take no more inputs and end all there are."""
        self.stopped = failure
        calls = list(self.calls.of(self))
        self.fail([one for call in calls for one in list(call.inputs.values())], failure)
        self._clear_queues()

    def stats(self) -> FunctionStats:
        """How busy it is."""
        held = [len(one.held) for one in self.containers.values()]
        running = sum(min(count, self.max_inputs) for count in held)
        idle = sum(1 for one in self.open if not one.is_busy)
        headroom = sum(self._headroom(one) for one in self.open)
        waiting = self.queued + self.delayed + sum(held) - running
        return FunctionStats(waiting, running, len(self.containers), idle, headroom)

    def _headroom(self, container: Container) -> int:
        """How many inputs it could begin now."""
        room = self.window(container) - len(container.held)
        if self.batches is not None and room > 0:
            return (self.batches_at_once - self.load(container)) * self.batches.batching.max_batch_size
        return max(0, min(room, self.max_inputs - len(container.held)))


def _check_sizes(sizes: tuple[int, ...], blobs: dict[str, str], body: bytes) -> None:
    """Raises ValueError when these are not the sizes of the body; those in blobs count as -1 each."""
    if not sizes or min(sizes) < wire.IN_BLOB or sum(sizes) + len(blobs) != len(body):
        raise ValueError(f"{len(sizes)} sizes do not add up to a body of {len(body)} bytes")


def _check_outputs(record: OutputBatch) -> None:
    """Raises ValueError when a container says what no store and no client could take."""
    count = len(record.indexes)
    columns = (record.sizes, record.statuses, record.attempts or record.indexes, record.run_us or record.indexes)
    if not count or any(len(column) != count for column in columns):
        raise ValueError(f"{count} outputs with {', '.join(str(len(column)) for column in columns)} sizes and others")
    if min(record.statuses) < 0 or max(record.statuses) >= len(wire.STATUS_NAMES):
        raise ValueError("an output with a status that there is not")
    if record.attempts and not 0 <= min(record.attempts) <= max(record.attempts) <= ATTEMPT_MAX:
        raise ValueError("an output of an attempt that there is not")
    if record.run_us and not 0 <= min(record.run_us) <= max(record.run_us) <= RUN_US_MAX:
        raise ValueError("an output that ran for longer than there is time")
    if record.blobs:
        check_blobs(record.indexes, record.sizes, record.blobs)


def check_blobs(numbers: Sequence[int], sizes: tuple[int, ...], blobs: dict[str, str]) -> None:
    """Raises ValueError when these are not the blobs of the values that are in one."""
    named = {str(number) for number, size in zip(numbers, sizes, strict=True) if size == wire.IN_BLOB}
    if named != blobs.keys() or not all(is_sha256(sha256) for sha256 in blobs.values()):
        raise ValueError(f"{len(blobs)} blobs that are not those of its {len(named)} values in blobs")
