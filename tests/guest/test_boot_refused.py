"""A template that is told there is nothing to load says so, and asks no more."""

from __future__ import annotations

from squall.protocol.guest import BootRefused, GuestHello
from tests.guest.started_template import Start


def test_a_template_of_what_there_is_not_any_more_is_unfit(start: Start) -> None:
    one = start("")
    one.agent.expect("GuestHello", GuestHello)

    one.agent.say("BootRefused", BootRefused("function square was deployed anew"))

    assert one.template.report() == {"unfit": "function square was deployed anew"}
    assert one.template.leave() == 0
