"""Attempts lost through no fault of the input: free of charge, a bounded number of times."""

from __future__ import annotations

from squall.protocol.call import Failure
from squall.server.policy.events import AttemptLost, Fail, Policy, Retry, Verdict

LOSSES_MAX = 8


class LostPolicy(Policy):
    """Queues again what a lost container held."""

    def attempt_lost(self, event: AttemptLost) -> Verdict | None:
        """See `Policy`."""
        if event.is_request:
            message = f"the container was lost before it had answered the request ({event.ending})"
            return Fail(Failure("lost", message, container_id=event.container_id))
        if not event.is_repeatable:
            message = f"the generator's container was lost after it had yielded items ({event.ending}); call it again"
            return Fail(Failure("lost", message, container_id=event.container_id))
        if event.losses < LOSSES_MAX:
            return Retry(0.0, is_counted=False)
        message = (
            f"the input was handed to {event.losses + 1} containers and each was lost before it answered, the last "
            f"with: {event.ending}; see the nodes' health with `squall server status`"
        )
        return Fail(Failure("lost", message, container_id=event.container_id))
