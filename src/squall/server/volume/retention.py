"""Which versions of a volume stay."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from squall.protocol.volume import VolumeRetention
from squall.server.model.volume import BACKGROUND, StoredVolumeVersion

DAY_S = 86_400.0
HOUR_S = 3_600.0
DEFAULT = VolumeRetention()


def to_forget(
    versions: Iterable[StoredVolumeVersion], retention: VolumeRetention, now: float, held: Collection[int] = ()
) -> frozenset[int]:
    """The numbers of those that may go. The newest stays always, and what is held.

    Commits that nobody asked for come every few seconds: of those that are older than an hour, the last of each hour
    stands for all.
    """
    newest_first = sorted(versions, key=lambda one: -one.number)
    gone: set[int] = set()
    hours: set[int] = set()
    for place, one in enumerate(newest_first):
        age_s = now - one.created_at
        is_last_of_hour = int(one.created_at // HOUR_S) not in hours
        hours.add(int(one.created_at // HOUR_S))
        is_old = place >= retention.count and age_s > retention.days * DAY_S
        is_thinned = one.cause.startswith(BACKGROUND) and age_s > HOUR_S and not is_last_of_hour
        if place and one.number not in held and (is_old or is_thinned):
            gone.add(one.number)
    return frozenset(gone)


def problem(retention: VolumeRetention) -> str:
    """What is wrong with it; empty when nothing is."""
    if retention.count < 1:
        return "one version at least stays: count is from 1 up"
    return "" if 0 <= retention.days < math.inf else "days are counted from 0 up"
