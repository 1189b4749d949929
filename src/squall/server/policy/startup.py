"""Containers that never became ready: when to stop trying and tell those who wait."""

from __future__ import annotations

from squall.server.policy.events import Fail, Policy, StartFailed

FAILURES_MAX = 3
OF_ITS_CODE = frozenset({"crashed", "oom", "disk", "import", "user", "startup_timed_out"})
"""Kinds of failures that the container's own program brought about, and that may pass: a database that was away, a
package index, a full disk. `user` is what an enter hook raised."""


class StartupPolicy(Policy):
    """A failure that would repeat is told at once; others after a few in a row.

    As long as another container of the function serves, nothing fails: the inputs wait for that one, and the
    autoscaler's backoff slows further starts.

    In a deployed app nobody watches, and what calls it should not have to know that it was away: what waits goes on
    waiting, and containers are started for it for ever, at intervals that the autoscaler makes longer and longer. The
    app's log says so each time. Whoever measures starts does watch, and is told. What cannot be put right without a
    deploy (an image that is nowhere, resources that no node has) is told even in a deployed app.
    """

    def start_failed(self, event: StartFailed) -> Fail | None:
        """See `Policy`."""
        if event.ready_containers:
            return None
        if event.is_patient and event.failure.kind in OF_ITS_CODE:
            return None
        if event.is_final or event.failures_in_a_row >= FAILURES_MAX:
            return Fail(event.failure)
        return None
