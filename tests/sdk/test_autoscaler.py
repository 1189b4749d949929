"""What `.autoscaler.update()` asks for, and what it refuses before it asks."""

from __future__ import annotations

from typing import Any

import pytest

import squall
from squall.exception import InvalidError
from squall.protocol.autoscaler import AutoscalerSettings, AutoscalerUpdate
from squall.sdk._autoscaler import FunctionAutoscaler
from squall.types import FunctionAutoscalerSettings


class Asked:
    """A function whose server notes what it is asked."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    async def scaled(self) -> tuple[Any, str]:
        return self, "fu-1"

    async def request(self, method: str, record: Any, reply: type[Any]) -> AutoscalerSettings:
        self.records.append(record)
        return AutoscalerSettings(1, None, 0, 60.0)


def test_what_is_left_out_is_not_asked_for() -> None:
    asked = Asked()

    found = FunctionAutoscaler(asked, "f").update(min_containers=3)

    assert asked.records == [AutoscalerUpdate("fu-1", min_containers=3)]
    assert found == FunctionAutoscalerSettings(1, None, 60, 0)


def test_none_is_zero_or_no_limit() -> None:
    asked = Asked()

    FunctionAutoscaler(asked, "f").update(min_containers=None, max_containers=None, buffer_containers=None)

    assert asked.records == [AutoscalerUpdate("fu-1", min_containers=0, is_unbounded=True, buffer_containers=0)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min_containers": -1}, "min_containers=-1 must be an integer from 0 to 100,000, or None"),
        ({"min_containers": 1.5}, "min_containers=1.5 must be an integer from 0 to 100,000, or None"),
        ({"max_containers": 0}, "max_containers=0 must be an integer from 1 to 100,000, or None"),
        ({"buffer_containers": True}, "buffer_containers=True must be an integer from 0 to 100,000, or None"),
        ({"scaledown_window": 1}, "scaledown_window=1 must be between 2 and 3600 seconds"),
        ({"scaledown_window": 3_601}, "scaledown_window=3601 must be between 2 and 3600 seconds"),
        ({"scaledown_window": None}, "scaledown_window=None must be a whole number of seconds"),
        ({"min_containers": 3, "max_containers": 2}, "max_containers=2 is less than min_containers=3"),
    ],
)
def test_impossible_values_are_refused_before_anybody_is_asked(given: dict[str, Any], message: str) -> None:
    asked = Asked()

    with pytest.raises(InvalidError, match=message):
        FunctionAutoscaler(asked, "f").update(**given)

    assert asked.records == []


def test_a_handle_has_an_autoscaler() -> None:
    assert isinstance(squall.Function.from_name("app", "f").autoscaler, FunctionAutoscaler)
    assert squall.types.FunctionAutoscalerSettings is FunctionAutoscalerSettings
