"""Whose turn it is in a store: any number of nodes put images, or one removes garbage.

    busy/put-<token>      a node puts an image now
    busy/sweep-<token>    garbage is being removed

Each side first puts its own mark and then looks for those of the other. Where all can read at once what one has put (a
bucket, a folder of this machine), at least one of two that come together sees the other's mark; on a file server the
sweep lets some time pass in between. Who puts gives way and tries again; the sweep waits for those that had begun. A
thread puts the mark anew each minute, and half an hour later it counts for nothing: such is left by somebody who was
killed. Who could not put it anew, or was stopped, has lost the turn long before, and finds that out before the next
step.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable

from squall.agent.image.block.errors import BlockError
from squall.agent.image.block.store import BUSY, BlockStore

PUT, SWEEP = "put", "sweep"
RENEW_S = 60.0
VALID_S = 300.0
"""A turn lasts so long after its mark was last put: far less than others wait."""
DEAD_S = 1800.0
"""A mark that is older, by the store's clock, was left by somebody who is gone."""
WAIT_S = 900.0
_POLL_S = 2.0

_log = logging.getLogger("squall.agent.image.block.turn")


class NotNow(BlockError):
    """Somebody else is at work in this store."""


def _elapsed() -> float:
    # Unlike the monotonic clock it also counts while the machine sleeps.
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Turn:
    """One turn. Enter to get it; leaving gives it back."""

    def __init__(
        self,
        store: BlockStore,
        kind: str,
        *,
        elapsed: Callable[[], float] = _elapsed,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.key = f"{BUSY}/{kind}-{secrets.token_hex(8)}"
        self.begun_at = 0.0
        """By the store's clock, seconds since 1970."""
        self._store = store
        self._kind = kind
        self._elapsed = elapsed
        self._wait = wait
        self._is_over = threading.Event()
        self._renewed_s = 0.0
        self._begun_s = 0.0
        self._thread = threading.Thread(target=self._renew_on, name=f"turn-{kind}", daemon=True)

    def __enter__(self) -> Turn:
        """Wait for those who put.

        Raises:
            NotNow: a sweep is at work, or somebody puts for too long.
            BlockError: the store does not say.
        """
        self._begun_s = self._renewed_s = self._elapsed()
        self._put()
        try:
            self._thread.start()
            if self._kind == SWEEP and self._store.settle_s:
                self._wait(self._store.settle_s)
            self.begun_at = self._others_and_now()[1]
            self._wait_for_others()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def check(self) -> None:
        """Return if it is still this one's turn.

        Raises:
            NotNow: it was lost.
        """
        self._check(self._elapsed())

    def _check(self, now_s: float) -> None:
        silent_s = now_s - self._renewed_s
        if silent_s >= VALID_S:
            raise NotNow(
                f"the turn in {self._store.name} was lost: its mark was not put for {silent_s:.0f} s; try again"
            )

    def _put(self) -> None:
        # Before it is sent: when it arrives is known only to the store.
        asked_s = self._elapsed()
        # What was lost stays lost: others may have had their turn.
        self._check(asked_s)
        self._store.put_mark(self.key)
        self._renewed_s = asked_s

    def _renew_on(self) -> None:
        while not self._is_over.wait(RENEW_S):
            try:
                self._put()
            except NotNow:
                return
            except BlockError as error:
                _log.warning("%s", error)

    def _wait_for_others(self) -> None:
        deadline_s = self._elapsed() + WAIT_S
        while True:
            others = self._others_and_now()[0]
            sweeps = [key for key in others if key.startswith(f"{BUSY}/{SWEEP}-")]
            if sweeps:
                raise NotNow(
                    f"garbage is being removed from {self._store.name} ({sweeps[0]}); try again when it is done"
                )
            if not others or self._kind == PUT:
                return
            if self._elapsed() > deadline_s:
                raise NotNow(f"an image is being put into {self._store.name} ({others[0]}); try again later")
            self._wait(_POLL_S)

    def _others_and_now(self) -> tuple[list[str], float]:
        """The marks of others that count, and what time it is at the store."""
        marks = {found.key: found.modified_at for found in self._store.list(BUSY)}
        if self.key not in marks:
            raise NotNow(f"the turn in {self._store.name} was lost: its mark {self.key} is gone")
        now = marks.pop(self.key)
        return sorted(key for key, put_at in marks.items() if now - put_at < DEAD_S), now

    def _end(self) -> None:
        self._is_over.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            self._store.remove([self.key])
        except BlockError as error:
            _log.warning("%s; it counts for nothing in %.0f minutes", error, DEAD_S / 60)
