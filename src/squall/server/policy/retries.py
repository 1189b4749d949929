"""The user's retries: extra attempts after an exception or a timeout, with backoff. Crashes are `crash.py`'s."""

from __future__ import annotations

from squall.protocol.function import RetryPolicy
from squall.server.policy.events import AttemptFailed, Fail, Policy, Retry, Verdict

RETRYABLE = frozenset({"user", "timed_out"})


def backoff_s(retries: RetryPolicy, retries_used: int) -> float:
    """The delay before the next attempt, when so many retries were used before."""
    try:
        delay_s = retries.initial_delay_s * retries.backoff_coefficient**retries_used
    except OverflowError:
        return retries.max_delay_s
    return max(0.0, min(delay_s, retries.max_delay_s))


class RetriesPolicy(Policy):
    """Counts attempts that failed in the user's code; cancelled ones and hopeless ones are not repeated."""

    def attempt_failed(self, event: AttemptFailed) -> Verdict | None:
        """See `Policy`."""
        if event.kind in RETRYABLE and event.retries_used < event.retries.max_retries:
            return Retry(backoff_s(event.retries, event.retries_used), is_counted=True)
        return Fail()
