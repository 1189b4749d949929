"""What is expected of how long a function loads."""

from __future__ import annotations

from squall.agent.template.loads import _KNOWN_MAX, Loads


def test_the_last_time_counts() -> None:
    loads = Loads()
    assert loads.expected_s("fu-1") == 0.0
    loads.note("fu-1", 90.0)
    loads.note("fu-1", 2.0)

    assert loads.expected_s("fu-1") == 2.0
    assert loads.expected_s("fu-2") == 0.0


def test_what_was_not_loaded_says_that_it_takes_longer_and_not_how_long() -> None:
    loads = Loads()
    loads.not_within("fu-1", 60.0)
    assert loads.expected_s("fu-1") == 60.0

    loads.note("fu-1", 300.0)
    loads.not_within("fu-1", 1.0)
    assert loads.expected_s("fu-1") == 300.0


def test_those_heard_of_longest_ago_are_forgotten() -> None:
    loads = Loads()
    loads.note("fu-first", 1.0)
    for number in range(_KNOWN_MAX):
        loads.not_within(f"fu-{number}", 1.0)

    assert loads.expected_s("fu-first") == 0.0
    assert loads.expected_s("fu-0") == 1.0


def test_of_an_object_that_was_never_loaded_what_the_last_one_took_is_expected() -> None:
    loads = Loads()
    loads.note("fu-small", 2.0, "fu-class")
    loads.not_within("fu-large", 60.0, "fu-class")

    assert loads.expected_s("fu-new", "fu-class") == 60.0
    assert loads.expected_s("fu-small", "fu-class") == 2.0
    assert loads.expected_s("fu-new", "fu-other") == loads.expected_s("fu-new") == 0.0
