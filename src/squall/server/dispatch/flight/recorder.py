"""The flight recorder: what becomes of each call, container and function, noted as it happens.

On the way of an input nothing is worked out: a batch of outputs leaves the columns it came in, shared and not copied.
Whoever asks (`flights.py`) makes an account of them, once a second the histograms of functions are counted up, and
what must outlive the server is handed to `keeper.py`.

Bounds: `CALLS_MAX` calls and `BYTES_MAX` of what is known about them, ended ones that ended first go first; one call
has an eighth of it at most. Of a call the first `DETAILED_MAX` inputs are known one by one and `FAILED_MAX` of those
that failed; the rest is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from squall.protocol import call as wire
from squall.protocol.call import Failure, decode_failure
from squall.protocol.flight import CallFlight
from squall.protocol.node import PATHS
from squall.protocol.records import replace
from squall.protocol.web import WEB
from squall.server.model.function_minute import FunctionMinute, add_all
from squall.server.model.store import StoredInput

if TYPE_CHECKING:
    from squall.protocol.function import FunctionSpec
    from squall.server.dispatch.fleet.container import Container
    from squall.server.dispatch.function.input import Call, Input
    from squall.server.model.clock import Clock

CALLS_MAX = 10_000
BYTES_MAX = 64 * 2**20
"""Of all apps together: the last calls, whosever they are. An app that makes very many shortens what is remembered of
others and refuses them nothing; failures and durable calls are in the store for longer."""
REOPENED_S = 600.0
"""After the server's start: who comes back later finds its app ended."""
CALL_SHARE = 8
"""One call may take the n-th part of that; attempts of it beyond are counted only."""
DETAILED_MAX = 1_000
FAILED_MAX = 1_000
ATTEMPTS_MAX = 20
"""Of one input; those in the middle are forgotten."""
KEPT_INPUTS_MAX = 100
"""Of one call: failed inputs whose arguments are kept."""
MESSAGE_CHARS_MAX = 2_000
TRACEBACK_CHARS_MAX = 8_000
FRAMES_MAX = 20
MINUTE_S = 60.0

_CALL_BYTES = 700
_BATCH_BYTES = 250
_INPUT_BYTES = 72
_ATTEMPT_BYTES = 500


class Batch(NamedTuple):
    """Outputs of inputs that succeeded, as they came."""

    container_id: str
    indexes: tuple[int, ...]
    attempts: tuple[int, ...]
    """Empty: the first."""
    run_us: tuple[int, ...]
    """Empty: not measured."""
    queued_at: float
    """Of one of them, the same for all that came together; by the monotonic clock, as all times here."""
    finished_at: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One that did not succeed."""

    attempt: int
    container_id: str
    queued_at: float
    began_at: float
    """0: it never began."""
    finished_at: float
    status: int
    failure: Failure
    delay_s: float = 0.0


_NO_ATTEMPTS: dict[int, list[Attempt]] = {}
_NONE_KEPT: frozenset[int] = frozenset()


class CallTrack:
    """What is known of one call."""

    __slots__ = (
        "app_name", "attempts", "batches", "bytes", "call", "call_id", "counts", "created_at", "detailed", "earlier",
        "failed", "input_count", "is_durable", "is_looked_up", "kept_indexes", "kind", "last_at", "latest", "method",
        "opened_at", "parent", "queue_s", "queue_s_max", "run_s", "run_s_max", "spec",
    )  # fmt: skip

    def __init__(self, call: Call, opened_at: float) -> None:
        self.call: Call | None = call
        """While it lives."""
        self.call_id = call.call_id
        self.spec: FunctionSpec = call.dispatcher.spec
        self.app_name = call.dispatcher.app_name
        self.kind = call.kind
        self.method = call.method
        self.is_durable = call.is_durable
        self.created_at = call.created_at
        self.opened_at = opened_at
        """The same moment as `created_at`."""
        self.parent = call.parent_input_id
        self.input_count = 0
        """Without those that the call has counted while it lives."""
        self.batches: list[Batch] = []
        """Most calls have one, and most have nothing in the next: what is empty is shared until there is something."""
        self.detailed = 0
        self.attempts: dict[int, list[Attempt]] = _NO_ATTEMPTS
        """By input, of those that had attempts that failed."""
        self.failed = 0
        """Of these, how many ended so."""
        self.counts = [0] * len(wire.STATUS_NAMES)
        self.queue_s = self.queue_s_max = 0.0
        """Of those that succeeded: in all, and the longest."""
        self.run_s = self.run_s_max = 0.0
        self.last_at = 0.0
        """When its last output came."""
        self.latest = ("", 0.0)
        """Who brought the last output, and when its input began to wait."""
        self.kept_indexes: frozenset[int] = _NONE_KEPT
        """Of inputs that failed, whose arguments are kept."""
        self.bytes = _CALL_BYTES
        self.is_looked_up = True
        """Whether the store need not be asked any more for what an earlier server wrote of it."""
        self.earlier: CallFlight | None = None
        """That."""

    @property
    def has_failed(self) -> bool:
        """Whether an input has, other than by being cancelled."""
        return sum(self.counts) > self.counts[wire.SUCCEEDED] + self.counts[wire.CANCELLED]

    @property
    def has_trouble(self) -> bool:
        """Whether there is anything of it that its outputs do not tell."""
        return bool(self.attempts) or self.has_failed


class FlightRecorder:
    """What ran lately, within bounds; used on the server's loop."""

    def __init__(self, clock: Clock | None = None, *, calls_max: int = CALLS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._clock = clock
        self._calls_max = calls_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._began_at = clock.monotonic() if clock is not None else 0.0
        self.living: OrderedDict[str, CallTrack] = OrderedDict()
        self.ended: OrderedDict[str, CallTrack] = OrderedDict()
        self.changed: dict[str, CallTrack] = {}
        """Calls with failures that the store does not know."""
        self.dropped_calls = 0
        """Of these, those that were forgotten before it took them."""
        self.minutes: dict[str, FunctionMinute] = {}
        self._unfolded: dict[str, tuple[FunctionSpec, list[Batch]]] = {}
        """By function: what the histograms lack."""
        self._starts_us: dict[str, tuple[FunctionSpec, list[int]]] = {}
        self.keep_input: Callable[[CallTrack, StoredInput], bool] | None = None
        """Where arguments of inputs that failed go, if they are kept; whether there was room."""

    def get(self, call_id: str) -> CallTrack | None:
        """What is known of the call."""
        return self.living.get(call_id) or self.ended.get(call_id)

    # Calls

    def opened(self, call: Call) -> None:
        """A call begins."""
        if self._clock is None:
            return
        opened_at = self._clock.monotonic()
        if call.is_durable:
            # It may have waited in the store; what a clock says that was set since is not believed beyond its life.
            opened_at -= min(max(0.0, self._clock.now() - call.created_at), 30 * 24 * 3600.0)
        # A durable call whose inputs come in portions leaves memory and comes back.
        known = self.ended.pop(call.call_id, None) if call.is_durable else None
        track = call.track = known or CallTrack(call, opened_at)
        track.call = call
        # What a client has opened under an earlier server, it opens again as soon as there is this one.
        track.is_looked_up = known is not None or call.is_durable or opened_at - self._began_at > REOPENED_S
        self.living[call.call_id] = track
        if known is None:
            self._bytes += _CALL_BYTES
            if len(self.living) + len(self.ended) > self._calls_max or self._bytes > self._bytes_max:
                self._make_room()

    def remember(self, track: CallTrack, earlier: CallFlight | None, size: int) -> None:
        """An earlier server has written this of the call, or nothing."""
        # Who comes second may have found what is of this server.
        if track.is_looked_up:
            return
        track.is_looked_up = True
        if earlier is not None and track.bytes:
            track.earlier = earlier
            track.bytes += size
            self._bytes += size
            self._make_room()

    def ended_call(self, call: Call) -> None:
        """Nothing of it runs, and nobody waits for it."""
        track = call.track
        if track is None:
            return
        track.call = call.track = None
        track.input_count += call.input_count
        if self.living.pop(track.call_id, None) is not None:
            self.ended[track.call_id] = track

    def _make_room(self) -> None:
        """Forget what ended first, then the oldest of what lives."""
        while self._bytes > self._bytes_max or len(self.living) + len(self.ended) > self._calls_max:
            of = self.ended or self.living
            if len(of) == 1 and of is self.living:
                return
            call_id, oldest = of.popitem(last=False)
            if self.changed.pop(call_id, None) is not None:
                self.dropped_calls += 1
            self._bytes -= oldest.bytes
            oldest.bytes = 0
            oldest.batches = []
            oldest.attempts = _NO_ATTEMPTS
            oldest.earlier = None
            oldest.detailed = DETAILED_MAX
            oldest.failed = FAILED_MAX
            if oldest.call is not None:
                oldest.call.track = None

    # Outputs

    def outputs(
        self, call: Call, container: Container | None, indexes: tuple[int, ...], attempts: tuple[int, ...],
        run_us: tuple[int, ...], queued_at: float, now: float,
    ) -> None:  # fmt: skip
        """Inputs have succeeded, and `queued_at` is when one of them began to wait."""
        if self._clock is None:
            return
        batch = Batch(
            container.container_id if container is not None else "", indexes, attempts, run_us, queued_at, now
        )
        spec = call.dispatcher.spec
        unfolded = self._unfolded.get(spec.function_id)
        if unfolded is None:
            self._unfolded[spec.function_id] = (spec, [batch])
        else:
            unfolded[1].append(batch)
        track = call.track
        if track is None:
            return
        count = len(indexes)
        track.counts[0] += count
        track.last_at = now
        track.latest = (batch.container_id, queued_at)
        ran_s, longest_s = (sum(run_us) / 1e6, max(run_us) / 1e6) if run_us else (0.0, 0.0)
        track.run_s += ran_s
        if longest_s > track.run_s_max:
            track.run_s_max = longest_s
        waited_s = now - queued_at - ran_s / count
        if waited_s > 0:
            track.queue_s += waited_s * count
            if waited_s > track.queue_s_max:
                track.queue_s_max = waited_s
        if track.detailed < DETAILED_MAX:
            track.detailed += count
            track.batches.append(batch)
            size = _BATCH_BYTES + _INPUT_BYTES * count
            track.bytes += size
            self._bytes += size
            if self._bytes > self._bytes_max:
                self._make_room()

    def failed(self, call: Call, inputs: Sequence[Input], container_id: str, status: int, failure: Failure) -> None:
        """Inputs have ended without a result."""
        if self._clock is None or not inputs:
            return
        minute = self._minute(call.dispatcher.spec)
        if status == wire.CANCELLED:
            minute.cancelled += len(inputs)
        elif status == wire.TIMED_OUT:
            minute.timed_out += len(inputs)
        else:
            minute.failed += len(inputs)
        track = call.track
        if track is None:
            return
        now = self._clock.monotonic()
        track.counts[status] += len(inputs)
        track.last_at = now
        track.latest = (container_id, inputs[0].queued_at)
        failure = cut_short(failure)
        for one in inputs[: max(0, FAILED_MAX - track.failed)]:
            track.failed += 1
            self._note(track, one, Attempt(
                one.attempt, container_id, one.queued_at, one.began_at, now, status, failure,
            ))  # fmt: skip
            is_call = track.kind != WEB and not track.is_durable
            if status != wire.CANCELLED and is_call and len(track.kept_indexes) < KEPT_INPUTS_MAX:
                self._keep_input(track, one)
        if status != wire.CANCELLED:
            self._change(track)

    def failed_output(self, call: Call, one: Input, container: Container | None, status: int, value: bytes) -> None:
        """A container said that an input has failed."""
        self.failed(call, (one,), container.container_id if container is not None else "", status, failure_of(value))

    def retried(self, one: Input, container_id: str, status: int, failure: Failure, delay_s: float) -> None:
        """An attempt has failed, and another one follows."""
        track = one.call.track
        if track is None or self._clock is None or (one.index not in track.attempts and track.failed >= FAILED_MAX):
            return
        now = self._clock.monotonic()
        self._note(track, one, Attempt(
            one.attempt, container_id, one.queued_at, one.began_at, now, status, cut_short(failure), delay_s,
        ))  # fmt: skip
        self._change(track)

    def _note(self, track: CallTrack, one: Input, attempt: Attempt) -> None:
        if track.bytes >= self._bytes_max // CALL_SHARE:
            return
        if track.attempts is _NO_ATTEMPTS:
            track.attempts = {}
        known = track.attempts.setdefault(one.index, [])
        if len(known) >= ATTEMPTS_MAX:
            del known[ATTEMPTS_MAX // 2]
        else:
            failure = attempt.failure
            size = _ATTEMPT_BYTES + len(failure.traceback) + len(failure.message) + 200 * len(failure.frames)
            track.bytes += size
            self._bytes += size
            self._make_room()
        known.append(attempt)

    def _keep_input(self, track: CallTrack, one: Input) -> None:
        keep = self.keep_input
        if keep is not None and keep(track, StoredInput(track.call_id, one.index, one.value, one.blob)):
            track.kept_indexes |= {one.index}

    def _change(self, track: CallTrack) -> None:
        if track.bytes:
            self.changed[track.call_id] = track

    # Functions and their containers

    def container_ready(self, container: Container, now: float) -> None:
        """Its guest serves."""
        if self._clock is None or container.is_adopted:
            return
        spec = container.dispatcher.spec
        self._minute(spec).started += 1
        _, starts_us = self._starts_us.setdefault(spec.function_id, (spec, []))
        starts_us.append(int((now - container.asked_at) * 1e6))
        self.container_path(container)

    def container_path(self, container: Container) -> None:
        """Its guest serves, and how it came about is known: whichever comes last."""
        if self._clock is not None and container.path in PATHS:
            paths = self._minute(container.dispatcher.spec).paths
            paths[container.path] = paths.get(container.path, 0) + 1

    def container_failed(self, container: Container) -> None:
        """It crashed, or could not be started."""
        if self._clock is not None:
            self._minute(container.dispatcher.spec).container_errors += 1

    def responded(self, spec: FunctionSpec, status: int) -> None:
        """A client of a server was answered."""
        if self._clock is not None:
            statuses = self._minute(spec).statuses
            statuses[status] = statuses.get(status, 0) + 1

    def _minute(self, spec: FunctionSpec) -> FunctionMinute:
        minute = self.minutes.get(spec.function_id)
        if minute is None:
            assert self._clock is not None
            minute = FunctionMinute(spec.function_id, self._clock.now(), spec.variant_of)
            self.minutes[spec.function_id] = minute
        return minute

    def fold(self) -> None:
        """Count up what came since the last time."""
        unfolded, self._unfolded = self._unfolded, {}
        for spec, batches in unfolded.values():
            minute = self._minute(spec)
            run_us: list[int] = []
            queue_us: list[int] = []
            for batch in batches:
                count = len(batch.indexes)
                minute.succeeded += count
                run_us += batch.run_us
                ran_us = sum(batch.run_us) / count if batch.run_us else 0.0
                queue_us.append(int(max(0.0, (batch.finished_at - batch.queued_at) * 1e6 - ran_us)))
            add_all(minute.run_us, run_us)
            add_all(minute.queue_us, queue_us, max(1, len(run_us) // len(queue_us)))
        starts, self._starts_us = self._starts_us, {}
        for spec, starts_us in starts.values():
            add_all(self._minute(spec).start_us, starts_us)

    def take_minutes(self, now: float) -> tuple[FunctionMinute, ...]:
        """Minutes that are over; new ones begin."""
        over = [minute for minute in self.minutes.values() if not 0 <= now - minute.began_at < MINUTE_S]
        for minute in over:
            del self.minutes[minute.function_id]
        return tuple(over)


def cut_short(failure: Failure) -> Failure:
    """The failure with texts of bounded length, that any store and any client takes."""
    trace, half = failure.traceback, TRACEBACK_CHARS_MAX // 2
    if len(trace) > TRACEBACK_CHARS_MAX:
        trace = f"{trace[:half]}\n…\n{trace[-half:]}"
    frames = tuple([
        replace(one, file=_clean(one.file[-300:]), name=_clean(one.name[:200]), text=_clean(one.text[:200]))
        for one in failure.frames[-FRAMES_MAX:]
    ])  # fmt: skip
    return replace(
        failure,
        kind=_clean(failure.kind[:40]),
        message=_clean(failure.message[:MESSAGE_CHARS_MAX]),
        type_name=_clean(failure.type_name[:200]),
        traceback=_clean(trace),
        frames=frames,
        container_id=_clean(failure.container_id[:100]),
    )


def _clean(text: str) -> str:
    """Without half characters, which user code can put into its messages."""
    return text.encode("utf-8", "replace").decode()


def failure_of(value: bytes) -> Failure:
    """The failure in an output; one in a blob is not read."""
    try:
        return decode_failure(value)[0]
    except ValueError:
        return Failure("user", "it failed; its failure is too large to be shown here")
