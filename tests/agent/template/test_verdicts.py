"""What is remembered of templates that cannot be."""

from __future__ import annotations

import math

import pytest

from squall.agent.template.verdicts import (
    ALIKE_MIN,
    ATTEMPTS_MAX,
    CAUSE_CHARS_MAX,
    PAUSE_S,
    PAUSE_S_MAX,
    VERDICTS_MAX,
    Verdicts,
    of_function,
    printable,
)
from tests.agent.template.parts import make_template


def test_a_fault_of_the_code_stays() -> None:
    verdicts = Verdicts()
    verdicts.add(make_template(), "a thread", 0.0, is_for_good=True)

    found = verdicts.find("key-1", 1e12)
    assert found is not None
    assert (found.template_id, found.function_id, found.cause) == ("tp-00000001", "fu-1", "a thread")


def test_pauses_grow_to_a_bound_and_end_with_a_success() -> None:
    verdicts, now, pauses = Verdicts(), 0.0, []
    for _ in range(ATTEMPTS_MAX - 1):
        verdicts.add(make_template(), "no memory", now, is_for_good=False)
        found = verdicts.find("key-1", now)
        assert found is not None
        pauses.append(found.until - now)
        now = found.until
        assert verdicts.find("key-1", now) is None
    assert pauses[:3] == [PAUSE_S, 2 * PAUSE_S, 4 * PAUSE_S]
    assert pauses[-1] == max(pauses) == PAUSE_S_MAX

    verdicts.clear("key-1", "fu-1")
    verdicts.add(make_template(), "no memory", now, is_for_good=False)
    found = verdicts.find("key-1", now)
    assert found is not None
    assert found.until - now == PAUSE_S


def test_after_so_many_attempts_it_is_given_up_and_says_how_to_try_again() -> None:
    verdicts, now = Verdicts(), 0.0
    for _ in range(ATTEMPTS_MAX):
        verdicts.add(make_template(), "no memory " * 1_000, now, is_for_good=False)
        found = verdicts.find("key-1", now)
        assert found is not None
        now = found.until

    assert found is not None
    assert found.until == math.inf
    assert found.cause.startswith("no memory no memory")
    assert found.cause.endswith("(given up after 10 attempts; `squall template drop tp-00000001` has it tried again)")
    assert len(found.cause) <= CAUSE_CHARS_MAX
    assert verdicts.forget_if(lambda one: one.template_id == "tp-00000001")
    assert verdicts.find("key-1", now) is None


def test_one_of_a_function_is_not_of_the_others() -> None:
    verdicts = Verdicts()
    verdicts.add(make_template(), "it crashes", 0.0, is_for_good=False, function_id="fu-2")

    assert verdicts.find("key-1", 0.0) is None
    found = verdicts.find(of_function("key-1", "fu-2"), 0.0)
    assert found is not None
    assert found.template_id != make_template().template_id

    verdicts.add(make_template(), "again", 0.0, is_for_good=False, function_id="fu-2")
    again = verdicts.find(of_function("key-1", "fu-2"), 0.0)
    assert again is not None
    assert (again.template_id, again.failure_count) == (found.template_id, 2)


def test_ten_thousand_functions_are_not_all_remembered_but_those_asked_about_are() -> None:
    verdicts = Verdicts()
    for number in range(10_000):
        verdicts.add(make_template(number), "a thread", 0.0, is_for_good=True)
        assert verdicts.find("key-0", 0.0)

    assert len(list(verdicts)) == VERDICTS_MAX
    assert verdicts.find("key-1", 0.0) is None


def test_those_that_nobody_asks_for_any_more_are_forgotten() -> None:
    verdicts = Verdicts()
    for number in (1, 2):
        verdicts.add(make_template(number), "a thread", 0.0, is_for_good=True)

    gone = verdicts.forget_if(lambda one: one.template_id in ("tp-00000001", "tp-00000009"))
    assert [one.template_id for one in gone] == ["tp-00000001"]
    assert verdicts.find("key-1", 0.0) is None
    assert verdicts.find("key-2", 0.0)


def test_what_some_objects_of_a_class_are_unfit_for_the_others_are_but_for_one_now_and_then() -> None:
    verdicts = Verdicts()
    for number in range(ALIKE_MIN):
        assert verdicts.find_alike("class", 0.0) is None
        found_unfit(verdicts, number, "a thread")
    found = verdicts.find_alike("class", PAUSE_S_MAX - 1.0)
    assert found is not None
    assert found.cause == "a thread"
    assert verdicts.find_alike("another", 0.0) is None

    assert verdicts.find_alike("class", PAUSE_S_MAX) is None, "it is tried"
    found_unfit(verdicts, 9, "a thread", PAUSE_S_MAX)
    assert verdicts.find_alike("class", 2 * PAUSE_S_MAX - 1.0)

    for number in (0, 1):
        verdicts.clear(f"key-{number}", f"fu-{number}")
    assert verdicts.find_alike("class", PAUSE_S_MAX) is None


@pytest.mark.parametrize("cause", ["no memory", "another thread", ""], ids=["machine", "other", "takes_long"])
def test_while_one_is_tried_and_whatever_comes_of_it_no_other_is(cause: str) -> None:
    verdicts = Verdicts()
    for number in range(ALIKE_MIN):
        found_unfit(verdicts, number, "a thread")

    assert verdicts.find_alike("class", PAUSE_S_MAX) is None
    assert verdicts.find_alike("class", PAUSE_S_MAX), "one is enough"
    if cause:
        found_unfit(verdicts, 9, cause, PAUSE_S_MAX + 1.0, is_for_good=cause != "no memory")

    assert verdicts.find_alike("class", 2 * PAUSE_S_MAX - 1.0)
    assert verdicts.find_alike("class", 3 * PAUSE_S_MAX) is None


def test_where_one_object_was_fit_the_others_are_tried() -> None:
    verdicts = Verdicts()
    verdicts.found_fit("class")
    verdicts.found_fit("")
    for number in range(ALIKE_MIN):
        found_unfit(verdicts, number, "a thread")
    assert verdicts.find_alike("class", 0.0) is None

    for number in range(VERDICTS_MAX):
        verdicts.found_fit(f"class {number}")
    assert verdicts.find_alike("class", 0.0), "of too many those seen longest ago are forgotten"


def test_several_causes_or_one_of_the_machine_say_nothing_of_other_objects() -> None:
    verdicts = Verdicts()
    for number in range(ALIKE_MIN):
        found_unfit(verdicts, number, f"it takes {number} MiB")
        found_unfit(verdicts, 10 + number, "no memory", is_for_good=False)

    assert verdicts.find_alike("class", 0.0) is None


def found_unfit(verdicts: Verdicts, number: int, cause: str, now: float = 0.0, *, is_for_good: bool = True) -> None:
    template = make_template(number)
    template.family = "class"
    verdicts.add(template, cause, now, is_for_good=is_for_good)


def test_what_user_code_says_is_one_line_that_ends() -> None:
    assert printable("a\x1b[2J\r\nb\u202ec\0 \t d") == "a [2J b c d"
    assert printable("fadenscheinig: Gründe") == "fadenscheinig: Gründe"
    assert len(printable("x" * 10**7)) == CAUSE_CHARS_MAX
    assert printable("") == ""
