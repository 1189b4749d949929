"""What a schedule's row becomes: by a deploy, a firing, one that is passed over, a clock that was set back."""

from __future__ import annotations

from dataclasses import replace

from squall.protocol import cron
from squall.protocol.function import CRON, FunctionSpec, Schedule
from squall.protocol.ids import derived_id
from squall.server.model.schedule import StoredSchedule
from squall.server.schedule import period


def next_run(schedule: Schedule, began_at: float, after: float) -> float | None:
    """When it is due first after a time; None if never."""
    if schedule.kind == CRON:
        return cron.first_after(schedule.cron, schedule.timezone, after)
    return period.first_after(schedule.months, schedule.seconds, began_at, after)


def settled(known: StoredSchedule | None, spec: FunctionSpec, version: int, now: float) -> StoredSchedule:
    """The row of a function of that version of its app; `known` is what there was before. Repeating changes nothing.

    What is known of the last run stays, whatever becomes of the schedule.
    """
    schedule = spec.schedule
    assert schedule is not None
    if known is not None and known.schedule == schedule:
        if known.version == version:
            return corrected(known, now)
        if schedule.kind == CRON:
            return replace(known, version=version)
    row = known or StoredSchedule(spec.function_id, schedule)
    return replace(row, schedule=schedule, version=version, began_at=now, next_at=next_run(schedule, now, now))


def fired(row: StoredSchedule, due_at: float, call_id: str, now: float) -> StoredSchedule:
    """It was due then, and the call is on disk."""
    return replace(_later(row, due_at, now), last_at=due_at, last_call_id=call_id, last_outcome="", skipped_count=0)


def skipped(row: StoredSchedule, now: float) -> StoredSchedule:
    """It is due, and its last run goes on."""
    assert row.next_at is not None
    return replace(_later(row, row.next_at, now), skipped_count=row.skipped_count + 1)


def started(row: StoredSchedule, call_id: str, now: float) -> StoredSchedule:
    """It was run beside its schedule."""
    return replace(row, last_at=now, last_call_id=call_id, last_outcome="", skipped_count=0)


def _later(row: StoredSchedule, due_at: float, now: float) -> StoredSchedule:
    return replace(row, next_at=next_run(row.schedule, row.began_at, max(now, due_at)))


def corrected(row: StoredSchedule, now: float) -> StoredSchedule:
    """The clock may have been set back: a period that would last longer than it is long is counted from now.

    A cron expression waits until the clock is where it was: each of its times is due once.
    """
    if row.schedule.kind == CRON or row.next_at is None:
        return row
    if row.next_at - now <= period.longest_s(row.schedule.months, row.schedule.seconds):
        return row
    return replace(row, began_at=now, next_at=next_run(row.schedule, now, now))


def call_id_of(row: StoredSchedule) -> str:
    """The id of the call for what is due now. It follows from that alone, so that making the call again is harmless."""
    assert row.next_at is not None
    return derived_id("fc", row.next_at, f"{row.function_id} {row.next_at!r}")
