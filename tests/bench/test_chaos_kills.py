"""Whatever the seed, each kind of kill comes; and one seed gives one order."""

from __future__ import annotations

from collections import Counter

import pytest

from bench.programs.chaos_kills import WEIGHTS, Kills


def dealt(count: int, seed: int) -> list[str]:
    """All that are due, in their order."""
    kills = Kills(count, seed)
    order = []
    while not kills.is_over:
        order.append(kills.next())
        kills.note(order[-1])
    return order


@pytest.mark.parametrize("count", [5, 6, 25])
def test_each_kind_is_due_under_every_seed(count: int) -> None:
    for seed in range(200):
        order = dealt(count, seed)

        assert len(order) == count
        assert set(order) == set(WEIGHTS)


def test_a_seed_gives_one_order_and_seeds_give_many() -> None:
    assert dealt(25, 4) == dealt(25, 4)
    assert len({tuple(dealt(25, seed)) for seed in range(50)}) == 50


def test_kinds_come_by_their_weight() -> None:
    counts = Counter(dealt(13_000, 1))

    assert all(abs(counts[kind] - 1_000 * weight) < 200 for kind, weight in WEIGHTS.items()), counts


def test_what_is_put_off_stays_due() -> None:
    kills = Kills(6, 1)
    first = kills.next()

    for _ in range(5):
        kills.put_off()
        kills.note(kills.next())
    last = kills.next()
    kills.note(last)

    assert first in kills.done
    assert kills.done.keys() == WEIGHTS.keys()
    assert kills.done.total() == 6


def test_there_is_something_to_kill_until_the_end() -> None:
    kills = Kills(5, 1)

    for _ in range(100):
        kills.note(kills.next())

    assert kills.is_over
    assert kills.done.total() == 100
