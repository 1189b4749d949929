"""Containers that never became ready: when to stop trying and tell those who wait."""

from __future__ import annotations

from squall.server.policy.events import Fail, Policy, StartFailed

FAILURES_MAX = 3


class StartupPolicy(Policy):
    """A failure that would repeat is told at once; others after a few in a row.

    As long as another container of the function serves, nothing fails: the inputs wait for that one, and the
    autoscaler's backoff slows further starts.
    """

    def start_failed(self, event: StartFailed) -> Fail | None:
        """See `Policy`."""
        if event.ready_containers:
            return None
        if event.is_final or event.failures_in_a_row >= FAILURES_MAX:
            return Fail(event.failure)
        return None
