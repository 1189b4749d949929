"""`image.logs`, blocking and in an event loop."""

from __future__ import annotations

import datetime

import pytest

from squall.exception import InvalidError
from squall.protocol import log
from squall.protocol.image_catalog import ImageLogRead
from squall.sdk.image import Image
from squall.sdk.types import LogEntry
from tests.sdk.double import ServerDouble

IMAGE_ID = "im-0123456789abcdef"


def test_log_of_layers_is_fetched(server: ServerDouble) -> None:
    server.log_lines = [log.LogEntry(90.5, "system", "step 1"), log.LogEntry(91.0, "stdout", "line")]
    image = Image.from_id(IMAGE_ID)

    entries = list(image.logs.fetch())
    list(image.logs.fetch(layers=3))
    list(image.logs.fetch(None))
    list(image.logs.tail())

    at = datetime.datetime(1970, 1, 1, 0, 1, 30, 500_000, datetime.UTC)
    assert entries[0] == LogEntry("step 1", at, "system", IMAGE_ID, [])
    assert [entry.message for entry in entries] == ["step 1", "line"]
    assert server.image_logs_read == [
        ImageLogRead(IMAGE_ID, layers=1),
        ImageLogRead(IMAGE_ID, layers=3),
        ImageLogRead(IMAGE_ID),
        ImageLogRead(IMAGE_ID, tail=100),
    ]


async def test_log_is_fetched_in_an_event_loop(server: ServerDouble) -> None:
    server.log_lines = [log.LogEntry(1.0, "stdout", "line")]

    assert [entry.message async for entry in Image.from_id(IMAGE_ID).logs.tail.aio(7)] == ["line"]
    assert server.image_logs_read == [ImageLogRead(IMAGE_ID, tail=7)]


def test_wrong_counts_and_images_that_are_not_built_are_refused(server: ServerDouble) -> None:
    logs = Image.from_id(IMAGE_ID).logs

    with pytest.raises(InvalidError, match="give a number from 1 on, or None"):
        list(logs.fetch(layers=0))
    with pytest.raises(InvalidError, match="give a number from 0 on"):
        list(logs.tail(-1))
    with pytest.raises(InvalidError, match="build it with"):
        _ = Image.debian_slim().logs
