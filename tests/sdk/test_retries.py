"""The ranges of retries."""

from __future__ import annotations

from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol.limits import RETRIES_MAX


@pytest.mark.parametrize(
    "given",
    [
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"max_retries": True},
        {"max_retries": 1, "backoff_coefficient": 0.5},
        {"max_retries": 1, "backoff_coefficient": 11},
        {"max_retries": 1, "initial_delay": 61},
        {"max_retries": 1, "max_delay": 0.5},
        {"max_retries": 1, "max_delay": "long"},
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match="Retries"):
        squall.Retries(**given)


def test_the_limits_themselves_are_allowed() -> None:
    assert squall.Retries(max_retries=0, backoff_coefficient=10, initial_delay=0, max_delay=1).max_retries == 0


def test_what_a_server_would_refuse_is_refused_where_it_is_written() -> None:
    with pytest.raises(InvalidError, match="must be an integer from 0 to 100"):
        squall.App("a").function(retries=101)(test_the_limits_themselves_are_allowed)
    squall.Retries(max_retries=RETRIES_MAX)
