"""What becomes of an attempt that did not succeed: one file each, asked in order, all pure.

The dispatcher tells what happened (`events.py` is the table of everything that can); the first policy with an opinion
decides. A new rule is a new file and a line in `default_policies`.
"""

from __future__ import annotations

from squall.server.policy.crash import CrashPolicy
from squall.server.policy.events import Policy
from squall.server.policy.lost import LostPolicy
from squall.server.policy.retries import RetriesPolicy
from squall.server.policy.startup import StartupPolicy


def default_policies() -> tuple[Policy, ...]:
    """The policies of every function, in the order they are asked."""
    return (CrashPolicy(), RetriesPolicy(), LostPolicy(), StartupPolicy())
