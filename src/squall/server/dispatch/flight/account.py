"""What the flight recorder noted of a call, as an account of it; nothing here is on the way of an input."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from squall.protocol import call as wire
from squall.protocol.container import STOPPED
from squall.protocol.flight import (
    QUEUED,
    RUNNING,
    AttemptFlight,
    CallFlight,
    CallSummary,
    ContainerFlight,
    InputFlight,
)
from squall.protocol.ids import input_id
from squall.protocol.records import replace
from squall.server.dispatch.fleet.container import Container
from squall.server.dispatch.flight.earlier import whole, whole_summary
from squall.server.dispatch.flight.recorder import Attempt, Batch, CallTrack
from squall.server.dispatch.flight.words import why
from squall.server.dispatch.function.input import Input

CONTAINERS_MAX = 100

Find = Callable[[str], Container | None]


def summary_of(track: CallTrack) -> CallSummary:
    """The call as listed."""
    summary = _summary_of(track)
    return summary if track.earlier is None else whole_summary(track.earlier, summary, _known(track))


def _known(track: CallTrack) -> set[int]:
    """The inputs that are known one by one."""
    living = track.call.inputs if track.call is not None else {}
    return {*(index for batch in track.batches for index in batch.indexes), *track.attempts, *living}


def _summary_of(track: CallTrack) -> CallSummary:
    call, counts, spec = track.call, track.counts, track.spec
    input_count = track.input_count + (call.input_count if call is not None else 0)
    done = sum(counts)
    is_over = call is None or (done >= input_count > 0 and not call.inputs)
    if is_over:
        status = wire.STATUS_NAMES[wire.SUCCEEDED]
        if counts[wire.CANCELLED] or done < input_count:
            status = wire.STATUS_NAMES[wire.CANCELLED]
    else:
        assert call is not None
        is_begun = done or any(one.container is not None for one in call.inputs.values())
        status = RUNNING if is_begun else QUEUED
    if track.has_failed:
        status = wire.STATUS_NAMES[wire.FAILED]
    return CallSummary(
        track.call_id,
        spec.function_id,
        spec.name,
        spec.app_id,
        track.app_name,
        track.kind,
        track.created_at,
        status,
        input_count,
        done - counts[wire.SUCCEEDED] - counts[wire.CANCELLED],
        _ms(track, track.last_at) if is_over and track.last_at else None,
        track.method,
        track.is_durable,
    )


def account_of(track: CallTrack, find: Find, first: int, limit: int, *, is_failed: bool = False) -> CallFlight:
    """The call, with its inputs from `first` on."""
    batches: dict[int, tuple[Batch, int]] = {}
    for batch in track.batches:
        for place, index in enumerate(batch.indexes):
            batches[index] = (batch, place)
    living = track.call.inputs if track.call is not None else {}
    known: set[int] = set(track.attempts) if is_failed else {*batches, *track.attempts, *living}
    wanted = sorted(index for index in known if index >= first)
    inputs: list[InputFlight] = []
    for index in wanted:
        if len(inputs) >= limit:
            break
        one = _input(track, index, batches.get(index), living.get(index), find)
        if not is_failed or one.status not in (wire.STATUS_NAMES[wire.SUCCEEDED], QUEUED, RUNNING):
            inputs.append(one)
    containers = containers_of(inputs, find, track.opened_at)
    succeeded = max(1, track.counts[wire.SUCCEEDED])
    counts = {name: track.counts[status] for status, name in enumerate(wire.STATUS_NAMES) if track.counts[status]}
    running = sum(1 for one in living.values() if one.container is not None)
    counts |= {name: count for name, count in ((RUNNING, running), (QUEUED, len(living) - running)) if count}
    flight = CallFlight(
        _summary_of(track),
        counts,
        tuple(inputs),
        len(known),
        containers,
        track.parent,
        queue_ms_mean=_rounded(track.queue_s / succeeded * 1000),
        queue_ms_max=_rounded(track.queue_s_max * 1000),
        run_ms_mean=_rounded(track.run_s / succeeded * 1000),
        run_ms_max=_rounded(track.run_s_max * 1000),
        why=why(inputs, containers),
    )
    if track.earlier is None:
        return flight
    earlier = replace(track.earlier, containers=as_now(track.earlier.containers, find))
    return whole(earlier, flight, _known(track), first, limit, is_failed=is_failed)


def _input(track: CallTrack, index: int, found: tuple[Batch, int] | None, one: Input | None, find: Find) -> InputFlight:
    attempts = [_failed(track, attempt) for attempt in track.attempts.get(index, ())]
    if found is not None:
        attempts.append(_succeeded(track, *found))
    elif one is not None:
        attempts.append(_living(track, one))
    status = attempts[-1].status
    is_kept = index in track.kept_indexes or track.is_durable
    return InputFlight(index, input_id(track.call_id, index), status, tuple(attempts), is_kept)


def _failed(track: CallTrack, attempt: Attempt) -> AttemptFlight:
    return AttemptFlight(
        attempt.attempt,
        wire.STATUS_NAMES[attempt.status],
        _ms(track, attempt.queued_at),
        _ms(track, attempt.began_at) if attempt.began_at else None,
        _ms(track, attempt.finished_at),
        attempt.container_id,
        attempt.failure,
        _rounded(attempt.delay_s * 1000),
    )


def _succeeded(track: CallTrack, batch: Batch, place: int) -> AttemptFlight:
    number = batch.attempts[place] if batch.attempts else 0
    ran_s = batch.run_us[place] / 1e6 if batch.run_us else 0.0
    queued_at = _queued_at(track, number, batch.queued_at)
    began_at = max(queued_at, batch.finished_at - ran_s)
    return AttemptFlight(
        number,
        wire.STATUS_NAMES[wire.SUCCEEDED],
        _ms(track, queued_at),
        _ms(track, began_at),
        _ms(track, batch.finished_at),
        batch.container_id,
    )


def _living(track: CallTrack, one: Input) -> AttemptFlight:
    container = one.container
    began_ms = _ms(track, one.began_at) if container is not None and one.began_at else None
    queued_ms = _ms(track, _queued_at(track, one.attempt, one.queued_at))
    status = RUNNING if began_ms is not None else QUEUED
    return AttemptFlight(
        one.attempt, status, queued_ms, began_ms, None, container.container_id if container is not None else ""
    )


def _queued_at(track: CallTrack, attempt: int, queued_at: float) -> float:
    """A durable input has waited since it was spawned, also while it was in the store only."""
    return track.opened_at if track.is_durable and attempt == 0 else queued_at


def containers_of(inputs: list[InputFlight], find: Find, opened_at: float) -> tuple[ContainerFlight, ...]:
    """The containers that these inputs were in, as far as they are remembered."""
    ids = dict.fromkeys(attempt.container_id for one in inputs for attempt in one.attempts if attempt.container_id)
    return tuple(_containers(list(ids)[:CONTAINERS_MAX], find, opened_at))


def _containers(ids: list[str], find: Find, opened_at: float) -> Iterator[ContainerFlight]:
    for container_id in ids:
        container = find(container_id)
        if container is not None:
            yield container_flight(container, _rounded((container.asked_at - opened_at) * 1000))


def as_now(containers: tuple[ContainerFlight, ...], find: Find) -> tuple[ContainerFlight, ...]:
    """Containers as an earlier server knew them, with what has become of them: their start only that one knew."""
    return tuple(_as_now(one, find(one.container.container_id)) for one in containers)


def _as_now(one: ContainerFlight, container: Container | None) -> ContainerFlight:
    before = one.container
    if container is None:
        return one if before.stopped_at is not None else replace(one, container=replace(before, state=STOPPED))
    return replace(
        one,
        container=replace(container.info(), phase_ms=before.phase_ms, path=before.path, path_cause=before.path_cause),
    )


def container_flight(container: Container, asked_ms: float = 0.0) -> ContainerFlight:
    """One container."""
    return ContainerFlight(
        container.info(), asked_ms, container.is_adopted, container.succeeded_inputs, container.failed_inputs
    )


def _ms(track: CallTrack, at: float) -> float:
    return _rounded((at - track.opened_at) * 1000)


def _rounded(ms: float) -> float:
    return round(max(0.0, ms), 3) if ms > -1.0 else round(ms, 3)
