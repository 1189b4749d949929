"""What became of calls and containers: from the recorder while it is remembered, else from the store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from squall.protocol import call as wire
from squall.protocol.call import CallOpen, CallSpawn, CallSpawned, InputBatch
from squall.protocol.errors import INVALID, NOT_FOUND, PlatformError
from squall.protocol.flight import (
    INPUTS_SHOWN_MAX,
    QUEUED,
    RUNNING,
    AttemptFlight,
    CallFlight,
    CallGraph,
    CallGraphed,
    CallInput,
    CallInputGet,
    CallList,
    CallListing,
    CallReplay,
    CallShow,
    CallSummary,
    ContainerFlight,
    ContainerShow,
    InputFlight,
)
from squall.protocol.function import FunctionSpec
from squall.protocol.ids import input_id, is_id
from squall.protocol.pages import first_page
from squall.protocol.records import from_wire, replace
from squall.server.dispatch.client.callers import Caller
from squall.server.dispatch.durable.expired import why_unknown
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.flight.account import account_of, as_now, container_flight, summary_of
from squall.server.dispatch.flight.earlier import look_up
from squall.server.dispatch.flight.graphs import call_of, graph_of
from squall.server.dispatch.flight.recorder import CallTrack, cut_short, failure_of
from squall.server.dispatch.flight.wanted import wanted_of
from squall.server.dispatch.flight.words import why
from squall.server.model.definition import is_generator
from squall.server.model.store import OutputCounts, StoredCall, StoredInput, StoredOutput

if TYPE_CHECKING:
    from squall.server.dispatch.control_plane import ControlPlane
    from squall.server.dispatch.function.input import Call

LIST_MAX = 1_000
COUNTED_MAX = 10_000
"""Outputs of a call in the store that are counted when somebody asks."""
_OVER = frozenset(wire.STATUS_NAMES)
CHILDREN_MAX = 100

_RESTARTED = (
    "the server was started again since, or has forgotten it: of inputs that succeeded only what their outputs tell is "
    "known, and nothing of how containers started"
)


class Flights:
    """Answers what clients ask about what ran."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._recorder = plane.calls.recorder

    def find_container(self, container_id: str) -> Container | None:
        """A container that lives or is remembered."""
        fleet = self._plane.fleet
        return fleet.containers.get(container_id) or fleet.stopped.get(container_id)

    # Lists

    async def list_calls(self, caller: Caller, record: CallList) -> CallListing:
        """See `CallList`.

        Raises:
            PlatformError: `not_found` for an app or function.
        """
        limit = max(0, min(record.limit, LIST_MAX))
        wanted, since, store = await wanted_of(self._plane, caller, record), record.since or 0.0, self._plane.store
        found: dict[str, CallSummary] = {}
        for track in (*self._recorder.living.values(), *self._recorder.ended.values()):
            if wanted.has(track) and (track.has_failed or not record.is_failed):
                found[track.call_id] = summary_of(track)
        ids = tuple(sorted(wanted.specs))
        flights = await store.list_flights(
            ids, limit, since, record.until, failed=record.is_failed, app_ids=wanted.app_ids
        )
        for flight in flights:
            remembered = self._recorder.get(flight.call_id)
            if remembered is not None and not remembered.is_looked_up:
                await look_up(store, self._recorder, remembered)
                found[flight.call_id] = summary_of(remembered)
            found.setdefault(flight.call_id, from_wire(CallSummary, json.loads(flight.summary)))
        calls = await store.list_calls(ids, limit, since, record.until, app_ids=wanted.app_ids)
        unknown = [] if record.is_failed else [one for one in calls if one.call_id not in found]
        # Of a call that lives some inputs may be in the store only.
        larger = [one for one in calls if one.call_id in found and one.input_count > found[one.call_id].input_count]
        for summary in await self._summaries([*unknown, *larger], wanted.specs):
            known = found.get(summary.call_id)
            found[summary.call_id] = summary if known is None else _in_whole(known, summary)
        listed = [
            one
            for one in found.values()
            if one.created_at >= since and (record.until is None or one.created_at <= record.until)
        ]
        listed.sort(key=lambda one: (one.created_at, one.call_id), reverse=True)
        calls_shown, is_full = first_page(self._plane.codec, listed[:limit])
        return CallListing(calls_shown, wanted.is_cut or is_full)

    async def _summaries(self, calls: Iterable[StoredCall], specs: dict[str, FunctionSpec]) -> list[CallSummary]:
        calls = list(calls)
        counts = await self._counts(calls)
        known = dict(specs)
        return [await self._summary(call, counts.get(call.call_id, OutputCounts()), known) for call in calls]

    async def _counts(self, calls: list[StoredCall]) -> dict[str, OutputCounts]:
        """Of each call how many outputs it has. Those of a large call are not counted, which would read all of them: it
        is taken for one that succeeded unless inputs are left; one that failed has a flight, too."""
        store = self._plane.store
        small = tuple(call.call_id for call in calls if call.input_count <= COUNTED_MAX)
        counts = await store.count_outputs(small)
        for call in calls:
            if call.input_count > COUNTED_MAX and not await store.unfinished_indexes(call.call_id, 0, 1):
                counts[call.call_id] = OutputCounts({wire.SUCCEEDED: call.input_count})
        return counts

    async def _summary(self, call: StoredCall, outputs: OutputCounts, known: dict[str, FunctionSpec]) -> CallSummary:
        """A durable call that is in the store only."""
        spec = known.get(call.function_id)
        if spec is None:
            try:
                spec = known[call.function_id] = await self._plane.variants.spec_of(call.function_id)
            except PlatformError as error:
                if error.code != NOT_FOUND:
                    raise
        counts = outputs.by_status
        done = sum(counts.values())
        failed = done - counts.get(wire.SUCCEEDED, 0) - counts.get(wire.CANCELLED, 0)
        is_over = done >= call.input_count
        status = RUNNING if done else QUEUED
        if failed:
            status = wire.STATUS_NAMES[wire.FAILED]
        elif is_over:
            status = wire.STATUS_NAMES[wire.CANCELLED if counts.get(wire.CANCELLED) else wire.SUCCEEDED]
        try:
            app_name = (await self._plane.apps.get(call.app_id)).name
        except PlatformError as error:
            if error.code != NOT_FOUND:
                raise
            app_name = ""
        return CallSummary(
            call.call_id,
            call.function_id,
            spec.name if spec is not None else "",
            call.app_id,
            app_name,
            call.kind,
            call.created_at,
            status,
            call.input_count,
            failed,
            max(0.0, (outputs.last_at - call.created_at) * 1000) if is_over and outputs.last_at else None,
            call.method,
            is_durable=True,
        )

    # One call

    async def show(self, caller: Caller, record: CallShow) -> CallFlight:
        """See `CallShow`.

        Raises:
            PlatformError: `not_found` when there never was such a call, `expired` when it is kept no more.
        """
        first, limit = max(0, record.first), max(0, min(record.limit, INPUTS_SHOWN_MAX))
        track = self._recorder.get(record.call_id)
        if track is not None:
            await self._check(caller, "CallShow", track.spec.app_id)
            await look_up(self._plane.store, self._recorder, track)
            flight = account_of(track, self.find_container, first, limit, is_failed=record.is_failed)
            if track.is_durable:
                flight = await self._with_all_inputs(flight, record)
        else:
            flight = await self._stored(caller, record, first, limit)
        flight = await self._with_kept(flight)
        return replace(
            flight,
            parent_function=self._name_of_input(flight.parent_input_id),
            children=await self._children(record.call_id, flight.summary.app_id),
        )

    async def show_page(self, caller: Caller, record: CallShow) -> CallFlight:
        """As `show`, with as many inputs as a page takes: each may have failed often, and at length."""
        flight = await self.show(caller, record)
        inputs, is_cut = first_page(self._plane.codec, flight.inputs, records_max=INPUTS_SHOWN_MAX)
        if not is_cut:
            return flight
        left = (
            f"inputs from {flight.inputs[len(inputs)].index} on are left out, too large for one answer: ask from there"
        )
        return replace(flight, inputs=inputs, gaps=f"{flight.gaps}; {left}" if flight.gaps else left)

    async def _with_all_inputs(self, flight: CallFlight, record: CallShow) -> CallFlight:
        """Of a durable call some inputs may be in the store only: they wait there, or ended under an earlier server."""
        try:
            call = await self._plane.store.get_call(flight.summary.call_id)
        except PlatformError as error:
            if error.code != NOT_FOUND:
                raise
            return flight
        missing = call.input_count - flight.summary.input_count
        if missing <= 0:
            return flight
        if call.input_count > COUNTED_MAX:
            counts = {**flight.counts, QUEUED: flight.counts.get(QUEUED, 0) + missing}
            return replace(flight, counts=counts, summary=_grown(flight.summary, call.input_count))
        first, limit = max(0, record.first), max(0, min(record.limit, INPUTS_SHOWN_MAX))
        whole = await self._of_outputs(call, flight, first, limit, is_failed=record.is_failed)
        running = min(flight.counts.get(RUNNING, 0), whole.counts.get(QUEUED, 0))
        counts = {**whole.counts, RUNNING: running, QUEUED: whole.counts.get(QUEUED, 0) - running}
        summary = whole.summary
        if running and summary.status == QUEUED:
            summary = replace(summary, status=RUNNING)
        return replace(
            flight,
            summary=summary,
            counts={name: count for name, count in counts.items() if count},
            inputs=whole.inputs[:limit],
            known_inputs=max(flight.known_inputs, whole.known_inputs),
            why=whole.why,
            gaps=_RESTARTED if _ended(whole) > _ended(flight) else "",
        )

    async def _check(self, caller: Caller, method: str, app_id: str) -> None:
        if caller.scope_app_id:
            caller.check_use(method, await self._plane.apps.get(app_id))

    async def _stored(self, caller: Caller, record: CallShow, first: int, limit: int) -> CallFlight:
        store, call_id = self._plane.store, record.call_id
        kept = await store.get_flight(call_id) if is_id(call_id, "fc") else None
        call: StoredCall | None = None
        try:
            call = await store.get_call(call_id) if is_id(call_id, "fc") else None
        except PlatformError as error:
            if error.code != NOT_FOUND:
                raise
        if call is None and kept is None:
            raise why_unknown(call_id, self._plane.clock.now(), self._plane.config.results_kept_s)
        flight = from_wire(CallFlight, json.loads(kept.detail)) if kept is not None else None
        await self._check(caller, "CallShow", call.app_id if call is not None else kept.app_id)  # type: ignore[union-attr]
        if call is not None:
            flight = await self._of_outputs(call, flight, first, limit, is_failed=record.is_failed)
        assert flight is not None
        inputs = [one for one in flight.inputs if one.index >= first]
        if record.is_failed:
            over = (QUEUED, RUNNING, wire.STATUS_NAMES[wire.SUCCEEDED])
            inputs = [one for one in inputs if one.status not in over]
        containers = as_now(flight.containers, self.find_container)
        return replace(flight, inputs=tuple(inputs[:limit]), containers=containers, gaps=_RESTARTED)

    async def _of_outputs(
        self, call: StoredCall, kept: CallFlight | None, first: int, limit: int, *, is_failed: bool
    ) -> CallFlight:
        """A durable call from its outputs, and what else was kept of it."""
        store = self._plane.store
        outputs = await store.list_outputs(call.call_id, first, limit, failed=is_failed)
        known = (await self._counts([call])).get(call.call_id, OutputCounts())
        summary = await self._summary(call, known, {})
        counts = known.by_status
        if kept is not None and call.input_count > COUNTED_MAX:
            summary = replace(kept.summary, input_count=call.input_count)
            counts = {wire.STATUS_NAMES.index(name): count for name, count in kept.counts.items() if name in _OVER}
        inputs = {output.index: _input_of(call, output) for output in outputs}
        inputs |= {one.index: one for one in (kept.inputs if kept is not None else ()) if one.index >= first}
        ordered = tuple(inputs[index] for index in sorted(inputs))
        by_name = {wire.STATUS_NAMES[status]: count for status, count in counts.items()}
        waiting = call.input_count - sum(by_name.values())
        if waiting > 0:
            by_name[QUEUED] = waiting
        return CallFlight(
            summary,
            by_name,
            ordered,
            call.input_count - max(0, waiting),
            kept.containers if kept is not None else (),
            call.parent_input_id,
            why=why(ordered, kept.containers if kept is not None else ()),
        )

    async def _with_kept(self, flight: CallFlight) -> CallFlight:
        """With the truth about which arguments are kept."""
        if flight.summary.is_durable or not flight.inputs:
            return flight
        call_id = flight.summary.call_id
        kept = await self._plane.store.kept_inputs(call_id)
        unwritten = self._plane.flight_keeper.unwritten_input
        inputs = tuple(
            replace(one, is_kept=one.index in kept or unwritten(call_id, one.index) is not None)
            for one in flight.inputs
        )
        return replace(flight, inputs=inputs)

    def _name_of_input(self, text: str) -> str:
        track = self._recorder.get(call_of(text))
        return track.spec.name if track is not None else ""

    async def _children(self, call_id: str, app_id: str) -> tuple[CallSummary, ...]:
        tracks = [one for one in self.tracks() if call_of(one.parent) == call_id]
        found = [summary_of(one) for one in tracks[:CHILDREN_MAX] if self.is_within(one.spec.app_id, app_id)]
        return tuple(sorted(found, key=lambda one: (one.created_at, one.call_id)))

    def track(self, call_id: str) -> CallTrack | None:
        """What is remembered of a call."""
        return self._recorder.get(call_id)

    def tracks(self) -> Iterable[CallTrack]:
        """All calls that are remembered."""
        return (*self._recorder.ended.values(), *self._recorder.living.values())

    def is_within(self, app_id: str, of_app_id: str) -> bool:
        """Whether an app is that one, or was made in it: the parent that a call names is only what its caller said."""
        if app_id == of_app_id:
            return True
        app = self._plane.apps.live.get(app_id)
        return app is not None and of_app_id in app.row.ancestors

    async def graph(self, caller: Caller, record: CallGraph) -> CallGraphed:
        """See `CallGraph`.

        Raises:
            PlatformError: as `show`.
        """
        flight = await self.show(caller, CallShow(record.call_id, limit=INPUTS_SHOWN_MAX))
        return graph_of(flight, self)

    # Containers

    async def show_container(self, record: ContainerShow) -> ContainerFlight:
        """See `ContainerShow`.

        Raises:
            PlatformError: `not_found`.
        """
        container = self.find_container(record.container_id)
        if container is None:
            count = self._plane.config.stopped_containers_max
            message = (
                f"ContainerShow: no container {record.container_id[:100]} is known: the last {count} that ended are "
                "remembered until the server stops; `squall container list --all` shows them"
            )
            raise PlatformError(NOT_FOUND, message)
        return container_flight(container)

    # Replays

    async def stored_input(
        self, caller: Caller, method: str, call_id: str, index: int
    ) -> tuple[StoredInput, CallInput]:
        """The arguments of an input that are kept, and whose they are.

        Raises:
            PlatformError: `not_found` with the reason, `expired`, `invalid` for an index that there is not.
        """
        plane = self._plane
        call, track = plane.calls.get(call_id), self._recorder.get(call_id)
        one = await self._input_in_memory(call, call_id, index)
        if one is None and is_id(call_id, "fc"):
            one = await plane.store.get_input(call_id, index)
        if one is None or track is None:
            flight = await self.show(caller, CallShow(call_id, limit=0))
            if one is None:
                raise _why_no_input(method, flight, index, plane.config.failed_input_bytes_max)
            summary = flight.summary
            function_id, app_id, name = summary.function_id, summary.app_id, summary.method
        else:
            function_id, app_id, name = track.spec.function_id, track.spec.app_id, track.method
        await self._check(caller, method, app_id)
        return one, CallInput(call_id, index, function_id, one.blob_sha256, name)

    async def _input_in_memory(self, call: Call | None, call_id: str, index: int) -> StoredInput | None:
        one = call.inputs.get(index) if call is not None else None
        if one is not None:
            return StoredInput(call_id, index, one.value, one.blob)
        return self._plane.flight_keeper.unwritten_input(call_id, index)

    async def get_input(self, caller: Caller, record: CallInputGet) -> tuple[CallInput, bytes]:
        """See `CallInputGet`."""
        one, answer = await self.stored_input(caller, "CallInputGet", record.call_id, record.index)
        return answer, one.value

    async def replay(self, caller: Caller, record: CallReplay) -> CallSpawned:
        """See `CallReplay`.

        Raises:
            PlatformError: as `stored_input`; `not_found` when the function's app does not run, `exhausted` when too
                many objects of it are in use.
        """
        one, origin = await self.stored_input(caller, "CallReplay", record.call_id, record.index)
        function_id = record.function_id or origin.function_id
        # Also of an object that sleeps: the store has it, and its app runs.
        dispatcher = await self._plane.variants.find(function_id)
        if dispatcher is None:
            raise PlatformError(
                NOT_FOUND, f"CallReplay: the app of function {function_id[:80]} does not run; run or deploy it again"
            )
        caller.check_use("CallReplay", self._plane.apps.row_of(dispatcher))
        if is_generator(dispatcher.spec.definition, origin.method):
            what = dispatcher.in_words(origin.method)
            message = f"CallReplay: {what} is a generator, which cannot be spawned; call it with the kept input"
            raise PlatformError(INVALID, message)
        size = wire.IN_BLOB if one.blob_sha256 else len(one.value)
        blobs = {"0": one.blob_sha256} if one.blob_sha256 else {}
        spawn = CallSpawn(
            CallOpen(record.new_call_id, function_id, wire.SPAWN, method=origin.method),
            InputBatch(record.new_call_id, (0,), (size,), (), blobs),
        )
        count = await self._plane.durable.spawns.spawn(spawn, one.value, dispatcher)
        return CallSpawned(record.new_call_id, count)


def _ended(flight: CallFlight) -> int:
    return sum(count for name, count in flight.counts.items() if name in _OVER)


def _grown(summary: CallSummary, input_count: int) -> CallSummary:
    """A call with more inputs than are known, which are taken for ones that wait."""
    status = summary.status if summary.status in (QUEUED, wire.STATUS_NAMES[wire.FAILED]) else RUNNING
    return replace(summary, input_count=input_count, status=status, duration_ms=None)


def _in_whole(known: CallSummary, stored: CallSummary) -> CallSummary:
    """A call of which memory has a part, and the store all inputs but nothing of those that run."""
    if stored.input_count > COUNTED_MAX and stored.status == QUEUED:
        return _grown(known, stored.input_count)
    status = RUNNING if stored.status == QUEUED and known.status != QUEUED else stored.status
    return replace(stored, status=status)


def _input_of(call: StoredCall, output: StoredOutput) -> InputFlight:
    finished_ms = max(0.0, (output.finished_at - call.created_at) * 1000)
    began_ms = max(0.0, finished_ms - output.run_us / 1000) if output.run_us else None
    queued_ms = max(0.0, (output.queued_at - call.created_at) * 1000) if output.queued_at and output.attempt else 0.0
    failure = cut_short(failure_of(output.value)) if output.status != wire.SUCCEEDED else None
    status = wire.STATUS_NAMES[output.status]
    attempt = AttemptFlight(output.attempt, status, queued_ms, began_ms, finished_ms, output.container_id, failure)
    return InputFlight(output.index, input_id(call.call_id, output.index), status, (attempt,), is_kept=True)


def _why_no_input(method: str, flight: CallFlight, index: int, bytes_max: int) -> PlatformError:
    summary = flight.summary
    if not 0 <= index < summary.input_count:
        has = f"inputs 0 to {summary.input_count - 1}" if summary.input_count > 1 else "one input, 0"
        return PlatformError(INVALID, f"{method}: call {summary.call_id} has no input {index}: it has {has}")
    if bytes_max <= 0:
        reason = "this server is set to keep none (SQUALL_FAILED_INPUT_BYTES_MAX=0)"
    elif summary.failed_count:
        reason = "it did not fail, or more failed at once than are kept; squall call show tells which are"
    else:
        reason = "arguments are kept of inputs that failed, and of spawned calls"
    return PlatformError(
        NOT_FOUND, f"{method}: the arguments of input {index} of {summary.call_id} are not kept: {reason}"
    )
