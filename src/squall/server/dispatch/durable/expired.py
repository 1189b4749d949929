"""Why a call is not known: its outputs have expired, or it never was. Nothing is kept to tell them apart.

A call's id says when it was made. Outputs are kept at least so long, and so one that was made later is known if it ever
was.
"""

from __future__ import annotations

from squall.protocol.call_id import is_marked
from squall.protocol.errors import EXPIRED, NOT_FOUND, PlatformError
from squall.protocol.ids import born_at, is_id

FIRST_AT = 1_767_225_600.0
"""The first of January 2026: no call is older than Squall."""
DAY_S = 24 * 3600.0


def why_unknown(call_id: str, now: float, kept_s: float) -> PlatformError:
    """The error for who asks about a call that the store does not know; times in seconds since 1970."""
    if is_marked(call_id):
        message = "outputs of calls that were not spawned are for their caller alone, and not kept"
        return PlatformError(NOT_FOUND, f"no call {call_id[:80]}: {message}; use spawn()")
    try:
        made_at = born_at(call_id)
    except ValueError:
        made_at = now
    if not (is_id(call_id, "fc") and FIRST_AT <= made_at < now - kept_s):
        return PlatformError(NOT_FOUND, f"no call {call_id[:80]}: it never was one of this server")
    age = f"it was made {(now - made_at) / DAY_S:.0f} days ago, and outputs are kept for {kept_s / DAY_S:.0f} days"
    return PlatformError(EXPIRED, f"the outputs of call {call_id} have expired: {age}; get them earlier, or store them")
