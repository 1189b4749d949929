"""A container that ended by itself while it ran inputs: whose fault was it?

With one input in the container the answer is known, and without retries it fails at once: `os._exit` in user code
should not be carried out eight times. With several it is not known: all of them are queued again as suspects, which
the dispatcher hands out one at a time, so that the next crash names its input and the innocent ones succeed.
"""

from __future__ import annotations

from squall.protocol.call import Failure
from squall.server.policy.events import AttemptLost, Fail, Policy, Retry, Verdict

LOSSES_MAX = 8


def crash_failure(event: AttemptLost) -> Failure:
    """What the caller is told."""
    if event.is_oom:
        message = (
            f"the container ran out of memory while it ran this input ({event.ending}); "
            "give the function more with memory=, or let it use less"
        )
        return Failure("oom", message, container_id=event.container_id)
    if event.over_disk:
        message = f"a container of function {event.function_name} was ended while it ran this input: {event.over_disk}"
        return Failure("disk", message, container_id=event.container_id)
    message = (
        f"the container ended while it ran this input ({event.ending}); "
        "os._exit, a fatal signal or a crash in native code ends a container (SIGTERM sent by its own code: with exit "
        "code 0); its log has what it printed last"
    )
    return Failure("crashed", message, container_id=event.container_id)


class CrashPolicy(Policy):
    """Decides crashes with a culprit but no retries left, and those with suspects only."""

    def attempt_lost(self, event: AttemptLost) -> Verdict | None:
        """See `Policy`."""
        if not event.has_crashed:
            return None
        if not event.is_only_input:
            if event.losses < LOSSES_MAX and event.is_repeatable:
                return Retry(0.0, is_counted=False, is_suspect=True)
            return Fail(crash_failure(event))
        if event.retries_used >= event.retries.max_retries:
            return Fail(crash_failure(event))
        return None
