"""A container that ended by itself while it ran inputs: whose fault was it?

With one input in the container the answer is likely, and not certain: the kernel's killer of processes takes innocent
ones, too. So the input is run again, alone in its container; when the third container ends under it as well it is
poison, and fails with what the last one ended with. That is apart from the user's retries, which are for what user code
raises: a function that has more of them may lose as many containers.

With several inputs in the container it is not known: all of them are queued again as suspects, which run alone
(`dispatch/function/quarantine.py`), so that the next crash names its input and the innocent ones succeed.
"""

from __future__ import annotations

from squall.protocol.call import Failure
from squall.protocol.function import RetryPolicy
from squall.server.policy.events import AttemptLost, Fail, Policy, Retry, Verdict

CRASHES_MAX = 3
"""Containers that may end under one input, alone in each; a function with more retries has as many attempts."""
CRASH_DELAY_S = 0.5
"""Before the third attempt, and doubled from then on. The second comes at once: mostly it succeeds."""
CRASH_DELAY_S_MAX = 30.0
LOSSES_MAX = 8


def crashes_max(retries: RetryPolicy) -> int:
    """How many containers may end under one input of a function with these retries."""
    return max(CRASHES_MAX, retries.max_retries + 1)


def crash_delay_s(crashes: int) -> float:
    """How long an input waits for its next container, when so many have ended under it before the last one."""
    return float(min(CRASH_DELAY_S * 2.0 ** min(crashes - 1, 20), CRASH_DELAY_S_MAX)) if crashes > 0 else 0.0


def crash_failure(event: AttemptLost) -> Failure:
    """What the caller is told; whoever passes it on names the function."""
    which = "" if event.index is None else f", input {event.index} of its call"
    times = _before(event.crashes, event.shared_crashes)
    if event.is_oom:
        message = (
            f"the container ran out of memory while it ran this input ({event.ending}{which}){times}; "
            "give the function more with memory=, or let it use less"
        )
        return Failure("oom", message, container_id=event.container_id)
    if event.over_disk:
        message = f"the container was ended while it ran this input{which}: {event.over_disk}"
        return Failure("disk", message, container_id=event.container_id)
    message = (
        f"the container ended while it ran this input ({event.ending}{which}){times}; "
        "os._exit, a fatal signal or a crash in native code ends a container (SIGTERM sent by its own code: with exit "
        "code 0); its log has what it printed last"
    )
    return Failure("crashed", message, container_id=event.container_id)


def _before(alone: int, shared: int) -> str:
    """How many containers ended under the input before: innocent ones too, where one ran several."""
    if not alone + shared:
        return ""
    others = "1 other" if alone + shared == 1 else f"{alone + shared} others"
    which = "" if not shared else ", which held more inputs" if not alone else f", {shared} of which held more inputs"
    return f"; so did {others} before it{which}"


class CrashPolicy(Policy):
    """Decides every crash."""

    def attempt_lost(self, event: AttemptLost) -> Verdict | None:
        """See `Policy`."""
        if not event.has_crashed:
            return None
        if not event.is_only_input:
            may_repeat = event.losses < LOSSES_MAX and event.is_repeatable
            return Retry(0.0, is_counted=False, is_suspect=True) if may_repeat else Fail(crash_failure(event))
        # What it wrote is measured, and would be written again: only who asks for retries gets them.
        limit = event.retries.max_retries + 1 if event.over_disk else crashes_max(event.retries)
        if event.crashes + 1 < limit and event.is_repeatable:
            return Retry(crash_delay_s(event.crashes), is_counted=False, is_suspect=True)
        return Fail(crash_failure(event))
