"""What a call keeps of what arrives."""

from __future__ import annotations

from typing import Any

from squall.sdk._calls import MapCall, Payload
from squall.sdk._pending import Pending


class NobodyReads:
    """A reader for calls that nobody waits for."""

    def wait(self, pending: Pending[Any], deadline: float | None) -> bool:
        return pending.is_done

    def need(self, who: object) -> None:
        return None

    def unneed(self, who: object) -> None:
        return None


def test_outputs_that_come_again_after_a_reconnect_are_given_once() -> None:
    call = MapCall("fc-1", "fu-1", "", NobodyReads())
    call.add([(number, Payload(b"in")) for number in range(3)])
    first = {"indexes": [0, 1], "statuses": [0, 0], "sizes": [1, 1]}

    call.take_outputs(first, b"ab")
    call.take_outputs(first, b"ab")
    call.take_outputs({"indexes": [1, 2], "statuses": [0, 0], "sizes": [1, 1]}, b"bc")

    assert [(output.number, output.value) for output in call.ready] == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert call.outstanding == 0
