"""What an earlier server knew of a call that goes on under this one.

A call that is not durable is opened again by its client, which sends what has no result, and this server counts from
there on. Where inputs had failed before, the flight that was written of them is put in front.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Set
from typing import TYPE_CHECKING

from squall.protocol import call as wire
from squall.protocol.flight import QUEUED, RUNNING, AttemptFlight, CallFlight, CallSummary, InputFlight
from squall.protocol.records import from_wire, replace
from squall.server.dispatch.flight.words import why

if TYPE_CHECKING:
    from squall.server.dispatch.flight.recorder import CallTrack, FlightRecorder
    from squall.server.model.store import Store

_log = logging.getLogger(__name__)

GAPS = (
    "the server was started again while it ran: of what had ended before, that is known which had been written when an"
    " input failed"
)
_CONTAINERS_MAX = 100
_SUCCEEDED = wire.STATUS_NAMES[wire.SUCCEEDED]
_CANCELLED = wire.STATUS_NAMES[wire.CANCELLED]
_NOT_FAILED = (_SUCCEEDED, QUEUED, RUNNING)


async def look_up(store: Store, recorder: FlightRecorder, track: CallTrack) -> None:
    """Find what an earlier server wrote of the call, before this one writes for the first time.

    Raises:
        PlatformError: the store is away.
    """
    if track.is_looked_up:
        return
    kept = await store.get_flight(track.call_id)
    earlier = None
    if kept is not None:
        try:
            earlier = from_wire(CallFlight, json.loads(kept.detail))
        except ValueError as error:
            _log.warning("what was written of call %s cannot be read, and is written anew: %s", track.call_id, error)
    recorder.remember(track, earlier, len(kept.detail) if kept is not None and earlier is not None else 0)


def whole_summary(earlier: CallFlight, now: CallSummary, known: Set[int]) -> CallSummary:
    """The call as listed; `known` are the inputs that this server has had."""
    before, again = earlier.summary, _again(earlier, known)
    failed_count = before.failed_count + now.failed_count - sum(again.values())
    later_ms = _later_ms(earlier, now)
    return replace(
        now,
        created_at=min(before.created_at, now.created_at),
        input_count=max(before.input_count, sum(_ended(earlier, known).values()) + now.input_count),
        failed_count=failed_count,
        status=wire.STATUS_NAMES[wire.FAILED] if failed_count else now.status,
        duration_ms=None if now.duration_ms is None else now.duration_ms + later_ms,
    )


def whole(
    earlier: CallFlight, now: CallFlight, known: Set[int], first: int, limit: int, *, is_failed: bool
) -> CallFlight:
    """The call with both parts, and of its inputs those from `first` on; `now` is without the earlier part."""
    later_ms, ended = _later_ms(earlier, now.summary), _ended(earlier, known)
    before = [
        one
        for one in earlier.inputs
        if one.index >= first
        and one.index not in known
        and one.status not in (_NOT_FAILED if is_failed else (QUEUED, RUNNING))
    ]
    later = [_later(one, later_ms) for one in now.inputs]
    inputs = tuple(sorted((*before, *later), key=lambda one: one.index)[:limit])
    ids = {attempt.container_id for one in inputs for attempt in one.attempts}
    moved = [replace(one, asked_ms=one.asked_ms + later_ms) for one in now.containers]
    by_id = {one.container.container_id: one for one in (*moved, *earlier.containers)}
    containers = tuple(one for key, one in by_id.items() if key in ids)[:_CONTAINERS_MAX]
    counts = {name: ended.get(name, 0) + now.counts.get(name, 0) for name in (*wire.STATUS_NAMES, RUNNING, QUEUED)}
    share = ended.get(_SUCCEEDED, 0) / max(1, counts[_SUCCEEDED])
    return replace(
        now,
        summary=whole_summary(earlier, now.summary, known),
        counts={name: count for name, count in counts.items() if count},
        inputs=inputs,
        known_inputs=now.known_inputs + sum(one.index not in known for one in earlier.inputs),
        containers=containers,
        queue_ms_mean=round(earlier.queue_ms_mean * share + now.queue_ms_mean * (1 - share), 3),
        queue_ms_max=max(earlier.queue_ms_max, now.queue_ms_max),
        run_ms_mean=round(earlier.run_ms_mean * share + now.run_ms_mean * (1 - share), 3),
        run_ms_max=max(earlier.run_ms_max, now.run_ms_max),
        why=why(inputs, containers),
        gaps=GAPS,
    )


def _ended(earlier: CallFlight, known: Set[int]) -> dict[str, int]:
    """How many inputs had ended, without those whose output was lost and that ran again."""
    again = _again(earlier, known)
    return {name: count - again.get(name, 0) for name, count in earlier.counts.items() if name in wire.STATUS_NAMES}


def _again(earlier: CallFlight, known: Set[int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in earlier.inputs:
        if one.index in known and one.status not in (*_NOT_FAILED, _CANCELLED):
            found[one.status] = found.get(one.status, 0) + 1
    return found


def _later_ms(earlier: CallFlight, now: CallSummary) -> float:
    return max(0.0, (now.created_at - earlier.summary.created_at) * 1000)


def _later(one: InputFlight, later_ms: float) -> InputFlight:
    return replace(one, attempts=tuple(_attempt_later(attempt, later_ms) for attempt in one.attempts))


def _attempt_later(one: AttemptFlight, later_ms: float) -> AttemptFlight:
    return replace(
        one,
        queued_ms=one.queued_ms + later_ms,
        began_ms=None if one.began_ms is None else one.began_ms + later_ms,
        finished_ms=None if one.finished_ms is None else one.finished_ms + later_ms,
    )
