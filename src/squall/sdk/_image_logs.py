"""`image.logs`: what the steps of an image printed when they were built."""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator
from typing import Literal, cast

from squall.exception import InvalidError
from squall.protocol.image_catalog import ImageLogRead
from squall.protocol.log import LogBatch
from squall.sdk import _client
from squall.sdk._facade import blocking_iterator
from squall.sdk.types import LogEntry


class ImageLogs:
    """The build log of one image. Steps taken from the cache have the lines of the build that made them."""

    def __init__(self, image_id: str) -> None:
        self._image_id = image_id

    @blocking_iterator
    async def fetch(self, layers: int | None = 1) -> AsyncGenerator[LogEntry, None]:
        """The log of the last so many layers; None for all.

        Raises:
            InvalidError: not a number of layers.
            NotFoundError: no node that is connected has built the image.
        """
        if layers is not None and layers < 1:
            raise InvalidError(f"Image.logs.fetch(layers={layers}): give a number from 1 on, or None for all layers")
        async for entry in self._read(ImageLogRead(self._image_id, layers=layers or 0)):
            yield entry

    @blocking_iterator
    async def tail(self, entries: int = 100) -> AsyncGenerator[LogEntry, None]:
        """The last entries of the whole log.

        Raises:
            InvalidError: not a number of entries.
            NotFoundError: as `fetch`.
        """
        if entries < 0:
            raise InvalidError(f"Image.logs.tail(entries={entries}): give a number from 0 on")
        async for entry in self._read(ImageLogRead(self._image_id, tail=entries)):
            yield entry

    async def _read(self, record: ImageLogRead) -> AsyncGenerator[LogEntry, None]:
        client = _client.current()
        await client.connect()
        async for batch, _ in client.stream("ImageLogRead", record).items(LogBatch):
            for entry in batch.entries:
                at = datetime.datetime.fromtimestamp(entry.at, datetime.timezone.utc)
                source = cast("Literal['stdout', 'stderr', 'system']", entry.source)
                yield LogEntry(entry.text, at, source, self._image_id)
