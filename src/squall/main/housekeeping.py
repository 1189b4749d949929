"""What is looked at now and then so that the data directory does not grow for ever: blobs, mounts and secrets
that nothing names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from squall.protocol.errors import PlatformError
from squall.server.dispatch import AgeClock, SystemClock
from squall.server.model.blobs import BlobStore
from squall.server.model.store import Store

PERIOD_S = 3600.0
MOUNTS_UNUSED_S = 7 * 24 * 3600.0
"""A program that runs for days names a mount later than it made it."""

SECRETS_UNUSED_S = 7 * 24 * 3600.0
"""Of those without a name: as long as a call of an app that has ended can be run again."""

_log = logging.getLogger("squall.main")


@asynccontextmanager
async def housekeeping(
    store: Store, blobs: BlobStore, blob_bytes_max: int, now: Callable[[], float] | None = None
) -> AsyncIterator[None]:
    """Tidy up every hour while the context is open, the first time after an hour."""
    running = asyncio.ensure_future(_run(store, blobs, blob_bytes_max, now or AgeClock(SystemClock()).now))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _run(store: Store, blobs: BlobStore, blob_bytes_max: int, now: Callable[[], float]) -> None:
    while True:
        await asyncio.sleep(PERIOD_S)
        try:
            await tidy_up(store, blobs, blob_bytes_max, now())
        except PlatformError as error:
            _log.warning("cannot tidy up: %s; trying again in an hour", error)
        except Exception:  # noqa: BLE001 - top of a loop
            _log.exception("cannot tidy up; trying again in an hour")


async def tidy_up(store: Store, blobs: BlobStore, blob_bytes_max: int, now: float) -> None:
    """Once: forget mounts that are not used, delete half-made uploads, and what is over the budget and not named."""
    mounts = await store.prune_mounts(now - MOUNTS_UNUSED_S)
    secrets = await store.secrets.prune(now - SECRETS_UNUSED_S)
    if mounts:
        _log.info("forgot %d mounts that no function names", mounts)
    if secrets:
        _log.info("forgot %d secrets that nothing names", secrets)
    uploads = await blobs.sweep()
    freed_bytes = await blobs.evict(blob_bytes_max, await store.live_blobs())
    if uploads or freed_bytes:
        _log.info("deleted %d half-made uploads and %d bytes of old blobs", uploads, freed_bytes)
