"""Who gives up busy containers for whom."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squall.server.scheduler.claim import Claim, Pending
from squall.server.scheduler.giving_way import GIVE_WAY_S, LOOKS_MAX, Chosen
from squall.server.scheduler.order import Order
from squall.server.scheduler.turns import Turns

CLAIM = Claim()


@dataclass(frozen=True)
class Stand:
    """What a function has and wants."""

    name: str
    has: int
    wants: int = 0
    app: str = ""
    asked_at: float = 0.0
    claim: Claim = CLAIM
    image_id: str = "im-a"

    def pending(self, number: int) -> Pending:
        app_id = f"ap-{self.app or self.name}"
        return Pending(f"ct-{self.name}-{number}", f"fu-{self.name}", self.image_id, self.claim, app_id, self.asked_at)


def make_turns(*stands: Stand) -> Turns:
    turns = Turns()
    for one in stands:
        for number in range(one.has):
            turns.add_share(one.pending(number), +1)
        for number in range(one.wants):
            turns.want(one.pending(one.has + number))
    return turns


def moves_of(chosen: Chosen) -> Counter[tuple[str, str]]:
    return Counter((donor, one.function_id) for donor, one in chosen.moves)


@pytest.mark.parametrize(
    ("stands", "moves"),
    [
        ([Stand("a", 10, 90), Stand("b", 0, 1)], {("fu-a", "fu-b"): 1}),
        ([Stand("a", 10, 90), Stand("b", 0, 90)], {("fu-a", "fu-b"): 5}),
        ([Stand("a", 5, 90), Stand("b", 5, 90)], {}),
        ([Stand("a", 6, 90), Stand("b", 5, 90)], {}),
        ([Stand("a", 1), Stand("b", 0, 1)], {("fu-a", "fu-b"): 1}),
        ([Stand("a", 10, 90), Stand("b", 0, 9, asked_at=99.0)], {}),
        ([Stand("a", 10), Stand("b", 0, 9, app="a")], {("fu-a", "fu-b"): 5}),
        ([Stand("a", 3), Stand("b", 7), Stand("c", 0, 2)], {("fu-b", "fu-c"): 2}),
        ([], {}),
    ],
    ids=["one", "half", "even", "nearly", "last", "soon", "function", "richest", "nobody"],
)
def test_who_has_most_gives_until_both_have_as_much(stands: list[Stand], moves: dict[tuple[str, str], int]) -> None:
    turns = make_turns(*stands)

    chosen = turns.giving_way.choose(now=GIVE_WAY_S + 98.5, count=32)

    assert moves_of(chosen) == Counter(moves)
    assert not chosen.has_more


def test_what_is_chosen_again_when_nothing_has_changed_is_the_same() -> None:
    turns = make_turns(Stand("a", 10, 90), Stand("b", 0, 90), Stand("c", 2, 3), Stand("d", 6, 1, app="b"))
    first = turns.giving_way.choose(now=100.0, count=32)

    assert moves_of(first)
    for _ in range(5):
        assert moves_of(turns.giving_way.choose(now=101.0, count=32)) == moves_of(first)


def test_only_so_many_give_way_at_a_time() -> None:
    turns = make_turns(Stand("a", 100, 9), Stand("b", 0, 100))

    assert len(turns.giving_way.choose(now=100.0, count=8).moves) == 8


def test_who_asks_for_less_is_not_kept_waiting_by_who_asks_for_more() -> None:
    heavy = Stand("heavy", 1, 1, app="poor", claim=Claim(cpu_milli=64_000))
    turns = make_turns(Stand("rich", 99), heavy, Stand("light", 2, 1, app="poor"))

    chosen = turns.giving_way.choose(now=100.0, count=9)

    assert ("fu-rich", "fu-light") in moves_of(chosen)


# How much is done in a turn


def count_changes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often an order is changed from now on: of all that is done, the only thing that could be done for each."""
    counts: Counter[str] = Counter()

    def counted(name: str) -> None:
        real = getattr(Order, name)

        def call(*args: object) -> object:
            counts["all"] += 1
            return real(*args)

        monkeypatch.setattr(Order, name, call)

    for name in ("set", "discard", "first"):
        counted(name)
    return counts


@pytest.mark.parametrize("functions", [500, 5_000])
def test_a_choice_costs_no_more_with_ten_times_as_many_functions(
    functions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stands = [Stand(f"f{number}", 2, 1, app=f"{number % 10}") for number in range(functions)]
    turns = make_turns(*stands, Stand("rich", 5_000), Stand("poor", 0, 40))
    while turns.giving_way.choose(now=100.0, count=1).has_more:
        pass
    counts = count_changes(monkeypatch)

    chosen = turns.giving_way.choose(now=101.0, count=32)

    assert moves_of(chosen)["fu-rich", "fu-poor"] == 32
    assert counts["all"] < 2_500


def test_lines_without_end_are_looked_at_over_several_turns_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    apps = 3 * LOOKS_MAX
    turns = make_turns(*(Stand(f"f{number}", 2, 1) for number in range(apps)))
    counts, turns_taken, most = count_changes(monkeypatch), 0, 0

    while True:
        counts.clear()
        chosen = turns.giving_way.choose(now=100.0, count=32)
        most, turns_taken = max(most, counts["all"]), turns_taken + 1
        assert chosen.moves == []
        if not chosen.has_more:
            break
        assert turns_taken < 20, "a round has an end"

    assert most < 20 * LOOKS_MAX
    assert turns_taken >= 6, "three turns until all stand in lines, three for the lines"
    # What has come meanwhile is seen, and so are those who were passed over once it has changed what they may get.
    for number in range(50):
        turns.add_share(Stand("rich", 1).pending(number), +1)
    got: set[str] = set()
    for _ in range(20):
        got |= {one.function_id for _, one in turns.giving_way.choose(now=101.0, count=32).moves}
    assert got


# Kept as it changes, and looked at from scratch

NUMBERS = [1_009 * 3**number for number in range(8)]
"""Of the cores that the containers of each function claim, so that no two have as much."""


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_kept_chooses_as_what_is_told_of_everything_anew(seed: int) -> None:
    rng = random.Random(seed)
    kept, held, waiting = Turns(), list[Pending](), dict[str, Pending]()

    for step in range(60):
        what, function = rng.random(), rng.randrange(8)
        if what < 0.4:
            claim = Claim(cpu_milli=NUMBERS[function])
            held.append(Pending(f"ct-{step}", f"fu-{function}", "im-a", claim, f"ap-{function % 3}"))
            kept.add_share(held[-1], +1)
        elif what < 0.5 and held:
            kept.add_share(held.pop(rng.randrange(len(held))), -1)
        elif what < 0.9:
            claim = Claim(cpu_milli=NUMBERS[function])
            one = Pending(f"ct-{step}", f"fu-{function}", "im-a", claim, f"ap-{function % 3}", float(step))
            waiting[one.container_id] = one
            kept.want(one)
        elif waiting:
            key = rng.choice(list(waiting))
            del waiting[key]
            kept.unwant(key)
        if step % 5 == 0:
            anew = Turns()
            for one in held:
                anew.add_share(one, +1)
            for one in waiting.values():
                anew.want(one)
            now = float(step)
            assert kept.giving_way.choose(now, 1_000) == anew.giving_way.choose(now, 1_000)


@pytest.mark.long
@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 4), st.sampled_from((0, 1_000, 9_000))),
        max_size=9,
    )
)
def test_nobody_gives_what_leaves_them_with_less_than_who_gets_it(functions: list[tuple[int, int, int, int]]) -> None:
    stands = [
        Stand(f"{number}", has, wants, f"{app}", float(number), Claim(cpu_milli=milli))
        for number, (app, has, wants, milli) in enumerate(functions)
    ]
    known = {f"fu-{one.name}": one for one in stands}
    shares = {key: one.has * one.claim.weight for key, one in known.items()}
    apps: Counter[str] = Counter()
    for key, one in known.items():
        apps[f"ap-{one.app}"] += shares[key]

    for donor, pending in make_turns(*stands).giving_way.choose(now=100.0, count=30).moves:
        giver, giver_app = known[donor], f"ap-{known[donor].app}"
        is_inside = giver_app == pending.app_id
        lacked = shares[pending.function_id] if is_inside else apps[pending.app_id]
        shares[donor] -= giver.claim.weight
        apps[giver_app] -= giver.claim.weight
        shares[pending.function_id] += pending.claim.weight
        apps[pending.app_id] += pending.claim.weight
        inside = shares[donor], shares[pending.function_id]
        left, got = inside if is_inside else (apps[giver_app], apps[pending.app_id])
        assert donor != pending.function_id
        assert shares[donor] >= 0
        assert not lacked or left >= got
