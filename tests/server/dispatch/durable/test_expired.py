"""Why a call is not known, as its id tells it."""

from __future__ import annotations

import pytest

from squall.protocol.call_id import owner_mark
from squall.server.dispatch.durable.expired import FIRST_AT, why_unknown
from tests.server.doubles import made_at

NOW = 1_800_000_000.0
KEPT_S = 7 * 24 * 3600.0


@pytest.mark.parametrize(
    ("age_s", "code"),
    [
        (-3600.0, "not_found"),
        (0.0, "not_found"),
        (KEPT_S - 1.0, "not_found"),
        (KEPT_S + 1.0, "expired"),
        (NOW - FIRST_AT - 1.0, "expired"),
        (NOW - FIRST_AT + 1.0, "not_found"),
    ],
)
def test_call_has_expired_when_it_is_older_than_outputs_are_kept(age_s: float, code: str) -> None:
    assert why_unknown(made_at(NOW - age_s), NOW, KEPT_S).code == code


def test_error_says_how_old_the_call_is_and_how_long_outputs_are_kept() -> None:
    message = why_unknown(made_at(NOW - 2 * KEPT_S), NOW, KEPT_S).message

    assert "it was made 14 days ago, and outputs are kept for 7 days" in message


@pytest.mark.parametrize("call_id", ["", "fc-1", "fc-no-such-call", "fc-00000000000000", "fc-zzzzzzzzzzzzzzzz"])
def test_what_is_no_id_of_a_call_never_was(call_id: str) -> None:
    assert why_unknown(call_id, NOW, KEPT_S).code == "not_found"


def test_id_of_another_kind_never_was_a_call() -> None:
    assert why_unknown("ap" + made_at(NOW - 2 * KEPT_S)[2:], NOW, KEPT_S).code == "not_found"


def test_call_that_was_not_spawned_has_not_expired_and_is_told_what_is_kept() -> None:
    error = why_unknown(made_at(NOW - 2 * KEPT_S) + owner_mark("cl-one"), NOW, KEPT_S)

    assert error.code == "not_found"
    assert "spawn" in error.message
