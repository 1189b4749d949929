"""Many things are looked at in several turns of the event loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from squall.server.dispatch.clock import ManualClock
from squall.server.dispatch.walk import Walk
from squall.server.model.clock import Timer


class Loop(ManualClock):
    """Time stands still, turn after turn."""

    def __init__(self) -> None:
        super().__init__()
        self._next: list[Callable[[], None]] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        assert delay_s == 0.0
        self._next.append(callback)
        return super().call_later(0.0, lambda: None)

    def turn(self) -> None:
        due, self._next = self._next, []
        for callback in due:
            callback()


def turns_of(clock: Loop, seen: list[int]) -> list[list[int]]:
    """What is looked at in each turn, until nothing is."""
    turns: list[list[int]] = []
    while seen:
        turns.append(sorted(seen))
        seen.clear()
        clock.turn()
    return turns


def test_each_is_looked_at_once_and_so_many_in_a_turn() -> None:
    clock, seen = Loop(), list[int]()
    walk = Walk(clock, seen.append, at_a_time=4)

    walk.begin(range(10))

    turns = turns_of(clock, seen)
    assert [len(one) for one in turns] == [4, 4, 2]
    assert sorted(one for turn in turns for one in turn) == list(range(10))


def test_a_walk_under_way_is_finished_before_the_next() -> None:
    clock, seen = Loop(), list[int]()
    walk = Walk(clock, seen.append, at_a_time=4)

    walk.begin(range(6))
    walk.begin(range(100, 200))
    assert [len(one) for one in turns_of(clock, seen)] == [4, 2]

    walk.begin((7,))
    assert seen == [7]


def test_what_a_look_raises_ends_no_walk() -> None:
    clock, seen = Loop(), list[int]()

    def look(one: int) -> None:
        seen.append(one)
        if one == 3:
            raise ValueError(one)

    walk = Walk(clock, look, at_a_time=1)

    with pytest.raises(ValueError, match="3"):
        walk.begin(range(4))
    for _ in range(3):
        clock.turn()

    assert sorted(seen) == [0, 1, 2, 3]
