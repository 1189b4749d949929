"""Not everything that is chosen can be done: who can be helped is, whatever waits before them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squall.server.scheduler.claim import Claim, Pending
from squall.server.scheduler.giving_way import LOOKS_MAX, REFUSED_S, Answer
from squall.server.scheduler.promises import SLOW_S
from squall.server.scheduler.turns import Turns
from tests.server.scheduler.test_giving_way import Stand, make_turns

LARGE = Claim(memory_mib=8_192)
Can = Callable[[str, Pending], Answer]


@dataclass
class World:
    """Functions that can give, and those that wait; what gives way takes for ever to end."""

    turns: Turns
    can: Can
    now: float = 100.0
    got: list[tuple[str, str]] = field(default_factory=list)
    asked: int = 0

    def make(self, donor: str, one: Pending) -> Answer:
        self.asked += 1
        return self.can(donor, one)

    def turn(self, count: int = 32) -> bool:
        """Choose once; whether there is more to look at in the next turn."""
        chosen = self.turns.giving_way.choose(self.now, count, self.make)
        for donor, one in chosen.moves:
            given = Pending("", donor, "im-a", Claim(), f"ap-{donor}")
            self.turns.promise(f"ct-{len(self.got)}", given, one, self.now)
            self.got.append((donor, one.function_id))
        return chosen.has_more

    def tick(self, count: int = 32) -> int:
        """All turns of a second; how many there were."""
        self.now += 1.0
        turns = 1
        while self.turn(count):
            turns += 1
            assert turns < 10_000, "a round has an end"
        return turns


def nothing_of(*names: str) -> Can:
    return lambda donor, _: Answer.NOTHING if donor in names else Answer.MADE


def no_room_for(claim: Claim) -> Can:
    return lambda _, one: Answer.UNFIT if one.claim == claim else Answer.MADE


MANY_LARGE = [Stand(f"large-{number}", 0, 1, claim=LARGE) for number in range(40)]
ONE_LARGE = Stand("a-large", 0, 1, app="poor", claim=Claim(cpu_milli=500))
AS_HEAVY = Stand("b-fits", 0, 1, app="poor", claim=Claim(memory_mib=532), asked_at=1.0)


@pytest.mark.parametrize(
    ("stands", "can", "move"),
    [
        ([Stand("a", 9), Stand("b", 5), Stand("c", 0, 1)], nothing_of("fu-a"), ("fu-b", "fu-c")),
        ([Stand("a", 9), Stand("b", 5, app="a"), Stand("c", 0, 1)], nothing_of("fu-a"), ("fu-b", "fu-c")),
        ([Stand("a", 9), Stand("b", 5, app="c"), Stand("c", 0, 1)], nothing_of("fu-a"), ("fu-b", "fu-c")),
        ([Stand("a", 9), *MANY_LARGE, Stand("c", 0, 1, asked_at=9.0)], no_room_for(LARGE), ("fu-a", "fu-c")),
        ([Stand("a", 9), ONE_LARGE, AS_HEAVY], no_room_for(ONE_LARGE.claim), ("fu-a", "fu-b-fits")),
    ],
    ids=["app", "function", "own-app", "many", "same-weight"],
)
def test_what_cannot_be_done_is_passed_over(stands: list[Stand], can: Can, move: tuple[str, str]) -> None:
    world = World(make_turns(*stands), can)

    world.tick()

    assert move in world.got
    assert {one for _, one in world.got} == {move[1]}


def test_who_had_nothing_to_give_is_asked_again_after_some_time() -> None:
    stands = Stand("a", 9), Stand("b", 0, 1)
    world = World(make_turns(*stands), nothing_of("fu-a"))
    world.tick()

    world.can = nothing_of()
    for _ in range(int(REFUSED_S) + 2):
        world.tick()

    assert world.got == [("fu-a", "fu-b")]
    assert world.asked == 2, "not in between"


def test_what_is_promised_is_neither_given_nor_promised_twice() -> None:
    world = World(make_turns(Stand("a", 10, 90), Stand("b", 0, 90)), nothing_of())

    for _ in range(int(SLOW_S) - 1):
        world.tick()

    assert world.got == [("fu-a", "fu-b")] * 5


def test_an_end_makes_room_for_another_promise() -> None:
    world = World(make_turns(Stand("a", 10, 90), Stand("b", 0, 90)), nothing_of())
    world.tick(count=2)
    assert len(world.got) == 2
    world.tick(count=2)
    assert len(world.got) == 2, "so many at a time"

    for number in range(2):
        world.turns.giving_way.promises.ended(f"ct-{number}")
        world.turns.add_share(Stand("a", 1).pending(number), -1)
        world.turns.unwant(f"ct-b-{number}")
        world.turns.add_share(Stand("b", 1).pending(number), +1)
    for _ in range(3):
        world.tick()

    assert world.got == [("fu-a", "fu-b")] * 5


def test_what_takes_long_is_counted_on_no_more() -> None:
    world = World(make_turns(Stand("a", 10), Stand("b", 0, 1)), nothing_of())
    world.tick(count=1)

    for _ in range(int(SLOW_S) + 1):
        world.tick(count=1)

    assert world.got == [("fu-a", "fu-b")] * 2


@pytest.mark.parametrize("answer", [Answer.UNFIT, Answer.NOTHING])
def test_what_cannot_be_done_is_tried_once_in_a_round(answer: Answer) -> None:
    donors = [Stand(f"rich-{number}", 9) for number in range(2 * LOOKS_MAX)]
    waiting = [Stand(f"poor-{number}", 0, 3) for number in range(20)]
    world = World(make_turns(*donors, *waiting), lambda *_: answer)

    turns = world.tick()

    assert world.asked == len(donors)
    assert turns < 10
    assert world.got == []


def test_who_has_no_room_is_not_asked_again_for_each_image() -> None:
    donors = [Stand(f"rich-{number}", 9) for number in range(50)]
    waiting = [Stand(f"poor-{number}", 0, 3, image_id=f"im-{number}") for number in range(50)]
    world = World(make_turns(*donors, *waiting), no_room_for(Claim()))

    world.tick()

    assert world.asked == len(donors)


def test_who_lacks_an_image_is_asked_again_for_another_one_only() -> None:
    donors = [Stand(f"rich-{number}", 9) for number in range(50)]
    waiting = [Stand(f"poor-{number}", 0, 1, image_id="im-missing", asked_at=number / 10) for number in range(20)]
    able = Stand("able", 0, 1, image_id="im-there", asked_at=9.0)
    lacks = {"im-missing"}
    can: Can = lambda _, one: Answer.NO_IMAGE if one.image_id in lacks else Answer.MADE  # noqa: E731
    world = World(make_turns(*donors, *waiting, able), can)

    world.tick()
    assert world.asked == len(donors) + 1
    assert [one for _, one in world.got] == ["fu-able"]

    lacks.clear()
    for _ in range(int(REFUSED_S) + 1):
        world.tick()

    assert {one for _, one in world.got} == {"fu-able", *(f"fu-{one.name}" for one in waiting)}


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_who_can_be_helped_is_within_a_bounded_number_of_turns(seed: int) -> None:
    rng = random.Random(seed)
    stands = [
        Stand(
            f"{number}", rng.randrange(6), rng.randrange(4), f"{rng.randrange(8)}", float(rng.randrange(90)),
            Claim(cpu_milli=rng.choice((0, 0, 500)), memory_mib=rng.choice((32, 532, 8_192))),
        )
        for number in range(rng.randrange(40))
    ]  # fmt: skip
    able = Stand("able", rng.randrange(1, 3))
    helped = Stand("helped", 0, 1, asked_at=97.0, claim=Claim(memory_mib=64))
    have_nothing = {f"fu-{one.name}" for one in stands if rng.random() < 0.4}
    make_room = {(f"fu-{donor.name}", one.claim): rng.random() < 0.5 for donor in stands for one in stands} | {
        ("fu-able", helped.claim): True
    }

    def can(donor: str, one: Pending) -> Answer:
        if donor in have_nothing:
            return Answer.NOTHING
        return Answer.MADE if make_room.get((donor, one.claim)) else Answer.UNFIT

    world = World(make_turns(*stands, able, helped), can)
    turns = 0
    for _ in range(30):
        turns += world.tick(count=2)
        if ("fu-able", "fu-helped") in world.got:
            break

    assert ("fu-able", "fu-helped") in world.got
    # Some of what is promised before takes for ever; each look is at one function and one donor at most.
    assert turns < 60
