"""How much of the blob store the containers of an app may fill.

What a container puts stays until nobody names it any more and it is old, so a budget of each app bounds what can lie
there; its children, of which there may be a thousand, count with it. An app over its budget first loses what nobody
names: then results that were read give way to new ones, and only who really holds more than its budget, or puts faster
than anybody can read, is refused.

In memory only: after a restart what lies there counts for nobody, and goes as everything old does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager

from squall.protocol.errors import EXHAUSTED, PlatformError
from squall.server.dispatch.function.call_table import CallTable
from squall.server.model.blobs import BlobStore
from squall.server.model.clock import Clock
from squall.server.model.store import Store

AGE_MIN_S = 600.0
"""What was put, or asked for, a shorter time ago stays: whoever put it is about to name it."""
EVICT_EVERY_S = 10.0
"""Looking at all that is named costs a query."""
AT_ONCE = 500
"""Deleted in one go: commits of volumes wait for it."""
BLOB_COST_BYTES = 4_096
"""What a blob counts for at least: small ones use up inodes."""

_log = logging.getLogger("squall.server.dispatch.client.blob_budget")


class _Account:
    """What containers of one app have put."""

    def __init__(self) -> None:
        self.blobs: dict[str, tuple[int, float]] = {}
        """Size and time of each, the one put or asked for longest ago first."""
        self.total_bytes = 0
        self.evicted_at = float("-inf")
        self.lock = asyncio.Lock()

    def size_of(self, sha256: str) -> int:
        return self.blobs.get(sha256, (0, 0.0))[0]

    def add(self, sha256: str, size_bytes: int, now: float) -> None:
        self.remove(sha256)
        self.blobs[sha256] = (size_bytes, now)
        self.total_bytes += size_bytes

    def remove(self, sha256: str) -> None:
        size_bytes, _ = self.blobs.pop(sha256, (0, 0.0))
        self.total_bytes -= size_bytes


class BlobBudgets:
    """The accounts of all apps."""

    def __init__(
        self,
        *,
        store: Store,
        blobs: BlobStore,
        calls: CallTable,
        clock: Clock,
        bytes_max: int,
        alone: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        """`alone` keeps commits of volumes off: what nobody names when it is looked for, nobody names meanwhile."""
        self._alone = alone
        self._store = store
        self._blobs = blobs
        self._calls = calls
        self._clock = clock
        self._bytes_max = bytes_max
        self._accounts: dict[str, _Account] = {}

    async def admit(self, app_id: str, sha256: str, size_bytes: int) -> None:
        """A container of this app is about to put (more of) a blob of that size.

        Raises:
            PlatformError: `exhausted`; it says how much lies there and what to do.
        """
        account = self._accounts.setdefault(app_id, _Account())
        cost_bytes = max(size_bytes, BLOB_COST_BYTES)
        # Not whether it is known: a size that grows from one chunk to the next is put in full.
        if cost_bytes <= account.size_of(sha256):
            return
        if account.total_bytes - account.size_of(sha256) + cost_bytes > self._bytes_max:
            await self._evict(account)
        if account.total_bytes - account.size_of(sha256) + cost_bytes > self._bytes_max:
            limit, there = self._bytes_max >> 20, account.total_bytes >> 20
            raise PlatformError(
                EXHAUSTED,
                f"BlobPut: large values of this app, with those started from it, use {there} MiB of the server's disk, "
                f"at most {limit} MiB may; read results as they come, return less at a time, or keep large data "
                "elsewhere",
            )
        account.add(sha256, cost_bytes, self._clock.monotonic())

    def named(self, sha256s: Iterable[str]) -> None:
        """These are in a volume now, and count for the app no more: they stay when it is gone."""
        for account in self._accounts.values():
            for sha256 in sha256s:
                account.remove(sha256)

    def touch(self, sha256s: Iterable[str]) -> None:
        """Somebody asked whether these are here, and may name them next."""
        now = self._clock.monotonic()
        for account in self._accounts.values():
            for sha256 in sha256s:
                if sha256 in account.blobs:
                    account.add(sha256, account.blobs[sha256][0], now)

    async def forget(self, app_id: str) -> None:
        """Its containers are gone: delete what they put and nobody names."""
        account = self._accounts.get(app_id)
        if account is not None:
            await self._evict(account, is_forced=True)
            if not account.blobs:
                del self._accounts[app_id]

    async def tick(self, living: Iterable[str]) -> None:
        """Now and then: apps that are gone give back what they had."""
        for app_id in self._accounts.keys() - set(living):
            await self.forget(app_id)

    async def _evict(self, account: _Account, *, is_forced: bool = False) -> None:
        """Delete the oldest of what nobody names, down to three quarters of the budget; forced: all of it."""
        async with account.lock:
            now = self._clock.monotonic()
            if now - account.evicted_at < EVICT_EVERY_S:
                return
            account.evicted_at = now
            goal = 0 if is_forced else self._bytes_max * 3 // 4
            old = [sha256 for sha256, (_, at) in account.blobs.items() if now - at >= AGE_MIN_S]
            if not old:
                return
            deleted = 0
            for start in range(0, len(old), AT_ONCE):
                if account.total_bytes > goal:
                    deleted += await self._delete(account, old[start : start + AT_ONCE], goal, is_forced=is_forced)
        if deleted:
            _log.info("deleted %d blobs that containers put and nobody names", deleted)

    async def _delete(self, account: _Account, old: Sequence[str], goal: int, *, is_forced: bool) -> int:
        deleted = 0
        async with self._alone():
            stored = await self._store.live_blobs()
            named = self._calls.named_blobs()
            for sha256 in old:
                if account.total_bytes <= goal:
                    break
                is_named = sha256 in stored or sha256 in named
                # Somebody may have been told that it is here, and not send it.
                if not is_named and await self._blobs.delete_untold(sha256):
                    deleted += 1
                    account.remove(sha256)
                elif is_forced:
                    account.remove(sha256)
        return deleted
