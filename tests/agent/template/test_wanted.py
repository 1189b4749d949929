"""Image templates that are made in the background: one after the other, unless one hangs."""

from __future__ import annotations

import asyncio

import pytest

from squall.agent.template import wanted
from squall.agent.template.wanted import Wanted
from squall.agent.template.way import Wish
from squall.protocol.node import ContainerStart
from squall.protocol.task_set import TaskSet
from tests.agent.parts import until

pytestmark = pytest.mark.long

START = ContainerStart("ct-00000001", "ap-1", "fu-1", "im-1")


class Makes:
    """Notes what is made, and is done when it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.may_end = asyncio.Event()

    async def make(self, wish: Wish) -> None:
        self.begun.append(wish.key)
        await self.may_end.wait()


async def test_one_is_made_after_the_other() -> None:
    makes, tasks = Makes(), TaskSet()
    one = Wanted(makes.make, tasks)

    for key in ("a", "b"):
        one.begin_later(Wish(key, START, START), 0.0)
    await until(lambda: makes.begun)
    await asyncio.sleep(0.05)
    assert makes.begun == ["a"]
    makes.may_end.set()

    await until(lambda: makes.begun == ["a", "b"])
    await tasks.close()


async def test_one_is_coming_from_when_it_is_wanted_until_it_is_made() -> None:
    makes, tasks = Makes(), TaskSet()
    one = Wanted(makes.make, tasks)
    one.started_with("fu-1", "a")
    assert not one.is_coming(one.key_of("fu-1"))

    one.begin_later(Wish("a", START, START), 0.0)
    assert one.is_coming(one.key_of("fu-1"))
    assert not one.is_coming(one.key_of("fu-2"))
    await until(lambda: makes.begun)
    assert one.is_coming("a")
    makes.may_end.set()

    await until(lambda: not one.is_coming("a"))
    await tasks.close()


async def test_one_that_hangs_does_not_keep_the_others_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted, "TURN_S", 0.05)
    makes, tasks = Makes(), TaskSet()
    one = Wanted(makes.make, tasks)

    for key in ("hangs", "b"):
        one.begin_later(Wish(key, START, START), 0.0)

    await until(lambda: makes.begun == ["hangs", "b"])
    await tasks.close()
