"""Commits whose last page has not come, in memory: bounded by what they take there, and fair to those who make them."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from squall.protocol import volume as wire
from squall.protocol.errors import CONFLICT, EXHAUSTED, PlatformError
from squall.protocol.volume import COMMIT_CHANGES_MAX

if TYPE_CHECKING:
    from squall.server.model.clock import Clock

STAGED_BYTES_MAX = 2**31
"""Of all commits together that wait for a last page."""
SHARE_BYTES_MAX = 2**30
"""Of those that one caller makes: as much as the most changes of a commit take, as long as paths are what they are."""
STAGED_S = 600.0
"""So long after its last page a commit that got no further is forgotten."""
CHANGE_COST_BYTES = 400
"""What a change is in memory beside its strings."""


class Share(NamedTuple):
    """Whose a commit is."""

    environment: str
    owner: str
    """The app of a container, or the client outside; empty for nodes."""


class _Staged:
    """A commit whose last page has not come."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.changes: list[wire.VolumeChange] = []
        self.size_bytes = 0
        self.page = 0
        """That comes next."""
        self.at = 0.0


class Staging:
    """All of them. Where there is no room, those go whose caller has most; who made them begins again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._staged: dict[tuple[str, str], _Staged] = {}
        """By volume and commit, the one whose page came last at the end."""

    def add(self, share: Share, record: wire.VolumeCommit) -> list[wire.VolumeChange]:
        """Keep a page until the last one is there; all changes so far.

        Raises:
            PlatformError: `conflict` where pages before it are missing; `exhausted`.
        """
        now = self._clock.monotonic()
        for key in [key for key, one in self._staged.items() if now - one.at > STAGED_S]:
            del self._staged[key]
        key = record.volume_id, record.commit_id
        staged = self._staged.get(key) or _Staged(share)
        if record.page > staged.page:
            message = f"page {record.page} of commit {record.commit_id} came, and the server has {staged.page}"
            raise PlatformError(CONFLICT, f"VolumeCommit: {message}; begin again with page 0")
        if record.page == staged.page:
            if len(staged.changes) + len(record.changes) > COMMIT_CHANGES_MAX:
                raise _too_much(f"a commit has {COMMIT_CHANGES_MAX:,} changes at most")
            size_bytes = sum(map(_cost_of, record.changes))
            if staged.size_bytes + size_bytes > SHARE_BYTES_MAX:
                raise _too_much(f"the changes of a commit take {SHARE_BYTES_MAX >> 20} MiB of memory at most")
            self._make_room(key, staged.share, size_bytes)
            staged.changes += record.changes
            staged.size_bytes += size_bytes
            staged.page += 1
        staged.at = now
        self._staged.pop(key, None)
        self._staged[key] = staged
        return staged.changes

    def _make_room(self, key: tuple[str, str], share: Share, size_bytes: int) -> None:
        taken = Counter({share: size_bytes})
        for one in self._staged.values():
            taken[one.share] += one.size_bytes
        while taken[share] > SHARE_BYTES_MAX or taken.total() > STAGED_BYTES_MAX:
            most = share if taken[share] > SHARE_BYTES_MAX else taken.most_common(1)[0][0]
            others = (other for other, one in self._staged.items() if one.share == most and other != key)
            oldest = next(others, None)
            if oldest is None:
                raise _too_much("others have as much under way, and the server has no more room")
            taken[most] -= self._staged.pop(oldest).size_bytes

    def done(self, volume_id: str, commit_id: str) -> None:
        """It is made, or refused for good."""
        self._staged.pop((volume_id, commit_id), None)

    def forget(self, volume_id: str) -> None:
        """The volume is deleted."""
        for key in [key for key in self._staged if key[0] == volume_id]:
            del self._staged[key]


def _cost_of(change: wire.VolumeChange) -> int:
    blocks = sum(map(sys.getsizeof, change.blocks)) + sys.getsizeof(change.blocks)
    return CHANGE_COST_BYTES + sys.getsizeof(change.path) + sys.getsizeof(change.target) + blocks


def _too_much(why: str) -> PlatformError:
    return PlatformError(EXHAUSTED, f"VolumeCommit: {why}; commit fewer files at a time")
