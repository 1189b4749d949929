"""Who gives up busy containers for whom."""

from __future__ import annotations

from collections import Counter

import pytest

from squall.server.scheduler.claim import Claim, Pending
from squall.server.scheduler.giving_way import GIVE_WAY_S, Standing, give_way

WEIGHT = Claim().weight


def make_standing(name: str, has: int, wants: int = 0, app: str = "", asked_at: float = 0.0) -> Standing:
    app_id = f"ap-{app or name}"
    waiting = tuple(
        Pending(f"ct-{name}-{number}", f"fu-{name}", "im-a", Claim(), app_id, asked_at) for number in range(wants)
    )
    return Standing(app_id, f"fu-{name}", has * WEIGHT, WEIGHT, waiting)


@pytest.mark.parametrize(
    ("standings", "moves"),
    [
        ([make_standing("a", 10, 90), make_standing("b", 0, 1)], {("fu-a", "fu-b"): 1}),
        ([make_standing("a", 10, 90), make_standing("b", 0, 90)], {("fu-a", "fu-b"): 5}),
        ([make_standing("a", 5, 90), make_standing("b", 5, 90)], {}),
        ([make_standing("a", 6, 90), make_standing("b", 5, 90)], {}),
        ([make_standing("a", 1), make_standing("b", 0, 1)], {("fu-a", "fu-b"): 1}),
        ([make_standing("a", 10, 90), make_standing("b", 0, 9, asked_at=99.0)], {}),
        ([make_standing("a", 10), make_standing("b", 0, 9, app="a")], {("fu-a", "fu-b"): 5}),
        ([make_standing("a", 3), make_standing("b", 7), make_standing("c", 0, 2)], {("fu-b", "fu-c"): 2}),
        ([], {}),
    ],
    ids=["one", "half", "even", "nearly", "last", "soon", "function", "richest", "nobody"],
)
def test_who_has_most_gives_until_both_have_as_much(
    standings: list[Standing], moves: dict[tuple[str, str], int]
) -> None:
    found = give_way(standings, now=GIVE_WAY_S + 98.5, count=32)

    assert Counter((donor, one.function_id) for donor, one in found) == Counter(moves)


def test_only_so_many_give_way_at_a_time() -> None:
    assert len(give_way([make_standing("a", 100, 9), make_standing("b", 0, 100)], now=100.0, count=8)) == 8
