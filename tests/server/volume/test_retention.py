"""Which versions stay: the newest, as many as are wanted, as long as is wanted, and few of those nobody asked for."""

from __future__ import annotations

import pytest

from squall.protocol.volume import VolumeRetention
from squall.server.model.volume import StoredVolumeVersion
from squall.server.volume.retention import DAY_S, HOUR_S, problem, to_forget

NOW = 1_000 * DAY_S


def versions(*ages_s: float, cause: str = "commit") -> list[StoredVolumeVersion]:
    """The oldest has number 1."""
    return [
        StoredVolumeVersion("vo-1", number, created_at=NOW - age_s, cause=cause)
        for number, age_s in enumerate(sorted(ages_s, reverse=True), 1)
    ]


def test_a_version_goes_when_it_is_old_and_enough_are_newer() -> None:
    found = versions(*[number * DAY_S for number in range(1, 6)])

    assert to_forget(found, VolumeRetention(2, 2.5), NOW) == {1, 2, 3}
    assert to_forget(found, VolumeRetention(4, 0), NOW) == {1}
    assert to_forget(found, VolumeRetention(1, 4.5), NOW) == {1}
    assert to_forget(found, VolumeRetention(1, 0), NOW, held={2}) == {1, 3, 4}


def test_the_newest_stays_however_old_it_is() -> None:
    assert to_forget(versions(900 * DAY_S), VolumeRetention(1, 0), NOW) == frozenset()
    assert to_forget([], VolumeRetention(1, 0), NOW) == frozenset()


def test_of_commits_that_nobody_asked_for_the_last_of_each_hour_stays() -> None:
    ages = [HOUR_S * 3 - minute * 60 for minute in range(180)]
    background = versions(*ages, cause="background commit of ct-1")

    gone = to_forget(background, VolumeRetention(1, 7), NOW)

    kept = [one for one in background if one.number not in gone]
    assert len([one for one in kept if NOW - one.created_at > HOUR_S]) == 2
    assert all(one in kept for one in background if NOW - one.created_at <= HOUR_S)
    assert to_forget(versions(*ages), VolumeRetention(1, 7), NOW) == frozenset()


def test_versions_that_a_clock_put_into_the_future_stay() -> None:
    assert to_forget(versions(-5 * DAY_S, -4 * DAY_S, 0), VolumeRetention(1, 1), NOW) == frozenset()


@pytest.mark.parametrize("retention", [VolumeRetention(0, 1), VolumeRetention(1, -1), VolumeRetention(1, float("inf"))])
def test_what_makes_no_sense_has_a_problem(retention: VolumeRetention) -> None:
    assert problem(retention)
    assert not problem(VolumeRetention())
