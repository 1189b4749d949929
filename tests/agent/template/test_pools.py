"""What is made ahead, when, and when it goes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from squall.agent.template import pools as pools_module
from squall.agent.template.cells import Cells
from squall.agent.template.pools import CELLS_NODE_MAX, PARKED_NODE_MAX, Pools
from squall.agent.template.reserve import Cell, Reserve
from squall.agent.template.template import Template
from squall.protocol.errors import PlatformError
from squall.runtime.errors import TemplateUnfit
from squall.runtime.fake import FakeMachine, FakeRuntime
from tests.agent.parts import until
from tests.agent.template.parts import make_cell, make_template, reserve_of


class Made:
    """Cells that are made at once; a `Cells` of its own."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.discarded: list[Cell] = []
        self.now = self.most_at_once = self.made = 0
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.may_park = asyncio.Event()
        self.may_park.set()

    async def make(self, reserve: Reserve, *, is_parked: bool) -> Cell:
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        try:
            await asyncio.sleep(0)
            await self.may_go_on.wait()
            if self.failures:
                raise self.failures.pop(0)
            self.made += 1
            return make_cell(100 + self.made, is_parked=is_parked)
        finally:
            self.now -= 1

    async def park(self, cell: Cell, reserve: Reserve) -> None:
        await self.may_park.wait()
        cell.is_parked = True

    async def discard(self, cell: Cell, failure: BaseException | None = None) -> None:
        self.discarded.append(cell)


class Room:
    """Pools with a clock."""

    def __init__(self) -> None:
        self.made = Made()
        self.clock = 0.0
        self.failed: list[Template] = []
        self.runtime = FakeRuntime(FakeMachine())
        self.pools = Pools(
            cast(Cells, self.made),
            self.runtime,
            lambda: self.clock,
            lambda template, error, began_at: self.failed.append(template),
        )
        self.templates: list[Template] = []

    def template(self, number: int, starts: int, used_at: float = 0.0) -> Template:
        template = make_template(number, used_at=used_at)
        for _ in range(starts):
            reserve_of(template).demand.add(self.clock)
        self.templates.append(template)
        return template

    def start(self) -> asyncio.Future[Any]:
        self.pools.wake()
        return asyncio.ensure_future(self.pools.run(lambda: self.templates, lambda: None))


async def test_as_many_as_are_wanted_are_made_a_few_at_a_time() -> None:
    room = Room()
    template = room.template(1, starts=8)
    running = room.start()
    await until(lambda: not room.pools.wanted(room.templates))
    running.cancel()

    targets = reserve_of(template).demand.targets(template.kind, 0.0)
    assert (len(template.cells), len(template.parked)) == (targets.cell_count, targets.parked_count)
    assert all(cell.is_parked for cell in template.parked)
    assert room.made.most_at_once <= pools_module.AT_ONCE


async def test_nothing_is_made_while_containers_start_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools_module, "QUIET_S", 0.2)
    room = Room()
    template = room.template(1, starts=2)
    with room.pools.starting():
        running = room.start()
        await asyncio.sleep(0.05)
        assert not template.cells
        assert not template.parked
        await until(lambda: template.parked)
    running.cancel()


async def test_what_has_just_started_has_the_processors_for_a_moment() -> None:
    room = Room()
    template = room.template(1, starts=2)
    with room.pools.starting():
        pass
    running = room.start()
    await asyncio.sleep(pools_module.CALM_S / 2)

    assert not template.cells
    assert not template.parked
    room.clock += pools_module.CALM_S
    await until(lambda: template.parked)
    running.cancel()


async def test_clones_of_the_template_used_last_come_first_and_a_node_has_bounds() -> None:
    room = Room()
    templates = [room.template(number, starts=300, used_at=number) for number in range(30)]
    assert room.pools.wanted(templates) == [(reserve_of(templates[-1]), True)] * 2

    running = room.start()
    await until(lambda: not room.pools.wanted(room.templates))
    running.cancel()

    assert sum(len(one.parked) for one in templates) == PARKED_NODE_MAX
    assert sum(len(one.cells) for one in templates) == CELLS_NODE_MAX
    assert len(templates[-1].parked) > 0
    assert len(templates[0].parked) == 0


async def test_one_function_has_at_most_half_of_what_the_others_leave() -> None:
    room = Room()
    greedy = [room.template(number, starts=300) for number in (1, 2, 3)]
    running = room.start()
    await until(lambda: not room.pools.wanted(room.templates))
    assert max(len(one.cells) for one in greedy) == CELLS_NODE_MAX // 2
    before = sum(len(one.cells) for one in greedy)
    assert before <= CELLS_NODE_MAX * 7 // 8

    late = room.template(4, starts=10, used_at=1.0)
    room.pools.wake()
    await until(lambda: len(late.cells) == 10)

    assert sum(len(one.cells) for one in greedy) == before
    running.cancel()


async def test_a_failure_is_told_where_it_is_the_templates_and_tried_again_later() -> None:
    room = Room()
    unfit, unlucky = room.template(1, starts=1), room.template(2, starts=1, used_at=1.0)
    room.made.failures = [PlatformError("unavailable", "the disk is full"), TemplateUnfit("its child did not join")]
    running = room.start()
    await until(lambda: not room.made.failures)
    await until(lambda: not room.pools.wanted(room.templates))

    assert room.failed == [unfit]
    assert not unlucky.parked
    room.clock += pools_module.REST_S
    room.pools.wake()
    await until(lambda: unlucky.parked and unfit.parked)
    running.cancel()


async def test_a_failure_makes_no_longer_rest_shorter() -> None:
    room = Room()
    template = room.template(1, starts=1)
    room.made.failures = [PlatformError("unavailable", "the disk is full")]
    room.made.may_go_on.clear()
    running = room.start()
    await until(lambda: room.made.now)
    # What was made ahead has ended for the third time, while this is being made.
    template.rest_count = 2
    room.pools.rest(template)
    room.made.may_go_on.set()
    await until(lambda: not room.made.failures)

    assert template.pools_rest_until == room.clock + 4 * pools_module.REST_S
    running.cancel()


async def test_what_is_made_for_a_template_that_was_dropped_meanwhile_is_thrown_away() -> None:
    room = Room()
    template = room.template(1, starts=1)
    room.made.may_go_on.clear()
    running = room.start()
    await until(lambda: room.made.now)
    template.state = "dropped"
    room.made.may_go_on.set()

    await until(lambda: room.made.discarded)
    running.cancel()
    assert not template.parked


async def test_a_cell_that_is_forked_into_is_thrown_away_when_another_one_ends_it_all() -> None:
    room = Room()
    template = room.template(1, starts=8)
    cell = make_cell(1)
    reserve_of(template).put(cell)
    room.made.may_park.clear()
    room.made.failures = [ValueError("a mistake of ours")]
    running = room.start()

    await asyncio.wait([running], timeout=10)

    assert isinstance(running.exception(), ExceptionGroup)
    assert room.made.discarded == [cell]


async def test_what_is_not_wanted_any_more_goes_the_oldest_first() -> None:
    room = Room()
    template = room.template(1, starts=1)
    old, new = make_cell(1, since=0.0), make_cell(2, since=95.0)
    for cell in (old, new, make_cell(3, since=95.0), make_cell(4, is_parked=True)):
        reserve_of(template).put(cell)
    room.clock = 100.0

    await room.pools.upkeep([template])
    assert room.made.discarded == [old]
    room.clock = 10_000.0
    await room.pools.upkeep([template])

    assert not template.cells
    assert not template.parked
    assert len(room.made.discarded) == 4
    assert not template.reserves, "who wants nothing is not gone through any more"
