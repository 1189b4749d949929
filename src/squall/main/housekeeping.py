"""What is looked at now and then so that the data directory does not grow for ever: blobs that nothing names."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from squall.protocol.errors import PlatformError
from squall.server.model.blobs import BlobStore
from squall.server.model.store import Store

PERIOD_S = 3600.0

_log = logging.getLogger("squall.main")


@asynccontextmanager
async def housekeeping(store: Store, blobs: BlobStore, blob_bytes_max: int) -> AsyncIterator[None]:
    """Tidy up every hour while the context is open, the first time after an hour."""
    running = asyncio.ensure_future(_run(store, blobs, blob_bytes_max))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _run(store: Store, blobs: BlobStore, blob_bytes_max: int) -> None:
    while True:
        await asyncio.sleep(PERIOD_S)
        try:
            await tidy_up(store, blobs, blob_bytes_max)
        except PlatformError as error:
            _log.warning("cannot tidy up blobs: %s; trying again in an hour", error)
        except Exception:  # noqa: BLE001 - top of a loop
            _log.exception("cannot tidy up blobs; trying again in an hour")


async def tidy_up(store: Store, blobs: BlobStore, blob_bytes_max: int) -> None:
    """Once: delete half-made uploads, and what is over the budget and not named."""
    uploads = await blobs.sweep()
    freed_bytes = await blobs.evict(blob_bytes_max, await store.live_blobs())
    if uploads or freed_bytes:
        _log.info("deleted %d half-made uploads and %d bytes of old blobs", uploads, freed_bytes)
