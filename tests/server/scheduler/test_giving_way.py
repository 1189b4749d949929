"""Who gives up busy containers for whom."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


def test_of_each_function_only_who_is_next_is_looked_at() -> None:
    looked_at: list[Pending] = []

    def look_at(one: Pending) -> Pending:
        looked_at.append(one)
        return one

    def watched(standing: Standing) -> Standing:
        return replace(standing, waiting=map(look_at, standing.waiting))

    even = [watched(make_standing(f"f{number}", 5, 32)) for number in range(100)]
    uneven = [watched(make_standing("rich", 50, 32)), watched(make_standing("poor", 0, 32))]

    assert give_way(even, now=100.0, count=32) == []
    assert len(looked_at) == 100
    looked_at.clear()
    assert len(give_way([*even, *uneven], now=100.0, count=8)) == 8
    assert len(looked_at) <= 102 + 8


def test_who_asks_for_less_is_not_kept_waiting_by_who_asks_for_more() -> None:
    heavy = Pending("ct-heavy", "fu-heavy", "im-a", Claim(cpu_milli=64_000), "ap-poor", 0.0)
    poor = [Standing("ap-poor", "fu-heavy", WEIGHT, WEIGHT, (heavy,)), make_standing("light", 2, 1, app="poor")]

    found = give_way([make_standing("rich", 9), *poor], now=100.0, count=9)

    assert [(donor, one.function_id) for donor, one in found] == [("fu-rich", "fu-light")]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 4), st.sampled_from((0, 1_000, 9_000))),
        max_size=9,
    )
)
def test_nobody_gives_what_leaves_them_with_less_than_who_gets_it(functions: list[tuple[int, int, int, int]]) -> None:
    standings = []
    for number, (app, has, wants, milli) in enumerate(functions):
        claim = Claim(cpu_milli=milli)
        waiting = tuple(
            Pending(f"ct-{number}-{index}", f"fu-{number}", "im-a", claim, f"ap-{app}", float(index))
            for index in range(wants)
        )
        standings.append(Standing(f"ap-{app}", f"fu-{number}", has * claim.weight, claim.weight, waiting))
    known = {standing.function_id: standing for standing in standings}
    shares = {standing.function_id: standing.share for standing in standings}
    apps: Counter[str] = Counter()
    for standing in standings:
        apps[standing.app_id] += standing.share

    for donor, one in give_way(standings, now=100.0, count=30):
        giver = known[donor]
        is_inside = giver.app_id == one.app_id
        lacked = shares[one.function_id] if is_inside else apps[one.app_id]
        shares[donor] -= giver.weight
        apps[giver.app_id] -= giver.weight
        shares[one.function_id] += one.claim.weight
        apps[one.app_id] += one.claim.weight
        left, got = (shares[donor], shares[one.function_id]) if is_inside else (apps[giver.app_id], apps[one.app_id])
        assert donor != one.function_id
        assert shares[donor] >= 0
        assert not lacked or left >= got
