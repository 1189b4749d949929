"""Owners of background activities, and what they log."""

from __future__ import annotations

import asyncio
import errno

import pytest

from squall.protocol import task_set
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


async def test_an_activity_that_is_kept_begins_again_whatever_it_fails_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(task_set, "AGAIN_S", 0.001)
    failures: list[Exception] = [ValueError("a mistake"), OSError(errno.EMFILE, "too many open files")]
    goes_on = asyncio.Event()

    async def watch() -> None:
        if failures:
            raise failures.pop()
        goes_on.set()
        await asyncio.Event().wait()

    tasks = TaskSet()
    watching = tasks.keep(watch)

    await asyncio.wait_for(goes_on.wait(), 10)

    assert not watching.done()
    assert [(one.levelname, one.exc_info is not None) for one in caplog.records] == [
        ("WARNING", False),
        ("ERROR", True),
    ]
    assert "watch" in caplog.messages[0]
    assert "too many open files; trying again" in caplog.messages[0]
    await tasks.close()
    assert watching.cancelled()


async def test_an_activity_that_has_come_to_its_end_is_not_begun_again() -> None:
    count = 0

    async def once() -> None:
        nonlocal count
        count += 1

    await TaskSet().keep(once)

    assert count == 1
