"""What is kept of a schedule."""

from __future__ import annotations

from dataclasses import dataclass

from squall.protocol.function import Schedule


@dataclass(frozen=True, slots=True)
class StoredSchedule:
    """The schedule of one function of a deployed app. Times are seconds since 1970."""

    function_id: str
    schedule: Schedule
    version: int = 0
    """Of the app, when the function was deployed last."""
    began_at: float = 0.0
    """What a period is counted from."""
    next_at: float | None = None
    """When it is due; None for never again."""
    last_at: float | None = None
    """When what was run last was due."""
    last_call_id: str = ""
    last_outcome: str = ""
    """As in `ScheduleInfo`, but empty while it runs."""
    skipped_count: int = 0
    """As in `ScheduleInfo`."""

    @property
    def is_running(self) -> bool:
        """Whether its last run goes on, as far as is known."""
        return bool(self.last_call_id) and not self.last_outcome
