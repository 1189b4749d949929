"""Runs the tests of sockets and pipes on both loops, which differ in what they do to descriptors and transports; and
what tests of whole agents begin with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

from squall.agent.template import pools, roster, wanted
from tests.agent.world import World

BOTH = ("test_relay.py", "test_logs.py")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop, as in the programs, and the standard one."""
    if item.path.name in BOTH:
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def world(make_data_dir: Callable[[], Path]) -> AsyncIterator[World]:
    layer = make_data_dir() / "fs"
    (layer / "usr" / "bin").mkdir(parents=True)
    made = World(make_data_dir(), layer)
    yield made
    await made.machine.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has got going is followed by its template at once."""
    monkeypatch.setattr(wanted, "SETTLE_S", 0.0)
    monkeypatch.setattr(roster, "END_AGAIN_S", 0.05)


@pytest.fixture
def no_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made ahead."""
    monkeypatch.setattr(pools, "AT_ONCE", 0)
