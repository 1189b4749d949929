"""What is deleted aside."""

from __future__ import annotations

import asyncio
from pathlib import Path

from squall.agent.grave import Grave


async def test_whoever_deletes_goes_on_when_nothing_could_be_moved_or_seen(tmp_path: Path) -> None:
    grave = Grave(tmp_path)
    grave.prepare()
    digging = asyncio.create_task(grave.run())
    await grave.wait_empty(10.0)
    top, first, second = tmp_path / "removed", tmp_path / "first", tmp_path / "second"
    top.rmdir()
    first.mkdir()

    grave.bury(first)
    await grave.wait_empty(10.0)
    assert not first.exists()

    top.mkdir()
    second.mkdir()
    grave.bury(second)
    await grave.wait_empty(10.0)
    assert not second.exists()
    assert not list(top.iterdir())
    digging.cancel()
