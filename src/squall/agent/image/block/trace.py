"""Which parts of an image's layers its first start wanted, in which order: what the next node fetches ahead."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

from squall.agent.image.block.errors import BlockError

PARTS_MAX = 100_000
"""Remembered of one start; 12 GiB are no prefetch any more."""

Wanted = tuple[int, int, int]
"""Which layer of the image, its first part, and the one after the last."""


class Recorder:
    """Notes what is wanted first. Any number of threads may use one."""

    def __init__(self, digests: Sequence[str]) -> None:
        """The layers of the image, bottom first."""
        self._digests = tuple(digests)
        self._number = {digest: number for number, digest in enumerate(digests)}
        self._lock = threading.Lock()
        # In the order of being wanted.
        self._seen: dict[tuple[int, int], None] = {}

    def note(self, digest: str, first: int, end: int) -> None:
        """These parts of this layer are wanted."""
        number = self._number.get(digest)
        if number is None or len(self._seen) >= PARTS_MAX:
            return
        with self._lock:
            for part in range(first, end):
                self._seen.setdefault((number, part))

    def to_bytes(self) -> bytes:
        """What was noted; empty when that is nothing."""
        with self._lock:
            seen = list(self._seen)
        runs: list[list[int]] = []
        for number, part in seen:
            if runs and runs[-1][0] == number and runs[-1][2] == part:
                runs[-1][2] += 1
            else:
                runs.append([number, part, part + 1])
        return json.dumps({"layers": self._digests, "wanted": runs}, separators=(",", ":")).encode() if runs else b""


def parse_trace(data: bytes, digests: Sequence[str]) -> list[Wanted]:
    """What was noted of an image of these layers; nothing when it is of others.

    Raises:
        BlockError: it is no trace.
    """
    try:
        values = json.loads(data)
        if tuple(values["layers"]) != tuple(digests):
            return []
        runs = [(int(number), int(first), int(end)) for number, first, end in values["wanted"]]
    except (ValueError, KeyError, TypeError) as error:
        raise BlockError(f"it is no trace ({error!r})") from error
    if len(runs) > PARTS_MAX or not all(0 <= n < len(digests) and 0 <= first < end for n, first, end in runs):
        raise BlockError("it is no trace: it names what cannot be")
    return runs
