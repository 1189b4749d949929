"""Whatever dies, and whenever: nothing is lost and nothing is there twice. A failure names its seed."""

from __future__ import annotations

import random

import pytest

from squall.server.model.config import ServerConfig
from tests.server.doubles import staged
from tests.simulation.chaos import SlowDisk, World

STEPS = 200
SEEDS = 6
"""In `make test-fast`; the others are for those who have the time."""
SEEDS_LONG = 60
SEEDS_SLOW = 3_000
SEEDS_AT_ONCE = 100


async def live_through(seed: int) -> None:
    """One world from its beginning to its end."""
    rng = random.Random(seed)
    config = ServerConfig(app_grace_s=1e6, call_grace_s=1e6)
    async with staged(config, store=SlowDisk(rng)) as stage:
        world = World(stage, rng)
        await world.begin()
        try:
            for _ in range(STEPS):
                await world.step()
            await world.finish()
            world.check()
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        finally:
            await world.end()


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_nothing_is_lost_or_doubled_whatever_dies(seed: int) -> None:
    await live_through(seed)


@pytest.mark.long
@pytest.mark.parametrize("first", range(SEEDS, SEEDS_LONG, 18))
async def test_nothing_is_lost_or_doubled_in_more_worlds(first: int) -> None:
    for seed in range(first, first + 18):
        await live_through(seed)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("first", range(SEEDS_LONG, SEEDS_SLOW, SEEDS_AT_ONCE))
async def test_nothing_is_lost_or_doubled_in_thousands_of_worlds(first: int) -> None:
    for seed in range(first, first + SEEDS_AT_ONCE):
        await live_through(seed)
