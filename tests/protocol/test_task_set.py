"""Owners of background activities, and what they log."""

from __future__ import annotations

import asyncio

import pytest

from squall.protocol.errors import INVALID, PlatformError
from squall.protocol.task_set import TaskSet


@pytest.mark.parametrize(
    ("error", "level", "has_traceback"),
    [(PlatformError(INVALID, "step 2 failed"), "INFO", False), (ValueError("a mistake"), "ERROR", True)],
)
async def test_only_mistakes_are_logged_with_where_they_were_raised(
    caplog: pytest.LogCaptureFixture, error: Exception, level: str, has_traceback: bool
) -> None:
    async def fail() -> None:
        raise error

    caplog.set_level("INFO", "squall")
    tasks = TaskSet()

    await asyncio.wait([tasks.start(fail())])
    await asyncio.sleep(0)

    (logged,) = caplog.records
    assert (logged.levelname, logged.exc_info is not None) == (level, has_traceback)
    await tasks.close()
